//! One consistent view of interfaces, addresses and default routes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use arpeggio_election::Pattern;
use arpeggio_wire::MacAddr;
use ipnet::IpNet;

/// The interfaces and default routes of one network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// All interfaces, by rising index.
    pub interfaces: Vec<Interface>,
    /// The default routes of the main table, preferred ones (lowest metric) first.
    pub default_routes: Vec<DefaultRoute>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; given to another interface some time after this one is gone.
    pub index: u32,
    /// Its name now; an administrator can change it at any time.
    pub name: String,
    /// What is at the other end.
    pub medium: Medium,
    /// The kernel's name for the driver kind of a virtual interface (`vlan`, `bridge`, `veth`);
    /// `None` for hardware (`IFLA_INFO_KIND`).
    pub kind: Option<String>,
    /// The kind of the interface that this one is a member of (`bridge`, `bond`, `vrf`); `None`
    /// when it stands alone (`IFLA_INFO_SLAVE_KIND`).
    pub member_of: Option<String>,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether it hears the other end (`IFF_LOWER_UP`). A bridge with cables does by one of these.
    pub carrier: bool,
    /// Whether it is a radio, or leads to its segment by one, as far as the kernel says.
    pub wireless: bool,
    /// How often it, or the one cable below it, has begun to hear it (`IFLA_CARRIER_UP_COUNT`).
    /// Tells of a carrier that was lost and came back in a moment, which the kernel reports as one
    /// change.
    pub carrier_ups: u32,
    /// The index of the device, itself perhaps, that all its frames leave the machine by; `None`
    /// when there are several, of which the others go on when one is lost. The counts of different
    /// devices have nothing to do with one another.
    pub only_cable: Option<u32>,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// The subnets that a route without a router leads to by it, and that none of its addresses
    /// names: a DHCP server of IPv6 gives a `/128`, and the router says what is on the link.
    pub on_link: Vec<OnLink>,
}

impl Interface {
    /// A card that is switched on and hears the other end, without an address.
    pub fn new(index: u32, name: impl Into<String>, medium: Medium) -> Self {
        Self {
            index,
            name: name.into(),
            medium,
            kind: None,
            member_of: None,
            up: true,
            carrier: true,
            wireless: false,
            carrier_ups: 1,
            only_cable: Some(index),
            addresses: Vec::new(),
            on_link: Vec::new(),
        }
    }
}

/// One of an interface's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address and the prefix length of its subnet.
    pub net: IpNet,
    /// Whether it is in use.
    pub state: AddressState,
    /// The metric of the route to its subnet by this interface; `None` when there is none.
    pub metric: Option<u32>,
}

/// A subnet that a route without a router leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnLink {
    /// The subnet, without an address of this node in it.
    pub net: IpNet,
    /// The metric of the route.
    pub metric: u32,
}

/// A subnet in which an interface finds neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// With this node's own address in it if one is in use, and else with none.
    pub net: IpNet,
    /// That address.
    pub own: Option<IpAddr>,
}

/// How an interface leads to a subnet. Of several the kernel takes the least, and the user would rather have a wire where the
/// kernel does not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    prefix_length: Reverse<u8>,
    metric: u32,
    wireless: bool,
    index: u32,
}

/// How far an address can be used; what is to be preferred comes first.
///
/// The kernel answers for an address, and sends from it, only once it knows that nobody else has it
/// (duplicate address detection). The subnet is there whatever becomes of that: it says which
/// segment the interface leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressState {
    /// It is to be used.
    #[default]
    Preferred,
    /// It is another one tomorrow (RFC 8981).
    Temporary,
    /// It is on its way out (RFC 4862 section 5.5.4).
    Deprecated,
    /// Others are still being asked whether they have it.
    Tentative,
    /// Another machine has it.
    Duplicate,
}

/// What an interface connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A segment where neighbours find one another by MAC address; this interface's is given.
    Ethernet(MacAddr),
    /// This machine itself.
    Loopback,
    /// Exactly one neighbour, which needs no MAC address.
    PointToPoint,
    /// Anything else, also Ethernet without address resolution (`IFF_NOARP`).
    Other,
}

