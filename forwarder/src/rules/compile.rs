//! From a plan to tables, without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    maps: HashMap<Division, String>,
}

/// How buckets are divided: what is in a map from buckets, in few bytes, since there are thousands of them and most are alike.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Division {
    /// What buckets stand for, each once, in the order of the first bucket that has it.
    data: Vec<Vec<u8>>,
    /// For each bucket, the place of that, counted from one. Zero: the packet stays.
    places: Vec<u16>,
}

impl Division {
    /// `data`: what stands for a way. Ways that are one in memory are not looked at twice.
    pub(super) fn of<'a>(
        ways: &'a [Way],
        devices: &BTreeMap<String, u32>,
        mut data: impl FnMut(&'a Hop, u32) -> Vec<u8>,
    ) -> Self {
        let (mut division, mut known) = (Self::default(), Vec::<(&Hop, u16)>::new());
        division.places.reserve(ways.len());
        for way in ways {
            let place = match hop(way, devices) {
                None => 0,
                Some((hop, device)) => {
                    let found = known.iter().find(|(it, _)| std::ptr::eq(*it, hop));
                    if let Some((_, place)) = found {
                        *place
                    } else {
                        let place = division.place(data(hop, device));
                        known.push((hop, place));
                        place
                    }
                }
            };
            division.places.push(place);
        }
        division
    }

    /// Whether all packets stay.
    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    fn place(&mut self, data: Vec<u8>) -> u16 {
        let at = self.data.iter().position(|it| *it == data).unwrap_or_else(|| {
            self.data.push(data);
            self.data.len() - 1
        });
        u16::try_from(at + 1).unwrap_or_default()
    }

    fn elements(&self) -> impl Iterator<Item = (Vec<u8>, Data)> {
        (0_u32..).zip(&self.places).filter_map(|(bucket, place)| {
            let data = self.data.get(usize::from(*place).checked_sub(1)?)?;
            Some((bucket.to_ne_bytes().to_vec(), Data::Bytes(data.clone())))
        })
    }
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
    /// have given it: most have the same, and each has a thousand elements. What all of them change is changed once.
    pub(super) fn buckets(&mut self, name: String, value: &[Field], division: Division) -> String {
        if let Some(present) = self.maps.get(&division) {
            return present.clone();
        }
        let kind = SetValue::Data(value.to_vec());
        self.set(&name, &[Field::Number], kind).extend(division.elements());
        self.maps.insert(division, name.clone());
        name
    }

    /// Whether there is a set of this name.
    pub(super) fn has_set(&self, name: &str) -> bool {
        self.contents.sets.contains_key(name)
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
    compiled.take(Family::Netdev, name, plan, ingress::fill(plan, here));
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
    let hops = plan.hops().map(|hop| hop.interface.as_str());
    hops.chain(entrances(plan)).collect()
}

/// The names of the devices on which addresses come in that are to be spread.
pub(super) fn entrances(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.addresses.values().flat_map(|address| &address.interfaces).map(String::as_str)
}
