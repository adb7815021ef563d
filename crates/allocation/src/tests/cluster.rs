//! A model of the API server, as far as the controller needs one: versions, conflicts, preconditions, watches.

use std::collections::BTreeMap;

use arpeggio_api::{
    address_pool::{
        AddressItem, AddressPool, AddressPoolSpec, AddressPoolStatus, AnnounceRule,
        InterfacePattern,
    },
    last_good,
    lock::{self, Amendment, LockRecord},
    service::{FIELD_MANAGER, reference, releasing_annotation},
};
use arpeggio_election::Epoch;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{
            LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
            ServiceStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::{
        Condition, FieldsV1, ManagedFieldsEntry, MicroTime, ObjectMeta, Time,
    },
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::{super::*, editions::Edition};
use crate::effect::{Change, Failed, Refused, Release, ServiceWrite};
use crate::sources::MetalLb;

/// All that is stored, and all that ever happened.
#[derive(Default)]
pub(super) struct Cluster {
    version: u64,
    /// By uid.
    services: BTreeMap<String, Service>,
    leases: BTreeMap<String, Lease>,
    pools: BTreeMap<String, AddressPool>,
    /// What is kept of pools.
    records: BTreeMap<String, Lease>,
    log: Log,
    /// How much time has passed.
    pub(super) time: Duration,
    /// Which release's controller asks.
    pub(super) asks: Edition,
    /// Requests that are refused: those whose words contain this.
    pub(super) refuses: Option<&'static str>,
    /// Whether these are not even answered.
    pub(super) is_silent: bool,
    /// How many were.
    pub(super) refusals: u32,
    /// The condition or annotation that an admission webhook removes from all that we write.
    pub(super) drops: Option<&'static str>,
}

#[derive(Default)]
struct Log {
    services: Vec<Event<Service>>,
    leases: Vec<Event<Lease>>,
    pools: Vec<Event<AddressPool>>,
    records: Vec<Event<Lease>>,
}

#[derive(Clone)]
enum Event<K> {
    Applied(K),
    Deleted(K),
}

/// One of the four watches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch {
    Services,
    Leases,
    Pools,
    Records,
}

impl Watch {
    pub(super) const ALL: [Self; 4] = [Self::Services, Self::Leases, Self::Pools, Self::Records];
}

/// A controller without its executor, and how far each of its watches is.
pub(super) struct Controller {
    pub(super) index: Index,
    /// Of which release it is.
    pub(super) edition: Edition,
    pub(super) metallb: MetalLb,
    heard: [usize; 4],
}

/// For how long addresses that no pool allows are kept in tests.
pub(super) const GRACE: Duration = Duration::from_mins(10);

/// For how long addresses at which a stranger answers are given to nobody in tests.
pub(super) const QUARANTINE: Duration = Duration::from_mins(7);

/// How long things last in tests.
pub(super) const PERIODS: Periods = Periods {
    grace: GRACE,
    quarantine: QUARANTINE,
    // Only some histories are about Services that come back.
    succession: Duration::ZERO,
    restoration: Duration::from_mins(10),
    // Only some histories are about pools that come a moment later.
    patience: Duration::ZERO,
};

/// When histories begin.
pub(super) fn now() -> Time {
    after(Duration::ZERO)
}

/// So long after histories began, by a clock that has more than seconds, as a machine's has.
pub(super) fn after(time: Duration) -> Time {
    Time(Timestamp::UNIX_EPOCH + time + Duration::from_nanos(345_678_901))
}

/// What the API server keeps of a time: it has seconds (`metav1.Time`).
fn kept(time: &Time) -> Time {
    Time(Timestamp::from_second(time.0.as_second()).unwrap())
}

impl Controller {
    /// Lists everything; the watches go on from there.
    pub(super) fn started(cluster: &Cluster) -> Self {
        Self::restarted(Index::new(None, PERIODS), cluster)
    }

    pub(super) fn restarted(index: Index, cluster: &Cluster) -> Self {
        Self::of(Edition::default(), index, cluster)
    }

