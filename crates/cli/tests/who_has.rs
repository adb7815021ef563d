//! `arpeggio who-has` on a segment of real kernels.
#![cfg(test)]

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;
use namespace::Namespace;

const V4: &str = "192.0.2.240";
const V6: &str = "2001:db8::240";
const NOBODYS: [&str; 2] = ["192.0.2.99", "2001:db8::99"];

/// A machine that asks, wired to two neighbours by its own bridge.
struct Segment {
    asker: Namespace,
    neighbours: [Namespace; 2],
}

impl Segment {
    fn new() -> Option<Self> {
        let [asker, one, other] = Namespace::several()?;
        let segment = Self { asker, neighbours: [one, other] };
        segment.asker.ip("link add br0 type bridge");
        for (port, neighbour) in ["port1", "port2"].into_iter().zip(&segment.neighbours) {
            segment.asker.cable(port, neighbour);
            segment.asker.ip(&format!("link set {port} master br0 up"));
            neighbour.ip("link set eth0 up");
        }
        give(&segment.asker, "br0", &["192.0.2.1/24", "2001:db8::1/64"]);
        segment.asker.ip("link set br0 up");
        Some(segment)
    }

    /// Gives both addresses to a neighbour.
    fn answers(&self, neighbour: usize) {
        give(&self.neighbours[neighbour], "eth0", &[&format!("{V4}/24"), &format!("{V6}/64")]);
    }

    /// The MAC address of a neighbour, as it is printed.
    fn mac(&self, neighbour: usize) -> String {
        self.neighbours[neighbour].link().1.to_string()
    }

    fn who_has(&self, args: &[&str]) -> Output {
        self.asker.run(|| who_has(args).output().unwrap())
    }

    /// The output once it ends with this code: a bridge's ports need a moment.
    fn ends_with(&self, code: i32, args: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let output = self.who_has(args);
            if output.status.code() == Some(code) {
                return String::from_utf8(output.stdout).unwrap();
            }
            assert!(start.elapsed() < Duration::from_mins(1), "{args:?}: {output:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn give(to: &Namespace, interface: &str, addresses: &[&str]) {
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        to.ip(&format!("address add {address} dev {interface}{nodad}"));
    }
}

/// The command, without a cluster.
fn who_has(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arpeggio"));
    command.arg("who-has").args(args).env("KUBECONFIG", "/nonexistent");
    command
}

#[test]
fn one_machine_answers() {
    let Some(segment) = Segment::new() else { return };
    segment.answers(0);
    for address in [V4, V6] {
        let text = segment.ends_with(0, &[address]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with(&segment.mac(0)), "{text}");
        assert!(!text.contains(&segment.mac(1)), "{text}");
        assert!(text.contains("The cluster was not asked: "), "{text}");
    }
}

#[test]
fn two_machines_answer() {
    let Some(segment) = Segment::new() else { return };
    segment.answers(0);
    segment.answers(1);
    for address in [V4, V6] {
        let text = segment.ends_with(3, &[address]);
        assert!(text.contains(&segment.mac(0)) && text.contains(&segment.mac(1)), "{text}");
        assert!(text.contains(&format!("2 machines answer for {address}")), "{text}");
    }
}

#[test]
fn nobody_answers() {
    let Some(segment) = Segment::new() else { return };
    segment.answers(0);
    segment.ends_with(0, &[V4]);
    for address in NOBODYS {
        let output = segment.who_has(&[address]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let expected = format!("Nobody answers for {address} on br0, asked ");
        assert!(text.starts_with(&expected), "{text}");
    }
}

/// A machine asks for its own address as a probe, which must not disturb its neighbours.
#[test]
fn a_rival_for_the_own_address_is_found() {
    let Some(segment) = Segment::new() else { return };
    give(&segment.asker, "br0", &[&format!("{V4}/24"), &format!("{V6}/64")]);
    for address in [V4, V6] {
        let text = segment.ends_with(0, &[address]);
        assert!(text.contains("this machine, by its own kernel"), "{text}");
    }
    segment.answers(1);
    for address in [V4, V6] {
        let text = segment.ends_with(3, &[address]);
        assert!(text.contains(&segment.mac(1)), "{text}");
    }
}

#[test]
fn json_is_for_programs() {
    let Some(segment) = Segment::new() else { return };
    segment.answers(0);
    let text = segment.ends_with(0, &["-o", "json", "--interface", "br0", V4]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["machines"][0]["mac"], segment.mac(0));
    assert!(json["machines"][0]["milliseconds"].as_f64().unwrap() > 0.0, "{text}");
    assert_eq!(json["interface"], "br0");
}

#[test]
fn wrong_places_are_refused_with_words() {
    let Some(segment) = Segment::new() else { return };
    for (args, expected) in [
        (&[V4, "--interface", "port1"][..], "interface port1 is a member of another one"),
        (&[V4, "--interface", "eth9"], "there is no interface eth9: see 'arpeggio interfaces'"),
        (&["203.0.113.1"], "no interface's subnet contains 203.0.113.1"),
        (&["fe80::1"], "say which one with --interface"),
    ] {
        let output = segment.who_has(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let problem = String::from_utf8(output.stderr).unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn without_the_capability_it_says_what_to_do() {
    let Some(segment) = Segment::new() else { return };
    segment.ends_with(1, &[V4]);
    let output = segment.asker.run(|| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--bounding-set", "-net_raw", env!("CARGO_BIN_EXE_arpeggio"), "who-has", V4]);
        setpriv.env("KUBECONFIG", "/nonexistent").output().expect("install util-linux")
    });
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let problem = String::from_utf8(output.stderr).unwrap();
    assert!(problem.contains("run this as root on a node, or in the speaker's pod"), "{problem}");
    assert!(problem.contains("add the capability NET_RAW"), "{problem}");
}
