//! From a plan to tables, without I/O.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_forwarding::{Hop, Plan, Way};
use arpeggio_netfilter::{Contents, Data, Family, Field, Set, SetValue, Table, Tables};

use super::{counting::Counting, here::Here, ingress, prerouting, steps::Version};

#[cfg(test)]
mod tests;

/// The set of the other nodes' MAC addresses, in each table.
pub(super) const FELLOWS: &str = "fellows";

/// A plan as tables.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) tables: Tables,
    pub(super) counting: BTreeMap<String, Counting>,
}

/// A table that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    pub(super) contents: Contents,
    pub(super) counting: BTreeMap<String, Counting>,
    /// The names of maps from buckets, by what is in them.
    maps: BTreeMap<Vec<u8>, String>,
}

impl Filling {
    /// Gives the name of a counter that the table has from now on.
    pub(super) fn counter(&mut self, counting: Counting) -> String {
        let name = counting.name();
        self.contents.counters.insert(name.clone());
        self.counting.insert(name.clone(), counting);
        name
    }

    /// Gives the name of a map from buckets. Ports of which the same is so have one together, by the name that the first of them would
    /// have given it: most have the same, and each has a thousand elements.
    pub(super) fn buckets(
        &mut self,
        name: String,
        value: Vec<Field>,
        elements: Vec<(u32, Vec<u8>)>,
    ) -> String {
        let mut content = Vec::new();
        for (bucket, data) in &elements {
            content.extend(bucket.to_ne_bytes());
            content.extend(data);
        }
        if let Some(present) = self.maps.get(&content) {
            return present.clone();
        }
        let elements = elements
            .into_iter()
            .map(|(bucket, data)| (bucket.to_ne_bytes().to_vec(), Data::Bytes(data)));
        self.set(&name, &[Field::Number], SetValue::Data(value)).extend(elements);
        self.maps.insert(content, name.clone());
        name
    }

    /// A set that may be there already.
    pub(super) fn set(
        &mut self,
        name: &str,
        key: &[Field],
        value: SetValue,
    ) -> &mut BTreeMap<Vec<u8>, Data> {
        let set = self.contents.sets.entry(name.to_owned()).or_insert_with(|| Set::new(key, value));
        &mut set.elements
    }
}

/// `here`: the node for which the rules are.
pub(super) fn compile(plan: &Plan, here: &Here, name: &str) -> Compiled {
    let mut compiled = Compiled::default();
    for version in Version::ALL {
        let filling = prerouting::fill(plan, version, here);
        compiled.take(version.family(), name, plan, filling);
    }
    compiled.take(Family::Netdev, name, plan, ingress::fill(plan, &here.devices));
    compiled
}

impl Compiled {
    /// A table without a chain is none.
    fn take(&mut self, family: Family, name: &str, plan: &Plan, mut filling: Filling) {
        if filling.contents.chains.is_empty() {
            return;
        }
        let fellows = filling.set(FELLOWS, &[Field::Mac], SetValue::Nothing);
        fellows.extend(plan.fellows.iter().map(|mac| (mac.to_vec(), Data::Nothing)));
        self.tables.insert(Table { family, name: name.to_owned() }, filling.contents);
        self.counting.extend(filling.counting);
    }
}

/// The next hop and the index of its device. `None`: the packet stays.
pub(super) fn hop<'a>(way: &'a Way, devices: &BTreeMap<String, u32>) -> Option<(&'a Hop, u32)> {
    let hop = way.hop()?;
    Some((hop, *devices.get(&hop.interface)?))
}

/// The names of all devices that a plan is about.
pub(super) fn device_names(plan: &Plan) -> BTreeSet<&str> {
    let announcing = plan.addresses.values().flat_map(|address| &address.interfaces);
    plan.hops().map(|hop| &hop.interface).chain(announcing).map(String::as_str).collect()
}
