//! One machine: its network cards, its kernel, and the speaker that runs on it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use arpeggio_election::{Node, Settings, Timestamp};
use arpeggio_link::interfaces::{
    Address, AddressState, DefaultRoute, Family, Interface, Links, Medium, RouterPreference,
};
use arpeggio_runtime::{
    events::{EventQueue, News as Item},
    health::Health,
    watch::Change,
};
use arpeggio_wire::{ArpFrame, MacAddr, NdpFrame};
use crossbeam_channel::{Receiver, Sender, unbounded};
use ipnet::IpNet;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{self, ObjectReference},
};
use prometheus::{IntCounter, Registry};
use tokio::sync::{mpsc, oneshot, watch};

use super::{cluster::is_of_client, segment::Ways, work::Work};
use crate::{
    engine::{Engine, Outlets},
    frames::Frames,
    identity::Identity,
    input::Input,
    leases,
    metrics::Metrics,
    news::News,
    nodes,
    orders::Order,
};

thread_local! {
    /// The time of the simulation that runs on this thread, in milliseconds.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn set_now(millis: u64) {
    NOW.set(millis);
}

/// The clock of all machines.
pub(super) fn clock() -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(NOW.get()))
}

/// The index of the interface of a service proxy.
const OF_PROXY: u32 = 100;

/// A network card, and the segment that its cable leads to.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) segment: u8,
    pub(super) mac: MacAddr,
    pub(super) nets: Vec<IpNet>,
    /// Of those of its addresses that are not as usual.
    pub(super) states: BTreeMap<IpNet, AddressState>,
    /// Another one than its place gives it.
    pub(super) name: Option<&'static str>,
    pub(super) cable: bool,
    pub(super) carrier_ups: u32,
}

impl Card {
    /// Of the machine `last` on a segment: with an address of each family and a link-local one.
    pub(super) fn new(segment: u8, last: u8) -> Self {
        let v6 = |prefix: u16, third| {
            Ipv6Addr::new(prefix, third, 0, segment.into(), 0, 0, 0, last.into())
        };
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, segment.into(), last.into());
        let nets = [
            IpNet::new(Ipv4Addr::new(192, 168, segment, last).into(), 24),
            IpNet::new(v6(0x2001, 0xdb8).into(), 64),
            IpNet::new(link_local.into(), 64),
        ];
        let nets = nets.into_iter().map(Result::unwrap).collect();
        let mac = MacAddr(2, 0, 0, 1, segment, last);
        let (states, name) = (BTreeMap::new(), None);
        Self { segment, mac, nets, states, name, cable: true, carrier_ups: 1 }
    }

    fn address(&self, net: &IpNet) -> Address {
        let state = self.states.get(net).copied().unwrap_or_default();
        Address { state, ..(*net).into() }
    }

    pub(super) fn plug_in(&mut self) {
        if !std::mem::replace(&mut self.cable, true) {
            self.carrier_ups += 1;
        }
    }
}

/// What a process is told, by whoever watches for it.
#[derive(Debug)]
pub(super) enum Message {
    Leases(Box<Change<Lease>>),
    Nodes(Box<Change<v1::Node>>),
    Input(Box<Input>),
}

/// One machine with its speaker.
#[allow(clippy::struct_excessive_bools)] // Facts that have nothing to do with one another.
pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) cards: Vec<Card>,
    /// The cards behind which it has a default router, and the metrics of the routes there, the lowest first.
    pub(super) routes: Vec<(usize, u32)>,
    /// What its service proxy has on `kube-ipvs0`. Its kernel answers for it on all cards, since `strictARP` is not set.
    pub(super) services: Vec<IpAddr>,
    pub(super) powered: bool,
    pub(super) paused: bool,
    /// Whether it reaches the API server.
    pub(super) api: bool,
    /// Which of the speakers that have run here runs now.
    pub(super) boot: u64,
    pub(super) speaker: Option<Speaker>,
    /// Its speaker was asked to stop.
    pub(super) stops: bool,
    /// How long it takes until Leases and Nodes are listed.
    pub(super) lists_take: [u64; 2],
    /// How long it takes until `EndpointSlice`s are listed.
    pub(super) slices_take: u64,
    /// By how many hours its time of day is another one than that of others.
    pub(super) hours_ahead: i64,
    /// How much later than others it is told of changes.
    pub(super) lag: u64,
    /// When it has got the list of Leases. Changes come after that.
    pub(super) listed_at: u64,
}

