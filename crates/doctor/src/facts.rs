//! What is known of an installation: plain data, gathered by somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::Rule;
use arpeggio_ipam::{AddressRange, is_buggy};
use ipnet::IpNet;

use crate::survey::{Connect, Survey};

/// What is known, or why it is not: words for people, to be read after "not checked:".
pub type Known<T> = Result<T, String>;

/// Whether Arpeggio should be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It is still to be installed.
    Before,
    /// It is installed.
    #[default]
    Installed,
}

/// All that is known.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether Arpeggio should be there.
    pub stage: Stage,
    /// Where it should be.
    pub namespace: String,
    /// The release of the program that asks.
    pub program: String,
    /// The commit that it was built from. `None`: its build does not say.
    pub revision: Option<String>,
    /// Which Kubernetes it is: major and minor.
    pub kubernetes: Known<(u32, u32)>,
    /// What the definition of `AddressPool` in the cluster has.
    pub definition: Known<Definition>,
    /// What Arpeggio's programs need to do, and whether they may.
    pub permissions: Known<Vec<Permission>>,
    /// The Deployment, the DaemonSet and their pods.
    pub installation: Known<Installation>,
    /// The `spec.loadBalancerClass` that Arpeggio serves. `None`: it serves Services without any.
    pub class: Known<Option<String>>,
    /// Other load balancers that were recognised.
    pub rivals: Known<Vec<Rival>>,
    /// Other namespaces with a controller that leads.
    pub elsewhere: Known<Vec<String>>,
    /// What the cluster says of kube-proxy.
    pub proxy: Known<Proxy>,
    /// The nodes.
    pub nodes: Known<Vec<Node>>,
    /// Where cluster addresses of Services are, and who says so.
    pub service_ranges: Known<Vec<(String, AddressRange)>>,
    /// The pools.
    pub pools: Known<Vec<Pool>>,
    /// The nodes' sessions.
    pub sessions: Known<Vec<Session>>,
    /// What forwarders say.
    pub forwarders: Known<Vec<Forwarder>>,
    /// The addresses' locks.
    pub locks: Known<Vec<Lock>>,
    /// What is wrong with Leases.
    pub damaged: Vec<String>,
    /// The Services of type `LoadBalancer`.
    pub services: Known<Vec<Service>>,
    /// The addresses that pods and Services of any type have in other ways.
    pub uses: Vec<Use>,
    /// What speakers have counted, by node; none when nobody asked them.
    pub metrics: BTreeMap<String, Known<Metrics>>,
    /// What the nodes see, by node; none when nobody asked them.
    pub surveys: BTreeMap<String, Known<Survey>>,
    /// Where Arpeggio's own pods reach Services, by node; none when no pod was asked.
    pub pods: BTreeMap<String, Known<Vec<Connect>>>,
    /// What nodes and pods were not asked, since it would have been too much at once.
    pub unasked: Vec<Unasked>,
}

impl Facts {
    /// Whether some node asks others sparsely, since switches may close a port that sends more frames. That node need not be
    /// the only one with such a port.
    pub fn is_sparse(&self) -> bool {
        let sessions = self.sessions.as_deref().unwrap_or_default();
        sessions.iter().filter(|it| it.is_live()).any(Session::is_sparse)
    }
}

/// The definition of `AddressPool`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// Whether there is one.
    pub installed: bool,
    /// Fields that this release knows and the definition does not.
    pub lacks: Vec<String>,
    /// Fields that the definition knows and this release does not.
    pub unknown: Vec<String>,
}

/// A program of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Gives addresses.
    Controller,
    /// Announces them.
    Speaker,
}

impl Component {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Speaker => "speaker",
        }
    }
}

/// Something that a program of ours needs to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Which program.
    pub who: Component,
    /// What: "list nodes".
    pub what: String,
    /// Whether the API server lets it.
    pub allowed: bool,
}

/// What is installed in the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installation {
    /// How many controllers the Deployment asks for; `None`: there is no Deployment.
    pub controllers: Option<u32>,
    /// Whether there is a DaemonSet of speakers.
    pub has_speakers: bool,
    /// Whether the speakers obey the exclusion label.
    pub obeys_exclusion: bool,
    /// The pods of both.
    pub pods: Vec<Pod>,
    /// For whom the API server refuses pods, and why: of each the last refusal.
    pub refused: BTreeMap<Component, String>,
    /// The controller that leads.
    pub leader: Option<Leader>,
    /// Whether the controllers elect one of them at all.
    pub elects: bool,
}

/// The Lease of the controller that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Who leads; empty when nobody does.
    pub holder: String,
    /// Whether it has renewed the Lease while we looked, or so shortly before that it counts.
    pub renewed: bool,
}

