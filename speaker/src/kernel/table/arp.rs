//! The table for ARP.

use std::net::Ipv4Addr;

use arpeggio_wire::{ArpFrame, ArpOperation, Asker, Claim, MIN_FRAME_LEN, MacAddr, Question};

use super::{Cable, QUIET, Row, Side, check_documented, decoded::check_decoded, row};
use crate::kernel::{OURS, Speaker, THERE, Task, arp_client, namespace::Pair, pair};

/// Announced too.
const LAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// Asked for before its first use.
const ASKED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
/// Announced by nobody.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const SOMEBODY: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x99);

#[test]
fn frames_in_and_answers_out() {
    let Some(pair) = pair() else { return };
    // So that the filter is what keeps frames for other machines out.
    pair.here.ip("link set eth0 promisc on");
    let speaker = Speaker::start(&pair.here);
    let there = arp_client(&pair, [OURS, LAST]);
    let announced = [OURS.into(), LAST.into()].into();
    speaker.set(&Task { announced, asked: [ASKED.into()].into(), ..Task::default() });
    let heard = super::heard_for(&there, QUIET);
    let cable = Cable {
        speaker: &speaker,
        here: super::on_this_side(&pair),
        there,
        last: question(&pair, LAST).broadcast().to_bytes().to_vec(),
        is_last: |bytes| ArpFrame::parse(bytes).is_ok_and(|it| it.sender_protocol == LAST),
        describe,
    };
    let (table, answers) = cable.table(&rows(&pair));
    check_decoded(&[heard, answers].concat());
    check_documented("arp", &table);
}

fn question(pair: &Pair, address: Ipv4Addr) -> Question<Ipv4Addr> {
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    Question { address, asker }
}

fn describe(bytes: &[u8]) -> String {
    let frame = ArpFrame::parse(bytes).unwrap();
    assert_eq!(frame.operation, ArpOperation::Reply);
    let to = if frame.destination.is_broadcast() { "everybody" } else { "the asker" };
    let target = match frame.target_protocol {
        Ipv4Addr::UNSPECIFIED => ", target address 0.0.0.0",
        _ => "",
    };
    format!("reply to {to}{target}")
}

fn rows(pair: &Pair) -> Vec<Row> {
    let mut rows = questions(pair);
    rows.extend(claims(pair));
    rows.extend(before_first_use(pair));
    rows.extend(damaged(pair));
    rows.extend(tagged(pair));
    rows
}

fn questions(pair: &Pair) -> Vec<Row> {
    let ours = question(pair, OURS);
    let here = pair.here.link().1;
    let probe = Question { asker: Asker { address: None, ..ours.asker }, ..ours };
    let request = ours.broadcast();
    let no_mac = ArpFrame { sender_hardware: MacAddr::zero(), ..request };
    let group = ArpFrame { sender_hardware: MacAddr(1, 0, 0x5e, 0, 0, 1), ..request };
    let relayed = ArpFrame { source: SOMEBODY, ..request };
    let other_target_mac = ArpFrame { target_hardware: SOMEBODY, ..request };
    vec![
        row("request by broadcast", &request.to_bytes()),
        row("request by unicast (RFC 1122 2.3.2.1)", &ours.unicast(here).to_bytes()),
        row("probe: request from 0.0.0.0 (RFC 5227 2.1.1)", &probe.broadcast().to_bytes()),
        row("request, target hardware address filled in", &other_target_mac.to_bytes()),
        row("request whose Ethernet source is not the asker", &relayed.to_bytes()),
        row(
            "request for an address that is not announced",
            &question(pair, OTHER).broadcast().to_bytes(),
        ),
        row("request to another machine's MAC address", &ours.unicast(SOMEBODY).to_bytes()),
        row("request from a zero MAC address", &no_mac.to_bytes()),
        row("request from a group's MAC address", &group.to_bytes()),
    ]
}

fn claims(pair: &Pair) -> Vec<Row> {
    let there = pair.there.link().1;
    let claim = Claim { address: OURS, mac: there };
    let request = claim.announcement(ArpOperation::Request);
    let reply = claim.announcement(ArpOperation::Reply);
    let to_us = ArpFrame { destination: pair.here.link().1, target_protocol: OTHER, ..reply };
    let in_passing = ArpFrame { sender_protocol: OURS, ..question(pair, OTHER).broadcast() };
    let foreign = Claim { address: OTHER, mac: there }.announcement(ArpOperation::Request);
    let own = Claim { address: OURS, mac: pair.here.link().1 }.announcement(ArpOperation::Request);
    vec![
        row("announcement as request by another machine (RFC 5227 2.3)", &request.to_bytes()),
        row("announcement as reply by another machine", &reply.to_bytes()),
        row("reply by another machine to somebody's question", &to_us.to_bytes()),
        row("request by another machine that uses our address as its own", &in_passing.to_bytes()),
        row("announcement of an address that is not announced", &foreign.to_bytes()),
        Row { from: Side::Here, ..row("a frame that this machine sends", &own.to_bytes()) },
    ]
}

fn before_first_use(pair: &Pair) -> Vec<Row> {
    let there = pair.there.link().1;
    let asked = question(pair, ASKED);
    let answer = Question { asker: Asker { mac: pair.here.link().1, address: None }, ..asked };
    let probe = Question { asker: Asker { address: None, ..asked.asker }, ..asked };
    let claim = Claim { address: ASKED, mac: there }.announcement(ArpOperation::Request);
    vec![
        row("address asked for: reply by another machine", &answer.answer(there).to_bytes()),
        row("address asked for: announcement by another machine", &claim.to_bytes()),
        row("address asked for: another machine's probe", &probe.broadcast().to_bytes()),
        row("address asked for: request", &asked.broadcast().to_bytes()),
    ]
}

fn damaged(pair: &Pair) -> Vec<Row> {
    let request = question(pair, OURS).broadcast().to_bytes();
    let with = |position: usize, value: u8| {
        let mut bytes = request;
        bytes[position] = value;
        bytes
    };
    let mut padded = request.to_vec();
    padded.resize(1514, 0xee);
    vec![
        row("padded to 60 bytes, and to 1514 with anything", &padded),
        row("no padding", &request[..ArpFrame::LEN]),
        row("cut off in the target address", &request[..ArpFrame::LEN - 1]),
        row("cut off in the Ethernet header", &[&request[..12], &[0x08, 0x06]].concat()),
        row("operation 3 (reverse ARP)", &with(21, 3)),
        row("operation 0", &with(21, 0)),
        row("hardware type 6 (IEEE 802)", &with(15, 6)),
        row("protocol type IPv6", &[&request[..16], &[0x86, 0xdd], &request[18..]].concat()),
        row("hardware address length 8", &with(18, 8)),
        row("protocol address length 16", &with(19, 16)),
    ]
}

fn tagged(pair: &Pair) -> Vec<Row> {
    let request = question(pair, OURS).broadcast().to_bytes();
    let tagged = |tag: [u8; 4]| [&request[..12], &tag, &request[12..MIN_FRAME_LEN]].concat();
    let twice = [&tagged([0x88, 0xa8, 0, 5])[..16], &tagged([0x81, 0, 0, 6])[12..]].concat();
    vec![
        row("VLAN tag 5, a network that this machine is not in", &tagged([0x81, 0, 0, 5])),
        row("priority tag, which names no network", &tagged([0x81, 0, 0xe0, 0])),
        row("two VLAN tags", &twice),
    ]
}
