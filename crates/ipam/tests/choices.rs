//! What the allocator gives and refuses, by example.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::net::IpAddr;

use arpeggio_ipam::{Allocator, Family, FamilyRequest, InvalidPool, Owner, Pool, PoolState, Usage};

fn pool(name: &str, addresses: &[&str]) -> Result<Pool, InvalidPool> {
    Pool::parse(name.into(), addresses)
        .map(|pool| Pool { auto_assign: !name.starts_with("manual"), ..pool })
}

fn with_pools(pools: &[(&str, &[&str])]) -> Allocator {
    let mut allocator = Allocator::default();
    allocator.set_pools(pools.iter().map(|(name, addresses)| pool(name, addresses)));
    allocator
}

fn any(family: Family) -> FamilyRequest {
    FamilyRequest { pool: None, family }
}

fn from(pool: &str) -> FamilyRequest {
    FamilyRequest { pool: Some(pool.into()), family: Family::V4 }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn refusal(allocator: &Allocator, request: &FamilyRequest) -> String {
    allocator.choose(request).unwrap_err().to_string()
}

#[test]
fn pools_are_tried_in_order_and_addresses_from_the_lowest() {
    let mut allocator = with_pools(&[("a", &["10.0.0.2", "10.0.0.1"]), ("b", &["10.1.0.0/30"])]);
    for expected in ["10.0.0.1", "10.0.0.2", "10.1.0.0"] {
        let choice = allocator.choose(&any(Family::V4)).unwrap();
        assert_eq!(choice.address, ip(expected));
        allocator.claim(&Owner::from(expected), choice.address).unwrap();
    }
    assert_eq!(allocator.choose(&from("b")).unwrap().address, ip("10.1.0.1"));
}

#[test]
fn a_pool_that_does_not_assign_automatically_is_there_for_those_who_name_it() {
    let allocator = with_pools(&[("manual", &["10.0.0.1"])]);
    assert_eq!(allocator.choose(&from("manual")).unwrap().address, ip("10.0.0.1"));
    assert_eq!(
        refusal(&allocator, &any(Family::V4)),
        "no pool has an IPv4 address to give: pool \"manual\": it is only for those who ask for it by name: do so, \
         or let it assign automatically"
    );
}

#[test]
fn every_refusal_says_what_to_do() {
    assert_eq!(refusal(&Allocator::default(), &any(Family::V4)), "there are no pools: create one");
    assert_eq!(
        refusal(&Allocator::default(), &from("home")),
        "no pool named \"home\", and no other pools: create it"
    );
    let mut allocator = with_pools(&[
        ("internal", &["10.0.0.1"]),
        ("external", &["10.0.0.0/31"]),
        ("broken", &["10.0.0.1/24"]),
    ]);
    allocator.claim(&"uid".into(), ip("10.0.0.1")).unwrap();
    assert_eq!(
        refusal(&allocator, &from("extern")),
        "no pool named \"extern\"; existing pools: broken, external, internal"
    );
    assert_eq!(
        refusal(&allocator, &from("internal")),
        "no IPv4 address to give: pool \"internal\": all its addresses (1) are in use: add addresses to it"
    );
    assert_eq!(
        refusal(&allocator, &any(Family::V6)),
        "no pool has an IPv6 address to give: pool \"internal\": it has no IPv6 addresses: add some to it; \
         pool \"external\": it is not used: the older pool \"internal\" has 10.0.0.1 too: remove that from one of the \
         two; pool \"broken\": it is not used, since it is invalid: address 1 of 1: 10.0.0.1/24 has host bits set: \
         did you mean 10.0.0.1/32 or 10.0.0.0/24?"
    );
}

#[test]
fn an_overlapping_pool_waits_for_the_other_to_go_and_harms_nobody_meanwhile() {
    let pools: [(&str, &[&str]); 3] =
        [("old", &["10.0.0.0/30"]), ("new", &["10.0.0.2-10.0.0.9"]), ("newer", &["10.0.0.9"])];
    let mut allocator = with_pools(&pools);
    let states: Vec<_> = allocator.pools().map(|(_, state)| state).collect();
    assert!(matches!(
        states[..],
        [PoolState::Usable, PoolState::Overlapping(_), PoolState::Usable]
    ));

    allocator.claim(&"uid".into(), ip("10.0.0.2")).unwrap();
    allocator.set_pools([pool("new", pools[1].1)]);
    assert_eq!(allocator.choose(&from("new")).unwrap().address, ip("10.0.0.3"));
    assert_eq!(
        allocator.usage(&"new".into(), Family::V4),
        Some(Usage { total: 8, used: 1, free: 7 })
    );
}

#[test]
fn what_is_held_stays_held_without_its_pool() {
    let mut allocator = with_pools(&[("home", &["10.0.0.1"])]);
    let (first, second) = (Owner::from("first"), Owner::from("second"));
    allocator.claim(&first, ip("10.0.0.1")).unwrap();
    allocator.set_pools([]);
    assert_eq!(allocator.claim(&second, ip("10.0.0.1")).unwrap_err().holder, first);
    assert_eq!(allocator.pool_of(ip("10.0.0.1")), None);
    allocator.set_pools([pool("home", &["10.0.0.1"])]);
    assert!(allocator.choose(&from("home")).is_err());
    assert!(!allocator.release(&second, ip("10.0.0.1")));
    assert!(allocator.release(&first, ip("10.0.0.1")));
    assert!(allocator.choose(&from("home")).is_ok());
}

#[test]
fn the_last_address_of_a_full_pool_costs_what_the_first_did() {
    let mut allocator = with_pools(&[("big", &["10.0.0.0/16", "fd00::/64"])]);
    for number in 0..=u16::MAX {
        let choice = allocator.choose(&from("big")).unwrap();
        allocator.claim(&Owner::from(number.to_string()), choice.address).unwrap();
    }
    assert!(allocator.choose(&from("big")).is_err());
    let usage = |family| allocator.usage(&"big".into(), family).unwrap();
    assert_eq!(usage(Family::V4), Usage { total: 65536, used: 65536, free: 0 });
    assert_eq!(usage(Family::V6), Usage { total: 1 << 64, used: 0, free: 1 << 64 });
}
