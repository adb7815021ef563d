//! A Service that is deleted and created again keeps what it had.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation, Sharing},
    reservations::Reservations,
    selector::LabelSelector,
};

use super::{editions::Edition, *};

/// A pool of three whose addresses rest for a minute when they are given back.
fn resting() -> AddressPoolSpec {
    AddressPoolSpec {
        addresses: vec![AddressItem("10.0.0.1-10.0.0.3".to_owned())],
        reuse_cool_down_seconds: 60,
        ..AddressPoolSpec::default()
    }
}

/// A cluster where Services have three seconds to come back.
fn lab(pool: AddressPoolSpec) -> Lab {
    let mut lab = Lab::with_pools(&[]);
    lab.cluster.set_pool_spec("home", pool);
    lab.periods.succession = Duration::from_secs(3);
    lab.restart();
    lab
}

fn plain() -> AddressPoolSpec {
    AddressPoolSpec { reuse_cool_down_seconds: 0, ..resting() }
}

#[test]
fn a_service_that_is_replaced_keeps_its_address_time_and_again() {
    for pool in [plain(), resting()] {
        let mut lab = lab(pool);
        for name in ["a", "b", "c", "waits"] {
            lab.create(name);
        }
        for round in 0..10 {
            lab.cluster.delete_service("b");
            // Half of the time the controller sees the Service go before it sees it come.
            if round % 2 == 0 {
                lab.settle();
            }
            lab.create("b");
            assert_eq!(lab.addresses("b"), ["10.0.0.2"], "round {round}");
            assert_eq!(lab.sharers("10.0.0.2"), ["b"]);
        }
        assert_eq!(lab.addresses("waits"), [""; 0]);
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
    }
}

#[test]
fn a_service_that_was_replaced_while_no_controller_ran_keeps_its_address() {
    let mut lab = lab(plain());
    lab.create("a");
    lab.create("b");
    for name in ["a", "b"] {
        lab.cluster.delete_service(name);
    }
    lab.cluster.create_service("b", &[]);
    lab.cluster.create_service("a", &[]);
    lab.restart();
    assert_eq!((lab.addresses("a"), lab.addresses("b")), (s("10.0.0.1"), s("10.0.0.2")));
}

#[test]
fn a_status_that_came_back_with_a_backup_is_claimed_for_the_new_service() {
    let mut lab = lab(plain());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_ingress("web", "10.0.0.1", "velero");
    lab.restart();
    let uid = lab.record("web").service.uid;
    let lease = lab.cluster.leases().next().unwrap();
    assert_eq!(lock::parse(lease).unwrap().claim.services[0].uid, uid);
}

