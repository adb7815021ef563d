//! What lies below an interface: the card of a VLAN, the ports of a bridge or a bond.
//!
//! The kernel says of each device alone whether it is a radio, and whether its cable is plugged in. What is sent by a VLAN on a
//! radio goes by that radio all the same. A bridge hears its pods and virtual machines when its only cable is out.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::{Interface, Links};

/// Kinds whose frames leave by the device that the kernel names as theirs (`IFLA_LINK`). Of a `veth` that is the other end.
const STACKED: [&str; 7] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "vxlan"];
/// Kinds whose frames leave by their members. A VRF's members stay on segments of their own.
const JOINING: [&str; 3] = ["bridge", "bond", "team"];
/// Kinds of ports that lead out of the machine, as cards do, which have no kind. Others lead to pods and virtual machines.
const CABLES: [&str; 3] = ["vlan", "bond", "team"];

/// The devices that lie directly below each one, by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layers {
    below: BTreeMap<u32, BTreeSet<u32>>,
}

impl Layers {
    /// What the kernel says of all devices; `interfaces` are the same devices, by rising index.
    pub(super) fn new(messages: &[LinkMessage], interfaces: &[Interface]) -> Self {
        let mut layers = Self::default();
        let kinds: BTreeMap<u32, &str> =
            interfaces.iter().filter_map(|it| Some((it.index, it.kind.as_deref()?))).collect();
        let is_of = |index: u32, of: &[&str]| kinds.get(&index).is_some_and(|it| of.contains(it));
        for message in messages {
            let index = message.header.index;
            if let Some(lower) = lower(message).filter(|_| is_of(index, &STACKED)) {
                layers.put(lower, index);
            }
            if let Some(upper) = upper(message).filter(|it| is_of(*it, &JOINING)) {
                layers.put(index, upper);
            }
        }
        layers
    }

    fn put(&mut self, lower: u32, upper: u32) {
        if lower != upper {
            self.below.entry(upper).or_default().insert(lower);
        }
    }

    /// Has the interfaces say what those below them do. Only of cards it is known yet whether they are radios.
    pub(super) fn settle(&self, links: &mut Links) {
        let alone = links.clone();
        for interface in &mut links.interfaces {
            let below = self.all_below(interface.index);
            let mut below = below.iter().filter_map(|index| alone.interface(*index));
            interface.wireless |= below.any(|it| it.wireless);
            (interface.only_cable, interface.carrier_ups) = self.counted(interface.index, &alone);
        }
        self.settle_carriers(links);
    }

    /// Whoever can be heard by others only has no carrier when none of these has one. From the cables upwards: what has lost its
    /// carrier thereby may be all that lies below another one.
    fn settle_carriers(&self, links: &mut Links) {
        loop {
            let hears = |it: &Interface| {
                let ways = self.ways(it.index, links);
                ways.is_empty() || ways.iter().any(|way| way.carrier)
            };
            let interfaces = links.interfaces.iter();
            let deaf: BTreeSet<u32> =
                interfaces.filter(|it| it.carrier && !hears(it)).map(|it| it.index).collect();
            if deaf.is_empty() {
                return;
            }
            let interfaces = links.interfaces.iter_mut();
            interfaces.filter(|it| deaf.contains(&it.index)).for_each(|it| it.carrier = false);
        }
    }

    /// What lies below it, and below that.
    fn all_below(&self, index: u32) -> BTreeSet<u32> {
        let (mut found, mut next) = (BTreeSet::new(), vec![index]);
        while let Some(index) = next.pop() {
            let below = self.below.get(&index).into_iter().flatten();
            next.extend(below.filter(|it| found.insert(**it)));
        }
        found
    }

    /// Those below it by one of which each of its frames leaves the machine: the ports of a bridge that lead out, or what it is
    /// stacked on. None of a bridge that has no such ports, and of a bond, of which the kernel says rightly whether it hears.
    fn ways<'a>(&self, index: u32, links: &'a Links) -> Vec<&'a Interface> {
        let own = links.interface(index).and_then(|it| it.kind.as_deref()).unwrap_or_default();
        let below = self.below.get(&index).into_iter().flatten();
        let below = below.filter_map(|index| links.interface(*index));
        below.filter(|it| STACKED.contains(&own) || own == "bridge" && is_cable(it)).collect()
    }

    /// The one cable that all its frames leave by, and how often it, or what lies between, has begun to hear the other end. Of
    /// several cables another one goes on when one is lost, and the segment is as it was.
    fn counted(&self, index: u32, links: &Links) -> (Option<u32>, u32) {
        let Some(interface) = links.interface(index) else { return (Some(index), 0) };
        let (cable, below) = match self.ways(index, links)[..] {
            // Nothing lies below itself; the kernel allows eight layers.
            [only] if !self.all_below(only.index).contains(&index) => {
                self.counted(only.index, links)
            }
            [] | [_] => (Some(index), 0),
            _ => (None, 0),
        };
        (cable, interface.carrier_ups.wrapping_add(below))
    }
}

