//! What the allocator gives and refuses, by example: who gets which address, and what every refusal says.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

mod common;

use std::{ops::Range, time::Instant};

use arpeggio_ipam::{
    AllocationRules, Allocator, Families, Family, Grace, InvalidPool, Pool, PoolChoice, PoolError,
    PoolState, Requester, Reservation, Unusable, Usage,
};
use arpeggio_labels::{Labels, Selector};
use common::{Bench, V4, V6, ip, pool};

#[test]
fn pools_are_tried_by_name_and_addresses_from_the_lowest() {
    let mut bench =
        Bench::with([pool("b", &["10.1.0.0/30"]), pool("a", &["10.0.0.2", "10.0.0.1"])]);
    for expected in ["10.0.0.1", "10.0.0.2", "10.1.0.0"] {
        assert_eq!(bench.give(expected, &V4), [expected]);
    }
    assert_eq!(bench.give("named", &V4.from(&["b"])), ["10.1.0.1"]);
}

#[test]
fn pools_with_rules_come_first_by_priority_and_zero_last() {
    let with_priority = |name: &str, address: &str, priority| Pool {
        rules: Some(AllocationRules { priority, ..AllocationRules::default() }),
        ..pool(name, &[address])
    };
    let mut bench = Bench::with([
        pool("a-free-for-all", &["10.0.0.9"]),
        with_priority("b-zero", "10.0.0.3", 0),
        with_priority("c-late", "10.0.0.2", 20),
        with_priority("d-soon", "10.0.0.1", 3),
    ]);
    for expected in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"] {
        assert_eq!(bench.give(expected, &V4), [expected]);
    }
}

#[test]
fn a_list_of_pools_is_tried_in_its_order() {
    let mut bench = Bench::with([pool("a", &["10.0.0.1"]), pool("b", &["10.0.0.2"])]);
    let request = V4.from(&["missing", "b", "a"]);
    assert_eq!(bench.give("first", &request), ["10.0.0.2"]);
    assert_eq!(bench.give("second", &request), ["10.0.0.1"]);
    assert_eq!(
        bench.refusal("third", &request),
        "no IPv4 address to give: pool \"missing\": it does not exist: create it, or name another one in \
         arpeggio.dev/address-pool; pool \"b\": all its IPv4 addresses are in use, reserved or excluded: add addresses \
         to it; pool \"a\": all its IPv4 addresses are in use, reserved or excluded: add addresses to it"
    );
}

#[test]
fn a_pool_that_does_not_assign_automatically_is_there_for_those_who_ask() {
    let manual = Pool { auto_assign: false, ..pool("manual", &["10.0.0.0/29"]) };
    let mut bench = Bench::with([manual]);
    assert_eq!(bench.give("named", &V4.from(&["manual"])), ["10.0.0.0"]);
    assert_eq!(bench.give("requested", &V4.at(&["10.0.0.3"])), ["10.0.0.3"]);
    assert_eq!(
        bench.refusal("any", &V4),
        "no pool has an IPv4 address to give: pool \"manual\": autoAssign is off: name the pool in \
         arpeggio.dev/address-pool, or set autoAssign: true"
    );
}

#[test]
fn pools_that_are_for_others_only_are_not_named() {
    let theirs = |name: &str, addresses: &[&str]| {
        let rules = AllocationRules { namespaces: ["theirs".into()].into(), ..Default::default() };
        Pool { rules: Some(rules), ..pool(name, addresses) }
    };
    let rules = theirs("x", &["10.0.0.9"]).rules;
    let manual = Pool { auto_assign: false, ..theirs("secret-manual", &["10.0.1.0/29"]) };
    let broken = |name: &str| {
        let invalid = InvalidPool::new(name.into(), PoolError::NoAddresses);
        Err(invalid.is_for(Ok::<_, PoolError>(rules.clone())))
    };
    let mut bench = Bench::with([]);
    bench.allocator.set_pools([
        Ok(pool("home", &["10.0.0.0"])),
        Ok(theirs("secret-good", &["10.0.2.0/29"])),
        Ok(manual),
        Ok(theirs("secret-overlapping", &["10.0.0.0/31"])),
        Ok(theirs("home", &["10.0.3.0/31"])),
        broken("secret-broken"),
    ]);
    bench.give("holder", &V4);
    let all_of_ours =
        "no pool has an IPv4 address to give: pool \"home\": all its IPv4 addresses are in use";
    let told = bench.refusal("s", &V4);
    assert!(told.starts_with(all_of_ours) && !told.contains("secret"), "{told}");
    assert_eq!(told.matches("home").count(), 1, "{told}");
    for name in ["secret-good", "secret-manual", "secret-overlapping", "secret-broken"] {
        let told = bench.refusal("s", &V4.from(&[name]));
        assert!(told.contains("its spec.allocation (of an IPAddressPool: spec.serviceAllocation) is not for namespace"), "{told}");
    }
}

