//! Sessions, locks and what forwarders say, as the checks want them.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_api::{
    forwarder::{self, ForwarderRecord},
    lease::{self, Kind, LeaseError},
    lock::{self, LockRecord, ServiceRef},
    session::{self, SessionRecord, mac_text},
};
use arpeggio_doctor::{
    Known,
    facts::{Forwarder, Lock, Session},
};
use arpeggio_election::{Epoch, SessionState};
use arpeggio_forwarding::LeftOut;
use arpeggio_runtime::server_clock;
use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};
use kube::{Api, Client, api::ListParams};

use super::kubernetes::list;

/// All of Arpeggio's Leases, as they were at one moment.
pub(super) struct Leases {
    leases: Vec<Lease>,
    read_at: Timestamp,
}

/// What the Leases say.
#[derive(Default)]
pub(super) struct Said {
    pub(super) sessions: Vec<Session>,
    pub(super) locks: Vec<Lock>,
    pub(super) forwarders: Vec<Forwarder>,
    pub(super) damaged: Vec<String>,
}

impl Leases {
    pub(super) async fn read(client: &Client, namespace: &str) -> Known<Self> {
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let leases = list(&api, &ListParams::default().labels(lease::SELECTOR)).await?;
        Ok(Self { leases, read_at: server_clock::now() })
    }

    /// What these say, where `later` is how they were some seconds afterwards.
    pub(super) fn say(&self, later: Option<&Self>) -> Said {
        let latest = later.unwrap_or(self);
        let before = self.versions();
        let mut said = Said::default();
        let (mut sessions, mut locks, mut forwarders) = (Vec::new(), Vec::new(), Vec::new());
        for lease in &latest.leases {
            let parsed = match Kind::of(lease) {
                Some(Kind::Session) => session::parse(lease).map(|it| sessions.push((it, lease))),
                Some(Kind::Lock) => lock::parse(lease).map(|it| locks.push(it)),
                Some(Kind::Forwarder) => forwarder::parse(lease).map(|record| {
                    let newer = lease::newer_format(lease);
                    said.damaged.extend(newer.map(|format| newer_forwarder(&record, format)));
                    forwarders.push((record, newer.is_some()));
                }),
                None => Ok(()),
            };
            said.damaged.extend(parsed.err().as_ref().map(LeaseError::to_string));
        }
        said.damaged.extend(locks.iter().filter_map(|it| Some(it.damage.as_ref()?.to_string())));
        said.damaged.extend(locks.iter().filter_map(|it| {
            let format = it.newer.as_ref()?;
            Some(format!(
                "the lock of {} has format {format}, which only a newer release understands",
                it.lock.address
            ))
        }));
        said.locks = locks.iter().map(|it| lock(it, &sessions)).collect();
        let forwarders = forwarders.into_iter();
        said.forwarders =
            forwarders.map(|(record, newer)| forwarder_of(record, newer, &sessions)).collect();
        said.sessions = sessions
            .iter()
            .map(|(record, lease)| {
                let changed = later.is_some() && before.get(&name(lease)) != Some(&version(lease));
                session(record, lease, latest.read_at, changed)
            })
            .collect();
        said
    }

    fn versions(&self) -> BTreeMap<String, String> {
        self.leases.iter().map(|it| (name(it), version(it))).collect()
    }
}

fn name(lease: &Lease) -> String {
    lease.metadata.name.clone().unwrap_or_default()
}

fn version(lease: &Lease) -> String {
    lease.metadata.resource_version.clone().unwrap_or_default()
}

/// How many seconds after `now` a time is; negative when it has passed.
pub(super) fn seconds_from(time: Timestamp, now: Timestamp) -> i64 {
    time.duration_since(now).as_secs()
}

fn renewed(lease: &Lease) -> Option<&MicroTime> {
    lease.spec.as_ref()?.renew_time.as_ref()
}

fn session(record: &SessionRecord, lease: &Lease, now: Timestamp, alive: bool) -> Session {
    let of = &record.session;
    let (ended, accused_by) = match &of.state {
        SessionState::Live { accused_by } => (None, accused_by.as_ref().map(ToString::to_string)),
        SessionState::Ended { reason, .. } => (Some(reason.to_string()), None),
    };
    let renewed = renewed(lease);
    let interfaces = of.reach.iter().flat_map(|reach| &reach.interfaces);
    let gateways =
        interfaces.clone().flat_map(|it| it.gateways.iter().map(|at| (it.name.clone(), *at)));
    Session {
        node: of.node.to_string(),
        ended,
        accused_by,
        lasts: of.lasts.unwrap_or(Duration::from_secs(10)),
        renewed: renewed.map(|it| seconds_from(it.0, now)),
        alive,
        links: record.links.iter().map(|it| (it.address, mac_text(it.mac))).collect(),
        gateways: gateways.collect(),
        interfaces: interfaces.clone().map(|it| it.name.clone()).collect(),
        subnets: interfaces.flat_map(|it| it.subnets.clone()).collect(),
        own: record.own.clone().unwrap_or_default(),
        hears: of.hears.as_ref().map(|it| it.iter().map(ToString::to_string).collect()),
        paths: record.paths.iter().map(|(node, path)| (node.to_string(), path.clone())).collect(),
    }
}

fn newer_forwarder(record: &ForwarderRecord, format: &str) -> String {
    let name = forwarder::name(&record.node);
    format!("Lease {name} has format {format}, which only a newer release understands")
}

