//! What users can get wrong, line by line: each is told to them, and holds nobody else back.
//!
//! What an object can tell about itself is refused when it is applied (the scenario `bad-input`), what pools of other
//! formats get wrong stands beside their parsers in `crates/api`.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation},
    selector::LabelSelector,
    service::ADDRESS_EXPIRING,
};

use super::*;

const POOL: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";
const KEY: &str = "arpeggio.dev/sharing-key";

/// An annotation, its value, and what the Service is told.
const REFUSED: [(&str, &str, &str); 22] = [
    (
        POOL,
        "lan",
        "pool \"lan\": it does not exist: create it, or name another one in arpeggio.dev/address-pool",
    ),
    (POOL, "lan,wan", "pool \"wan\": it does not exist"),
    (POOL, "home,", "item 2 of \"home,\" is empty"),
    (POOL, "home quiet", "pool \"home quiet\": it does not exist"),
    (POOL, "ipv5=home", "\"ipv5\" is no family"),
    (POOL, "closed", "pool \"closed\": it is not used, since it is invalid"),
    (
        POOL,
        "tenants",
        "pool \"tenants\": its spec.allocation (of an IPAddressPool: spec.serviceAllocation) is not for namespace \"default\"",
    ),
    ("metallb.io/address-pool", "lan", "pool \"lan\": it does not exist"),
    ("metallb.universe.tf/address-pool", "lan", "pool \"lan\": it does not exist"),
    (ADDRESSES, "x", "\"x\" is not an address"),
    (ADDRESSES, "10.0.0.2 10.0.0.3", "\"10.0.0.2 10.0.0.3\" is not an address"),
    (ADDRESSES, "10.0.0.0/24", "\"10.0.0.0/24\" is not an address"),
    (ADDRESSES, "10.0.0.1,", "item 2 of \"10.0.0.1,\" is empty"),
    (ADDRESSES, "::ffff:10.0.0.2", "is an IPv4 address written as IPv6: write 10.0.0.2"),
    (ADDRESSES, "fe80::1%eth0", "has a zone: leave out the part from % on"),
    (ADDRESSES, "10.0.0.2,10.0.0.3", "has two IPv4 addresses"),
    (ADDRESSES, "fd00::1", "the Service has no IPv6 cluster address"),
    (ADDRESSES, "10.9.9.9", "no pool in use has it"),
    (ADDRESSES, "127.0.0.1", "it is a loopback address"),
    (
        ADDRESSES,
        "10.0.0.1",
        "10.0.0.1 cannot be given: another Service of this namespace has it: give both the same sharing key",
    ),
    ("metallb.io/loadBalancerIPs", "x", "metallb.io/loadBalancerIPs: \"x\" is not an address"),
    ("metallb.universe.tf/loadBalancerIPs", "x", "metallb.universe.tf/loadBalancerIPs: \"x\""),
];

/// An annotation and its value, which ask for nothing.
const HARMLESS: [(&str, &str); 6] =
    [(POOL, ""), (POOL, "  "), (POOL, "  home  "), (ADDRESSES, ""), (ADDRESSES, "  "), (KEY, "  ")];

/// Pools of all kinds, and a Service that has the first address of the only one that is for everybody.
fn lab() -> Lab {
    let mut lab = Lab::with_pools(&[
        ("home", &["10.0.0.1-10.0.0.99", "127.0.0.1"]),
        ("closed", &["10.1.0.9-10.1.0.1"]),
    ]);
    let addresses = |text: &str| vec![AddressItem(text.to_owned())];
    let nobody = LabelSelector {
        match_labels: [("team".to_owned(), "none".to_owned())].into(),
        ..LabelSelector::default()
    };
    let allocation = Allocation { namespace_selectors: vec![nobody], ..Allocation::default() };
    lab.cluster.set_pool_spec(
        "tenants",
        AddressPoolSpec {
            addresses: addresses("10.2.0.0/24"),
            allocation: Some(allocation),
            ..AddressPoolSpec::default()
        },
    );
    lab.cluster.set_pool_spec(
        "quiet",
        AddressPoolSpec {
            addresses: addresses("10.3.0.0/24"),
            auto_assign: false,
            ..AddressPoolSpec::default()
        },
    );
    lab.create("first");
    assert_eq!(lab.addresses("first"), ["10.0.0.1"]);
    lab
}

