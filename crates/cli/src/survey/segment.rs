//! Asks the segment for addresses, first everybody and then by unicast, and hears who asks for this node's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use arpeggio_doctor::survey::{Answers, Heard, Wanted};
use arpeggio_link::{
    interfaces::{Interface, Links},
    packet::{FrameSocket, SocketError},
};
use arpeggio_wire::{Asker, MacAddr, Question};

use super::speech::{Sound, Speech};

/// How often each question is asked in each of the two ways.
const ROUNDS: u32 = 3;
/// From one round to the next, besides what sending takes.
const ROUND: Duration = Duration::from_millis(200);
/// Between two frames: switches limit how many come at once.
const PACE: Duration = Duration::from_millis(1);
/// How long answers may take.
const PATIENCE: Duration = Duration::from_millis(400);
/// More than any answer has.
const BUFFER: usize = 512;

/// All that is to be asked, with the sockets for it.
pub(super) struct Segment {
    ipv4: Vec<Listener<Ipv4Addr>>,
    ipv6: Vec<Listener<Ipv6Addr>>,
    unasked: Vec<Answers>,
}

/// One interface, in one family.
struct Listener<A: Speech> {
    socket: FrameSocket<A::Filter>,
    mac: MacAddr,
    own: BTreeSet<A>,
    targets: Vec<Target<A>>,
}

#[derive(Clone, Copy)]
struct Target<A> {
    address: A,
    source: Option<A>,
    /// Where it is asked for by unicast.
    mac: Option<MacAddr>,
}

impl Segment {
    /// Opens the sockets; from here on, questions of others are heard.
    pub(super) fn open(wanted: &[Wanted], links: &Links) -> Self {
        let mut segment = Self { ipv4: Vec::new(), ipv6: Vec::new(), unasked: Vec::new() };
        let mut places: BTreeMap<u32, (&Interface, Vec<&Wanted>)> = BTreeMap::new();
        for it in wanted {
            match interface(it, links) {
                Ok(interface) => {
                    places.entry(interface.index).or_insert((interface, vec![])).1.push(it);
                }
                Err(why) => segment.unasked.push(unasked(it.address, why)),
            }
        }
        for (interface, wanted) in places.into_values() {
            if let Err(error) = segment.listen(interface, &wanted) {
                let why = error.to_string();
                segment.unasked.extend(wanted.iter().map(|it| unasked(it.address, why.clone())));
            }
        }
        segment
    }

    fn listen(&mut self, interface: &Interface, wanted: &[&Wanted]) -> Result<(), SocketError> {
        let ipv4 = Listener::open(interface, wanted)?;
        let ipv6 = Listener::open(interface, wanted)?;
        self.ipv4.extend(ipv4);
        self.ipv6.extend(ipv6);
        Ok(())
    }

    /// Asks, on all interfaces at once.
    pub(super) fn ask(self) -> (Vec<Answers>, Vec<Heard>) {
        let Self { ipv4, ipv6, unasked } = self;
        let parts: Vec<(Vec<Answers>, Vec<Heard>)> = thread::scope(|scope| {
            let ipv4 = ipv4.iter().map(|it| scope.spawn(|| it.ask()));
            let ipv4: Vec<_> = ipv4.collect();
            let ipv6: Vec<_> = ipv6.iter().map(|it| scope.spawn(|| it.ask())).collect();
            ipv4.into_iter().chain(ipv6).filter_map(|it| it.join().ok()).collect()
        });
        let (answers, heard): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (
            answers.into_iter().flatten().chain(unasked).collect(),
            heard.into_iter().flatten().collect(),
        )
    }
}

fn unasked(address: IpAddr, why: String) -> Answers {
    Answers { address, broadcast: BTreeMap::new(), unicast: None, unasked: Some(why) }
}

/// Where an address is asked for.
pub(super) fn interface<'a>(wanted: &Wanted, links: &'a Links) -> Result<&'a Interface, String> {
    let Some(name) = &wanted.interface else {
        return links.announcing(wanted.address).map_err(|error| error.to_string());
    };
    let named = links.interfaces.iter().find(|it| it.name == *name);
    let named = named.ok_or_else(|| format!("there is no interface {name}"))?;
    named.flaw().map_or(Ok(named), |flaw| Err(format!("{name} {flaw}")))
}

