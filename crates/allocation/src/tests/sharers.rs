//! Many Services at one address.

use arpeggio_api::address_pool::{AddressItem, AddressPoolSpec};

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

/// Has a Service wait for the address that `count` others share.
fn with_one_who_waits(count: i32) -> Lab {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    assert_eq!(come(&mut lab, count), usize::try_from(count).unwrap());
    lab.cluster.create_service("waits", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    assert_eq!(lab.addresses("waits"), [""; 0]);
    // What has been written so far is made up for.
    lab.wait(Duration::from_mins(5));
    lab.writes.clear();
    lab
}

#[test]
fn many_who_are_deleted_together_cost_one_write() {
    for (restarted, count) in [(false, 110), (true, 40)] {
        let mut lab = with_one_who_waits(count);
        (1..=count).for_each(|number| lab.cluster.delete_service(&name(number)));
        if restarted {
            lab.restart();
        } else {
            lab.settle();
        }
        assert_eq!(lab.addresses("waits"), ["10.0.0.1"], "{:?}", lab.writes);
        lab.writes.retain(|it| *it != "service");
        assert_eq!(lab.writes, ["release", "claim"]);
    }
}

#[test]
fn all_but_one_who_are_deleted_together_cost_one_write() {
    let mut lab = with_one_who_waits(110);
    (1..=110).filter(|it| *it != 50).for_each(|it| lab.cluster.delete_service(&name(it)));
    lab.settle();
    assert_eq!(lab.sharers("10.0.0.1"), [name(50)]);
    assert_eq!(lab.count("release"), 1, "{:?}", lab.writes);
    assert_eq!(lab.addresses(&name(50)), ["10.0.0.1"]);
}

#[test]
fn many_who_are_not_for_us_any_more_cost_few_writes_of_their_lock() {
    let changes: [fn(&mut Cluster, &str); 2] = [
        |cluster, name| cluster.set_type(name, "ClusterIP"),
        |cluster, name| cluster.set_class(name, Some("other")),
    ];
    for change in changes {
        let mut lab = with_one_who_waits(40);
        (1..=40).for_each(|number| change(&mut lab.cluster, &name(number)));
        lab.settle();
        assert_eq!(lab.addresses("waits"), ["10.0.0.1"], "{:?}", lab.writes);
        assert!(lab.count("release") <= 3, "{:?}", lab.writes);
    }
}

#[test]
fn many_who_move_to_another_address_leave_the_old_one_within_seconds() {
    let mut lab = with_one_who_waits(40);
    lab.cluster.set_pool("other", &["10.0.1.1"]);
    for number in 1..=40 {
        lab.cluster.annotate(&name(number), "arpeggio.dev/addresses", "10.0.1.1");
    }
    lab.settle();
    lab.seconds(6);
    assert_eq!(lab.addresses("waits"), ["10.0.0.1"], "{:?}", lab.writes);
    assert!(lab.count("release") <= 22, "{:?}", lab.writes);
}

#[test]
fn who_comes_back_in_time_stays_when_others_go() {
    let mut lab = with_one_who_waits(3);
    (1..=3).for_each(|number| lab.cluster.delete_service(&name(number)));
    lab.controller.hear_all(&lab.cluster);
    let tasks = lab.controller.decide(&cluster::after(lab.time));
    // The watch has not shown it yet.
    lab.cluster.create_service_on(&name(2), &[KEY], 2);
    for task in tasks {
        lab.note(&task);
        let report = lab.cluster.perform_at_once(task);
        lab.controller.index.finish(report, &cluster::after(lab.time));
    }
    assert_eq!(lab.sharers("10.0.0.1").len(), 3);
    lab.settle();
    assert_eq!(lab.sharers("10.0.0.1"), [name(2)]);
    assert_eq!(lab.addresses(&name(2)), ["10.0.0.1"]);
    assert_eq!(lab.addresses("waits"), [""; 0]);
}

/// What is done to both of two Services that share an address, one after the other. It leaves them as they can share it.
type Change = (&'static str, fn(&mut Cluster, &str));

const CHANGES: [Change; 4] = [
    ("the policy", |it, name| it.set_policy(name, "Local")),
    ("the key", |it, name| it.annotate(name, KEY.0, "other")),
    ("the selector", |it, name| it.set_selector(name, "renamed")),
    ("the ports", |it, name| it.set_port(name, if name == "first" { 443 } else { 80 })),
];

/// Two Services that share an address and follow `externalTrafficPolicy: policy`, in a pool whose addresses rest.
fn two(policy: &str) -> Lab {
    let mut lab = Lab::with_pools(&[]);
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.9".to_owned())];
    let spec =
        AddressPoolSpec { addresses, reuse_cool_down_seconds: 300, ..AddressPoolSpec::default() };
    lab.cluster.set_pool_spec("home", spec);
    for (name, port) in [("first", 80), ("second", 443)] {
        lab.cluster.create_service_on(name, &[KEY], port);
        lab.cluster.set_selector(name, "web");
        lab.cluster.set_policy(name, policy);
        lab.settle();
        assert_eq!(lab.addresses(name), ["10.0.0.1"]);
    }
    lab.periods = Periods { patience: Duration::from_secs(5), ..cluster::PERIODS };
    lab.restart();
    lab.writes.clear();
    lab.told.clear();
    lab
}

#[test]
fn sharers_of_whom_each_is_changed_like_the_other_stay_together() {
    for (what, change) in CHANGES {
        for names in [["first", "second"], ["second", "first"]] {
            for (between, restarts) in [(0, false), (0, true), (4, false), (4, true)] {
                let mut lab = two("Local");
                if what == "the policy" {
                    lab = two("Cluster");
                }
                change(&mut lab.cluster, names[0]);
                lab.settle();
                lab.seconds(between);
                if restarts {
                    lab.restart();
                }
                change(&mut lab.cluster, names[1]);
                lab.settle();
                lab.seconds(20);
                lab.restart();
                lab.seconds(20);
                let what = format!("{what}, {names:?}, {between} s, restarts: {restarts}");
                assert_eq!(lab.addresses("first"), ["10.0.0.1"], "{what}");
                assert_eq!(lab.addresses("second"), ["10.0.0.1"], "{what}");
                assert_eq!((lab.count("service"), lab.told.len()), (0, 0), "{what}");
                assert_eq!(lab.controller.index.parting_since.len(), 0, "{what}");
            }
        }
    }
}

#[test]
fn what_two_sharers_were_before_both_were_changed_counts_no_more() {
    for (what, change) in CHANGES {
        // The patience is over: whoever leads was told of both changes at once, or has known the terms of before.
        for restarts in [false, true] {
            let mut lab = two(if what == "the policy" { "Cluster" } else { "Local" });
            lab.controller.index.periods.patience = Duration::ZERO;
            change(&mut lab.cluster, "first");
            change(&mut lab.cluster, "second");
            if restarts {
                lab.restart();
            }
            lab.settle();
            lab.seconds(20);
            assert_eq!(lab.addresses("first"), ["10.0.0.1"], "{what}, {restarts}");
            assert_eq!(lab.addresses("second"), ["10.0.0.1"], "{what}, {restarts}");
        }
    }
}

#[test]
fn of_sharers_of_whom_one_only_is_changed_that_one_leaves_after_a_moment_or_else_the_later_one() {
    for (what, change) in CHANGES {
        for changed in ["first", "second"] {
            for restarts in [false, true] {
                let mut lab = two(if what == "the policy" { "Cluster" } else { "Local" });
                change(&mut lab.cluster, changed);
                lab.settle();
                lab.seconds(4);
                let what = format!("{what} of the {changed}, restarts: {restarts}");
                if restarts {
                    lab.restart();
                    lab.seconds(4);
                }
                let both = [lab.addresses("first"), lab.addresses("second")];
                assert_eq!(both, [["10.0.0.1"]; 2], "{what}");
                lab.seconds(2);
                // Whoever leads now has not seen who was changed.
                let [stays, leaves] = match changed {
                    "first" if !restarts => ["second", "first"],
                    _ => ["first", "second"],
                };
                assert_eq!(lab.addresses(stays), ["10.0.0.1"], "{what}");
                assert_eq!(lab.addresses(leaves), ["10.0.0.2"], "{what}");
                assert_eq!(lab.sharers("10.0.0.1"), [stays], "{what}");
                lab.restart();
                lab.seconds(20);
                assert_eq!(lab.writes, [""; 0], "{what}");
            }
        }
    }
}

#[test]
fn who_is_to_leave_others_loses_what_another_program_wrote_in_its_status_too() {
    for restarts in [false, true] {
        let mut lab = two("Cluster");
        lab.cluster.set_ingress("second", "10.0.0.1", "kube-vip");
        lab.cluster.set_port("second", 80);
        lab.settle();
        if restarts {
            lab.restart();
        }
        lab.seconds(4);
        assert_eq!(lab.addresses("second"), ["10.0.0.1"], "restarts: {restarts}");
        lab.seconds(2);
        assert_eq!(lab.addresses("second"), ["10.0.0.2"], "restarts: {restarts}");
        assert_eq!(lab.sharers("10.0.0.1"), ["first"], "restarts: {restarts}");
    }
}

#[test]
fn who_cannot_share_its_address_any_more_keeps_it_beside_a_list_of_another_program_for_a_moment() {
    for (agrees, restarts) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut lab = two("Cluster");
        lab.cluster.set_ingress("second", "203.0.113.9", "cloud");
        lab.settle();
        lab.cluster.annotate("second", KEY.0, "other");
        lab.settle();
        if restarts {
            lab.restart();
        }
        lab.seconds(4);
        assert_eq!(lab.sharers("10.0.0.1"), ["first", "second"], "restarts: {restarts}");
        if agrees {
            lab.cluster.annotate("first", KEY.0, "other");
            lab.settle();
        }
        lab.seconds(20);
        let expected: &[&str] = if agrees { &["first", "second"] } else { &["first"] };
        assert_eq!(lab.sharers("10.0.0.1"), expected, "restarts: {restarts}");
        assert_eq!(lab.addresses("second"), ["203.0.113.9"]);
        lab.restart();
        lab.seconds(20);
        assert_eq!(lab.writes, [""; 0], "{agrees}, restarts: {restarts}");
    }
}

#[test]
fn who_lost_its_sharing_key_while_no_controller_ran_leaves_those_who_have_theirs() {
    for name in ["first", "second"] {
        let mut lab = two("Cluster");
        lab.cluster.annotate(name, KEY.0, "");
        lab.restart();
        lab.seconds(7);
        let other = if name == "first" { "second" } else { "first" };
        assert_eq!(lab.addresses(other), ["10.0.0.1"], "{name} has lost it");
        assert_eq!(lab.addresses(name), ["10.0.0.2"]);
        assert_eq!(lab.sharers("10.0.0.1"), [other]);
    }
}

#[test]
fn who_shares_with_a_service_whose_request_is_not_understood_shares_on() {
    let mut lab = two("Cluster");
    lab.cluster.annotate("first", "arpeggio.dev/address-pool", "a,");
    lab.settle();
    // What it asks for is not clear, and whom it shares with is.
    lab.cluster.create_service_on("third", &[KEY, ("arpeggio.dev/addresses", "10.0.0.1")], 8080);
    lab.cluster.create_service_on("other", &[("arpeggio.dev/addresses", "10.0.0.1")], 8081);
    lab.settle();
    assert_eq!(lab.addresses("third"), ["10.0.0.1"]);
    assert_eq!(lab.sharers("10.0.0.1"), ["first", "second", "third"]);
    assert!(lab.says("other").contains("the same sharing key"), "{}", lab.says("other"));
}

/// What may be amiss besides with a Service that is to leave those with whom it shares an address.
type Mishap = (&'static str, fn(&mut Cluster, &str));

const MISHAPS: [Mishap; 3] = [
    ("nothing", |_, _| ()),
    ("a mistake", |it, name| it.annotate(name, "arpeggio.dev/address-pool", "a,")),
    ("its deletion", |it, name| it.begin_deletion(name, "example.com/waits")),
];

#[test]
fn who_loses_its_sharing_key_has_a_moment_to_get_it_back() {
    for (what, mishap) in MISHAPS {
        for name in ["first", "second"] {
            for restarts in [false, true] {
                let mut lab = two("Cluster");
                lab.cluster.annotate(name, KEY.0, "");
                mishap(&mut lab.cluster, name);
                lab.settle();
                if restarts {
                    lab.restart();
                }
                lab.seconds(4);
                let what = format!("{what} of the {name}, restarts: {restarts}");
                assert_eq!(lab.addresses(name), ["10.0.0.1"], "{what}");
                assert_eq!(lab.sharers("10.0.0.1"), ["first", "second"], "{what}");
                lab.cluster.annotate(name, KEY.0, KEY.1);
                lab.settle();
                lab.seconds(20);
                assert_eq!(lab.addresses(name), ["10.0.0.1"], "{what}");
                assert_eq!(lab.sharers("10.0.0.1"), ["first", "second"], "{what}");
                let lost = |it: &News| it.note.contains("Released") || it.note.contains("instead");
                assert!(!lab.told.iter().any(lost), "{what}: {:?}", lab.told);
            }
        }
    }
}

#[test]
fn who_does_not_get_its_sharing_key_back_leaves_status_and_lock_and_reads_why() {
    for (what, mishap) in MISHAPS {
        for restarts in [false, true] {
            let mut lab = two("Cluster");
            lab.cluster.annotate("second", KEY.0, "");
            mishap(&mut lab.cluster, "second");
            lab.settle();
            if restarts {
                lab.restart();
            }
            lab.seconds(7);
            let expected: &[&str] = if what == "nothing" { &["10.0.0.2"] } else { &[] };
            let what = format!("{what}, restarts: {restarts}");
            assert_eq!(lab.addresses("second"), expected, "{what}");
            assert_eq!(lab.sharers("10.0.0.1"), ["first"], "{what}");
            let says_why = |it: &News| it.note.contains("this Service has no sharing key");
            assert!(lab.told.iter().any(says_why), "{what}: {:?}", lab.told);
        }
    }
}

#[test]
fn who_has_lacked_a_pool_for_long_has_its_moment_with_those_it_shares_with_all_the_same() {
    for (what, change) in CHANGES {
        let mut lab = two(if what == "the policy" { "Cluster" } else { "Local" });
        lab.cluster.annotate("second", "arpeggio.dev/address-pool", "never");
        lab.settle();
        lab.seconds(20);
        assert!(lab.says("second").contains("it does not exist"), "{}", lab.says("second"));
        change(&mut lab.cluster, "second");
        lab.settle();
        lab.seconds(4);
        assert_eq!(lab.addresses("second"), ["10.0.0.1"], "{what}");
        change(&mut lab.cluster, "first");
        lab.settle();
        lab.seconds(20);
        assert_eq!(lab.addresses("second"), ["10.0.0.1"], "{what}");
        assert_eq!(lab.sharers("10.0.0.1"), ["first", "second"], "{what}");
    }
}