    /// A controller of another release.
    pub(super) fn of(edition: Edition, mut index: Index, cluster: &Cluster) -> Self {
        let services = cluster.services.values().cloned();
        index.reset(services.map(|it| edition.reads_service(it)).collect::<Vec<Service>>());
        index.reset(cluster.leases().map(|it| edition.reads(it)).collect::<Vec<Lease>>());
        index.reset(cluster.pools().cloned().collect::<Vec<AddressPool>>());
        index.set_namespaces([("default".to_owned(), Labels::new())].into());
        let mut metallb = MetalLb::default();
        if edition.keeps_records() {
            Records { index: &mut index, metallb: &mut metallb }
                .reset(cluster.records.values().map(|it| edition.reads(it)).collect());
        }
        index.all_listed();
        let Log { services, leases, pools, records } = &cluster.log;
        let heard = [services.len(), leases.len(), pools.len(), records.len()];
        Self { index, edition, metallb, heard }
    }

    pub(super) fn decide(&mut self, now: &Time) -> Vec<Task> {
        let mut tasks = self.index.decide(now);
        if self.edition.keeps_records() {
            tasks.extend(self.index.decide_records(now));
        }
        tasks
    }

    /// Hears what came of a task.
    pub(super) fn finish(&mut self, report: TaskReport, now: &Time) {
        let read = |observed| match observed {
            Observed::Lock(lease) => Observed::Lock(Box::new(self.edition.reads(&lease))),
            Observed::Service(service) => {
                Observed::Service(Box::new(self.edition.reads_service(*service)))
            }
            Observed::Needed(service) => {
                Observed::Needed(Box::new(self.edition.reads_service(*service)))
            }
            other => other,
        };
        let result = report.result.map(read);
        self.index.finish(TaskReport { result, ..report }, now);
    }

    /// Hears of the next change on one watch; false when there is none.
    pub(super) fn hear(&mut self, watch: Watch, cluster: &Cluster) -> bool {
        let (heard, edition) = (&mut self.heard[watch as usize], self.edition);
        let read = |lease: &Event<Lease>| match lease {
            Event::Applied(lease) => Event::Applied(edition.reads(lease)),
            Event::Deleted(lease) => Event::Deleted(edition.reads(lease)),
        };
        let more = match watch {
            Watch::Services => {
                let read = |service: &Event<Service>| match service.clone() {
                    Event::Applied(service) => Event::Applied(edition.reads_service(service)),
                    Event::Deleted(service) => Event::Deleted(service),
                };
                pass(cluster.log.services.get(*heard).map(read), &mut self.index)
            }
            Watch::Leases => pass(cluster.log.leases.get(*heard).map(read), &mut self.index),
            Watch::Pools => pass(cluster.log.pools.get(*heard).cloned(), &mut self.index),
            Watch::Records if !edition.keeps_records() => cluster.log.records.get(*heard).is_some(),
            Watch::Records => {
                let mut records = Records { index: &mut self.index, metallb: &mut self.metallb };
                pass(cluster.log.records.get(*heard).map(read), &mut records)
            }
        };
        *heard += usize::from(more);
        more
    }

    pub(super) fn hear_all(&mut self, cluster: &Cluster) {
        for watch in Watch::ALL {
            while self.hear(watch, cluster) {}
        }
    }
}

fn pass<K: Resource>(change: Option<Event<K>>, index: &mut impl Watched<K>) -> bool {
    match change {
        Some(Event::Applied(object)) => index.apply(object),
        Some(Event::Deleted(object)) => index.delete(object),
        None => return false,
    }
    true
}

/// What users do.
impl Cluster {
    pub(super) fn create_service(&mut self, name: &str, annotations: &[(&str, &str)]) -> Service {
        self.create_service_on(name, annotations, 80)
    }

    /// One in another namespace.
    pub(super) fn create_service_in(
        &mut self,
        namespace: &str,
        name: &str,
        annotations: &[(&str, &str)],
        port: i32,
    ) {
        let mut service = self.create_service_on(name, annotations, port);
        self.delete_service(name);
        service.metadata.namespace = Some(namespace.to_owned());
        self.store_service(service);
    }

