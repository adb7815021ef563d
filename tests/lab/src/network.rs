//! The cables of a lab: a switch with a LAN on it, a router to a WAN, and what can be done to them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::Command;

use crate::error::{LabError, Result};
use crate::namespace::{Namespace, check, run_on_host};
use crate::plan::{Families, LabName, Machine, mac_text};

const BRIDGE: &str = "br0";
const SECOND_BRIDGE: &str = "br1";
const SECOND_INTERFACE: &str = "eth1";
const ROUTER_WAN: &str = "wan";
const INTERNET_INTERFACE: &str = "eth0";

/// The last number of a bare host that there can be.
const LAST_HOST: u8 = 200;

/// How many bytes a frame may carry at first.
const MTU: u16 = 1500;

/// The router's IPv4 address on the WAN, at which forwarded ports are reached.
pub const ROUTER_WAN_V4: &str = "203.0.113.1";
/// The internet host's IPv4 address.
pub const INTERNET_V4: &str = "203.0.113.2";

/// The network of one lab. Holds only names; the kernel has the state.
#[derive(Clone, Debug)]
pub struct Network {
    lab: LabName,
    families: Families,
}

impl Network {
    pub(crate) fn of(lab: &LabName, families: Families) -> Self {
        Self { lab: lab.clone(), families }
    }

    /// The network namespace of a machine.
    pub fn namespace(&self, machine: Machine) -> Namespace {
        Namespace::named(&self.lab.namespace(machine))
    }

    /// Creates all namespaces and cables for these machines.
    pub(crate) fn create(&self, nodes: &[Machine], control: Option<Machine>) -> Result<()> {
        self.create_switch()?;
        let fixed = [Machine::Router, Machine::Client];
        for machine in fixed.into_iter().chain(control).chain(nodes.iter().copied()) {
            self.create_machine(machine, nodes)?;
        }
        self.create_wan()
    }

    fn create_switch(&self) -> Result<()> {
        let switch = self.create_namespace(Machine::Switch)?;
        let delay = ["forward_delay", "0", "stp_state", "0"];
        switch.ip(&[&["link", "add", BRIDGE, "type", "bridge"][..], &delay].concat())?;
        switch.ip(&["link", "set", BRIDGE, "up"])
    }

