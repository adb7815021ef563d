//! What the engine is told.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arpeggio_api::{endpoints::ServiceName, lock::LockRecord, session::SessionRecord};
use arpeggio_election::{Backends, Event, Node, Version};
use arpeggio_link::interfaces::Links;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something that only the elector wants to know.
    Election(Event),
    /// A session record.
    Session(SessionRecord),
    /// A lock record.
    Lock(Box<LockRecord>),
    /// The lock of this address has this format, which only a newer release understands.
    NewerLock(IpAddr, String),
    /// The API server refuses to write a lock, and will until somebody mends the cause.
    LockRefused {
        /// The lock's address.
        address: IpAddr,
        /// The API server's words.
        why: String,
    },
    /// A session record no longer exists. With a version: as for locks.
    SessionGone(Node, Option<Version>),
    /// A lock record no longer exists. With a version: one of this version or an earlier one does not; whoever has learnt
    /// of a later one meanwhile knows better.
    LockGone(IpAddr, Option<Version>),
    /// The backends of Services have changed. The first of these comes when all have been listed.
    Backends(BTreeMap<ServiceName, Backends>),
    /// The API server does not show where backends are.
    NoBackends,
    /// What Kubernetes says of nodes has changed. The first of these comes when all have been listed.
    Nodes(Vec<Event>),
    /// The interfaces have changed.
    Links(Arc<Links>),
    /// The process ends.
    Stop,
}
