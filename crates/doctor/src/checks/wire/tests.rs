//! Faults of a segment with three nodes, as surveys show them.

use super::*;
use crate::{
    checks::sample::{codes, facts, mac, survey_of},
    finding::Severity,
};

/// The addresses of the nodes 1 to 3.
fn node(number: u8) -> IpAddr {
    [192, 168, 0, 10 + number].into()
}

fn answers<'a>(facts: &'a mut Facts, asker: &str, address: IpAddr) -> &'a mut Answers {
    let survey = survey_of(facts, asker);
    survey.answers.iter_mut().find(|it| it.address == address).unwrap()
}

fn silence(facts: &mut Facts, asker: &str, address: IpAddr) {
    let answers = answers(facts, asker, address);
    answers.broadcast.clear();
    answers.unicast = Some(BTreeMap::new());
}

fn deafen(facts: &mut Facts, listener: &str, address: IpAddr) {
    survey_of(facts, listener).heard.retain(|it| it.address != address);
}

fn seen(facts: &Facts) -> Vec<(Code, String)> {
    check(facts).into_iter().map(|it| (it.code, it.about)).collect()
}

#[test]
fn a_healthy_segment_says_nothing() {
    assert_eq!(seen(&facts()), []);
}

#[test]
fn a_dead_direction_is_named() {
    let mut facts = facts();
    // What node-1 sends does not reach node-2: neither its questions nor its answers.
    silence(&mut facts, "node-1", node(2));
    silence(&mut facts, "node-2", node(1));
    deafen(&mut facts, "node-2", node(1));
    assert_eq!(seen(&facts), [(Code::W101, "node-1 to node-2".to_owned())]);
}

#[test]
fn both_directions_are_named() {
    let mut facts = facts();
    for (one, other) in [(1, 2), (2, 1)] {
        silence(&mut facts, &format!("node-{one}"), node(other));
        deafen(&mut facts, &format!("node-{one}"), node(other));
    }
    let hop = |text: &str| (Code::W101, text.to_owned());
    assert_eq!(seen(&facts), [hop("node-1 to node-2"), hop("node-2 to node-1")]);
}

#[test]
fn one_direction_is_dead_where_the_other_node_cannot_say_which() {
    let mut facts = facts();
    silence(&mut facts, "node-1", node(2));
    facts.surveys.insert("node-2".into(), Err("no answer".into()));
    let findings = check(&facts);
    assert_eq!(
        codes(&findings),
        [(Code::W110, Severity::Unchecked), (Code::W101, Severity::Error)]
    );
    assert!(findings[1].seen.contains("one of both directions"), "{findings:?}");
}

#[test]
fn lost_unicast_is_told_from_a_dead_way() {
    let mut facts = facts();
    // Answers are unicast, so nothing is answered; everybody hears what is sent to everybody.
    silence(&mut facts, "node-1", node(2));
    silence(&mut facts, "node-2", node(1));
    let hop = |text: &str| (Code::W102, text.to_owned());
    assert_eq!(seen(&facts), [hop("node-1 to node-2"), hop("node-2 to node-1")]);
}

#[test]
fn who_answers_only_everybodys_or_only_ones_questions_is_named() {
    let mut one = facts();
    answers(&mut one, "node-1", node(2)).unicast = Some(BTreeMap::new());
    assert_eq!(seen(&one), [(Code::W102, "node-1 to node-2".to_owned())]);
    let mut other = facts();
    answers(&mut other, "node-1", node(2)).broadcast.clear();
    assert_eq!(seen(&other), [(Code::W103, "node-1 to node-2".to_owned())]);
}

#[test]
fn lost_broadcasts_show_where_they_should_arrive() {
    let mut facts = facts();
    deafen(&mut facts, "node-2", node(1));
    assert_eq!(seen(&facts), [(Code::W103, "node-1 to node-2".to_owned())]);
}

#[test]
fn strangers_are_found() {
    let address: IpAddr = [192, 168, 0, 240].into();
    let about = "address 192.168.0.240".to_owned();
    let says = |mac: String, asker: &str, address: IpAddr| {
        let mut facts = facts();
        answers(&mut facts, asker, address).broadcast.insert(mac, 3);
        facts
    };
    assert_eq!(
        seen(&says(mac(99), "node-1", node(2))),
        [(Code::W104, "address 192.168.0.12".to_owned())]
    );
    assert_eq!(seen(&says(mac(99), "node-3", address)), [(Code::W105, about.clone())]);
    assert_eq!(
        seen(&says(mac(99), "node-1", address)),
        [(Code::W105, about.clone())],
        "the owner hears it"
    );
    assert_eq!(seen(&says(mac(12), "node-3", address)), [(Code::W105, about)], "two nodes answer");
}

#[test]
fn an_announced_address_must_be_answered_by_its_holder() {
    let address: IpAddr = [192, 168, 0, 240].into();
    let about = "address 192.168.0.240".to_owned();
    let mut nobody = facts();
    silence(&mut nobody, "node-2", address);
    silence(&mut nobody, "node-3", address);
    assert_eq!(seen(&nobody), [(Code::W106, about.clone())]);
    nobody.locks.as_mut().unwrap()[0].unannounced = true;
    assert_eq!(seen(&nobody), []);
    let mut moved = facts();
    moved.locks.as_mut().unwrap()[0].holder = Some("node-2".into());
    assert_eq!(seen(&moved), [(Code::W107, about.clone())]);
    let mut broadcast_only = facts();
    answers(&mut broadcast_only, "node-3", address).unicast = Some(BTreeMap::new());
    assert_eq!(seen(&broadcast_only), [(Code::W102, about)]);
}

#[test]
fn routers_must_answer() {
    let mut facts = facts();
    silence(&mut facts, "node-1", [192, 168, 0, 1].into());
    assert_eq!(seen(&facts), [(Code::W108, "router 192.168.0.1".to_owned())]);
}

#[test]
fn free_addresses_must_be_free() {
    let taken = |addresses: &[u8]| {
        let mut facts = facts();
        for last in addresses {
            survey_of(&mut facts, "node-1").answers.push(Answers {
                address: [192, 168, 0, *last].into(),
                broadcast: [(mac(99), 1)].into(),
                unicast: None,
                unasked: None,
            });
        }
        seen(&facts)
    };
    assert_eq!(taken(&[245]), [(Code::W109, "address 192.168.0.245".to_owned())]);
    let stranger = format!("a stranger ({})", mac(99));
    assert_eq!(taken(&[245, 246, 247]), [(Code::W111, stranger)]);
    assert_eq!(taken(&[99]), [], "no pool has it");
}

#[test]
fn who_was_not_asked_is_named() {
    let mut facts = facts();
    facts.surveys.clear();
    assert_eq!(codes(&check(&facts)), [(Code::W110, Severity::Unchecked)]);
}

#[test]
fn where_a_port_may_be_closed_for_its_arp_frames_nobody_asks_and_that_is_said() {
    let mut facts = facts();
    for survey in facts.surveys.values_mut() {
        survey.as_mut().unwrap().answers.clear();
        survey.as_mut().unwrap().heard.clear();
    }
    let sessions = facts.sessions.as_mut().unwrap();
    sessions[0].paths = [("node-2".to_owned(), "sparse (fixed)".to_owned())].into();
    assert_eq!(codes(&check(&facts)), [(Code::W110, Severity::Unchecked)]);
    facts.sessions.as_mut().unwrap()[0].ended = Some("it expired".into());
    assert_eq!(codes(&check(&facts)), [], "it is not there any more");
}
