//! Other machines that answer at addresses of pools: at some, which another address gets away from, or at all that there are.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};
use core::net::IpAddr;

use crate::{
    allocator::{Allocator, Entry},
    range::{AddressRange, Family},
    space::Space,
};

/// At so few addresses of a pool any machine may answer.
const SEVERAL: usize = 3;
/// One question in so many may have been lost.
const LOST: usize = 10;

impl Allocator {
    /// Says when nodes asked whether another machine has `address`, in seconds of any clock. Who answered, a reservation says;
    /// without one nobody did. `None`: nobody asked, or it counts no more.
    pub fn set_asked(&mut self, address: IpAddr, time: Option<i64>) {
        match time {
            Some(time) => _ = self.asked.insert(address, time),
            None => _ = self.asked.remove(&address),
        }
    }

    /// The MAC address of the stranger who answers at `address`, if that is known.
    pub(crate) fn quarantine(&self, address: IpAddr) -> Option<&str> {
        self.strangers.get(&address).map(String::as_str)
    }

    /// Whether the stranger who answers at `address` is likely to answer at every address of its pool, as a router with proxy
    /// ARP does: another address would be no better.
    ///
    /// A machine with addresses of its own, another balancer, say, has them side by side, and what nodes got since is not among
    /// them. So several answers are needed, one at the last address that was there to give, and of what was asked since the
    /// first of them (nearly) nothing may be without.
    pub fn answers_everywhere(&self, address: IpAddr) -> bool {
        let Some(stranger) = self.quarantine(address) else { return false };
        let Some(entry) = self.entry_of(address) else { return false };
        let Some((_, spaces)) = entry.pool_in_use() else { return false };
        let family = Family::of(address);
        let answers = self.answers_of(stranger, entry, family);
        if answers.len() < SEVERAL || answers.last() < spaces.of(family).last().as_ref() {
            return false;
        }
        let first = answers.iter().filter_map(|it| self.asked.get(it)).min();
        let without = first.map_or(0, |first| self.unanswered_since(*first, entry, family));
        without * LOST <= answers.len()
    }

    /// Where in a pool this stranger answers.
    fn answers_of(&self, stranger: &str, entry: &Entry, family: Family) -> BTreeSet<IpAddr> {
        let answers = within(&self.strangers, entry.ranges(family));
        answers.filter(|(_, it)| *it == stranger).map(|(address, _)| *address).collect()
    }

    /// For how many addresses of a pool nobody has answered since then.
    fn unanswered_since(&self, time: i64, entry: &Entry, family: Family) -> usize {
        let asked = within(&self.asked, entry.ranges(family));
        let since = asked
            .filter(|(address, asked)| **asked >= time && self.quarantine(**address).is_none());
        since.count()
    }

    /// The free address of a pool that is given next: the lowest; or the highest, where one machine answers at several, since
    /// it is likely to have the next one as well.
    pub(crate) fn next_free(&self, entry: &Entry, space: &Space, family: Family) -> Option<IpAddr> {
        let mut met = BTreeSet::new();
        let again = within(&self.strangers, entry.ranges(family)).any(|(_, it)| !met.insert(it));
        if again { space.last() } else { space.first() }
    }
}

fn within<T>(
    map: &BTreeMap<IpAddr, T>,
    ranges: impl Iterator<Item = AddressRange>,
) -> impl Iterator<Item = (&IpAddr, &T)> {
    ranges.flat_map(|range| map.range(range.first()..=range.last()))
}
