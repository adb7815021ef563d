//! On which terms Services share an address.

use alloc::{collections::BTreeSet, string::String};
use arpeggio_labels::Labels;
use core::fmt;

use crate::names::{Owner, SharingKey};

/// Whose Services may share an address of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharingScope {
    /// Those of one namespace.
    #[default]
    Namespace,
    /// Those of any namespaces, as long as every node serves them.
    Cluster,
}

/// On which terms a Service shares its address: with those that have the same key and backend, and other ports, and are
/// in the same namespace, unless the pool says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
    /// The Service's namespace.
    pub namespace: String,
    /// The key that all sharers have.
    pub key: SharingKey,
    /// Where its traffic goes.
    pub backend: Backend,
    /// What it listens on.
    pub ports: BTreeSet<Port>,
}

/// Where the traffic of a shared address goes. One node announces an address for all that share it, so all of them must
/// be served by any node, or all by the same pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Every node serves it (`externalTrafficPolicy: Cluster`).
    Anywhere,
    /// Only nodes with the pods that this selects serve it (`externalTrafficPolicy: Local`). Services without a
    /// selector have endpoints of their own and share with nobody.
    Local(Labels),
}

/// A port that a Service listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// The protocols of `Service.spec.ports[].protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol}/{}", self.number)
    }
}

/// The terms on which one owner holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharingTerms {
    /// Alone.
    Alone,
    /// Together with those whose terms agree.
    Shared(Sharing),
    /// Not known: the record of who holds the address names somebody of whom nothing else is known yet. Nobody joins,
    /// but nobody who is there already has to leave.
    Unknown,
}

/// Why two owners cannot share an address.
///
/// As text it is for the owner of the Service that does not get the address, who may not know what is in another
/// namespace: not whose Service has it, and, since that would tell whether a guess was right, not how the terms differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The other owner.
    pub with: Owner,
    /// How the terms differ.
    pub why: Disagreement,
    /// Whether the other owner is a Service of another namespace.
    pub is_elsewhere: bool,
}

impl Clash {
    /// What has the address, if that is no Service.
    pub(crate) fn with_no_service(&self) -> Option<NoService<'_>> {
        self.with.namespace().is_none().then_some(NoService(&self.with))
    }

    pub(crate) fn between(owner: &Owner, with: &Owner, why: Disagreement) -> Self {
        let is_elsewhere =
            with.namespace().is_some_and(|namespace| owner.namespace() != Some(namespace));
        Self { with: with.clone(), why, is_elsewhere }
    }
}

impl core::error::Error for Clash {}

/// What has an address and is no Service, as a sentence. Its name follows from the address, and so tells nobody anything.
pub(crate) struct NoService<'a>(&'a Owner);

impl fmt::Display for NoService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} in Arpeggio's namespace has it, and is of no Service: delete it", self.0)
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_elsewhere {
            return f.write_str("a Service of another namespace has it");
        }
        if let Some(other) = self.with_no_service() {
            return other.fmt(f);
        }
        write!(f, "it is in use by {}, {}", self.with, self.why)
    }
}

/// How the terms of two owners differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The other one shares with nobody.
    #[error("which does not share it: give both the same sharing key")]
    TheyAreAlone,
    /// This one shares with nobody.
    #[error("and this Service has no sharing key: give both the same")]
    WeAreAlone,
    /// The keys differ.
    #[error("whose sharing key differs: give both the same")]
    Key,
    /// Traffic goes to different places.
    #[error(
        "whose externalTrafficPolicy or selector differs: set Cluster on both, or Local on both with the same selector"
    )]
    Backend,
    /// Both listen on this port.
    #[error("which listens on {0} too: choose another port")]
    Port(Port),
    /// The other one's terms are not known yet.
    #[error("of which nothing is known yet: wait")]
    Unknown,
    /// The namespaces differ, and the pool shares within namespaces only.
    #[error("which is in another namespace")]
    Namespace,
}

impl Disagreement {
    /// Whether those who are at an address already stay there all the same: what may turn out to be none, and what only
    /// bars those who come.
    pub(crate) fn bars_newcomers_only(&self) -> bool {
        matches!(self, Self::Unknown | Self::Namespace)
    }
}

impl SharingTerms {
    /// How these, of a newcomer, differ from those of somebody who is there already.
    pub(crate) fn disagreement(&self, theirs: &Self, scope: SharingScope) -> Option<Disagreement> {
        match (self, theirs) {
            (Self::Unknown, _) | (_, Self::Unknown) => Some(Disagreement::Unknown),
            (_, Self::Alone) => Some(Disagreement::TheyAreAlone),
            (Self::Alone, _) => Some(Disagreement::WeAreAlone),
            (Self::Shared(ours), Self::Shared(theirs)) => ours.disagreement(theirs, scope),
        }
    }

