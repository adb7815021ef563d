//! A machine on the segment sends as many frames as it can, of every kind that concerns an address of ours.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine, flood,
    observe::{ArpReply, ArpSightings, ArpWatch, longest_silence},
};
use arpeggio_scenarios::{Home, eprint_line, first_address, pool, service};
use arpeggio_wire::{ArpFrame, ArpOperation, Asker, Claim, MacAddr, NdpFrame, Question};
use serde_json::json;

use crate::faults::settled_on;

/// Who sends.
const INTRUDER: Machine = Machine::Host(1);

const POOL_V6: &str = "home-v6";

/// For how long.
const FLOOD: Duration = Duration::from_secs(10);

/// How often a client asks meanwhile, and for how long it may hear no answer of the owner. It shares two cores with the flood, too.
const ASKED_EVERY: Duration = Duration::from_millis(20);
const LONGEST_SILENCE: Duration = Duration::from_secs(3);

/// Fewer frames a second are no flood. Each of them reaches six machines, which share two cores with all else.
const FEWEST: u64 = 3_000;

/// What a speaker may log, and tell users of, because of it.
const LINES: usize = 40;
const EVENTS: usize = 20;

/// What a speaker may need more memory, in bytes.
const MEMORY: u64 = 16 << 20;

/// Its invented senders.
const STRANGERS: u8 = 200;

/// What must not change, or not by much.
struct State {
    epochs: Vec<u64>,
    lost_sessions: Vec<String>,
    memory: Vec<u64>,
    lines: Vec<usize>,
}

fn state(home: &Home) -> anyhow::Result<State> {
    let nodes = home.lab.options().node_machines();
    let mut state = State { epochs: vec![], lost_sessions: vec![], memory: vec![], lines: vec![] };
    for node in nodes {
        state.epochs.push(home.epoch(node)?);
        state.lost_sessions.extend(home.speaker_metric(node, "sessions_lost_total")?);
        state.memory.push(home.speaker_memory(node)?);
        state.lines.push(home.speaker_log_lines(node)?);
    }
    Ok(state)
}

/// Whoever looks at what a stranger says must not miss what the other nodes answer.
pub(crate) fn a_flood_of_frames_ends_no_session(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.apply(&pool(POOL_V6, &["fd00:a0::240-fd00:a0::250"]))?;
    let mut six = service("six", "arpeggio.dev/address-pool", POOL_V6);
    six["spec"]["ipFamilies"] = json!(["IPv6"]);
    home.apply(&six)?;
    let IpAddr::V6(address_v6) = home.wait_for_address("six")? else {
        anyhow::bail!("a pool of IPv6 gives IPv6")
    };
    home.lab.network().add_hosts(1..=1)?;
    let addresses = [first_address().into(), address_v6.into()];
    home.wait_until("both addresses have owners", || {
        let holders = addresses.map(|it| home.holder(it));
        let held = holders.into_iter().filter(|it| matches!(it, Ok(Some(_)))).count();
        if held == 2 { Ok(()) } else { Err(format!("{held} of 2").into()) }
    })?;
    let holders = || addresses.map(|it| home.holder(it).ok().flatten());
    let (before, held) = (state(home)?, holders());
    let asked = answered(home, owner)?;

    let watch = ArpWatch::start(&home.lab, Machine::Client, first_address(), ASKED_EVERY)?;
    let sent = flood::send(&home.lab, INTRUDER, &frames(home, address_v6)?, FLOOD)?;
    let silence = longest_without_answer(&watch.stop()?, owner)?;
    eprint_line(&format!(
        "a flood of {} frames a second; the client heard no answer for {silence:?} at the longest",
        sent.per_second
    ));
    let answers = answered(home, owner)?.saturating_sub(asked);
    let after = state(home)?;
    let more = |(after, before): (&u64, &u64)| after.saturating_sub(*before);
    let memory = after.memory.iter().zip(&before.memory).map(more).max().unwrap_or_default();
    let lines = after.lines.iter().zip(&before.lines);
    let lines: Vec<usize> = lines.map(|(after, before)| after.saturating_sub(*before)).collect();
    let events = home.events("web")?.len() + home.events("six")?.len();
    eprint_line(&format!(
        "{owner} answered {answers} questions; {lines:?} lines, {events} events, {memory} bytes more"
    ));
    ensure!(sent.per_second >= FEWEST, "a flood, not {sent:?}");
    ensure!(after.epochs == before.epochs, "no node was taken for dead");
    ensure!(after.lost_sessions == before.lost_sessions, "{:?}", after.lost_sessions);
    ensure!(holders() == held, "nothing moves: {:?}, not {held:?}", holders());
    ensure!(addresses.iter().all(|it| home.moves(*it).is_ok_and(|moves| moves == 0)));
    ensure!(answers > 0, "the owner answers");
    ensure!(silence <= LONGEST_SILENCE, "a client heard no answer for {silence:?}");
    ensure!(lines.iter().all(|lines| *lines <= LINES), "{lines:?} lines");
    ensure!(events <= EVENTS, "{events} events: {:?}", home.events("web")?);
    ensure!(memory < MEMORY, "{memory} bytes more");

    home.wait_for_page(Machine::Client)?;
    settled_on(home, owner)?;
    let status = home.arpeggio(&["status"])?;
    ensure!(status.lines().filter(|it| it.starts_with("node-")).count() == 3, "{status}");
    Ok(())
}

