//! Pools that are renamed, cut, joined and exchanged while Services have their addresses.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, AddressPoolStatus, Allocation, FamilyUsage},
    metallb::IPAddressPool,
    selector::LabelSelector,
    service::request::SPREAD_ANNOTATION,
    terms::WrittenAnnounceTerms,
};
use serde_json::json;

use super::*;
use crate::{Declared, Declarer};

const A: &str = "10.0.0.1-10.0.0.2";
const B: &str = "10.0.0.3-10.0.0.4";

/// Four Services, one at each of four addresses.
fn lab(pools: &[(&str, &[&str])]) -> Lab {
    let mut lab = Lab::with_pools(pools);
    for number in 1..=4 {
        lab.create(&format!("s{number}"));
    }
    assert_unmoved(&lab, "at first");
    lab.writes.clear();
    lab
}

fn assert_unmoved(lab: &Lab, when: &str) {
    for number in 1..=4 {
        let address = format!("10.0.0.{number}");
        assert_eq!(lab.addresses(&format!("s{number}")), [address], "{when}");
    }
}

/// Whatever has changed, nobody moves, neither now nor when everything has settled for good, nor after a restart.
fn assert_stays(mut lab: Lab, when: &str) {
    lab.settle();
    assert_unmoved(&lab, when);
    lab.wait(cluster::GRACE * 2);
    assert_unmoved(&lab, when);
    lab.restart();
    lab.wait(cluster::GRACE * 2);
    assert_unmoved(&lab, when);
    for number in 1..=4 {
        let record = lab.record(&format!("s{number}"));
        assert_eq!(record.condition("arpeggio.dev/AddressExpiring"), None, "{when}");
    }
}

type Step = fn(&mut Lab);

/// Performs the steps in both orders, each with and without time to settle between them.
fn in_any_order(pools: &[(&str, &[&str])], steps: [Step; 2]) {
    for (first, second) in [(0, 1), (1, 0)] {
        for settles in [false, true] {
            let mut lab = lab(pools);
            steps[first](&mut lab);
            if settles {
                lab.settle();
                lab.wait(Duration::from_mins(1));
            }
            steps[second](&mut lab);
            assert_stays(lab, &format!("step {first} first, settles: {settles}"));
        }
    }
}

#[test]
fn a_pool_that_is_renamed_keeps_its_services() {
    in_any_order(
        &[("a", &[A, B])],
        [|lab| lab.cluster.delete_pool("a"), |lab| lab.cluster.set_pool("z", &[A, B])],
    );
}

#[test]
fn a_pool_that_is_cut_in_two_keeps_its_services() {
    in_any_order(
        &[("a", &[A, B])],
        [|lab| lab.cluster.set_pool("a", &[A]), |lab| lab.cluster.set_pool("b", &[B])],
    );
}

#[test]
fn two_pools_that_become_one_keep_their_services() {
    in_any_order(
        &[("a", &[A]), ("b", &[B])],
        [|lab| lab.cluster.set_pool("a", &[A, B]), |lab| lab.cluster.delete_pool("b")],
    );
}

#[test]
fn two_pools_that_exchange_their_addresses_keep_their_services() {
    in_any_order(
        &[("a", &[A]), ("b", &[B])],
        [|lab| lab.cluster.set_pool("a", &[B]), |lab| lab.cluster.set_pool("b", &[A])],
    );
}

#[test]
fn a_pool_that_is_deleted_and_made_anew_keeps_its_services() {
    for settles in [false, true] {
        let mut lab = lab(&[("a", &[A, B])]);
        lab.cluster.delete_pool("a");
        if settles {
            lab.settle();
        }
        lab.cluster.set_pool("a", &[A, B]);
        assert_stays(lab, "made anew");
    }
}

/// `MetalLB`'s pool `lan`, older than all of ours.
fn of_metallb() -> Declared {
    let metadata = json!({
        "name": "lan", "namespace": "m", "uid": "m", "creationTimestamp": "1969-01-01T00:00:00Z",
    });
    let object = json!({ "metadata": metadata, "spec": { "addresses": ["10.0.0.0/30"] } });
    let pool: IPAddressPool = serde_json::from_value(object).unwrap();
    Declared { pools: vec![pool.declare([], true).0], ..Declared::default() }
}

