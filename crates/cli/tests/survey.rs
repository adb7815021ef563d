//! `arpeggio survey` on a segment of real kernels.
#![cfg(test)]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;
use namespace::Namespace;

const NEIGHBOUR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const NOBODYS: &str = "192.0.2.99";

fn give(to: &Namespace, interface: &str, last: u8) {
    to.ip(&format!("address add 192.0.2.{last}/24 dev {interface}"));
    to.ip(&format!("address add 2001:db8::{last}/64 dev {interface} nodad"));
    to.ip(&format!("link set {interface} up"));
}

/// Two machines with a cable between them.
fn segment() -> Option<[Namespace; 2]> {
    let [one, other] = Namespace::several()?;
    one.cable("eth0", &other);
    give(&one, "eth0", 1);
    give(&other, "eth0", 2);
    Some([one, other])
}

/// What a machine finds out; its standard input is at its end, so it waits for nobody.
fn survey(machine: &Namespace, questions: &Value) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arpeggio"));
    command.args(["survey", &questions.to_string()]).stdin(std::process::Stdio::null());
    let output = machine.run(|| command.output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let (ready, survey) = text.split_once('\n').unwrap();
    assert_eq!(ready, "ready", "{text}");
    serde_json::from_str(survey).unwrap()
}

fn answers<'a>(survey: &'a Value, address: &str) -> &'a Value {
    let answers = survey["answers"].as_array().unwrap();
    answers.iter().find(|it| it["address"] == address).unwrap()
}

#[test]
fn a_neighbour_answers_everybody_and_by_unicast() {
    let Some([one, other]) = segment() else { return };
    let mac = other.link().1.to_string();
    let known = |address: &&str| json!({ "address": address, "mac": mac });
    let mut ask: Vec<Value> = NEIGHBOUR.iter().map(known).collect();
    ask.push(json!({ "address": NOBODYS }));
    ask.push(json!({ "address": "203.0.113.1" }));
    let questions = json!({ "ask": ask, "connect": ["192.0.2.2:9"] });
    // Links need a moment.
    let start = Instant::now();
    let seen = loop {
        let seen = survey(&one, &questions);
        if !answers(&seen, NEIGHBOUR[0])["broadcast"][&mac].is_null() {
            break seen;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{seen}");
        thread::sleep(Duration::from_millis(100));
    };
    for address in NEIGHBOUR {
        let answers = answers(&seen, address);
        for way in ["broadcast", "unicast"] {
            assert!(answers[way][&mac].as_u64() >= Some(1), "{address} {way}: {seen}");
        }
    }
    assert_eq!(answers(&seen, NOBODYS)["broadcast"], json!({}));
    assert!(answers(&seen, NOBODYS)["unicast"].is_null(), "it was not known where to ask");
    let unasked = answers(&seen, "203.0.113.1")["unasked"].as_str().unwrap();
    assert!(unasked.contains("no interface's subnet contains 203.0.113.1"), "{unasked}");
    assert_eq!(seen["connects"], json!([{ "to": "192.0.2.2:9", "error": "connection refused" }]));
    assert_eq!(seen["strictArp"], false);
}

#[test]
fn both_hear_each_other_ask() {
    let Some([one, other]) = segment() else { return };
    let start = Instant::now();
    loop {
        let ask = |address: &str| json!({ "ask": [{ "address": address }] });
        let (here, there) = thread::scope(|scope| {
            let here = scope.spawn(|| survey(&one, &ask("192.0.2.2")));
            let there = survey(&other, &ask("192.0.2.1"));
            (here.join().unwrap(), there)
        });
        let heard = |survey: &Value, asker: &str| {
            let heard = survey["heard"].as_array().unwrap().iter();
            heard.filter(|it| it["address"] == asker).any(|it| it["broadcast"].as_u64() > Some(0))
        };
        if heard(&here, "192.0.2.2") && heard(&there, "192.0.2.1") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{here} {there}");
    }
}
