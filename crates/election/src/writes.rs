//! Writes under way, so that none is sent twice, and failed ones, so that they are not repeated at once.

use alloc::collections::{BTreeMap, BTreeSet};
use core::{fmt, net::IpAddr, time::Duration};

use crate::{
    eligibility::{Merit, Standing, Unfit},
    model::{Claimant, EndReason, Epoch, Lock, Node, Timestamp, Version},
    settings::Settings,
};

/// One request to the API server. Every write but the first of a session carries the version that the record must
/// still have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// Start a new session of this node: live, with this epoch. `None`: create the record.
    Start {
        /// The new session's epoch.
        epoch: Epoch,
        /// The version of the ended session's record.
        expected: Option<Version>,
        /// How long it counts after this write.
        lasts: Duration,
        /// What [`Session::hears`](crate::Session::hears) is to say.
        hears: BTreeSet<Node>,
    },
    /// Renew this node's session, which also clears an accusation.
    Renew {
        /// The session that is renewed.
        epoch: Epoch,
        /// The version that it must have.
        expected: Version,
        /// How long it counts after this write.
        lasts: Duration,
        /// What [`Session::hears`](crate::Session::hears) is to say.
        hears: BTreeSet<Node>,
    },
    /// Accuse a node of silence.
    Accuse {
        /// Whose session.
        node: Node,
        /// The version that it must have.
        expected: Version,
    },
    /// End a node's session.
    End {
        /// Whose session.
        node: Node,
        /// The version that it must have.
        expected: Version,
        /// Why.
        reason: EndReason,
    },
    /// Change a lock.
    Lock {
        /// The lock's address.
        address: IpAddr,
        /// The version that it must have.
        expected: Version,
        /// What changes.
        change: LockChange,
    },
    /// Read a lock, past every cache.
    Read {
        /// The lock's address.
        address: IpAddr,
    },
}

/// A change of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LockChange {
    /// Take a lock for this node.
    Take {
        /// The session that the lock is bound to.
        epoch: Epoch,
        /// Why it may be taken.
        reason: TakeReason,
    },
    /// Give a lock of this node to another one.
    Give {
        /// Who gets it.
        to: Node,
        /// The session that the lock is bound to.
        epoch: Epoch,
        /// Why it is given away.
        reason: GiveReason,
    },
    /// Take back a request to give a lock of this node to another one, since that cannot be.
    Refuse {
        /// Who should have got it.
        to: Node,
        /// Why it does not.
        reason: Refusal,
    },
    /// Write on a lock of this node what people are to know: whether its address is announced, who would take the holder for
    /// somebody who announces, and who goes on claiming it.
    Note {
        /// Whether it is announced: not while no node has a backend for it.
        announced: bool,
        /// Who goes on claiming it, though it does not hold it.
        disputed_by: Option<Claimant>,
    },
    /// Write on a lock that nobody has held yet that a stranger answers at its address.
    Quarantine {
        /// The stranger's MAC address.
        stranger: [u8; 6],
    },
}

/// Why a lock may be taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TakeReason {
    /// Nobody has held it yet.
    New,
    /// It was this node's own under an earlier session.
    Ours,
    /// The holder's session is over.
    Over {
        /// The holder.
        holder: Node,
        /// Why its session was ended; `None` when the record is gone or a new session has begun.
        reason: Option<EndReason>,
    },
}

impl TakeReason {
    /// The word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Ours => "Ours",
            Self::Over { reason: Some(reason), .. } => reason.as_str(),
            Self::Over { reason: None, .. } => "SessionGone",
        }
    }
}

impl fmt::Display for TakeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("newly allocated"),
            Self::Ours => f.write_str("taken back under a new session"),
            Self::Over { holder, reason: Some(reason) } => {
                write!(f, "taken over from {holder}: {reason}")
            }
            Self::Over { holder, reason: None } => {
                write!(f, "taken over from {holder}: its session is gone")
            }
        }
    }
}

/// Why a lock is given to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum GiveReason {
    /// This node may not announce the address any more.
    #[error("{0}")]
    Unfit(Unfit),
    /// The node is being emptied.
    #[error("the node is cordoned")]
    Cordoned,
    /// The traffic may not leave the node, and its last backend ends.
    #[error("the last backend on the node is terminating")]
    BackendsEnd,
    /// Another node is in the subnet of the address.
    #[error("another node is in the subnet of the address")]
    Elsewhere,
    /// Somebody has asked for it on the lock.
    #[error("the move was requested")]
    Requested,
}

