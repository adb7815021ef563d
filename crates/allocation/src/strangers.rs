//! Machines that answer at addresses which no node announces.

use std::net::IpAddr;

use arpeggio_api::session::mac_text;
use arpeggio_ipam::Reservation;

use crate::{Index, known_lock::KnownLock};

impl Index {
    /// The lock, with the name of the node that has its address, if a node has it. Nodes are told by their MAC addresses,
    /// which their sessions say.
    pub(super) fn with_stranger_named(&self, mut lock: KnownLock) -> KnownLock {
        if let (Some(Reservation::Quarantined(named)), Some(mac)) =
            (&mut lock.reservation, &lock.stranger_mac)
        {
            *named = self.named(mac);
        }
        lock
    }

    /// Names those anew whose node has another name by now, or none, or one at last: sessions may come after locks.
    pub(super) fn name_strangers(&mut self) {
        let of_old: Vec<IpAddr> =
            self.quarantined.iter().copied().filter(|it| self.is_named_of_old(*it)).collect();
        for address in of_old {
            self.look_anew(address, Self::with_stranger_named);
        }
    }

    /// Has those looked at who have an address at which a stranger answers, where another one may be better than it was: an
    /// address is free, or nobody has answered at one.
    pub(super) fn look_at_strangers(&mut self) {
        if std::mem::take(&mut self.strangers_dirty) {
            let locks = self.quarantined.iter().filter_map(|it| self.locks.get(it));
            self.dirty.extend(locks.flat_map(|lock| lock.owners.iter().cloned()));
        }
    }

    fn is_named_of_old(&self, address: IpAddr) -> bool {
        let lock = self.locks.get(&address);
        let (said, mac) = (self.stranger_at(address), lock.and_then(|it| it.stranger_mac.as_ref()));
        said != mac.map(|mac| self.named(mac)).as_deref()
    }

    fn named(&self, mac: &str) -> String {
        match self.node_at(mac) {
            Some(node) => format!("{mac} (node {node})"),
            None => mac.to_owned(),
        }
    }

    fn node_at(&self, mac: &str) -> Option<&str> {
        let mut speakers = self.speakers.iter();
        let found = speakers.find(|(_, it)| it.links.iter().any(|it| mac_text(it.mac) == mac));
        found.map(|(node, _)| node.as_str())
    }
}
