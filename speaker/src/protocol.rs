//! What ARP and NDP have in common for whoever answers.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
};

use arpeggio_link::{
    filter::{ArpFilter, FrameFilter, NdpFilter},
    groups::{GroupError, SolicitedNodes},
    interfaces::Family,
};
use arpeggio_wire::{
    ArpFrame, ArpOperation, Claim, MIN_FRAME_LEN, MacAddr, NdpBytes, NdpFrame, NdpMessage, Question,
};

/// By which neighbours find one address family.
pub(crate) trait Protocol: Debug + 'static {
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
    type Filter: FrameFilter + Debug + Default + Send + Sync;
    /// What makes the segment deliver questions.
    type Groups: Groups<Self::Address>;

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
    fn join(&mut self, addresses: &BTreeSet<Address>) -> Result<(), GroupError>;
    /// Leaves what is not needed for them.
    fn leave_all_but(&mut self, addresses: &BTreeSet<Address>);
}

/// IPv4.
#[derive(Debug)]
pub(crate) struct Arp;

impl Protocol for Arp {
    const LABEL: &'static str = "arp";
    const FAMILY: Family = Family::V4;
    type Address = Ipv4Addr;
    type Frame = ArpFrame;
    type Bytes = ArpBytes;
    type Filter = ArpFilter;
    type Groups = Broadcast;

    fn address(address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn parse(bytes: &[u8]) -> Result<ArpFrame, &'static str> {
        ArpFrame::parse(bytes).map_err(arpeggio_wire::ArpError::label)
    }

    fn question(frame: &ArpFrame) -> Option<Question<Ipv4Addr>> {
        frame.question()
    }

    fn claim(frame: &ArpFrame) -> Option<Claim<Ipv4Addr>> {
        frame.claim()
    }

    fn is_reply(frame: &ArpFrame) -> bool {
        frame.operation == ArpOperation::Reply
    }

    fn ask(question: Question<Ipv4Addr>, to: Option<MacAddr>) -> ArpBytes {
        let frame = to.map_or_else(|| question.broadcast(), |mac| question.unicast(mac));
        ArpBytes(frame.to_bytes())
    }

    fn answer(question: Question<Ipv4Addr>, mac: MacAddr) -> ArpBytes {
        ArpBytes(question.answer(mac).to_bytes())
    }

    fn announcements(claim: Claim<Ipv4Addr>) -> Vec<ArpBytes> {
        let operations = [ArpOperation::Request, ArpOperation::Reply];
        operations.map(|operation| ArpBytes(claim.announcement(operation).to_bytes())).into()
    }

    fn filter(ours: BTreeSet<Ipv4Addr>, peers: BTreeSet<Ipv4Addr>) -> ArpFilter {
        ArpFilter { ours, peers }
    }
}

/// An ARP frame on the wire.
#[derive(Debug)]
pub(crate) struct ArpBytes([u8; MIN_FRAME_LEN]);

impl Deref for ArpBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// ARP asks by broadcast, which reaches everybody anyway.
#[derive(Debug)]
pub(crate) struct Broadcast;

impl Groups<Ipv4Addr> for Broadcast {
    fn new(_: u32) -> Self {
        Self
    }

    fn join(&mut self, _: &BTreeSet<Ipv4Addr>) -> Result<(), GroupError> {
        Ok(())
    }

    fn leave_all_but(&mut self, _: &BTreeSet<Ipv4Addr>) {}
}

/// IPv6.
#[derive(Debug)]
pub(crate) struct Ndp;

impl Protocol for Ndp {
    const LABEL: &'static str = "ndp";
    const FAMILY: Family = Family::V6;
    type Address = Ipv6Addr;
    type Frame = NdpFrame;
    type Bytes = NdpBytes;
    type Filter = NdpFilter;
    type Groups = SolicitedNodes;

    fn address(address: IpAddr) -> Option<Ipv6Addr> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn parse(bytes: &[u8]) -> Result<NdpFrame, &'static str> {
        NdpFrame::parse(bytes).map_err(arpeggio_wire::NdpError::label)
    }

    fn question(frame: &NdpFrame) -> Option<Question<Ipv6Addr>> {
        frame.question()
    }

    fn claim(frame: &NdpFrame) -> Option<Claim<Ipv6Addr>> {
        frame.claim()
    }

    fn is_reply(frame: &NdpFrame) -> bool {
        matches!(frame.message, NdpMessage::Advertisement { solicited: true, .. })
    }

    fn ask(question: Question<Ipv6Addr>, to: Option<MacAddr>) -> NdpBytes {
        to.map_or_else(|| question.multicast(), |mac| question.unicast(mac)).to_bytes()
    }

    fn answer(question: Question<Ipv6Addr>, mac: MacAddr) -> NdpBytes {
        question.answer(mac).to_bytes()
    }

    fn announcements(claim: Claim<Ipv6Addr>) -> Vec<NdpBytes> {
        vec![claim.advertisement().to_bytes()]
    }

    fn filter(ours: BTreeSet<Ipv6Addr>, peers: BTreeSet<Ipv6Addr>) -> NdpFilter {
        NdpFilter { ours, peers }
    }
}

impl Groups<Ipv6Addr> for SolicitedNodes {
    fn new(interface: u32) -> Self {
        Self::new(interface)
    }

    fn join(&mut self, addresses: &BTreeSet<Ipv6Addr>) -> Result<(), GroupError> {
        self.join(addresses)
    }

    fn leave_all_but(&mut self, addresses: &BTreeSet<Ipv6Addr>) {
        self.leave_all_but(addresses);
    }
}
