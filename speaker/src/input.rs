//! What the engine is told.

use std::{net::IpAddr, sync::Arc};

use arpeggio_api::{lock::LockRecord, session::SessionRecord};
use arpeggio_election::Event;
use arpeggio_link::interfaces::Links;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something that only the elector wants to know.
    Election(Event),
    /// A session record.
    Session(SessionRecord),
    /// A lock record.
    Lock(LockRecord),
    /// A lock record no longer exists.
    LockGone(IpAddr),
    /// The interfaces have changed.
    Links(Arc<Links>),
    /// The process ends.
    Stop,
}