    /// One that listens on this TCP port.
    pub(super) fn create_service_on(
        &mut self,
        name: &str,
        annotations: &[(&str, &str)],
        port: i32,
    ) -> Service {
        let annotations = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let uid = format!("{name}-{}", self.version);
        let service = Service {
            metadata: ObjectMeta {
                namespace: Some("default".into()),
                name: Some(name.into()),
                uid: Some(uid.clone()),
                annotations: Some(annotations.collect()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec {
                type_: Some("LoadBalancer".into()),
                ip_families: Some(vec!["IPv4".into()]),
                ports: Some(vec![ServicePort { port, ..ServicePort::default() }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        self.store_service(service);
        self.services[&uid].clone()
    }

    pub(super) fn delete_service(&mut self, name: &str) {
        let uid = self.uid(name);
        let mut service = self.services.remove(&uid).unwrap();
        self.stamp(&mut service.metadata);
        self.log.services.push(Event::Deleted(service));
    }

    pub(super) fn set_type(&mut self, name: &str, type_: &str) {
        self.change(name, |service| service.spec.as_mut().unwrap().type_ = Some(type_.into()));
    }

    /// Sets `spec.loadBalancerClass`.
    pub(super) fn set_class(&mut self, name: &str, class: Option<&str>) {
        let class = class.map(str::to_owned);
        self.change(name, |service| {
            service.spec.as_mut().unwrap().load_balancer_class = class;
        });
    }

    pub(super) fn require_dual_stack(&mut self, name: &str) {
        self.change(name, |service| {
            service.spec.as_mut().unwrap().ip_family_policy = Some("RequireDualStack".into());
        });
    }

    pub(super) fn set_cluster_addresses(&mut self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|it| (*it).to_owned()).collect();
        self.change(name, |service| service.spec.as_mut().unwrap().cluster_ips = Some(addresses));
    }

    pub(super) fn annotate(&mut self, name: &str, key: &str, value: &str) {
        self.change(name, |service| {
            service.annotations_mut().insert(key.into(), value.into());
        });
    }

    /// Another program writes metadata that says nothing to us, in its own name.
    pub(super) fn touch(&mut self, name: &str, manager: &str) {
        let text = self.version.to_string();
        self.change(name, |service| {
            service.annotations_mut().insert("reconciled-at".into(), text);
            let entries = service.metadata.managed_fields.get_or_insert_default();
            entries.retain(|entry| entry.manager.as_deref() != Some(manager));
            entries.push(ManagedFieldsEntry {
                manager: Some(manager.into()),
                time: Some(now()),
                ..ManagedFieldsEntry::default()
            });
        });
    }

    pub(super) fn remove_annotation(&mut self, name: &str, key: &str) {
        self.change(name, |service| _ = service.annotations_mut().remove(key));
    }

    pub(super) fn label(&mut self, name: &str, key: &str, value: &str) {
        self.change(name, |service| {
            service.labels_mut().insert(key.into(), value.into());
        });
    }

    /// Sets `spec.externalTrafficPolicy`.
    pub(super) fn set_policy(&mut self, name: &str, policy: &str) {
        let policy = Some(policy.to_owned());
        self.change(name, |service| {
            service.spec.as_mut().unwrap().external_traffic_policy = policy;
        });
    }

    /// Sets `spec.selector` to the label `app` of this value.
    pub(super) fn set_selector(&mut self, name: &str, app: &str) {
        let selector = [("app".to_owned(), app.to_owned())].into();
        self.change(name, |service| service.spec.as_mut().unwrap().selector = Some(selector));
    }

    /// Has the Service listen on this TCP port, and no other.
    pub(super) fn set_port(&mut self, name: &str, port: i32) {
        let port = ServicePort { port, ..ServicePort::default() };
        self.change(name, |service| service.spec.as_mut().unwrap().ports = Some(vec![port]));
    }

    pub(super) fn set_ingress(&mut self, name: &str, address: &str, manager: &str) {
        self.set_ingresses(name, &[address], manager);
    }

    pub(super) fn set_ingresses(&mut self, name: &str, addresses: &[&str], manager: &str) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        self.change(name, |service| set_ingress(service, &addresses, manager));
    }

    /// Another program lists a name, alone or beside an address.
    pub(super) fn set_hostname(
        &mut self,
        name: &str,
        address: Option<&str>,
        host: &str,
        manager: &str,
    ) {
        let addresses: Vec<IpAddr> = address.iter().map(|it| it.parse().unwrap()).collect();
        let host = host.to_owned();
        self.change(name, |service| {
            set_ingress(service, &addresses, manager);
            let balancer = service.status.as_mut().and_then(|it| it.load_balancer.as_mut());
            let list = balancer.and_then(|it| it.ingress.as_mut()).unwrap();
            if list.is_empty() {
                list.push(LoadBalancerIngress::default());
            }
            list[0].hostname = Some(host);
        });
    }

    /// Another program removes a condition.
    pub(super) fn remove_condition(&mut self, name: &str, type_: &str) {
        self.change(name, |service| {
            let status = service.status.get_or_insert_default();
            status.conditions.get_or_insert_default().retain(|it| it.type_ != type_);
        });
    }

    /// Another program removes all conditions.
    pub(super) fn remove_conditions(&mut self, name: &str) {
        self.change(name, |service| {
            service.status.get_or_insert_default().conditions = Some(Vec::new());
        });
    }

    /// Another program has a condition of ours say something else.
    pub(super) fn set_condition(&mut self, name: &str, type_: &str, message: &str, manager: &str) {
        self.remove_condition(name, type_);
        self.hold_condition(name, type_, manager);
        self.change(name, |service| {
            let conditions = service.status.as_mut().and_then(|it| it.conditions.as_mut());
            for condition in conditions.into_iter().flatten().filter(|it| it.type_ == type_) {
                message.clone_into(&mut condition.message);
            }
            // Each manager has one entry.
            let fields = service.metadata.managed_fields.get_or_insert_default();
            fields.dedup_by(|one, before| one == before);
        });
    }

    /// Another program writes a condition of ours, and holds on to it.
    pub(super) fn hold_condition(&mut self, name: &str, type_: &str, manager: &str) {
        let condition = Condition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: "Restored".to_owned(),
            message: "10.0.0.9".to_owned(),
            observed_generation: None,
            last_transition_time: now(),
        };
        let key = format!("k:{{\"type\":\"{type_}\"}}");
        let fields = json!({ "f:status": { "f:conditions": { key: { ".": {}, "f:type": {} } } } });
        self.change(name, |service| {
            let status = service.status.get_or_insert_default();
            status.conditions.get_or_insert_default().push(condition);
            service.metadata.managed_fields.get_or_insert_default().push(ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                fields_v1: Some(FieldsV1(fields)),
                ..ManagedFieldsEntry::default()
            });
        });
    }

    /// Another program sets the `ipMode` of all that the status lists.
    pub(super) fn set_ip_mode(&mut self, name: &str, mode: &str, manager: &str) {
        self.usurp_status(name, manager);
        self.change(name, |service| {
            let status = service.status.get_or_insert_default();
            let list = status.load_balancer.as_mut().and_then(|it| it.ingress.as_mut());
            list.into_iter().flatten().for_each(|it| it.ip_mode = Some(mode.to_owned()));
            for fields in service.metadata.managed_fields.iter_mut().flatten() {
                fields.subresource = Some("status".to_owned());
            }
        });
    }

    /// Somebody has the Lease wait for these before it goes; without any it goes if it was deleted.
    pub(super) fn set_finalizers(&mut self, name: &str, finalizers: &[&str]) {
        let mut lease = self.leases[name].clone();
        let all = finalizers.iter().map(|it| (*it).to_owned()).collect();
        lease.metadata.finalizers = Some(all);
        self.store_lease(name, lease);
        if finalizers.is_empty() && self.leases[name].metadata.deletion_timestamp.is_some() {
            self.delete_lease(name);
        }
    }

    /// The user has the pool announced on this interface.
    pub(super) fn announce_on(&mut self, pool: &str, interface: &str) {
        let interfaces = vec![InterfacePattern(interface.to_owned())];
        let announce = vec![AnnounceRule { interfaces, ..AnnounceRule::default() }];
        let spec = AddressPoolSpec { announce, ..self.pools[pool].spec.clone() };
        self.set_pool_spec(pool, spec);
    }

    /// Another program replaces the whole status by an empty one with a condition of its own.
    pub(super) fn clear_status(&mut self, name: &str, manager: &str) {
        self.change(name, |service| {
            service.status = Some(ServiceStatus::default());
            service.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
                manager: Some(manager.into()),
                subresource: Some("status".into()),
                fields_v1: Some(FieldsV1(json!({ "f:status": { "f:conditions": {} } }))),
                ..ManagedFieldsEntry::default()
            }]);
        });
    }

    /// Another program writes the list of addresses as it is. It is of one piece, so that it is that program's then.
    pub(super) fn usurp_status(&mut self, name: &str, manager: &str) {
        let addresses = ServiceRecord::parse(self.service(name), None).ingress.addresses;
        if !addresses.is_empty() {
            self.change(name, |service| set_ingress(service, &addresses, manager));
        }
    }

    /// The user deletes the Service, which waits for this finalizer.
    pub(super) fn begin_deletion(&mut self, name: &str, finalizer: &str) {
        self.change(name, |service| {
            service.metadata.deletion_timestamp = Some(now());
            service.metadata.finalizers = Some(vec![finalizer.to_owned()]);
        });
    }

    pub(super) fn set_created(&mut self, name: &str, second: i64) {
        let created = Time(Timestamp::from_second(second).unwrap());
        self.change(name, |service| service.metadata.creation_timestamp = Some(created));
    }

    pub(super) fn set_pool(&mut self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| AddressItem((*text).into())).collect();
        self.set_pool_spec(name, AddressPoolSpec { addresses, ..AddressPoolSpec::default() });
    }

    pub(super) fn set_pool_spec(&mut self, name: &str, spec: AddressPoolSpec) {
        let mut pool = AddressPool::new(name, spec);
        pool.metadata.creation_timestamp = Some(now());
        let before = self.pools.get(name);
        let uid = before.and_then(ResourceExt::uid);
        pool.metadata.uid = Some(uid.unwrap_or_else(|| format!("{name}-{}", self.version)));
        let generation = before.and_then(|it| it.metadata.generation).unwrap_or_default();
        let is_other = before.is_none_or(|before| before.spec != pool.spec);
        pool.metadata.generation = Some(generation + i64::from(is_other));
        self.store_pool(pool);
    }

    /// Another program writes the status of a pool.
    pub(super) fn set_pool_status(&mut self, name: &str, status: Option<AddressPoolStatus>) {
        let mut pool = self.pools[name].clone();
        pool.status = status;
        self.store_pool(pool);
    }

    pub(super) fn delete_pool(&mut self, name: &str) {
        let Some(pool) = self.pools.remove(name) else { return };
        self.log.pools.push(Event::Deleted(pool));
    }

    /// The pool is deleted, and waits for a finalizer.
    pub(super) fn begin_pool_deletion(&mut self, name: &str) {
        let mut pool = self.pools[name].clone();
        pool.metadata.deletion_timestamp = Some(now());
        self.store_pool(pool);
    }

    /// Lists do not show the pool any more, since it cannot be decoded.
    pub(super) fn hide_pool(&mut self, name: &str) {
        self.pools.remove(name);
    }

    pub(super) fn delete_lease(&mut self, name: &str) {
        let mut lease = self.leases.remove(name).unwrap();
        self.stamp(&mut lease.metadata);
        self.log.leases.push(Event::Deleted(lease));
    }

    /// Somebody writes over an annotation of a lock by hand.
    pub(super) fn damage_lease(&mut self, name: &str, key: &str, value: &str) {
        let mut lease = self.leases[name].clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
        self.store_lease(name, lease);
    }

    /// Somebody removes our label, so that the watch does not show the Lease any more.
    pub(super) fn unlabel_lease(&mut self, name: &str) {
        let mut lease = self.leases[name].clone();
        self.log.leases.push(Event::Deleted(lease.clone()));
        lease.metadata.labels = None;
        self.leases.insert(name.to_owned(), lease);
    }

    pub(super) fn remove_silently(&mut self, name: &str) {
        self.leases.remove(name);
    }

    /// A tool restores the lock from a backup at this time.
    pub(super) fn restore_lease(&mut self, mut lease: Lease, time: Time) {
        let name = lease.name_any();
        let spec = lease.spec.get_or_insert_default();
        spec.acquire_time =
            Some(MicroTime(time.0 - k8s_openapi::jiff::SignedDuration::from_hours(1)));
        lease.metadata.creation_timestamp = Some(time);
        lease.metadata.uid = Some(format!("restored-{}", self.version));
        self.store_lease(&name, lease);
    }

    /// One without our label, which the watch does not show.
    pub(super) fn create_foreign_lease(&mut self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        self.leases.insert(name.into(), Lease { metadata, spec: None });
    }
}

