//! Programs that decide in the kernel which frames reach this process (classic BPF).
//!
//! A busy segment carries tens of thousands of ARP requests a second for other machines. Waking up
//! for each costs a tenth of a core; dropping them in the kernel costs nothing measurable.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

mod assembler;
mod ranges;

pub use assembler::Instruction;
use assembler::{Assembler, Load};
use ranges::Ranges;

/// What a listener on an ARP socket wants to hear.
///
/// Never wanted are frames that this machine sent itself, frames for another machine's MAC (heard
/// by an interface in promiscuous mode) or for a VLAN that this machine is not part of, truncated
/// ones, and ARP for anything but IPv4 on Ethernet. Of the others, a frame is wanted if
///
/// * its target address is one of `ours`: a request to us, or
/// * its sender address is one of `ours`: somebody else announces our address, or
/// * it is a reply and its sender address is one of `peers`: an answer that we wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpFilter {
    /// The addresses that we announce.
    pub ours: BTreeSet<Ipv4Addr>,
    /// The addresses whose answers we await.
    pub peers: BTreeSet<Ipv4Addr>,
}

/// The kernel takes no more instructions than this in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// The lowest limit that [`ArpFilter::program`] keeps.
pub const MIN_INSTRUCTIONS: usize = 64;

/// Instructions that every program has, whatever it lets through; a generous count.
const FIXED_INSTRUCTIONS: usize = 32;

/// What the kernel hands over of an accepted frame: all of it.
const WHOLE_FRAME: u32 = u32::MAX;

/// What every wanted frame has in its fixed fields, in the order in which to look.
const HEADER: [(Load, u32); 4] = [
    (Load::half(12), 0x0806), // Ethernet type: ARP
    (Load::half(14), 0x0001), // ar$hrd: Ethernet
    (Load::half(16), 0x0800), // ar$pro: IPv4
    (Load::half(18), 0x0604), // ar$hln, ar$pln: six and four bytes
];
/// From this packet type on frames are not for us: `PACKET_OTHERHOST`, then `PACKET_OUTGOING`.
/// When the VLAN of a tagged frame has no interface here, the kernel takes the tag off and says
/// the former, which is all that remains to be seen of it.
const NOT_FOR_US: u32 = libc::PACKET_OTHERHOST as u32;
const OPERATION: Load = Load::half(20);
const REPLY: u32 = 2;
const SENDER: Load = Load::word(28);
const TARGET: Load = Load::word(38);

impl ArpFilter {
    /// The program, of at most `limit` instructions ([`MIN_INSTRUCTIONS`] if `limit` is lower).
    ///
    /// A run of adjacent addresses costs no more than a single one. When the limit does not suffice
    /// for the exact sets, the smallest gaps between addresses are let through too, as many as
    /// needed. So a wanted frame always passes, and the listener has to look again.
    pub fn program(&self, limit: usize) -> Vec<Instruction> {
        let room = limit.max(MIN_INSTRUCTIONS) - FIXED_INSTRUCTIONS;
        // A range costs two comparisons, and one comparison in 32 a jump over the near ones. Our
        // ranges appear twice in the program.
        let ranges = (room - room / 32) / 2;
        let peers = Ranges::of(&self.peers).merged_to(ranges / 4);
        let ours = Ranges::of(&self.ours).merged_to((ranges - peers.len()) / 2);
        assemble(&ours, &peers)
    }
}

/// Written from the end to the beginning, since jumps go forward only.
fn assemble(ours: &Ranges, peers: &Ranges) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let drop = code.ret(0);
    let accept = code.ret(WHOLE_FRAME);
    let awaited = code.if_within(SENDER, peers, accept, drop);
    let reply = code.if_equal(OPERATION, REPLY, awaited, drop);
    let sender = code.if_within(SENDER, ours, accept, reply);
    let target = code.if_within(TARGET, ours, accept, sender);
    // The first of all is far away by now.
    let drop = code.ret(0);
    let header = HEADER
        .iter()
        .rev()
        .fold(target, |next, (field, value)| code.if_equal(*field, *value, next, drop));
    code.if_at_least(Load::PACKET_TYPE, NOT_FOR_US, drop, header);
    code.finish()
}
