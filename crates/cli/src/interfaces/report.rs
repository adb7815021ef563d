//! What is said about a snapshot of the interfaces.

use std::net::IpAddr;

use arpeggio_link::interfaces::{Address, DefaultRoute, Family, Interface, Links, Unfit};
use ipnet::IpNet;
use serde::Serialize;

use super::choice::Choice;
use crate::{status::section, table};

/// A table shows no more addresses of one interface: kube-proxy in IPVS mode keeps every Service's on one.
const MOST_ADDRESSES: usize = 4;

/// The interfaces and default routes of a machine, and where one address is announced if somebody asks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    interfaces: Vec<Row>,
    default_routes: Vec<Route>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Choice>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    index: u32,
    /// The driver's kind of a virtual interface.
    kind: Option<String>,
    /// The kind of the interface that it is a member of.
    member_of: Option<String>,
    mac: Option<String>,
    up: bool,
    carrier: bool,
    wireless: bool,
    addresses: Vec<IpNet>,
    /// Those that are not like others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marked: Vec<Marked>,
    /// The families whose addresses are announced here.
    announces: Vec<&'static str>,
    /// One word for why nothing is, when the interface cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    flaw: Option<&'static str>,
    /// The same for people, and what else they should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

/// An address that is not, or not before others, asked from and told to other nodes.
#[derive(Debug, Serialize)]
struct Marked {
    address: IpAddr,
    /// One word for what the kernel says of it.
    state: &'static str,
    /// Why it is not used at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Route {
    family: &'static str,
    interface: String,
    gateway: Option<IpAddr>,
    metric: u32,
}

impl Report {
    /// What there is to say about these interfaces, and about an address.
    pub(super) fn of(links: &Links, address: Option<Choice>) -> Self {
        Self {
            interfaces: links.interfaces.iter().map(|it| Row::of(it, links)).collect(),
            default_routes: links.default_routes.iter().map(|it| Route::of(it, links)).collect(),
            address,
        }
    }

    /// Tables as kubectl prints them; with an address, first what became of it.
    pub(super) fn to_text(&self) -> String {
        let choice = self.address.as_ref().map(|choice| choice.to_text() + "\n\n");
        let interfaces: Vec<_> = self.interfaces.iter().map(Row::cells).collect();
        let routes: Vec<_> = self.default_routes.iter().map(Route::cells).collect();
        [
            choice.unwrap_or_default(),
            table::render(["NAME", "KIND", "MAC", "ADDRESSES", "ANNOUNCES"], &interfaces),
            "\n".to_owned(),
            section("no default route\n", ["DEFAULT", "INTERFACE", "GATEWAY", "METRIC"], &routes),
        ]
        .concat()
    }
}

impl Row {
    fn of(interface: &Interface, links: &Links) -> Self {
        let flaw = interface.flaw();
        let is_left_out = links.left_out(&[]).contains(&interface.name);
        let families: Vec<Family> = match flaw {
            Some(_) => Vec::new(),
            None if is_left_out => Vec::new(),
            None => [Family::V4, Family::V6]
                .into_iter()
                .filter(|family| leads_here(interface, *family, links))
                .collect(),
        };
        let elsewhere = links.announced_elsewhere(interface).into_iter();
        let elsewhere: Vec<String> = elsewhere
            .map(|(net, it)| format!("addresses in {net} rather on {}", it.name))
            .collect();
        let remark = match flaw {
            Some(flaw) => Some(format!("it {flaw}")),
            None if is_left_out => Some(Unfit::TooMany.to_string()),
            None if families.is_empty() => {
                Some("no subnet and no default route here, unless a rule names it".to_owned())
            }
            None if !elsewhere.is_empty() => Some(elsewhere.join(", ")),
            None => (families.contains(&Family::V6) && !interface.has_link_local()).then(|| {
                "no link-local IPv6 address, so some switches deliver no questions".into()
            }),
        };
        Self {
            name: interface.name.clone(),
            index: interface.index,
            kind: interface.kind.clone(),
            member_of: interface.member_of.clone(),
            mac: interface.mac().map(|mac| mac.to_string()),
            up: interface.up,
            carrier: interface.carrier,
            wireless: interface.wireless,
            addresses: interface.addresses.iter().map(|it| it.net).collect(),
            marked: interface.addresses.iter().filter_map(Marked::of).collect(),
            announces: families.into_iter().map(Family::name).collect(),
            flaw: flaw.map(arpeggio_link::interfaces::Flaw::label),
            remark,
        }
    }