#[test]
fn every_refusal_of_a_pool_says_what_to_do() {
    let mut bench = Bench::with([]);
    assert_eq!(
        bench.refusal("s", &V4),
        "there are no pools: create one, or have MetalLB's read (manifests/components/metallb)"
    );
    assert_eq!(
        bench.refusal("s", &V4.from(&["home"])),
        "no IPv4 address to give: pool \"home\": it does not exist: create it, or name another one in arpeggio.dev/address-pool"
    );
    bench.allocator.set_pools([
        Ok(pool("internal", &["10.0.0.1"])),
        Ok(pool("external", &["10.0.0.0/31"])),
        Pool::parse("broken".into(), &["10.0.0.1/24"]),
        Ok(pool("internal", &["10.9.0.0/31"])),
    ]);
    bench.give("holder", &V4);
    assert_eq!(
        bench.refusal("s", &Families::One(Family::V6).into()),
        "no pool has an IPv6 address to give: pool \"broken\": it is not used, since it is invalid: the pool's \
         conditions or events say why; pool \"external\": it is not used, since another \
         pool has some of its addresses: the pool's conditions or events say which; pool \"internal\": it has no \
         IPv6 addresses: add some to it; pool \"internal\": it is not used, since it is invalid: the pool's conditions or \
         events say why"
    );
}

#[test]
fn every_refusal_of_a_requested_address_says_what_to_do() {
    let spare = Pool {
        excluded: vec!["10.0.0.7".parse().unwrap()],
        avoid_buggy_ips: true,
        ..pool("spare", &["10.0.0.0/28", "127.0.0.1"])
    };
    let mut bench = Bench::with([spare, pool("other", &["10.1.0.1"])]);
    bench.give("shop/holder", &V4.at(&["10.0.0.1"]));
    bench.give("Lease address-10.0.0.3", &V4.at(&["10.0.0.3"]));
    bench.allocator.reserve(ip("10.0.0.2"), Reservation::Node("node-1".into()));
    let table = [
        (
            V4.at(&["10.0.0.3"]),
            "the Lease address-10.0.0.3 in Arpeggio's namespace has it, and is of no Service: delete it, or request \
             another one",
        ),
        (
            V4.at(&["10.0.0.1"]),
            "another Service of this namespace has it: give both the same sharing key, or request another one",
        ),
        (V4.at(&["10.0.0.2"]), "it is an address of node node-1: request another one"),
        (
            V4.at(&["10.0.0.7"]),
            "pool \"spare\" leaves it out (excluded, or avoided for its last byte): request another one",
        ),
        (
            V4.at(&["10.0.0.0"]),
            "pool \"spare\" leaves it out (excluded, or avoided for its last byte): request another one",
        ),
        (
            V4.at(&["127.0.0.1"]),
            "it is a loopback address, at which no Service can be reached: request another one",
        ),
        (V4.at(&["10.2.0.1"]), "no pool in use has it: request another one, or add it to a pool"),
        (
            V4.at(&["fd00::1"]),
            "the Service has no IPv6 cluster address: request another address, or set spec.ipFamilies",
        ),
        (
            V4.at(&["10.1.0.1"]).from(&["spare"]),
            "it is in pool \"other\", which the Service does not ask for: name that pool, or request another address",
        ),
    ];
    for (request, why) in table {
        let expected = format!("{} cannot be given: {why}", request.addresses[0]);
        assert_eq!(bench.refusal("shop/s", &request), expected);
    }
}

