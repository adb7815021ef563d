//! A node's interfaces, as its speaker writes them on its session.

use std::net::IpAddr;

use arpeggio_election::{Families, Interface, Reach};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address_pool::is_false;

/// An interface on a session, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenInterface {
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subnets: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranks: Vec<u8>,
    /// The families whose default route leaves by it: 4, 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    default: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gateways: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "is_false")]
    wireless: bool,
    #[serde(default, rename = "cutOff", skip_serializing_if = "is_false")]
    cut_off: bool,
    /// The families that are not cut off though `cut_off` says so, which is all that an earlier release reads: 4, 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    usable: Vec<u8>,
}

/// The text of a session's annotation.
pub(crate) fn to_text(reach: &Reach) -> String {
    let written: Vec<WrittenInterface> =
        reach.interfaces.iter().map(WrittenInterface::from).collect();
    // A structure of texts and lists can always be written.
    serde_json::to_string(&written).unwrap_or_default()
}

/// What a session's annotation says; `None` when it is not understood, which is as good as absent.
pub(crate) fn from_text(text: &str) -> Option<Reach> {
    let written: Vec<WrittenInterface> = serde_json::from_str(text).ok()?;
    Some(Reach { interfaces: written.into_iter().map(Interface::from).collect() })
}

impl From<&Interface> for WrittenInterface {
    fn from(interface: &Interface) -> Self {
        let (default_ipv4, default_ipv6) = (interface.default_ipv4, interface.default_ipv6);
        let default = Families { ipv4: default_ipv4, ipv6: default_ipv6 };
        let is_cut_off = interface.cut_off != Families::NONE;
        let usable = Families { ipv4: is_cut_off, ipv6: is_cut_off }.without(interface.cut_off);
        Self {
            name: interface.name.clone(),
            subnets: interface.subnets.clone(),
            ranks: interface.ranks.clone(),
            default: numbers(default),
            gateways: interface.gateways.clone(),
            wireless: interface.wireless,
            cut_off: is_cut_off,
            usable: numbers(usable),
        }
    }
}

impl From<WrittenInterface> for Interface {
    fn from(written: WrittenInterface) -> Self {
        let default = families(&written.default);
        let cut_off = Families { ipv4: written.cut_off, ipv6: written.cut_off };
        Self {
            default_ipv4: default.ipv4,
            default_ipv6: default.ipv6,
            name: written.name,
            subnets: written.subnets,
            ranks: written.ranks,
            gateways: written.gateways,
            wireless: written.wireless,
            cut_off: cut_off.without(families(&written.usable)),
        }
    }
}

/// As they are written: 4, 6.
fn numbers(families: Families) -> Vec<u8> {
    let numbers = [(families.ipv4, 4), (families.ipv6, 6)];
    numbers.into_iter().filter(|(is, _)| *is).map(|(_, number)| number).collect()
}

fn families(numbers: &[u8]) -> Families {
    Families { ipv4: numbers.contains(&4), ipv6: numbers.contains(&6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let lan = Interface {
            name: "eth0".into(),
            subnets: vec!["192.168.0.11/24".parse().unwrap(), "fd00::11/64".parse().unwrap()],
            ranks: vec![0, 1],
            default_ipv4: true,
            default_ipv6: false,
            gateways: vec!["192.168.0.1".parse().unwrap()],
            wireless: false,
            cut_off: Families::NONE,
        };
        let wifi = Interface { name: "wlan0".into(), wireless: true, ..Interface::default() };
        let off = Interface { name: "eth2".into(), cut_off: Families::ALL, ..Interface::default() };
        let half = Families { ipv4: false, ipv6: true };
        let half = Interface { name: "eth3".into(), cut_off: half, ..Interface::default() };
        let dmz = Interface { name: "eth1".into(), ..Interface::default() };
        let reach = Reach { interfaces: vec![lan, wifi, half, off, dmz] };
        let text = to_text(&reach);
        assert_eq!(from_text(&text), Some(reach));
        let end = r#"{"name":"eth3","cutOff":true,"usable":[4]},{"name":"eth2","cutOff":true},{"name":"eth1"}]"#;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn damage_is_as_good_as_absence() {
        for text in ["", "x", "[{}]", r#"[{"name":"eth0","subnets":["192.168.0.11"]}]"#] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