/// What speakers do.
impl Cluster {
    /// A speaker has asked for the address, and this stranger has answered.
    pub(super) fn find_stranger(&mut self, address: &str, stranger: [u8; 6]) {
        let mark = |record: &LockRecord| {
            lock::quarantined(&"node-1".into(), stranger, record.lock.version)
        };
        self.patch_lock(address, mark);
    }

    /// A speaker announces the address since histories began.
    pub(super) fn take_lock(&mut self, address: &str) {
        self.take_lock_at(address, &Time(Timestamp::UNIX_EPOCH));
    }

    /// A speaker announces the address since this time.
    pub(super) fn take_lock_at(&mut self, address: &str, time: &Time) {
        let time = MicroTime(time.0);
        let take = |record: &LockRecord| {
            record.taken(&"node-1".into(), Epoch(1), record.lock.version, &time)
        };
        self.patch_lock(address, take);
    }

    /// A lock's holder says whether it announces the address.
    pub(super) fn note(&mut self, address: &str, announced: bool) {
        let note = |record: &LockRecord| {
            lock::noted(announced, record.lock.disputed_by.as_ref(), record.lock.version)
        };
        self.patch_lock(address, note);
    }

    /// A lock's holder, which announces the address, says which node goes on claiming it.
    pub(super) fn dispute(&mut self, address: &str, by: Option<&str>) {
        let by = by.map(lock::claimant);
        self.patch_lock(address, |record| lock::noted(true, by.as_ref(), record.lock.version));
    }

