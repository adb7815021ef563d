//! A cluster in steps of one millisecond: machines, the segments between them, the API server, and a client that asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use arpeggio_api::{
    endpoints::ServiceName,
    lock::{Claim, ServiceRef},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::{Backends, Event, LockChange, Outcome, Target, Write};
use arpeggio_runtime::watch::Change;
use arpeggio_wire::{ArpFrame, Asker, MacAddr, NdpFrame, Question};
use ipnet::IpNet;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff,
};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{
    api::ApiServer,
    machine::{Card, Machine, Message, clock, gateway, kernel_answer, set_now},
};
use crate::{
    input::Input,
    leases,
    orders::{Order, Request},
};

/// Until an address of a dead machine is answered for again, where somebody hears that it is silent. The client looks
/// every 20 ms.
pub(super) const REPLACED: Duration = millis(600);

/// Until an address is answered for again whose speaker is missed while its node is heard.
pub(super) const SPEAKER_REPLACED: Duration = secs(8);

/// When a simulation begins; all that was long ago must fit before.
const START: u64 = 10_000;
/// From the write that leaves to the answer that is back; half of it until the server has done it.
const ROUND_TRIP: u64 = 6;
/// From a change to the watch's event.
const WATCH_DELAY: u64 = 4;
/// A client gives up waiting for the API server.
const TIME_LIMIT: u64 = 2000;
/// From a frame that leaves to the machine that hears it.
const FLIGHT: u64 = 1;
/// How often the client asks for each address.
const ASKED_EVERY: u64 = 20;
/// The label that has a node's name.
pub(super) const HOST: &str = "kubernetes.io/hostname";
/// Netlink tells of a change.
const NETLINK: u64 = 2;

pub(super) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// An address of the pool, on a segment.
pub(super) fn ip(segment: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, segment, last).into()
}

/// The same of IPv6.
pub(super) fn ip6(segment: u8, last: u8) -> IpAddr {
    [0x2001, 0xdb8, 0, segment.into(), 0, 0, 0xffff, last.into()].into()
}

/// One that is known to be of IPv4.
pub(super) fn v4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address
}

/// One that is known to be of IPv6.
pub(super) fn v6(address: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(address) = address else { panic!("{address}") };
    address
}

/// Who has sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Machine(usize),
    Other,
}

struct Flight {
    segment: u8,
    from: Sender,
    /// The card that it has left by, of its machine.
    card: Option<usize>,
    bytes: Vec<u8>,
}

struct Arrival {
    machine: usize,
    boot: u64,
    left: u64,
    order: Order,
}

/// What stands between some machines and their segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) mac: MacAddr,
    /// Whether what is for a machine's own MAC address comes through, as where only the sender is rewritten.
    pub(super) lets_in: bool,
}

/// A machine without a speaker: it answers for its addresses.
pub(super) struct Host {
    pub(super) segment: u8,
    pub(super) mac: MacAddr,
    pub(super) addresses: Vec<IpAddr>,
}

/// A machine that answers for all addresses of a subnet, whoever has them.
pub(super) struct Proxy {
    pub(super) segment: u8,
    pub(super) mac: MacAddr,
    pub(super) net: IpNet,
}

/// What a client has seen of one address.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Who has answered the last question.
    answers: BTreeSet<Sender>,
    /// Since when nobody has.
    dark: Option<u64>,
    /// Since when several have.
    several: Option<u64>,
}

