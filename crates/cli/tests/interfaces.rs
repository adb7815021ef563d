//! `arpeggio interfaces` beside a real kernel.
#![cfg(test)]

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;
use namespace::Namespace;

fn interfaces(inside: &Namespace, args: &[&str]) -> Output {
    inside.run(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arpeggio"));
        command.arg("interfaces").args(args).env("KUBECONFIG", "/nonexistent").output().unwrap()
    })
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A bridge with a wired member, an interface that is down, one whose other end is down, one with
/// nothing but a link-local address.
fn node() -> Option<[Namespace; 2]> {
    let [node, there] = Namespace::several()?;
    node.cable("port", &there);
    for (name, peer) in [("asleep", "asleep-end"), ("unplugged", "off-end"), ("pod", "pod-end")] {
        node.ip(&format!("link add {name} type veth peer name {peer}"));
    }
    for command in [
        "link set lo up",
        "link add br0 type bridge",
        "link set port master br0",
        "address add 192.0.2.1/24 dev br0",
        "address add 10.1.0.1/24 dev asleep",
        "address add 10.2.0.1/24 dev unplugged",
        "address add fe80::9/64 dev pod nodad",
        "link set br0 up",
        "link set port up",
        "link set unplugged up",
        "link set pod up",
        "link set pod-end up",
        "route add default via 192.0.2.254",
    ] {
        node.ip(command);
    }
    there.ip("link set eth0 up");
    Some([node, there])
}

/// Waits until the line about an interface ends as expected: carriers come a moment later.
fn becomes(node: &Namespace, name: &str, expected: &str) {
    let start = Instant::now();
    loop {
        let table = text(&interfaces(node, &[]));
        let line = table.lines().find(|line| line.starts_with(&format!("{name} ")));
        if line.is_some_and(|line| line.ends_with(expected)) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{name} {expected}: {table}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_interface_of_a_kernel_has_its_verdict() {
    let Some([node, _there]) = node() else { return };
    for (name, expected) in [
        ("lo", "nothing: it is a loopback interface, which has no neighbours"),
        ("br0", "IPv4"),
        ("port", "put the subnet's address on the bridge or bond instead"),
        ("asleep", "nothing: it is down: bring it up"),
        ("unplugged", "nothing: it has no carrier: check cable and switch port"),
        ("pod", "nothing: no subnet and no default route here, unless a rule names it"),
    ] {
        becomes(&node, name, expected);
    }
    let table = text(&interfaces(&node, &[]));
    assert!(table.ends_with("IPv4      br0         192.0.2.254   0\n"), "{table}");
}

#[test]
fn an_address_finds_its_interface_or_a_reason() {
    let Some([node, _there]) = node() else { return };
    becomes(&node, "br0", "IPv4");
    for (address, code, expected) in [
        ("192.0.2.240", 0, "is announced on br0: the subnet 192.0.2.0/24"),
        ("203.0.113.1", 0, "is announced on br0: no subnet contains the address"),
        ("10.1.0.9", 1, "cannot be announced by this machine: interface asleep is down"),
        ("2001:db8::1", 1, "cannot be announced by this machine: no interface's subnet"),
    ] {
        let output = interfaces(&node, &[address]);
        assert_eq!(output.status.code(), Some(code), "{address}");
        assert!(text(&output).starts_with(&format!("{address} {expected}")), "{}", text(&output));
        assert!(text(&output).contains("\nThe cluster was not asked: "), "{}", text(&output));
    }
}

#[test]
fn patterns_can_be_tried_by_hand() {
    let Some([node, _there]) = node() else { return };
    becomes(&node, "br0", "IPv4");
    for (patterns, code, expected) in [
        (&["-i", "b*"][..], 0, "is announced on br0: by --interface, br0 can announce\n"),
        (&["-i", "b*", "--interface", "as?eep"], 0, "is announced on br0: by --interface, br0"),
        (&["-i", "pod"], 0, "is announced on pod: by --interface, pod can announce\n"),
        (
            &["-i", "po?"],
            1,
            "cannot be announced by this machine: by --interface, interface pod has neither",
        ),
        (
            &["-i", "as?eep"],
            1,
            "cannot be announced by this machine: by --interface, interface asleep",
        ),
        (
            &["-i", "wlan*"],
            1,
            "cannot be announced by this machine: by --interface, no interface here",
        ),
    ] {
        let output = interfaces(&node, &[&["203.0.113.1"], patterns].concat());
        assert_eq!(output.status.code(), Some(code), "{patterns:?}");
        assert!(text(&output).starts_with(&format!("203.0.113.1 {expected}")), "{}", text(&output));
        assert!(!text(&output).contains("The cluster"), "{}", text(&output));
    }
}

#[test]
fn json_is_for_programs() {
    let Some([node, _there]) = node() else { return };
    becomes(&node, "br0", "IPv4");
    let json: serde_json::Value =
        serde_json::from_str(&text(&interfaces(&node, &["-o", "json", "192.0.2.240"]))).unwrap();
    assert_eq!(json["address"]["interfaces"][0], "br0");
    let interfaces = json["interfaces"].as_array().unwrap();
    let port = interfaces.iter().find(|it| it["name"] == "port").unwrap();
    assert_eq!(port["flaw"], "member");
    assert_eq!(port["memberOf"], "bridge");
}