    /// A namespace with `lo` up.
    fn create_namespace(&self, machine: Machine) -> Result<Namespace> {
        run_on_host("ip", &["netns", "add", &self.lab.namespace(machine)])?;
        let namespace = self.namespace(machine);
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A machine on the LAN, with addresses and routes.
    fn create_machine(&self, machine: Machine, nodes: &[Machine]) -> Result<()> {
        let namespace = self.create_namespace(machine)?;
        self.plug_in(machine, &namespace)?;
        if matches!(machine, Machine::Router | Machine::Node(_)) {
            namespace.set_sysctls(&FORWARDING)?;
        }
        if machine == Machine::Client {
            namespace.set_sysctls(&MANY_PORTS)?;
        }
        let gateway = Machine::Router;
        if machine != gateway {
            for everything in self.families.of("default", "::/0") {
                namespace.route(everything, gateway)?;
            }
        }
        // No network plugin spreads the pods' routes here: they are static.
        for node in nodes.iter().filter(|node| **node != machine) {
            for cidr in self.families.pod_cidrs_of(*node) {
                namespace.route(&cidr, *node)?;
            }
        }
        Ok(())
    }

    /// Adds bare hosts of these numbers to the LAN, with a default route and nothing else. They go with the lab.
    ///
    /// They know one another from the beginning: all namespaces of a kernel share its table of neighbours, which has room for
    /// some 1,000 that are learned (`net.ipv4.neigh.default.gc_thresh3`). A kernel whose table is full answers no ARP.
    ///
    /// # Errors
    /// When one of them is there already.
    pub fn add_hosts(&self, numbers: RangeInclusive<u8>) -> Result<()> {
        let known = self.known_neighbours();
        for host in numbers.map(Machine::Host) {
            self.create_machine(host, &[])?;
            let program = "printf %s \"$1\" | ip -batch -";
            self.namespace(host).run("sh", &["-c", program, "sh", &known])?;
        }
        Ok(())
    }

    /// All that hosts ask for, as commands for `ip -batch`: entries that stay, which have a place beside the learned ones.
    fn known_neighbours(&self) -> String {
        let machines = [Machine::Router, Machine::Control].into_iter();
        let machines = machines.chain((1..=LAST_HOST).map(Machine::Host));
        let commands = machines.flat_map(|machine| {
            let mac = machine.mac().map(mac_text).unwrap_or_default();
            let addresses = self.families.addresses_of(machine).into_iter();
            let interface = Machine::Host(1).interface();
            addresses.map(move |it| {
                format!("neighbour add {it} lladdr {mac} dev {interface} nud permanent\n")
            })
        });
        commands.collect()
    }

    /// A cable from the machine to a port of the switch that has the machine's name.
    fn plug_in(&self, machine: Machine, namespace: &Namespace) -> Result<()> {
        let missing = || LabError::Unknown { lab: self.lab.to_string(), what: machine.to_string() };
        let (v4, v6) = machine.lan_v4().zip(machine.lan_v6()).ok_or_else(missing)?;
        let mac = mac_text(machine.mac().ok_or_else(missing)?);
        let (interface, port) = (machine.interface(), machine.to_string());
        let switch = self.namespace(Machine::Switch);
        let peer = ["peer", "name", &port, "netns", &switch.name()];
        let add = ["link", "add", interface, "address", &mac, "type", "veth"];
        namespace.ip(&[&add[..], &peer].concat())?;
        switch.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        namespace.ip(&["link", "set", interface, "up"])?;
        if self.families.have_ipv4() {
            namespace.ip(&["address", "add", &format!("{v4}/24"), "dev", interface])?;
        }
        if self.families.have_ipv6() {
            // Without duplicate address detection the address is there at once.
            let address = format!("{v6}/64");
            namespace.ip(&["address", "add", &address, "dev", interface, "nodad"])?;
        }
        Ok(())
    }

    /// Adds a second segment, 192.168.1.0/24, that has these machines: each gets an interface `eth1` with the same last
    /// number as on the LAN. It goes with the lab.
    ///
    /// # Errors
    /// When there is one already, or a machine is not on the LAN.
    pub fn add_segment(&self, machines: &[Machine]) -> Result<()> {
        let switch = self.namespace(Machine::Switch);
        switch.ip(&["link", "add", SECOND_BRIDGE, "type", "bridge", "stp_state", "0"])?;
        switch.ip(&["link", "set", SECOND_BRIDGE, "up"])?;
        machines.iter().try_for_each(|machine| self.plug_into_second(*machine))
    }

    fn plug_into_second(&self, machine: Machine) -> Result<()> {
        let missing = || LabError::Unknown { lab: self.lab.to_string(), what: machine.to_string() };
        let number = machine.host_number().ok_or_else(missing)?;
        let (namespace, switch) = (self.namespace(machine), self.namespace(Machine::Switch));
        let port = second_port(machine);
        let mac = mac_text([0x02, 0x00, 192, 168, 1, number]);
        let peer = ["peer", "name", &port, "netns", &switch.name()];
        let add = ["link", "add", SECOND_INTERFACE, "address", &mac, "type", "veth"];
        namespace.ip(&[&add[..], &peer].concat())?;
        switch.ip(&["link", "set", &port, "master", SECOND_BRIDGE, "up"])?;
        namespace.ip(&["link", "set", SECOND_INTERFACE, "up"])?;
        let address = format!("192.168.1.{number}/24");
        namespace.ip(&["address", "add", &address, "dev", SECOND_INTERFACE])
    }

    /// The internet host and the router's outer side.
    fn create_wan(&self) -> Result<()> {
        let (router, internet) =
            (self.namespace(Machine::Router), self.create_namespace(Machine::Internet)?);
        let peer = ["peer", "name", INTERNET_INTERFACE, "netns", &internet.name()];
        router.ip(&[&["link", "add", ROUTER_WAN, "type", "veth"][..], &peer].concat())?;
        for (side, interface, last) in
            [(&router, ROUTER_WAN, "1"), (&internet, INTERNET_INTERFACE, "2")]
        {
            side.ip(&["link", "set", interface, "up"])?;
            side.ip(&["address", "add", &format!("203.0.113.{last}/24"), "dev", interface])?;
            let v6 = format!("2001:db8::{last}/64");
            side.ip(&["address", "add", &v6, "dev", interface, "nodad"])?;
        }
        internet.ip(&["route", "add", "fd00:a0::/64", "via", "2001:db8::1"])?;
        router.nft(ROUTER_RULES)
    }

    /// Forwards a port of the router's WAN side to an address on the LAN, as the port forward of a
    /// home router does (destination NAT).
    ///
    /// # Errors
    /// When the router's packet filter refuses.
    pub fn forward_port(&self, wan_port: u16, to: SocketAddr) -> Result<()> {
        let family = if to.is_ipv4() { "ip" } else { "ip6" };
        let rule = format!(
            "add rule inet lab prerouting iifname {ROUTER_WAN} meta nfproto ipv{} tcp dport {wan_port} dnat {family} to {to}",
            if to.is_ipv4() { 4 } else { 6 }
        );
        self.namespace(Machine::Router).nft(&rule)
    }

    /// Has a machine forget all connections that it translates, as a firewall that is loaded anew may. What comes on them
    /// afterwards reaches nobody who knows of them, and who only listens is told nothing.
    ///
    /// # Errors
    /// When the machine's connection tracking refuses.
    pub fn forget_connections(&self, machine: Machine) -> Result<()> {
        self.namespace(machine).run("conntrack", &["--flush"]).map(drop)
    }

    /// Has a machine forget the connections that come from the client, as far as it translates them. One that began and
    /// never got an answer is remembered for two minutes, and what the client begins on the same port meanwhile goes
    /// where the first one went, to a pod that may be gone.
    ///
    /// # Errors
    /// When the machine's connection tracking refuses.
    pub fn forget_clients(&self, machine: Machine) -> Result<()> {
        for client in self.families.addresses_of(Machine::Client) {
            let mut command = Command::new("conntrack");
            let family = if client.is_ipv4() { "ipv4" } else { "ipv6" };
            command.args(["--delete", "--family", family, "--orig-src", &client.to_string()]);
            let output = self.namespace(machine).output(&mut command)?;
            // That there is none is an error to this program.
            let none = String::from_utf8_lossy(&output.stderr).contains(" 0 flow entries");
            if !none {
                check(&command, &output)?;
            }
        }
        Ok(())
    }

    /// Sets how many bytes a frame may carry that a machine sends and is sent on the LAN: 1,500 at first, 9,000 for jumbo
    /// frames.
    ///
    /// # Errors
    /// When the machine has no cable.
    pub fn set_mtu(&self, machine: Machine, bytes: u16) -> Result<()> {
        let (bytes, port) = (bytes.to_string(), machine.to_string());
        let ends = [(machine, machine.interface()), (Machine::Switch, port.as_str())];
        ends.into_iter().try_for_each(|(side, interface)| {
            self.namespace(side).ip(&["link", "set", interface, "mtu", &bytes])
        })
    }

    /// Takes the machine's cable out of the switch, on each segment that it has one on: both ends lose their carrier.
    ///
    /// # Errors
    /// When the machine has no cable.
    pub fn cable_out(&self, machine: Machine) -> Result<()> {
        self.set_port(machine, "down")
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When the machine has no cable.
    pub fn cable_in(&self, machine: Machine) -> Result<()> {
        self.set_port(machine, "up")
    }

    fn set_port(&self, machine: Machine, state: &str) -> Result<()> {
        let switch = self.namespace(Machine::Switch);
        let second = second_port(machine);
        if switch.ip(&["link", "show", &second]).is_ok() {
            switch.ip(&["link", "set", &second, state])?;
        }
        switch.ip(&["link", "set", &machine.to_string(), state])
    }

    /// Cuts a node off from the API server and from nothing else: its packets to the server are
    /// dropped, also those of its pods, and those that the node translates to it.
    ///
    /// # Errors
    /// When the node's packet filter refuses.
    pub fn cut_off_api(&self, node: Machine, control: Machine) -> Result<()> {
        // Where every client finds it.
        let server = self.families.addresses_of(control).first().map(|address| {
            format!("{} daddr {address}", if address.is_ipv4() { "ip" } else { "ip6" })
        });
        self.namespace(node).nft(&CUT_RULES.replace("TO_SERVER", &server.unwrap_or_default()))
    }

    /// Undoes [`Self::cut_off_api`]. Connections that survived go on.
    ///
    /// # Errors
    /// When the node was not cut off.
    pub fn heal_api(&self, node: Machine) -> Result<()> {
        self.namespace(node).nft("delete table inet lab_cut")
    }

    /// Splits the segment: no frame passes between a machine of `one` and a machine of `other`. Until [`Self::mend`].
    ///
    /// # Errors
    /// When the switch's packet filter refuses.
    pub fn split(&self, one: &[Machine], other: &[Machine]) -> Result<()> {
        let (one, other) = (ports(one), ports(other));
        let drop = |from: &str, to: &str| format!("iifname {{ {from} }} oifname {{ {to} }} drop");
        self.filter_frames(&[drop(&one, &other), drop(&other, &one)])
    }

    /// Has the switch lose what one machine sends to the other and to nobody else; broadcasts pass. Until
    /// [`Self::mend`].
    ///
    /// # Errors
    /// When one of them is not on the LAN, or the switch's packet filter refuses.
    pub fn lose_unicast(&self, one: Machine, other: Machine) -> Result<()> {
        let drop = |from: Machine, to: Machine| {
            Some(format!("iifname \"{from}\" ether daddr {} drop", mac_text(to.mac()?)))
        };
        let rules = [drop(one, other), drop(other, one)];
        self.filter_frames(&rules.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Has the switch lose everything that a machine sends and is sent, while its carrier stays: a machine that stands
    /// still hears and says nothing, and its neighbours see no link go down. Until [`Self::mend`].
    ///
    /// # Errors
    /// When the switch's packet filter refuses.
    pub fn silence(&self, machine: Machine) -> Result<()> {
        let drop = |end: &str| format!("{end} \"{machine}\" drop");
        self.filter_frames(&[drop("iifname"), drop("oifname")])
    }

    fn filter_frames(&self, rules: &[String]) -> Result<()> {
        let hook = "type filter hook forward priority 0;";
        let rules = rules.join("\n");
        let table = format!("table bridge lab_cut {{\nchain forward {{\n{hook}\n{rules}\n}}\n}}");
        self.namespace(Machine::Switch).nft(&table)
    }

    /// Lets every frame pass again.
    ///
    /// # Errors
    /// When nothing was cut.
    pub fn mend(&self) -> Result<()> {
        self.namespace(Machine::Switch).nft("delete table bridge lab_cut")
    }

    /// Undoes what was done to the switch, the router, the client and these machines.
    pub(crate) fn put_right(&self, machines: &[Machine]) -> Result<()> {
        self.namespace(Machine::Switch).nft("flush ruleset")?;
        self.forget(Machine::Router)?;
        self.namespace(Machine::Router).nft(ROUTER_RULES)?;
        for machine in machines.iter().copied() {
            // Made first, since what is not there cannot be deleted.
            self.namespace(machine).nft("add table inet lab_cut\ndelete table inet lab_cut")?;
            self.forget_clients(machine)?;
        }
        for machine in machines.iter().copied().chain([Machine::Router, Machine::Client]) {
            self.cable_in(machine)?;
            self.set_mtu(machine, MTU)?;
            self.set_mac(machine)?;
            self.namespace(machine).ip(&["neighbour", "flush", "all"])?;
        }
        Ok(())
    }

    /// Gives the machine the MAC address that it had at first.
    fn set_mac(&self, machine: Machine) -> Result<()> {
        let Some(mac) = machine.mac().map(mac_text) else { return Ok(()) };
        let (namespace, interface) = (self.namespace(machine), machine.interface());
        let shown = namespace.run("ip", &["-brief", "link", "show", "dev", interface])?;
        if shown.contains(&mac) {
            return Ok(());
        }
        namespace.ip(&["link", "set", interface, "address", &mac])
    }

    /// Removes a bare host with its cable.
    pub(crate) fn remove_host(&self, host: Machine) -> Result<()> {
        // First: the namespace, and with it the cable, lives on for as long as something is open in it.
        self.namespace(Machine::Switch).ip(&["link", "delete", &host.to_string()])?;
        run_on_host("ip", &["netns", "delete", &self.lab.namespace(host)]).map(drop)
    }

    /// The cables, addresses and packet filters of every machine, one in a line.
    pub(crate) fn furnishings(&self, machines: &[Machine]) -> Result<Vec<String>> {
        let fixed = [Machine::Switch, Machine::Router, Machine::Client, Machine::Internet];
        let all = fixed.into_iter().chain(machines.iter().copied());
        let seen: Result<Vec<Vec<String>>> = all.map(|it| self.furnishings_of(it)).collect();
        Ok(seen?.concat())
    }

    fn furnishings_of(&self, machine: Machine) -> Result<Vec<String>> {
        let namespace = self.namespace(machine);
        let runs_pods = matches!(machine, Machine::Node(_));
        let interfaces = [["-brief", "link"], ["-brief", "address"]];
        let shown = interfaces.map(|args| namespace.run("ip", &args)).into_iter();
        let shown = shown.collect::<Result<Vec<_>>>()?.concat();
        // Pods come and go, and with them their cables; kube-proxy has its rules.
        let stays = |line: &&str| !runs_pods || line.starts_with("eth");
        let mut seen: Vec<String> = shown.lines().filter(stays).map(str::to_owned).collect();
        if !runs_pods {
            let rules = namespace.run("nft", &["list", "ruleset"])?;
            seen.extend(rules.lines().map(str::to_owned));
        }
        Ok(seen.iter().map(|line| format!("{machine}: {}", line.trim())).collect())
    }

    /// Forgets what a restarting kernel would have forgotten: packet filters, connections,
    /// neighbours.
    pub(crate) fn forget(&self, machine: Machine) -> Result<()> {
        let namespace = self.namespace(machine);
        namespace.nft("flush ruleset")?;
        namespace.ip(&["neighbour", "flush", "all"])?;
        namespace.run("conntrack", &["-F"]).map(drop)
    }
}

/// The machine's port of the second segment's bridge.
fn second_port(machine: Machine) -> String {
    format!("{machine}-1")
}

/// A client that begins hundreds of connections a second uses no port twice for as long as can be.
const MANY_PORTS: [(&str, &str); 1] = [("ipv4/ip_local_port_range", "1024 65535")];

/// What a machine that forwards between its interfaces needs. Pods' addresses are usable at once
/// (no DAD).
const FORWARDING: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
];

/// A home router: everything that leaves goes out under its own address; forwarded ports are added
/// to `prerouting`.
const ROUTER_RULES: &str = "
table inet lab {
  chain prerouting { type nat hook prerouting priority dstnat; }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname wan masquerade
  }
}";

/// After translation (priority above dstnat), so that the Service address of the API server is
/// covered too.
const CUT_RULES: &str = "
table inet lab_cut {
  chain output {
    type filter hook output priority filter + 10;
    TO_SERVER tcp dport 6443 drop
  }
  chain forward {
    type filter hook forward priority filter + 10;
    TO_SERVER tcp dport 6443 drop
  }
}";

impl Namespace {
    fn ip(&self, args: &[&str]) -> Result<()> {
        self.run("ip", args).map(drop)
    }

    fn nft(&self, rules: &str) -> Result<()> {
        self.run("nft", &[rules]).map(drop)
    }

    /// A route over a machine on the LAN, of the destination's own family.
    fn route(&self, destination: &str, over: Machine) -> Result<()> {
        let gateway = if destination.contains(':') {
            over.lan_v6().map(|address| address.to_string())
        } else {
            over.lan_v4().map(|address| address.to_string())
        };
        self.ip(&["route", "add", destination, "via", &gateway.unwrap_or_default()])
    }
}

fn ports(machines: &[Machine]) -> String {
    machines.iter().map(|machine| format!("\"{machine}\"")).collect::<Vec<_>>().join(", ")
}
