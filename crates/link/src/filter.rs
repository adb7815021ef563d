//! Programs that decide in the kernel which frames reach this process (classic BPF).
//!
//! A busy segment carries tens of thousands of ARP requests a second for other machines. Waking up
//! for each costs a tenth of a core; dropping them in the kernel costs nothing measurable.

mod arp;
mod assembler;
mod ndp;
mod ranges;

pub use arp::ArpFilter;
pub use assembler::Instruction;
pub use ndp::NdpFilter;

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

/// What a listener wants to hear, of one Ethernet type.
///
/// Never wanted are frames that this machine sent itself, and frames for another machine's MAC
/// (heard by an interface in promiscuous mode) or for a VLAN that this machine is not part of.
pub trait FrameFilter {
    /// The Ethernet type (`ETH_P_*`).
    const ETHERNET_TYPE: u16;

    /// The program, of at most `limit` instructions ([`MIN_INSTRUCTIONS`] if `limit` is lower).
    ///
    /// A run of adjacent addresses costs no more than a single one. When the limit does not suffice
    /// for the exact sets, a coarser program lets some more through. So a wanted frame always
    /// passes, and the listener has to look again.
    fn program(&self, limit: usize) -> Vec<Instruction>;
}
