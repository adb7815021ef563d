//! Where this node's kernel drops what it would answer by another interface. Anybody may read its settings.

use std::fs;

use arpeggio_doctor::survey::StrictPath;
use arpeggio_link::interfaces::{Family, Interface, Links};
use ipnet::IpNet;

/// The value of `rp_filter` that has it do so. The higher one of the interface's and that of all counts.
const STRICT: u32 = 1;

/// The interfaces that have neighbours, and on which machines beyond a router are not heard.
pub(super) fn strict(links: &Links) -> Vec<StrictPath> {
    of(links, |name| Some(setting("all")?.max(setting(name)?)))
}

fn of(links: &Links, setting: impl Fn(&str) -> Option<u32>) -> Vec<StrictPath> {
    let mut routes = links.default_routes.iter().filter(|it| it.family == Family::V4);
    let default = routes.next().map(|it| it.interface);
    let by = links.interfaces.iter().find(|it| Some(it.index) == default);
    let Some(by) = by else { return Vec::new() };
    let path = |it: &Interface| StrictPath {
        interface: it.name.clone(),
        subnets: it
            .addresses
            .iter()
            .map(|it| it.net)
            .filter(|it| matches!(it, IpNet::V4(_)))
            .collect(),
        default_by: by.name.clone(),
    };
    let others = links.interfaces.iter().filter(|it| it.index != by.index && it.flaw().is_none());
    others.filter(|it| setting(&it.name) == Some(STRICT)).map(path).collect()
}

fn setting(name: &str) -> Option<u32> {
    // A name with a dot, as VLANs have, is a folder like any other one.
    let value = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use arpeggio_link::interfaces::{DefaultRoute, Medium, RouterPreference};
    use arpeggio_wire::MacAddr;

    use super::*;

    fn interface(index: u32, name: &str, net: &str) -> Interface {
        let medium = Medium::Ethernet(MacAddr(2, 0, 0, 0, 0, 1));
        let addresses = vec![net.parse::<IpNet>().unwrap().into()];
        Interface { addresses, ..Interface::new(index, name, medium) }
    }

    #[test]
    fn the_interface_of_the_default_route_is_never_too_strict() {
        let route = |interface| DefaultRoute {
            family: Family::V4,
            interface,
            gateway: None,
            metric: 0,
            preference: RouterPreference::Medium,
        };
        let links = |routes: Vec<DefaultRoute>| Links {
            interfaces: vec![
                interface(2, "eth0", "192.168.0.11/24"),
                interface(3, "eth1", "10.7.0.11/24"),
            ],
            default_routes: routes,
        };
        let names = |links: &Links, setting| -> Vec<String> {
            of(links, |_| setting).into_iter().map(|it| it.interface).collect()
        };
        assert_eq!(names(&links(vec![route(2), route(3)]), Some(1)), ["eth1"]);
        let none: [&str; 0] = [];
        assert_eq!(names(&links(vec![route(2)]), Some(2)), none, "any way back will do");
        assert_eq!(names(&links(vec![route(2)]), None), none);
        assert_eq!(
            names(&links(vec![]), Some(1)),
            none,
            "nobody beyond a router is answered at all"
        );
    }
}