/// A route to everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Which addresses it is for.
    pub family: Family,
    /// Index of the interface that it leaves by.
    pub interface: u32,
    /// The next router; `None` when everybody is reached directly.
    pub gateway: Option<IpAddr>,
    /// The kernel prefers the lowest (`RTA_PRIORITY`).
    pub metric: u32,
    /// What the router says of itself decides between equal metrics (`RTA_PREF`, RFC 4191).
    pub preference: RouterPreference,
}

/// How much a router wants to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouterPreference {
    /// Rather than others.
    High,
    /// As any other.
    #[default]
    Medium,
    /// When there is no other.
    Low,
}

/// The version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Why an interface cannot announce anything now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Flaw {
    /// It leads to this machine itself.
    #[error("is a loopback interface, which has no neighbours")]
    Loopback,
    /// It has one neighbour only, which asks for no address.
    #[error("is a point-to-point link, where nobody asks for addresses")]
    PointToPoint,
    /// It has neither ARP nor NDP.
    #[error("is not an Ethernet link with address resolution")]
    NotEthernet,
    /// It is part of a bridge, bond or team, which speaks for it.
    #[error("is a member of another one: put the subnet's address on the bridge or bond instead")]
    Member,
    /// It is switched off.
    #[error("is down: bring it up")]
    Down,
    /// It is switched on and hears nobody.
    #[error("has no carrier: check cable and switch port")]
    NoCarrier,
}

impl Flaw {
    /// A stable name in `snake_case` for a metric's `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::PointToPoint => "point_to_point",
            Self::NotEthernet => "not_ethernet",
            Self::Member => "member",
            Self::Down => "down",
            Self::NoCarrier => "no_carrier",
        }
    }
}

impl Links {
    /// The interface with this index.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        let position = self.interfaces.binary_search_by_key(&index, |it| it.index);
        position.ok().map(|position| &self.interfaces[position])
    }

    /// The MAC address of the interface with this name.
    pub fn mac_of(&self, name: &str) -> Option<MacAddr> {
        self.interfaces.iter().find(|it| it.name == name)?.mac()
    }

    /// Whether `address` is in a subnet of one of the interfaces, whatever state that is in.
    pub fn is_beside(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|it| it.subnet_of(address).is_some())
    }

    /// Whether a service proxy of this node keeps `address` as that of a Service.
    pub fn is_for_services(&self, address: IpAddr) -> bool {
        let mut of_services = self.interfaces.iter().filter(|it| it.is_for_services());
        of_services.any(|it| it.addresses.iter().any(|own| own.net.addr() == address))
    }
}

impl Interface {
    /// The MAC address, if neighbours are found by it here.
    pub fn mac(&self) -> Option<MacAddr> {
        match self.medium {
            Medium::Ethernet(mac) => Some(mac),
            Medium::Loopback | Medium::PointToPoint | Medium::Other => None,
        }
    }

    /// Whether it has lost its segment since `before`, or at a moment since, and hears it again. Not when another cable of several
    /// was put in or taken out: the others went on.
    pub fn has_returned(&self, before: &Self) -> bool {
        match (before.only_cable, self.only_cable) {
            (None, Some(_)) | (Some(_), None) => false,
            (then, now) => then != now || before.carrier_ups != self.carrier_ups,
        }
    }

    /// What keeps this interface from announcing anything now; lasting flaws come first.
    pub fn flaw(&self) -> Option<Flaw> {
        match self.medium {
            Medium::Loopback => return Some(Flaw::Loopback),
            Medium::PointToPoint => return Some(Flaw::PointToPoint),
            Medium::Other => return Some(Flaw::NotEthernet),
            Medium::Ethernet(_) => {}
        }
        // A VRF groups interfaces for routing only; each stays on its own segment.
        let is_member = self.member_of.as_deref().is_some_and(|kind| kind != "vrf");
        match (is_member, self.up, self.carrier) {
            (true, _, _) => Some(Flaw::Member),
            (_, false, _) => Some(Flaw::Down),
            (_, _, false) => Some(Flaw::NoCarrier),
            (false, true, true) => None,
        }
    }

