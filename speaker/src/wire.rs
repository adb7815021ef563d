//! What the engine reaches its segments by: the kernel's sockets, or a simulation's.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use arpeggio_link::{groups::GroupError, interfaces::Interface, packet::SocketError};

use crate::{
    listener::Listener,
    protocol::{Arp, Ndp, Protocol},
};

/// Opens the ways to segments.
pub(crate) trait Wire: Debug + Send + Sync {
    /// Has `listener` hear ARP on an interface; nothing is let in yet.
    fn arp(
        &self,
        interface: &Interface,
        listener: Listener<Arp>,
    ) -> Result<Box<dyn Ear<Arp>>, SocketError>;

    /// The same for NDP.
    fn ndp(
        &self,
        interface: &Interface,
        listener: Listener<Ndp>,
    ) -> Result<Box<dyn Ear<Ndp>>, SocketError>;
}

/// One way to a segment by one protocol. Dropping it ends it.
pub(crate) trait Ear<P: Protocol>: Debug + Send {
    /// Lets in what passes `filter`, and perhaps more.
    fn let_in(&self, filter: &P::Filter) -> Result<(), SocketError>;

    /// Joins the groups that questions for `addresses` are sent to; `false` when some are left for the next call.
    fn join(
        &mut self,
        addresses: &BTreeSet<P::Address>,
        limit: Duration,
    ) -> Result<bool, GroupError>;

    /// Leaves all groups but those of `addresses`.
    fn leave_all_but(&mut self, addresses: &BTreeSet<P::Address>);

    /// Sends a frame, and never waits.
    fn send(&self, frame: &[u8]) -> Result<(), SocketError>;

    /// Whether frames have come that the listener has not told of yet.
    fn has_backlog(&self) -> bool;

    /// Whether the interface is gone. Another one may have got its index since.
    fn has_ended(&self) -> bool;

    /// Whether the kernel hands over no frames, though the interface is up. That can pass.
    fn is_deaf(&self) -> bool;
}
