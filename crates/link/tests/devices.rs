//! Devices that not every kernel has: `make vm-tests` boots some that do.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arpeggio_link::filter::ArpFilter;
use arpeggio_link::interfaces::{Family, Flaw, Interface, Links, watch};
use arpeggio_link::packet::ArpSocket;
use arpeggio_wire::{ArpFrame, ArpOperation, Asker, Claim, MacAddr, Question};
use tokio::runtime;

mod namespace;
use namespace::{Namespace, Pair};

const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const ASKER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x99);
const PATIENCE: Duration = Duration::from_secs(20);

impl Namespace {
    /// A socket on one of its interfaces, which hears about [`OURS`] and [`THERE`].
    fn listen(&self, interface: &str) -> ArpSocket {
        let index = self.links().interfaces.iter().find(|it| it.name == interface).unwrap().index;
        let set = |address| BTreeSet::from([address]);
        let filter = ArpFilter { ours: set(OURS), peers: set(THERE) };
        self.run(|| ArpSocket::open(index, &filter)).unwrap()
    }

    /// Its interfaces now, as a speaker sees them.
    fn links(&self) -> Arc<Links> {
        self.run(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { watch().await.unwrap().borrow().clone() })
        })
    }

    /// One of its interfaces, once it is as expected.
    fn becomes(&self, name: &str, expected: impl Fn(&Interface) -> bool) -> Interface {
        let start = Instant::now();
        loop {
            let links = self.links();
            let found = links.interfaces.iter().find(|it| it.name == name);
            if let Some(found) = found.filter(|it| expected(it)) {
                return found.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{name} is {found:#?}");
        }
    }

    /// Whether anybody answers at `eth0` for [`OURS`].
    fn gets_an_answer(&self) -> bool {
        let (index, mac) = self.link();
        let filter = ArpFilter { ours: BTreeSet::new(), peers: BTreeSet::from([OURS]) };
        let socket = self.run(|| ArpSocket::open(index, &filter)).unwrap();
        let question = Question { address: OURS, asker: Asker { mac, address: Some(THERE) } };
        let answer = |_| {
            socket.send(&question.broadcast().to_bytes()).unwrap();
            next(&socket)
        };
        (0..20).find_map(answer).is_some()
    }

    /// Asks for [`OURS`] by broadcast from one of its interfaces.
    fn asks(&self, interface: &str) {
        self.listen(interface).send(&question().to_bytes()).unwrap();
    }
}

fn question() -> ArpFrame {
    let asker = Asker { mac: ASKER, address: Some(Ipv4Addr::new(192, 0, 2, 50)) };
    Question { address: OURS, asker }.broadcast()
}

/// Whether a socket hears the question, which is asked until it does.
fn hears(socket: &ArpSocket, asks: impl Fn()) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        asks();
        if next(socket) == Some(question()) {
            return true;
        }
    }
    false
}

fn next(socket: &ArpSocket) -> Option<ArpFrame> {
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).unwrap()?;
    Some(ArpFrame::parse(&buffer[..length]).unwrap())
}

/// Whether the kernel of a namespace learns the answer that is sent by this socket.
fn is_believed(socket: &ArpSocket, by: &Namespace) -> bool {
    let mac = MacAddr(0x02, 0, 0, 0, 0, 0x42);
    by.ip("neighbour replace 192.0.2.10 lladdr 02:00:00:00:00:01 dev eth0 nud stale");
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let claim = Claim { address: OURS, mac }.announcement(ArpOperation::Request);
        socket.send(&claim.to_bytes()).unwrap();
        if by.ip("neighbour show 192.0.2.10").contains(&mac.to_string()) {
            return true;
        }
    }
    false
}

