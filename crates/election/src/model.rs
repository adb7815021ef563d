//! The records that speakers share, and the words for them.

use alloc::{collections::BTreeSet, sync::Arc};
use core::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    ops::{Add, Sub},
    time::Duration,
};

use crate::{reach::Reach, terms::AnnounceTerms};

/// A node's name, as in `Node.metadata.name`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(Arc<str>);

impl Node {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Node {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point in time, as the time since an arbitrary but fixed origin. It never steps back and counts suspended time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The point `elapsed` after the origin.
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since the origin.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Timestamp) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// As one number, so that a hasher can tell times from everything else that it is fed.
impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.0.as_nanos());
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(span))
    }
}

/// The version of a record: grows with every write. Kubernetes' `resourceVersion`, which is an integer that can be
/// compared within one resource type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// Tells the renewals of one record apart. Only who renews it changes this, and does so each time: whatever else is written on
/// the record, by whomever, leaves it. Kubernetes' `spec.renewTime` in microseconds, which is compared for equality and with no
/// clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Renewal(pub i64);

/// Tells the sessions of one node apart. A session that was ended never comes back; the node starts one with a higher
/// epoch. A restarted speaker *resumes* its node's session, and keeps the epoch, as long as nobody has ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A node's proof of life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// Whose it is.
    pub node: Node,
    /// Which session of this node it is.
    pub epoch: Epoch,
    /// Whether it counts.
    pub state: SessionState,
    /// The interfaces that the node can announce on, as far as it has said.
    pub reach: Option<Reach>,
    /// The nodes that it watches and hears on the wire: whose silence it could confirm. `None`: it does not say.
    pub hears: Option<BTreeSet<Node>>,
    /// How long it counts after a renewal, as its own speaker has written it. Who judges it goes by that, and by its own
    /// settings only when nothing is said.
    pub lasts: Option<Duration>,
    /// Its last renewal. `None`: it does not say, and each change counts as one.
    pub renewal: Option<Renewal>,
    /// The record's version.
    pub version: Version,
}

impl Session {
    /// A session that counts, and says nothing else.
    pub fn live(node: Node, epoch: Epoch, version: Version) -> Self {
        Self {
            node,
            epoch,
            state: SessionState::Live { accused_by: None },
            reach: None,
            hears: None,
            lasts: None,
            renewal: None,
            version,
        }
    }

    /// Which of its node's renewals it shows, if it says.
    pub fn shown_renewal(&self) -> Option<(Epoch, Renewal)> {
        Some((self.epoch, self.renewal?))
    }
}

/// Whether a session counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// It counts until somebody ends it.
    Live {
        /// The deputy that no longer hears the node, and waits for the other deputy to confirm. A renewal clears it.
        accused_by: Option<Node>,
    },
    /// It is over, for good.
    Ended {
        /// Who ended it.
        by: Node,
        /// Why.
        reason: EndReason,
    },
}

/// Why a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Its deputies got no answer from the node on the wire.
    NodeSilent,
    /// The node answers them, but its speaker does not, for an address that the node holds.
    SpeakerSilent,
    /// It was not renewed in time.
    Expired,
    /// Its own speaker stops and hands over.
    Stopped,
}

impl EndReason {
    /// The word for it in records, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeSilent => "NodeSilent",
            Self::SpeakerSilent => "SpeakerSilent",
            Self::Expired => "Expired",
            Self::Stopped => "Stopped",
        }
    }

    /// The reason that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::NodeSilent, Self::SpeakerSilent, Self::Expired, Self::Stopped];
        all.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeSilent => "silent on the wire",
            Self::SpeakerSilent => "its speaker is silent on the wire",
            Self::Expired => "session expired",
            Self::Stopped => "its speaker stopped",
        })
    }
}

/// Who goes on claiming an address that it does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Claimant {
    /// Another node.
    Node(Node),
    /// A machine that is no node, by its MAC address.
    Stranger([u8; 6]),
}

/// The record of who announces one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The address.
    pub address: IpAddr,
    /// Who holds it; nobody when it was just allocated.
    pub holder: Option<Holder>,
    /// The first of the Services that are reached at it, by its uid or whatever else tells it from others. Addresses of
    /// one Service are kept together; one without is on its own.
    pub service: Option<Arc<str>>,
    /// Where it may be announced.
    pub terms: AnnounceTerms,
    /// The MAC address of the stranger who answered when the address was last asked for before its first use.
    pub stranger: Option<[u8; 6]>,
    /// The node that somebody asks the holder to give it to.
    pub move_to: Option<Node>,
    /// Its holder does not announce it, since no node has a backend for it.
    pub unannounced: bool,
    /// Who goes on claiming the address, by what the holder has found, though it does not hold it.
    pub disputed_by: Option<Claimant>,
    /// The record's version.
    pub version: Version,
}

impl Lock {
    /// Whether what it says of who claims the address outlives its holder: a machine that is no node claims it whoever holds it.
    pub fn keeps_claimant(&self) -> bool {
        matches!(self.disputed_by, Some(Claimant::Stranger(_)))
    }

    /// Whether it names `node` as its holder.
    pub(crate) fn is_of(&self, node: &Node) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.node == *node)
    }
}

/// Without the terms: the version tells them apart.
impl Hash for Lock {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            address,
            holder,
            service,
            terms: _,
            stranger,
            move_to,
            unannounced,
            disputed_by,
            version,
        } = self;
        (address, holder, service, stranger, move_to, unannounced, disputed_by, version)
            .hash(state);
    }
}

/// The holder of a lock. It counts only while exactly this session counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The node.
    pub node: Node,
    /// The session under which it took the lock.
    pub epoch: Epoch,
}
