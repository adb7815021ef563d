//! All interfaces that answer, and what each of them announces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use arpeggio_link::interfaces::{Interface, Links};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::MacAddr;

use crate::{
    neighbours::{Neighbours, Probe, is_segment},
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
    open: BTreeMap<u32, Segment>,
    places: BTreeMap<IpAddr, Place>,
}

impl Segments {
    pub(crate) fn new(wiring: Wiring) -> Self {
        Self { wiring, open: BTreeMap::new(), places: BTreeMap::new() }
    }

    /// Opens what has come, closes what is gone or has another MAC address or name.
    pub(crate) fn follow(&mut self, links: &Links) {
        let usable: BTreeMap<u32, &Interface> = links
            .interfaces
            .iter()
            .filter(|it| wanted(it, links))
            .map(|it| (it.index, it))
            .collect();
        self.open.retain(|index, segment| {
            let stays = usable.get(index).is_some_and(|interface| segment.serves(interface));
            if !stays {
                tracing::info!(interface = segment.interface().name, "interface closed");
            }
            stays
        });
        for (index, interface) in usable {
            if !self.open.contains_key(&index)
                && let Some(mac) = interface.mac()
            {
                self.open(interface, mac);
            }
        }
    }

    fn open(&mut self, interface: &Interface, mac: MacAddr) {
        let name = &interface.name;
        match Segment::open(interface.clone(), mac, &self.wiring) {
            Ok(segment) => {
                tracing::info!(interface = name, %mac, "interface opened");
                self.open.insert(interface.index, segment);
            }
            Err(error) => tracing::error!(
                interface = name,
                error = %causes(&error),
                "interface not opened"
            ),
        }
    }

    /// Announces exactly `addresses` from now on, each where [`Links::announcing`] says.
    pub(crate) fn announce(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        links: &Links,
        neighbours: &Neighbours,
    ) -> Changes {
        let places: BTreeMap<IpAddr, Place> = addresses
            .iter()
            .filter_map(|address| Some((*address, self.place(*address, links)?)))
            .collect();
        for (index, segment) in &mut self.open {
            let here = |(address, place): (&IpAddr, &Place)| match address {
                IpAddr::V4(address) if place.interface == *index => Some(*address),
                _ => None,
            };
            let ours: BTreeSet<Ipv4Addr> = places.iter().filter_map(here).collect();
            let current = links.interface(*index);
            let awaited = current.map(|it| neighbours.awaited(it, links)).unwrap_or_default();
            segment.announce(ours, awaited);
        }
        let changes = Changes {
            gained: only_in(&places, &self.places, |one, other| one == other),
            lost: only_in(&self.places, &places, |_, _| true),
        };
        self.places = places;
        changes
    }

    fn place(&self, address: IpAddr, links: &Links) -> Option<Place> {
        let interface = links.announcing(address).ok()?;
        let segment = self.open.get(&interface.index)?;
        // IPv6 is not spoken yet.
        (address.is_ipv4() && segment.serves(interface))
            .then_some(Place { interface: interface.index, mac: interface.mac()? })
    }

    /// How many addresses are announced.
    pub(crate) fn announced(&self) -> usize {
        self.places.len()
    }

    /// Tells the segment of `address`.
    pub(crate) fn tell(&self, address: IpAddr) {
        let segment = self.places.get(&address).and_then(|place| self.open.get(&place.interface));
        if let (Some(segment), IpAddr::V4(address)) = (segment, address) {
            segment.tell(address);
        }
    }

    /// Asks a neighbour.
    pub(crate) fn ask(&self, probe: Probe) {
        if let Some(segment) = self.open.get(&probe.interface) {
            segment.send(&probe.question.unicast(probe.to));
        }
    }
}

/// The interfaces with neighbours, and the one that addresses outside of every subnet are announced on.
fn wanted(interface: &Interface, links: &Links) -> bool {
    let default = links.default_routes.iter().any(|route| route.interface == interface.index);
    is_segment(interface) || (default && interface.flaw().is_none())
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