/// Whether a port leads out of the machine.
fn is_cable(port: &Interface) -> bool {
    port.kind.as_deref().is_none_or(|kind| CABLES.contains(&kind))
}

/// The device that the kernel names as the one below, if that is in this network namespace.
fn lower(message: &LinkMessage) -> Option<u32> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => found = Some(*index),
            LinkAttribute::LinkNetNsId(_) => return None,
            _ => {}
        }
    }
    found
}

/// The device that it is a member of.
pub(super) fn upper(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use arpeggio_wire::MacAddr;

    use super::*;
    use crate::interfaces::{Flaw, Medium};

    /// A device, what it is a member of, and what lies below it.
    struct Device {
        interface: Interface,
        attributes: Vec<LinkAttribute>,
    }

    fn device(index: u32, kind: Option<&str>) -> Device {
        let medium = Medium::Ethernet(MacAddr(2, 0, 0, 0, 0, 1));
        let interface = Interface {
            kind: kind.map(str::to_owned),
            ..Interface::new(index, format!("dev{index}"), medium)
        };
        Device { interface, attributes: Vec::new() }
    }

    impl Device {
        fn on(mut self, lower: u32) -> Self {
            self.attributes.push(LinkAttribute::Link(lower));
            self
        }

        fn in_another_namespace(mut self) -> Self {
            self.attributes.push(LinkAttribute::LinkNetNsId(0));
            self
        }

        fn port_of(mut self, upper: u32) -> Self {
            self.attributes.push(LinkAttribute::Controller(upper));
            self
        }

        fn radio(mut self) -> Self {
            self.interface.wireless = true;
            self
        }

        fn unplugged(mut self) -> Self {
            self.interface.carrier = false;
            self
        }

        fn ups(mut self, count: u32) -> Self {
            self.interface.carrier_ups = count;
            self
        }
    }

    fn settled(devices: Vec<Device>) -> Links {
        let message = |it: &Device| {
            let mut message = LinkMessage::default();
            message.header.index = it.interface.index;
            message.attributes.clone_from(&it.attributes);
            message
        };
        let messages: Vec<LinkMessage> = devices.iter().map(message).collect();
        let interfaces = devices.into_iter().map(|it| it.interface).collect();
        let mut links = Links { interfaces, default_routes: Vec::new() };
        let layers = Layers::new(&messages, &links.interfaces);
        layers.settle(&mut links);
        links
    }

    #[test]
    fn what_is_on_a_radio_is_wireless() {
        let table = [
            ("a VLAN", vec![device(2, None).radio(), device(3, Some("vlan")).on(2)], true),
            ("a VLAN of a cable", vec![device(2, None), device(3, Some("vlan")).on(2)], false),
            ("a macvlan", vec![device(2, None).radio(), device(3, Some("macvlan")).on(2)], true),
            (
                "a VLAN on a bond",
                vec![
                    device(2, None).radio().port_of(4),
                    device(3, Some("vlan")).on(4),
                    device(4, Some("bond")),
                    device(5, None).port_of(4),
                ],
                true,
            ),
            ("a bridge", vec![device(2, None).radio().port_of(3), device(3, Some("bridge"))], true),
            ("a VRF", vec![device(2, None).radio().port_of(3), device(3, Some("vrf"))], false),
            ("the other end", vec![device(2, None).radio(), device(3, Some("veth")).on(2)], false),
            (
                "a macvlan of another namespace's card with that index",
                vec![
                    device(2, None).radio(),
                    device(3, Some("macvlan")).on(2).in_another_namespace(),
                ],
                false,
            ),
        ];
        for (what, devices, expected) in table {
            assert_eq!(settled(devices).interface(3).unwrap().wireless, expected, "{what}");
        }
    }

    #[test]
    fn a_bridge_hears_its_segment_by_its_cables() {
        let bridge = || device(9, Some("bridge"));
        let pod = || device(8, Some("veth")).on(77).port_of(9);
        let cable = |index| device(index, None).port_of(9);
        let lost = Some(Flaw::NoCarrier);
        let table = [
            ("a cable and a pod", vec![cable(2), pod(), bridge()], None),
            ("the cable is out", vec![cable(2).unplugged(), pod(), bridge()], lost),
            ("one of two", vec![cable(2).unplugged(), cable(3), pod(), bridge()], None),
            ("both", vec![cable(2).unplugged(), cable(3).unplugged(), pod(), bridge()], lost),
            ("pods only", vec![pod(), bridge()], None),
            ("nothing", vec![bridge().unplugged()], lost),
            (
                "a bond of which one cable is out",
                vec![
                    device(2, None).unplugged().port_of(4),
                    device(3, None).port_of(4),
                    device(4, Some("bond")).port_of(9),
                    bridge(),
                ],
                None,
            ),
            (
                "a bond that has lost all",
                vec![
                    device(2, None).unplugged().port_of(4),
                    device(4, Some("bond")).unplugged().port_of(9),
                    pod(),
                    bridge(),
                ],
                lost,
            ),
        ];
        for (what, devices, expected) in table {
            assert_eq!(settled(devices).interface(9).unwrap().flaw(), expected, "{what}");
        }
    }

    #[test]
    fn what_is_on_a_bridge_hears_its_segment_by_the_cables_of_the_bridge() {
        let bridge = |index| device(index, Some("bridge"));
        let pod = || device(8, Some("veth")).on(77).port_of(3);
        let unplugged = || vec![device(2, None).unplugged().port_of(3), bridge(3), pod()];
        let with = |devices: [Device; 2]| unplugged().into_iter().chain(devices).collect();
        let lost = Some(Flaw::NoCarrier);
        let table: [(_, Vec<Device>, _); 9] = [
            (
                "a VLAN",
                vec![device(2, None).port_of(3), bridge(3), pod(), device(9, Some("vlan")).on(3)],
                None,
            ),
            ("its cable is out", with([device(9, Some("vlan")).on(3), device(10, None)]), lost),
            ("macvlan", with([device(9, Some("macvlan")).on(3), device(10, None)]), lost),
            ("macvtap", with([device(9, Some("macvtap")).on(3), device(10, None)]), lost),
            (
                "a VLAN of a VLAN",
                with([device(9, Some("vlan")).on(10), device(10, Some("vlan")).on(3)]),
                lost,
            ),
            (
                "a bridge whose only cable is such a VLAN",
                with([bridge(9), device(10, Some("vlan")).on(3).port_of(9)]),
                lost,
            ),
            (
                "a macvlan of another namespace's bridge",
                with([device(9, Some("macvlan")).on(3).in_another_namespace(), device(10, None)]),
                None,
            ),
            ("on what is not there", vec![device(9, Some("vlan")).on(3)], None),
            ("a loop", vec![device(2, Some("vlan")).on(9), device(9, Some("vlan")).on(2)], None),
        ];
        for (what, devices, expected) in table {
            assert_eq!(settled(devices).interface(9).unwrap().flaw(), expected, "{what}");
        }
    }

    #[test]
    fn a_cable_that_was_out_for_a_moment_is_known_above_it_unless_there_is_another() {
        let bridge = |index| device(index, Some("bridge"));
        let cable = |index| device(index, None).port_of(9);
        let pod = || device(8, Some("veth")).on(77).ups(7).port_of(9);
        let table = [
            ("a card", vec![device(9, None).ups(5)], (Some(9), 5)),
            ("a VLAN", vec![device(2, None).ups(5), device(9, Some("vlan")).on(2)], (Some(2), 6)),
            ("a bridge", vec![cable(2).ups(5), pod(), bridge(9)], (Some(2), 6)),
            ("of pods only", vec![pod(), bridge(9)], (Some(9), 1)),
            ("with two cables", vec![cable(2).ups(5), cable(3), bridge(9)], (None, 1)),
            (
                "a VLAN on one with two cables",
                vec![
                    device(2, None).ups(5).port_of(4),
                    device(3, None).port_of(4),
                    bridge(4).ups(3),
                    device(9, Some("vlan")).on(4),
                ],
                (None, 4),
            ),
            ("a bond", vec![cable(2).ups(5), device(9, Some("bond"))], (Some(9), 1)),
            (
                "a loop",
                vec![device(2, Some("vlan")).on(9), device(9, Some("vlan")).on(2)],
                (Some(9), 1),
            ),
        ];
        for (what, devices, expected) in table {
            let links = settled(devices);
            let found = links.interface(9).unwrap();
            assert_eq!((found.only_cable, found.carrier_ups), expected, "{what}");
        }
    }
}