#[test]
fn a_pool_that_is_to_take_the_place_of_metallb_s_says_that_it_waits_for_it() {
    let status = |lab: &mut Lab| -> AddressPoolStatus {
        lab.settle();
        lab.pool_statuses();
        lab.cluster.pools().next().unwrap().status.clone().unwrap()
    };
    let mut lab = Lab::with_pools(&[]);
    lab.controller.index.set_declared(Declarer::MetalLb, of_metallb());
    lab.create("web");
    lab.cluster.set_pool("lan", &["10.0.0.0/30"]);
    let waits = status(&mut lab);
    for (condition, holds) in waits.conditions.iter().zip(["False", "True"]) {
        assert_eq!(condition.status, holds);
        assert_eq!(
            condition.message,
            "another pool has the name \"lan\" and 10.0.0.0-10.0.0.3 as well: it is in the place of this one until it \
             is deleted"
        );
    }
    assert_eq!(waits.ipv4, Some(FamilyUsage { total: 4, used: 1, reserved: 0, free: 0 }));
    lab.controller.index.set_declared(Declarer::MetalLb, Declared::default());
    let ready = status(&mut lab);
    assert_eq!(ready.conditions[0].status, "True");
    assert_eq!(ready.ipv4, Some(FamilyUsage { total: 4, used: 1, reserved: 0, free: 3 }));
    assert_eq!(lab.addresses("web").len(), 1);
}

#[test]
fn of_pools_of_one_name_each_has_the_numbers_of_its_own() {
    let mut lab = Lab::with_pools(&[]);
    lab.controller.index.set_declared(Declarer::MetalLb, of_metallb());
    lab.cluster.set_pool("lan", &["10.0.9.0/24"]);
    lab.settle();
    lab.pool_statuses();
    let status = lab.cluster.pools().next().unwrap().status.clone().unwrap();
    assert!(status.conditions[0].message.contains("rename one of the two"));
    assert_eq!(status.ipv4, None);
}

#[test]
fn of_two_pools_that_grow_none_takes_what_the_other_one_had() {
    let more = "10.0.0.5-10.0.0.6";
    let mistake: Step = |lab| lab.cluster.set_pool("a", &[A, B]);
    let growth: Step = |lab| lab.cluster.set_pool("b", &[B, "10.0.0.5-10.0.0.6"]);
    for [first, second] in [[mistake, growth], [growth, mistake]] {
        for settles in [false, true] {
            let mut lab = lab(&[("a", &[A]), ("b", &[B])]);
            first(&mut lab);
            if settles {
                lab.settle();
                lab.restart();
            }
            second(&mut lab);
            lab.settle();
            for _ in 0..2 {
                lab.pool_statuses();
                assert_eq!(lab.ranges("a"), [A], "settles: {settles}");
                assert_eq!(lab.ranges("b"), [B, more], "settles: {settles}");
                lab.restart();
            }
            assert_stays(lab, &format!("settles: {settles}"));
        }
    }
}

#[test]
fn of_two_pools_that_grow_by_the_same_addresses_the_first_one_has_them() {
    let more = "10.0.0.5-10.0.0.6";
    for names in [["a", "b"], ["b", "a"]] {
        let mut lab = lab(&[("a", &[A]), ("b", &[B])]);
        for name in names {
            lab.cluster.set_pool(name, &[if name == "a" { A } else { B }, more]);
        }
        lab.settle();
        let grown = |name: &str| if name == "a" { vec![A, more] } else { vec![B, more] };
        assert_eq!(lab.ranges(names[0]), grown(names[0]));
        assert_eq!(lab.ranges(names[1]), grown(names[1])[..1]);
        lab.cluster.set_pool(names[0], &grown(names[0])[..1]);
        lab.settle();
        assert_eq!(lab.ranges(names[0]), grown(names[0])[..1]);
        assert_eq!(lab.ranges(names[1]), grown(names[1]));
        assert_stays(lab, "grown");
    }
}

#[test]
fn a_pool_that_takes_what_another_one_gives_up_and_asks_for_has_it_when_it_is_given_up() {
    // One asks for what it had and for what the other one has, which asks for something else instead.
    in_any_order(
        &[("a", &[A]), ("b", &[B])],
        [
            |lab| lab.cluster.set_pool("a", &[A, B]),
            |lab| lab.cluster.set_pool("b", &["10.0.0.5-10.0.0.6"]),
        ],
    );
}

