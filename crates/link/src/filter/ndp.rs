//! The filter for NDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use super::assembler::{Assembler, Instruction, Label, Load};
use super::ranges::Ranges;
use super::{FrameFilter, MIN_INSTRUCTIONS, WHOLE_FRAME, if_here};

/// What a listener on an NDP socket wants to hear.
///
/// Never wanted are truncated frames, and IPv6 packets whose first next header is not ICMPv6. Of
/// the others, a frame is wanted if
///
/// * it is a solicitation (type 135) and its target is one of `ours`: a question to us, or
/// * it is an advertisement (type 136) and its target is one of `ours`, somebody else announces our
///   address, or one of `peers`, an answer that we wait for.
///
/// When the limit does not suffice for the exact sets, a target is judged by its last 32 bits; when
/// those do not fit either, the smallest gaps between them are let through too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NdpFilter {
    /// The addresses that we announce.
    pub ours: BTreeSet<Ipv6Addr>,
    /// The addresses whose answers we await.
    pub peers: BTreeSet<Ipv6Addr>,
}

/// Instructions that every coarse program has, whatever it lets through; a generous count.
const FIXED_INSTRUCTIONS: usize = 32;

const ETHERNET_TYPE: Load = Load::half(12);
const NEXT_HEADER: Load = Load::byte(20);
const ICMPV6: u32 = 58;
const TYPE: Load = Load::byte(54);
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;
/// The target, most significant word first.
const TARGET: [Load; 4] = [Load::word(62), Load::word(66), Load::word(70), Load::word(74)];
const LAST_WORD: usize = 3;

impl FrameFilter for NdpFilter {
    const ETHERNET_TYPE: u16 = 0x86dd;

    fn program(&self, interface: u32, limit: usize) -> Vec<Instruction> {
        let limit = limit.max(MIN_INSTRUCTIONS);
        // No address costs less than two instructions a word, unless it shares them with others.
        if self.ours.len() + self.peers.len() <= limit {
            let exact =
                assemble(&Targets::exact(&self.ours), &Targets::exact(&self.heard()), interface);
            if exact.len() <= limit {
                return exact;
            }
        }
        self.coarse(interface, limit)
    }
}

impl NdpFilter {
    /// The targets of advertisements that we listen to.
    fn heard(&self) -> BTreeSet<Ipv6Addr> {
        self.ours.union(&self.peers).copied().collect()
    }

    fn coarse(&self, interface: u32, limit: usize) -> Vec<Instruction> {
        let room = limit - FIXED_INSTRUCTIONS;
        // As for ARP: two comparisons for a range, and some jumps.
        let ranges = (room - room / 32) / 2;
        let asked = last_words(&self.ours).merged_to(ranges / 2);
        let heard = last_words(&self.heard()).merged_to(ranges - asked.len());
        assemble(&Targets::Last(asked), &Targets::Last(heard), interface)
    }
}

/// A set of targets, as the program looks for them.
enum Targets {
    /// By the value of one word, what the next words must be.
    Word(usize, BTreeMap<u32, Targets>),
    /// What the last word must be.
    Last(Ranges),
}

impl Targets {
    fn exact(addresses: &BTreeSet<Ipv6Addr>) -> Self {
        let words: Vec<[u32; 4]> = addresses.iter().map(words).collect();
        Self::from_word(0, &words)
    }

    /// `addresses` rise, and are the same before the word at `position`.
    fn from_word(position: usize, addresses: &[[u32; 4]]) -> Self {
        if position == LAST_WORD {
            return Self::Last(Ranges::of(addresses.iter().map(|words| words[LAST_WORD])));
        }
        let same = |one: &[u32; 4], other: &[u32; 4]| one[position] == other[position];
        let next = |group: &[[u32; 4]]| {
            Some((group.first()?[position], Self::from_word(position + 1, group)))
        };
        Self::Word(position, addresses.chunk_by(same).filter_map(next).collect())
    }

    /// Goes on at `yes` if the target is one of these, else at `no`.
    fn assemble(&self, code: &mut Assembler, yes: Label, no: Label) -> Label {
        match self {
            Self::Last(ranges) => code.if_within(TARGET[LAST_WORD], ranges, yes, no),
            Self::Word(position, groups) => {
                let cases: Vec<(u32, Label)> = groups
                    .iter()
                    .map(|(value, targets)| (*value, targets.assemble(code, yes, no)))
                    .collect();
                code.switch(TARGET[*position], &cases, no)
            }
        }
    }
}

/// Written from the end to the beginning, since jumps go forward only.
fn assemble(asked: &Targets, heard: &Targets, interface: u32) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let drop = code.ret(0);
    let accept = code.ret(WHOLE_FRAME);
    let heard = heard.assemble(&mut code, accept, drop);
    let asked = asked.assemble(&mut code, accept, drop);
    // The first of all is far away by now.
    let drop = code.ret(0);
    let advertisement = code.if_equal(TYPE, ADVERTISEMENT, heard, drop);
    let message = code.if_equal(TYPE, SOLICITATION, asked, advertisement);
    let icmp = code.if_equal(NEXT_HEADER, ICMPV6, message, drop);
    let ethernet_type = u32::from(NdpFilter::ETHERNET_TYPE);
    let packet = code.if_equal(ETHERNET_TYPE, ethernet_type, icmp, drop);
    if_here(&mut code, interface, packet, drop);
    code.finish()
}

fn last_words(addresses: &BTreeSet<Ipv6Addr>) -> Ranges {
    let last: BTreeSet<u32> = addresses.iter().map(|address| words(address)[LAST_WORD]).collect();
    Ranges::of(last)
}

fn words(address: &Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "one word after the other")]
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}
