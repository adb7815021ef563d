//! Which addresses have traffic that must not leave its node, and where their backends are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_api::{endpoints::ServiceName, lock::LockRecord};
use arpeggio_election::{Backends, Event};
use tokio::sync::oneshot;

/// Joins locks and the backends of Services.
#[derive(Debug)]
pub(crate) struct LocalBackends {
    of_service: BTreeMap<ServiceName, Backends>,
    /// The Services behind each address whose traffic must not leave its node.
    behind: BTreeMap<IpAddr, BTreeSet<ServiceName>>,
    /// Told when there is the first such address.
    wanted: Option<oneshot::Sender<()>>,
}

impl LocalBackends {
    pub(crate) fn new(wanted: oneshot::Sender<()>) -> Self {
        Self { of_service: BTreeMap::new(), behind: BTreeMap::new(), wanted: Some(wanted) }
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
        let services = services.map(|it| (it.namespace.clone(), it.name.clone())).collect();
        let before = self.behind.insert(address, services);
        (before.as_ref() != self.behind.get(&address)).then(|| self.event(address))
    }

    /// A lock is gone, or its traffic may leave the node.
    pub(crate) fn lock_gone(&mut self, address: IpAddr) -> Option<Event> {
        self.behind.remove(&address)?;
        Some(Event::Backends { address, backends: None })
    }

    /// The backends of a Service have changed.
    pub(crate) fn service_seen(&mut self, service: ServiceName, backends: Backends) -> Vec<Event> {
        let concerned: Vec<IpAddr> = self
            .behind
            .iter()
            .filter(|(_, services)| services.contains(&service))
            .map(|(address, _)| *address)
            .collect();
        self.of_service.insert(service, backends);
        concerned.into_iter().map(|address| self.event(address)).collect()
    }

    fn event(&self, address: IpAddr) -> Event {
        let mut backends = Backends::default();
        let services = self.behind.get(&address).into_iter().flatten();
        services.filter_map(|it| self.of_service.get(it)).for_each(|it| backends.add(it));
        Event::Backends { address, backends: Some(backends) }
    }
}

#[cfg(test)]
mod tests {
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
    fn only_addresses_whose_traffic_must_stay_want_to_know() {
        let (sender, mut wanted) = oneshot::channel();
        let mut local = LocalBackends::new(sender);
        assert_eq!(local.lock_seen(&lock(false)), None);
        assert!(wanted.try_recv().is_err());
        assert_eq!(local.lock_seen(&lock(true)), Some(event(Some(Backends::default()))));
        assert!(wanted.try_recv().is_ok());
        assert_eq!(local.lock_seen(&lock(true)), None, "nothing new");
        let web = || ("shop".to_owned(), "web".to_owned());
        assert_eq!(local.service_seen(web(), on("node-1")), [event(Some(on("node-1")))]);
        let other = ("shop".to_owned(), "other".to_owned());
        assert_eq!(local.service_seen(other, on("node-2")), []);
        assert_eq!(local.lock_seen(&lock(false)), Some(event(None)));
        assert_eq!(local.service_seen(web(), on("node-2")), []);
        assert_eq!(local.lock_seen(&lock(true)), Some(event(Some(on("node-2")))));
    }
}