    /// Whether it may be one to announce on though it has no address. By its kind, if that is one
    /// that leads out of the machine; each pod has one of the others, so that one of them has to be
    /// named in full.
    pub fn may_be_named(&self, named: &[Pattern]) -> bool {
        let leads_out = match self.kind.as_deref() {
            None => true,
            Some(kind) => ["vlan", "bond", "team", "bridge", "macvlan"].contains(&kind),
        };
        leads_out || named.iter().any(|it| it.as_str() == self.name)
    }

    /// Whether it speaks for a segment, now or when it hears it again.
    pub(super) fn is_on_segment(&self) -> bool {
        matches!(self.flaw(), None | Some(Flaw::Down | Flaw::NoCarrier))
    }

    /// Whether a service proxy keeps the addresses of Services here, which are no node's: kube-proxy in IPVS mode and
    /// kube-router have a dummy interface for them, on every node, whose name nobody can change.
    pub fn is_for_services(&self) -> bool {
        let of_proxies = ["kube-ipvs0", "kube-dummy-if"];
        self.kind.as_deref() == Some("dummy") && of_proxies.contains(&self.name.as_str())
    }

    /// The addresses that the kernel answers for and sends from.
    pub fn usable_addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(|it| it.state.is_usable())
    }

    /// Its subnets, each once, with one of its own addresses that lasts: a node can have thousands in one subnet.
    pub fn subnets(&self) -> Vec<Subnet> {
        let mut named: Vec<&Address> =
            self.addresses.iter().filter(|it| has_neighbours(&it.net)).collect();
        named.sort_by_key(|it| it.state);
        let mut seen = BTreeSet::new();
        named.retain(|it| seen.insert(it.net.trunc()));
        let named = named.into_iter().map(Address::in_subnet);
        named.chain(self.on_link.iter().map(|it| self.in_routed(it.net))).collect()
    }

    /// A subnet that none of its addresses names, with the one of them that is in it all the same.
    fn in_routed(&self, net: IpNet) -> Subnet {
        let inside = self.usable_addresses().filter(|it| net.contains(&it.net.addr()));
        let own = inside.min_by_key(|it| it.state).map(|it| it.net.addr());
        let named = own.and_then(|own| IpNet::new(own, net.prefix_len()).ok());
        Subnet { net: named.unwrap_or(net), own }
    }

    /// Whether another machine at `address` is on its segment, as far as its subnets say.
    pub fn has_neighbour(&self, address: IpAddr) -> bool {
        let mut named = self.addresses.iter().map(Address::subnet).filter(has_neighbours);
        let is_named = named.any(|net| net.contains(&address) && net.addr() != address);
        is_named || self.is_on_link(address) && !self.has(address)
    }

    /// Whether a route without a router leads to `address` by it, whose subnet none of its addresses names.
    fn is_on_link(&self, address: IpAddr) -> bool {
        self.on_link.iter().any(|it| it.net.contains(&address))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.net.addr() == address)
    }

    /// This node's own address to ask `peer` from: in the peer's subnet if there is one, else any of
    /// its family. Of several it is one that lasts.
    pub fn source_for(&self, peer: IpAddr) -> Option<IpAddr> {
        let of_family =
            self.usable_addresses().filter(|it| Family::of(it.net.addr()) == Family::of(peer));
        let routed = self.on_link.iter().filter(|it| it.net.contains(&peer));
        let routed: Vec<IpNet> = routed.map(|it| it.net).collect();
        let is_beside =
            |own: &IpNet| own.contains(&peer) || routed.iter().any(|net| net.contains(&own.addr()));
        let best = of_family.min_by_key(|it| (!is_beside(&it.net), it.state));
        best.map(|it| it.net.addr())
    }

    /// The most specific of this interface's subnets that contain `address`. One without room for
    /// neighbours (`/32`, `/128`) is none.
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        self.nets()
            .filter(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
            .max_by_key(IpNet::prefix_len)
            .map(|net| net.trunc())
    }

    /// How it leads to a neighbour; `None` when none of its subnets contains the address.
    pub fn way_to(&self, neighbour: IpAddr) -> Option<Way> {
        self.ways().filter(|(net, _)| net.contains(&neighbour)).map(|(_, way)| way).min()
    }

    /// How it leads to one of its subnets.
    pub(super) fn way_into(&self, subnet: IpNet) -> Option<Way> {
        self.ways().filter(|(net, _)| net.trunc() == subnet.trunc()).map(|(_, way)| way).min()
    }

    /// How it leads to its subnets: once for each of its addresses there.
    fn ways(&self) -> impl Iterator<Item = (IpNet, Way)> {
        let named = self.addresses.iter().filter(|it| has_neighbours(&it.net));
        let named = named.map(|it| (it.net, it.metric.unwrap_or(u32::MAX)));
        let all = named.chain(self.on_link.iter().map(|it| (it.net, it.metric)));
        all.map(|(net, metric)| {
            let prefix_length = Reverse(net.prefix_len());
            let way = Way { prefix_length, metric, wireless: self.wireless, index: self.index };
            (net, way)
        })
    }

    /// Whether it has a subnet of a family, with room for neighbours.
    pub fn has_subnet(&self, family: Family) -> bool {
        self.nets_with_neighbours().any(|net| Family::of(net.addr()) == family)
    }

    /// Whether it has a link-local IPv6 address, or has one in a moment, which the kernel reports
    /// group memberships from (RFC 3810 section 5).
    pub fn has_link_local(&self) -> bool {
        let ours = self.addresses.iter().filter(|it| it.state != AddressState::Duplicate);
        ours.map(|it| it.net.addr()).any(is_link_local)
    }

    /// The subnets in which it finds neighbours, once for each of its addresses and its routes there.
    pub fn nets_with_neighbours(&self) -> impl Iterator<Item = IpNet> {
        self.nets().filter(has_neighbours)
    }

    /// The nets of its addresses, and those that its routes alone lead to.
    pub(super) fn nets(&self) -> impl Iterator<Item = IpNet> {
        let named = self.addresses.iter().map(|it| it.net);
        named.chain(self.on_link.iter().map(|it| it.net))
    }
}