impl<A: Speech> Listener<A> {
    /// `None` when nothing of this family is asked for.
    fn open(interface: &Interface, wanted: &[&Wanted]) -> Result<Option<Self>, SocketError> {
        let target = |it: &&Wanted| {
            let source = interface.source_for(it.address).and_then(A::of);
            let mac = it.mac.as_ref().and_then(|mac| mac.parse().ok());
            Some(Target { address: A::of(it.address)?, source, mac })
        };
        let targets: Vec<Target<A>> = wanted.iter().filter_map(target).collect();
        let Some(mac) = interface.mac().filter(|_| !targets.is_empty()) else { return Ok(None) };
        let own: BTreeSet<A> =
            interface.usable_addresses().filter_map(|it| A::of(it.net.addr())).collect();
        let filter = A::filter(own.clone(), targets.iter().map(|it| it.address).collect());
        let socket = FrameSocket::open(interface.index, &filter)?;
        Ok(Some(Self { socket, mac, own, targets }))
    }

    fn ask(&self) -> (Vec<Answers>, Vec<Heard>) {
        let sending = PACE * u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        let asking = ROUNDS * (ROUND + sending) + PATIENCE;
        let begin = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                self.send(begin, sending, |target| Some(A::to_everybody(self.question(target))));
                self.send(begin + asking, sending, |target| {
                    Some(A::to_one(self.question(target), target.mac?))
                });
            });
            self.hear(begin + asking, begin + 2 * asking)
        })
    }

    fn question(&self, target: &Target<A>) -> Question<A> {
        let asker = Asker { mac: self.mac, address: target.source };
        Question { address: target.address, asker }
    }

    fn send(
        &self,
        begin: Instant,
        sending: Duration,
        frame: impl Fn(&Target<A>) -> Option<Vec<u8>>,
    ) {
        for round in 0..ROUNDS {
            let due = begin + round * (ROUND + sending);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for frame in self.targets.iter().filter_map(&frame) {
                // What could not be sent is not answered, and that shows.
                let _ = self.socket.send(&frame);
                thread::sleep(PACE);
            }
        }
    }

    /// Answers before `unicast` are to questions to everybody.
    fn hear(&self, unicast: Instant, end: Instant) -> (Vec<Answers>, Vec<Heard>) {
        let mut ears = Ears::default();
        let mut buffer = [0; BUFFER];
        while Instant::now() < end {
            let Ok(length) = self.socket.recv(&mut buffer) else { break };
            let sound = length.and_then(|length| A::sound(buffer.get(..length)?, self.mac));
            let by_unicast = Instant::now() >= unicast;
            match sound {
                Some(Sound::Answer(claim)) => {
                    let answers = ears.answers.entry((claim.address, by_unicast)).or_default();
                    *answers.entry(claim.mac.to_string()).or_default() += 1;
                }
                Some(Sound::Question { address, asker, broadcast })
                    if self.own.contains(&address) =>
                {
                    let (to_all, to_me) = ears.askers.entry(asker).or_default();
                    *(if broadcast { to_all } else { to_me }) += 1;
                }
                _ => {}
            }
        }
        (self.targets.iter().map(|it| ears.answers_for(it)).collect(), ears.heard())
    }
}

/// What was heard so far.
struct Ears<A> {
    answers: BTreeMap<(A, bool), BTreeMap<String, u32>>,
    askers: BTreeMap<A, (u32, u32)>,
}

impl<A> Default for Ears<A> {
    fn default() -> Self {
        Self { answers: BTreeMap::new(), askers: BTreeMap::new() }
    }
}

impl<A: Speech> Ears<A> {
    fn answers_for(&self, target: &Target<A>) -> Answers {
        let answers = |by_unicast| {
            self.answers.get(&(target.address, by_unicast)).cloned().unwrap_or_default()
        };
        let unicast = target.mac.map(|_| answers(true));
        let address = target.address.into();
        Answers { address, broadcast: answers(false), unicast, unasked: None }
    }

    fn heard(&self) -> Vec<Heard> {
        let heard = |(address, (broadcast, unicast)): (&A, &(u32, u32))| Heard {
            address: (*address).into(),
            broadcast: *broadcast,
            unicast: *unicast,
        };
        self.askers.iter().map(heard).collect()
    }
}