impl GiveReason {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unfit(unfit) => unfit.as_str(),
            Self::Cordoned => "Cordoned",
            Self::BackendsEnd => "BackendsEnd",
            Self::Elsewhere => "Elsewhere",
            Self::Requested => "Requested",
        }
    }

    /// Whether pods that come and go are why.
    pub(crate) const fn is_by_backends(self) -> bool {
        matches!(self, Self::BackendsEnd | Self::Unfit(Unfit::NoBackend))
    }

    /// Why a node with this merit gives an address away, if it does.
    pub(crate) fn of(merit: Result<Merit, Unfit>) -> Option<Self> {
        match merit {
            // Whoever gave it the address knew the labels. That Kubernetes does not hear of a node is no reason to move what it
            // announces: its speaker lives.
            Err(Unfit::LabelsUnknown)
            | Ok(Merit { standing: Standing::Good | Standing::NotReady, .. }) => None,
            Err(unfit) => Some(Self::Unfit(unfit)),
            Ok(Merit { standing: Standing::Cordoned, .. }) => Some(Self::Cordoned),
            Ok(Merit { standing: Standing::Ending, .. }) => Some(Self::BackendsEnd),
            Ok(Merit { standing: Standing::Elsewhere, .. }) => Some(Self::Elsewhere),
        }
    }
}

/// Why a lock is not given to the node that somebody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// It has it.
    #[error("the address is announced there already")]
    AlreadyThere,
    /// Nobody there would take it up.
    #[error("the node's session does not count, or the node does not answer on the wire")]
    NotAlive,
    /// It may not announce the address.
    #[error("{0}")]
    Unfit(Unfit),
    /// It may announce the address, but its holder would rather not be replaced by it.
    #[error("the node {0}")]
    Worse(Standing),
}

/// What a write is about. At most one write about one thing is under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// This node's own session.
    OwnSession,
    /// Another node's session.
    Session(Node),
    /// The lock of an address.
    Lock(IpAddr),
}

impl Write {
    /// A change of a lock, as it is known.
    pub fn on(lock: &Lock, change: LockChange) -> Self {
        Self::Lock { address: lock.address, expected: lock.version, change }
    }

    /// The version that the record must still have, if there is to be one.
    pub fn expected(&self) -> Option<Version> {
        match self {
            Self::Start { expected, .. } => *expected,
            Self::Renew { expected, .. }
            | Self::Accuse { expected, .. }
            | Self::End { expected, .. }
            | Self::Lock { expected, .. } => Some(*expected),
            Self::Read { .. } => None,
        }
    }

    /// What the write is about.
    pub fn target(&self) -> Target {
        match self {
            Self::Start { .. } | Self::Renew { .. } => Target::OwnSession,
            Self::Accuse { node, .. } | Self::End { node, .. } => Target::Session(node.clone()),
            Self::Lock { address, .. } | Self::Read { address } => Target::Lock(*address),
        }
    }
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The API server did it.
    Done,
    /// The record had another version, or was gone. Nothing was written.
    Conflict,
    /// The API server answers, but does not do it: a permission is missing, a quota or a policy is in the way, or it has
    /// too much to do. Nothing was written.
    Refused {
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer, or an error of the API server's own. It may have been written all the same.
    Failed,
}

/// How long a write that was refused rests at most, unless the API server asks for more.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Longest pause that the API server, or what stands before it, is given when it asks for one.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// So many times in a row it is tried again as soon as after a failure: an API server that has just started knows no
/// permissions for a second.
const QUICK_TRIES: u32 = 4;

/// Why a write waits.
#[derive(Debug, Clone, Copy, Hash)]
struct Rest {
    until: Timestamp,
    /// How often it was refused in a row.
    refusals: u32,
}

/// The writes under way and the ones that rest after a failure.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Writes {
    under_way: BTreeMap<Target, Timestamp>,
    resting: BTreeMap<Target, Rest>,
}

impl Writes {
    /// Whether a write about `target` may be sent now.
    pub(crate) fn free(&self, target: &Target, now: Timestamp) -> bool {
        !self.under_way.contains_key(target)
            && self.resting.get(target).is_none_or(|rest| rest.until <= now)
    }