    /// Does nothing where there is no lock, or one that rests.
    fn patch_lock(&mut self, address: &str, patch: impl FnOnce(&LockRecord) -> Value) {
        let name = lock::name(address.parse().unwrap());
        let Some(lease) = self.leases.get(&name) else { return };
        let Ok(record) = lock::parse(lease) else { return };
        if record.resting_until.is_none() {
            // One of the release that has written the lock, as others would leave it alone.
            let edition = Edition::of(lease);
            let lease = patched(&edition.reads(lease), &patch(&record));
            let lease = edition.writes(lease, None);
            self.store_lease(&name, lease);
        }
    }
}

/// What becomes of this request when there is no answer, or one that asks for a pause.
pub(super) fn unanswered(what: &str, retry_after: Option<Duration>) -> Failed {
    let (what, why) = (what.to_owned(), "no answer".to_owned());
    let lasting = Refused { what, kind: "Unanswered", is_answer: false, why };
    Failed::Unanswered { retry_after, lasting }
}

/// The part of a merge patch that locks are concerned with.
fn patched(lease: &Lease, patch: &Value) -> Lease {
    let mut lease = lease.clone();
    let annotations = lease.metadata.annotations.get_or_insert_default();
    for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
        match value.as_str() {
            Some(value) => annotations.insert(key.clone(), value.to_owned()),
            None => annotations.remove(key),
        };
    }
    if let Some(labels) = patch["metadata"]["labels"].as_object() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let labels = labels.iter().map(|(key, value)| (key.clone(), text(value)));
        lease.metadata.labels.get_or_insert_default().extend(labels);
    }
    if let Some(holder) = patch["spec"].get("holderIdentity") {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = holder.as_str().map(str::to_owned);
    }
    if let Some(time) = patch["spec"].get("acquireTime") {
        let spec = lease.spec.get_or_insert_default();
        spec.acquire_time = serde_json::from_value(time.clone()).unwrap();
    }
    lease
}