/// A pod of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub component: Component,
    /// Where.
    pub node: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub ending: bool,
    /// Why a container of it waits.
    pub waiting: Option<String>,
    /// The first of its other containers that waits, and why: a forwarder, or what somebody has put there.
    pub beside: Option<(String, String)>,
    /// How often its container was started again.
    pub restarts: u32,
    /// How long ago it ended last, and why.
    pub ended: Option<(Duration, String)>,
    /// How long ago the pod was created.
    pub age: Option<Duration>,
    /// The image that was asked for.
    pub image: String,
    /// Its own addresses; none when it has those of its node.
    pub addresses: Vec<IpAddr>,
}

/// Another load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// What it is called.
    pub product: String,
    /// The object that gives it away.
    pub object: String,
    /// The `spec.loadBalancerClass`es of the Services that it serves; `None` among them: those without any. `None`: it does not say.
    pub classes: Option<Vec<Option<String>>>,
}

impl Rival {
    /// Whether it serves other Services than those of `class` only, as far as both say.
    pub fn is_apart(&self, class: &Known<Option<String>>) -> bool {
        let (Some(classes), Ok(class)) = (&self.classes, class) else { return false };
        !classes.contains(class)
    }
}

/// What is known of kube-proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Its mode, as its configuration says: `iptables`, `ipvs`, `nftables`.
    pub mode: Option<String>,
    /// `ipvs.strictARP`.
    pub strict_arp: bool,
    /// The program that does its work instead.
    pub replaced_by: Option<String>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether Kubernetes calls it Ready.
    pub ready: bool,
    /// Whether it has the label that keeps load balancers off it.
    pub excluded: bool,
    /// Why it never announces, whatever else is so.
    pub barred: Option<String>,
    /// Whether a speaker can run on it: it is a machine, runs Linux, and the DaemonSet does not keep its pods off it.
    pub hosts_speakers: bool,
    /// What of the DaemonSet keeps speakers off it, where nothing else does.
    pub kept_off: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own addresses, as Kubernetes knows them.
    pub addresses: Vec<IpAddr>,
    /// Those of them that the cluster uses. Others may be a router's in front of all nodes.
    pub internal: Vec<IpAddr>,
    /// Where its pods are.
    pub pod_ranges: Vec<AddressRange>,
}

/// A pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
pub struct Pool {
    /// Its name, for people: with the place where it is declared, unless that is an `AddressPool`.
    pub name: String,
    /// Its name alone, as the locks of its addresses have it.
    pub plain_name: String,
    /// Its addresses, without those that it excludes.
    pub ranges: Vec<AddressRange>,
    /// Whether it never gives out those of them that end in .0 or .255 (IPv4).
    pub avoid_buggy_ips: bool,
    /// Whether nobody is to announce them.
    pub routed: bool,
    /// Where it is announced; everywhere when there are none.
    pub rules: Vec<Rule>,
    /// What its condition `Ready` says when it is not True.
    pub unready: Option<String>,
    /// How many addresses the larger one of its families has that have none free, by its status. `None`: both have some.
    pub full: Option<u128>,
    /// Whether it was written on the command line, to be judged before it is created.
    pub is_plan: bool,
}

impl Pool {
    /// Whether it may give out this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
            && !(self.avoid_buggy_ips && is_buggy(address))
    }
}

/// A node's session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// The node.
    pub node: String,
    /// Why it has ended, if it has.
    pub ended: Option<String>,
    /// Who accuses it.
    pub accused_by: Option<String>,
    /// How long it counts after a renewal.
    pub lasts: Duration,
    /// When it was renewed last, as seconds after the API server's time; negative in the past.
    pub renewed: Option<i64>,
    /// Whether it was renewed while we looked.
    pub alive: bool,
    /// Where the node is found on the wire: its addresses and MAC addresses.
    pub links: Vec<(IpAddr, String)>,
    /// The names of its interfaces that can announce.
    pub interfaces: BTreeSet<String>,
    /// The subnets of its interfaces, with its own addresses in them.
    pub subnets: Vec<IpNet>,
    /// Its routers, and the interfaces to them.
    pub gateways: Vec<(String, IpAddr)>,
    /// Other addresses that are its own.
    pub own: BTreeSet<IpAddr>,
    /// The nodes that it watches and hears. `None`: it does not say.
    pub hears: Option<BTreeSet<String>>,
    /// How it asks others, and why.
    pub paths: BTreeMap<String, String>,
}

impl Session {
    /// Whether it counts.
    pub fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether it asks others by the profile `sparse`.
    fn is_sparse(&self) -> bool {
        self.paths.values().any(|profile| profile.starts_with("sparse"))
    }

    /// Whether this is one of the node's MAC addresses.
    pub fn has_mac(&self, mac: &str) -> bool {
        self.links.iter().any(|(_, own)| own == mac)
    }
}

