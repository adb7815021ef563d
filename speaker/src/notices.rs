//! How often users are told of trouble with an address, by event and log line.
//!
//! What others do to an address can go on for ever, and frames cost a neighbour nothing. So of each kind of trouble with an
//! address users are told once and reminded now and then, and of all addresses together not more than they can read. What
//! there was no room for is told later, if it goes on.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_election::{Bucket, Timestamp};

/// While trouble lasts, users are told of it again after this time.
const REMINDER: Duration = Duration::from_mins(10);

/// So much may be told at once, of all addresses together.
const AT_ONCE: u32 = 20;

/// One more may be told each time that this has passed.
const PAUSE: Duration = Duration::from_secs(6);

/// What users are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// A machine that is no node announces the address.
    Stranger,
    /// A node announces the address, though another one holds it.
    Fellow,
    /// Another node has the MAC address at which this node announces the address.
    Double,
    /// A machine had the address before it was first announced.
    Occupied,
    /// The API server refuses to write the lock.
    Refused,
    /// The announce rules on the lock cannot be read.
    Rules,
    /// The address follows its pods only now and then, because they come and go too often.
    Flapping,
}

/// What users were told.
#[derive(Debug)]
pub(crate) struct Notices {
    told: BTreeMap<(IpAddr, Trouble), Timestamp>,
    room: Bucket,
}

impl Default for Notices {
    fn default() -> Self {
        Self { told: BTreeMap::new(), room: Bucket::new(AT_ONCE, PAUSE) }
    }
}

impl Notices {
    /// Whether to tell users now. `anew`: it is not what they were told of this address before.
    pub(crate) fn tell(
        &mut self,
        address: IpAddr,
        trouble: Trouble,
        anew: bool,
        now: Timestamp,
    ) -> bool {
        let told = self.told.get(&(address, trouble));
        let due = anew || told.is_none_or(|told| now.since(*told) >= REMINDER);
        let tells = due && self.room.take(now);
        if tells {
            self.told.insert((address, trouble), now);
        }
        tells
    }

    /// Forgets what was told long ago.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.told.retain(|_, told| now.since(*told) < REMINDER);
    }

    /// The address is none of ours any more.
    pub(crate) fn gone(&mut self, address: IpAddr) {
        self.told.retain(|(told, _), _| *told != address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn each_trouble_of_an_address_is_told_once_and_reminded_of() {
        let mut notices = Notices::default();
        let mut tells = |last, trouble, now| notices.tell(address(last), trouble, false, at(now));
        assert!(tells(1, Trouble::Stranger, 0));
        assert!(tells(1, Trouble::Fellow, 1));
        assert!(tells(2, Trouble::Stranger, 2));
        let told: Vec<u64> = (3..1500).filter(|now| tells(1, Trouble::Stranger, *now)).collect();
        assert_eq!(told, [600, 1200]);
    }

    #[test]
    fn of_many_addresses_some_are_told_at_once_and_the_others_little_by_little() {
        let mut notices = Notices::default();
        let mut told = |now| {
            let all = 0..=255;
            all.filter(|it| notices.tell(address(*it), Trouble::Stranger, false, at(now))).count()
        };
        assert_eq!(told(0), 20);
        assert_eq!((1..=60).map(&mut told).sum::<usize>(), 10);
    }
}
