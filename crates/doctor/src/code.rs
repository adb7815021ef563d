//! What a finding is called. A code never changes its meaning, and is never used again.

use std::{fmt, str::FromStr};

use crate::finding::Severity;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Which releases of everything there are.
    Versions,
    /// What Arpeggio's programs may do.
    Permissions,
    /// Whether they run.
    Pods,
    /// Other load balancers.
    Rivals,
    /// What translates Service addresses on the nodes.
    Proxy,
    /// The nodes themselves.
    Nodes,
    /// The pools' addresses.
    Pools,
    /// The nodes' proofs of life, and who watches whom.
    Sessions,
    /// Who announces what.
    Addresses,
    /// What the nodes hear on the segment.
    Wire,
    /// What is behind the addresses.
    Services,
    /// Whether connections outlive moves, where forwarders are installed.
    Forwarders,
}

impl Group {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 12] = [
        Self::Versions,
        Self::Permissions,
        Self::Pods,
        Self::Rivals,
        Self::Proxy,
        Self::Nodes,
        Self::Pools,
        Self::Sessions,
        Self::Addresses,
        Self::Wire,
        Self::Services,
        Self::Forwarders,
    ];

    /// The word for it on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Versions => "versions",
            Self::Permissions => "permissions",
            Self::Pods => "pods",
            Self::Rivals => "rivals",
            Self::Proxy => "proxy",
            Self::Nodes => "nodes",
            Self::Pools => "pools",
            Self::Sessions => "sessions",
            Self::Addresses => "addresses",
            Self::Wire => "wire",
            Self::Services => "services",
            Self::Forwarders => "forwarders",
        }
    }
}

/// Declares [`Code`]: its name, its group, its usual severity, and what is to be done.
macro_rules! codes {
    ($($code:ident $group:ident $severity:ident $advice:literal)*) => {
        /// The name of a finding.
        #[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(
                #[doc = $advice]
                $code,
            )*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }

            /// What it is about.
            pub const fn group(self) -> Group {
                match self { $(Self::$code => Group::$group),* }
            }

            /// How bad it is, as a rule.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity),* }
            }

            /// What is to be done, in a sentence.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$code => $advice),* }
            }
        }
    };
}