/// The longest time in which a client that asks heard no answer of `owner`. What is said in its name unasked counts for nothing:
/// that is the flood.
fn longest_without_answer(seen: &ArpSightings, owner: Machine) -> anyhow::Result<Duration> {
    let (begin, end) = seen.span().context("nobody asked")?;
    let is_answer = |it: &&ArpReply| Some(it.mac) == owner.mac() && !it.gratuitous;
    let answers = seen.replies.iter().filter(is_answer).map(|it| it.at);
    Ok(longest_silence(answers, begin, end).length())
}

/// How many questions the speaker on a node has answered.
fn answered(home: &Home, node: Machine) -> anyhow::Result<u64> {
    let counts = home.speaker_metric(node, "replies_total")?;
    Ok(counts.iter().filter_map(|it| it.parse::<u64>().ok()).sum())
}

/// Questions for our addresses and claims to them, as replies, unasked and in passing, by strangers and in fellows' names;
/// and answers in fellows' names to what nodes ask each other. The switch is not deceived: all come from the same port.
fn frames(home: &Home, six: Ipv6Addr) -> anyhow::Result<Vec<Vec<u8>>> {
    let source = INTRUDER.mac().map(MacAddr::from).context("it is on the LAN")?;
    let nodes = home.lab.options().node_machines();
    let nodes = nodes.iter().filter_map(|it| Some((it.lan_v4()?, MacAddr::from(it.mac()?))));
    let nodes: Vec<(Ipv4Addr, MacAddr)> = nodes.collect();
    let strangers = (0..STRANGERS).map(|number| MacAddr(2, 0, 0x99, 0, 0, number));
    let mut frames = Vec::new();
    for sender in strangers.chain(nodes.iter().map(|(_, mac)| *mac)) {
        frames.extend(
            about_ours(sender).into_iter().map(|it| ArpFrame { source, ..it }.to_bytes().to_vec()),
        );
        let of_six = about_six(six, sender).into_iter();
        frames.extend(of_six.map(|it| NdpFrame { source, ..it }.to_bytes().to_vec()));
        for ((address, mac), (asker, to)) in
            nodes.iter().flat_map(|it| nodes.iter().map(move |to| (it, to)))
        {
            let asker = Asker { mac: *to, address: Some(*asker) };
            let answer = Question { address: *address, asker }.answer(*mac);
            frames.push(ArpFrame { source, ..answer }.to_bytes().to_vec());
        }
    }
    Ok(frames)
}

fn about_ours(sender: MacAddr) -> Vec<ArpFrame> {
    let address = first_address();
    let question = |own| Question { address, asker: Asker { mac: sender, address: own } };
    let claim = Claim { address, mac: sender };
    vec![
        question(INTRUDER.lan_v4()).broadcast(),
        question(None).broadcast(),
        claim.announcement(ArpOperation::Request),
        claim.announcement(ArpOperation::Reply),
    ]
}

fn about_six(address: Ipv6Addr, sender: MacAddr) -> Vec<NdpFrame> {
    let question = |own| Question { address, asker: Asker { mac: sender, address: own } };
    let claim = Claim { address, mac: sender };
    vec![question(INTRUDER.lan_v6()).multicast(), question(None).multicast(), claim.advertisement()]
}
