//! The table for NDP.

use std::net::Ipv6Addr;

use arpeggio_wire::{Asker, Claim, MacAddr, NdpFrame, NdpMessage, Question};

use super::{Cable, QUIET, Row, Side, check_documented, decoded::check_decoded, row};
use crate::kernel::{OURS_V6, Speaker, THERE_V6, Task, namespace::Pair, ndp_client, pair};

/// Announced too.
const LAST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
/// Asked for before its first use.
const ASKED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12);
/// Announced by nobody.
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
const SOMEBODY: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x99);

/// Where fields of a solicitation stand.
const PAYLOAD_LENGTH: usize = 19;
const NEXT_HEADER: usize = 20;
const HOP_LIMIT: usize = 21;
const SOURCE: usize = 22;
const MESSAGE: usize = 54;
const CODE: usize = 55;
const CHECKSUM: usize = 56;
const OPTION: usize = 78;

#[test]
fn frames_in_and_answers_out() {
    let Some(pair) = pair() else { return };
    pair.here.ip("link set eth0 promisc on");
    let speaker = Speaker::start(&pair.here);
    let there = ndp_client(&pair, [OURS_V6, LAST]);
    let announced = [OURS_V6.into(), LAST.into()].into();
    speaker.set(&Task { announced, asked: [ASKED.into()].into(), ..Task::default() });
    let heard = super::heard_for(&there, QUIET);
    let cable = Cable {
        speaker: &speaker,
        here: super::on_this_side(&pair),
        there,
        last: question(&pair, LAST).multicast().to_bytes().to_vec(),
        is_last: |bytes| NdpFrame::parse(bytes).is_ok_and(|it| it.target == LAST),
        describe,
    };
    let (table, answers) = cable.table(&rows(&pair));
    check_decoded(&[heard, answers].concat());
    check_documented("ndp", &table);
}

fn question(pair: &Pair, address: Ipv6Addr) -> Question<Ipv6Addr> {
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE_V6) };
    Question { address, asker }
}

fn describe(bytes: &[u8]) -> String {
    let frame = NdpFrame::parse(bytes).unwrap();
    let NdpMessage::Advertisement { router, solicited, overriding } = frame.message else {
        panic!("{frame:?}");
    };
    assert_eq!((router, frame.link_address), (false, Some(frame.source)));
    let to = if frame.receiver.is_multicast() { "all nodes" } else { "the asker" };
    format!("advertisement to {to}, S={} O={}", u8::from(solicited), u8::from(overriding))
}

fn rows(pair: &Pair) -> Vec<Row> {
    let mut rows = questions(pair);
    rows.extend(claims(pair));
    rows.extend(before_first_use(pair));
    rows.extend(refused(pair));
    rows.extend(damaged(pair));
    rows
}

fn questions(pair: &Pair) -> Vec<Row> {
    let ours = question(pair, OURS_V6);
    let here = pair.here.link().1;
    let probe = Question { asker: Asker { address: None, ..ours.asker }, ..ours };
    let silent = NdpFrame { link_address: None, ..ours.unicast(here) };
    let other = question(pair, OTHER);
    vec![
        row("solicitation to the group", &ours.multicast().to_bytes()),
        row("solicitation to us alone (RFC 4861 7.3.3)", &ours.unicast(here).to_bytes()),
        row("solicitation without link-layer address option", &silent.to_bytes()),
        row(
            "duplicate address detection: source `::` (RFC 4862 5.4.2)",
            &probe.multicast().to_bytes(),
        ),
        row(
            "unknown options: nonce (RFC 3971)",
            &with_option(ours.multicast(), &[14, 1, 1, 2, 3, 4, 5, 6]),
        ),
        row("solicitation for an address that is not announced", &other.multicast().to_bytes()),
        row("solicitation to another machine's MAC address", &ours.unicast(SOMEBODY).to_bytes()),
    ]
}