codes! {
    A101 Versions Error "Upgrade the cluster to Kubernetes 1.29 or newer."
    A102 Versions Error "Apply manifests/crds, or declare pools in the ConfigMap."
    A103 Versions Warning "Apply the definitions of the release that runs."
    A104 Versions Warning "Finish the upgrade: run one release everywhere."
    A105 Versions Info "Use the command of the release that runs."
    A106 Versions Warning "Load the images on every node, and run kubectl rollout restart; docs/upgrades.md has the commands."

    A201 Permissions Error "Apply manifests/base again; see who has changed its Role or ClusterRole."
    A202 Permissions Error "Apply manifests/base again; see who has changed its Role or ClusterRole."

    A301 Pods Error "Install Arpeggio, or say where it is with --system-namespace."
    A302 Pods Error "See why: kubectl describe the Deployment and its pods."
    A303 Pods Error "See the controllers' logs, and whether they reach the API server."
    A304 Pods Error "Let the DaemonSet run there: see its nodeSelector, affinity and tolerations."
    A305 Pods Warning "See why: kubectl describe the pod, and its logs."
    A306 Pods Warning "See why it ended: kubectl logs --previous."
    A307 Pods Info "Run two: kubectl scale the Deployment."
    A308 Pods Error "Let the namespace have such pods: see its Pod Security label, its quotas, and what admission webhooks want."

    A401 Rivals Warning "Switch it off, or give each its own spec.loadBalancerClass."
    A402 Rivals Warning "Switch that program off for these Services, or set spec.loadBalancerClass."
    A403 Rivals Error "Remove one of the two installations."

    A501 Proxy Error "Set ipvs.strictARP: true in kube-proxy's configuration, and restart it."
    A502 Proxy Info "See kube-proxy's settings yourself: in IPVS mode it needs strictARP."
    A503 Proxy Info "Nothing, as long as it serves the addresses in status.loadBalancer."
    A504 Proxy Warning "Give all nodes one configuration of kube-proxy, and restart those that run with another."

    A601 Nodes Error "Remove the label from the nodes that are to announce, or run the speakers with --ignore-exclusion-label."
    A602 Nodes Warning "Let a second node announce: without one, an address dies with its node."
    A603 Nodes Info "Add a node, if addresses are to outlive one."
    A604 Nodes Warning "See why: kubectl describe the node."
    A605 Nodes Warning "Raise gc_thresh2 and gc_thresh3 on the node."
    A606 Nodes Error "Give each machine a MAC address of its own."
    A607 Nodes Error "Have each kubelet use an address of its own (--node-ip)."
    A608 Nodes Warning "See why: kubectl describe the node, and the network plugin's pods there."
    A609 Nodes Warning "Set net.ipv4.conf.INTERFACE.rp_filter=2 on the node, or let its default route leave by that interface."

    A701 Pools Warning "Create an AddressPool."
    A702 Pools Error "Do what the message says."
    A703 Pools Error "Take the addresses out of one of the two pools."
    A704 Pools Error "Choose addresses of the nodes' network that are not the pods'."
    A705 Pools Error "Choose addresses of the nodes' network that are not the cluster's own."
    A706 Pools Warning "Take them out of the pool: they are never given out."
    A707 Pools Warning "Take it out of the pool: it is never given out."
    A708 Pools Info "Nothing: they are never given out."
    A709 Pools Warning "Choose addresses of the nodes' network, or set spec.routed."
    A710 Pools Warning "Connect another node to that network: without one, an address dies with its node."
    A711 Pools Error "See your router's settings: its DHCP range must not have addresses of a pool."
    A712 Pools Warning "Add addresses to the pool."
    A713 Pools Error "Correct spec.announce of the pool, or the nodes' labels."
    A714 Pools Info "Let a second node announce: without one, an address dies with its node."
    A715 Pools Warning "See arpeggio interfaces on the nodes; correct spec.announce of the pool."
    A716 Pools Warning "Take the address out of the pool, or out of that Service."

    A801 Sessions Error "See the speaker's log on that node, and whether it reaches the API server."
    A802 Sessions Warning "See the speaker's log on that node, and whether it reaches the API server."
    A803 Sessions Warning "Set the clocks: run NTP on the node and where the API server runs."
    A804 Sessions Warning "Delete the Lease, if the node is gone for good."
    A805 Sessions Warning "Find out why no other node hears it; its failure is noticed late, by time-out."
    A806 Sessions Warning "Look at the network between the two."
    A807 Sessions Warning "Look at the network of that node; give it a more patient profile."
    A808 Sessions Info "Nothing: it is noticed more slowly when such a node fails."
    A809 Sessions Warning "See who writes to that Lease; what was not understood is ignored."

    A901 Addresses Warning "Find the machine with that MAC address, and give it another address."
    A902 Addresses Error "See the events on the Service, and arpeggio explain service."
    A903 Addresses Warning "See arpeggio explain service; if another program wrote it, annotate the Service with arpeggio.dev/take-over=true."
    A904 Addresses Warning "Find the machine with arpeggio who-has, and give it another address."
    A905 Addresses Error "See arpeggio interfaces on that node."

    W101 Wire Error "Look at what is between the two: cable, switch port, VLAN, packet filter, a limit of ARP frames."
    W102 Wire Error "Look for what loses unicast frames between the two: port security, ARP inspection, a limit of ARP frames."
    W103 Wire Error "Look for what loses broadcasts between the two: storm control, a limit of ARP frames, client isolation, IGMP or MLD snooping."
    W104 Wire Error "Find that machine: it has a node's address, or answers for it by proxy ARP."
    W105 Wire Error "Take the address from that machine, or out of the pool."
    W106 Wire Error "See the speaker's log on that node, and arpeggio interfaces ADDRESS there."
    W107 Wire Warning "Look again: an address that is just moving looks so for a moment."
    W108 Wire Warning "See whether that router lives, and the way to it."
    W109 Wire Warning "Take the address out of the pool, or from that machine."
    W110 Wire Info "See what is in the way, and look again."
    W111 Wire Warning "Switch proxy ARP off on that machine."

    S101 Services Warning "Do what the message says; arpeggio explain service says more."
    S102 Services Warning "See why no pod is ready, or correct the selector."
    S103 Services Error "Let a pod of it run on a node that may announce, or use externalTrafficPolicy: Cluster."
    S104 Services Error "See whether the pods listen on the targetPort."
    S105 Services Warning "Look at kube-proxy and the pod network of that node."
    S106 Services Info "Nothing: another program serves them."
    S107 Services Warning "See whether a network policy is in the way, and how the network plugin treats such connections."
    S108 Services Info "Run pods of it on several nodes."

    F101 Forwarders Warning "Give that node a kernel that can; docs/connections.md says what it needs."
    F102 Forwarders Warning "See the log of the container forwarder in the speaker's pod there."
    F103 Forwarders Warning "See the log of the container forwarder on that node; delete the Lease, if the node is gone for good."
    F104 Forwarders Warning "Install the forwarder, as docs/connections.md says, or do not ask for spread."
    F105 Forwarders Warning "Take the forwarder out, or let kube-proxy translate, in the mode nftables or iptables."
    F106 Forwarders Info "Try a move with open connections: arpeggio drill; docs/connections.md says which modes were tried."
    F107 Forwarders Warning "See the log of the container forwarder in the speaker's pod there, that of the process before as well."
}

