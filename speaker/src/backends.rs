//! Which addresses have traffic that must not leave its node, and where their backends are.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use arpeggio_api::{endpoints::ServiceName, lock::LockRecord};
use arpeggio_election::{Backends, Event};
use tokio::sync::oneshot;

/// Joins locks and the backends of Services.
#[derive(Debug)]
pub(crate) struct LocalBackends {
    /// Whether they have been listed.
    listed: bool,
    /// Whether they are not waited for any more: an address may be announced from any node then, since it is dark for sure
    /// where nobody takes it.
    forgone: bool,
    /// Of Services that have any.
    of_service: BTreeMap<ServiceName, Backends>,
    /// The Services behind each address whose traffic must not leave its node.
    behind: BTreeMap<IpAddr, BTreeSet<ServiceName>>,
    /// The same, by Service.
    before: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
    /// Told when there is the first such address.
    wanted: Option<oneshot::Sender<()>>,
}

impl LocalBackends {
    pub(crate) fn new(wanted: oneshot::Sender<()>) -> Self {
        Self {
            listed: false,
            forgone: false,
            of_service: BTreeMap::new(),
            behind: BTreeMap::new(),
            before: BTreeMap::new(),
            wanted: Some(wanted),
        }
    }

    /// A lock is new or has changed.
    pub(crate) fn lock_seen(&mut self, record: &LockRecord) -> Option<Event> {
        let address = record.lock.address;
        if !record.claim.terms.local {
            return self.lock_gone(address);
        }
        if let Some(wanted) = self.wanted.take() {
            let _ = wanted.send(()); // Fails only when the process ends.
        }
        let services = record.claim.services.iter();
        let services: BTreeSet<ServiceName> =
            services.map(|it| (it.namespace.clone(), it.name.clone())).collect();
        if self.behind.get(&address) == Some(&services) {
            return None;
        }
        self.forget(address);
        for service in &services {
            self.before.entry(service.clone()).or_default().insert(address);
        }
        self.behind.insert(address, services);
        Some(self.event(address))
    }

    /// Forgets what is behind an address. Whether anything was.
    fn forget(&mut self, address: IpAddr) -> bool {
        let Some(services) = self.behind.remove(&address) else { return false };
        for service in services {
            if let Entry::Occupied(mut addresses) = self.before.entry(service) {
                addresses.get_mut().remove(&address);
                if addresses.get().is_empty() {
                    addresses.remove();
                }
            }
        }
        true
    }

    /// A lock is gone, or its traffic may leave the node.
    pub(crate) fn lock_gone(&mut self, address: IpAddr) -> Option<Event> {
        self.forget(address).then_some(Event::Backends { address, backends: None })
    }

    /// The backends of Services have changed, or have been listed.
    pub(crate) fn changed(&mut self, changes: BTreeMap<ServiceName, Backends>) -> Vec<Event> {
        let concerned: BTreeSet<IpAddr> = if std::mem::replace(&mut self.listed, true) {
            let before = changes.keys().filter_map(|service| self.before.get(service));
            before.flatten().copied().collect()
        } else {
            self.behind.keys().copied().collect()
        };
        for (service, backends) in changes {
            if backends == Backends::default() {
                self.of_service.remove(&service);
            } else {
                self.of_service.insert(service, backends);
            }
        }
        concerned.into_iter().map(|address| self.event(address)).collect()
    }

    /// The API server does not show where backends are. What was known of them stays.
    pub(crate) fn forgo(&mut self) -> Vec<Event> {
        self.forgone = true;
        if self.listed {
            return Vec::new();
        }
        self.behind.keys().map(|address| self.event(*address)).collect()
    }

