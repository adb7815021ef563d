//! What is said about those who answered.

use std::{net::IpAddr, time::Duration};

use arpeggio_wire::MacAddr;
use serde::Serialize;

use super::{
    ask::{Answer, Answers},
    known::{Cluster, Lock},
};
use crate::{paint, table};

/// What was heard, and where.
#[derive(Debug)]
pub(super) struct Heard {
    /// The address asked for.
    pub(super) address: IpAddr,
    /// The name of the interface.
    pub(super) interface: String,
    /// Its MAC address.
    pub(super) own_mac: MacAddr,
    /// Whether this machine's own kernel has the address, which it does not tell itself.
    pub(super) is_own: bool,
    /// The others.
    pub(super) answers: Answers,
}

/// Who has the address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    address: IpAddr,
    interface: String,
    asked: u32,
    machines: Vec<Machine>,
    /// The lock's record of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<Lock>,
    /// What people should know about all that.
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    mac: String,
    /// To how many questions it has answered; `None` for this machine.
    answers: Option<u32>,
    /// How long its first answer took.
    milliseconds: Option<f64>,
    /// Its node, if it is one of the cluster's.
    node: Option<String>,
    whose: String,
}

impl Report {
    /// Joins what was heard with what the cluster knows, or with why nothing is known.
    pub(super) fn of(heard: &Heard, cluster: &Result<Cluster, String>) -> Self {
        let known = cluster.as_ref().ok();
        let lock = known.and_then(|cluster| cluster.lock(heard.address));
        let this = heard.is_own.then(|| Machine::this(heard.own_mac, known));
        let others = heard.answers.machines.iter();
        let others = others.map(|answer| Machine::other(answer, known, lock.as_ref()));
        let machines: Vec<Machine> = this.into_iter().chain(others).collect();
        let remarks = [
            Some(verdict(heard, machines.len(), known, lock.as_ref())).filter(|it| !it.is_empty()),
            known.map(|_| told(lock.as_ref())),
            cluster.as_ref().err().map(|why| format!("The cluster was not asked: {why}.")),
        ];
        Self {
            address: heard.address,
            interface: heard.interface.clone(),
            asked: heard.answers.asked,
            machines,
            lock,
            remarks: remarks.into_iter().flatten().collect(),
        }
    }

    /// How many machines have the address.
    pub(super) fn machines(&self) -> usize {
        self.machines.len()
    }

    /// A table as kubectl prints it, and a line for each remark.
    pub(super) fn to_text(&self) -> String {
        let rows: Vec<_> = self.machines.iter().map(|it| it.cells(self.asked)).collect();
        let mut text = String::new();
        if !rows.is_empty() {
            text = table::render(["MAC", "ANSWERS", "TOOK", "WHOSE"], &rows) + "\n";
        }
        for remark in &self.remarks {
            text.extend([&paint::one_line(remark), "\n"]);
        }
        text
    }
}

impl Machine {
    fn this(mac: MacAddr, cluster: Option<&Cluster>) -> Self {
        let node = cluster.and_then(|cluster| cluster.node(mac));
        let whose = match &node {
            Some(node) => format!("{node}, this machine, by its own kernel"),
            None => "this machine, by its own kernel".to_owned(),
        };
        Self { mac: mac.to_string(), answers: None, milliseconds: None, node, whose }
    }

    fn other(answer: &Answer, cluster: Option<&Cluster>, lock: Option<&Lock>) -> Self {
        let node = cluster.and_then(|cluster| cluster.node(answer.mac));
        let holder = lock.and_then(|lock| lock.holder.as_ref());
        let whose = match (&node, cluster, holder) {
            (Some(node), _, Some(holder)) if node == holder => format!("{node}, holds the lock"),
            (Some(node), _, Some(holder)) => format!("{node}, though {holder} holds the lock"),
            (Some(node), _, None) => node.clone(),
            (None, Some(_), _) => "unknown to the cluster".to_owned(),
            (None, None, _) => "-".to_owned(),
        };
        Self {
            mac: answer.mac.to_string(),
            answers: Some(answer.count),
            milliseconds: Some(millis(answer.took)),
            node,
            whose,
        }
    }

    fn cells(&self, asked: u32) -> [String; 4] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.mac.clone(),
            or_none(self.answers.map(|count| format!("{count} of {asked}"))),
            or_none(self.milliseconds.map(|took| format!("{took:.2} ms"))),
            self.whose.clone(),
        ]
    }
}

/// What the number of answers means; nothing where one is as it should be.
fn verdict(
    heard: &Heard,
    machines: usize,
    cluster: Option<&Cluster>,
    lock: Option<&Lock>,
) -> String {
    let Heard { address, interface, .. } = heard;
    let asked = heard.answers.asked;
    match machines {
        0 => {
            let this = cluster.and_then(|cluster| cluster.node(heard.own_mac));
            let holder = lock.and_then(|lock| lock.holder.clone());
            let hint = if this.is_some() && this == holder {
                "This machine holds the lock, and no machine hears its own questions: ask from another one."
            } else {
                "A machine does not hear its own questions: if this one announces the address, ask from another one."
            };
            format!("Nobody answers for {address} on {interface}, asked {asked} times. {hint}")
        }
        1 => String::new(),
        several => format!(
            "{several} machines answer for {address}: each client reaches the one that it heard last, and connections break \
             when that changes. Take the address away from all but one, or keep it out of the pool."
        ),
    }
}

