//! All interfaces that answer, and what each of them announces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{Bucket, Families};
use arpeggio_link::interfaces::{Family, Interface, Links};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::MacAddr;

use crate::{
    gratuitous::{Announcement, Due},
    neighbours::Probe,
    protocol::{Arp, Ndp, Protocol},
    segment::{Concern, Segment, Wiring},
};

/// So much is said at once of interfaces that are opened and closed, of each protocol.
const AT_ONCE: u32 = 40;

/// One more may be said each time that this has passed.
const PAUSE: Duration = Duration::from_secs(6);

/// How an interface is joined to its segment. Whenever that changes, the segment has to be told anew what is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attachment {
    /// The MAC address that is told.
    mac: MacAddr,
    /// How often the carrier has come.
    carrier_ups: u32,
}

/// What is to be on the wire.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// To be announced.
    pub(crate) announced: BTreeSet<Announcement>,
    /// To be asked for.
    pub(crate) asked: BTreeSet<Announcement>,
    /// Neighbours' addresses whose answers are awaited, by the interface's index.
    pub(crate) peers: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// What has changed with a new set of addresses.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Announced anew, or at another MAC address, or after the carrier had gone: the segment must be told.
    pub(crate) gained: Vec<Announcement>,
    /// No longer announced.
    pub(crate) lost: Vec<Announcement>,
    /// Something could not be done, and is to be tried again.
    pub(crate) incomplete: bool,
}

/// The interfaces that answer.
#[derive(Debug)]
pub(crate) struct Segments {
    wiring: Wiring,
    arp: Answering<Arp>,
    ndp: Answering<Ndp>,
    places: BTreeMap<Announcement, Attachment>,
    /// The addresses that have a place.
    announced: BTreeSet<IpAddr>,
}

impl Segments {
    pub(crate) fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            arp: Answering::default(),
            ndp: Answering::default(),
            places: BTreeMap::new(),
            announced: BTreeSet::new(),
        }
    }

    /// Opens what has come, closes what is gone or has another MAC address or name.
    pub(crate) fn follow(&mut self, links: &Links) {
        self.arp.follow(links, &self.wiring);
        self.ndp.follow(links, &self.wiring);
    }

    /// Whether [`follow`](Self::follow) must run again although the snapshot is unchanged: an interface went away and came
    /// back unseen, or could not be opened.
    pub(crate) fn are_behind(&self) -> bool {
        self.arp.is_behind() || self.ndp.is_behind()
    }

    /// The interfaces that could not be opened, or not with all that it takes, and for which addresses: this node does not hear
    /// or answer for these there.
    pub(crate) fn unopened(&self) -> BTreeMap<u32, Families> {
        let (arp, ndp) = (self.arp.unopened(), self.ndp.unopened());
        let families =
            |index: &u32| Families { ipv4: arp.contains(index), ipv6: ndp.contains(index) };
        arp.union(&ndp).map(|index| (*index, families(index))).collect()
    }

    /// Whether frames have come that nobody has told of yet.
    pub(crate) fn have_backlog(&self) -> bool {
        self.arp.has_backlog() || self.ndp.has_backlog()
    }

    /// Announces, asks for and awaits exactly what is wanted from now on.
    pub(crate) fn attend_to(&mut self, wanted: &Wanted, links: &Links) -> Changes {
        let arp = self.arp.attend_to(wanted, links, &self.wiring);
        let ndp = self.ndp.attend_to(wanted, links, &self.wiring);
        let attached = |it: &Announcement| Some((*it, self.attachment(it, links)?));
        let places: BTreeMap<Announcement, Attachment> =
            wanted.announced.iter().filter_map(attached).collect();
        let gained = places.iter().filter(|(it, place)| self.places.get(it) != Some(place));
        let lost = self.places.keys().filter(|it| !places.contains_key(it));
        let changes = Changes {
            gained: gained.map(|(it, _)| *it).collect(),
            lost: lost.copied().collect(),
            incomplete: !arp || !ndp,
        };
        self.announced = places.keys().map(|it| it.address).collect();
        self.places = places;
        changes
    }

    fn attachment(&self, announcement: &Announcement, links: &Links) -> Option<Attachment> {
        let interface = links.interface(announcement.interface)?;
        let answers = match announcement.address {
            IpAddr::V4(_) => self.arp.serves(interface),
            IpAddr::V6(_) => self.ndp.serves(interface),
        };
        let Interface { carrier_ups, .. } = *interface;
        answers.then_some(Attachment { mac: interface.mac()?, carrier_ups })
    }

    /// The addresses that are announced, each on one interface or several.
    pub(crate) fn announced(&self) -> &BTreeSet<IpAddr> {
        &self.announced
    }

    /// Where an address is announced.
    pub(crate) fn places(&self, address: IpAddr) -> impl Iterator<Item = Announcement> {
        self.all_places().filter(move |it| it.address == address)
    }

    /// Where what is announced is announced.
    pub(crate) fn all_places(&self) -> impl Iterator<Item = Announcement> {
        self.places.keys().copied()
    }

    /// Whether what is announced may be told: not when this process was paused since it was decided.
    pub(crate) fn may_tell(&self) -> bool {
        self.wiring.freshness.is_given()
    }

    /// Tells the segment; says whether everything has left.
    pub(crate) fn tell(&self, due: Due) -> bool {
        self.arp.tell(due) && self.ndp.tell(due)
    }

    /// Asks a neighbour, or everybody; says whether the question has left.
    pub(crate) fn ask(&self, probe: Probe) -> bool {
        self.arp.ask(probe) || self.ndp.ask(probe)
    }
}

