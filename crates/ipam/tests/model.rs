//! Random histories against a model that is too simple to be wrong: a table of all addresses.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_ipam::{AddressRange, Allocator, Family, FamilyRequest, Owner, Pool, PoolState};
use proptest::prelude::*;

/// Addresses that the histories are about: 24 of each family.
const ADDRESSES: u8 = 24;

#[derive(Debug, Clone)]
enum Step {
    /// The pools become these: spans of address numbers.
    Pools(Vec<ModelPool>),
    /// Somebody without an address asks for one, and claims it.
    Ask { owner: u8, pool: Option<u8>, family: Family },
    /// Somebody claims an address that a record says is theirs.
    Recall { owner: u8, address: IpAddr },
    /// Somebody gives back an address.
    Release { owner: u8, address: IpAddr },
}

#[derive(Debug, Clone)]
struct ModelPool {
    name: u8,
    spans: Vec<(Family, u8, u8)>,
    auto_assign: bool,
}

/// The whole truth as a table and a list.
#[derive(Default)]
struct Model {
    pools: Vec<ModelPool>,
    holders: BTreeMap<IpAddr, u8>,
}

fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, number].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

fn every_address() -> impl Iterator<Item = IpAddr> {
    Family::ALL.into_iter().flat_map(|f| (0..ADDRESSES).map(move |number| address(f, number)))
}

fn name(number: u8) -> String {
    format!("pool-{number}")
}

fn owner(number: u8) -> Owner {
    Owner::from(format!("owner-{number}"))
}

impl ModelPool {
    fn has(&self, wanted: IpAddr) -> bool {
        let inside = |(f, a, b): &(Family, u8, u8)| (*a..=*b).any(|n| address(*f, n) == wanted);
        self.spans.iter().any(inside)
    }

    fn build(&self) -> Pool {
        let range = |(f, a, b): &(Family, u8, u8)| {
            AddressRange::new(address(*f, *a), address(*f, *b)).unwrap()
        };
        let ranges = self.spans.iter().map(range).collect();
        Pool { auto_assign: self.auto_assign, ..Pool::new(name(self.name).into(), ranges) }
    }
}

impl Model {
    /// The pools in use: those that share no address with an earlier one in use.
    fn in_use(&self) -> Vec<&ModelPool> {
        let mut used: Vec<&ModelPool> = Vec::new();
        for pool in &self.pools {
            let shared = |other: &&ModelPool| every_address().any(|a| pool.has(a) && other.has(a));
            if !used.iter().any(shared) {
                used.push(pool);
            }
        }
        used
    }

    /// Every address that the request may be given.
    fn fitting(&self, pool: Option<u8>, family: Family) -> Vec<IpAddr> {
        let may = |p: &&ModelPool| pool.map_or(p.auto_assign, |wanted| wanted == p.name);
        let pools: Vec<_> = self.in_use().into_iter().filter(may).collect();
        every_address()
            .filter(|a| Family::of(*a) == family && !self.holders.contains_key(a))
            .filter(|a| pools.iter().any(|pool| pool.has(*a)))
            .collect()
    }

