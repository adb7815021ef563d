//! Machines that answer at addresses which no node announces.

use arpeggio_api::session::mac_text;
use arpeggio_ipam::Reservation;

use crate::{Index, known_lock::KnownLock};

impl Index {
    /// The lock, with the name of the node that has its address, if a node has it. Nodes are told by their MAC addresses,
    /// which their sessions say.
    pub(super) fn with_stranger_named(&self, mut lock: KnownLock) -> KnownLock {
        if let Some(Reservation::Quarantined(mac)) = &mut lock.reservation
            && let Some(node) = self.node_at(mac)
        {
            *mac = format!("{mac} (node {node})");
        }
        lock
    }

    fn node_at(&self, mac: &str) -> Option<&str> {
        let mut speakers = self.speakers.iter();
        let found = speakers.find(|(_, it)| it.links.iter().any(|it| mac_text(it.mac) == mac));
        found.map(|(node, _)| node.as_str())
    }
}