const NAMED: &str = "metallb.io/address-pool";

/// A Service at the third of four addresses that names its pool, which has another one free.
fn named(pools: &str) -> Lab {
    let mut lab = Lab::with_pools(&[("home", &[A, B]), ("spare", &["10.1.0.1"])]);
    for name in ["s1", "s2"] {
        lab.cluster.create_service(name, &[(NAMED, "home")]);
    }
    lab.settle();
    lab.cluster.create_service("web", &[(NAMED, pools)]);
    lab.settle();
    lab.cluster.delete_service("s1");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    lab.writes.clear();
    lab.told.clear();
    lab
}

/// What is done to the pool, in this order or the other one, and where the Service is that has named these pools when the
/// grace period is over.
const TAKEN: [(&str, &str, [Step; 2], &str); 4] = [
    ("cut", "home", [cut, |lab| lab.cluster.set_pool("lab", &[B])], "10.0.0.1"),
    ("renamed", "home,spare", [gone, |lab| lab.cluster.set_pool("lab", &[A, B])], "10.1.0.1"),
    ("renamed", "home", [gone, |lab| lab.cluster.set_pool("lab", &[A, B])], "10.0.0.3"),
    ("for others", "home,spare", [gone, for_others], "10.1.0.1"),
];

fn cut(lab: &mut Lab) {
    lab.cluster.set_pool("home", &[A]);
}

fn gone(lab: &mut Lab) {
    lab.cluster.delete_pool("home");
}

fn for_others(lab: &mut Lab) {
    let namespaces = vec!["shop".to_owned()];
    let allocation = Some(Allocation { namespaces, ..Allocation::default() });
    let addresses = vec![AddressItem(A.to_owned()), AddressItem(B.to_owned())];
    let spec = AddressPoolSpec { addresses, allocation, ..AddressPoolSpec::default() };
    lab.cluster.set_pool_spec("lab", spec);
}

#[test]
fn who_names_the_pool_that_its_address_came_from_keeps_it_for_the_grace_period_when_another_pool_takes_it()
 {
    for (what, pools, steps, later) in TAKEN {
        for (first, second) in [(0, 1), (1, 0)] {
            let what = format!("{what}, {pools}, {first} first");
            let mut lab = named(pools);
            steps[first](&mut lab);
            lab.settle();
            steps[second](&mut lab);
            lab.settle();
            lab.restart();
            lab.seconds(3);
            assert_eq!(lab.addresses("web"), ["10.0.0.3"], "{what}");
            let expires = lab.record("web").condition("arpeggio.dev/AddressExpiring").is_some();
            assert_eq!(expires, later != "10.0.0.3", "{what}");
            lab.wait(cluster::GRACE);
            assert_eq!(lab.addresses("web"), [later], "{what}");
            assert!(!lab.told.iter().any(|it| it.note.contains("asks for another pool")), "{what}");
            lab.wait(cluster::GRACE * 3);
            assert_eq!(lab.addresses("web"), [later], "{what}");
            lab.restart();
            assert_eq!(lab.writes, [""; 0], "{what}");
        }
    }
}

/// Pools with these addresses that have them announced in another way, or for others only.
fn of_others(addresses: &[&str]) -> [AddressPoolSpec; 3] {
    let addresses: Vec<_> = addresses.iter().map(|it| AddressItem((*it).to_owned())).collect();
    let elsewhere = announcing::spec(&json!([{ "interfaces": ["eth1"] }]));
    let namespaces = vec!["shop".to_owned()];
    let allocation = Some(Allocation { namespaces, ..Allocation::default() });
    [
        AddressPoolSpec { routed: true, ..AddressPoolSpec::default() },
        elsewhere.clone(),
        AddressPoolSpec { allocation, ..elsewhere },
    ]
    .map(|spec| AddressPoolSpec { addresses: addresses.clone(), ..spec })
}