    fn cells(&self) -> [String; 5] {
        [
            self.name.clone(),
            self.kind.clone().unwrap_or_else(|| "-".to_owned()),
            self.mac.clone().unwrap_or_else(|| "-".to_owned()),
            self.some_addresses(),
            self.verdict(),
        ]
    }

    fn some_addresses(&self) -> String {
        if self.addresses.is_empty() {
            return "-".to_owned();
        }
        let mark = |net: &IpNet| self.marked.iter().find(|it| it.address == net.addr());
        let shown = self.addresses.iter().take(MOST_ADDRESSES).map(|net| {
            mark(net).map_or_else(|| net.to_string(), |mark| format!("{net} ({})", mark.state))
        });
        let shown = shown.collect::<Vec<_>>().join(",");
        match self.addresses.len().saturating_sub(MOST_ADDRESSES) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    fn verdict(&self) -> String {
        let verdict = match (self.announces.join(", "), &self.remark) {
            (families, None) => families,
            (families, Some(remark)) if families.is_empty() => format!("nothing: {remark}"),
            (families, Some(remark)) => format!("{families}; {remark}"),
        };
        let unused = self
            .marked
            .iter()
            .filter_map(|it| Some(format!("{} is not used: {}", it.address, it.unused?)));
        [verdict].into_iter().chain(unused).collect::<Vec<_>>().join("; ")
    }
}

impl Marked {
    fn of(address: &Address) -> Option<Self> {
        let state = address.state.label()?;
        Some(Self { address: address.net.addr(), state, unused: address.state.why_not() })
    }
}

impl Route {
    fn of(route: &DefaultRoute, links: &Links) -> Self {
        let interface = links.interface(route.interface);
        Self {
            family: route.family.name(),
            interface: interface.map_or_else(|| route.interface.to_string(), |it| it.name.clone()),
            gateway: route.gateway,
            metric: route.metric,
        }
    }

    fn cells(&self) -> [String; 4] {
        let gateway = self.gateway.map_or_else(|| "-".to_owned(), |gateway| gateway.to_string());
        [self.family.to_owned(), self.interface.clone(), gateway, self.metric.to_string()]
    }
}

/// Whether addresses of a family are announced on an interface, if it has no flaw: those of a subnet, or those of none.
fn leads_here(interface: &Interface, family: Family, links: &Links) -> bool {
    interface.has_subnet(family) || links.default_interface(family) == Some(interface.index)
}

#[cfg(test)]
pub(super) mod tests {
    use arpeggio_link::interfaces::{AddressState, Medium, RouterPreference};
    use arpeggio_wire::MacAddr;

    use super::*;
    use crate::interfaces::rules::Rules;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let medium = Medium::Ethernet(MacAddr(2, 0, 0, 0, 0, 1));
        let addresses = addresses.iter().map(|it| it.parse::<IpNet>().unwrap().into()).collect();
        Interface { addresses, ..Interface::new(index, name, medium) }
    }

    fn links(interfaces: Vec<Interface>) -> Links {
        let gateway = Some([192, 0, 2, 1].into());
        let preference = RouterPreference::Medium;
        let route =
            DefaultRoute { family: Family::V4, interface: 2, gateway, metric: 100, preference };
        Links { interfaces, default_routes: vec![route] }
    }

    pub(crate) fn node() -> Links {
        let lo = Interface { medium: Medium::Loopback, ..interface(1, "lo", &["127.0.0.1/8"]) };
        let bridge = Interface {
            kind: Some("bridge".to_owned()),
            ..interface(2, "br0", &["192.0.2.2/24", "fe80::2/64"])
        };
        let member =
            Interface { member_of: Some("bridge".to_owned()), ..interface(3, "eth0", &[]) };
        let down = Interface { up: false, ..interface(4, "eth1", &["198.51.100.2/24"]) };
        let pod = interface(5, "veth1", &["fe80::5/64"]);
        let v6 = interface(6, "eth2", &["2001:db8::2/64"]);
        links(vec![lo, bridge, member, down, pod, v6])
    }

