//! What of the node its rules depend on, beside the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use arpeggio_link::interfaces::Bridge;
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
    /// Those devices that are bridges and on which addresses come in. What comes in by a port can be translated before the bridge has it
    /// as its own (`br_netfilter`), so ports are where addresses come in.
    pub(super) bridges: BTreeMap<String, Bridge>,
    /// The names of the devices on which addresses come in.
    pub(super) entrances: BTreeSet<String>,
}

impl Here {
    /// Looks for these devices. Addresses come in by those of them that are `entrances`.
    pub(super) fn look<'a>(
        names: impl IntoIterator<Item = &'a str>,
        entrances: BTreeSet<String>,
    ) -> Self {
        let strict = fs::read_to_string(LOOSE).is_ok_and(|loose| loose.trim() == "0");
        let mut here = Self { strict, ..Self::default() };
        for name in names {
            if let Ok(index) = if_nametoindex(name) {
                here.devices.insert(name.to_owned(), index);
            } else {
                here.missing.insert(name.to_owned());
            }
        }
        here.bridges = entrances.iter().filter_map(|name| here.bridge(name)).collect();
        here.entrances = entrances;
        here
    }

    /// What the kernel does not tell is as if there were no bridge.
    fn bridge(&self, name: &str) -> Option<(String, Bridge)> {
        let found = Bridge::look(*self.devices.get(name)?);
        let found = found.inspect_err(|error| {
            tracing::debug!(%error, name, "whether it is a bridge is not known");
        });
        Some((name.to_owned(), found.ok()??))
    }

    /// The same node, now.
    pub(super) fn again(&self) -> Self {
        let names = self.devices.keys().chain(&self.missing).map(String::as_str);
        Self::look(names, self.entrances.clone())
    }
}