/// One process.
pub(super) struct Speaker {
    engine: Engine,
    pub(super) ways: Ways,
    inputs: (Sender<Input>, Receiver<Input>),
    /// What it will be told, by when and in which order.
    pub(super) messages: BTreeMap<(u64, u64), Message>,
    next: u64,
    pub(super) news: mpsc::Receiver<(ObjectReference, Item)>,
    _slices_wanted: oneshot::Receiver<()>,
    leases: leases::Feed,
    nodes: nodes::Feed,
    /// When Leases and Nodes have been listed.
    pub(super) listed: [Option<u64>; 2],
    was_paused: bool,
    /// What the longest of its turns has cost the deciding thread.
    pub(super) longest_turn: Duration,
}

impl Machine {
    pub(super) fn new(index: usize, cards: Vec<Card>, routes: Vec<(usize, u32)>) -> Self {
        Self {
            node: Node::from(format!("node-{index}").as_str()),
            cards,
            routes,
            services: Vec::new(),
            powered: true,
            paused: false,
            api: true,
            boot: 0,
            speaker: None,
            stops: false,
            lists_take: [6, 8],
            slices_take: 10,
            hours_ahead: 0,
            lag: 0,
            listed_at: 0,
        }
    }

    /// Of each speaker that runs here: a pod keeps its name when its container, or its machine, starts again.
    pub(super) fn identity(&self) -> Identity {
        Identity { node: self.node.clone(), instance: format!("speaker-of-{}", self.node) }
    }

    /// Starts a speaker; whatever ran before is gone.
    pub(super) fn start(&mut self) {
        self.boot += 1;
        (self.speaker, self.stops) = (None, false);
        let me = self.identity();
        let ways = Ways::default();
        let (queue, news) = EventQueue::new(IntCounter::new("lost", "Lost.").unwrap());
        let (slices_wanted, wanted) = oneshot::channel();
        let outlets = Outlets {
            clock,
            wire: Arc::new(ways.clone()),
            news: News(queue),
            metrics: Arc::new(Metrics::registered(&Registry::new()).unwrap()),
            frames: Frames::default(),
            fixed_profile: None,
            established: Health::default().awaits("session"),
            silent: watch::Sender::default(),
            slices_wanted,
        };
        let engine = Engine::new(me, Settings::default(), Arc::new(self.links()), outlets);
        self.speaker = Some(Speaker {
            engine,
            ways,
            inputs: unbounded(),
            messages: BTreeMap::new(),
            next: 0,
            news,
            _slices_wanted: wanted,
            leases: leases::Feed::default(),
            nodes: nodes::Feed::default(),
            listed: [None; 2],
            was_paused: false,
            longest_turn: Duration::ZERO,
        });
    }

    /// What netlink says.
    pub(super) fn links(&self) -> Links {
        let interface = |(card, index): (&Card, u32)| {
            let name = card.name.map_or_else(|| format!("eth{}", index - 1), str::to_owned);
            Interface {
                carrier: card.cable,
                carrier_ups: card.carrier_ups,
                addresses: card.nets.iter().map(|net| card.address(net)).collect(),
                ..Interface::new(index, name, Medium::Ethernet(card.mac))
            }
        };
        let route = |(card, metric): &(usize, u32)| DefaultRoute {
            family: Family::V4,
            interface: u32::try_from(card + 1).unwrap(),
            gateway: self.cards.get(*card).map(|card| gateway(card.segment)),
            metric: *metric,
            preference: RouterPreference::Medium,
        };
        let addresses = self.services.iter().map(|it| IpNet::from(*it).into()).collect();
        let of_proxy = Interface {
            kind: Some("dummy".to_owned()),
            addresses,
            ..Interface::new(OF_PROXY, "kube-ipvs0".to_owned(), Medium::Other)
        };
        let of_proxy = Some(of_proxy).filter(|it| !it.addresses.is_empty());
        Links {
            interfaces: self.cards.iter().zip(1..).map(interface).chain(of_proxy).collect(),
            default_routes: self.routes.iter().map(route).collect(),
        }
    }