pub(super) struct Cluster {
    now: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) hosts: Vec<Host>,
    pub(super) proxies: Vec<Proxy>,
    api: ApiServer,
    /// The nodes with ready pods, of the Services whose traffic must stay with them.
    local: BTreeMap<ServiceName, Backends>,
    frames: BTreeMap<(u64, u64), Flight>,
    arrivals: BTreeMap<(u64, u64), Arrival>,
    ticket: u64,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    /// Machines behind a bridge that puts its own MAC address in the place of theirs, as clients of a wireless network do.
    /// It does so for ARP alone.
    pub(super) bridged: BTreeMap<usize, Bridge>,
    /// Machines that a segment does not carry frames to or from, though their cards have a carrier.
    pub(super) severed: BTreeSet<(usize, u8)>,
    /// Machines whose frames a segment does not carry, and machines that it carries no frames to.
    pub(super) mute: BTreeSet<(usize, u8)>,
    pub(super) deaf: BTreeSet<(usize, u8)>,
    /// Frames of the first one do not come to the second one, while those of the second one come to the first.
    pub(super) one_way: BTreeSet<(usize, usize)>,
    /// Segments that bring each frame twice, and back to the machine that has sent it, as where two switches are joined by two
    /// cables.
    pub(super) mirrored: BTreeSet<u8>,
    /// Pairs that are one machine: a second process, of another node name, has the cards of the first.
    pub(super) one_machine: BTreeSet<(usize, usize)>,
    /// At whose port the switch of a segment has seen a MAC address last.
    ports: BTreeMap<(u8, [u8; 6]), usize>,
    seen: BTreeMap<IpAddr, Seen>,
    /// What each machine has wanted written, and when.
    pub(super) orders: Vec<(u64, usize, Write)>,
    /// How many frames each machine's speaker has sent to everybody.
    pub(super) broadcasts: BTreeMap<usize, usize>,
    /// For which addresses speakers have asked everybody by ARP, and how often.
    pub(super) asked_everybody: BTreeMap<IpAddr, usize>,
    /// Where speakers have told the segment unasked by ARP of which addresses: machines, and which of their cards.
    pub(super) told_on: BTreeMap<IpAddr, BTreeSet<(usize, usize)>>,
    /// How many frames each machine's speaker has sent.
    pub(super) frames_sent: BTreeMap<usize, usize>,
    /// How many of them were ARP questions without the asker's address.
    pub(super) nameless: usize,
    /// The longest times that an address had no answer, and answers of several that hear each other.
    pub(super) longest_dark: Duration,
    pub(super) longest_overlap: Duration,
    log: Log,
    _logging: DefaultGuard,
}

impl Cluster {
    /// Machines on one segment, whose speakers start.
    pub(super) fn new(machines: usize) -> Self {
        Self::on(&vec![&[0][..]; machines])
    }

