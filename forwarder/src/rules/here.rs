//! What of the node its rules depend on, beside the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use nix::net::if_::if_nametoindex;

/// Whether conntrack takes packets from the middle of a connection for the beginning of one.
const LOOSE: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";

/// The node, as it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// The indexes of the devices that are there.
    pub(super) devices: BTreeMap<String, u32>,
    /// The devices that are not.
    pub(super) missing: BTreeSet<String>,
    /// A TCP packet of no connection that conntrack knows may be invalid to it whatever the packet is. Otherwise it is new to it,
    /// but for the last ones of a connection.
    pub(super) strict: bool,
}

impl Here {
    /// Looks for these devices.
    pub(super) fn look<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let strict = fs::read_to_string(LOOSE).is_ok_and(|loose| loose.trim() == "0");
        let mut here = Self { strict, ..Self::default() };
        for name in names {
            if let Ok(index) = if_nametoindex(name) {
                here.devices.insert(name.to_owned(), index);
            } else {
                here.missing.insert(name.to_owned());
            }
        }
        here
    }

    /// The same node, now.
    pub(super) fn again(&self) -> Self {
        Self::look(self.devices.keys().chain(&self.missing).map(String::as_str))
    }
}