    pub(crate) fn sharing(&self) -> Option<&Sharing> {
        match self {
            Self::Shared(sharing) => Some(sharing),
            _ => None,
        }
    }
}

impl From<Option<Sharing>> for SharingTerms {
    fn from(sharing: Option<Sharing>) -> Self {
        sharing.map_or(Self::Alone, Self::Shared)
    }
}

impl Sharing {
    /// Whether these terms allow sharers of other namespaces. Nodes with pods of one Service are not those of another.
    pub(crate) fn crosses_namespaces(&self, scope: SharingScope) -> bool {
        scope == SharingScope::Cluster && self.backend == Backend::Anywhere
    }

    fn disagreement(&self, theirs: &Self, scope: SharingScope) -> Option<Disagreement> {
        if self.key != theirs.key {
            return Some(Disagreement::Key);
        }
        if self.backend != theirs.backend || self.backend.is_private() {
            return Some(Disagreement::Backend);
        }
        if let Some(port) = self.ports.intersection(&theirs.ports).next() {
            return Some(Disagreement::Port(*port));
        }
        let apart = self.namespace != theirs.namespace && !self.crosses_namespaces(scope);
        apart.then_some(Disagreement::Namespace)
    }
}

impl Backend {
    /// Whether nobody else can have the same.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, Self::Local(selector) if selector.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn shared(key: &str, backend: Backend, ports: &[u16]) -> SharingTerms {
        shared_in("shop", key, backend, ports)
    }

    fn shared_in(namespace: &str, key: &str, backend: Backend, ports: &[u16]) -> SharingTerms {
        let namespace = namespace.to_string();
        let port = |number: &u16| Port { protocol: Protocol::Tcp, number: *number };
        let ports = ports.iter().map(port).collect();
        SharingTerms::Shared(Sharing { namespace, key: key.into(), backend, ports })
    }

    fn local(app: &str) -> Backend {
        Backend::Local(Labels::from([("app".to_string(), app.to_string())]))
    }

    #[test]
    fn who_may_share_with_whom() {
        use Backend::Anywhere;
        let with = || shared("k", Anywhere, &[80, 81]);
        let private = || Backend::Local(Labels::new());
        let table = [
            (shared("k", Anywhere, &[443]), with(), None),
            (shared("k", Anywhere, &[443, 81]), with(), Some("TCP/81 too")),
            (shared("j", Anywhere, &[443]), with(), Some("sharing key differs")),
            (shared("k", local("a"), &[443]), with(), Some("externalTrafficPolicy or selector")),
            (shared("k", local("a"), &[443]), shared("k", local("a"), &[80]), None),
            (
                shared("k", local("a"), &[443]),
                shared("k", local("b"), &[80]),
                Some("selector differs"),
            ),
            (shared("k", private(), &[443]), with(), Some("selector differs")),
            (
                shared("k", private(), &[443]),
                shared("k", private(), &[80]),
                Some("selector differs"),
            ),
            (SharingTerms::Alone, with(), Some("has no sharing key")),
            (with(), SharingTerms::Alone, Some("does not share it")),
            (shared("k", Anywhere, &[443]), SharingTerms::Unknown, Some("nothing is known yet")),
        ];
        for (ours, theirs, expected) in table {
            let said = ours.disagreement(&theirs, SharingScope::Namespace).map(|it| it.to_string());
            match expected {
                None => assert_eq!(said, None, "{ours:?} with {theirs:?}"),
                Some(words) => assert!(said.clone().unwrap().contains(words), "{said:?}: {words}"),
            }
        }
    }

    #[test]
    fn another_namespace_needs_the_pools_leave_and_traffic_that_any_node_serves() {
        use SharingScope::{Cluster, Namespace};
        let table = [
            (Backend::Anywhere, Namespace, Some(Disagreement::Namespace)),
            (Backend::Anywhere, Cluster, None),
            (local("a"), Namespace, Some(Disagreement::Namespace)),
            (local("a"), Cluster, Some(Disagreement::Namespace)),
        ];
        for (backend, scope, expected) in table {
            let theirs = shared_in("a", "k", backend.clone(), &[80]);
            let ours = shared_in("b", "k", backend, &[443]);
            assert_eq!(ours.disagreement(&theirs, scope), expected, "{scope:?}");
        }
    }

    #[test]
    fn of_another_namespace_nothing_is_told() {
        for why in [
            Disagreement::Key,
            Disagreement::TheyAreAlone,
            Disagreement::Namespace,
            Disagreement::Port(Port { protocol: Protocol::Tcp, number: 443 }),
        ] {
            let clash = Clash { with: "a/secret".into(), why, is_elsewhere: true };
            assert_eq!(clash.to_string(), "a Service of another namespace has it");
        }
    }
}
