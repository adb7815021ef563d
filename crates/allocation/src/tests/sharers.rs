//! Many Services at one address.

use super::*;

const KEY: (&str, &str) = ("arpeggio.dev/sharing-key", "k");

fn name(number: i32) -> String {
    format!("broker-{number:03}")
}

/// So many Services that share an address and come at once, and how many are served before any time has passed.
fn come(lab: &mut Lab, count: i32) -> usize {
    for number in 1..=count {
        lab.cluster.create_service_on(&name(number), &[KEY], number);
    }
    lab.settle();
    let is_served = |number: &i32| lab.addresses(&name(*number)) == ["10.0.0.1"];
    (1..=count).filter(is_served).count()
}

#[test]
fn many_who_come_to_one_address_at_once_cost_two_writes_each() {
    for count in [2, 30, 110] {
        let mut lab = Lab::with_pools(&[HOME]);
        assert_eq!(come(&mut lab, count), usize::try_from(count).unwrap());
        assert_eq!(lab.writes.len(), 2 * usize::try_from(count).unwrap(), "{:?}", lab.writes);
    }
}

#[test]
fn who_goes_while_it_waits_for_its_turn_keeps_nothing() {
    let mut lab = Lab::with_pools(&[HOME]);
    for number in 1..=3 {
        lab.cluster.create_service_on(&name(number), &[KEY], 80 + number % 2);
    }
    lab.controller.hear_all(&lab.cluster);
    let tasks = lab.controller.decide(&cluster::after(lab.time));
    assert_eq!(tasks.len(), 2, "one for each address: two have the same port");
    lab.cluster.delete_service(&name(2));
    lab.cluster.delete_service(&name(3));
    for task in tasks {
        lab.note(&task);
        let report = lab.cluster.perform_at_once(task);
        lab.controller.index.finish(report, &cluster::after(lab.time));
    }
    lab.settle();
    lab.seconds(10);
    assert_eq!(lab.locks(), ["address-10.0.0.1"]);
    assert_eq!(lab.sharers("10.0.0.1"), [name(1)]);
}
