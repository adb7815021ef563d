//! Programs that decide in the kernel which frames reach this process (classic BPF).
//!
//! A busy segment carries tens of thousands of ARP requests a second for other machines. Waking up
//! for each costs a tenth of a core; dropping them in the kernel costs nothing measurable.

mod arp;
mod assembler;
mod dhcp;
mod ndp;
mod ranges;

pub use arp::ArpFilter;
pub use assembler::Instruction;
pub use dhcp::DhcpFilter;
pub use ndp::NdpFilter;

use assembler::{Assembler, Label, Load};

/// The kernel takes no more instructions than this in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// The lowest limit that [`FrameFilter::program`] keeps.
pub const MIN_INSTRUCTIONS: usize = 64;

/// What the kernel hands over of an accepted frame: all of it.
const WHOLE_FRAME: u32 = u32::MAX;

/// From this packet type on frames are not for us: `PACKET_OTHERHOST`, then `PACKET_OUTGOING`.
/// When the VLAN of a tagged frame has no interface here, the kernel takes the tag off and says
/// the former, which is all that remains to be seen of it.
const NOT_FOR_US: u32 = libc::PACKET_OTHERHOST as u32;

/// Goes on at `next` with frames that concern a listener on `interface`, at `drop` with others.
fn if_here(code: &mut Assembler, interface: u32, next: Label, drop: Label) -> Label {
    let for_us = code.if_at_least(Load::PACKET_TYPE, NOT_FOR_US, drop, next);
    code.if_equal(Load::INTERFACE, interface, for_us, drop)
}

/// What a listener wants to hear, of one Ethernet type.
///
/// Never wanted are frames that this machine sent itself, frames for another machine's MAC (heard by
/// an interface in promiscuous mode) or for a VLAN that this machine is not part of, and frames for
/// an interface on top of this one: the kernel shows those of a VLAN or macvlan interface to the
/// sockets of the one below, too, without the tag and as if they had come untagged.
pub trait FrameFilter {
    /// The Ethernet type (`ETH_P_*`).
    const ETHERNET_TYPE: u16;

    /// The program for the interface with this index, of at most `limit` instructions
    /// ([`MIN_INSTRUCTIONS`] if `limit` is lower).
    ///
    /// A run of adjacent addresses costs no more than a single one. When the limit does not suffice
    /// for the exact sets, a coarser program lets some more through. So a wanted frame always
    /// passes, and the listener has to look again.
    fn program(&self, interface: u32, limit: usize) -> Vec<Instruction>;
}