#[test]
fn what_is_kept_for_the_grace_period_only_is_announced_as_before() {
    for taker in of_others(&[B]) {
        let mut lab = named("home");
        let terms = |lab: &Lab| lock::parse(lab.lease("address-10.0.0.3")).unwrap().claim.terms;
        let before = terms(&lab);
        cut(&mut lab);
        lab.cluster.set_pool_spec("lab", taker.clone());
        lab.settle();
        assert_eq!(terms(&lab), before, "{taker:?}");
        lab.restart();
        lab.wait(Duration::from_mins(9));
        assert_eq!(
            (terms(&lab), lab.addresses("web")),
            (before.clone(), vec!["10.0.0.3".to_owned()])
        );
        // Who asks for the pool that has it goes by its rules.
        lab.cluster.annotate("web", NAMED, "lab");
        lab.settle();
        let is_for_it = taker.allocation.is_none();
        assert_eq!(terms(&lab) != before, is_for_it, "{taker:?}");
        lab.wait(cluster::GRACE);
        assert_eq!(lab.addresses("web").first().is_some_and(|it| it == "10.0.0.3"), is_for_it);
    }
}

#[test]
fn what_stays_for_good_since_there_is_no_other_one_is_announced_as_the_pool_says_that_has_it() {
    for taker in of_others(&[A, B]).into_iter().take(2) {
        let mut lab = named("home");
        gone(&mut lab);
        lab.cluster.set_pool_spec("lab", taker);
        lab.settle();
        let terms = lock::parse(lab.lease("address-10.0.0.3")).unwrap().claim.terms;
        assert_ne!(terms, WrittenAnnounceTerms::default());
        lab.wait(cluster::GRACE * 2);
        assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    }
}