    /// Machines with cards on these segments each.
    pub(super) fn on(segments: &[&[u8]]) -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_target(false)
            .with_timer(VirtualTime)
            .with_writer(move || writer.clone())
            .finish();
        set_now(START);
        let all: BTreeSet<u8> = segments.iter().flat_map(|it| it.iter().copied()).collect();
        // By its default route a machine would announce the addresses of a segment that it has no card on.
        let default_routes = if all.len() == 1 { vec![(0, 0)] } else { Vec::new() };
        let machine = |(segments, index): (&&[u8], usize)| {
            let last = u8::try_from(11 + index).unwrap();
            let cards = segments.iter().map(|segment| Card::new(*segment, last)).collect();
            Machine::new(index, cards, default_routes.clone())
        };
        let router = |segment: u8| Host {
            segment,
            mac: MacAddr(2, 0, 0, 2, segment, 1),
            addresses: vec![gateway(segment)],
        };
        let mut cluster = Self {
            now: START,
            machines: segments.iter().zip(0..).map(machine).collect(),
            hosts: all.into_iter().map(router).collect(),
            proxies: Vec::new(),
            api: ApiServer::default(),
            local: BTreeMap::new(),
            frames: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            ticket: 0,
            cuts: BTreeSet::new(),
            bridged: BTreeMap::new(),
            severed: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            one_way: BTreeSet::new(),
            mirrored: BTreeSet::new(),
            one_machine: BTreeSet::new(),
            ports: BTreeMap::new(),
            seen: BTreeMap::new(),
            orders: Vec::new(),
            broadcasts: BTreeMap::new(),
            asked_everybody: BTreeMap::new(),
            told_on: BTreeMap::new(),
            frames_sent: BTreeMap::new(),
            nameless: 0,
            longest_dark: Duration::ZERO,
            longest_overlap: Duration::ZERO,
            log,
            _logging: tracing::subscriber::set_default(subscriber),
        };
        (0..cluster.machines.len()).for_each(|index| cluster.start_speaker(index));
        cluster
    }

    /// A settled cluster on one segment, with addresses.
    pub(super) fn settled(machines: usize, addresses: &[IpAddr]) -> Self {
        let mut cluster = Self::new(machines);
        cluster.settle(addresses);
        cluster
    }

    /// Machines whose own addresses change one after the other, of which others read after `lag`. Each has an address of the other
    /// family, or none. `and` does what else happens to a machine in that moment, whose new address has this number.
    pub(super) fn renumbered(
        machines: usize,
        addresses: &[IpAddr],
        (lag, keeps_other): (u64, bool),
        and: impl Fn(&mut Self, usize, u8),
    ) -> Self {
        let mut cluster = Self::new(machines);
        if !keeps_other {
            cluster.machines.iter_mut().for_each(|it| it.cards[0].nets.truncate(1));
            (0..machines).for_each(|index| cluster.links_changed(index));
        }
        // Whoever announces nothing has no speaker that could be asked.
        cluster.run(secs(8));
        cluster.settle(addresses);
        cluster.machines.iter_mut().for_each(|it| it.lag = lag);
        for index in 0..machines {
            let last = u8::try_from(60 + index).unwrap();
            cluster.machines[index].cards[0].nets[0] = IpNet::new(ip(0, last), 24).unwrap();
            and(&mut cluster, index, last);
            cluster.run(millis(4100));
        }
        cluster
    }

    /// Claims addresses and lets everything come to rest.
    pub(super) fn settle(&mut self, addresses: &[IpAddr]) {
        addresses.iter().for_each(|address| self.claim(*address));
        self.run(secs(8));
        for address in addresses {
            assert!(self.owner(*address).is_some(), "{address} has no owner: {self:?}");
        }
        self.mark();
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_millis()).unwrap();
        while self.now < end {
            self.now += 1;
            set_now(self.now);
            self.deliver_frames();
            self.serve_writes();
            (0..self.machines.len()).for_each(|index| self.step(index));
            if self.now.is_multiple_of(ASKED_EVERY) {
                self.look_at_answers();
                self.ask_for_all();
            }
        }
    }

    fn step(&mut self, index: usize) {
        let span = tracing::info_span!("on", node = index);
        let _entered = span.enter();
        let (now, boot) = (self.now, self.machines[index].boot);
        let orders = self.machines[index].step(now);
        for order in orders {
            self.orders.push((now, index, order.write.clone()));
            let arrival = Arrival { machine: index, boot, left: now, order };
            let is_heard = self.machines[index].api;
            let due = if is_heard { now + ROUND_TRIP / 2 } else { now + TIME_LIMIT };
            let key = self.key(due);
            self.arrivals.insert(key, arrival);
        }
        let machine = &self.machines[index];
        let sent = machine.speaker.as_ref().map(|it| it.ways.sent()).unwrap_or_default();
        for (interface, bytes) in sent {
            *self.frames_sent.entry(index).or_default() += 1;
            self.nameless += usize::from(is_nameless(&bytes));
            *self.broadcasts.entry(index).or_default() += usize::from(bytes[0] & 1 == 1);
            if let Some(address) = asked_of_everybody(&bytes) {
                *self.asked_everybody.entry(address).or_default() += 1;
            }
            let card = usize::try_from(interface - 1).unwrap();
            if let Some(address) = told_unasked(&bytes) {
                self.told_on.entry(address).or_default().insert((index, card));
            }
            self.send(index, card, bytes);
        }
    }

    fn key(&mut self, due: u64) -> (u64, u64) {
        self.ticket += 1;
        (due, self.ticket)
    }

    // The segments.

    fn send(&mut self, index: usize, card: usize, bytes: Vec<u8>) {
        let Card { segment, cable, .. } = self.machines[index].cards[card];
        let place = (index, segment);
        if cable && !self.severed.contains(&place) && !self.mute.contains(&place) {
            self.put_on(segment, Sender::Machine(index), Some(card), bytes);
        }
    }

    /// Somebody sends a frame who is no machine of the cluster.
    pub(super) fn forge(&mut self, segment: u8, bytes: &[u8]) {
        self.put_on(segment, Sender::Other, None, bytes.to_vec());
    }

    fn put_on(&mut self, segment: u8, from: Sender, card: Option<usize>, bytes: Vec<u8>) {
        let key = self.key(self.now + FLIGHT);
        self.frames.insert(key, Flight { segment, from, card, bytes });
    }

    fn deliver_frames(&mut self) {
        while let Some(first) = self.frames.first_entry().filter(|it| it.key().0 <= self.now) {
            let Flight { segment, from, card, bytes } = first.remove();
            let outside = self.outside(from, &bytes);
            let port = self.switch(segment, from, &outside);
            let copies = if self.mirrored.contains(&segment) { 2 } else { 1 };
            let machines = self.machines.len();
            for index in (0..copies).flat_map(|_| 0..machines) {
                let place = (index, segment);
                if self.severed.contains(&place)
                    || self.deaf.contains(&place)
                    || self.is_cut(from, index)
                {
                    continue;
                }
                let sent_by = card.filter(|_| copies == 1 && from == Sender::Machine(index));
                let heard = match self.is_behind_one_bridge(from, index) {
                    true => Some(bytes.clone()),
                    false if port.is_some_and(|port| !self.is_at_port(index, port)) => None,
                    false => self.inside(index, &outside),
                };
                let answers =
                    heard.map(|heard| self.machines[index].receive(segment, sent_by, &heard));
                for (card, answer) in answers.into_iter().flatten() {
                    self.send(index, card, answer);
                }
            }
            self.hosts_hear(segment, &outside);
            self.client_hears(from, &outside);
        }
    }

    /// The machine at whose port a frame leaves the switch, if it is not for everybody.
    fn switch(&mut self, segment: u8, from: Sender, bytes: &[u8]) -> Option<usize> {
        let [to, mac]: [[u8; 6]; 2] = [0, 6].map(|at| bytes[at..at + 6].try_into().unwrap());
        if let Sender::Machine(from) = from {
            self.ports.insert((segment, mac), from);
        }
        let port = self.ports.get(&(segment, to)).copied();
        port.filter(|_| !self.mirrored.contains(&segment))
    }

    fn is_at_port(&self, index: usize, port: usize) -> bool {
        index == port
            || self.are_one_machine(index, port)
            || self.is_behind_one_bridge(Sender::Machine(port), index)
    }

    fn are_one_machine(&self, one: usize, other: usize) -> bool {
        self.one_machine.contains(&(one, other)) || self.one_machine.contains(&(other, one))
    }

    fn is_behind_one_bridge(&self, from: Sender, to: usize) -> bool {
        let Sender::Machine(from) = from else { return false };
        self.bridged.get(&from).is_some_and(|bridge| self.bridged.get(&to) == Some(bridge))
    }

    /// A frame as it is on the segment: what comes by a bridge is from the bridge, and says so inside.
    fn outside(&self, from: Sender, bytes: &[u8]) -> Vec<u8> {
        let Sender::Machine(index) = from else { return bytes.to_vec() };
        let Some(bridge) = self.bridged.get(&index) else { return bytes.to_vec() };
        if let Ok(frame) = ArpFrame::parse(bytes) {
            return ArpFrame { source: bridge.mac, sender_hardware: bridge.mac, ..frame }
                .to_bytes()
                .to_vec();
        }
        [&bytes[..6], &bridge.mac.octets(), &bytes[12..]].concat()
    }

    /// What comes to a machine of a frame. A bridge takes in what is for everybody, and looks up by the address whose it is
    /// that is for the bridge itself.
    fn inside(&self, index: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let Some(bridge) = self.bridged.get(&index) else { return Some(bytes.to_vec()) };
        if bytes[0] & 1 == 1
            || bridge.lets_in && bytes[..6] == self.machines[index].cards[0].mac.octets()
        {
            return Some(bytes.to_vec());
        }
        let card = &self.machines[index].cards[0];
        let frame = ArpFrame::parse(bytes).ok().filter(|frame| frame.destination == bridge.mac)?;
        let is_its = card.nets.iter().any(|net| net.addr() == IpAddr::from(frame.target_protocol));
        let frame = ArpFrame { destination: card.mac, target_hardware: card.mac, ..frame };
        is_its.then(|| frame.to_bytes().to_vec())
    }

    fn is_cut(&self, from: Sender, to: usize) -> bool {
        let Sender::Machine(from) = from else { return false };
        self.cuts.contains(&(from, to))
            || self.cuts.contains(&(to, from))
            || self.one_way.contains(&(from, to))
            || self.are_one_machine(from, to)
    }

    fn hosts_hear(&mut self, segment: u8, bytes: &[u8]) {
        let is_for = |mac: MacAddr| bytes[0] & 1 == 1 || bytes[..6] == mac.octets();
        let here = self.hosts.iter().filter(|it| it.segment == segment && is_for(it.mac));
        let own = here.filter_map(|it| {
            kernel_answer(bytes, it.mac, |address| it.addresses.contains(&address))
        });
        let proxies = self.proxies.iter().filter(|it| it.segment == segment && is_for(it.mac));
        let others = proxies
            .filter_map(|it| kernel_answer(bytes, it.mac, |address| it.net.contains(&address)));
        let answers: Vec<Vec<u8>> = own.chain(others).collect();
        for answer in answers {
            self.put_on(segment, Sender::Other, None, answer);
        }
    }

    // The client.

    fn ask_for_all(&mut self) {
        let addresses: Vec<IpAddr> = self.seen.keys().copied().collect();
        for address in addresses {
            let segment = segment_of(address);
            let mac = client_mac(segment);
            let bytes = match address {
                IpAddr::V4(address) => {
                    let asker = Asker { mac, address: Some([192, 168, segment, 250].into()) };
                    Question { address, asker }.broadcast().to_bytes().to_vec()
                }
                IpAddr::V6(address) => {
                    let own = [0x2001, 0xdb8, 0, segment.into(), 0, 0, 0, 0x250].into();
                    let asker = Asker { mac, address: Some(own) };
                    Question { address, asker }.multicast().to_bytes().to_vec()
                }
            };
            self.put_on(segment, Sender::Other, None, bytes);
        }
    }

    fn client_hears(&mut self, from: Sender, bytes: &[u8]) {
        let is_for_client = bytes[..4] == client_mac(0).octets()[..4];
        let claim = ArpFrame::parse(bytes)
            .ok()
            .and_then(|it| it.claim())
            .map(arpeggio_wire::Claim::of_any_family);
        let claim = claim.or_else(|| Some(NdpFrame::parse(bytes).ok()?.claim()?.of_any_family()));
        if let Some(claim) = claim.filter(|_| is_for_client)
            && let Some(seen) = self.seen.get_mut(&claim.address)
        {
            seen.answers.insert(from);
        }
    }

    fn look_at_answers(&mut self) {
        let (cuts, now) = (&self.cuts, self.now);
        let index_of = |sender: &Sender| match sender {
            Sender::Machine(index) => Some(*index),
            Sender::Other => None,
        };
        for seen in self.seen.values_mut() {
            let answers = std::mem::take(&mut seen.answers);
            let machines: BTreeSet<usize> = answers.iter().filter_map(index_of).collect();
            let hear_each_other = machines.iter().any(|one| {
                machines.iter().any(|other| {
                    one < other
                        && !cuts.contains(&(*one, *other))
                        && !cuts.contains(&(*other, *one))
                })
            });
            // Who answers for all addresses serves none.
            let dark = since(&mut seen.dark, machines.is_empty(), now);
            let overlap = since(&mut seen.several, hear_each_other, now);
            self.longest_dark = self.longest_dark.max(dark);
            self.longest_overlap = self.longest_overlap.max(overlap);
        }
    }

    /// Begins anew to measure.
    pub(super) fn mark(&mut self) {
        (self.longest_dark, self.longest_overlap) = (Duration::ZERO, Duration::ZERO);
        self.seen.values_mut().for_each(|it| (it.dark, it.several) = (None, None));
        self.orders.clear();
        self.told_on.clear();
        self.frames_sent.clear();
        self.nameless = 0;
        self.broadcasts.clear();
        self.asked_everybody.clear();
        self.log.0.lock().unwrap().clear();
        self.news();
    }

    /// The events that users have got since this was last called.
    pub(super) fn news(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        for speaker in self.machines.iter_mut().filter_map(|it| it.speaker.as_mut()) {
            while let Ok((_, item)) = speaker.news.try_recv() {
                news.push(item.note);
            }
        }
        news
    }

    /// What all speakers have logged.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned()
    }

    /// Who answers for an address, as a client finds it.
    pub(super) fn owners(&mut self, address: IpAddr) -> Vec<usize> {
        self.run(millis(ASKED_EVERY - self.now % ASKED_EVERY + 5));
        let answers = self.seen[&address].answers.clone();
        (0..self.machines.len())
            .filter(|index| answers.contains(&Sender::Machine(*index)))
            .collect()
    }

    pub(super) fn owner(&mut self, address: IpAddr) -> Option<usize> {
        match self.owners(address)[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The writes about other nodes' sessions.
    pub(super) fn charges(&self) -> Vec<&(u64, usize, Write)> {
        let is_charge =
            |it: &&(u64, usize, Write)| matches!(it.2, Write::Accuse { .. } | Write::End { .. });
        self.orders.iter().filter(is_charge).collect()
    }

    /// How often any lock was taken.
    pub(super) fn takes(&self) -> usize {
        self.lock_changes(|it| matches!(it, LockChange::Take { .. }))
    }

    /// How often any address was put aside, since a stranger has it.
    pub(super) fn quarantines(&self) -> usize {
        self.lock_changes(|it| matches!(it, LockChange::Quarantine { .. }))
    }

    /// How many of the changes of locks are such ones.
    pub(super) fn lock_changes(&self, is_such: impl Fn(&LockChange) -> bool) -> usize {
        let is_such =
            |write: &Write| matches!(write, Write::Lock { change, .. } if is_such(change));
        self.orders.iter().filter(|it| is_such(&it.2)).count()
    }

    // The API server.

    fn serve_writes(&mut self) {
        while let Some(first) = self.arrivals.first_entry().filter(|it| it.key().0 <= self.now) {
            let arrival = first.remove();
            if self.now < arrival.left + TIME_LIMIT {
                self.serve(&arrival);
            } else {
                self.answer(&arrival, None, Outcome::Failed);
            }
        }
    }

    fn serve(&mut self, arrival: &Arrival) {
        let me = self.machines[arrival.machine].identity();
        let ahead = jiff::SignedDuration::from_hours(self.machines[arrival.machine].hours_ahead);
        let now = MicroTime(jiff::Timestamp::UNIX_EPOCH + millis(self.now) + ahead);
        let name = arrival.order.lease(&me);
        let request = arrival.order.request(&me, now);
        let written = request.as_ref().and_then(|request| self.api.perform(&name, request));
        if let Some(lease) = &written {
            self.tell_all(|| Change::Applied(lease.clone()));
        }
        let found = || arrival.order.found(&me, self.api.read(&name));
        let (record, outcome) = match (&request, &written) {
            (None, _) => (None, Outcome::Conflict),
            (_, Some(lease)) => (leases::read(lease), Outcome::Done),
            (Some(Request::Read), None) => found(),
            (Some(_), None) => match found() {
                (record, Outcome::Done) => (record, Outcome::Conflict),
                failed => failed,
            },
        };
        self.answer(arrival, record, outcome);
    }

    fn answer(&mut self, arrival: &Arrival, record: Option<Input>, outcome: Outcome) {
        let Arrival { machine, boot, left, order } = arrival;
        if self.machines[*machine].boot != *boot {
            return;
        }
        let is_lost = outcome != Outcome::Failed && !self.machines[*machine].api;
        let (due, record, outcome) = if is_lost {
            (left + TIME_LIMIT, None, Outcome::Failed)
        } else {
            (self.now + ROUND_TRIP / 2, record, outcome)
        };
        let wrote = Input::Election(Event::Wrote { write: order.write.clone(), outcome });
        for input in record.into_iter().chain([wrote]) {
            self.tell(*machine, due, Message::Input(Box::new(input)));
        }
    }

    fn tell(&mut self, index: usize, due: u64, message: Message) {
        let key = self.key(due);
        if let Some(speaker) = &mut self.machines[index].speaker {
            speaker.messages.insert(key, message);
        }
    }

    fn tell_all(&mut self, change: impl Fn() -> Change<Lease>) {
        for index in 0..self.machines.len() {
            if self.machines[index].api {
                let due = self.now + WATCH_DELAY + self.machines[index].lag;
                let due = due.max(self.machines[index].listed_at);
                self.tell(index, due, Message::Leases(Box::new(change())));
            }
        }
    }

    /// A speaker lists everything, and is told of changes from then on.
    fn list(&mut self, index: usize) {
        let nodes = self.machines.iter().map(|machine| v1::Node {
            metadata: kube::api::ObjectMeta {
                name: Some(machine.node.to_string()),
                labels: Some([(HOST.to_owned(), machine.node.to_string())].into()),
                ..kube::api::ObjectMeta::default()
            },
            ..v1::Node::default()
        });
        let nodes = Change::Listed(nodes.collect());
        let leases = Change::Listed(self.api.list());
        let [leases_take, nodes_take] = self.machines[index].lists_take;
        self.list_local(index);
        self.machines[index].listed_at = self.now + leases_take;
        self.tell(index, self.now + leases_take, Message::Leases(Box::new(leases)));
        self.tell(index, self.now + nodes_take, Message::Nodes(Box::new(nodes)));
    }

    fn list_local(&mut self, index: usize) {
        if self.local.is_empty() {
            return;
        }
        let due = self.now + self.machines[index].slices_take;
        let backends = Input::Backends(self.local.clone());
        self.tell(index, due, Message::Input(Box::new(backends)));
    }

    /// The API server has this Lease, of which no speaker that runs is told.
    pub(super) fn store(&mut self, lease: Lease) {
        self.api.store(lease);
    }

    /// The same with the lock of an address that a node holds.
    pub(super) fn store_held(&mut self, address: IpAddr, node: &str, epoch: u64) {
        let mut lease = claimed(address, WrittenAnnounceTerms::default()).created();
        lease.spec.get_or_insert_default().holder_identity = Some(node.to_owned());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/session".to_owned(), epoch.to_string());
        self.api.store(lease);
    }

    /// Somebody writes this Lease.
    pub(super) fn write(&mut self, lease: Lease) {
        let lease = self.api.store(lease);
        self.tell_all(|| Change::Applied(lease.clone()));
    }

    /// A Service gets an address.
    pub(super) fn claim(&mut self, address: IpAddr) {
        self.claim_on(address, WrittenAnnounceTerms::default());
    }

    /// The same, whose traffic must stay on the nodes with its pods.
    pub(super) fn claim_local(&mut self, address: IpAddr, on: &[usize]) {
        let ready = on.iter().map(|index| self.machines[*index].node.clone()).collect();
        let service = ("shop".into(), format!("web-{address}"));
        self.local.insert(service, Backends { ready, ..Backends::default() });
        self.claim_on(
            address,
            WrittenAnnounceTerms { local: true, ..WrittenAnnounceTerms::default() },
        );
        (0..self.machines.len()).for_each(|index| self.list_local(index));
    }

    /// The same, and somebody has written on the lock what nobody can read.
    pub(super) fn claim_unreadably(&mut self, address: IpAddr) {
        let mut lease = claimed(address, WrittenAnnounceTerms::default()).created();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/announce".to_owned(), "{".to_owned());
        self.write(lease);
        self.seen.insert(address, Seen::default());
    }

    pub(super) fn claim_on(&mut self, address: IpAddr, terms: WrittenAnnounceTerms) {
        self.write(claimed(address, terms).created());
        self.seen.insert(address, Seen::default());
    }

    // What happens.

    pub(super) fn start_speaker(&mut self, index: usize) {
        self.machines[index].start();
        if self.machines[index].api {
            self.list(index);
        }
    }

    pub(super) fn power_off(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        (machine.powered, machine.paused) = (false, false);
        machine.speaker = None;
        machine.boot += 1;
    }

    pub(super) fn power_on(&mut self, index: usize) {
        self.machines[index].powered = true;
        self.start_speaker(index);
    }

    /// A node is taken out of the cluster: what is left of it is its session, which is deleted with it.
    pub(super) fn remove_session(&mut self, index: usize) {
        let node = self.machines[index].node.to_string();
        self.delete_session(&node);
    }

    pub(super) fn delete_session(&mut self, node: &str) {
        let lease = self.api.delete(&format!("session-{node}")).unwrap();
        self.tell_all(|| Change::Deleted(lease.clone()));
    }

    /// Somebody asks the speaker to stop, and it does when it has handed over.
    pub(super) fn stop_speaker(&mut self, index: usize) {
        self.machines[index].stops = true;
        self.tell(index, self.now, Message::Input(Box::new(Input::Stop)));
    }

    pub(super) fn change_mac(&mut self, index: usize, card: usize, mac: MacAddr) {
        self.machines[index].cards[card].mac = mac;
        self.links_changed(index);
    }

    pub(super) fn cable(&mut self, index: usize, card: usize, plugged_in: bool) {
        let card = &mut self.machines[index].cards[card];
        if plugged_in {
            card.plug_in();
        } else {
            card.cable = false;
        }
        self.links_changed(index);
    }

    /// The kernel tells a machine's speaker what has become of its cards and routes.
    pub(super) fn links_changed(&mut self, index: usize) {
        let links = Arc::new(self.machines[index].links());
        self.tell(index, self.now + NETLINK, Message::Input(Box::new(Input::Links(links))));
    }

    pub(super) fn api_cut(&mut self, index: usize) {
        self.machines[index].api = false;
    }

    /// Nobody reaches the API server.
    pub(super) fn api_down(&mut self) {
        (0..self.machines.len()).for_each(|index| self.api_cut(index));
    }

    pub(super) fn api_heal(&mut self, index: usize) {
        if !std::mem::replace(&mut self.machines[index].api, true) {
            self.list(index);
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {} ms: {:#?}", self.now, self.seen)?;
        for (at, index, write) in &self.orders {
            let is_renewal = matches!(write, Write::Renew { .. });
            if !is_renewal || write.target() != Target::OwnSession {
                writeln!(f, "{at} {index} {write:?}")?;
            }
        }
        f.write_str(&self.log())
    }
}

fn claimed(address: IpAddr, terms: WrittenAnnounceTerms) -> Claim {
    let service = ServiceRef {
        namespace: "shop".into(),
        name: format!("web-{address}"),
        uid: address.to_string(),
    };
    Claim { address, pool: "home".into(), services: vec![service], terms, spread: false }
}

fn since(begin: &mut Option<u64>, lasts: bool, now: u64) -> Duration {
    if !lasts {
        *begin = None;
        return Duration::ZERO;
    }
    millis(now - *begin.get_or_insert(now - ASKED_EVERY))
}

fn is_nameless(bytes: &[u8]) -> bool {
    let question = ArpFrame::parse(bytes).ok().and_then(|it| it.question());
    question.is_some_and(|it| it.asker.address.is_none())
}

fn asked_of_everybody(bytes: &[u8]) -> Option<IpAddr> {
    let frame = ArpFrame::parse(bytes).ok().filter(|_| bytes[0] & 1 == 1)?;
    Some(frame.question()?.address.into())
}

fn told_unasked(bytes: &[u8]) -> Option<IpAddr> {
    let claim = ArpFrame::parse(bytes).ok().filter(|_| bytes[0] & 1 == 1)?.claim()?;
    Some(claim.address.into())
}

fn segment_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[2],
        IpAddr::V6(address) => u8::try_from(address.segments()[3]).unwrap(),
    }
}

/// Whether the client has sent a frame.
pub(super) fn is_of_client(bytes: &[u8]) -> bool {
    bytes[6..10] == client_mac(0).octets()[..4]
}

fn client_mac(segment: u8) -> MacAddr {
    MacAddr(2, 0, 0, 3, segment, 250)
}

/// What has been logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", clock().as_duration().as_millis())
    }
}