/// What is stored.
impl Cluster {
    pub(super) fn service(&self, name: &str) -> &Service {
        &self.services[&self.uid(name)]
    }

    pub(super) fn has_service(&self, name: &str) -> bool {
        self.services.values().any(|service| service.name_any() == name)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Locks, and what is kept of pools.
    pub(super) fn all_leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().chain(self.records.values())
    }

    /// What is kept of pools.
    pub(super) fn records(&self) -> impl Iterator<Item = &Lease> {
        self.records.values()
    }

    /// Somebody writes over what is kept of the object with this uid, or deletes it.
    pub(super) fn damage_record(&mut self, uid: &str, text: Option<&str>) {
        self.keep(uid, text);
    }

    /// The version of what was stored last.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &AddressPool> {
        self.pools.values()
    }

    fn uid(&self, name: &str) -> String {
        let found = self.services.iter().find(|(_, service)| service.name_any() == name);
        found.unwrap_or_else(|| panic!("no Service {name}")).0.clone()
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.service(name).clone();
        change(&mut service);
        self.store_service(service);
    }

    fn stamp(&mut self, metadata: &mut ObjectMeta) {
        self.version += 1;
        metadata.resource_version = Some(self.version.to_string());
    }

    fn store_service(&mut self, mut service: Service) {
        self.stamp(&mut service.metadata);
        self.log.services.push(Event::Applied(service.clone()));
        self.services.insert(reference(&service).uid, service);
    }

    fn store_pool(&mut self, mut pool: AddressPool) {
        self.stamp(&mut pool.metadata);
        self.log.pools.push(Event::Applied(pool.clone()));
        self.pools.insert(pool.name_any(), pool);
    }
}