/// What the lock says.
fn told(lock: Option<&Lock>) -> String {
    let Some(Lock { holder, services, pool, stranger }) = lock else {
        return "The address has no lock: this cluster does not announce it.".to_owned();
    };
    let holder = holder.as_deref().unwrap_or("nobody yet");
    let services = if services.is_empty() { "no Service" } else { services };
    let quarantine = stranger.as_ref().map_or_else(String::new, |mac| {
        format!(
            " It is not announced, since another machine, {mac}, was found to have the address."
        )
    });
    format!("The lock is held by {holder}, for {services} (pool {pool}).{quarantine}")
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{
        lock::{Claim, ServiceRef},
        session::{LinkAddress, OwnSession, Whereabouts},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::Epoch;
    use k8s_openapi::{
        api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
    };

    use super::*;
    use crate::status::Status;

    const ADDRESS: [u8; 4] = [192, 0, 2, 240];

    fn mac(last: u8) -> MacAddr {
        MacAddr(2, 0, 0, 0, 0, last)
    }

    fn session(node: &str, last: u8) -> Lease {
        let link = LinkAddress { address: [192, 0, 2, last].into(), mac: mac(last).octets() };
        let own = OwnSession {
            node: node.into(),
            instance: "speaker".into(),
            duration: Duration::from_secs(10),
            whereabouts: Whereabouts { links: vec![link], ..Whereabouts::default() },
            hears: std::collections::BTreeSet::new(),
        };
        own.created(Epoch(1), MicroTime(Timestamp::UNIX_EPOCH))
    }

    fn lock(holder: &str) -> Lease {
        let service =
            ServiceRef { namespace: "default".into(), name: "web".into(), uid: "u".into() };
        let claim = Claim {
            address: ADDRESS.into(),
            pool: "home".into(),
            services: vec![service],
            terms: WrittenAnnounceTerms::default(),
            spread: false,
        };
        let mut lease = claim.created();
        lease.spec.get_or_insert_default().holder_identity = Some(holder.to_owned());
        lease
    }

    /// Two nodes, of which the first holds the lock.
    fn cluster() -> Cluster {
        let mut leases = [session("node-1", 1), session("node-2", 2), lock("node-1")];
        for lease in &mut leases {
            lease.metadata.resource_version = Some("1".to_owned());
        }
        Cluster::new(Status::of(&leases))
    }

    fn heard(machines: &[u8]) -> Heard {
        let answer =
            |last: &u8| Answer { mac: mac(*last), took: Duration::from_micros(214), count: 4 };
        let machines = machines.iter().map(answer).collect();
        Heard {
            address: ADDRESS.into(),
            interface: "eth0".to_owned(),
            own_mac: mac(9),
            is_own: false,
            answers: Answers { asked: 4, machines, ..Answers::default() },
        }
    }

    #[test]
    fn the_holder_answers() {
        let expected = "\
MAC                 ANSWERS   TOOK      WHOSE
02:00:00:00:00:01   4 of 4    0.21 ms   node-1, holds the lock

The lock is held by node-1, for default/web (pool home).
";
        assert_eq!(Report::of(&heard(&[1]), &Ok(cluster())).to_text(), expected);
    }

    #[test]
    fn a_strangers_address_is_told() {
        let mut lease = lock("");
        lease.metadata.resource_version = Some("1".to_owned());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/stranger".into(), mac(7).to_string());
        let cluster = Ok(Cluster::new(Status::of(&[lease])));
        let text = Report::of(&heard(&[7]), &cluster).to_text();
        assert!(text.contains("unknown to the cluster"), "{text}");
        assert!(text.contains("held by nobody yet"), "{text}");
        assert!(text.contains("another machine, 02:00:00:00:00:07, was found"), "{text}");
    }

    #[test]
    fn each_of_several_is_named() {
        let report = Report::of(&heard(&[1, 2, 7]), &Ok(cluster()));
        let text = report.to_text();
        assert_eq!(report.machines(), 3);
        for expected in [
            "node-1, holds the lock",
            "node-2, though node-1 holds the lock",
            "02:00:00:00:00:07   4 of 4    0.21 ms   unknown to the cluster",
            "3 machines answer for 192.0.2.240",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn silence_is_explained() {
        let text = Report::of(&heard(&[]), &Ok(cluster())).to_text();
        assert!(
            text.starts_with("Nobody answers for 192.0.2.240 on eth0, asked 4 times. A machine")
        );
        let own = Heard { own_mac: mac(1), ..heard(&[]) };
        let text = Report::of(&own, &Ok(cluster())).to_text();
        assert!(text.contains("This machine holds the lock"), "{text}");
    }

    #[test]
    fn this_machine_counts_too() {
        let own = Heard { is_own: true, own_mac: mac(2), ..heard(&[7]) };
        let report = Report::of(&own, &Ok(cluster()));
        assert_eq!(report.machines(), 2);
        assert!(report.to_text().contains("-         -         node-2, this machine"));
    }

    #[test]
    fn without_the_cluster_the_segment_still_speaks() {
        let nothing = Err("no KUBECONFIG".to_owned());
        let text = Report::of(&heard(&[1]), &nothing).to_text();
        assert!(text.contains("02:00:00:00:00:01   4 of 4    0.21 ms   -\n"), "{text}");
        assert!(text.ends_with("The cluster was not asked: no KUBECONFIG.\n"), "{text}");
    }

    #[test]
    fn an_address_of_nobodys_pool_has_no_lock() {
        let other = Heard { address: [192, 0, 2, 9].into(), ..heard(&[2]) };
        let text = Report::of(&other, &Ok(cluster())).to_text();
        assert!(text.contains("0.21 ms   node-2\n"), "{text}");
        assert!(text.contains("has no lock"), "{text}");
    }
}