/// The interfaces that answer by one protocol.
#[derive(Debug)]
struct Answering<P: Protocol> {
    open: BTreeMap<u32, Segment<P>>,
    /// Those that could not be opened.
    unopened: BTreeSet<u32>,
    /// Those from which the kernel cannot report groups.
    mute: BTreeSet<u32>,
    /// Bounds what is said of interfaces that come and go all the time.
    words: Bucket,
}

impl<P: Protocol> Default for Answering<P> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            unopened: BTreeSet::new(),
            mute: BTreeSet::new(),
            words: Bucket::new(AT_ONCE, PAUSE),
        }
    }
}

impl<P: Protocol> Answering<P> {
    fn has_backlog(&self) -> bool {
        self.open.values().any(Segment::has_backlog)
    }

    fn follow(&mut self, links: &Links, wiring: &Wiring) {
        let words = &mut self.words;
        self.open.retain(|index, segment| {
            let interface = links.interface(*index).filter(|it| it.flaw().is_none());
            let stays = interface.is_some_and(|it| {
                let is_of_use = segment.is_needed() || segment.is_in_trouble();
                segment.serves(it) && (has_askers::<P>(it, links) || is_of_use)
            });
            if !stays {
                let interface = &segment.interface().name;
                if words.take(wiring.now()) {
                    tracing::info!(interface, protocol = P::LABEL, "interface closed");
                }
                if links.interfaces.iter().all(|it| it.name != *interface) {
                    wiring.metrics.forget(interface);
                }
            }
            stays
        });
        self.unopened.retain(|index| links.interface(*index).is_some_and(|it| it.flaw().is_none()));
        // Where a rule's interface could not be opened nothing is wanted any more, so that nobody else would have it tried again.
        let unopened = self.unopened.clone();
        let is_to_open =
            |it: &&Interface| has_askers::<P>(it, links) || unopened.contains(&it.index);
        let here = links.interfaces.iter().filter(is_to_open);
        here.for_each(|it| self.open_if_closed(it, wiring));
        self.look_for_link_local(links);
    }

    /// Says when an interface has no address that the kernel could report groups from, and when it has one at last.
    fn look_for_link_local(&mut self, links: &Links) {
        if P::FAMILY != Family::V6 {
            return;
        }
        let Self { open, mute, .. } = self;
        mute.retain(|index| open.contains_key(index));
        for (index, segment) in open {
            let Some(interface) = links.interface(*index) else { continue };
            let name = &interface.name;
            if interface.has_link_local() {
                if mute.remove(index) {
                    tracing::info!(interface = name, "there is a link-local IPv6 address now");
                    segment.join_again();
                }
            } else if mute.insert(*index) {
                tracing::warn!(
                    interface = name,
                    "no link-local IPv6 address: switches that snoop on group reports ignore this node's, and may not \
                     deliver questions for its addresses"
                );
            }
        }
    }

