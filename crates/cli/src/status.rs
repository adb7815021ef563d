//! `arpeggio status`: who announces which address, and which nodes take part.

use std::collections::BTreeSet;

use anyhow::Context as _;
use arpeggio_api::{
    lease::{self, Kind, LeaseError},
    lock::{self, LockRecord},
    session::{self, SessionRecord},
};
use arpeggio_election::{Node, SessionState};
use arpeggio_runtime::wall_clock;
use k8s_openapi::{
    api::coordination::v1::Lease,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::ListParams};

use crate::{global::Global, paint, table};

/// Renders what all Leases say now.
pub(crate) async fn show(global: &Global) -> anyhow::Result<String> {
    let client = global.connect().await?;
    Ok(read(client, &global.system_namespace()).await?.render(wall_clock::now()))
}

/// Reads all Leases once.
pub(crate) async fn read(client: Client, namespace: &str) -> anyhow::Result<Status> {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let params = ListParams::default().labels(lease::SELECTOR);
    let leases = api.list(&params).await.with_context(|| {
        format!("cannot list Leases in namespace {namespace}; may you? (kubectl auth can-i list leases -n {namespace})")
    })?;
    Ok(Status::of(&leases.items))
}

/// The columns of [`Status::addresses_of`].
pub(crate) const ADDRESS_COLUMNS: [&str; 6] =
    ["ADDRESS", "POOL", "SERVICE", "NODE", "SINCE", "MOVES"];

/// Locks and sessions, understood.
#[derive(Debug, Default)]
pub(crate) struct Status {
    locks: Vec<LockRecord>,
    sessions: Vec<(SessionRecord, Lease)>,
    damaged: Vec<LeaseError>,
}

impl Status {
    /// What the Leases say.
    pub(crate) fn of(leases: &[Lease]) -> Self {
        let mut status = Self::default();
        for lease in leases {
            if let Err(error) = status.add(lease) {
                status.damaged.push(error);
            }
        }
        status.locks.sort_by_key(|record| record.lock.address);
        status.sessions.sort_by(|(one, _), (other, _)| one.session.node.cmp(&other.session.node));
        status
    }

    fn add(&mut self, lease: &Lease) -> Result<(), LeaseError> {
        match Kind::of(lease) {
            Some(Kind::Lock) => {
                let record = lock::parse(lease)?;
                self.damaged.extend(record.damage.clone());
                self.locks.push(record);
            }
            Some(Kind::Session) => self.sessions.push((session::parse(lease)?, lease.clone())),
            None => {}
        }
        Ok(())
    }

