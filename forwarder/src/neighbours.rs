//! The kernel's knowledge of where the other nodes are.
//!
//! A packet that is passed on to a node whose MAC address the kernel does not know waits for the answer to a question. With
//! IPv6 it then goes to the wrong neighbour: the kernel asks for the packet's destination instead of the node (seen with 6.18). So the
//! kernel is told beforehand what sessions say. It makes sure of that by itself, as of everything that it has not used for long.
//!
//! It is also had ask whether a node is there, of which nobody else tells: one that is cut off from the API server goes on as before, or is
//! dead. The kernel's own questions need no more privilege than the rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::Node;
use arpeggio_forwarding::{Hop, Mac, Wire};
use futures::TryStreamExt as _;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Error, Handle};

/// What "it is there already" is called (`EEXIST`).
const EXISTS: i32 = 17;

/// How often a node is asked, where few are. An answer that comes later than the next question counts, too.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// The time between two questions, whoever is asked: some switches take no more than fifteen a second of a machine.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);

/// Who has not answered so many questions in a row is silent.
const QUESTIONS: u32 = 6;

/// A neighbour's place: the device and the address.
type Place = (u32, IpAddr);

/// Tells the kernel of neighbours.
#[derive(Debug)]
pub struct Neighbours {
    handle: Handle,
    /// What the kernel was told last.
    told: BTreeMap<Place, Mac>,
    /// Those that it was had ask.
    asked: BTreeMap<Place, Asked>,
    /// When any of them was asked last.
    question: Option<Instant>,
}

/// What has come of questions to one neighbour.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    /// When it was asked last. `None`: it has to wait for its turn.
    at: Option<Instant>,
    /// It has answered once.
    heard: bool,
    /// It has answered the last question.
    answered: bool,
    /// The questions before that one, since it has answered.
    unanswered: u32,
    /// The kernel has refused to ask.
    refused: bool,
}

/// The time until one of so many is to be asked again, when one was asked just now.
pub const fn next_question(asked: usize) -> Duration {
    if asked > 1 { BETWEEN_QUESTIONS } else { ASKED_EVERY }
}

