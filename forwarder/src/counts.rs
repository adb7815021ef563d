//! Counts in the kernel, beside the loop that decides: a list of some hundred thousand connections takes a second, and a death that is told meanwhile
//! does not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_forwarder::rules::{Counter, Counters};
use arpeggio_forwarding::Draining;
use arpeggio_netfilter::{Connections, Error, Netfilter};
use arpeggio_runtime::telemetry::causes;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until},
};

/// After a count there is none for so many times as long as it took.
const REST: u32 = 4;

/// One count after the other, each on a thread of its own.
#[derive(Debug)]
pub(crate) struct Counts<T> {
    running: Option<JoinHandle<T>>,
    began: Instant,
    /// When the next one may begin.
    rested: Instant,
    wanted: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// A count can begin.
    Due,
    /// This was counted. `None`: the thread that was to count has failed.
    Done(Option<T>),
}

impl<T: Send + 'static> Counts<T> {
    pub(crate) fn new() -> Self {
        Self { running: None, began: Instant::now(), rested: Instant::now(), wanted: false }
    }

    /// There is to be another one, which begins after this.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether a count that is wanted can begin.
    pub(crate) fn is_due(&self) -> bool {
        self.wanted && self.running.is_none() && self.rested <= Instant::now()
    }

    /// Begins the one that is wanted.
    pub(crate) fn begin(&mut self, count: impl FnOnce() -> T + Send + 'static) {
        (self.wanted, self.began) = (false, Instant::now());
        self.running = Some(tokio::task::spawn_blocking(count));
    }

    /// There is nothing to count.
    pub(crate) fn skip(&mut self) {
        self.wanted = false;
    }

    /// Waits until the one that runs is done, or one [is due](Self::is_due); forever when none is wanted. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Next<T> {
        if let Some(running) = &mut self.running {
            let counted = running.await;
            self.running = None;
            self.rested = Instant::now() + self.began.elapsed().saturating_mul(REST);
            let failed = |error: &JoinError| tracing::error!(%error, "a count has failed");
            return Next::Done(counted.inspect_err(failed).ok());
        }
        if !self.wanted {
            std::future::pending::<()>().await;
        }
        sleep_until(self.rested).await;
        Next::Due
    }
}

/// What was counted.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The addresses of which connections were counted, as they were then.
    of: Draining,
    /// `None`: they cannot be counted.
    connections: Option<BTreeMap<IpAddr, Connections>>,
    /// What the rules have counted. `None`: that was not read.
    pub(crate) counters: Option<Vec<Counter>>,
}

impl Counted {
    /// Counts the connections of the addresses that run out here, and what the rules have passed on.
    pub(crate) fn now(of: Draining, counters: &Counters) -> Self {
        let counters = Netfilter::open().and_then(|mut netfilter| counters.read(&mut netfilter));
        let counters = counters.inspect_err(|error| {
            tracing::debug!(error = %causes(error), "counters are not read");
        });
        let connections = connections(&of).inspect_err(|error| {
            tracing::warn!(error = %causes(error), "connections are not counted");
        });
        Self { of, connections: connections.ok(), counters: counters.ok() }
    }

    /// The connections of the addresses that run out here. Of one that has moved since it was counted no zero is said: it would end
    /// connections that it has got since. Nor is one kept back that had some, since who knows nothing else takes that for none. `None`: they cannot be
    /// counted.
    pub(crate) fn connections(&self, draining: &Draining) -> Option<BTreeMap<IpAddr, u32>> {
        let counted = self.connections.as_ref()?;
        let counts = draining.addresses.iter().filter_map(|(address, drain)| {
            let count = counted.get(address).map_or(0, |it| it.tcp.saturating_add(it.udp));
            let has_none = drain.served && self.of.addresses.get(address) == Some(drain);
            (has_none || count > 0).then_some((*address, count))
        });
        Some(counts.collect())
    }
}

/// Takes out of earlier counts those of addresses that do not run out here any more, and zeros of those that have moved since. Returns
/// whether there were any.
pub(crate) fn take_out_moved(
    counts: &mut BTreeMap<IpAddr, u32>,
    before: &Draining,
    now: &Draining,
) -> bool {
    let all = counts.len();
    counts.retain(|address, count| {
        let now = now.addresses.get(address);
        now.is_some() && (*count > 0 || now == before.addresses.get(address))
    });
    counts.len() < all
}

fn connections(of: &Draining) -> Result<BTreeMap<IpAddr, Connections>, Error> {
    if of.addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    let drains = of.addresses.iter();
    let addresses = drains.map(|(address, drain)| (*address, drain.quic.clone())).collect();
    Netfilter::open()?.connections(&addresses, &own_addresses())
}