fn forwarder_of(
    record: ForwarderRecord,
    newer: bool,
    sessions: &[(SessionRecord, &Lease)],
) -> Forwarder {
    let session = sessions.iter().find(|(it, _)| it.session.node == record.node);
    let is_stale = record.is_stale(session.and_then(|(_, lease)| renewed(lease)));
    let stale = is_stale.then(|| LeftOut::ForwarderStale.to_string());
    let (running, unable) = record.says.map(|it| (it.instance, it.unable)).unzip();
    Forwarder { node: record.node.to_string(), running, unable: unable.flatten(), stale, newer }
}

fn lock(record: &LockRecord, sessions: &[(SessionRecord, &Lease)]) -> Lock {
    let counts = |node: &str, epoch: Epoch| {
        sessions.iter().any(|(it, _)| {
            let of = &it.session;
            of.node.as_str() == node && of.epoch == epoch && of.is_live()
        })
    };
    let named = record.lock.holder.as_ref();
    let holder =
        named.filter(|it| counts(it.node.as_str(), it.epoch)).map(|it| it.node.to_string());
    let former = named.filter(|_| holder.is_none()).map(|it| it.node.to_string());
    Lock {
        address: record.lock.address,
        holder,
        former,
        stranger: record.lock.stranger.map(mac_text),
        unannounced: record.lock.unannounced,
        rests: record.rests,
        spread: record.claim.spread,
        services: record.claim.services.iter().map(ServiceRef::path).collect(),
        pool: record.claim.pool.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(name: &str, kind: &str, version: u32, annotations: &serde_json::Value) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "resourceVersion": version.to_string(),
                "labels": { "arpeggio.dev/lease": kind }, "annotations": annotations,
            },
            "spec": {
                "holderIdentity": "node-1", "leaseTransitions": 2, "leaseDurationSeconds": 10,
                "renewTime": "2026-01-01T00:00:00.000000Z",
            },
        }))
        .unwrap()
    }

    fn leases(version: u32, epoch: &str) -> Leases {
        let services = json!({
            "arpeggio.dev/pool": "home", "arpeggio.dev/services": "default/web/u1",
            "arpeggio.dev/session": epoch,
        });
        let session = json!({
            "arpeggio.dev/interfaces":
                r#"[{"name":"eth0","subnets":["192.168.0.11/24"],"gateways":["192.168.0.1"]}]"#,
            "arpeggio.dev/link-addresses": "192.168.0.11=02:00:00:00:00:0b",
        });
        Leases {
            leases: vec![
                lease("session-node-1", "session", version, &session),
                lease("address-192.168.0.240", "address", 1, &services),
                lease("address-nonsense", "address", 1, &json!({})),
            ],
            read_at: "2026-01-01T00:00:02Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_renewed_while_we_look_lives() {
        let first = leases(1, "2");
        assert!(first.say(Some(&leases(2, "2"))).sessions[0].alive);
        assert!(!first.say(Some(&leases(1, "2"))).sessions[0].alive);
        let said = first.say(None);
        assert_eq!((said.sessions[0].alive, said.sessions[0].renewed), (false, Some(-2)));
        assert_eq!(said.sessions[0].gateways, [("eth0".to_owned(), [192, 168, 0, 1].into())]);
        assert_eq!(said.damaged.len(), 1, "{:?}", said.damaged);
    }

    #[test]
    fn what_forwarders_say_is_understood_or_told() {
        let say = |annotations| {
            let leases = vec![lease("forwarder-node-1", "forwarder", 1, &annotations)];
            let read_at = "2026-01-01T00:00:02Z".parse().unwrap();
            Leases { leases, read_at }.say(None)
        };
        let mut said = say(json!({ "arpeggio.dev/unable": "no nf_tables" }));
        let (node, running) = ("node-1".to_owned(), Some("node-1".to_owned()));
        let unable = Some("no nf_tables".to_owned());
        let expected = Forwarder { node, running, unable, ..Forwarder::default() };
        assert_eq!(said.forwarders.remove(0), expected);
        assert!(said.damaged.is_empty());
        let said = say(json!({ "arpeggio.dev/format": "2" }));
        assert_eq!((said.forwarders[0].newer, &said.forwarders[0].running), (true, &None));
        assert!(said.damaged[0].contains("newer release"), "{:?}", said.damaged);
    }

    #[test]
    fn a_forwarder_is_stale_whose_node_goes_on_without_it() {
        let stale = |renewed: &str| {
            let mut session = lease("session-node-1", "session", 1, &json!({}));
            let renewed = serde_json::from_value(json!(renewed)).unwrap();
            session.spec.as_mut().unwrap().renew_time = Some(renewed);
            let forwarder = lease("forwarder-node-1", "forwarder", 1, &json!({}));
            let read_at = "2026-01-01T00:05:00Z".parse().unwrap();
            Leases { leases: vec![forwarder, session], read_at }.say(None).forwarders.remove(0)
        };
        assert_eq!(stale("2026-01-01T00:02:59.000000Z").stale, None);
        let why = stale("2026-01-01T00:03:00.000000Z").stale;
        assert!(why.is_some_and(|it| it.contains("has not renewed its Lease")));
    }

    #[test]
    fn a_holder_counts_under_its_session_only() {
        let of = |epoch| leases(1, epoch).say(None).locks.remove(0);
        assert_eq!((of("2").holder.as_deref(), of("2").former), (Some("node-1"), None));
        assert_eq!((of("1").holder, of("1").former.as_deref()), (None, Some("node-1")));
        assert_eq!(of("2").services, ["default/web"]);
    }
}