#[test]
#[ignore = "needs VLAN devices: run 'make vm-tests'"]
fn a_vlan_is_a_segment_of_its_own() {
    let Some(pair) = Pair::new() else { return };
    for (side, address) in [(&pair.here, "192.0.2.1/24"), (&pair.there, "192.0.2.2/24")] {
        side.ip("address flush dev eth0");
        side.ip("link add link eth0 name eth0.10 type vlan id 10");
        side.ip(&format!("address add {address} dev eth0.10"));
        side.ip("link set eth0.10 up");
    }
    let vlan = pair.here.becomes("eth0.10", |it| it.flaw().is_none());
    assert_eq!((vlan.kind.as_deref(), &vlan.member_of), (Some("vlan"), &None));
    let untagged = pair.here.listen("eth0");
    let tagged = pair.here.listen("eth0.10");

    assert!(hears(&tagged, || pair.there.asks("eth0.10")), "a question in the VLAN");
    assert_eq!(next(&untagged), None, "it was none of the cable's own");
    assert!(hears(&untagged, || pair.there.asks("eth0")), "a question on the cable");
    assert_eq!(next(&tagged), None, "it was none of the VLAN's");
}

/// A tag that nobody has a device for: the kernel keeps it beside the frame.
#[test]
#[ignore = "needs VLAN devices: run 'make vm-tests'"]
fn another_vlan_is_nobodys() {
    let Some(pair) = Pair::new() else { return };
    pair.there.ip("link add link eth0 name eth0.20 type vlan id 20");
    pair.there.ip("link set eth0.20 up");
    let listener = pair.here.listen("eth0");
    pair.there.becomes("eth0.20", |it| it.flaw().is_none());
    pair.there.asks("eth0.20");
    assert_eq!(next(&listener), None);
    assert!(hears(&listener, || pair.there.asks("eth0")));
}

/// Two cables, of which one is pulled: the bond goes on with the other and keeps its MAC address.
#[test]
#[ignore = "needs bond devices: run 'make vm-tests'"]
fn a_bond_outlives_a_cable() {
    let Some([here, there]) = Namespace::several() else { return };
    here.cable("one", &there);
    there.ip("link set eth0 name port1");
    here.cable("two", &there);
    there.ip("link set eth0 name port2");
    there.ip("link add eth0 type bridge");
    for port in ["port1", "port2"] {
        there.ip(&format!("link set {port} master eth0 up"));
    }
    there.ip("address add 192.0.2.2/24 dev eth0");
    there.ip("link set eth0 up");
    here.ip("link add bond0 type bond mode active-backup miimon 10");
    for member in ["one", "two"] {
        here.ip(&format!("link set {member} master bond0"));
    }
    here.ip("address add 192.0.2.1/24 dev bond0");
    here.ip("link set bond0 up");

    let bond = here.becomes("bond0", |it| it.flaw().is_none());
    assert_eq!(bond.kind.as_deref(), Some("bond"));
    let member = here.becomes("one", |it| it.flaw() == Some(Flaw::Member));
    assert_eq!(member.member_of.as_deref(), Some("bond"));

    let socket = here.listen("bond0");
    assert!(hears(&socket, || there.asks("eth0")), "before");
    assert!(is_believed(&socket, &there), "before");
    there.ip("link set port1 down");
    here.becomes("one", |it| !it.carrier);
    assert!(hears(&socket, || there.asks("eth0")), "by the other cable");
    assert!(is_believed(&socket, &there), "by the other cable");
    let after = here.becomes("bond0", |it| it.flaw().is_none());
    assert_eq!(
        (after.mac(), after.carrier_ups),
        (bond.mac(), bond.carrier_ups),
        "it had never been away"
    );
    there.ip("link set port2 down");
    here.becomes("bond0", |it| it.flaw() == Some(Flaw::NoCarrier));
}