    fn open_if_closed(&mut self, interface: &Interface, wiring: &Wiring) {
        if !self.open.contains_key(&interface.index)
            && let Some(mac) = interface.mac()
        {
            self.open(interface, mac, wiring);
        }
    }

    fn open(&mut self, interface: &Interface, mac: MacAddr, wiring: &Wiring) {
        let name = &interface.name;
        match Segment::open(interface.clone(), mac, wiring) {
            Ok(segment) => {
                if self.words.take(wiring.now()) {
                    tracing::info!(interface = name, protocol = P::LABEL, %mac, "interface opened");
                }
                self.unopened.remove(&interface.index);
                self.open.insert(interface.index, segment);
            }
            // Said once, and tried again with every decision.
            Err(error) => {
                if self.unopened.insert(interface.index) && self.words.take(wiring.now()) {
                    tracing::error!(
                        interface = name,
                        protocol = P::LABEL,
                        error = %causes(&error),
                        "interface not opened"
                    );
                }
            }
        }
    }

    fn unopened(&self) -> BTreeSet<u32> {
        let refused = self.open.iter().filter(|(_, segment)| segment.is_refused());
        let refused = refused.map(|(index, _)| *index);
        self.unopened.iter().copied().chain(refused).collect()
    }

    fn is_behind(&self) -> bool {
        !self.unopened.is_empty() || self.open.values().any(Segment::has_ended)
    }

    fn serves(&self, interface: &Interface) -> bool {
        self.open.get(&interface.index).is_some_and(|segment| segment.serves(interface))
    }

    /// `false` when something has to be tried again. An interface that a rule names is opened though this node has no
    /// address of the family on it.
    fn attend_to(&mut self, wanted: &Wanted, links: &Links, wiring: &Wiring) -> bool {
        let mut announced = by_interface::<P>(&wanted.announced);
        let mut asked = by_interface::<P>(&wanted.asked);
        let named = announced.keys().chain(asked.keys());
        let usable = named.filter_map(|index| links.interface(*index));
        usable.filter(|it| it.flaw().is_none()).for_each(|it| self.open_if_closed(it, wiring));
        self.look_for_link_local(links);
        self.open.values_mut().for_each(Segment::tell_of_voice);
        let mut complete = true;
        for (index, segment) in &mut self.open {
            let peers = wanted.peers.get(index).into_iter().flatten().copied();
            complete &= segment.attend_to(Concern {
                announced: announced.remove(index).unwrap_or_default(),
                asked: asked.remove(index).unwrap_or_default(),
                peers: peers.filter_map(P::address).collect(),
            });
        }
        complete
    }

    /// What is of the other protocol is not to be told here.
    fn tell(&self, Due { announcement, deferred }: Due) -> bool {
        let Announcement { interface, address } = announcement;
        let segment = self.open.get(&interface).zip(P::address(address));
        segment.is_none_or(|(segment, address)| segment.tell(address, deferred))
    }

    fn ask(&self, probe: Probe) -> bool {
        let segment = self.open.get(&probe.interface);
        segment.zip(P::address(probe.address)).is_some_and(|(segment, address)| {
            segment.ask(address, probe.source.and_then(P::address), probe.to)
        })
    }
}

fn by_interface<P: Protocol>(
    announcements: &BTreeSet<Announcement>,
) -> BTreeMap<u32, BTreeSet<P::Address>> {
    let mut found: BTreeMap<u32, BTreeSet<P::Address>> = BTreeMap::new();
    for Announcement { interface, address } in announcements {
        if let Some(address) = P::address(*address) {
            found.entry(*interface).or_default().insert(address);
        }
    }
    found
}

/// The interfaces with neighbours, and the one that addresses outside of every subnet are announced on.
fn has_askers<P: Protocol>(interface: &Interface, links: &Links) -> bool {
    let is_default = links
        .default_routes
        .iter()
        .any(|route| route.interface == interface.index && route.family == P::FAMILY);
    interface.flaw().is_none() && (is_default || interface.has_subnet(P::FAMILY))
}
