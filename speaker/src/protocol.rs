//! What ARP and NDP have in common for whoever answers.

mod arp;
mod ndp;

use std::{collections::BTreeSet, fmt::Debug, hash::Hash, net::IpAddr, ops::Deref, time::Duration};

use arpeggio_link::{
    filter::FrameFilter,
    groups::GroupError,
    interfaces::{Family, Interface},
    packet::SocketError,
};
use arpeggio_wire::{Claim, MacAddr, Question};

use crate::{
    listener::Listener,
    wire::{Ear, Wire},
};

pub(crate) use arp::Arp;
pub(crate) use ndp::Ndp;

/// By which neighbours find one address family.
pub(crate) trait Protocol: Debug + Sized + 'static {
    /// The metrics' `protocol` label, and a part of thread names.
    const LABEL: &'static str;
    /// Whose addresses it finds.
    const FAMILY: Family;
    /// An address of the family.
    type Address: Copy + Ord + Hash + Into<IpAddr> + Debug + Send + Sync;
    /// A typed frame.
    type Frame;
    /// A frame on the wire.
    type Bytes: Deref<Target = [u8]>;
    /// What lets frames into this process.
    type Filter: FrameFilter + Clone + Debug + Default + Send + Sync;
    /// What makes the segment deliver questions.
    type Groups: Groups<Self::Address> + Send;

    /// Has `listener` hear on an interface.
    fn open(
        wire: &dyn Wire,
        interface: &Interface,
        listener: Listener<Self>,
    ) -> Result<Box<dyn Ear<Self>>, SocketError>;
    /// The address, if it is of the family.
    fn address(address: IpAddr) -> Option<Self::Address>;
    /// Reads a frame; the error is the metrics' `reason` label.
    fn parse(bytes: &[u8]) -> Result<Self::Frame, &'static str>;
    /// What a frame asks.
    fn question(frame: &Self::Frame) -> Option<Question<Self::Address>>;
    /// What a frame says.
    fn claim(frame: &Self::Frame) -> Option<Claim<Self::Address>>;
    /// Whether it was said because somebody asked.
    fn is_reply(frame: &Self::Frame) -> bool;
    /// The question to one machine, or to everybody.
    fn ask(question: Question<Self::Address>, to: Option<MacAddr>) -> Self::Bytes;
    /// The answer "it is at `mac`".
    fn answer(question: Question<Self::Address>, mac: MacAddr) -> Self::Bytes;
    /// The frames by which everybody is told unasked.
    fn announcements(claim: Claim<Self::Address>) -> Vec<Self::Bytes>;
    /// Lets through what concerns these addresses.
    fn filter(ours: BTreeSet<Self::Address>, peers: BTreeSet<Self::Address>) -> Self::Filter;
}

/// Memberships that go with announced addresses.
pub(crate) trait Groups<Address>: Debug {
    /// None so far, on the interface with this index.
    fn new(interface: u32) -> Self;
    /// Joins what is needed for `addresses`.
    fn join(&mut self, addresses: &BTreeSet<Address>, limit: Duration) -> Result<bool, GroupError>;
    /// Leaves what is not needed for them.
    fn leave_all_but(&mut self, addresses: &BTreeSet<Address>);
}
