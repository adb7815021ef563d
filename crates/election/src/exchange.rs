//! What a speaker tells its elector, and what that wants done.

use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

use crate::{
    eligibility::Backends,
    facts::NodeFacts,
    families::Families,
    model::{Lock, Node, Session, Timestamp},
    questions::Question,
    reach::Reach,
    settings::Profile,
    stranded::Stranded,
    writes::{Outcome, Write},
};

/// What is known of a machine that has an address which was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Occupant {
    /// It is a node of ours. Whether its speaker or its kernel has answered cannot be told.
    Node(Node),
    /// It is no node.
    Stranger,
    /// It is a router, which may answer for what other machines have as well (proxy ARP): what it says of one address says
    /// little.
    Router,
}

/// Something that a speaker learns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Every record has been listed once. Nothing is decided before.
    Synced,
    /// The API server has gone back to an earlier state, as after etcd was restored from a backup: it has shown a record at a
    /// lower version than before. What it shows from now on counts, whatever the versions.
    Rewound,
    /// A session record, from a watch, a list or the answer to a write.
    Session(Session),
    /// A session record no longer exists.
    SessionGone(Node),
    /// A lock record, from a watch, a list or the answer to a write.
    Lock(Lock),
    /// A lock record no longer exists.
    LockGone(IpAddr),
    /// A node answered a probe on the wire, on the interface where it is asked ([`Event::AskedOn`]).
    NodeAnswered(Node),
    /// A machine whose MAC address is nobody's answered a probe for an address of a node. It may be the node, with a new MAC address:
    /// that counts as its answer, until the machine is found to answer for others as well.
    AnsweredAs {
        /// The node.
        node: Node,
        /// Its address.
        address: IpAddr,
        /// The machine's MAC address.
        mac: [u8; 6],
    },
    /// How a node is asked on the wire from now on, if not as everybody: what is known of the way to it says so.
    Profile {
        /// The node.
        node: Node,
        /// `None`: as everybody ([`Settings::profile`](crate::Settings::profile)).
        profile: Option<Profile>,
    },
    /// On which of this node's interfaces a node is asked from now on.
    AskedOn {
        /// The node.
        node: Node,
        /// The name of the interface.
        interface: String,
    },
    /// A node was heard on an interface, whether or not it is asked there: so would others be that answer there.
    HeardOn {
        /// The node.
        node: Node,
        /// The name of the interface.
        interface: String,
    },
    /// A default gateway answered a probe on the wire, on the interface of this name.
    GatewayAnswered(String),
    /// A fellow speaker announces an address on the wire.
    Heard {
        /// The address.
        address: IpAddr,
        /// The node that says that it is there.
        by: Node,
    },
    /// A machine that is no node claims on the wire an address that this node announces.
    Contested {
        /// The address.
        address: IpAddr,
        /// The machine's MAC address.
        mac: [u8; 6],
    },
    /// What Kubernetes says of a node.
    Node {
        /// The node.
        node: Node,
        /// What is said.
        facts: NodeFacts,
    },
    /// A Node object no longer exists.
    NodeGone(Node),
    /// Where the backends of an address are.
    Backends {
        /// The address.
        address: IpAddr,
        /// `None`: its traffic may leave the node that announces it.
        backends: Option<Backends>,
    },
    /// The traffic of an address must not leave the node that announces it, and where its backends are is not known yet:
    /// what is announced stays so, and nothing is taken.
    BackendsUnknown(IpAddr),
    /// What this node can reach now. Its session is renewed at once when it says something else.
    Reach(Reach),
    /// This node's session says of it what is not so any more, apart from its reach: its MAC addresses, say. It is renewed
    /// at once.
    Outdated,
    /// This node's interface of this name can announce addresses of these families again after it could not, for however short
    /// a time: it hears its segment again, say. What [`Event::Reach`] says is fed before.
    CarrierReturned(String, Families),
    /// A machine has an address that was asked for ([`Question::Address`]): it answers on the wire, or it is this node,
    /// whose kernel has it.
    Occupied {
        /// The address.
        address: IpAddr,
        /// The machine's MAC address.
        mac: [u8; 6],
        /// What is known of the machine.
        by: Occupant,
    },
    /// A machine that is no node, as far as is known, asks whether it may have an address that was asked for. It may be a
    /// node whose first session has not been seen here yet.
    Wanted {
        /// The address.
        address: IpAddr,
        /// The machine's MAC address.
        mac: [u8; 6],
    },
    /// Frames have come that nobody has looked at yet, since this process is busy: who seems to be silent may have
    /// answered.
    Backlog,
    /// Frames have come for which there was no room, answers to this node's questions perhaps among them: that somebody
    /// has not answered says nothing.
    AnswersLost,
    /// The question that [`Question::Node`] or [`Question::NodeAnywhere`] says could not be sent: that the node
    /// does not answer it says nothing.
    Unasked(Node),
    /// The speaker of a node was not asked for an address after all: this node hears nobody where the answer would come.
    SpeakerUnasked(Node, IpAddr),
    /// The process is asked to stop, and there is no second one on this node: hand everything over. Done when
    /// [`Elector::announcing`](crate::Elector::announcing) is empty.
    Stopping,
    /// A write has ended. The record that resulted, or that was in its way, is fed before.
    Wrote {
        /// The write.
        write: Write,
        /// How it ended.
        outcome: Outcome,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the API server.
    Write(Write),
    /// Ask this on the wire.
    Ask(Question),
}

/// What [`Elector::decide`](crate::Elector::decide) wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be carried out now.
    pub effects: Vec<Effect>,
    /// The addresses that are to be announced from now on, and were not before; and those of which another node may have told the
    /// segment meanwhile, since it had their lock. The segment is to be told of them.
    pub gained: Vec<IpAddr>,
    /// The addresses that no node may announce, of which this node is to tell now: each once, by one node.
    pub stranded: Vec<Stranded>,
    /// When to ask again at the latest.
    pub next: Timestamp,
}