#[test]
fn selectors_that_select_nothing_mean_nobody() {
    let rules = AllocationRules {
        namespace_selectors: vec![Selector::default().with_label("tenant", "a").unwrap()],
        ..AllocationRules::default()
    };
    let tenants = Pool { rules: Some(rules), ..pool("tenants", &["10.0.0.1"]) };
    let mut bench = Bench::with([tenants]);
    let named = "pool \"tenants\": its spec.allocation (of an IPAddressPool: spec.serviceAllocation) is not for namespace \"shop\": add the namespace to it, or name \
                 another pool";
    let unasked = "no pool is for this Service: add its namespace and labels to the spec.allocation of one (of an IPAddressPool: spec.serviceAllocation), or name a \
                   pool in arpeggio.dev/address-pool";
    let mut request = V4.request();
    let namespace_labels = Some(Labels::new());
    request.requester =
        Requester { namespace: "shop".into(), namespace_labels, ..Requester::default() };
    for (pools, refused) in
        [(PoolChoice::Any, unasked), (PoolChoice::Named(vec!["tenants".into()]), named)]
    {
        request.pools = pools;
        assert_eq!(
            bench.refusal("s", &request.clone().into()).split(" give: ").last(),
            Some(refused)
        );
    }
    request.addresses = vec![ip("10.0.0.1")];
    assert!(bench.refusal("s", &request.clone().into()).ends_with(named));
    for pools in [PoolChoice::Any, PoolChoice::Named(vec!["other".into()])] {
        request.pools = pools;
        let refusal = bench.refusal("s", &request.clone().into());
        assert!(!refusal.contains("tenants"), "pools for others have no names: {refusal}");
    }
    request.pools = PoolChoice::Any;
    request.requester.namespace_labels = Some(Labels::from([("tenant".into(), "a".into())]));
    assert_eq!(bench.give("s", &request.into()), ["10.0.0.1"]);
}

#[test]
fn who_is_in_a_namespace_whose_labels_are_unknown_keeps_what_it_has_and_gets_nothing_for_its_labels()
 {
    let only = |addresses: &[&str], selector: Selector| Pool {
        rules: Some(AllocationRules {
            namespace_selectors: vec![selector],
            ..AllocationRules::default()
        }),
        ..pool("tenants", addresses)
    };
    let without = Selector::default().with_expression("tenant", "DoesNotExist", []).unwrap();
    let mut bench = Bench::with([only(&["10.0.0.1-10.0.0.2"], without.clone())]);
    let mut request = V4.request();
    request.requester.namespace_labels = Some(Labels::new());
    assert_eq!(bench.give("s", &request.clone().into()), ["10.0.0.1"]);
    request.requester.namespace_labels = None;
    let plan = bench.plan("s", &request.clone().into(), Grace::Over);
    assert_eq!((plan.keep, plan.expiring, plan.refusal), (vec![ip("10.0.0.1")], vec![], None));
    assert!(bench.refusal("t", &request.clone().into()).starts_with("no pool is for this Service"));
    bench.set_pools([only(&["10.0.0.1-10.0.0.2"], without), pool("home", &["10.0.1.1"])]);
    assert_eq!(bench.give("t", &request.into()), ["10.0.1.1"], "a pool for everybody");
}

#[test]
fn reserved_addresses_are_passed_over_and_counted() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    let reason = Reservation::Gateway("node-1".into());
    bench.allocator.reserve(ip("10.0.0.0"), reason.clone());
    assert_eq!(bench.give("a", &V4), ["10.0.0.1"]);
    let usage = |bench: &Bench| bench.allocator.usage(&"home".into(), Family::V4).unwrap();
    assert_eq!(usage(&bench), Usage { total: 4, used: 1, reserved: 1, free: 2 });
    bench.allocator.unreserve(ip("10.0.0.0"), &reason);
    assert_eq!(bench.give("b", &V4), ["10.0.0.0"]);
}

#[test]
fn an_overlapping_pool_waits_for_the_other_to_go_and_harms_nobody_meanwhile() {
    let new = || pool("new", &["10.0.0.2-10.0.0.9"]);
    let mut bench =
        Bench::with([pool("old", &["10.0.0.0/30"]), new(), pool("newer", &["10.0.0.9"])]);
    let states: Vec<_> = bench.allocator.pools().map(|(_, state)| state).collect();
    assert!(matches!(
        states[..],
        [PoolState::Usable, PoolState::Overlapping(_), PoolState::Usable]
    ));

    bench.give("s", &V4.at(&["10.0.0.2"]));
    bench.allocator.set_pools([Ok(new())]);
    assert_eq!(bench.give("t", &V4.from(&["new"])), ["10.0.0.3"]);
    let usage = bench.allocator.usage(&"new".into(), Family::V4);
    assert_eq!(usage, Some(Usage { total: 8, used: 2, reserved: 0, free: 6 }));
}