    pub(crate) fn sent(&mut self, target: Target, now: Timestamp) {
        self.under_way.insert(target, now);
    }

    /// Ends a write; returns when it was sent.
    pub(crate) fn ended(
        &mut self,
        target: &Target,
        outcome: Outcome,
        now: Timestamp,
        settings: &Settings,
    ) -> Option<Timestamp> {
        match outcome {
            Outcome::Done | Outcome::Conflict => _ = self.resting.remove(target),
            Outcome::Failed => {
                let rest = Rest { until: now + settings.retry, refusals: 0 };
                self.resting.insert(target.clone(), rest);
            }
            Outcome::Refused { retry_after } => self.refused(target, retry_after, now, settings),
        }
        self.under_way.remove(target)
    }

    /// Each further refusal makes the rest longer: it takes a person to mend its cause. But a session is renewed as often
    /// as ever, or it would be lost for a moment's trouble, whatever pause is asked for.
    fn refused(
        &mut self,
        target: &Target,
        retry_after: Option<Duration>,
        now: Timestamp,
        settings: &Settings,
    ) {
        let before = self.resting.get(target).map_or(0, |rest| rest.refusals);
        let (longest, longest_asked) = match target {
            Target::OwnSession => (settings.renewal, settings.renewal),
            Target::Session(_) | Target::Lock(_) => (LONGEST_REST, LONGEST_ASKED),
        };
        let doublings = before.saturating_sub(QUICK_TRIES - 1).min(16);
        let doubled = settings.retry.saturating_mul(2_u32.saturating_pow(doublings));
        let asked = retry_after.unwrap_or_default().min(longest_asked);
        let rest = doubled.min(longest).max(asked);
        let rest = Rest { until: now + rest, refusals: before.saturating_add(1) };
        self.resting.insert(target.clone(), rest);
    }

    /// Whether a write about a session has been waiting for its answer for longer than `longest`.
    pub(crate) fn overdue(&self, now: Timestamp, longest: Duration) -> bool {
        let of_session = |target: &Target| !matches!(target, Target::Lock(_));
        let late = |sent: Timestamp| now.since(sent) > longest;
        self.under_way.iter().any(|(target, sent)| of_session(target) && late(*sent))
    }

    /// Forgets the rests that are long over, so that gone addresses leave nothing behind.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        self.resting.retain(|_, rest| match rest.refusals {
            0 => rest.until > now,
            _ => rest.until + LONGEST_REST > now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Target = Target::Lock(IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 0, 240)));

    /// After how many milliseconds `target` is tried again, with an outcome after each try.
    fn rests(target: &Target, outcomes: &[Outcome]) -> alloc::vec::Vec<u64> {
        let (settings, mut writes, mut now) = (Settings::default(), Writes::default(), 0);
        let at = |millis| Timestamp::from_origin(Duration::from_millis(millis));
        let mut rests = alloc::vec::Vec::new();
        for outcome in outcomes {
            writes.sent(target.clone(), at(now));
            writes.ended(target, *outcome, at(now), &settings);
            let free = (now..).step_by(250).find(|it| {
                writes.prune(at(*it));
                writes.free(target, at(*it))
            });
            let free = free.unwrap_or_default();
            rests.push(free - now);
            now = free;
        }
        rests
    }

    #[test]
    fn what_is_refused_again_and_again_is_tried_less_and_less_often() {
        let refused = Outcome::Refused { retry_after: None };
        let patient = Outcome::Refused { retry_after: Some(Duration::from_secs(40)) };
        let outcomes = [refused; 8];
        assert_eq!(rests(&ADDRESS, &outcomes), [500, 500, 500, 500, 1000, 2000, 4000, 8000]);
        let own = [500, 500, 500, 500, 1000, 2000, 3000, 3000];
        assert_eq!(rests(&Target::OwnSession, &outcomes), own);
        assert_eq!(rests(&ADDRESS, &[patient]), [40_000]);
        assert_eq!(rests(&Target::OwnSession, &[patient]), [3_000], "before the session ends");
        let for_ever = Outcome::Refused { retry_after: Some(Duration::from_secs(u64::MAX)) };
        assert_eq!(rests(&ADDRESS, &[for_ever]), [60_000]);
        let mixed = [refused, refused, Outcome::Failed, Outcome::Done, refused];
        assert_eq!(rests(&ADDRESS, &mixed), [500, 500, 500, 0, 500]);
    }
}
