//! Where a connection of one client would go.

use std::net::{IpAddr, SocketAddr};

use arpeggio_api::{knowledge::Knowledge, lock::LockRecord, node::facts};
use arpeggio_election::Node;
use arpeggio_forwarding::{Because, Explanation, Known, Port, Protocol, explain};
use k8s_openapi::api::core::v1::ServicePort;
use kube::ResourceExt as _;

use super::Evidence;
use crate::{status::Status, table};

const COLUMNS: [&str; 4] = ["ADDRESS", "PORT", "NODE", "WHY"];

/// Whose connection is looked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArgs {
    /// Show also to which node a new connection of this client, outside of the cluster, would go, and why: 10.1.2.3:40000. An IPv6
    /// address stands in square brackets.
    #[arg(long, value_name = "ADDRESS:PORT")]
    client: Option<SocketAddr>,
    /// The speakers were given the same flag: nodes with the label node.kubernetes.io/exclude-from-external-load-balancers serve,
    /// too. Default: what their DaemonSet says, if you may read it.
    #[arg(long, env = "ARPEGGIO_IGNORE_EXCLUSION_LABEL", requires = "client")]
    ignore_exclusion_label: bool,
}

impl ClientArgs {
    /// Whether there is one.
    pub(super) fn is_given(&self) -> bool {
        self.client.is_some()
    }

    /// Excluded nodes count as the others.
    pub(super) const fn ignore_exclusion(&mut self) {
        self.ignore_exclusion_label = true;
    }

    /// For each address and port of the Service, to which node the connection would go. `None`: nobody asks.
    pub(super) fn told(&self, evidence: &Evidence) -> Option<String> {
        let client = self.client?;
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let knowledge = knowledge(evidence, !self.ignore_exclusion_label);
        let stale = Status::of(&evidence.leases).stale_forwarders();
        Some(told(evidence, &knowledge.known().with_stale(&stale), client))
    }
}

/// What forwarders know.
fn knowledge(evidence: &Evidence, obey_exclusion: bool) -> Knowledge {
    let mut knowledge = Knowledge::default();
    for lease in &evidence.leases {
        // What is not understood of them is told with what is wrong with the Leases.
        let _ = knowledge.learn_lease(lease);
    }
    let named = |node: &k8s_openapi::api::core::v1::Node| {
        (Node::from(node.name_any().as_str()), facts(node, obey_exclusion))
    };
    knowledge.list_nodes(evidence.nodes.iter().map(named).collect());
    knowledge.list_slices(evidence.slices.iter());
    knowledge.list_services(evidence.services.iter());
    knowledge
}

fn told(evidence: &Evidence, known: &Known, client: SocketAddr) -> String {
    let status = Status::of(&evidence.leases);
    let uid = evidence.service.uid().unwrap_or_default();
    let of_family = |it: &&LockRecord| it.lock.address.is_ipv4() == client.ip().is_ipv4();
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for record in status.locks_of(&uid).filter(of_family) {
        let address = record.lock.address;
        let is_announced = status.is_announced(record);
        let mut about = None;
        for port in ports(evidence) {
            let (row, explained) = row(known, (address, port), client, is_announced);
            notes.extend(explained.as_ref().and_then(|it| shares(address, port, it)));
            about = explained.or(about);
            rows.push(row);
        }
        notes.extend(about.iter().flat_map(|it| others(address, it)));
    }
    if rows.is_empty() {
        return "nowhere: the Service has no address of the client's family, or no port\n"
            .to_owned();
    }
    table::render(COLUMNS, &rows) + &notes.join("\n")
}

fn ports(evidence: &Evidence) -> impl Iterator<Item = &ServicePort> {
    evidence.service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// One row, and what it follows from where anything but the announcing node comes into question.
fn row(
    known: &Known,
    (address, port): (IpAddr, &ServicePort),
    client: SocketAddr,
    is_announced: bool,
) -> ([String; 4], Option<Explanation>) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let row = |node: Option<&Node>, why: String| {
        let node = node.map_or_else(|| "-".to_owned(), ToString::to_string);
        [address.to_string(), format!("{}/{protocol}", port.port), node, why]
    };
    if !is_announced {
        return (row(None, "no node announces the address now".to_owned()), None);
    }
    let Some(looked_into) = looked_into(port) else {
        let holder = known.addresses.get(&address).and_then(|it| it.holder.as_ref());
        let why = format!("{protocol} stays at the node that announces the address");
        return (row(holder, why), None);
    };
    let explained = explain(known, (address, looked_into), (client.ip(), client.port()));
    (row(explained.node.as_ref(), explained.because.to_string()), Some(explained))
}

/// The port, when its protocol is one that forwarders look into.
fn looked_into(port: &ServicePort) -> Option<Port> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    Some(Port { protocol, number: u16::try_from(port.port).ok()? })
}

fn shares(address: IpAddr, port: &ServicePort, explained: &Explanation) -> Option<String> {
    let Because::Bucket { .. } = explained.because else { return None };
    let share = |it: &arpeggio_forwarding::Share| format!("{} {}", it.node, it.buckets);
    let shares: Vec<String> = explained.shares.iter().map(share).collect();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    Some(format!("buckets of {address} {}/{protocol}: {}", port.port, shares.join(", ")))
}

/// What is true of all ports of an address.
fn others(address: IpAddr, explained: &Explanation) -> Vec<String> {
    let left_out = explained.left_out.iter();
    let left_out = left_out.map(|(node, why)| format!("{node} serves nothing of {address}: {why}"));
    let open = explained.draining.iter().map(|(node, count)| {
        format!("{node} still has {count} of the connections to {address} that were open before")
    });
    left_out.chain(open).collect()
}

#[cfg(test)]
mod tests;
