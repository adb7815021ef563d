//! On which terms Services share an address.

use alloc::collections::BTreeSet;
use arpeggio_labels::Labels;
use core::fmt;

use crate::names::{Owner, SharingKey};

/// On which terms a Service shares its address: with those that have the same key and backend, and other ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is in use by {with}, {why}")]
pub struct Clash {
    /// The other owner.
    pub with: Owner,
    /// How the terms differ.
    pub why: Disagreement,
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
    #[error("whose sharing key is \"{0}\": give both the same")]
    Key(SharingKey),
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
}

impl SharingTerms {
    /// How these, of a newcomer, differ from those of somebody who is there already.
    pub(crate) fn disagreement(&self, theirs: &Self) -> Option<Disagreement> {
        match (self, theirs) {
            (Self::Unknown, _) | (_, Self::Unknown) => Some(Disagreement::Unknown),
            (_, Self::Alone) => Some(Disagreement::TheyAreAlone),
            (Self::Alone, _) => Some(Disagreement::WeAreAlone),
            (Self::Shared(ours), Self::Shared(theirs)) => ours.disagreement(theirs),
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
    fn disagreement(&self, theirs: &Self) -> Option<Disagreement> {
        if self.key != theirs.key {
            return Some(Disagreement::Key(theirs.key.clone()));
        }
        if self.backend != theirs.backend || self.backend.is_private() {
            return Some(Disagreement::Backend);
        }
        self.ports.intersection(&theirs.ports).next().map(|port| Disagreement::Port(*port))
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
        let port = |number: &u16| Port { protocol: Protocol::Tcp, number: *number };
        let ports = ports.iter().map(port).collect();
        SharingTerms::Shared(Sharing { key: key.into(), backend, ports })
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
            (shared("j", Anywhere, &[443]), with(), Some("sharing key is \"k\"")),
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
            let said = ours.disagreement(&theirs).map(|it| it.to_string());
            match expected {
                None => assert_eq!(said, None, "{ours:?} with {theirs:?}"),
                Some(words) => assert!(said.clone().unwrap().contains(words), "{said:?}: {words}"),
            }
        }
    }
}