    /// The locks of all addresses.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &LockRecord> {
        self.locks.iter()
    }

    /// The sessions of all nodes.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.iter().map(|(record, _)| record)
    }

    /// A row for each address of the Service with this uid.
    pub(crate) fn addresses_of(&self, uid: &str, now: Timestamp) -> Vec<[String; 6]> {
        let named = |record: &LockRecord| record.claim.services.iter().any(|it| it.uid == uid);
        let locks = self.locks.iter().filter(|record| named(record));
        locks.map(|record| self.address(record, now)).collect()
    }

    fn render(&self, now: Timestamp) -> String {
        let addresses: Vec<_> = self.locks.iter().map(|record| self.address(record, now)).collect();
        let nodes: Vec<_> =
            self.sessions.iter().map(|(record, lease)| self.node(record, lease, now)).collect();
        let mut text = section("no address is allocated\n", ADDRESS_COLUMNS, &addresses);
        text.push('\n');
        text.push_str(&section(
            "no speaker has started a session\n",
            ["NODE", "SESSION", "EPOCH", "RENEWED", "ADDRESSES", "FOUND AT", "PROFILE"],
            &nodes,
        ));
        for error in &self.damaged {
            text.extend(["\nwarning: ", &error.to_string(), "\n"]);
        }
        text
    }

    fn address(&self, record: &LockRecord, now: Timestamp) -> [String; 6] {
        let services: Vec<String> = record
            .claim
            .services
            .iter()
            .map(|service| format!("{}/{}", service.namespace, service.name))
            .collect();
        let since = record.since.as_ref();
        [
            record.lock.address.to_string(),
            record.claim.pool.clone(),
            services.join(","),
            self.holder(record),
            ago(since.map(|time| time.0), now),
            record.moves.to_string(),
        ]
    }

    fn holder(&self, record: &LockRecord) -> String {
        let Some(holder) = &record.lock.holder else { return paint::warn("(nobody yet)") };
        let mut sessions = self.sessions().map(|record| &record.session);
        let counts = sessions.any(|session| {
            session.node == holder.node
                && session.epoch == holder.epoch
                && matches!(session.state, SessionState::Live { .. })
        });
        match (counts, record.lock.unannounced) {
            (true, false) => holder.node.to_string(),
            (true, true) => paint::warn(&format!("{} (no ready pod)", holder.node)),
            (false, _) => paint::bad(&format!("{} (gone)", holder.node)),
        }
    }

    fn node(&self, record: &SessionRecord, lease: &Lease, now: Timestamp) -> [String; 7] {
        let session = &record.session;
        let state = match &session.state {
            SessionState::Live { accused_by: None } => paint::good("live"),
            SessionState::Live { accused_by: Some(by) } => paint::warn(&format!("accused by {by}")),
            SessionState::Ended { by, reason } => paint::bad(&format!("ended by {by}: {reason}")),
        };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        let addresses: Vec<String> =
            record.links.iter().map(|link| link.address.to_string()).collect();
        let macs: Vec<String> = record
            .links
            .iter()
            .filter_map(|link| link.to_string().split_once('=').map(|(_, mac)| mac.to_owned()))
            .collect();
        [
            session.node.to_string(),
            state,
            session.epoch.0.to_string(),
            ago(renewed.map(|time| time.0), now),
            addresses.join(","),
            macs.join(","),
            self.profile(&session.node),
        ]
    }

    /// How those who watch a node ask for it on the wire, and why.
    fn profile(&self, node: &Node) -> String {
        let is_live = |state: &SessionState| matches!(state, SessionState::Live { .. });
        let watching = self.sessions().filter(|record| is_live(&record.session.state));
        let said = watching.filter_map(|record| Some(record.paths.get(node)?.as_str()));
        let different: BTreeSet<&str> = said.collect();
        if different.is_empty() {
            return "-".to_owned();
        }
        different.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// A table, or what to say when it has no row.
pub(crate) fn section<const N: usize>(
    empty: &str,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    if rows.is_empty() { empty.to_owned() } else { table::render(head, rows) }
}

/// How long ago, by this machine's clock, with one unit: `3s`, `12m`, `5h`, `9d`.
pub(crate) fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let seconds = now.duration_since(time).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arpeggio_api::{
        lock::{Claim, ServiceRef},
        session::{LinkAddress, OwnSession, Whereabouts},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::Epoch;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn how_a_node_is_asked_is_shown_with_the_node() {
        let now = wall_clock::now();
        let asks = |node: &str, paths: &[(&str, &str)]| {
            let paths = paths.iter().map(|(node, text)| (Node::from(*node), (*text).to_owned()));
            let whereabouts = Whereabouts { paths: paths.collect(), ..Whereabouts::default() };
            versioned(own_session(node, whereabouts).created(Epoch(1), MicroTime(now)))
        };
        let leases = [
            asks("node-1", &[("node-2", "fast"), ("node-3", "patient (wireless)")]),
            asks("node-2", &[("node-3", "patient (wireless)"), ("node-1", "fast")]),
            asks("node-3", &[("node-1", "standard (new)")]),
        ];
        let text = Status::of(&leases).render(now);
        let row = |node: &str| text.lines().find(|line| line.starts_with(node)).unwrap().trim_end();
        assert!(row("node-1").ends_with("fast, standard (new)"), "{text}");
        assert!(row("node-2").ends_with(" fast"), "{text}");
        assert!(row("node-3").ends_with(" patient (wireless)"), "{text}");
    }

    fn own_session(node: &str, whereabouts: Whereabouts) -> OwnSession {
        OwnSession {
            node: node.into(),
            instance: "speaker-x7".into(),
            duration: Duration::from_secs(10),
            whereabouts,
            hears: BTreeSet::new(),
        }
    }

    fn session_of(node: &str, started: Timestamp) -> Lease {
        let link = LinkAddress { address: [192, 168, 0, 11].into(), mac: [2, 0, 0, 0, 0, 11] };
        let whereabouts = Whereabouts { links: vec![link], ..Whereabouts::default() };
        let own = own_session(node, whereabouts);
        versioned(own.created(Epoch(4), MicroTime(started)))
    }

    fn lock_held_by(node: Option<&str>) -> Lease {
        let service =
            ServiceRef { namespace: "default".into(), name: "web".into(), uid: "u".into() };
        let claim = Claim {
            address: [192, 168, 0, 240].into(),
            pool: "home".into(),
            services: vec![service],
            terms: WrittenAnnounceTerms::default(),
        };
        let mut lease = versioned(claim.created());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = node.map(str::to_owned);
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/session".into(), "4".into());
        lease
    }

    fn versioned(mut lease: Lease) -> Lease {
        lease.metadata.resource_version = Some("1".into());
        lease
    }

    #[test]
    fn owners_and_sessions_are_shown() {
        let now = wall_clock::now();
        let leases = [session_of("node-1", now), lock_held_by(Some("node-1"))];
        let text = paint::plain(&Status::of(&leases).render(now));
        assert!(text.contains("192.168.0.240   home   default/web   node-1   -"), "{text}");
        assert!(text.contains("node-1   live      4       0s"), "{text}");
        assert!(text.contains("02:00:00:00:00:0b"), "{text}");
    }

    #[test]
    fn a_holder_without_a_session_is_gone() {
        let now = wall_clock::now();
        let text = Status::of(&[lock_held_by(Some("node-2"))]).render(now);
        assert!(text.contains("node-2 (gone)"), "{text}");
        let text = Status::of(&[lock_held_by(None)]).render(now);
        assert!(text.contains("(nobody yet)"), "{text}");
    }

    #[test]
    fn nothing_at_all_is_said_in_words() {
        let text = Status::of(&[]).render(wall_clock::now());
        assert_eq!(text, "no address is allocated\n\nno speaker has started a session\n");
    }

    #[test]
    fn times_have_one_unit() {
        let now = wall_clock::now();
        for (seconds, text) in [(3, "3s"), (720, "12m"), (18_000, "5h"), (777_600, "9d")] {
            let time = now - SignedDuration::from_secs(seconds);
            assert_eq!(ago(Some(time), now), text);
        }
    }
}