    #[test]
    fn every_interface_has_a_verdict() {
        let expected = "\
NAME    KIND     MAC                 ADDRESSES                 ANNOUNCES
lo      -        -                   127.0.0.1/8               nothing: it is a loopback interface, which has no neighbours
br0     bridge   02:00:00:00:00:01   192.0.2.2/24,fe80::2/64   IPv4
eth0    -        02:00:00:00:00:01   -                         nothing: it is a member of another one: put the subnet's address on the bridge or bond instead
eth1    -        02:00:00:00:00:01   198.51.100.2/24           nothing: it is down: bring it up
veth1   -        02:00:00:00:00:01   fe80::5/64                nothing: no subnet and no default route here, unless a rule names it
eth2    -        02:00:00:00:00:01   2001:db8::2/64            IPv6; no link-local IPv6 address, so some switches deliver no questions

DEFAULT   INTERFACE   GATEWAY     METRIC
IPv4      br0         192.0.2.1   100
";
        assert_eq!(Report::of(&node(), None).to_text(), expected);
    }

    #[test]
    fn a_machine_without_a_default_route_says_so() {
        let report = Report::of(&Links::default(), None);
        assert!(report.to_text().ends_with("no default route\n"));
    }

    #[test]
    fn many_addresses_are_counted() {
        let nets: Vec<String> = (1..=6).map(|it| format!("192.0.2.{it}/32")).collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let text = Report::of(&links(vec![interface(9, "ipvs0", &nets)]), None).to_text();
        assert!(text.contains("192.0.2.4/32 and 2 more   nothing: no subnet"), "{text}");
    }

    #[test]
    fn of_two_interfaces_in_one_subnet_the_one_that_yields_says_so() {
        let two =
            [interface(2, "wlan0", &["192.0.2.2/24"]), interface(3, "eth0", &["192.0.2.3/24"])];
        let mut links = links(two.into());
        links.interfaces[0].wireless = true;
        let text = Report::of(&links, None).to_text();
        let verdict = |name: &str| text.lines().find(|it| it.starts_with(name)).unwrap();
        assert!(
            verdict("wlan0").ends_with("IPv4; addresses in 192.0.2.0/24 rather on eth0"),
            "{text}"
        );
        assert!(verdict("eth0").ends_with("IPv4"), "{text}");
        let json = serde_json::to_value(Report::of(&links, None)).unwrap();
        assert_eq!(json["interfaces"][0]["wireless"], true);
    }

    #[test]
    fn what_there_is_no_room_for_is_said() {
        let one = |it: u32| interface(it, &format!("eth{it}"), &[&format!("10.{it}.0.1/16")]);
        let text = Report::of(&links((1..=65).map(one).collect()), None).to_text();
        let left_out: Vec<&str> = text.lines().filter(|it| it.contains("more than 64")).collect();
        assert!(left_out.len() == 1 && left_out[0].starts_with("eth65"), "{left_out:?}");
    }

    #[test]
    fn addresses_that_are_not_like_others_are_marked() {
        let mut eth0 = interface(9, "eth0", &["fe80::9/64", "2001:db8::5/64", "2001:db8::6/64"]);
        eth0.addresses[1].state = AddressState::Temporary;
        eth0.addresses[2].state = AddressState::Duplicate;
        let report = Report::of(&links(vec![eth0]), None);
        let text = report.to_text();
        let expected = "fe80::9/64,2001:db8::5/64 (temporary),2001:db8::6/64 (duplicate)   IPv6; 2001:db8::6 is not used: \
                        another machine had it when the kernel asked: give one of both another address\n";
        assert!(text.contains(expected), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        let marked = &json["interfaces"][0]["marked"];
        assert_eq!(marked[0]["state"], "temporary");
        assert!(marked[0].get("unused").is_none() && marked[1].get("unused").is_some());
    }

    #[test]
    fn programs_get_every_field() {
        let choice = Choice::of([192, 0, 2, 240].into(), &node(), &Rules::NoLock);
        let report = Report::of(&node(), Some(choice));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["interfaces"][0]["flaw"], "loopback");
        assert_eq!(json["interfaces"][1]["announces"][0], "IPv4");
        assert_eq!(json["interfaces"][2]["memberOf"], "bridge");
        assert_eq!(json["defaultRoutes"][0]["metric"], 100);
        assert_eq!(json["address"]["interfaces"][0], "br0");
        assert_eq!(json["address"]["remarks"].as_array().unwrap().len(), 1);
    }
}
