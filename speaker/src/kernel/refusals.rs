//! Frames that the kernel does not let leave.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arpeggio_election::Families;
use arpeggio_link::interfaces::{self, Links};
use crossbeam_channel::Receiver;
use prometheus::{Registry, proto::MetricFamily};

use super::{LASTS, OURS, OURS_V6, TURN, can_announce, cut_off, pair, wiring};
use crate::{
    announcer::{Announcer, Demand},
    clock::of_this_machine,
    listener::{Freshness, Sighting},
    neighbours::Neighbours,
};

/// Longer than a speaker has patience.
const LONG: Duration = Duration::from_secs(20);

struct Side {
    announcer: Announcer,
    freshness: Freshness,
    registry: Registry,
    _receivers: [Receiver<Sighting>; 2],
}

impl Side {
    fn new(links: Arc<Links>) -> Self {
        let registry = Registry::new();
        let (wiring, receivers) = wiring(&registry);
        let freshness = wiring.freshness.clone();
        Self {
            announcer: Announcer::new(links, wiring),
            freshness,
            registry,
            _receivers: receivers,
        }
    }

    /// Announces until `ended`; says whether that came in time.
    fn announce_until(&mut self, mut ended: impl FnMut(&Announcer) -> bool) -> bool {
        let ours: BTreeSet<IpAddr> = [OURS.into(), OURS_V6.into()].into();
        let start = Instant::now();
        while start.elapsed() < LONG {
            let now = of_this_machine();
            self.freshness.extend(now + LASTS);
            let demand = Demand { announced: Cow::Borrowed(&ours), ..Demand::default() };
            self.announcer.attend_to(
                demand,
                |address, reach| reach.announcing(address, &[]),
                &Neighbours::default(),
                now,
            );
            self.announcer.tell(now);
            self.announcer.look_at_opened();
            if ended(&self.announcer) {
                return true;
            }
            thread::sleep(TURN);
        }
        false
    }

    fn refused(&self) -> f64 {
        let families = self.registry.gather();
        let of_refused = families.iter().filter(|it| it.name().ends_with("frames_refused_total"));
        of_refused.flat_map(MetricFamily::get_metric).map(|it| it.get_counter().get_value()).sum()
    }
}

/// What keeps frames from leaving, how it begins and how it ends. The kernel reports both alike.
const CAUSES: [(&str, &str, &str); 2] = [
    (
        "a packet filter",
        "nft add table netdev t { chain c { type filter hook egress device eth0 priority 0 ; policy drop ; } ; }",
        "nft delete table netdev t",
    ),
    (
        "a card that stands still",
        "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 10",
        "tc qdisc delete dev eth0 root",
    ),
];

#[test]
fn an_interface_that_lets_nothing_leave_is_none_to_announce_on() {
    let Some(pair) = pair() else { return };
    for (what, begin, end) in CAUSES {
        pair.here.run(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let links = runtime.block_on(interfaces::watch()).unwrap();
            let mut side = Side::new(links.borrow().clone());
            assert!(side.announce_until(can_announce), "{what}");
            pair.here.command(begin);
            // As after a carrier that was away: all is told anew.
            let mut side = Side::new(links.borrow().clone());
            let start = Instant::now();
            assert!(side.announce_until(|it| !can_announce(it)), "{what}");
            println!("{what}: given up after {:?}", start.elapsed());
            assert!(start.elapsed() >= Duration::from_secs(5), "{what}: a moment is no reason");
            let refused = side.refused();
            assert!((4.0..2500.0).contains(&refused), "{what}: {refused} refused");
            pair.here.command(end);
            assert!(side.announce_until(can_announce), "{what}");
            assert!(side.announce_until(|it| it.announced().len() == 2), "{what}");
        });
    }
}

/// A rule for IPv6 says nothing of IPv4.
#[test]
fn an_interface_that_lets_no_ipv6_leave_announces_ipv4_as_before() {
    let Some(pair) = pair() else { return };
    pair.here.run(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let links = runtime.block_on(interfaces::watch()).unwrap();
        pair.here.command(
            "nft add table netdev t { chain c { type filter hook egress device eth0 priority 0 ; policy accept ; \
             meta protocol ip6 drop ; } ; }",
        );
        let mut side = Side::new(links.borrow().clone());
        let no_ipv6 = Families { ipv4: false, ipv6: true };
        assert!(side.announce_until(|it| cut_off(it) == Some(no_ipv6)));
        let start = Instant::now();
        let goes_on = side.announce_until(|it| {
            assert!(it.announced().contains(&OURS.into()), "{:?}", it.announced());
            start.elapsed() > Duration::from_secs(1)
        });
        assert!(goes_on);
        pair.here.command("nft delete table netdev t");
        assert!(side.announce_until(can_announce));
        assert!(side.announce_until(|it| it.announced().len() == 2));
    });
}