/// The node's own addresses. Its own connections to an address are translated here wherever the address is: no other node gets a packet of
/// them. When the kernel does not tell, all count.
fn own_addresses() -> BTreeSet<IpAddr> {
    let found = getifaddrs().inspect_err(|error| {
        tracing::debug!(%error, "the node's own addresses are not known");
    });
    found.into_iter().flatten().filter_map(|it| ip(&it.address?)).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use arpeggio_election::Timestamp;
    use arpeggio_forwarding::Drain;
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_node_has_addresses_of_its_own() {
        assert!(own_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_count() {
        let mut counts = Counts::new();
        let (go_on, told) = mpsc::channel();
        counts.want();
        assert!(counts.is_due());
        counts.begin(move || told.recv().unwrap());
        assert_eq!(counts.next().now_or_never(), None);
        counts.want();
        assert!(!counts.is_due() && counts.next().now_or_never().is_none(), "one at a time");
        go_on.send(7).unwrap();
        assert_eq!(counts.next().await, Next::Done(Some(7)));
        assert_eq!(counts.next().await, Next::Due);
        assert!(counts.is_due(), "the later one is not forgotten");
    }

    #[tokio::test]
    async fn after_a_long_count_there_is_a_long_rest() {
        let long = Duration::from_millis(50);
        let mut counts = Counts::new();
        counts.want();
        counts.begin(move || thread::sleep(long));
        assert_eq!(counts.next().await, Next::Done(Some(())));
        counts.want();
        assert!(!counts.is_due());
        let done = Instant::now();
        assert_eq!(counts.next().await, Next::Due);
        assert!(counts.is_due() && done.elapsed() > long * 3, "{:?}", done.elapsed());
    }

    #[tokio::test]
    async fn a_count_that_fails_is_not_the_last_one() {
        let mut counts = Counts::<()>::new();
        counts.want();
        counts.begin(|| panic!("it fails"));
        assert_eq!(counts.next().await, Next::Done(None));
        counts.want();
        assert_eq!(counts.next().await, Next::Due);
        assert!(counts.is_due());
    }

    fn drain(until: u64, served: bool) -> Drain {
        let until = Timestamp::from_origin(Duration::from_secs(until));
        Drain { until, served, quic: BTreeSet::new() }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn draining(drains: [(u8, Drain); 2]) -> Draining {
        let drains = drains.into_iter().map(|(last, drain)| (address(last), drain));
        Draining { addresses: drains.collect() }
    }

    /// An address moves here and away again while it is counted.
    #[test]
    fn what_was_counted_before_an_address_moved_says_nothing_of_it() {
        let of = draining([(1, drain(1, true)), (2, drain(1, false))]);
        let count = |tcp| Connections { tcp, udp: 0 };
        let connections = [(address(1), count(0)), (address(2), count(7))];
        let counted = |connections| Counted { of: of.clone(), connections, counters: None };
        let some = counted(Some(connections.into()));
        assert_eq!(some.connections(&of), Some([(address(1), 0), (address(2), 7)].into()));
        let now = draining([(1, drain(2, true)), (2, drain(1, false))]);
        assert_eq!(some.connections(&now), Some([(address(2), 7)].into()));
        let now = draining([(1, drain(1, true)), (3, drain(1, true))]);
        assert_eq!(some.connections(&now), Some([(address(1), 0)].into()));
        let now = draining([(1, drain(1, true)), (2, drain(2, true))]);
        assert_eq!(some.connections(&now), Some([(address(1), 0), (address(2), 7)].into()));
        assert_eq!(counted(None).connections(&of), None);
    }

    /// A count that takes long has not told of them yet when they are to be said once more.
    #[test]
    fn what_was_said_of_an_address_is_taken_back_as_soon_as_it_moves() {
        let before = draining([(1, drain(1, true)), (2, drain(1, true))]);
        let table = [
            (draining([(1, drain(1, true)), (2, drain(1, true))]), &[1, 2][..], "none has moved"),
            (draining([(1, drain(1, true)), (3, drain(1, true))]), &[1], "one is served here"),
            (draining([(1, drain(2, true)), (2, drain(1, true))]), &[2], "and was here meanwhile"),
            (draining([(1, drain(1, true)), (2, drain(2, true))]), &[1, 2], "some are no none"),
            (Draining::default(), &[], "all are served here"),
        ];
        for (now, left, case) in table {
            let mut counts = BTreeMap::from([(address(1), 0), (address(2), 7)]);
            let is_less = take_out_moved(&mut counts, &before, &now);
            assert!(counts.keys().copied().eq(left.iter().map(|it| address(*it))), "{case}");
            assert_eq!(is_less, left.len() < 2, "{case}");
        }
    }
}