#[test]
fn what_cannot_be_granted_is_told_once_and_holds_nobody_back() {
    for (annotation, value, told) in REFUSED {
        let mut lab = lab();
        lab.cluster.create_service("bad", &[(annotation, value)]);
        lab.create("good");
        lab.restart();
        let said = lab.says("bad");
        assert!(said.starts_with("False: ") && said.contains(told), "{value:?}: {said}");
        let warnings = lab.told.iter().filter(|news| news.reason == "AllocationFailed").count();
        assert_eq!(warnings, 1, "{value:?}");
        assert_eq!(lab.addresses("bad"), [""; 0], "{value:?}");
        assert_eq!(lab.addresses("good"), ["10.0.0.2"], "{value:?}");
        lab.cluster.annotate("bad", annotation, "");
        lab.settle();
        assert_eq!(lab.addresses("bad"), ["10.0.0.3"], "{value:?} was corrected");
    }
}

#[test]
fn who_misses_a_pool_of_metallb_s_is_told_where_they_are_read() {
    let hint = "MetalLB's objects are read in namespace \"metallb-system\" only";
    let mut lab = Lab::with_pools(&[]);
    lab.controller.index.reads_metallb_in("metallb-system");
    lab.create("any");
    lab.cluster.create_service("named", &[(POOL, "lan")]);
    lab.cluster.set_pool("home", &["10.0.0.1"]);
    lab.settle();
    assert!(lab.says("named").contains(hint), "{}", lab.says("named"));
    assert_eq!(lab.addresses("any"), ["10.0.0.1"]);
    lab.create("none-left");
    assert!(!lab.says("none-left").contains(hint), "that is not why");
    lab.cluster.delete_pool("home");
    lab.create("no-pools");
    assert!(lab.says("no-pools").contains(hint), "{}", lab.says("no-pools"));
}

#[test]
fn what_is_blank_asks_for_nothing() {
    for (annotation, value) in HARMLESS {
        let mut lab = lab();
        lab.cluster.create_service("web", &[(annotation, value)]);
        lab.settle();
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{annotation}: {value:?}");
    }
}

#[test]
fn what_a_service_has_outlasts_every_mistake() {
    for (annotation, value, told) in REFUSED {
        let mut lab = lab();
        lab.create("web");
        lab.cluster.annotate("web", annotation, value);
        lab.settle();
        lab.restart();
        let said = lab.says("web");
        assert!(said.contains(told) && said.ends_with("; 10.0.0.2 stays until then"), "{said}");
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{value:?}");
    }
}

/// A typing error, a deletion that waits for a finalizer, or a wish that nobody can grant: nothing takes the place of what the
/// Service has.
const STUCK: [fn(&mut Lab); 7] = [
    |lab| lab.cluster.annotate("web", "arpeggio.dev/spread", "x"),
    |lab| lab.cluster.begin_deletion("web", "example.com/wait"),
    |lab| lab.controller.index.set_namespace_ends("default", true),
    |lab| lab.cluster.annotate("web", POOL, "lan"),
    |lab| lab.cluster.annotate("web", ADDRESSES, "10.9.9.9"),
    |lab| lab.cluster.annotate("web", ADDRESSES, "fd00::1"),
    |lab| lab.cluster.set_cluster_addresses("web", &["fd96::1"]),
];

#[test]
fn a_grace_period_is_over_at_its_time_whatever_a_service_gets_wrong() {
    for (case, stick) in STUCK.into_iter().enumerate() {
        for mistake_first in [true, false] {
            let mut lab = lab();
            lab.create("web");
            if mistake_first {
                stick(&mut lab);
                lab.settle();
            }
            lab.cluster.delete_pool("home");
            lab.settle();
            lab.seconds(6);
            if !mistake_first {
                stick(&mut lab);
                lab.settle();
            }
            let is_expiring = |lab: &Lab| lab.record("web").condition(ADDRESS_EXPIRING).is_some();
            assert!(is_expiring(&lab), "{case} {mistake_first}");
            assert!(
                !lab.says("web").contains("stays"),
                "{case} {mistake_first} {}",
                lab.says("web")
            );
            if case != 2 {
                lab.restart();
                assert_eq!(lab.writes, [""; 0], "{case} {mistake_first}");
            }
            lab.wait(cluster::GRACE.checked_sub(Duration::from_secs(7)).unwrap());
            assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{case} {mistake_first}");
            lab.wait(Duration::from_secs(8));
            lab.wait(Duration::from_secs(1));
            assert_eq!(lab.addresses("web"), [""; 0], "{case} {mistake_first} {}", lab.says("web"));
            assert!(!is_expiring(&lab), "{case} {mistake_first}");
            assert!(
                !lab.locks().contains(&"address-10.0.0.2".to_owned()),
                "{case} {mistake_first}"
            );
        }
    }
}