fn claims(pair: &Pair) -> Vec<Row> {
    let there = pair.there.link().1;
    let claim = Claim { address: OURS_V6, mac: there }.advertisement();
    let no_option = NdpFrame { link_address: None, ..claim };
    let solicited = NdpMessage::Advertisement { router: false, solicited: true, overriding: true };
    let to_group = NdpFrame { message: solicited, ..claim };
    let answer = NdpFrame {
        destination: pair.here.link().1,
        receiver: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        ..to_group
    };
    let foreign = Claim { address: OTHER, mac: there }.advertisement();
    let own = Claim { address: OURS_V6, mac: pair.here.link().1 }.advertisement();
    vec![
        row("advertisement by another machine", &claim.to_bytes()),
        row("advertisement without link-layer address option", &no_option.to_bytes()),
        row("solicited advertisement by another machine to us", &answer.to_bytes()),
        row("solicited advertisement to a group (RFC 4861 7.1.2)", &to_group.to_bytes()),
        row("advertisement of an address that is not announced", &foreign.to_bytes()),
        Row { from: Side::Here, ..row("a frame that this machine sends", &own.to_bytes()) },
    ]
}

fn before_first_use(pair: &Pair) -> Vec<Row> {
    let there = pair.there.link().1;
    let asked = question(pair, ASKED);
    let probe = Question { asker: Asker { address: None, ..asked.asker }, ..asked };
    vec![
        row("address asked for: advertisement to all nodes", &probe.answer(there).to_bytes()),
        row("address asked for: another machine's probe", &probe.multicast().to_bytes()),
        row("address asked for: solicitation", &asked.multicast().to_bytes()),
    ]
}

/// What RFC 4861 section 7.1.1 tells to discard.
fn refused(pair: &Pair) -> Vec<Row> {
    let ours = question(pair, OURS_V6);
    let here = pair.here.link().1;
    let solicitation = ours.multicast().to_bytes().to_vec();
    let with = |position: usize, value: u8| changed(solicitation.clone(), position, value);
    let probe = Question { asker: Asker { address: None, ..ours.asker }, ..ours };
    let probe_with_mac = NdpFrame { link_address: Some(ours.asker.mac), ..probe.multicast() };
    let probe_to_us = NdpFrame { receiver: OURS_V6, ..probe.unicast(here) };
    let long_mac = with_option(NdpFrame { link_address: None, ..ours.multicast() }, &[1; 16]);
    let mut wrong = solicitation.clone();
    wrong[CHECKSUM] ^= 1;
    vec![
        row("hop limit 254: forwarded by a router", &with(HOP_LIMIT, 254)),
        row("wrong checksum", &wrong),
        row("code 1", &with(CODE, 1)),
        row("source is a group", &with(SOURCE, 0xff)),
        row("probe to us alone, not to the group", &probe_to_us.to_bytes()),
        row("probe with a link-layer address", &probe_with_mac.to_bytes()),
        row("option of length 0", &with(OPTION + 1, 0)),
        row("link-layer address of 14 bytes", &changed(long_mac, OPTION + 1, 2)),
        row("router solicitation (type 133)", &with(MESSAGE, 133)),
        row("fragment header first (RFC 6980)", &with(NEXT_HEADER, 44)),
        row("hop-by-hop options first", &with(NEXT_HEADER, 0)),
    ]
}

fn damaged(pair: &Pair) -> Vec<Row> {
    let solicitation = question(pair, OURS_V6).multicast().to_bytes().to_vec();
    let tagged = |tag: [u8; 4]| [&solicitation[..12], &tag, &solicitation[12..]].concat();
    let mut padded = solicitation.clone();
    padded.resize(1514, 0xee);
    vec![
        row("padded to 1514 bytes with anything", &padded),
        row("cut off in the option", &solicitation[..solicitation.len() - 1]),
        row("cut off in the target", &solicitation[..OPTION - 1]),
        row("VLAN tag 5, a network that this machine is not in", &tagged([0x81, 0, 0, 5])),
        row("priority tag, which names no network", &tagged([0x81, 0, 0xe0, 0])),
    ]
}

/// A frame with an option more.
fn with_option(frame: NdpFrame, option: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_bytes().to_vec();
    bytes.extend(option);
    let length = u8::try_from(bytes.len() - MESSAGE).unwrap();
    changed(bytes, PAYLOAD_LENGTH, length)
}

/// A frame with another byte, whose checksum is right all the same (RFC 4443 section 2.3).
fn changed(mut bytes: Vec<u8>, position: usize, value: u8) -> Vec<u8> {
    bytes[position] = value;
    bytes[CHECKSUM..CHECKSUM + 2].fill(0);
    let length = u32::try_from(bytes.len() - MESSAGE).unwrap();
    let words = bytes[SOURCE..]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |it| u32::from(*it)));
    let mut sum: u32 = words.sum::<u32>() + length + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&[high, low]);
    bytes
}
