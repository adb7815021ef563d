//! Services of namespaces that trust each other as far as their pools say.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation, Sharing},
    metallb::IPAddressPool,
};
use serde_json::{Value, json};

use super::*;
use crate::{Declared, Declarer};

const KEY: &str = "arpeggio.dev/sharing-key";
const ADDRESSES: &str = "arpeggio.dev/addresses";

/// Namespaces a and b, and a pool of two whose addresses are shared like this; a has the first one, with a key.
fn lab(sharing: Sharing) -> Lab {
    let mut lab = Lab::with_pools(&[]);
    for namespace in ["a", "b"] {
        lab.controller.index.set_namespace(namespace, Labels::new());
    }
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())];
    lab.cluster.set_pool_spec("home", AddressPoolSpec { addresses, sharing, ..Default::default() });
    lab.cluster.create_service_in("a", "secret", &[(KEY, "hunter2")], 443);
    lab.settle();
    lab
}

/// Everything that the owner of this Service can read.
fn readable(lab: &Lab, name: &str) -> String {
    let conditions = lab.record(name).conditions.into_iter().map(|it| it.message);
    let notes = lab.told.iter().skip(1).map(|news| news.note.clone());
    conditions.chain(notes).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_key_of_another_namespace_opens_nothing_and_is_never_told() {
    for key in ["hunter2", "guess"] {
        let mut lab = lab(Sharing::Namespace);
        let asks = [(KEY, key), (ADDRESSES, "10.0.0.1")];
        lab.cluster.create_service_in("b", "curious", &asks, 80);
        lab.settle();
        assert_eq!(lab.addresses("curious"), [""; 0]);
        let text = readable(&lab, "curious");
        assert!(text.contains("a Service of another namespace has it"), "{text}");
        for secret in ["hunter2", "secret", "a/", "443"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[test]
fn without_a_request_sharers_of_two_namespaces_get_two_addresses() {
    for (sharing, expected) in [(Sharing::Namespace, "10.0.0.2"), (Sharing::Cluster, "10.0.0.1")] {
        let mut lab = lab(sharing);
        lab.cluster.create_service_in("b", "web", &[(KEY, "hunter2")], 80);
        lab.settle();
        assert_eq!(lab.addresses("web"), [expected]);
    }
}

#[test]
fn sharers_stay_together_when_their_pool_does_not_allow_it_any_more() {
    let mut lab = lab(Sharing::Cluster);
    lab.cluster.create_service_in("b", "web", &[(KEY, "hunter2")], 80);
    lab.settle();
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())];
    lab.cluster.set_pool_spec("home", AddressPoolSpec { addresses, ..Default::default() });
    lab.settle();
    lab.writes.clear();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.sharers("10.0.0.1"), ["secret", "web"]);
}

#[test]
fn what_another_balancer_had_two_namespaces_share_they_go_on_sharing() {
    let mut lab = lab(Sharing::Namespace);
    lab.cluster.create_service_in("b", "web", &[(KEY, "hunter2")], 80);
    lab.cluster.set_ingress("web", "10.0.0.1", "controller");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.sharers("10.0.0.1"), ["secret", "web"]);
}

#[test]
fn an_annotation_with_a_line_break_stays_on_its_line() {
    let mut lab = lab(Sharing::Namespace);
    for annotation in ["arpeggio.dev/address-pool", ADDRESSES, KEY] {
        let value = "a\n2026-01-01 ERROR everything is lost\u{202e}";
        lab.cluster.create_service_in("b", "rude", &[(annotation, value)], 80);
        lab.settle();
        let text = readable(&lab, "rude");
        let control =
            text.lines().any(|line| line.starts_with("2026") || line.contains('\u{202e}'));
        assert!(!control, "{text}");
        lab.cluster.delete_service("rude");
        lab.settle();
    }
}

#[test]
fn many_who_wait_are_told_nothing_new_when_one_address_comes_free() {
    let mut lab = Lab::with_pools(&[]);
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())];
    let reuse_cool_down_seconds = 60;
    let spec = AddressPoolSpec { addresses, reuse_cool_down_seconds, ..Default::default() };
    lab.cluster.set_pool_spec("home", spec);
    for number in 0..42 {
        lab.create(&format!("s{number:02}"));
    }
    assert_eq!(lab.controller.index.refused(), [("PoolFull", 40)].into());
    lab.writes.clear();
    lab.told.clear();
    lab.cluster.delete_service("s00");
    lab.settle();
    lab.wait(Duration::from_secs(61));
    lab.settle();
    assert_eq!(lab.writes, ["release", "release", "claim", "service"]);
    let told: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(told, ["IPAllocated"]);
    assert_eq!(lab.addresses("s02").len(), 1, "the first of those who wait");
    assert_eq!(lab.controller.index.refused(), [("PoolFull", 39)].into());
    lab.cluster.delete_service("s40");
    lab.settle();
    assert_eq!(lab.controller.index.refused(), [("PoolFull", 38)].into());
}