impl Address {
    /// The subnet, with this node's own address in it if that is in use, and else with none.
    fn subnet(&self) -> IpNet {
        if self.state.is_usable() { self.net } else { self.net.trunc() }
    }

    fn in_subnet(&self) -> Subnet {
        Subnet { net: self.subnet(), own: self.state.is_usable().then(|| self.net.addr()) }
    }
}

/// An address that is in use.
impl From<IpNet> for Address {
    fn from(net: IpNet) -> Self {
        Self { net, state: AddressState::default(), metric: Some(0) }
    }
}

impl AddressState {
    /// One word for it; `None` for what is as usual.
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Preferred => None,
            Self::Temporary => Some("temporary"),
            Self::Deprecated => Some("deprecated"),
            Self::Tentative => Some("tentative"),
            Self::Duplicate => Some("duplicate"),
        }
    }

    /// Why the address is not used, if it is not.
    pub const fn why_not(self) -> Option<&'static str> {
        match self {
            Self::Preferred | Self::Temporary | Self::Deprecated => None,
            Self::Tentative => Some("the kernel is still asking whether another machine has it"),
            Self::Duplicate => Some(
                "another machine had it when the kernel asked: give one of both another address",
            ),
        }
    }

    /// Whether the kernel answers for the address and sends from it.
    pub fn is_usable(self) -> bool {
        self < Self::Tentative
    }
}

/// Whether an address says that others like it are on the same segment. One without room for others
/// (`/32`, `/128`) does not, nor does a link-local IPv6 address: every interface has one, also a
/// pod's, and nobody's Services are among them.
pub fn has_neighbours(net: &IpNet) -> bool {
    !is_link_local(net.addr()) && net.prefix_len() < net.max_prefix_len()
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
