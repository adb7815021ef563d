//! IPv6: neighbour discovery.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use arpeggio_link::{
    filter::NdpFilter,
    groups::{GroupError, SolicitedNodes},
    interfaces::{Family, Interface},
    packet::SocketError,
};
use arpeggio_wire::{Claim, MacAddr, NdpBytes, NdpError, NdpFrame, NdpMessage, Question};

use super::{Groups, Protocol};
use crate::{
    listener::Listener,
    wire::{Ear, Wire},
};

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

    fn open(
        wire: &dyn Wire,
        interface: &Interface,
        listener: Listener<Self>,
    ) -> Result<Box<dyn Ear<Self>>, SocketError> {
        wire.ndp(interface, listener)
    }

    fn address(address: IpAddr) -> Option<Ipv6Addr> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn parse(bytes: &[u8]) -> Result<NdpFrame, &'static str> {
        NdpFrame::parse(bytes).map_err(NdpError::label)
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

    fn join(
        &mut self,
        addresses: &BTreeSet<Ipv6Addr>,
        limit: Duration,
    ) -> Result<bool, GroupError> {
        self.join(addresses, limit)
    }

    fn leave_all_but(&mut self, addresses: &BTreeSet<Ipv6Addr>) {
        self.leave_all_but(addresses);
    }
}
