//! Questions on the wire: to whom, for what, how often, and what follows from an answer or from silence.
//!
//! | question | to | how often | an answer | silence |
//! |---|---|---|---|---|
//! | [`Question::Node`], [`Question::NodeAnywhere`] | a node, for its own address; the last time everybody, and for some that it announces | by the node's [`Profile`], for ever | the node lives | after so many misses it is silent, if others are heard on the same interface: it is accused |
//! | [`Question::Speaker`] | a node, for an address that it holds | each [`Settings::speaker_probe`], for ever | its speaker lives | for [`Settings::speaker_patience`], while the node answers: it is accused |
//! | [`Question::Others`] | everybody, for the default gateways, and some nodes on the interfaces in question | with a question that somebody has missed, and with a search | this node hears somebody on that interface | says nothing |
//! | [`Purpose::FirstUse`] | everybody | three times | the machine has the address: quarantine | the lock is taken |
//! | [`Purpose::Recheck`] | everybody | three times, each [`Settings::recheck`] | the quarantine stays | the lock is taken |
//! | [`Purpose::StandIn`] | everybody | three times | a fellow announces it: asked again later | it is announced from here, if anybody was heard meanwhile on the same interface |
//! | [`Purpose::Trial`] | everybody, for addresses that nobody has | three times | the machine may answer for others as well: then it keeps nobody from standing in | the machine has what it answers for |
//! | [`Purpose::Claim`] | everybody | for as long as it is announced without a lock | a fellow announces it, too: this node gives way | says nothing |
//! | [`Purpose::Reunion`] | everybody | once, when a node is heard again without the API server | a fellow announces it, too: one of both gives way | says nothing |
//! | [`Purpose::Contest`] | everybody | each minute, while a machine that is no node was heard to claim what is announced here | the machine claims it still | for five minutes: it does not any more |
//! | [`Purpose::Successor`] | everybody | each second until the successor is heard | the successor announces it: this node stops | it is believed after two sessions' time |
//! | the speaker's own, on each interface (`speaker/src/hearing.rs`) | up to three others that are there, for their own addresses; up to sixteen while these are silent | when nobody was heard there for a second; then four times a second, once a second when the interface is cut off | the interface hears somebody | after four times, if one of the others has said since that it hears somebody there: the interface is cut off |
//!
//! The first two are asked of a [`Peer`], whose history of answers says what its silence means. The last one knows no elector. The others
//! are a [`Search`].
//!
//! Where answers may have been lost here ([`Event::AnswersLost`](crate::Event::AnswersLost)), silence says nothing of a peer, and a
//! search that asks three times begins anew, for ten seconds at most.

use alloc::{collections::BTreeSet, string::String};
use core::{net::IpAddr, time::Duration};

use crate::{model::Node, settings::Settings};

mod peer;
mod search;

pub(crate) use peer::{Pace, Peer};
pub(crate) use search::{Search, Step};

#[cfg(doc)]
use crate::settings::Profile;

/// How often everybody is asked for an address until silence means that nobody has it.
const QUESTIONS: u32 = 3;

/// How long a successor's first announcement is waited for before it is asked for, and again after each question. Its
/// watch and its first frame take some ten milliseconds.
const SUCCESSOR_PAUSE: Duration = Duration::from_secs(1);

/// How often a machine is asked whether it has what this node announces. It tells nobody else when it answers a client.
const CONTEST_PAUSE: Duration = Duration::from_mins(1);

/// The pause after each question of a stand-in, where nothing is asked before the first use.
const STAND_IN_PAUSE: Duration = Duration::from_millis(70);

/// A question on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// For a node's own address, by unicast. Its answer is [`Event::NodeAnswered`](crate::Event::NodeAnswered).
    Node(Node),
    /// For a node's own address, by unicast and by broadcast: its silence is about to count, and its MAC address may be
    /// another one than its session says.
    NodeAnywhere(Node),
    /// To a node's speaker, by unicast, for an address that the node holds. Its answer is
    /// [`Event::Heard`](crate::Event::Heard).
    Speaker {
        /// The node.
        node: Node,
        /// The address.
        address: IpAddr,
    },
    /// For the default gateways, and to some nodes on these interfaces: whether this node hears anybody there. The answers are
    /// [`Event::GatewayAnswered`](crate::Event::GatewayAnswered) and [`Event::HeardOn`](crate::Event::HeardOn).
    Others {
        /// The names of the interfaces.
        on: BTreeSet<String>,
    },
    /// To everybody: who has this address? An answer is [`Event::Heard`](crate::Event::Heard) or
    /// [`Event::Occupied`](crate::Event::Occupied).
    Address {
        /// The address.
        address: IpAddr,
        /// What for.
        purpose: Purpose,
    },
}

/// What everybody is asked for an address for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Nobody of us has announced it yet: somebody else may have it. Asked without a name, so that whoever has it loses
    /// nothing.
    FirstUse,
    /// Somebody else had it when it was last asked for.
    Recheck,
    /// Its holder is silent, and no lock can be taken.
    StandIn,
    /// Nobody has it, as far as is known: whoever answers for several of such answers for what others have.
    Trial,
    /// It is announced from here without a lock.
    Claim,
    /// A machine that is no node has claimed it, too: does it still?
    Contest,
    /// Others may have announced it while they could not be heard.
    Reunion,
    /// It was given away, and is announced until the successor does.
    Successor,
}

impl Purpose {
    /// How many questions must have been without an answer for silence to mean something; `None`: however many.
    const fn questions(self) -> Option<u32> {
        match self {
            Self::FirstUse | Self::Recheck | Self::StandIn | Self::Trial => Some(QUESTIONS),
            Self::Claim | Self::Contest | Self::Reunion | Self::Successor => None,
        }
    }

    /// Whether something follows when nobody answers: then a question that has not left must not count.
    pub const fn silence_counts(self) -> bool {
        self.questions().is_some()
    }

    /// The pause after each question.
    fn pause(self, settings: &Settings) -> Duration {
        match self {
            // Whoever needs no proof that an address is new must still hear of others who stand in.
            Self::StandIn | Self::Trial if settings.first_probe.is_zero() => STAND_IN_PAUSE,
            Self::FirstUse | Self::Recheck | Self::StandIn | Self::Trial => settings.first_probe,
            Self::Claim | Self::Reunion => settings.retry * 2,
            Self::Contest => CONTEST_PAUSE,
            Self::Successor => SUCCESSOR_PAUSE,
        }
    }
}