/// What controllers do.
impl Cluster {
    /// All that a task does, without anything in between.
    pub(super) fn perform_at_once(&mut self, task: Task) -> TaskReport {
        let result = match &task.effect {
            Effect::Release(release) => match self.needing(release) {
                Some(service) => Ok(Observed::Needed(Box::new(service))),
                None => self.finish_refusable(release),
            },
            effect => self.perform(effect),
        };
        TaskReport { subject: task.subject, result }
    }

    /// A task that is a single request, or the first one of a claim (the second only reads).
    pub(super) fn perform(&mut self, effect: &Effect) -> Result<Observed, Failed> {
        if let Some(failed) = self.refusal(effect) {
            return Err(failed);
        }
        match effect {
            Effect::Claim(claim, claimed_for) => {
                let lease = self.create_lease(claim.made(claimed_for, &after(self.time)));
                Ok(Observed::Lock(Box::new(lease)))
            }
            Effect::Join(amendment) | Effect::Amend(amendment) => Ok(self.amend(amendment)),
            Effect::Release(_) => panic!("a release is two requests"),
            Effect::WriteService(write) => self.write_service(write),
            Effect::WritePool(write) => {
                let mut pool = self.pools.get(&write.name).ok_or(Failed::Changed)?.clone();
                if pool.status.as_ref() != Some(&write.status) {
                    pool.status = Some(write.status.clone());
                    self.store_pool(pool);
                }
                Ok(Observed::Pool(Box::new(self.pools[&write.name].clone())))
            }
            Effect::WriteRecord(write) => {
                let kept = self.records.get(&last_good::name(&write.uid));
                if kept.and_then(ResourceExt::resource_version) != write.expected {
                    return Err(Failed::Changed);
                }
                self.keep(&write.uid, write.text.as_deref());
                Ok(Observed::Record)
            }
        }
    }

    /// Keeps a text about the object with this uid, or nothing.
    fn keep(&mut self, uid: &str, text: Option<&str>) {
        let name = last_good::name(uid);
        if let Some(text) = text {
            let mut lease = self.asks.writes(last_good::lease(uid, text), None);
            self.stamp(&mut lease.metadata);
            self.log.records.push(Event::Applied(lease.clone()));
            self.records.insert(name, lease);
        } else if let Some(lease) = self.records.remove(&name) {
            self.log.records.push(Event::Deleted(lease));
        }
    }

    fn refusal(&mut self, effect: &Effect) -> Option<Failed> {
        let what = match effect {
            Effect::Claim(..) => "create Lease",
            Effect::Join(_) | Effect::Amend(_) => "patch Lease",
            Effect::Release(_) => "delete Lease",
            Effect::WriteService(_) => "patch services/status",
            Effect::WritePool(_) => "patch addresspools/status",
            Effect::WriteRecord(_) => "patch records",
        };
        self.refuses.filter(|words| what.contains(words))?;
        self.refusals += 1;
        if self.is_silent {
            return Some(unanswered(what, None));
        }
        // As a quota does, which counts what there is.
        let why = format!("exceeded quota, used: {}", self.refusals);
        Some(Failed::Refused(Refused {
            what: what.to_owned(),
            kind: "Quota",
            is_answer: true,
            why,
        }))
    }

    /// The lock that is there afterwards, whoever created it.
    fn create_lease(&mut self, mut lease: Lease) -> Lease {
        let name = lease.name_any();
        if !self.leases.contains_key(&name) {
            lease.metadata.uid = Some(format!("lease-{}", self.version + 1));
            let created = kept(&after(self.time));
            lease.metadata.creation_timestamp.get_or_insert(created);
            let lease = self.asks.writes(lease, None);
            self.store_lease(&name, lease);
        }
        self.leases[&name].clone()
    }

    /// The first request of a release.
    pub(super) fn needing(&self, release: &Release) -> Option<Service> {
        let mut services = self.services.values();
        services.find(|service| release.is_needed_by(service, None)).cloned()
    }

    /// The second request of a release, which may be refused.
    pub(super) fn finish_refusable(&mut self, release: &Release) -> Result<Observed, Failed> {
        match self.refusal(&Effect::Release(release.clone())) {
            Some(failed) => Err(failed),
            None => Ok(self.finish_release(release)),
        }
    }

