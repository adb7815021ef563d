//! IPv4: the address resolution protocol.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
    time::Duration,
};

use arpeggio_link::{
    filter::ArpFilter,
    groups::GroupError,
    interfaces::{Family, Interface},
    packet::SocketError,
};
use arpeggio_wire::{ArpError, ArpFrame, ArpOperation, Claim, MIN_FRAME_LEN, MacAddr, Question};

use super::{Groups, Protocol};
use crate::{
    listener::Listener,
    wire::{Ear, Wire},
};

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

    fn open(
        wire: &dyn Wire,
        interface: &Interface,
        listener: Listener<Self>,
    ) -> Result<Box<dyn Ear<Self>>, SocketError> {
        wire.arp(interface, listener)
    }

    fn address(address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn parse(bytes: &[u8]) -> Result<ArpFrame, &'static str> {
        ArpFrame::parse(bytes).map_err(ArpError::label)
    }

    fn question(frame: &ArpFrame) -> Option<Question<Ipv4Addr>> {
        frame.question()
    }

    fn claim(frame: &ArpFrame) -> Option<Claim<Ipv4Addr>> {
        frame.claim()
    }

    fn is_reply(frame: &ArpFrame) -> bool {
        frame.operation == ArpOperation::Reply && frame.destination.octets()[0] & 1 == 0
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

    fn join(&mut self, _: &BTreeSet<Ipv4Addr>, _: Duration) -> Result<bool, GroupError> {
        Ok(true)
    }

    fn leave_all_but(&mut self, _: &BTreeSet<Ipv4Addr>) {}
}