    fn event(&self, address: IpAddr) -> Event {
        if !self.listed {
            let unknown = Event::BackendsUnknown(address);
            return if self.forgone {
                Event::Backends { address, backends: None }
            } else {
                unknown
            };
        }
        let mut backends = Backends::default();
        let services = self.behind.get(&address).into_iter().flatten();
        services.filter_map(|it| self.of_service.get(it)).for_each(|it| backends.add(it));
        Event::Backends { address, backends: Some(backends) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use arpeggio_api::{
        lock::{Claim, ServiceRef, parse},
        terms::WrittenAnnounceTerms,
    };

    use super::*;

    fn lock(local: bool) -> LockRecord {
        let service =
            ServiceRef { namespace: "shop".into(), name: "web".into(), uid: "6f0c".into() };
        let claim = Claim {
            address: address(),
            pool: "home".into(),
            services: vec![service],
            terms: WrittenAnnounceTerms { local, ..WrittenAnnounceTerms::default() },
            spread: false,
        };
        let mut lease = claim.created();
        lease.metadata.resource_version = Some("1".into());
        parse(&lease).unwrap()
    }

    fn address() -> IpAddr {
        [192, 168, 0, 240].into()
    }

    fn on(node: &str) -> Backends {
        Backends { ready: [node.into()].into(), ..Backends::default() }
    }

    fn event(backends: Option<Backends>) -> Event {
        Event::Backends { address: address(), backends }
    }

    #[test]
    fn an_address_is_not_left_to_nobody_because_backends_are_not_shown() {
        let mut local = LocalBackends::new(oneshot::channel().0);
        assert_eq!(local.lock_seen(&lock(true)), Some(Event::BackendsUnknown(address())));
        assert_eq!(local.forgo(), [event(None)]);
        let on_node_1 = BTreeMap::from([(("shop".to_owned(), "web".to_owned()), on("node-1"))]);
        assert_eq!(local.changed(on_node_1), [event(Some(on("node-1")))], "they are shown at last");
        assert_eq!(local.forgo(), [], "what is known stays");
        let mut late = LocalBackends::new(oneshot::channel().0);
        assert_eq!(late.forgo(), []);
        assert_eq!(late.lock_seen(&lock(true)), Some(event(None)));
    }

    #[test]
    fn a_change_costs_the_same_among_few_addresses_and_many() {
        const CHANGES: u32 = 200;
        let (sender, _wanted) = oneshot::channel();
        let mut local = LocalBackends::new(sender);
        let name = |index: u32| ("shop".to_owned(), format!("web-{index}"));
        for index in 0..10_000_u32 {
            let mut record = lock(true);
            record.lock.address = IpAddr::from((0x0a00_0000 + index).to_be_bytes());
            record.claim.services[0].name = name(index).1;
            local.lock_seen(&record);
        }
        local.changed((0..10_000).map(|index| (name(index), on("node-1"))).collect());
        let began = Instant::now();
        for index in 0..CHANGES {
            let events = local.changed([(name(index), on("node-2"))].into());
            assert_eq!(events.len(), 1);
        }
        let each = began.elapsed() / CHANGES;
        println!("{each:>10.1?}  a change of one of ten thousand Services");
        assert!(each < Duration::from_millis(3), "{each:?}");
    }

    #[test]
    fn only_addresses_whose_traffic_must_stay_want_to_know() {
        let (sender, mut wanted) = oneshot::channel();
        let mut local = LocalBackends::new(sender);
        assert_eq!(local.lock_seen(&lock(false)), None);
        assert!(wanted.try_recv().is_err());
        let unknown = Event::BackendsUnknown(address());
        assert_eq!(local.lock_seen(&lock(true)), Some(unknown), "nothing was listed yet");
        assert!(wanted.try_recv().is_ok());
        assert_eq!(local.lock_seen(&lock(true)), None, "nothing new");
        let of =
            |service: &str, backends| [(("shop".to_owned(), service.to_owned()), backends)].into();
        assert_eq!(
            local.changed(BTreeMap::new()),
            [event(Some(Backends::default()))],
            "there are none"
        );
        assert_eq!(local.changed(of("web", on("node-1"))), [event(Some(on("node-1")))]);
        assert_eq!(local.changed(of("other", on("node-2"))), []);
        assert_eq!(local.lock_seen(&lock(false)), Some(event(None)));
        assert_eq!(local.changed(of("web", on("node-2"))), []);
        assert_eq!(local.lock_seen(&lock(true)), Some(event(Some(on("node-2")))));
        local.changed(of("web", Backends::default()));
        local.changed(of("other", Backends::default()));
        assert!(local.of_service.is_empty(), "what has no backends leaves nothing");
        assert_eq!(local.lock_gone(address()), Some(event(None)));
        assert_eq!(local.lock_gone(address()), None);
        assert!(local.before.is_empty(), "nor does what is behind no address");
    }
}