#[test]
fn a_pool_that_comes_back_ends_the_grace_period_of_a_service_with_a_mistake() {
    for (case, stick) in STUCK.into_iter().enumerate() {
        let mut lab = lab();
        lab.create("web");
        stick(&mut lab);
        lab.cluster.delete_pool("home");
        lab.settle();
        lab.seconds(60);
        lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.99"]);
        lab.settle();
        lab.wait(cluster::GRACE * 2);
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{case}");
        assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_none(), "{case}");
    }
}

#[test]
fn a_mistake_keeps_no_address_of_a_pool_that_is_for_others() {
    for (case, stick) in STUCK.into_iter().enumerate() {
        let mut lab = lab();
        lab.create("web");
        stick(&mut lab);
        lab.settle();
        let team = ("team".to_owned(), "none".to_owned());
        let nobody = LabelSelector { match_labels: [team].into(), ..LabelSelector::default() };
        let allocation = Allocation { namespace_selectors: vec![nobody], ..Allocation::default() };
        lab.cluster.set_pool_spec(
            "home",
            AddressPoolSpec {
                addresses: vec![AddressItem("10.0.0.1-10.0.0.99".to_owned())],
                allocation: Some(allocation),
                ..AddressPoolSpec::default()
            },
        );
        lab.settle();
        lab.seconds(6);
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{case}");
        lab.wait(cluster::GRACE + Duration::from_secs(1));
        lab.wait(Duration::from_secs(1));
        assert_eq!(lab.addresses("web"), [""; 0], "{case} {}", lab.says("web"));
    }
}

/// Whatever hinders a Service, the status that somebody clears is restored, as that of any other Service is.
#[test]
fn a_cleared_status_costs_a_service_nothing_whatever_it_gets_wrong() {
    for (case, stick) in STUCK.into_iter().enumerate() {
        let mut lab = lab();
        lab.create("web");
        stick(&mut lab);
        lab.settle();
        lab.cluster.clear_status("web", "cilium-operator");
        lab.settle();
        lab.seconds(3);
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{case} {}", lab.says("web"));
        lab.restart();
        assert_eq!(lab.writes, [""; 0], "{case}");
    }
}

/// `kubectl replace --force` with a typing error in the file: what the Service had waits for it.
#[test]
fn a_service_that_is_replaced_by_one_with_a_mistake_has_its_address_when_it_is_mended() {
    let mut lab = lab();
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.cluster.create_service("web", &[("arpeggio.dev/spread", "x")]);
    lab.settle();
    lab.create("other");
    lab.seconds(30);
    assert_eq!(lab.addresses("other"), ["10.0.0.3"]);
    lab.cluster.remove_annotation("web", "arpeggio.dev/spread");
    lab.settle();
    lab.seconds(3);
    assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{}", lab.says("web"));
}

#[test]
fn whose_status_it_is_decides_and_they_are_named() {
    let mut lab = lab();
    lab.cluster.create_service("theirs", &[]);
    lab.cluster.set_ingress("theirs", "203.0.113.9", "cloud-controller-manager");
    lab.settle();
    lab.restart();
    let said = lab.says("theirs");
    assert!(said.contains("was written by cloud-controller-manager, not by Arpeggio"), "{said}");
    assert_eq!(lab.addresses("theirs"), ["203.0.113.9"]);
    // What a pool has is adopted, whoever wrote it.
    lab.cluster.create_service("adopted", &[]);
    lab.cluster.set_ingress("adopted", "10.0.0.77", "controller");
    lab.settle();
    assert_eq!(lab.says("adopted"), "True: 10.0.0.77 assigned");
    // Of two with one address only one can have it; what the other one's status says is not ours then.
    lab.cluster.create_service("second", &[]);
    lab.cluster.set_ingress("second", "10.0.0.77", "controller");
    lab.settle();
    assert!(lab.says("second").contains("was written by controller"), "{}", lab.says("second"));
}