    fn finish_release(&mut self, release: &Release) -> Observed {
        match &release.change {
            Change::Amend(amendment) => self.amend(amendment),
            Change::Delete { lease_uid, version } => {
                let name = lock::name(release.address);
                let same = |lease: &&Lease| {
                    lease.uid().as_ref() == Some(lease_uid)
                        && lease.resource_version() == Some(version.to_string())
                };
                if let Some(lease) = self.leases.get(&name).filter(same) {
                    if lease.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
                        self.delete_lease(&name);
                    } else if lease.metadata.deletion_timestamp.is_none() {
                        let mut lease = lease.clone();
                        lease.metadata.deletion_timestamp = Some(now());
                        self.store_lease(&name, lease);
                    }
                }
                self.look(release.address, *version)
            }
        }
    }

    fn look(&self, address: IpAddr, version: u64) -> Observed {
        let lease = self.leases.get(&lock::name(address)).cloned();
        lease.map_or(Observed::NoLock { address, version }, |it| Observed::Lock(Box::new(it)))
    }

    /// A merge patch for one version of a lock. One that changes nothing makes no new version.
    fn amend(&mut self, amendment: &Amendment) -> Observed {
        let name = lock::name(amendment.address);
        let expected = amendment.expected.0;
        if let Some(before) = self.leases.get(&name).filter(|it| version(*it) == expected) {
            let mut lease = self.asks.writes(patched(before, &amendment.patch()), Some(before));
            if let (Some(key), Some(annotations)) = (self.drops, &mut lease.metadata.annotations) {
                annotations.remove(key);
            }
            if lease != *before {
                self.store_lease(&name, lease);
            }
        }
        self.look(amendment.address, expected)
    }

    fn store_lease(&mut self, name: &str, mut lease: Lease) {
        self.stamp(&mut lease.metadata);
        self.log.leases.push(Event::Applied(lease.clone()));
        self.leases.insert(name.to_owned(), lease);
    }

    fn write_service(&mut self, write: &ServiceWrite) -> Result<Observed, Failed> {
        let uid = &write.record.service.uid;
        let mut service = self.services.get(uid).ok_or(Failed::Changed)?.clone();
        if service.resource_version() != Some(write.record.version.to_string()) {
            return Err(Failed::Changed);
        }
        let before = service.clone();
        match &write.addresses {
            Some(addresses) => set_ingress(&mut service, addresses, FIELD_MANAGER),
            None if write.record.ingress.is_ours() => {
                set_ingress(&mut service, &[], FIELD_MANAGER);
            }
            _ => {}
        }
        let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        if type_ != Some("LoadBalancer") {
            set_ingress(&mut service, &[], FIELD_MANAGER);
        }
        let status = service.status.get_or_insert_default();
        let taken = write.conditions.iter().filter(|it| Some(it.type_.as_str()) != self.drops);
        let said = taken.cloned().map(|it| self.asks.says(it));
        let stored =
            said.map(|it| Condition { last_transition_time: kept(&it.last_transition_time), ..it });
        let mut conditions: Vec<Condition> = stored.collect();
        // What another manager holds does not go because we leave it out.
        let held = write.record.conditions.iter().filter(|before| {
            write.record.held_conditions.contains(&before.type_.as_str())
                && !conditions.iter().any(|it| it.type_ == before.type_)
        });
        let held: Vec<Condition> = held.cloned().collect();
        conditions.extend(held);
        status.conditions = Some(conditions);
        let annotations = service.annotations_mut();
        annotations.remove("arpeggio.dev/releasing");
        annotations.extend(releasing_annotation(&write.releasing));
        // What changes nothing makes no new version.
        if service != before {
            self.store_service(service);
        }
        Ok(Observed::Service(Box::new(self.services[uid].clone())))
    }
}

fn set_ingress(service: &mut Service, addresses: &[IpAddr], manager: &str) {
    let entry = |ip: &IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ..LoadBalancerIngress::default()
    };
    service.status.get_or_insert_with(ServiceStatus::default).load_balancer =
        Some(LoadBalancerStatus { ingress: Some(addresses.iter().map(entry).collect()) });
    let fields = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
    let all = service.metadata.managed_fields.get_or_insert_default();
    // The list is of one piece: its last writer is alone.
    all.retain(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_none_or(|it| it.0.pointer("/f:status/f:loadBalancer").is_none())
    });
    all.push(ManagedFieldsEntry {
        manager: Some(manager.into()),
        subresource: Some("status".into()),
        fields_v1: Some(FieldsV1(fields)),
        ..ManagedFieldsEntry::default()
    });
}
