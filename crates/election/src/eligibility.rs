//! Which nodes may announce an address, and which of them rather should.
//!
//! | what | effect |
//! |---|---|
//! | no rule of the pool allows the node | never |
//! | rules select nodes by labels, which are not known | it takes nothing, and keeps what it has |
//! | no interface of the node fits the address | never |
//! | label `node.kubernetes.io/exclude-from-external-load-balancers` | never |
//! | condition `NetworkUnavailable`, taint `out-of-service` | never |
//! | `externalTrafficPolicy: Local`, and no backend on the node | never |
//! | condition `Ready` is not true, while the speaker is alive | after all healthy nodes |
//! | cordoned, or its Node object is being deleted | after those; with nobody else the address stays |
//! | `externalTrafficPolicy: Local`, and only backends that end | after those |
//! | no subnet of the node contains the address, and one of another node does | last |
//!
//! What else is not known speaks against nobody.

use alloc::collections::BTreeSet;
use core::net::IpAddr;

use crate::{
    facts::NodeFacts,
    model::Node,
    reach::{Reach, Subnets},
    terms::{AnnounceTerms, Rule},
};

/// Where the backends of an address are whose traffic must not leave its node (`externalTrafficPolicy: Local`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Backends {
    /// The nodes with backends that are ready.
    pub ready: BTreeSet<Node>,
    /// The nodes with backends that serve until they have ended.
    pub ending: BTreeSet<Node>,
}

impl Backends {
    /// Adds those of another Service behind the same address.
    pub fn add(&mut self, others: &Self) {
        self.ready.extend(others.ready.iter().cloned());
        self.ending.extend(others.ending.iter().cloned());
    }
}

/// Why a node may not announce an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unfit {
    /// The pool has no rule by which it is announced anywhere.
    #[error("its pool is not announced")]
    NotAnnounced,
    /// No rule of the pool selects the node.
    #[error("no announce rule of its pool selects the node")]
    NotSelected,
    /// A rule may select the node: its labels are not known.
    #[error("the labels of the node are not known yet")]
    LabelsUnknown,
    /// The node is not where the address is.
    #[error("no interface of the node can announce it")]
    NoInterface,
    /// The node is to serve no load balancers.
    #[error("the node has the label node.kubernetes.io/exclude-from-external-load-balancers")]
    Excluded,
    /// Pods on the node cannot be reached.
    #[error("the node's network is unavailable")]
    NetworkUnavailable,
    /// Somebody says that the node is off.
    #[error("the node is out of service")]
    OutOfService,
    /// The traffic may not leave the node, and nobody on it takes it.
    #[error("no ready backend on the node, and the Service has externalTrafficPolicy: Local")]
    NoBackend,
}

impl Unfit {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnnounced => "NotAnnounced",
            Self::NotSelected => "NotSelected",
            Self::LabelsUnknown => "LabelsUnknown",
            Self::NoInterface => "NoInterface",
            Self::Excluded => "Excluded",
            Self::NetworkUnavailable => "NetworkUnavailable",
            Self::OutOfService => "OutOfService",
            Self::NoBackend => "NoBackend",
        }
    }
}

/// How well a node that may announce an address is suited; a lesser one comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Standing {
    /// Nothing speaks against it.
    #[error("is well suited")]
    Good,
    /// Kubernetes does not hear of it.
    #[error("is not Ready")]
    NotReady,
    /// It is being emptied.
    #[error("is cordoned")]
    Cordoned,
    /// It has only backends that end.
    #[error("has only backends that are terminating")]
    Ending,
    /// It would announce the address on another segment than that of its subnet, where other nodes are.
    #[error("is not in the subnet of the address, and another node is")]
    Elsewhere,
}

/// What speaks for a node that may announce an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Merit {
    /// How well it is suited.
    pub standing: Standing,
    /// The sum of the weights of the preferences that select it.
    pub preference: u32,
}

/// All that is known of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) node: &'a Node,
    pub(crate) facts: Option<&'a NodeFacts>,
    pub(crate) reach: Option<&'a Reach>,
    /// Those of all nodes.
    pub(crate) subnets: &'a Subnets,
}