#[test]
fn a_resting_address_goes_to_its_last_service_alone() {
    let mut lab = lab(resting());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.wait(Duration::from_secs(10));
    lab.restart();
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"], "the first one rests");
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.wait(Duration::from_mins(5));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn an_address_rests_no_longer_than_its_pool_says_by_now() {
    for (then, waits) in [(0, 0), (30, 31), (7_200, 3_600)] {
        let mut lab = lab(AddressPoolSpec {
            addresses: vec![AddressItem("10.0.0.1".to_owned())],
            reuse_cool_down_seconds: 3_600,
            ..plain()
        });
        lab.create("web");
        lab.cluster.delete_service("web");
        lab.settle();
        lab.wait(Duration::from_secs(3));
        lab.create("other");
        assert_eq!(lab.addresses("other"), [""; 0], "{}", lab.says("other"));
        lab.cluster.set_pool_spec(
            "home",
            AddressPoolSpec {
                addresses: vec![AddressItem("10.0.0.1".to_owned())],
                reuse_cool_down_seconds: then,
                ..plain()
            },
        );
        lab.settle();
        lab.wait(Duration::from_secs(waits));
        assert_eq!(lab.addresses("other"), ["10.0.0.1"], "{then}");
        assert_eq!(lab.locks().len(), 1);
    }
}

#[test]
fn an_address_rests_on_while_its_pool_is_away() {
    let mut lab = lab(resting());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.wait(Duration::from_secs(3));
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.cluster.set_pool_spec("home", resting());
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_resting_address_that_its_last_service_does_not_want_rests_on() {
    let mut lab = lab(resting());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.wait(Duration::from_secs(10));
    lab.cluster.create_service("web", &[("arpeggio.dev/addresses", "10.0.0.3")]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
    lab.wait(Duration::from_mins(2));
    assert_eq!(lab.locks(), ["address-10.0.0.2", "address-10.0.0.3"]);
}

#[test]
fn an_address_that_a_service_gave_up_by_itself_is_no_inheritance() {
    let mut lab = lab(resting());
    lab.create("web");
    lab.cluster.annotate("web", "arpeggio.dev/addresses", "10.0.0.2");
    lab.settle();
    lab.cluster.annotate("web", "arpeggio.dev/addresses", "");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.2"]);
}

#[test]
fn a_service_that_is_no_load_balancer_for_a_while_keeps_what_a_deleted_one_would() {
    for (pool, away) in [(plain(), 0), (plain(), 2), (resting(), 0), (resting(), 30)] {
        let mut lab = lab(pool);
        for name in ["a", "b"] {
            lab.create(name);
        }
        lab.cluster.delete_service("a");
        lab.wait(Duration::from_mins(5));
        for type_ in ["ClusterIP", "NodePort", "ClusterIP"] {
            lab.cluster.set_type("b", type_);
            lab.settle();
            assert_eq!(lab.addresses("b"), [""; 0]);
            lab.wait(Duration::from_secs(away));
            lab.create(&format!("other-{type_}-{}", lab.time.as_nanos()));
            lab.cluster.set_type("b", "LoadBalancer");
            lab.settle();
            assert_eq!(lab.addresses("b"), ["10.0.0.2"], "{away} s");
        }
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
    }
}

#[test]
fn a_sharer_that_is_no_load_balancer_for_a_while_costs_the_other_one_nothing() {
    for (pool, away) in [(plain(), 0), (plain(), 30), (resting(), 30)] {
        let mut lab = lab(pool);
        let key = [("arpeggio.dev/sharing-key", "k")];
        for (name, port) in [("a", 80), ("b", 443)] {
            lab.cluster.create_service(name, &key);
            lab.cluster.set_port(name, port);
            lab.settle();
        }
        assert_eq!(lab.sharers("10.0.0.1"), ["a", "b"]);
        for name in ["a", "b"] {
            lab.cluster.set_type(name, "ClusterIP");
            lab.wait(Duration::from_secs(away));
            let other = if name == "a" { "b" } else { "a" };
            assert_eq!(lab.addresses(other), ["10.0.0.1"]);
            lab.cluster.set_type(name, "LoadBalancer");
            lab.settle();
            assert_eq!(lab.addresses(name), ["10.0.0.1"]);
        }
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
    }
}

/// A namespace that is deleted takes its Services along.
#[test]
fn a_service_of_a_namespace_that_is_made_again_inherits_once_that_is_known() {
    let mut lab = lab(resting());
    lab.create("web");
    lab.controller.index.set_namespace_ends("default", true);
    lab.cluster.delete_service("web");
    lab.settle();
    lab.controller.index.forget_namespace("default");
    lab.wait(Duration::from_secs(10));
    lab.cluster.create_service("web", &[]);
    lab.settle();
    assert_eq!(lab.addresses("web"), [""; 0], "which pools are for it is not known yet");
    lab.controller.index.set_namespace("default", Labels::new());
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_service_that_stays_without_a_load_balancer_leaves_nothing() {
    for (pool, names) in [(plain(), 0), (resting(), 1)] {
        let mut lab = lab(pool);
        lab.create("web");
        lab.cluster.set_type("web", "ClusterIP");
        lab.settle();
        assert_eq!((lab.addresses("web"), lab.locks().len()), (vec![], 1));
        lab.wait(Duration::from_secs(3));
        assert_eq!(lab.locks().len(), names);
        lab.wait(Duration::from_mins(2));
        assert_eq!(lab.locks(), [""; 0]);
    }
}

#[test]
fn a_service_that_comes_again_for_the_other_family_leaves_the_address_to_others() {
    for down in [false, true] {
        let mut lab = lab(AddressPoolSpec {
            addresses: ["10.0.0.1", "fd00::1"].map(|it| AddressItem(it.to_owned())).into(),
            ..plain()
        });
        lab.create("web");
        lab.cluster.delete_service("web");
        if !down {
            lab.settle();
        }
        lab.cluster.create_service("web", &[]);
        lab.cluster.set_cluster_addresses("web", &["fd00:1::7"]);
        if down {
            lab.restart();
        }
        lab.settle();
        assert_eq!(lab.addresses("web"), ["fd00::1"], "{}", lab.says("web"));
        lab.create("other");
        assert_eq!(lab.addresses("other"), ["10.0.0.1"]);
    }
}

#[test]
fn a_service_that_does_not_come_back_leaves_nothing() {
    let mut lab = lab(plain());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    assert_eq!(lab.locks(), ["address-10.0.0.1"], "for three seconds");
    lab.wait(Duration::from_secs(3));
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn each_of_those_who_share_an_address_has_the_whole_time_to_come_back() {
    const KEY: &str = "arpeggio.dev/sharing-key";
    let mut lab = lab(plain());
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    lab.cluster.create_service("waits", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    for name in ["a", "b"] {
        lab.cluster.delete_service(name);
        lab.settle();
        lab.wait(Duration::from_secs(2));
    }
    assert_eq!(lab.sharers("10.0.0.1"), ["b"], "the time of the other one is over");
    lab.cluster.create_service_on("b", &[(KEY, "k")], 443);
    lab.settle();
    assert_eq!(lab.sharers("10.0.0.1"), ["b"]);
    lab.cluster.delete_service("b");
    lab.settle();
    lab.wait(Duration::from_secs(3));
    assert_eq!(lab.sharers("10.0.0.1"), ["waits"]);
    assert_eq!(lab.controller.index.orphaned.len(), 0);
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn selector(key: &str, value: &str) -> Vec<LabelSelector> {
    let match_labels = [(key.to_owned(), value.to_owned())].into();
    vec![LabelSelector { match_labels, ..LabelSelector::default() }]
}

/// For Services labelled `tier: web` in namespaces labelled `team: green`.
fn reserved_for_some() -> AddressPoolSpec {
    let allocation = Allocation {
        namespace_selectors: selector("team", "green"),
        service_selectors: selector("tier", "web"),
        ..Allocation::default()
    };
    AddressPoolSpec { allocation: Some(allocation), ..plain() }
}

/// Why a Service that comes again may not have what its predecessor had, and what brings that about.
type Bar = (&'static str, fn(&mut Lab));

const BARS: [Bar; 6] = [
    ("labels of the namespace", |lab| {
        lab.controller.index.set_namespace("default", labels(&[("team", "red")]));
    }),
    ("selector of the pool", |lab| {
        let mut pool = reserved_for_some();
        pool.allocation.as_mut().unwrap().namespace_selectors = selector("team", "blue");
        lab.cluster.set_pool_spec("home", pool);
    }),
    ("labels of the Service", |lab| lab.cluster.label("web", "tier", "db")),
    ("excluded", |lab| {
        let excluded_addresses = vec![AddressItem("10.0.0.1".to_owned())];
        lab.cluster
            .set_pool_spec("home", AddressPoolSpec { excluded_addresses, ..reserved_for_some() });
    }),
    ("no pool", |lab| lab.cluster.delete_pool("home")),
    ("a node's address", |lab| {
        let mut reserved = Reservations::default();
        reserved.add_node("n1", ["10.0.0.1".parse().unwrap()]);
        lab.controller.index.set_reserved(reserved);
    }),
];

#[test]
fn who_comes_again_inherits_nothing_that_it_could_not_get() {
    for (why, bar) in BARS {
        for (already, restarts) in [(false, false), (true, false), (false, true)] {
            let mut lab = lab(reserved_for_some());
            lab.controller.index.set_namespace("default", labels(&[("team", "green")]));
            lab.cluster.create_service("web", &[]);
            lab.cluster.label("web", "tier", "web");
            lab.settle();
            assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
            if already {
                // What it has it keeps for a grace period.
                bar(&mut lab);
                lab.settle();
                assert_eq!(lab.addresses("web"), ["10.0.0.1"], "{why}");
            }
            lab.cluster.delete_service("web");
            if restarts {
                lab.controller = Controller::restarted(Index::new(None, lab.periods), &lab.cluster);
            } else {
                lab.settle();
            }
            lab.cluster.create_service("web", &[]);
            lab.cluster.label("web", "tier", "web");
            bar(&mut lab);
            lab.settle();
            assert!(!lab.addresses("web").contains(&"10.0.0.1".to_owned()), "{why}");
            lab.wait(Duration::from_secs(4));
            assert!(!lab.locks().contains(&"address-10.0.0.1".to_owned()), "{why}");
        }
    }
}

#[test]
fn who_comes_again_with_another_key_leaves_the_address_to_those_who_are_there() {
    const KEY: &str = "arpeggio.dev/sharing-key";
    for restarts in [false, true] {
        let mut lab = lab(plain());
        for (name, port) in [("a", 80), ("b", 443)] {
            lab.cluster.create_service_on(name, &[(KEY, "k")], port);
            lab.settle();
        }
        assert_eq!(lab.sharers("10.0.0.1"), ["a", "b"]);
        lab.cluster.delete_service("a");
        lab.cluster.create_service_on("a", &[(KEY, "other")], 80);
        if restarts {
            lab.restart();
        }
        lab.settle();
        assert_eq!((lab.addresses("a"), lab.addresses("b")), (s("10.0.0.2"), s("10.0.0.1")));
    }
}

#[test]
fn who_comes_again_shares_with_another_namespace_only_as_its_pool_says_now() {
    const KEY: &str = "arpeggio.dev/sharing-key";
    let mut lab = lab(AddressPoolSpec { sharing: Sharing::Cluster, ..plain() });
    lab.controller.index.set_namespace("b", Labels::new());
    lab.cluster.create_service_on("web", &[(KEY, "k")], 80);
    lab.settle();
    lab.cluster.create_service_in("b", "other", &[(KEY, "k")], 443);
    lab.settle();
    assert_eq!(lab.addresses("other"), ["10.0.0.1"]);
    lab.cluster.set_pool_spec("home", plain());
    lab.settle();
    lab.cluster.delete_service("other");
    lab.cluster.create_service_in("b", "other", &[(KEY, "k")], 443);
    lab.settle();
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
}

#[test]
fn all_sharers_that_come_again_at_once_inherit() {
    const KEY: &str = "arpeggio.dev/sharing-key";
    let mut lab = lab(plain());
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    for name in ["a", "b"] {
        lab.cluster.delete_service(name);
    }
    lab.settle();
    for (name, port) in [("b", 443), ("a", 80)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    assert_eq!(lab.sharers("10.0.0.1"), ["a", "b"]);
}

fn s(address: &str) -> Vec<String> {
    vec![address.to_owned()]
}

/// A tool that restores a backup brings the lock, and the Service when it gets to it: with another uid, and without a status.
#[test]
fn a_lock_that_came_back_with_a_backup_waits_for_its_service() {
    for (down, sharers) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut lab = lab(plain());
        let mut brought = Vec::new();
        for (name, port) in [("web", 80), ("api", 443)].into_iter().take(sharers) {
            lab.cluster.create_service_on(name, &[("arpeggio.dev/sharing-key", "k")], port);
            lab.settle();
            brought.push((name, port));
        }
        let lease = lab.lease("address-10.0.0.1").clone();
        let mut other = self::lab(plain());
        other.wait(Duration::from_hours(1));
        if down {
            other.cluster.restore_lease(lease, cluster::after(other.time));
            other.restart();
        } else {
            other.cluster.restore_lease(lease, cluster::after(other.time));
        }
        other.wait(Duration::from_mins(1));
        other.create("early");
        assert_eq!(other.addresses("early"), ["10.0.0.2"]);
        for (name, port) in brought {
            other.wait(Duration::from_mins(1));
            other.cluster.create_service_on(name, &[("arpeggio.dev/sharing-key", "k")], port);
            other.settle();
            assert_eq!(other.addresses(name), ["10.0.0.1"]);
        }
        other.wait(Duration::from_hours(1));
        assert_eq!(other.locks(), ["address-10.0.0.1", "address-10.0.0.2"]);
    }
}

/// A node that takes the lock writes since when it has it. Another controller that leads then knows all the same where the
/// lock comes from, also when it was down before.
#[test]
fn a_lock_that_came_back_with_a_backup_waits_for_its_service_whichever_node_takes_it() {
    for (was_held, down) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut lab = lab(plain());
        lab.create("web");
        if was_held {
            lab.cluster.take_lock("10.0.0.1");
        }
        let lease = lab.lease("address-10.0.0.1").clone();
        let mut other = self::lab(plain());
        other.wait(Duration::from_hours(1));
        other.cluster.restore_lease(lease, cluster::after(other.time));
        if !down {
            other.settle();
        }
        other.time += Duration::from_secs(1);
        other.cluster.take_lock_at("10.0.0.1", &cluster::after(other.time));
        other.restart();
        for _ in 0..4 {
            other.wait(Duration::from_mins(2));
            other.restart();
        }
        other.create("early");
        assert_eq!(other.addresses("early"), ["10.0.0.2"], "{was_held} {down}");
        other.create("web");
        assert_eq!(other.addresses("web"), ["10.0.0.1"], "{was_held} {down}");
    }
}

/// The clock of the controller that claimed the address was ahead of all others.
#[test]
fn a_lock_that_came_back_with_a_backup_waits_for_its_service_whatever_time_it_was_claimed_at() {
    let mut lab = lab(plain());
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    let ahead = "1970-01-01T01:05:00Z";
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/claimed-since", ahead);
    let lease = lab.lease("address-10.0.0.1").clone();
    let mut other = self::lab(plain());
    other.wait(Duration::from_hours(1));
    other.cluster.restore_lease(lease, cluster::after(other.time));
    other.settle();
    for _ in 0..3 {
        other.time += Duration::from_secs(1);
        other.cluster.take_lock_at("10.0.0.1", &cluster::after(other.time));
        other.wait(Duration::from_mins(2));
        other.restart();
    }
    other.create("early");
    assert_eq!(other.addresses("early"), ["10.0.0.2"]);
    other.create("web");
    assert_eq!(other.addresses("web"), ["10.0.0.1"]);
}

/// A node without a battery for its clock has been started. What the lock says itself was written by another clock.
#[test]
fn a_lock_says_since_when_it_is_claimed_also_when_the_clock_of_its_node_is_behind() {
    let mut lab = lab(plain());
    lab.wait(Duration::from_hours(3));
    lab.create("web");
    let said = |lab: &Lab| lock::parse(lab.lease("address-10.0.0.1")).unwrap().claimed_since;
    let (before, behind) = (said(&lab), lab.time.checked_sub(Duration::from_hours(2)).unwrap());
    assert!(before.is_some());
    lab.cluster.take_lock_at("10.0.0.1", &cluster::after(behind));
    lab.restart();
    lab.cluster.announce_on("home", "eth1");
    lab.settle();
    assert_eq!(lab.count("amend"), 1);
    assert_eq!(said(&lab), before);
}

/// The watch does not show such a one: who wants its address finds it.
#[test]
fn a_lock_that_came_back_without_its_label_waits_for_its_service_all_the_same() {
    let mut lab = lab(plain());
    lab.create("web");
    let mut lease = lab.lease("address-10.0.0.1").clone();
    lease.metadata.labels = None;
    let mut other = self::lab(plain());
    other.wait(Duration::from_hours(1));
    other.cluster.restore_lease(lease, cluster::after(other.time));
    other.restart();
    for (name, expected) in [("early", "10.0.0.2"), ("later", "10.0.0.3"), ("web", "10.0.0.1")] {
        other.create(name);
        assert_eq!(other.addresses(name), [expected]);
        other.wait(Duration::from_mins(2));
    }
}

/// An earlier release does not say since when an address is claimed. Nothing is written only to say so.
#[test]
fn a_lock_of_an_earlier_release_says_with_its_next_write_since_when_it_is_claimed() {
    for (was_amended, expected) in [(false, "10.0.0.1"), (true, "10.0.0.2")] {
        let mut lab = lab(plain());
        lab.cluster.asks = Edition::Before;
        lab.create("web");
        lab.cluster.asks = Edition::This;
        lab.cluster.take_lock("10.0.0.1");
        // What the Service is told is in other words.
        lab.wait(Duration::from_mins(1));
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
        if was_amended {
            lab.cluster.announce_on("home", "eth1");
            lab.settle();
            assert_eq!(lab.count("amend"), 1);
        }
        let lease = lab.lease("address-10.0.0.1").clone();
        let said = lock::parse(&lease).unwrap().claimed_since;
        assert_eq!(said, was_amended.then(|| Time("1970-01-01T00:00:00Z".parse().unwrap())));
        let mut other = self::lab(plain());
        other.wait(Duration::from_hours(1));
        other.cluster.restore_lease(lease, cluster::after(other.time));
        other.cluster.take_lock_at("10.0.0.1", &cluster::after(other.time));
        other.restart();
        other.wait(Duration::from_mins(1));
        other.create("early");
        assert_eq!(other.addresses("early"), [expected]);
    }
}

/// What the Lease's times say is lost when a node takes the lock: the controller that has seen them writes it down.
#[test]
fn a_restored_lock_of_an_earlier_release_waits_for_its_service_whichever_node_takes_it() {
    for is_faster in [false, true] {
        let mut lab = lab(plain());
        lab.cluster.asks = Edition::Before;
        lab.create("web");
        let lease = lab.lease("address-10.0.0.1").clone();
        let mut other = self::lab(plain());
        other.wait(Duration::from_hours(1));
        other.cluster.restore_lease(lease, cluster::after(other.time));
        other.writes.clear();
        other.controller.hear_all(&other.cluster);
        let tasks = other.controller.decide(&cluster::after(other.time));
        if is_faster {
            // The controller's write meets another version of the lock.
            other.cluster.take_lock_at("10.0.0.1", &cluster::after(other.time));
        }
        tasks.into_iter().for_each(|task| other.perform(task));
        other.wait(Duration::from_mins(1));
        other.cluster.take_lock_at("10.0.0.1", &cluster::after(other.time));
        other.wait(Duration::from_mins(7));
        assert_eq!(other.writes.len(), if is_faster { 2 } else { 1 }, "{:?}", other.writes);
        other.restart();
        other.create("early");
        assert_eq!(other.addresses("early"), ["10.0.0.2"], "{is_faster}");
        other.create("web");
        assert_eq!(other.addresses("web"), ["10.0.0.1"], "{is_faster}");
    }
}

#[test]
fn a_lock_that_came_back_without_its_service_is_given_up() {
    for age in [0, 5, 60] {
        let mut lab = lab(plain());
        lab.create("web");
        let lease = lab.lease("address-10.0.0.1").clone();
        let mut other = self::lab(plain());
        other.wait(Duration::from_hours(2));
        let created = cluster::after(other.time.checked_sub(Duration::from_mins(age)).unwrap());
        other.cluster.restore_lease(lease, created);
        other.restart();
        other.wait(Duration::from_secs(4));
        assert_eq!(other.locks().len(), usize::from(age < 10), "{age}");
        other.wait(Duration::from_mins(11 - age.min(10)));
        assert_eq!(other.locks(), [""; 0], "{age}");
        assert_eq!(other.controller.index.orphaned.len(), 0);
    }
}

/// Whoever has seen the Service go knows more than the age of its lock says.
#[test]
fn a_young_lock_of_a_service_that_was_seen_waits_no_longer_for_it() {
    let mut lab = lab(plain());
    lab.wait(Duration::from_hours(1));
    lab.cluster.create_service("web", &[]);
    lab.settle();
    let lease = lab.lease("address-10.0.0.1").clone();
    lab.wait(Duration::from_hours(1));
    lab.cluster.restore_lease(lease, cluster::after(lab.time));
    lab.settle();
    lab.cluster.delete_service("web");
    lab.settle();
    lab.wait(Duration::from_secs(3));
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn of_two_families_a_successor_inherits_what_it_asks_for() {
    let two = || AddressPoolSpec {
        addresses: ["10.0.0.1-10.0.0.3", "fd00::1-fd00::3"]
            .map(|it| AddressItem(it.to_owned()))
            .into(),
        ..plain()
    };
    let both: &[&str] = &["10.96.0.1", "fd00:96::1"];
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (both, &["10.96.0.1"], &["10.0.0.2"]),
        (both, &["fd00:96::1"], &["fd00::2"]),
        (&["10.96.0.1"], both, &["10.0.0.2", "fd00::2"]),
        (&["fd00:96::1"], both, &["fd00::2", "10.0.0.2"]),
    ];
    for (before, then, expected) in cases {
        for down in [false, true] {
            let mut lab = lab(two());
            lab.cluster.create_service("first", &[]);
            lab.cluster.set_cluster_addresses("first", both);
            lab.settle();
            lab.cluster.create_service("web", &[]);
            lab.cluster.set_cluster_addresses("web", before);
            lab.settle();
            lab.cluster.delete_service("web");
            if !down {
                lab.settle();
            }
            lab.cluster.create_service("web", &[]);
            lab.cluster.set_cluster_addresses("web", then);
            if down {
                lab.restart();
            }
            lab.settle();
            let mut have = lab.addresses("web");
            have.sort();
            let mut want: Vec<String> = expected.iter().map(|it| (*it).to_owned()).collect();
            want.sort();
            assert_eq!(have, want, "{before:?} {then:?} {down}");
            lab.wait(Duration::from_secs(10));
            assert_eq!(lab.locks().len(), 2 + expected.len(), "{before:?} {then:?} {down}");
        }
    }
}

#[test]
fn a_successor_of_another_class_leaves_the_address_to_others() {
    for pool in [plain(), resting()] {
        let mut lab = lab(pool);
        lab.create("web");
        lab.cluster.delete_service("web");
        lab.cluster.create_service("web", &[]);
        lab.cluster.set_class("web", Some("example.com/other"));
        lab.settle();
        lab.wait(Duration::from_secs(4));
        lab.wait(Duration::from_mins(2));
        assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
        lab.create("other");
        assert_eq!(lab.addresses("other"), ["10.0.0.1"]);
    }
}

/// Who asks for something else has no use for what its predecessor had, and others may wait for it.
#[test]
fn a_successor_that_asks_for_another_address_or_pool_inherits_nothing() {
    for (key, value) in
        [("arpeggio.dev/addresses", "10.0.0.1"), ("arpeggio.dev/address-pool", "full")]
    {
        for (pool, down) in
            [(plain(), false), (plain(), true), (resting(), false), (resting(), true)]
        {
            let mut lab = lab(pool);
            lab.cluster.set_pool("full", &["10.1.0.1"]);
            lab.cluster.create_service("there", &[("arpeggio.dev/address-pool", "full")]);
            lab.settle();
            lab.create("a");
            lab.create("web");
            lab.cluster.delete_service("web");
            if !down {
                lab.settle();
            }
            lab.cluster.create_service("web", &[(key, value)]);
            if down {
                lab.restart();
            }
            lab.settle();
            lab.wait(Duration::from_mins(2));
            assert_eq!(lab.addresses("web"), [""; 0], "{value} {}", lab.says("web"));
            assert!(!lab.locks().contains(&"address-10.0.0.2".to_owned()), "{value}");
        }
    }
}

#[test]
fn successors_that_ask_for_each_others_addresses_get_them() {
    for order in [["a", "b"], ["b", "a"]] {
        for down in [false, true] {
            let mut lab = lab(plain());
            lab.create("a");
            lab.create("b");
            for name in order {
                lab.cluster.delete_service(name);
            }
            if !down {
                lab.settle();
            }
            let asks = |name: &str| if name == "a" { "10.0.0.2" } else { "10.0.0.1" };
            for name in order {
                lab.cluster.create_service(name, &[("arpeggio.dev/addresses", asks(name))]);
                if !down {
                    lab.settle();
                }
            }
            if down {
                lab.restart();
            }
            lab.settle();
            lab.wait(Duration::from_mins(2));
            assert_eq!(
                (lab.addresses("a"), lab.addresses("b")),
                (s("10.0.0.2"), s("10.0.0.1")),
                "{order:?} {down} {} {}",
                lab.says("a"),
                lab.says("b")
            );
        }
    }
}

/// No backup has brought it.
#[test]
fn a_young_lock_whose_service_went_while_no_controller_ran_is_given_up() {
    let mut lab = lab(plain());
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.restart();
    lab.wait(Duration::from_secs(4));
    assert_eq!(lab.locks(), [""; 0]);
}
