//! Locks of a format that only a newer release understands, as after a downgrade: they are left alone.

use std::net::IpAddr;

use crate::Index;

impl Index {
    /// Whether the lock of `address` may not be changed, since this release does not understand all that it says.
    pub(super) fn is_newer(&self, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.is_newer)
    }
}