/// How many allocations are timed at either end of a pool.
const TIMED: usize = 2000;

/// Looking through what is taken would make the last addresses of a `/16` some thousand times dearer; logarithms double
/// the price, and a busy machine may double it again.
const DEARER: f64 = 16.0;

#[test]
#[allow(clippy::print_stdout, reason = "the figures, for those who ask with --nocapture")]
fn the_last_address_of_a_full_pool_costs_what_the_first_did() {
    let big = Pool { avoid_buggy_ips: true, ..pool("big", &["10.0.0.0/16", "fd00::/8"]) };
    let mut bench = Bench::with([big]);
    let request = V4.from(&["big"]);
    let mut give = |numbers: Range<usize>| {
        let begin = Instant::now();
        for number in numbers.clone() {
            assert_eq!(bench.give(&number.to_string(), &request).len(), 1);
        }
        begin.elapsed() / u32::try_from(numbers.len()).unwrap()
    };
    let all = 256 * 254;
    let first = give(0..TIMED);
    give(TIMED..all - TIMED);
    let last = give(all - TIMED..all);
    let ratio = last.as_secs_f64() / first.as_secs_f64();
    println!("an allocation took {first:?} at first, {last:?} at last: {ratio:.1} times as long");
    assert!(ratio < DEARER, "the last addresses cost {ratio:.1} times what the first did");
    let full = "all its IPv4 addresses are in use, reserved or excluded: add addresses to it";
    assert!(bench.refusal("last", &request).contains(full));
    let usage = bench.allocator.usage(&"big".into(), Family::V6).unwrap();
    assert_eq!(usage, Usage { total: 1 << 120, used: 0, reserved: 0, free: 1 << 120 });
}

#[test]
fn a_pool_of_2_to_the_120_addresses_is_a_pool_like_any_other() {
    let huge =
        Pool { excluded: vec!["fd00::-fdff::".parse().unwrap()], ..pool("huge", &["fd00::/8"]) };
    let mut bench = Bench::with([huge, pool("more", &["fc00::/8"])]);
    assert_eq!(bench.give("a", &V6), ["fdff::1"]);
    let last = "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(bench.give("b", &V6.at(&[last])), [last]);
    let usage = bench.allocator.usage(&"huge".into(), Family::V6).unwrap();
    assert_eq!((usage.total, usage.used, usage.free), (1 << 120, 2, (1 << 112) - 3));
    assert_eq!(bench.allocator.usage(&"huge".into(), Family::V4), Some(Usage::default()));
}

#[test]
fn an_earlier_declaration_is_used_while_the_present_one_cannot_be() {
    let pool = |name: &str, range: &str| Pool::new(name.into(), vec![range.parse().unwrap()]);
    let broken = |name: &str| Err(InvalidPool::new(name.into(), PoolError::NoAddresses));
    let mut allocator = Allocator::default();
    allocator.set_pools_or_earlier([
        (broken("a"), Some(pool("a", "10.0.0.0/28"))),
        (Ok(pool("b", "10.0.0.8/32")), Some(pool("b", "10.0.1.0/28"))),
        (broken("c"), Some(pool("c", "10.0.1.1/32"))),
        (Ok(pool("d", "10.0.2.0/28")), Some(pool("d", "10.0.3.0/28"))),
        (broken("e"), None),
    ]);
    let states: Vec<PoolState<'_>> = allocator.pools().map(|(_, state)| state).collect();
    assert!(matches!(states[0], PoolState::Earlier(Unusable::Invalid(_))), "{states:?}");
    assert!(matches!(states[1], PoolState::Earlier(Unusable::Overlapping(_))), "{states:?}");
    assert!(matches!(states[2], PoolState::Invalid(_)), "an older pool has its addresses by now");
    assert!(matches!(states[3..], [PoolState::Usable, PoolState::Invalid(_)]), "{states:?}");
    let in_use = |address: &str| allocator.pool_of(address.parse().unwrap()).is_some();
    assert!(in_use("10.0.0.1") && in_use("10.0.1.9") && in_use("10.0.2.1"));
    assert!(!in_use("10.0.3.1"));
}