/// What the Lease of a node's forwarder says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarder {
    /// The node.
    pub node: String,
    /// The pod that wrote it last. `None`: it has stopped, or that is not understood.
    pub running: Option<String>,
    /// Why it can pass nothing on, if so.
    pub unable: Option<String>,
    /// Why it counts as none though it has not stopped, if so: it does not renew its Lease.
    pub stale: Option<String>,
    /// Whether only a newer release understands the Lease.
    pub newer: bool,
}

/// Who announces an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The address.
    pub address: IpAddr,
    /// The node that holds it, under a session that counts.
    pub holder: Option<String>,
    /// The node that it names though that counts no more.
    pub former: Option<String>,
    /// The MAC address of a stranger that has it.
    pub stranger: Option<String>,
    /// Whether its holder does not announce it, for want of a ready pod.
    pub unannounced: bool,
    /// Whether it was given back, and is kept for a while.
    pub rests: bool,
    /// Whether all nodes are to serve it.
    pub spread: bool,
    /// The Services that are reached at it, `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// The pool that it is from.
    pub pool: String,
}

/// What has an address, beside locks and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A pod behind a Service.
    Pod,
    /// The Service itself, inside of the cluster.
    ClusterIp,
    /// `spec.externalIPs`.
    ExternalIp,
}

/// That somebody has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub by: User,
    /// The Service, `NAMESPACE/NAME`.
    pub service: String,
}

/// A Service of type `LoadBalancer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
pub struct Service {
    /// `NAMESPACE/NAME`.
    pub path: String,
    /// `spec.loadBalancerClass`, where it is not the one that is served.
    pub other_class: Option<String>,
    /// The addresses in its status.
    pub addresses: Vec<IpAddr>,
    /// Its TCP ports.
    pub tcp: Vec<u16>,
    /// Its UDP ports.
    pub udp: Vec<u16>,
    /// How many of its ports are neither.
    pub other_ports: usize,
    /// Why it has less than it asks for, as the controller says. `Some` of nothing: no controller has looked.
    pub waits: Option<String>,
    /// What the controller says of a machine that has its address.
    pub conflict: Option<String>,
    /// The field managers other than Arpeggio's that write `status.loadBalancer`.
    pub writers: Vec<String>,
    /// Whether traffic must not leave the node that it comes to.
    pub local: bool,
    /// Whether its pods are found by a selector.
    pub selects: bool,
    /// The nodes with ready endpoints. `None`: not known.
    pub ready_on: Option<BTreeSet<String>>,
    /// Whether it has ready endpoints, be it on no node.
    pub has_endpoints: bool,
    /// Whom `spec.loadBalancerSourceRanges` lets in. `None`: everybody.
    pub lets_in: Option<Vec<IpNet>>,
    /// Whether it is being deleted.
    pub ending: bool,
}

impl Service {
    /// Whether Arpeggio serves it.
    pub fn is_ours(&self) -> bool {
        self.other_class.is_none() && !self.ending
    }

    /// Whether all of these addresses are let in, of which there is at least one of the family of `to`.
    pub fn lets_in(&self, from: impl IntoIterator<Item = IpAddr>, to: IpAddr) -> bool {
        let Some(ranges) = &self.lets_in else { return true };
        let from = from.into_iter().filter(|it| it.is_ipv4() == to.is_ipv4());
        let mut from = from.peekable();
        from.peek().is_some() && from.all(|it| ranges.iter().any(|range| range.contains(&it)))
    }

    /// Whether somebody on this node reaches a pod of it without that traffic leaves the node, where it must not.
    pub fn has_pod_for(&self, node: &str) -> bool {
        !self.local || self.ready_on.as_ref().is_some_and(|it| it.contains(node))
    }
}

/// What is asked, or tried, of which there may be too much for one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asking {
    /// A node asks for other nodes.
    Nodes,
    /// A node asks for announced addresses.
    Announced,
    /// Somebody asks for the free addresses of a range.
    Free,
    /// DHCP servers are asked for both ends of a range.
    Leases,
    /// A node tries ports of Services.
    Ports,
    /// A pod tries them.
    PodPorts,
}

/// That only some of it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// What.
    pub what: Asking,
    /// The node that left the others out, or the range that has them.
    pub at: String,
    /// How many were asked.
    pub asked: usize,
    /// Of how many.
    pub of: u128,
}

/// What a speaker has counted, and what it says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Addresses that a stranger has announced, too, lately.
    pub contested: u64,
    /// Addresses that it holds and cannot announce.
    pub unannounceable: u64,
    /// How often the most patient profile would have taken a living node for dead.
    pub patient_wrong: u64,
    /// The commit that it was built from. `None`: its build does not say.
    pub revision: Option<String>,
}
