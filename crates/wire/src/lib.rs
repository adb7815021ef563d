//! Ethernet, ARP, NDP and DHCP frames: bytes to typed messages and back, without I/O.
//!
//! Frames are read through the checked views of `pnet_packet` and turned at once into typed forms
//! that cannot hold a wrong hardware type, length or operation. Frames that we send are written
//! field by field into arrays of fixed size, so neither direction allocates. Because reading and
//! writing share no code, a round trip tests the one against the other.
//!
//! Both protocols say the same two things, a [`Question`] or a [`Claim`], of an IPv4 or of an IPv6
//! address. Of DHCP there is as much as it takes to ask who gives out addresses.
//!
//! ```
//! use arpeggio_wire::{ArpFrame, Asker, MacAddr, Question};
//! use core::net::Ipv4Addr;
//!
//! let ours = MacAddr(0x02, 0, 0, 0, 0, 0x10);
//! let asker = Asker { mac: MacAddr(0x02, 0, 0, 0, 0, 0x20), address: None };
//! let question = Question { address: Ipv4Addr::new(192, 0, 2, 7), asker };
//!
//! let heard = ArpFrame::parse(&question.broadcast().to_bytes())?;
//! assert_eq!(heard.question(), Some(question));
//! assert_eq!(question.answer(ours).destination, asker.mac);
//! # Ok::<(), arpeggio_wire::ArpError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod arp;
mod dhcp;
mod ethernet;
mod ipv6;
mod meaning;
mod ndp;

pub use arp::{ArpError, ArpFrame, ArpOperation};
pub use dhcp::{DhcpDiscover, DhcpOffer};
pub use ethernet::MIN_FRAME_LEN;
pub use ipv6::{ALL_NODES, multicast_mac, solicited_node};
pub use meaning::{Asker, Claim, Question};
pub use ndp::{NdpBytes, NdpError, NdpFrame, NdpMessage};
pub use pnet_base::MacAddr;