impl Candidate<'_> {
    /// What speaks for announcing `address` from this node, or why that is out of the question.
    pub(crate) fn merit(
        &self,
        address: IpAddr,
        terms: &AnnounceTerms,
        backends: Option<&Backends>,
    ) -> Result<Merit, Unfit> {
        self.check_health()?;
        let preference = self.placed(address, terms)?;
        let ending = backends.map(|it| self.only_ending(it)).transpose()?.unwrap_or_default();
        let standing = if self.is_elsewhere(address, terms) {
            Standing::Elsewhere
        } else {
            self.standing(ending)
        };
        Ok(Merit { standing, preference })
    }

    fn check_health(&self) -> Result<(), Unfit> {
        let Some(facts) = self.facts else { return Ok(()) };
        match facts {
            NodeFacts { excluded: true, .. } => Err(Unfit::Excluded),
            NodeFacts { out_of_service: true, .. } => Err(Unfit::OutOfService),
            NodeFacts { network_unavailable: true, .. } => Err(Unfit::NetworkUnavailable),
            _ => Ok(()),
        }
    }

    /// How much the rules prefer this node, if they allow it at all.
    fn placed(&self, address: IpAddr, terms: &AnnounceTerms) -> Result<u32, Unfit> {
        let rules = terms.rules();
        if rules.is_empty() {
            return Err(Unfit::NotAnnounced);
        }
        let mut selecting = rules.iter().filter(|rule| self.is_selected(rule)).peekable();
        let unclear = self.is_unclear(terms).then_some(Unfit::LabelsUnknown);
        selecting.peek().ok_or(unclear.unwrap_or(Unfit::NotSelected))?;
        let reached = selecting.filter(|rule| self.reaches(address, rule));
        let preferences = reached.map(|rule| self.preference(rule));
        preferences.reduce(u32::saturating_add).ok_or(unclear.unwrap_or(Unfit::NoInterface))
    }

    /// Whether the node has nothing but a default route for an address that other nodes have a subnet for: the router finds it
    /// there. A rule that names an interface of the node knows better.
    fn is_elsewhere(&self, address: IpAddr, terms: &AnnounceTerms) -> bool {
        let is_away = self.reach.is_some_and(|it| !it.is_beside(address));
        if !is_away || !self.subnets.contain(address) || self.is_unclear(terms) {
            return false;
        }
        let names = |rule: &Rule| !rule.interfaces.is_empty() && self.reaches(address, rule);
        !terms.rules().iter().any(|rule| self.is_selected(rule) && names(rule))
    }

    /// Whether any of the rules that go by labels may be one that selects it.
    fn is_unclear(&self, terms: &AnnounceTerms) -> bool {
        self.facts.is_none() && terms.goes_by_labels()
    }

    fn is_selected(&self, rule: &Rule) -> bool {
        rule.selects(self.facts)
    }

    fn reaches(&self, address: IpAddr, rule: &Rule) -> bool {
        self.reach.is_none_or(|it| it.is_announcing(address, &rule.interfaces))
    }

    fn preference(&self, rule: &Rule) -> u32 {
        let Some(facts) = self.facts else { return 0 };
        let preferring = rule.preferences.iter().filter(|it| it.nodes.matches(&facts.labels));
        preferring.map(|it| it.weight).fold(0, u32::saturating_add)
    }

    fn only_ending(&self, backends: &Backends) -> Result<bool, Unfit> {
        match (backends.ready.contains(self.node), backends.ending.contains(self.node)) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(Unfit::NoBackend),
        }
    }

    fn standing(&self, ending: bool) -> Standing {
        let facts = |is: fn(&NodeFacts) -> bool| self.facts.is_some_and(is);
        if ending {
            Standing::Ending
        } else if facts(|it| it.cordoned) {
            Standing::Cordoned
        } else if facts(|it| it.not_ready) {
            Standing::NotReady
        } else {
            Standing::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use arpeggio_labels::Selector;

    use super::*;
    use crate::{
        reach::Interface,
        terms::{Places, Preference},
    };

    fn selector(value: &str) -> Selector {
        Selector::default().with_label("rack", value).unwrap()
    }

    fn facts() -> NodeFacts {
        let labels = [("rack".into(), "a".into())].into();
        NodeFacts { labels, ..NodeFacts::default() }
    }

    fn reach() -> Reach {
        let subnets = vec!["192.168.0.11/24".parse().unwrap()];
        Reach {
            interfaces: vec![Interface { name: "eth0".into(), subnets, ..Interface::default() }],
        }
    }

    fn merit(
        facts: &NodeFacts,
        terms: &AnnounceTerms,
        backends: Option<&Backends>,
    ) -> Result<Merit, Unfit> {
        let candidate = Candidate {
            node: &"node-1".into(),
            facts: Some(facts),
            reach: Some(&reach()),
            subnets: &Subnets::default(),
        };
        candidate.merit("192.168.0.240".parse().unwrap(), terms, backends)
    }

    fn by(rules: Vec<Rule>) -> AnnounceTerms {
        AnnounceTerms { places: Places::ByRules(rules), ..AnnounceTerms::default() }
    }

    fn good(preference: u32) -> Merit {
        Merit { standing: Standing::Good, preference }
    }

    #[test]
    fn rules_allow_forbid_and_prefer() {
        let rule = |nodes: &[&str], interface: &str| Rule {
            nodes: nodes.iter().map(|value| selector(value)).collect(),
            preferences: vec![
                Preference { weight: 5, nodes: selector("a") },
                Preference { weight: 50, nodes: selector("b") },
            ],
            interfaces: vec![interface.into()],
        };
        let table = [
            (vec![], Err(Unfit::NotAnnounced)),
            (vec![Rule::default()], Ok(good(0))),
            (vec![rule(&["b"], "eth*")], Err(Unfit::NotSelected)),
            (vec![rule(&["b", "a"], "eth*")], Ok(good(5))),
            (vec![rule(&[], "wlan*")], Err(Unfit::NoInterface)),
            (vec![rule(&["b"], "eth*"), rule(&[], "wlan*")], Err(Unfit::NoInterface)),
            (vec![rule(&[], "eth?"), rule(&["a"], "*"), rule(&["b"], "*")], Ok(good(10))),
        ];
        for (rules, expected) in table {
            assert_eq!(merit(&facts(), &by(rules.clone()), None), expected, "{rules:?}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_the_node_counts() {
        let of = |change: fn(&mut NodeFacts)| {
            let mut facts = facts();
            change(&mut facts);
            merit(&facts, &AnnounceTerms::default(), None).map(|merit| merit.standing)
        };
        assert_eq!(of(|_| {}), Ok(Standing::Good));
        assert_eq!(of(|it| it.not_ready = true), Ok(Standing::NotReady));
        assert_eq!(of(|it| (it.cordoned, it.not_ready) = (true, true)), Ok(Standing::Cordoned));
        assert_eq!(of(|it| it.excluded = true), Err(Unfit::Excluded));
        assert_eq!(of(|it| it.out_of_service = true), Err(Unfit::OutOfService));
        assert_eq!(of(|it| it.network_unavailable = true), Err(Unfit::NetworkUnavailable));
    }

    #[test]
    fn traffic_that_must_not_leave_its_node_needs_a_backend_there() {
        let nodes = |names: &[&str]| names.iter().map(|it| Node::from(*it)).collect();
        let of = |ready: &[&str], ending: &[&str]| {
            let backends = Backends { ready: nodes(ready), ending: nodes(ending) };
            merit(&facts(), &AnnounceTerms::default(), Some(&backends)).map(|merit| merit.standing)
        };
        assert_eq!(of(&["node-1"], &["node-1"]), Ok(Standing::Good));
        assert_eq!(of(&["node-2"], &["node-1"]), Ok(Standing::Ending));
        assert_eq!(of(&["node-2"], &[]), Err(Unfit::NoBackend));
    }

    #[test]
    fn what_is_not_known_speaks_against_nobody_but_where_rules_go_by_labels() {
        let subnets = Subnets::default();
        let unknown =
            Candidate { node: &"node-1".into(), facts: None, reach: None, subnets: &subnets };
        let merit = |terms| unknown.merit("10.0.0.1".parse().unwrap(), &terms, None);
        assert_eq!(merit(AnnounceTerms::default()), Ok(good(0)));
        let rule = Rule { nodes: vec![selector("a")], ..Rule::default() };
        assert_eq!(merit(by(vec![rule.clone()])), Err(Unfit::LabelsUnknown));
        assert_eq!(merit(by(vec![rule, Rule::default()])), Ok(good(0)));
    }

    #[test]
    fn a_default_route_counts_last_where_another_node_has_the_subnet() {
        let here = reach();
        let mut subnets = Subnets::default();
        subnets.replace(None, Some(&here));
        let interface = |name: &str, net: &str, default_ipv4| Interface {
            name: name.into(),
            subnets: vec![net.parse().unwrap()],
            default_ipv4,
            ..Interface::default()
        };
        let vpn = |second: &str| Reach {
            interfaces: vec![
                interface("vpn0", "10.8.0.2/24", true),
                interface("eth1", second, false),
            ],
        };
        let standing = |reach: &Reach, address: &str, terms: &AnnounceTerms| {
            let node = "node-9".into();
            let candidate =
                Candidate { node: &node, facts: None, reach: Some(reach), subnets: &subnets };
            candidate.merit(address.parse().unwrap(), terms, None).map(|merit| merit.standing)
        };
        let everywhere = AnnounceTerms::default();
        let away = vpn("172.16.0.1/24");
        assert_eq!(standing(&here, "192.168.0.240", &everywhere), Ok(Standing::Good));
        assert_eq!(standing(&away, "192.168.0.240", &everywhere), Ok(Standing::Elsewhere));
        assert_eq!(standing(&away, "203.0.113.1", &everywhere), Ok(Standing::Good), "nobody's");
        assert_eq!(
            standing(&vpn("192.168.0.9/24"), "192.168.0.240", &everywhere),
            Ok(Standing::Good)
        );
        let named = by(vec![Rule { interfaces: vec!["vpn0".into()], ..Rule::default() }]);
        assert_eq!(
            standing(&away, "192.168.0.240", &named),
            Ok(Standing::Good),
            "somebody says so"
        );
    }
}
