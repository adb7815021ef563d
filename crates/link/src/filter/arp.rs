//! The filter for ARP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::assembler::{Assembler, Instruction, Load};
use super::ranges::Ranges;
use super::{FrameFilter, MIN_INSTRUCTIONS, WHOLE_FRAME, if_here};

/// What a listener on an ARP socket wants to hear.
///
/// Never wanted are truncated frames, and ARP for anything but IPv4 on Ethernet. Of the others, a
/// frame is wanted if
///
/// * its target address is one of `ours`: a request to us, or
/// * its sender address is one of `ours`: somebody else announces our address, or
/// * it is a reply and its sender address is one of `peers`: an answer that we wait for.
///
/// When the limit does not suffice for the exact sets, the smallest gaps between addresses are let
/// through too, as many as needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpFilter {
    /// The addresses that we announce.
    pub ours: BTreeSet<Ipv4Addr>,
    /// The addresses whose answers we await.
    pub peers: BTreeSet<Ipv4Addr>,
}

/// Instructions that every program has, whatever it lets through; a generous count.
const FIXED_INSTRUCTIONS: usize = 32;

/// What every wanted frame has in its fixed fields, in the order in which to look.
const HEADER: [(Load, u32); 4] = [
    (Load::half(12), 0x0806), // Ethernet type: ARP
    (Load::half(14), 0x0001), // ar$hrd: Ethernet
    (Load::half(16), 0x0800), // ar$pro: IPv4
    (Load::half(18), 0x0604), // ar$hln, ar$pln: six and four bytes
];
const OPERATION: Load = Load::half(20);
const REPLY: u32 = 2;
const SENDER: Load = Load::word(28);
const TARGET: Load = Load::word(38);

impl FrameFilter for ArpFilter {
    const ETHERNET_TYPE: u16 = 0x0806;

    fn program(&self, interface: u32, limit: usize) -> Vec<Instruction> {
        let room = limit.max(MIN_INSTRUCTIONS) - FIXED_INSTRUCTIONS;
        // A range costs two comparisons, and one comparison in 32 a jump over the near ones. Our
        // ranges appear twice in the program.
        let ranges = (room - room / 32) / 2;
        let peers = ranges_of(&self.peers).merged_to(ranges / 4);
        let ours = ranges_of(&self.ours).merged_to((ranges - peers.len()) / 2);
        assemble(&ours, &peers, interface)
    }
}

fn ranges_of(addresses: &BTreeSet<Ipv4Addr>) -> Ranges {
    Ranges::of(addresses.iter().copied().map(u32::from))
}

/// Written from the end to the beginning, since jumps go forward only.
fn assemble(ours: &Ranges, peers: &Ranges, interface: u32) -> Vec<Instruction> {
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
    if_here(&mut code, interface, header, drop);
    code.finish()
}