#[test]
fn a_pool_that_was_renamed_long_ago_is_the_one_that_addresses_came_from() {
    let mut lab = named("home");
    gone(&mut lab);
    lab.cluster.set_pool("office", &[A, B]);
    lab.settle();
    assert_eq!(lab.count("amend"), 0, "they still ask for the other one");
    lab.cluster.annotate("web", NAMED, "office");
    lab.cluster.annotate("s2", NAMED, "office");
    lab.settle();
    assert_eq!(lab.count("amend"), 2, "{:?}", lab.writes);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
    lab.cluster.set_pool("office", &[A]);
    lab.cluster.set_pool("lab", &[B]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    assert!(lab.record("web").condition("arpeggio.dev/AddressExpiring").is_some());
    lab.wait(cluster::GRACE);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn who_names_another_pool_than_its_address_came_from_moves_at_once_whatever_became_of_that_pool() {
    let mut lab = named("home");
    cut(&mut lab);
    lab.cluster.set_pool("lab", &[B]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    lab.cluster.annotate("web", NAMED, "spare");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.1.0.1"]);
}

#[test]
fn a_pool_that_takes_an_address_for_a_moment_only_costs_who_named_the_other_one_nothing() {
    let mut lab = named("home");
    lab.periods = Periods { patience: Duration::from_secs(5), ..cluster::PERIODS };
    lab.restart();
    lab.writes.clear();
    cut(&mut lab);
    lab.cluster.set_pool("lab", &[B]);
    lab.settle();
    lab.seconds(4);
    lab.cluster.delete_pool("lab");
    lab.cluster.set_pool("home", &[A, B]);
    lab.settle();
    lab.seconds(10);
    assert_eq!(lab.addresses("web"), ["10.0.0.3"]);
    assert_eq!((lab.count("service"), lab.told.len()), (0, 0), "{:?}", lab.writes);
}

impl Lab {
    /// The interfaces that the lock of an address names.
    fn announced_on(&self, address: &str) -> Vec<String> {
        let lease = self.lease(&format!("address-{address}"));
        let rules = lock::parse(lease).unwrap().claim.terms.rules;
        let interfaces = rules.into_iter().flatten().flat_map(|rule| rule.interfaces);
        interfaces.map(|it| it.0).collect()
    }

    /// From now on a pool that a Service lacks may come back within five seconds.
    fn doubts(&mut self) {
        self.periods = Periods { patience: Duration::from_secs(5), ..cluster::PERIODS };
        self.restart();
    }
}

#[test]
fn when_a_namespace_gets_its_label_in_time_the_lock_goes_by_the_pool_that_has_its_address() {
    for is_forgotten in [false, true] {
        let mut lab = announcing::with_rules(&json!([{ "interfaces": ["eth0"] }]));
        lab.create("web");
        lab.doubts();
        let match_labels = [("team".to_owned(), "x".to_owned())].into();
        let selector = LabelSelector { match_labels, ..LabelSelector::default() };
        let allocation =
            Some(Allocation { namespace_selectors: vec![selector], ..Allocation::default() });
        let elsewhere = announcing::spec(&json!([{ "interfaces": ["eth1"] }]));
        gone(&mut lab);
        lab.cluster.set_pool_spec("lab", AddressPoolSpec { allocation, ..elsewhere });
        lab.seconds(2);
        assert_eq!(lab.announced_on("10.0.0.1"), ["eth0"]);
        if is_forgotten {
            lab.controller.index.forget_namespace("default");
            lab.cluster.annotate("web", "team", "x");
            lab.seconds(1);
        }
        let labels = Labels::from([("team".to_owned(), "x".to_owned())]);
        lab.controller.index.set_namespace("default", labels);
        lab.settle();
        assert_eq!(lab.announced_on("10.0.0.1"), ["eth1"], "{is_forgotten}");
        let pool = lock::parse(lab.lease("address-10.0.0.1")).unwrap().claim.pool;
        assert_eq!(pool, "lab", "{is_forgotten}");
    }
}

#[test]
fn when_there_is_no_other_address_any_more_the_lock_goes_by_the_pool_that_has_its_own() {
    let mut lab = named("home,spare");
    lab.doubts();
    gone(&mut lab);
    lab.cluster.set_pool_spec("lab", of_others(&[A, B])[1].clone());
    lab.seconds(2);
    assert_eq!(lab.announced_on("10.0.0.3"), [""; 0]);
    lab.cluster.create_service("other", &[(NAMED, "spare")]);
    lab.seconds(6);
    assert_eq!(lab.addresses("other"), ["10.1.0.1"]);
    assert_eq!(lab.announced_on("10.0.0.3"), ["eth1"]);
}

/// The rules stay, as nobody says what is right; what the Service says itself is known.
#[test]
fn what_a_service_says_of_its_traffic_counts_whatever_became_of_its_pool() {
    let taken: Step = |lab| lab.cluster.set_pool_spec("lab", of_others(&[B])[1].clone());
    let nothing: Step = |_| {};
    for (what, became) in [("taken", taken), ("no pool", nothing)] {
        let mut lab = named("home");
        lab.cluster.announce_on("home", "eth0");
        lab.settle();
        cut(&mut lab);
        became(&mut lab);
        lab.settle();
        for (policy, spread, expected) in
            [("Local", "nodes", true), ("Cluster", "none", false), ("Local", "nodes", true)]
        {
            lab.cluster.set_policy("web", policy);
            lab.cluster.annotate("web", SPREAD_ANNOTATION, spread);
            lab.settle();
            let claim = lock::parse(lab.lease("address-10.0.0.3")).unwrap().claim;
            assert_eq!((claim.terms.local, claim.spread), (expected, expected), "{what}");
            assert_eq!(lab.announced_on("10.0.0.3"), ["eth0"], "{what}");
        }
        // What a rule said of it, if one did, nobody knows any more.
        for value in ["?", ""] {
            lab.cluster.annotate("web", SPREAD_ANNOTATION, value);
            lab.settle();
            assert!(lock::parse(lab.lease("address-10.0.0.3")).unwrap().claim.spread, "{what}");
        }
        lab.restart();
        assert_eq!(lab.writes, [""; 0], "{what}");
    }
}

#[test]
fn a_lock_that_is_made_anew_without_a_pool_says_of_the_traffic_what_its_service_says() {
    let mut lab = named("home");
    lab.cluster.set_policy("web", "Local");
    lab.settle();
    gone(&mut lab);
    lab.cluster.delete_lease("address-10.0.0.3");
    lab.settle();
    let terms = lock::parse(lab.lease("address-10.0.0.3")).unwrap().claim.terms;
    assert!(terms.is_nowhere() && terms.local, "{terms:?}");
}

impl Lab {
    /// The ranges of a pool that are in use.
    fn ranges(&self, pool: &str) -> Vec<String> {
        let number = |address: u8| IpAddr::from([10, 0, 0, address]);
        let found = |address: &u8| {
            let found = self.controller.index.allocator.pool_of(number(*address));
            found.is_some_and(|it| it.name.as_str() == pool)
        };
        [(1, A), (3, B), (5, "10.0.0.5-10.0.0.6")]
            .into_iter()
            .filter(|(first, _)| found(first) && found(&(first + 1)))
            .map(|(_, range)| range.to_owned())
            .collect()
    }
}