impl Neighbours {
    /// Opens what they are told by. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When there is no such socket.
    pub fn new() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, told: BTreeMap::new(), asked: BTreeMap::new(), question: None })
    }

    /// Tells the kernel of each node that packets are given to: what it does not know yet, has not found, and what is not so any
    /// more. Returns what it refused.
    pub async fn tell(&mut self, hops: &BTreeSet<Hop>) -> Vec<(IpAddr, Error)> {
        if hops.is_empty() {
            return Vec::new();
        }
        let mut refused = Vec::new();
        let before = std::mem::take(&mut self.told);
        // What the kernel does not list it is told as well as it can be.
        let not_found = self.not_found().await.unwrap_or_default();
        for hop in hops {
            let Ok(index) = if_nametoindex(hop.interface.as_str()) else { continue };
            let place = (index, hop.next_hop);
            let is_other = before.get(&place).is_some_and(|mac| *mac != hop.mac);
            match self.tell_one(index, hop, is_other || not_found.contains(&place)).await {
                Err(error) => refused.push((hop.next_hop, error)),
                Ok(()) => drop(self.told.insert(place, hop.mac)),
            }
        }
        refused
    }

    /// Has the kernel ask whether these nodes are there, one after the other, each at most every 200 ms, and says what has come of it so far: a node
    /// that answers on one of the ways is there. What is not asked again is forgotten.
    pub async fn ask(&mut self, ways: &BTreeSet<Hop>) -> BTreeMap<Node, Wire> {
        let before = std::mem::take(&mut self.asked);
        let turn = self.turn(ways, &before);
        let states = if turn.is_some() { self.states().await.ok() } else { None };
        let mut wire: BTreeMap<Node, Wire> = BTreeMap::new();
        for hop in ways {
            let place = place_of(hop);
            let state = states.as_ref().and_then(|states| states.get(&place)).copied();
            let mut asked = before.get(&place).copied().unwrap_or_default().seen(state);
            if turn == Some(place) {
                let refused =
                    states.is_none() || self.have_asked(place, hop.mac, state).await.is_err();
                asked = asked.asked_again(refused);
                self.question = asked.at;
            }
            self.asked.insert(place, asked);
            let found = wire.entry(hop.node.clone()).or_insert(asked.wire());
            *found = better(*found, asked.wire());
        }
        wire
    }

    /// Whose turn it is: who was never asked, or who has waited longest.
    fn turn(&self, ways: &BTreeSet<Hop>, before: &BTreeMap<Place, Asked>) -> Option<Place> {
        let is_over = |at: Option<Instant>, time| at.is_none_or(|at| at.elapsed() >= time);
        if !is_over(self.question, BETWEEN_QUESTIONS) {
            return None;
        }
        let at = |place: &Place| before.get(place).and_then(|asked| asked.at);
        let due = ways.iter().map(place_of).filter(|place| is_over(at(place), ASKED_EVERY));
        due.min_by_key(at)
    }

    /// The kernel asks when it begins to make sure of a neighbour, and at its own pace after that: it has to begin anew. The MAC address
    /// that it has found out by itself stays.
    async fn have_asked(
        &self,
        (device, address): Place,
        mac: Mac,
        state: Option<NeighbourState>,
    ) -> Result<(), Error> {
        use NeighbourState::{Delay, Probe, Reachable, Stale};
        let is_known = matches!(state, Some(Delay | Probe | Reachable | Stale));
        for state in [Stale, Probe] {
            let change = self.handle.neighbours().add(device, address).state(state).replace();
            let change = if is_known { change } else { change.link_layer_address(&mac) };
            change.execute().await?;
        }
        Ok(())
    }

    /// The neighbours that the kernel has asked for, and that have not answered.
    async fn not_found(&self) -> Result<BTreeSet<Place>, Error> {
        let is_lost = |state: &NeighbourState| {
            matches!(state, NeighbourState::Failed | NeighbourState::Incomplete)
        };
        let states = self.states().await?.into_iter();
        Ok(states.filter(|(_, state)| is_lost(state)).map(|(place, _)| place).collect())
    }

    /// What the kernel thinks of each neighbour.
    async fn states(&self) -> Result<BTreeMap<Place, NeighbourState>, Error> {
        let all: Vec<_> = self.handle.neighbours().get().execute().try_collect().await?;
        Ok(all.iter().filter_map(|it| Some((place(it)?, it.header.state))).collect())
    }

    /// What the kernel has found out by itself stays, unless that `is_wrong`.
    async fn tell_one(&self, device: u32, hop: &Hop, is_wrong: bool) -> Result<(), Error> {
        let told = self.handle.neighbours().add(device, hop.next_hop);
        let told = told.link_layer_address(&hop.mac).state(NeighbourState::Stale);
        let told = if is_wrong { told.replace() } else { told };
        match told.execute().await {
            Err(Error::NetlinkError(error)) if error.raw_code() == -EXISTS => Ok(()),
            other => other,
        }
    }
}

impl Asked {
    /// What the kernel thinks of it now. It forgets an answer after a while, so it has to be looked at before the next question.
    fn seen(mut self, state: Option<NeighbourState>) -> Self {
        if self.at.is_some() && state == Some(NeighbourState::Reachable) {
            (self.heard, self.answered, self.unanswered) = (true, true, 0);
        }
        self
    }

    fn asked_again(self, refused: bool) -> Self {
        let is_unanswered = self.at.is_some() && !self.answered;
        let unanswered = self.unanswered.saturating_add(u32::from(is_unanswered));
        Self { at: Some(Instant::now()), answered: false, unanswered, refused, ..self }
    }

    fn wire(self) -> Wire {
        match self {
            Self { refused: true, .. } => Wire::Unknown,
            Self { unanswered: QUESTIONS.., .. } => Wire::Silent,
            Self { heard: true, .. } => Wire::Answers,
            Self { .. } => Wire::Unasked,
        }
    }
}

/// Of what was found out on two ways to one node, what speaks for it.
const fn better(one: Wire, other: Wire) -> Wire {
    match (one, other) {
        (Wire::Answers, _) | (_, Wire::Answers) => Wire::Answers,
        (Wire::Unasked, _) | (_, Wire::Unasked) => Wire::Unasked,
        (Wire::Silent, Wire::Silent) => Wire::Silent,
        _ => Wire::Unknown,
    }
}

fn place_of(hop: &Hop) -> Place {
    (if_nametoindex(hop.interface.as_str()).unwrap_or_default(), hop.next_hop)
}

fn place(neighbour: &NeighbourMessage) -> Option<Place> {
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(IpAddr::from(*it)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(IpAddr::from(*it)),
        _ => None,
    });
    Some((neighbour.header.ifindex, address?))
}