#[test]
#[ignore = "needs VRF devices: run 'make vm-tests'"]
fn a_vrf_leaves_each_interface_its_segment() {
    let Some(pair) = Pair::new() else { return };
    pair.here.ip("link add red type vrf table 100");
    pair.here.ip("link set red up");
    pair.here.ip("link set eth0 master red");
    let eth0 = pair.here.becomes("eth0", |it| it.flaw().is_none() && it.member_of.is_some());
    assert_eq!(eth0.member_of.as_deref(), Some("vrf"));
    assert!(eth0.has_subnet(Family::V4), "{eth0:?}");
    let socket = pair.here.listen("eth0");
    assert!(hears(&socket, || pair.there.asks("eth0")));
    assert!(is_believed(&socket, &pair.there));
    // The group itself has no neighbours of its own: its subnets are those of its members.
    let links = pair.here.links();
    let told: Vec<_> = links.reach(&[]).interfaces.into_iter().map(|it| it.name).collect();
    assert_eq!(told, ["eth0"]);
}

/// kube-proxy in IPVS mode keeps every Service's address on a device of its own on every node.
#[test]
#[ignore = "needs dummy devices: run 'make vm-tests'"]
fn addresses_of_services_in_ipvs_mode_are_no_nodes_own() {
    let Some(pair) = Pair::new() else { return };
    pair.here.ip("link add kube-ipvs0 type dummy");
    pair.here.ip(&format!("address add {OURS}/32 dev kube-ipvs0"));
    pair.here.ip("link add floating type dummy");
    pair.here.ip("address add 192.0.2.77/32 dev floating");
    pair.here.ip("link set floating up");
    pair.here.becomes("eth0", |it| it.flaw().is_none());
    let links = pair.here.links();
    assert!(links.is_for_services(OURS.into()));
    let own: Vec<IpAddr> = links.own_addresses().into_iter().collect();
    assert_eq!(own, ["192.0.2.1", "192.0.2.77"].map(|it| it.parse::<IpAddr>().unwrap()));

    // Its kernel answers for the Service, unless it is strict (kube-proxy's ipvs.strictARP).
    assert!(
        pair.there.gets_an_answer(),
        "a kernel that is not strict answers for what it has anywhere"
    );
    pair.here.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap());
    assert!(!pair.there.gets_an_answer(), "a strict one does not");
}

/// Two radios of one machine in one ad-hoc network, which takes no access point. One stays where it is: what is said of
/// radios below /sys is about the interfaces of the machine.
#[test]
#[ignore = "needs mac80211_hwsim: run 'make vm-tests'"]
fn a_radio_is_known_and_heard() {
    assert!(
        std::env::var_os("ARPEGGIO_MACHINE").is_some(),
        "it changes the machine that it runs on"
    );
    let Some([there]) = Namespace::several() else { return };
    let here = Namespace::of_this_process();
    run("modprobe", "mac80211_hwsim radios=2");
    // A radio is moved to the namespace of a process.
    let mut inside = there.run(|| Command::new("sleep").arg("60").spawn()).unwrap();
    run("iw", &format!("phy phy1 set netns {}", inside.id()));
    inside.kill().and_then(|()| inside.wait()).unwrap();
    let sides = [("wlan0", &here, "192.0.2.1/24"), ("wlan1", &there, "192.0.2.2/24")];
    for (name, side, address) in sides {
        side.ip(&format!("link set {name} name eth0"));
        side.run(|| run("iw", "dev eth0 set type ibss"));
        side.ip(&format!("address add {address} dev eth0"));
        side.ip("link set eth0 up");
        // With a name and a channel that are given, both are in one cell at once. Left to themselves they look for each other
        // first: who does so at the same time as the other finds nobody and makes a cell of its own, and the two are never
        // joined, since both radios have one clock and none is the older.
        side.run(|| run("iw", "dev eth0 ibss join arpeggio 2412 fixed-freq 02:00:00:00:00:77"));
    }
    let radio = here.becomes("eth0", |it| it.flaw().is_none());
    assert!(radio.wireless, "{radio:?}");
    here.ip("link add link eth0 name eth0.10 type vlan id 10");
    here.becomes("eth0.10", |it| it.wireless);
    here.ip("link delete eth0.10");
    there.becomes("eth0", |it| it.flaw().is_none());
    let socket = here.listen("eth0");
    assert!(hears(&socket, || there.asks("eth0")));
    assert!(is_believed(&socket, &there));
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}
