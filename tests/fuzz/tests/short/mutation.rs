//! Inputs that differ a little from known ones. Purely random bytes hardly ever look like a frame.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Longest run of bytes that is inserted, copied or removed at once.
const RUN: usize = 32;
/// Values that lie next to a limit.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff, b' ', b'\n'];

/// One change to an input.
#[derive(Clone, Debug)]
enum Mutation {
    /// Turn one bit.
    Flip(Index, u8),
    /// Replace one byte.
    Set(Index, u8),
    /// Add bytes in between.
    Insert(Index, Vec<u8>),
    /// Take bytes out.
    Remove(Index, usize),
    /// Cut the rest off.
    Truncate(Index),
    /// Put some of another seed's bytes here.
    Splice { at: Index, seed: Vec<u8>, from: Index, length: usize },
}

/// A seed, changed a few times or not at all.
pub(crate) fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop::collection::vec(mutations(seeds.clone()), 0..6);
    (select(seeds), mutations).prop_map(|(mut bytes, mutations)| {
        mutations.into_iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    })
}

fn mutations(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    let byte = || prop_oneof![select(&EDGES[..]), any::<u8>()];
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (at(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), prop::collection::vec(byte(), 1..RUN))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at(), 1..RUN).prop_map(|(at, length)| Mutation::Remove(at, length)),
        at().prop_map(Mutation::Truncate),
        (at(), select(seeds), at(), 1..RUN)
            .prop_map(|(at, seed, from, length)| { Mutation::Splice { at, seed, from, length } }),
    ]
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>) {
        // One more place than bytes: the end.
        let end = bytes.len() + 1;
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(at.index(end)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Set(at, value) => {
                if let Some(byte) = bytes.get_mut(at.index(end)) {
                    *byte = value;
                }
            }
            Self::Insert(at, new) => insert(bytes, at.index(end), &new),
            Self::Remove(at, length) => {
                let from = at.index(end);
                bytes.drain(from..bytes.len().min(from + length));
            }
            Self::Truncate(at) => bytes.truncate(at.index(end)),
            Self::Splice { at, seed, from, length } => {
                let from = from.index(seed.len() + 1);
                insert(bytes, at.index(end), &seed[from..seed.len().min(from + length)]);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.splice(at..at, new.iter().copied());
}