    fn used(&self, pool: &ModelPool, family: Family) -> u128 {
        self.holders.keys().filter(|a| Family::of(**a) == family && pool.has(**a)).count() as u128
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    (family(), 0..ADDRESSES).prop_map(|(family, number)| address(family, number))
}

fn pools() -> impl Strategy<Value = Vec<ModelPool>> {
    let span = (family(), 0..ADDRESSES, 0..6u8)
        .prop_map(|(family, first, more)| (family, first, (first + more).min(ADDRESSES - 1)));
    let pool = (0..5u8, prop::collection::vec(span, 1..4), prop::bool::weighted(0.7))
        .prop_map(|(name, spans, auto_assign)| ModelPool { name, spans, auto_assign });
    prop::collection::vec(pool, 0..4).prop_map(|mut pools| {
        let mut seen = Vec::new();
        pools.retain(|pool| {
            !seen.contains(&pool.name) && {
                seen.push(pool.name);
                true
            }
        });
        pools
    })
}

fn step() -> impl Strategy<Value = Step> {
    let asked = (0..12u8, prop::option::of(0..5u8), family());
    prop_oneof![
        1 => pools().prop_map(Step::Pools),
        6 => asked.prop_map(|(owner, pool, family)| Step::Ask { owner, pool, family }),
        2 => (0..12u8, some_address()).prop_map(|(owner, address)| Step::Recall { owner, address }),
        4 => (0..12u8, some_address()).prop_map(|(owner, address)| Step::Release { owner, address }),
    ]
}

fn take(step: Step, allocator: &mut Allocator, model: &mut Model) -> Result<(), TestCaseError> {
    match step {
        Step::Pools(pools) => {
            allocator.set_pools(pools.iter().map(|pool| Ok(pool.build())));
            model.pools = pools;
        }
        Step::Ask { owner: number, pool, family } => {
            let fitting = model.fitting(pool, family);
            let request = FamilyRequest { pool: pool.map(|p| name(p).into()), family };
            match allocator.choose(&request) {
                Ok(choice) => {
                    prop_assert!(fitting.contains(&choice.address), "{choice:?} does not fit");
                    prop_assert_eq!(allocator.pool_of(choice.address), Some(&choice.pool));
                    prop_assert!(allocator.claim(&owner(number), choice.address).is_ok());
                    model.holders.insert(choice.address, number);
                }
                Err(refusal) => prop_assert!(fitting.is_empty(), "{refusal}, but {fitting:?} fit"),
            }
        }
        Step::Recall { owner: number, address } => {
            let holder = *model.holders.entry(address).or_insert(number);
            prop_assert_eq!(allocator.claim(&owner(number), address).is_ok(), holder == number);
        }
        Step::Release { owner: number, address } => {
            let held = model.holders.get(&address) == Some(&number);
            prop_assert_eq!(allocator.release(&owner(number), address), held);
            if held {
                model.holders.remove(&address);
            }
        }
    }
    Ok(())
}

fn compare(allocator: &Allocator, model: &Model) -> Result<(), TestCaseError> {
    for address in every_address() {
        let holder = model.holders.get(&address).map(|number| owner(*number));
        prop_assert_eq!(allocator.holder(address), holder.as_ref());
    }
    for number in 0..12 {
        let held: Vec<_> = allocator.held_by(&owner(number)).collect();
        let expected = |(a, n): (&IpAddr, &u8)| (*n == number).then_some(*a);
        prop_assert_eq!(held, model.holders.iter().filter_map(expected).collect::<Vec<_>>());
    }
    let in_use: Vec<_> = model.in_use().iter().map(|pool| pool.name).collect();
    for (pool, (pool_name, state)) in model.pools.iter().zip(allocator.pools()) {
        prop_assert_eq!(state == PoolState::Usable, in_use.contains(&pool.name));
        for family in Family::ALL {
            let usage = allocator.usage(pool_name, family).unwrap();
            let total = every_address().filter(|a| Family::of(*a) == family && pool.has(*a));
            prop_assert_eq!(usage.total, total.count() as u128);
            prop_assert_eq!(usage.used, model.used(pool, family));
            let free = if state == PoolState::Usable { usage.total - usage.used } else { 0 };
            prop_assert_eq!(usage.free, free);
        }
    }
    Ok(())
}

proptest! {
    /// Never one address twice, nobody refused while a fitting address is free, every count right.
    #[test]
    fn any_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let (mut allocator, mut model) = (Allocator::default(), Model::default());
        for step in steps {
            take(step, &mut allocator, &mut model)?;
            compare(&allocator, &model)?;
        }
    }

    /// The order and names of pools say who gets what next, never who holds what.
    #[test]
    fn order_and_names_of_pools_never_change_who_holds_what(
        claims in prop::collection::vec((0..12u8, some_address()), 1..30),
        before in pools(),
        after in pools(),
    ) {
        let mut allocator = Allocator::default();
        allocator.set_pools(before.iter().map(|pool| Ok(pool.build())));
        for (number, address) in &claims {
            // Refused where an earlier claim took it: that one must stay.
            let _ = allocator.claim(&owner(*number), *address);
        }
        let holders = |allocator: &Allocator| -> Vec<Option<Owner>> {
            every_address().map(|address| allocator.holder(address).cloned()).collect()
        };
        let held = holders(&allocator);
        allocator.set_pools(after.iter().rev().map(|pool| Ok(pool.build())));
        prop_assert_eq!(holders(&allocator), held);
    }
}
