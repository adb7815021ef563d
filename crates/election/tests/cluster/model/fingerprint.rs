//! One number for all states that have the same future.
//!
//! Whatever is hashed passes through a [`Lens`], which knows times and versions by their width and size: times are
//! written down as what has passed since, and those that are longer ago than any setting asks for only in their order;
//! of the versions of one record only their order matters.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::world::{Speaker, TICK, World};
use crate::store::VERSIONS_PER_RECORD;

/// No rule asks whether something happened longer ago than this, in ticks.
const LONGEST: u128 = 7;

/// The fingerprint of a state.
pub(crate) fn fingerprint(world: &World) -> u64 {
    let mut lens = Lens { now: world.now.as_duration().as_nanos(), ..Lens::default() };
    for speaker in &world.speakers {
        look_at_speaker(speaker, &mut lens);
        lens.settle_times();
    }
    world.hosts.hash(&mut lens);
    world.store.hash(&mut lens);
    world.requests.hash(&mut lens);
    world.cuts.hash(&mut lens);
    world.faults.hash(&mut lens);
    world.witness.hash(&mut lens);
    lens.settle_times();
    world.plan.hash(&mut lens);
    lens.conclude()
}

fn look_at_speaker(speaker: &Speaker, lens: &mut Lens) {
    let Speaker {
        home,
        elector,
        running,
        paused,
        stopping,
        api,
        lags,
        watch,
        inbox,
        awaited,
        announced,
        decided,
        proved,
        asked,
        due,
        slept,
    } = speaker;
    (home, running).hash(lens);
    if !running {
        return;
    }
    lens.slept = slept.as_nanos();
    elector.hash(lens);
    lens.slept = 0;
    (paused, stopping, api, lags, watch, inbox).hash(lens);
    (awaited, announced, decided, proved, asked, due).hash(lens);
}

/// A hasher that forgets when things happened.
#[derive(Default)]
struct Lens {
    now: u128,
    slept: u128,
    seen: Vec<Token>,
    /// Where the times begin that are compared with one another.
    unsettled: usize,
}

enum Token {
    Plain(u64),
    Version(u64),
    /// How long ago, in nanoseconds; negative when it lies ahead.
    Age(i128),
    /// The same for all times that make no difference.
    Settled(i128),
}

impl Hasher for Lens {
    fn finish(&self) -> u64 {
        0 // Asked for by nobody; see `conclude`.
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            self.seen.push(Token::Plain(u64::from_le_bytes(padded)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.seen.push(Token::Plain(value.into()));
    }

    fn write_u32(&mut self, value: u32) {
        self.seen.push(Token::Plain(value.into()));
    }

    fn write_usize(&mut self, value: usize) {
        self.seen.push(Token::Plain(value as u64));
    }

    fn write_isize(&mut self, value: isize) {
        self.seen.push(Token::Plain(value.cast_unsigned() as u64));
    }

    fn write_u64(&mut self, value: u64) {
        let is_version = value >= VERSIONS_PER_RECORD;
        self.seen.push(if is_version { Token::Version(value) } else { Token::Plain(value) });
    }

    fn write_u128(&mut self, time: u128) {
        let age = self.now.cast_signed() - self.slept.cast_signed() - time.cast_signed();
        self.seen.push(Token::Age(age));
    }
}

impl Lens {
    /// Turns the times since the last call into how long ago they were. What is long ago keeps only its order.
    fn settle_times(&mut self) {
        let unsettled = &mut self.seen[self.unsettled..];
        let longest = (LONGEST * TICK.as_nanos()).cast_signed();
        let age = |token: &Token| match token {
            Token::Age(age) => Some(*age),
            _ => None,
        };
        let mut old: Vec<i128> =
            unsettled.iter().filter_map(age).filter(|age| *age > longest).collect();
        old.sort_unstable();
        old.dedup();
        for token in unsettled {
            if let Some(age) = age(token) {
                let rank = old.iter().position(|known| *known == age);
                let shown = rank.map_or(age, |rank| longest + 1 + rank as i128);
                *token = Token::Settled(shown);
            }
        }
        self.unsettled = self.seen.len();
    }

    fn conclude(self) -> u64 {
        let version = |token: &Token| match token {
            Token::Version(version) => Some(*version),
            _ => None,
        };
        let mut versions: Vec<u64> = self.seen.iter().filter_map(version).collect();
        versions.sort_unstable();
        versions.dedup();
        let mut ranks = BTreeMap::new();
        let mut before = None;
        for version in versions {
            let record = version / VERSIONS_PER_RECORD;
            let rank = match before {
                Some((same, rank)) if same == record => rank + 1,
                _ => 0,
            };
            before = Some((record, rank));
            ranks.insert(version, (record, rank));
        }
        let mut hasher = DefaultHasher::new();
        for token in &self.seen {
            match token {
                Token::Plain(value) => value.hash(&mut hasher),
                Token::Version(version) => ranks.get(version).hash(&mut hasher),
                Token::Age(age) | Token::Settled(age) => age.hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}