    /// A frame arrives on a segment, at all cards but the one that has sent it. Returns what the kernel answers, by the card that it leaves by.
    pub(super) fn receive(
        &self,
        segment: u8,
        sent_by: Option<usize>,
        bytes: &[u8],
    ) -> Vec<(usize, Vec<u8>)> {
        let destination: [u8; 6] = bytes[..6].try_into().unwrap();
        let is_for = |card: &Card| destination[0] & 1 == 1 || destination == card.mac.octets();
        let mut answers = Vec::new();
        for (at, card) in self.cards.iter().enumerate() {
            let is_there = self.powered && card.cable && card.segment == segment;
            if !is_there || !is_for(card) || sent_by == Some(at) {
                continue;
            }
            let own = self.cards.iter().flat_map(|it| it.nets.iter().map(|net| it.address(net)));
            let own = own.filter(|it| it.state.is_usable()).map(|it| it.net.addr());
            // To the client too; but what it measures is what speakers answer.
            let of_services = self.services.iter().filter(|_| !is_of_client(bytes)).copied();
            let mut own = own.chain(of_services);
            let is_own = |address: IpAddr| own.any(|it| it == address);
            answers.extend(kernel_answer(bytes, card.mac, is_own).map(|frame| (at, frame)));
            if let Some(speaker) = &self.speaker {
                let index = u32::try_from(at + 1).unwrap();
                if self.paused || speaker.was_paused {
                    speaker.ways.keep(index, bytes);
                } else {
                    speaker.ways.hear(index, bytes);
                }
            }
        }
        answers
    }

    /// Lets the speaker run for this millisecond; returns what it wants written.
    pub(super) fn step(&mut self, now: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        let Some(speaker) = self.speaker.as_mut().filter(|_| self.powered) else { return orders };
        if self.paused {
            speaker.was_paused = true;
            return orders;
        }
        if speaker.was_paused && now.is_multiple_of(2) {
            speaker.go_on();
        }
        speaker.turn(now, &mut orders);
        if speaker.was_paused {
            speaker.go_on();
        }
        if speaker.engine.has_ended() {
            self.speaker = None;
        }
        orders
    }
}

impl Speaker {
    /// The threads that answer have their turn after a pause.
    fn go_on(&mut self) {
        self.was_paused = false;
        self.ways.hear_kept();
    }

    fn turn(&mut self, now: u64, orders: &mut Vec<Order>) {
        while let Some(first) = self.messages.first_entry().filter(|it| it.key().0 <= now) {
            let message = first.remove();
            for input in self.inputs_of(message, now) {
                self.inputs.0.send(input).unwrap();
            }
        }
        if now < self.next && self.inputs.1.is_empty() && !self.ways.have_news() {
            return;
        }
        let began = Work::begin();
        self.engine.take_in_more(&self.inputs.1);
        let next = self.engine.turn(&mut |order| orders.push(order));
        self.longest_turn = self.longest_turn.max(began.done());
        self.next = u64::try_from(next.as_duration().as_millis()).unwrap().max(now + 1);
    }

    fn inputs_of(&mut self, message: Message, now: u64) -> Vec<Input> {
        match message {
            Message::Leases(change) => {
                if matches!(*change, Change::Listed(_)) {
                    self.listed[0].get_or_insert(now);
                }
                self.leases.take(*change)
            }
            Message::Nodes(change) => {
                if matches!(*change, Change::Listed(_)) {
                    self.listed[1].get_or_insert(now);
                }
                vec![Input::Nodes(self.nodes.take(*change))]
            }
            Message::Input(input) => vec![*input],
        }
    }
}

/// The router of a segment.
pub(super) fn gateway(segment: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, segment, 1).into()
}

/// What a kernel at `mac` answers, which has some addresses.
pub(super) fn kernel_answer(
    bytes: &[u8],
    mac: MacAddr,
    mut is_own: impl FnMut(IpAddr) -> bool,
) -> Option<Vec<u8>> {
    if let Ok(frame) = ArpFrame::parse(bytes) {
        let question = frame.question().filter(|it| is_own(it.address.into()))?;
        return Some(question.answer(mac).to_bytes().to_vec());
    }
    let question = NdpFrame::parse(bytes).ok()?.question();
    let question = question.filter(|it| is_own(it.address.into()))?;
    Some(question.answer(mac).to_bytes().to_vec())
}
