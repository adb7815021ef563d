//! The default gateways, which show whether this node hears anybody.
//!
//! They are asked each time that a node misses a question: while the API server is away, for as long as it is dead. So a gateway
//! is asked by unicast where its last answer came from. Everybody is asked while that is not known, and when it has not
//! answered, since its MAC address is nobody's promise: some times at once, and then once a second.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_election::{Bucket, Timestamp};
use arpeggio_link::interfaces::Links;
use arpeggio_wire::MacAddr;

use crate::neighbours::{Probe, probe};

/// Everybody is asked for a gateway so many times at once, which is more often than a node is asked until it counts as silent; and
/// then once more after each pause.
const AT_ONCE: u32 = 16;
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the default gateways, by the index of the interface and the address.
#[derive(Debug, Default)]
pub(crate) struct Gateways(BTreeMap<(u32, IpAddr), Gateway>);

#[derive(Debug)]
struct Gateway {
    /// Where its last answer came from.
    mac: Option<MacAddr>,
    /// It was asked and has not answered since.
    owes: bool,
    broadcasts: Bucket,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { mac: None, owes: false, broadcasts: Bucket::new(AT_ONCE, PAUSE) }
    }
}

impl Gateways {
    /// How to ask for them now.
    pub(crate) fn probes(&mut self, links: &Links, now: Timestamp) -> Vec<Probe> {
        self.0.retain(|known, _| gateways(links).any(|gateway| gateway == *known));
        let asked = gateways(links).filter_map(|(index, address)| {
            let to_all = probe(links.interface(index)?, address, None)?;
            let gateway = self.0.entry((index, address)).or_default();
            let is_in_doubt = gateway.mac.is_none() || gateway.owes;
            gateway.owes = true;
            if is_in_doubt && gateway.broadcasts.take(now) {
                return Some(to_all);
            }
            gateway.mac.map(|mac| Probe { to: Some(mac), ..to_all })
        });
        asked.collect()
    }

    /// Takes note of an answer, if it is one of a gateway; says whether it is.
    pub(crate) fn answered(&mut self, asked: (u32, IpAddr), mac: MacAddr, links: &Links) -> bool {
        let is_gateway = gateways(links).any(|gateway| gateway == asked);
        if is_gateway {
            let gateway = self.0.entry(asked).or_default();
            (gateway.mac, gateway.owes) = (Some(mac), false);
        }
        is_gateway
    }

    /// Whether a machine has answered last for one of them.
    pub(crate) fn is_router(&self, mac: MacAddr) -> bool {
        self.0.values().any(|gateway| gateway.mac == Some(mac))
    }
}

/// The default gateways, each with the index of its interface, which a link-local address needs.
pub(crate) fn gateways(links: &Links) -> impl Iterator<Item = (u32, IpAddr)> {
    links.default_routes.iter().filter_map(|route| Some((route.interface, route.gateway?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::tests::links;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 77);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Whom it asks for the first of them each 40 ms, where `answers` says who answers whom.
    fn asked(
        gateways: &mut Gateways,
        from: u64,
        to: u64,
        answers: impl Fn(Option<MacAddr>) -> Option<MacAddr>,
    ) -> Vec<Option<MacAddr>> {
        let links = links();
        let mut asked = Vec::new();
        for now in (from..to).step_by(40) {
            let probe =
                gateways.probes(&links, at(now)).into_iter().find(|it| it.address.is_ipv4());
            let Some(probe) = probe else { continue };
            asked.push(probe.to);
            if let Some(mac) = answers(probe.to) {
                assert!(gateways.answered((probe.interface, probe.address), mac, &links));
            }
        }
        asked
    }

    fn broadcasts(asked: &[Option<MacAddr>]) -> usize {
        asked.iter().filter(|to| to.is_none()).count()
    }

    #[test]
    fn a_gateway_that_answers_is_asked_by_unicast() {
        let mut gateways = Gateways::default();
        let asked = asked(&mut gateways, 0, 4000, |_| Some(MAC));
        assert_eq!(asked.len(), 100);
        assert_eq!(broadcasts(&asked), 1, "{asked:?}");
    }

    #[test]
    fn a_gateway_with_a_new_mac_address_is_found_at_the_second_question() {
        let mut gateways = Gateways::default();
        asked(&mut gateways, 0, 400, |_| Some(MAC));
        let new = MacAddr(2, 0, 0, 0, 0, 78);
        let is_heard = |to: Option<MacAddr>| (to != Some(MAC)).then_some(new);
        assert_eq!(asked(&mut gateways, 400, 520, is_heard), [Some(MAC), None, Some(new)]);
        assert!(gateways.is_router(new) && !gateways.is_router(MAC));
    }

    #[test]
    fn a_gateway_that_answers_nobody_costs_a_broadcast_a_second() {
        let mut gateways = Gateways::default();
        asked(&mut gateways, 0, 400, |_| Some(MAC));
        let asked = asked(&mut gateways, 400, 60_400, |_| None);
        assert!((60..80).contains(&broadcasts(&asked)), "{}", broadcasts(&asked));
        assert!(asked[1..15].iter().all(Option::is_none), "at first everybody is asked each time");
        let never = self::asked(&mut Gateways::default(), 0, 60_000, |_| None);
        assert!((60..80).contains(&never.len()), "{}", never.len());
    }
}