impl Code {
    /// The section about it in `docs/troubleshooting.md`.
    pub fn anchor(self) -> String {
        format!("#{}", self.as_str().to_lowercase())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Checks that somebody has named: a code, or a group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// One check.
    Code(Code),
    /// All of a group.
    Group(Group),
}

/// A word that is neither a code nor a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSelector(String);

impl fmt::Display for UnknownSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<&str> = Group::ALL.map(Group::as_str).into();
        write!(f, "\"{}\" is no code, as A101, and no group: {}", self.0, groups.join(", "))
    }
}

impl std::error::Error for UnknownSelector {}

impl FromStr for Selector {
    type Err = UnknownSelector;

    fn from_str(word: &str) -> Result<Self, UnknownSelector> {
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        let code = Code::ALL.iter().find(|it| is(it.as_str())).copied().map(Self::Code);
        let group = || Group::ALL.into_iter().find(|it| is(it.as_str())).map(Self::Group);
        code.or_else(group).ok_or_else(|| UnknownSelector(word.to_owned()))
    }
}

/// Which checks are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these; all when there are none.
    pub only: Vec<Selector>,
    /// Not these.
    pub skip: Vec<Selector>,
}

impl Selection {
    /// Whether this check is wanted.
    pub fn wants(&self, code: Code) -> bool {
        let names = |it: &Selector| match it {
            Selector::Code(named) => *named == code,
            Selector::Group(group) => *group == code.group(),
        };
        (self.only.is_empty() || self.only.iter().any(names)) && !self.skip.iter().any(names)
    }

    /// Whether any check of this group is wanted.
    pub fn wants_any(&self, group: Group) -> bool {
        Code::ALL.iter().any(|code| code.group() == group && self.wants(*code))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECTIONS: &str = include_str!("../../../docs/troubleshooting.md");

    #[test]
    fn every_code_has_its_section_and_the_reverse() {
        let headings = SECTIONS.lines().filter_map(|line| line.strip_prefix("### "));
        let headings: Vec<&str> = headings.collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(headings, codes, "in the same order, too");
    }

    #[test]
    fn every_section_says_what_why_and_what_to_do() {
        let sections = SECTIONS.split("\n### ").skip(1);
        for section in sections {
            for part in ["**", "\nWhy it matters: ", "\nWhat to do: "] {
                assert!(section.contains(part), "{part:?} in {section}");
            }
        }
    }

    #[test]
    fn every_group_has_its_own_codes() {
        let mut seen = BTreeSet::new();
        for group in Group::ALL {
            let codes = Code::ALL.iter().filter(|code| code.group() == group);
            let prefixes: BTreeSet<&str> = codes.map(|code| &code.as_str()[..2]).collect();
            assert_eq!(prefixes.len(), 1, "{group:?}");
            assert!(prefixes.into_iter().all(|it| seen.insert(it)), "{group:?}");
        }
    }

    #[test]
    fn checks_are_chosen_by_code_and_group() {
        let selection = |only: &[&str], skip: &[&str]| {
            let parse = |words: &[&str]| words.iter().map(|it| it.parse().unwrap()).collect();
            Selection { only: parse(only), skip: parse(skip) }
        };
        assert!(selection(&[], &[]).wants(Code::A101));
        assert!(selection(&["versions"], &[]).wants(Code::A101));
        assert!(!selection(&["versions"], &["a101"]).wants(Code::A101));
        assert!(!selection(&["A102"], &[]).wants(Code::A101));
        assert!(selection(&["A102"], &[]).wants_any(Group::Versions));
        assert!(!selection(&[], &["wire"]).wants_any(Group::Wire));
        let unknown = "A999".parse::<Selector>().unwrap_err().to_string();
        assert!(unknown.contains("permissions"), "{unknown}");
    }
}
