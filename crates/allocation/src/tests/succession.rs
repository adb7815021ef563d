//! A Service that is deleted and created again keeps what it had.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation, Sharing},
    reservations::Reservations,
    selector::LabelSelector,
};

use super::*;

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