#[test]
fn who_asks_for_an_address_of_a_stranger_is_not_told_who_that_is() {
    let mut lab = lab(Sharing::Namespace);
    lab.cluster.find_stranger("10.0.0.1", [2, 0, 0, 0, 0, 9]);
    lab.settle();
    assert_eq!(lab.addresses("secret"), ["10.0.0.2"], "it has left the stranger's");
    lab.told.clear();
    lab.cluster.create_service_in("b", "curious", &[(ADDRESSES, "10.0.0.1")], 80);
    lab.settle();
    let text = readable(&lab, "curious");
    assert!(text.contains("another machine answers at it"), "{text}");
    assert!(!text.contains("02:00"), "{text}");
}

/// What is done to the pools, how many Services get an address by it, and how many of the others are told something.
type PoolChange = (&'static str, fn(&mut Cluster), usize, usize);

const POOL_CHANGES: [PoolChange; 9] = [
    ("one with one address", |it| it.set_pool("b", &["10.1.0.1"]), 1, 0),
    ("one of the other family", |it| it.set_pool("c", &["fd00::/120"]), 0, 0),
    (
        "one that does not assign automatically",
        |it| it.set_pool_spec("d", AddressPoolSpec { auto_assign: false, ..spec("10.2.0.1") }),
        0,
        0,
    ),
    ("one for others", |it| it.set_pool_spec("e", for_others()), 0, 0),
    (
        "a longer rest",
        |it| {
            it.set_pool_spec(
                "home",
                AddressPoolSpec { reuse_cool_down_seconds: 9, ..spec("10.0.0.1-10.0.0.2") },
            );
        },
        0,
        0,
    ),
    ("two addresses more", |it| it.set_pool("home", &["10.0.0.1-10.0.0.4"]), 2, 0),
    ("a pool is gone of which nobody who waits was told", |it| it.delete_pool("d"), 0, 0),
    ("one that is invalid", |it| it.set_pool("f", &["10.3.0.0/99"]), 0, 0),
    // What they were told to do helps nobody any more.
    (
        "automatic no more",
        |it| {
            it.set_pool_spec(
                "home",
                AddressPoolSpec { auto_assign: false, ..spec("10.0.0.1-10.0.0.4") },
            );
        },
        0,
        37,
    ),
];

fn spec(addresses: &str) -> AddressPoolSpec {
    let addresses = vec![AddressItem(addresses.to_owned())];
    AddressPoolSpec { addresses, ..AddressPoolSpec::default() }
}

fn for_others() -> AddressPoolSpec {
    let namespaces = vec!["elsewhere".to_owned()];
    AddressPoolSpec {
        allocation: Some(Allocation { namespaces, ..Allocation::default() }),
        ..spec("10.4.0.1")
    }
}

#[test]
fn a_change_of_pools_is_written_to_those_only_for_whom_it_changes_something() {
    let mut lab = Lab::with_pools(&[HOME]);
    for number in 0..42 {
        lab.create(&format!("s{number:02}"));
    }
    for (what, change, given, told) in POOL_CHANGES {
        lab.writes.clear();
        lab.told.clear();
        change(&mut lab.cluster);
        lab.settle();
        assert_eq!((lab.count("claim"), lab.count("service")), (given, given + told), "{what}");
        let events = lab.told.iter().filter(|it| it.reason == "AllocationFailed").count();
        assert_eq!(events, told, "{what}");
        lab.restart();
        assert_eq!(lab.count("service"), 0, "{what}: after a restart");
    }
    // A newcomer is told all that there is to know.
    lab.create("newcomer");
    for pool in ["b", "c", "f", "home"] {
        assert!(
            lab.says("newcomer").contains(&format!("pool \"{pool}\"")),
            "{}",
            lab.says("newcomer")
        );
    }
    // A pool is gone that they were told of, and another one of which they were, too, has nothing to give either. Four
    // Services have addresses of the one that is gone.
    lab.writes.clear();
    lab.cluster.delete_pool("home");
    lab.settle();
    assert_eq!(lab.count("service"), 4);
}

/// What befalls a Service of namespace b, and a word that it is told. Services of namespace a have the name `secret`.
type Mishap = (
    &'static str,
    Sharing,
    &'static [(&'static str, &'static str)],
    i32,
    fn(&mut Lab),
    &'static str,
);

const MISHAPS: [Mishap; 6] = [
    (
        "the port is taken",
        Sharing::Cluster,
        &[(KEY, "hunter2"), (ADDRESSES, "10.0.0.1")],
        443,
        |_| {},
        "another namespace",
    ),
    ("no key", Sharing::Cluster, &[(ADDRESSES, "10.0.0.1")], 80, |_| {}, "another namespace"),
    (
        "who has it is being deleted",
        Sharing::Namespace,
        &[(ADDRESSES, "10.0.0.1")],
        80,
        |lab| lab.cluster.begin_deletion("secret", "secret.example/finalizer"),
        "being deleted",
    ),
    (
        "its pool is for others now",
        Sharing::Namespace,
        &[],
        80,
        |lab| lab.cluster.set_pool_spec("home", for_others_of("secret-team", "10.0.0.1-10.0.0.2")),
        "not for this Service",
    ),
    (
        "a pool of others has its addresses",
        Sharing::Namespace,
        &[("arpeggio.dev/address-pool", "mine")],
        80,
        |lab| {
            lab.cluster.set_pool("mine", &["10.0.0.2-10.0.0.3"]);
        },
        "another pool has some of its addresses",
    ),
    (
        "it asks for another pool, and one of others has its address by now",
        Sharing::Namespace,
        &[],
        80,
        |lab| {
            lab.cluster.delete_pool("home");
            let of_others = for_others_of("secret-team", "10.0.0.1-10.0.0.2");
            lab.cluster.set_pool_spec("secret-vip", of_others);
            lab.cluster.set_pool("mine", &["10.9.0.1"]);
            lab.cluster.annotate("web", "arpeggio.dev/address-pool", "mine");
        },
        "Assigned 10.9.0.1 from pool mine instead of 10.0.0.2: the Service asks for another pool",
    ),
];

fn for_others_of(namespace: &str, addresses: &str) -> AddressPoolSpec {
    let namespaces = vec![namespace.to_owned()];
    AddressPoolSpec {
        allocation: Some(Allocation { namespaces, ..Allocation::default() }),
        ..spec(addresses)
    }
}

#[test]
fn whatever_befalls_a_service_it_is_told_nothing_of_other_namespaces() {
    for (what, sharing, annotations, port, befall, word) in MISHAPS {
        let mut lab = lab(sharing);
        lab.cluster.create_service_in("b", "web", annotations, port);
        lab.settle();
        befall(&mut lab);
        lab.settle();
        let conditions = lab.record("web").conditions;
        // The first one is for the Service of the other namespace.
        let notes = lab.told.iter().skip(1).map(|it| it.note.clone());
        let text = conditions.into_iter().map(|it| it.message).chain(notes);
        let text: Vec<String> = text.collect();
        assert!(text.iter().any(|it| it.contains(word)), "{what}: {text:#?}");
        for secret in ["hunter2", "secret", "a/", "443"] {
            assert!(!text.iter().any(|it| it.contains(secret)), "{what}: {secret}: {text:#?}");
        }
    }
}

/// Pools of another namespace's, of which it cannot be understood for whom they are.
fn unreadable() -> [Value; 5] {
    let label = "secret.example/team";
    let expression = json!([{ "matchExpressions": [{ "key": label, "operator": "in" }] }]);
    let rules = [
        json!({ "namespaces": ["secret", "secret"] }),
        json!({ "namespaceSelectors": expression }),
        json!({ "serviceSelectors": expression }),
        json!({ "namespaces": "secret" }),
        json!({ "namespaces": ["a"], "priority": "secret" }),
    ];
    rules.map(|rules| json!({ "addresses": ["10.0.5.0/28"], "serviceAllocation": rules }))
}

#[test]
fn a_pool_whose_rules_cannot_be_understood_is_told_of_to_those_only_who_name_it() {
    for spec in unreadable() {
        let mut lab = lab(Sharing::Namespace);
        let object = json!({ "metadata": { "name": "bank-vip", "uid": "1" }, "spec": spec });
        let pool: IPAddressPool = serde_json::from_value(object).unwrap();
        let pools = vec![pool.declare([], true).0];
        let declared = Declared { pools, ..Declared::default() };
        lab.controller.index.set_declared(Declarer::MetalLb, declared);
        lab.cluster.create_service_in("b", "last", &[], 80);
        lab.cluster.create_service_in("b", "waits", &[], 80);
        let named = [("arpeggio.dev/address-pool", "bank-vip")];
        lab.cluster.create_service_in("b", "names", &named, 80);
        lab.settle();
        let (waits, told) = (lab.says("waits"), lab.says("names"));
        assert!(waits.contains("pool \"home\": all its") && !waits.contains("bank"), "{waits}");
        assert!(told.contains("pool \"bank-vip\": it is not used, since it is invalid"), "{told}");
        assert!(!readable(&lab, "names").contains("secret"), "{}", readable(&lab, "names"));
    }
}

#[test]
fn those_who_ask_for_one_address_are_told_nothing_new_when_it_changes_hands() {
    for waits_for_finalizer in [false, true] {
        let mut lab = Lab::with_pools(&[HOME]);
        for number in 0..20 {
            let name = format!("s{number:02}");
            lab.cluster.create_service(&name, &[(ADDRESSES, "10.0.0.1")]);
            lab.settle();
        }
        lab.writes.clear();
        lab.told.clear();
        if waits_for_finalizer {
            lab.cluster.begin_deletion("s00", "example.com/wait");
            lab.settle();
            assert!(lab.says("s01").contains("finalizers (example.com/wait)"));
        }
        lab.cluster.delete_service("s00");
        lab.settle();
        assert_eq!(lab.addresses("s01"), ["10.0.0.1"]);
        assert_eq!(lab.count("service"), 1 + usize::from(waits_for_finalizer));
        assert_eq!(lab.told.len(), lab.count("service"));
        for number in 2..20 {
            let said = lab.says(&format!("s{number:02}"));
            assert!(!said.contains("s00") && !said.contains("deleted"), "{said}");
        }
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
    }
}

#[test]
fn of_those_who_wait_for_a_service_that_is_being_deleted_the_first_one_knows() {
    let mut lab = Lab::with_pools(&[HOME]);
    for name in ["has", "b", "c", "d"] {
        lab.cluster.create_service(name, &[(ADDRESSES, "10.0.0.1")]);
        lab.wait(Duration::from_secs(1));
    }
    lab.cluster.begin_deletion("has", "example.com/wait");
    lab.settle();
    let knowing = |lab: &Lab| -> Vec<&str> {
        let is_told = |name: &&str| lab.says(name).contains("is being deleted since");
        ["b", "c", "d"]
            .into_iter()
            .filter(|it| lab.cluster.has_service(it))
            .filter(is_told)
            .collect()
    };
    assert_eq!(knowing(&lab), ["b"]);
    lab.cluster.delete_service("b");
    lab.settle();
    assert_eq!(knowing(&lab), ["c"]);
    lab.cluster.annotate("c", ADDRESSES, "10.0.0.2");
    lab.settle();
    assert_eq!(knowing(&lab), ["d"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn what_becomes_of_one_service_wakes_those_only_whom_it_concerns() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.cluster.create_service("has", &[(KEY, "k")]);
    lab.settle();
    let waiting: [(&str, &[(&str, &str)]); 4] = [
        ("any", &[]),
        ("asks", &[(ADDRESSES, "10.0.0.1")]),
        ("other-key", &[(KEY, "j")]),
        ("same-key", &[(KEY, "k")]),
    ];
    for (name, annotations) in waiting {
        lab.cluster.create_service(name, annotations);
        lab.settle();
    }
    let woken = |lab: &mut Lab| -> Vec<String> {
        lab.controller.hear_all(&lab.cluster);
        let woken = lab.controller.index.dirty.iter().map(ToString::to_string).collect();
        lab.settle();
        woken
    };
    lab.cluster.begin_deletion("has", "example.com/wait");
    assert_eq!(woken(&mut lab), ["default/asks", "default/has"]);
    lab.cluster.set_port("has", 443);
    assert_eq!(woken(&mut lab), ["default/asks", "default/has", "default/same-key"]);
    assert_eq!(lab.addresses("same-key"), ["10.0.0.1"]);
}
