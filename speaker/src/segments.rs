//! All interfaces that answer, and what each of them announces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_link::interfaces::{Family, Interface, Links};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::MacAddr;

use crate::{
    neighbours::{Neighbours, Probe, is_segment},
    protocol::{Arp, Ndp, Protocol},
    segment::{Segment, Wiring},
};

/// Where an address is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The interface's index.
    pub(crate) interface: u32,
    /// The MAC address that is told.
    pub(crate) mac: MacAddr,
}

/// What has changed with a new set of addresses.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Announced anew, or at another interface or MAC address: the segment must be told.
    pub(crate) gained: Vec<IpAddr>,
    /// No longer announced.
    pub(crate) lost: Vec<IpAddr>,
}

/// The interfaces that answer.
#[derive(Debug)]
pub(crate) struct Segments {
    wiring: Wiring,
    arp: Answering<Arp>,
    ndp: Answering<Ndp>,
    places: BTreeMap<IpAddr, Place>,
}

impl Segments {
    pub(crate) fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            arp: Answering::default(),
            ndp: Answering::default(),
            places: BTreeMap::new(),
        }
    }

    /// Opens what has come, closes what is gone or has another MAC address or name.
    pub(crate) fn follow(&mut self, links: &Links) {
        self.arp.follow(links, &self.wiring);
        self.ndp.follow(links, &self.wiring);
    }

    /// Announces exactly `addresses` from now on, each where [`Links::announcing`] says, and awaits the answers to `asked`.
    pub(crate) fn announce(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        asked: &[Probe],
        links: &Links,
        neighbours: &Neighbours,
    ) -> Changes {
        let places: BTreeMap<IpAddr, Place> = addresses
            .iter()
            .filter_map(|address| Some((*address, self.place(*address, links)?)))
            .collect();
        self.arp.announce(&places, asked, links, neighbours);
        self.ndp.announce(&places, asked, links, neighbours);
        let changes = Changes {
            gained: only_in(&places, &self.places, |one, other| one == other),
            lost: only_in(&self.places, &places, |_, _| true),
        };
        self.places = places;
        changes
    }

    fn place(&self, address: IpAddr, links: &Links) -> Option<Place> {
        let interface = links.announcing(address).ok()?;
        let answers = match address {
            IpAddr::V4(_) => self.arp.serves(interface),
            IpAddr::V6(_) => self.ndp.serves(interface),
        };
        answers.then_some(Place { interface: interface.index, mac: interface.mac()? })
    }

    /// How many addresses are announced.
    pub(crate) fn announced(&self) -> usize {
        self.places.len()
    }

    /// Tells the segment of `address`.
    pub(crate) fn tell(&self, address: IpAddr) {
        if let Some(place) = self.places.get(&address) {
            self.arp.tell(place.interface, address);
            self.ndp.tell(place.interface, address);
        }
    }

    /// Asks a neighbour.
    pub(crate) fn ask(&self, probe: Probe) {
        self.arp.ask(probe);
        self.ndp.ask(probe);
    }
}

/// The interfaces that answer by one protocol.
#[derive(Debug)]
struct Answering<P: Protocol> {
    open: BTreeMap<u32, Segment<P>>,
}

impl<P: Protocol> Default for Answering<P> {
    fn default() -> Self {
        Self { open: BTreeMap::new() }
    }
}

impl<P: Protocol> Answering<P> {
    fn follow(&mut self, links: &Links, wiring: &Wiring) {
        let usable: BTreeMap<u32, &Interface> = links
            .interfaces
            .iter()
            .filter(|it| wanted::<P>(it, links))
            .map(|it| (it.index, it))
            .collect();
        self.open.retain(|index, segment| {
            let stays = usable.get(index).is_some_and(|interface| segment.serves(interface));
            if !stays {
                let interface = &segment.interface().name;
                tracing::info!(interface, protocol = P::LABEL, "interface closed");
            }
            stays
        });
        for (index, interface) in usable {
            if !self.open.contains_key(&index)
                && let Some(mac) = interface.mac()
            {
                self.open(interface, mac, wiring);
            }
        }
    }

    fn open(&mut self, interface: &Interface, mac: MacAddr, wiring: &Wiring) {
        let name = &interface.name;
        match Segment::open(interface.clone(), mac, wiring) {
            Ok(segment) => {
                tracing::info!(interface = name, protocol = P::LABEL, %mac, "interface opened");
                if P::FAMILY == Family::V6 && !interface.has_link_local() {
                    tracing::warn!(
                        interface = name,
                        "no link-local IPv6 address: switches that snoop on group reports ignore this node's, and \
                         may not deliver questions for its addresses"
                    );
                }
                self.open.insert(interface.index, segment);
            }
            Err(error) => tracing::error!(
                interface = name,
                protocol = P::LABEL,
                error = %causes(&error),
                "interface not opened"
            ),
        }
    }

    fn serves(&self, interface: &Interface) -> bool {
        self.open.get(&interface.index).is_some_and(|segment| segment.serves(interface))
    }

    fn announce(
        &mut self,
        places: &BTreeMap<IpAddr, Place>,
        asked: &[Probe],
        links: &Links,
        neighbours: &Neighbours,
    ) {
        for (index, segment) in &mut self.open {
            let here = places.iter().filter(|(_, place)| place.interface == *index);
            let ours = here.filter_map(|(address, _)| P::address(*address)).collect();
            let current = links.interface(*index);
            let mut awaited = current.map(|it| neighbours.awaited(it, links)).unwrap_or_default();
            let asked = asked.iter().filter(|probe| probe.interface == *index);
            awaited.extend(asked.map(|probe| probe.address));
            segment.announce(ours, awaited.into_iter().filter_map(P::address).collect());
        }
    }

    fn tell(&self, interface: u32, address: IpAddr) {
        if let (Some(segment), Some(address)) = (self.open.get(&interface), P::address(address)) {
            segment.tell(address);
        }
    }

    fn ask(&self, probe: Probe) {
        let address = P::address(probe.address);
        if let (Some(segment), Some(address)) = (self.open.get(&probe.interface), address) {
            segment.ask(address, probe.source.and_then(P::address), probe.to);
        }
    }
}

/// The interfaces with neighbours, and the one that addresses outside of every subnet are announced on.
fn wanted<P: Protocol>(interface: &Interface, links: &Links) -> bool {
    let is_default = links
        .default_routes
        .iter()
        .any(|route| route.interface == interface.index && route.family == P::FAMILY);
    is_segment(interface, P::FAMILY) || (is_default && interface.flaw().is_none())
}

fn only_in(
    one: &BTreeMap<IpAddr, Place>,
    other: &BTreeMap<IpAddr, Place>,
    same: impl Fn(&Place, &Place) -> bool,
) -> Vec<IpAddr> {
    let missing = one
        .iter()
        .filter(|(address, place)| !other.get(*address).is_some_and(|there| same(place, there)));
    missing.map(|(address, _)| *address).collect()
}
