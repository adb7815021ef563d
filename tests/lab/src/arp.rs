//! ARP by a raw socket on a machine's LAN interface.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, MutableArpPacket};
use pnet_packet::ethernet::{EtherTypes, MutableEthernetPacket};

use crate::plan::Machine;

const ETHERNET_HEADER: usize = 14;
const ARP_LENGTH: usize = 28;

/// Why a machine has no raw socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RawSocketError {
    /// The machine has no LAN interface.
    #[error("{0} is not on the LAN")]
    NotOnLan(Machine),
    /// Its raw socket was refused.
    #[error("raw socket on the LAN: {0}")]
    Socket(#[from] io::Error),
}

pub(crate) type RawSocket = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

/// A raw socket on the machine's LAN interface, opened by a thread that is inside of its namespace.
pub(crate) fn open(machine: Machine) -> std::result::Result<RawSocket, RawSocketError> {
    let is_lan = |interface: &NetworkInterface| interface.name == machine.interface();
    let interface = pnet_datalink::interfaces().into_iter().find(is_lan);
    let config = Config { read_timeout: Some(Duration::from_millis(50)), ..Config::default() };
    match pnet_datalink::channel(&interface.ok_or(RawSocketError::NotOnLan(machine))?, config)? {
        Channel::Ethernet(sender, receiver) => Ok((sender, receiver)),
        _ => Err(RawSocketError::NotOnLan(machine)),
    }
}

/// An ARP frame; sender and target are pairs of MAC and address.
pub(crate) fn frame(
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
    to: MacAddr,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; ETHERNET_HEADER + ARP_LENGTH];
    let (header, body) = bytes.split_at_mut(ETHERNET_HEADER);
    let mut ethernet = MutableEthernetPacket::new(header)?;
    ethernet.set_destination(to);
    ethernet.set_source(sender.0);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(body)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(sender.0);
    arp.set_sender_proto_addr(sender.1);
    arp.set_target_hw_addr(target.0);
    arp.set_target_proto_addr(target.1);
    Some(bytes)
}
