//! `arpeggio interfaces` where a kernel has devices that not every one has: `make vm-tests` boots some that do.
#![cfg(test)]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;
use namespace::Namespace;

#[test]
#[ignore = "needs VLAN, bond, VRF and dummy devices: run 'make vm-tests'"]
fn every_kind_of_interface_has_its_verdict() {
    let Some([node, there]) = Namespace::several() else { return };
    for name in ["one", "two", "routed"] {
        node.cable(name, &there);
        there.ip(&format!("link set eth0 name {name}"));
        there.ip(&format!("link set {name} up"));
    }
    for command in [
        "link add bond0 type bond mode active-backup miimon 10",
        "link set one master bond0",
        "link set two master bond0",
        "link set bond0 up",
        "link add link bond0 name bond0.10 type vlan id 10",
        "address add 192.0.2.1/24 dev bond0.10",
        "link set bond0.10 up",
        "link add red type vrf table 100",
        "link set red up",
        "link set routed master red",
        "address add 198.51.100.1/24 dev routed",
        "link set routed up",
        "link add kube-ipvs0 type dummy",
        "address add 203.0.113.1/32 dev kube-ipvs0",
    ] {
        node.ip(command);
    }
    for (name, words, verdict) in [
        ("one", "", "put the subnet's address on the bridge or bond instead"),
        ("bond0", "", "nothing: no subnet and no default route here, unless a rule names it"),
        ("bond0.10", "192.0.2.1/24", "IPv4"),
        ("routed", "198.51.100.1/24", "IPv4"),
        ("red", "", "nothing: it is not an Ethernet link with address resolution"),
        (
            "kube-ipvs0",
            "203.0.113.1/32",
            "nothing: it is not an Ethernet link with address resolution",
        ),
    ] {
        becomes(&node, name, words, verdict);
    }
}

/// Waits until the line about an interface has these words and this end.
fn becomes(node: &Namespace, name: &str, words: &str, verdict: &str) {
    let start = Instant::now();
    loop {
        let output = node.run(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_arpeggio"));
            command.arg("interfaces").env("KUBECONFIG", "/nonexistent").output().unwrap()
        });
        let table = String::from_utf8(output.stdout).unwrap();
        let line = table.lines().find(|line| line.starts_with(&format!("{name} ")));
        if line.is_some_and(|line| line.contains(words) && line.ends_with(verdict)) {
            return;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{name} {verdict}: {table}");
        thread::sleep(Duration::from_millis(50));
    }
}
