//! Random histories against a model that is too simple to be wrong: it looks at every address.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_ipam::{
    AddressRange, AllocationRules, Allocator, Backend, Families, Family, Grace, Held, Misfit,
    Owner, Plan, Pool, PoolChoice, PoolState, Port, Protocol, Request, Requester, Reservation,
    Sharing, SharingScope, SharingTerms, Usage,
};
use arpeggio_labels::Labels;
use proptest::prelude::*;

/// Addresses that the histories are about: so many of each family. Two of IPv4 end in .255 and .0.
const ADDRESSES: u8 = 16;

/// How many Services there are.
const OWNERS: u8 = 8;

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are some dozens of them in a history")]
enum Step {
    /// The pools become these.
    Pools(Vec<Pool>),
    /// A Service asks for this, and gets what is planned for it.
    Ask { owner: u8, request: Request, grace: Grace },
    /// A Service asks for what it asked for last.
    AskAgain { owner: u8 },
    /// A Service goes.
    Leave { owner: u8 },
    /// An address is reserved, or is so no more.
    Reserve { address: IpAddr, reserved: bool },
    /// A stranger answers at an address, or does so no more.
    Quarantine { address: IpAddr, answers: bool },
}

/// The whole truth as lists.
#[derive(Default)]
struct Model {
    pools: Vec<Pool>,
    requests: BTreeMap<u8, Request>,
    /// Who holds what, on the terms on which they were let in.
    holders: BTreeMap<IpAddr, BTreeMap<u8, Option<Sharing>>>,
    reserved: BTreeSet<IpAddr>,
    quarantined: BTreeSet<IpAddr>,
    /// Whether anything has happened since a Service was last served.
    changed: BTreeSet<u8>,
}

fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => (0x0a00_00f8 + u32::from(number)).to_be_bytes().into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

fn every_address() -> impl Iterator<Item = IpAddr> {
    Family::ALL.into_iter().flat_map(|f| (0..ADDRESSES).map(move |number| address(f, number)))
}

fn owner(number: u8) -> Owner {
    Owner::from(format!("owner-{number}"))
}

fn within(ranges: &[AddressRange], wanted: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(wanted))
}

fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]))
}

/// Whether those who are at an address go together; newcomers must be of the same namespace, too.
fn agree(ours: Option<&Sharing>, theirs: Option<&Sharing>) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    let private = matches!(&ours.backend, Backend::Local(selector) if selector.is_empty());
    ours.key == theirs.key
        && ours.backend == theirs.backend
        && !private
        && ours.ports.is_disjoint(&theirs.ports)
}

impl Model {
    /// The pools in use: those that share no address with an earlier one in use.
    fn in_use(&self) -> Vec<&Pool> {
        let mut used: Vec<&Pool> = Vec::new();
        for pool in &self.pools {
            let both = |other: &Pool, a| within(&pool.ranges, a) && within(&other.ranges, a);
            if !used.iter().any(|other| every_address().any(|a| both(other, a))) {
                used.push(pool);
            }
        }
        used
    }

    /// Whether a pool that the request may use allows the address, whoever holds it. A Service that requests addresses
    /// or has one may have it from any pool, one that does not gets it only from those that are for such.
    fn allows(&self, address: IpAddr, request: &Request, unasked: bool) -> bool {
        let named = request.pools.named(Family::of(address));
        let open = |pool: &&&Pool| match named {
            Some(only) => only.contains(&pool.name),
            None => pool.auto_assign || !unasked,
        };
        let in_use = self.in_use();
        in_use.iter().filter(open).any(|pool| {
            within(&pool.ranges, address)
                && !within(&pool.excluded, address)
                && !(pool.avoid_buggy_ips && is_buggy(address))
                && pool.rules.as_ref().is_none_or(|rules| {
                    rules.namespaces.is_empty()
                        || rules.namespaces.contains(&request.requester.namespace)
                })
        })
    }

    fn shares(&self, address: IpAddr, number: u8, sharing: Option<&Sharing>) -> bool {
        let others = self.holders.get(&address).into_iter().flatten();
        others.filter(|(other, _)| **other != number).all(|(_, it)| agree(sharing, it.as_ref()))
    }

    /// Whether a Service that is not there yet may share the address.
    fn may_join(&self, address: IpAddr, number: u8, sharing: Option<&Sharing>) -> bool {
        let pool = self.in_use().into_iter().find(|pool| within(&pool.ranges, address));
        let scope = pool.map(|pool| pool.sharing).unwrap_or_default();
        let near = |theirs: &Sharing| {
            sharing.is_some_and(|ours| {
                let anywhere = scope == SharingScope::Cluster && ours.backend == Backend::Anywhere;
                anywhere || ours.namespace == theirs.namespace
            })
        };
        let others = self.holders.get(&address).into_iter().flatten();
        let mut others = others.filter(|(other, _)| **other != number);
        self.shares(address, number, sharing)
            && others.all(|(_, theirs)| theirs.as_ref().is_none_or(near))
    }

    fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.contains(&address) || self.quarantined.contains(&address)
    }

    /// Every address that a Service may be given.
    fn fitting(&self, number: u8, request: &Request) -> Vec<IpAddr> {
        let unasked = request.addresses.is_empty();
        every_address()
            .filter(|it| request.families.want(Family::of(*it)))
            .filter(|it| unasked || request.addresses.contains(it))
            .filter(|it| self.allows(*it, request, unasked) && !self.is_reserved(*it))
            .filter(|it| self.may_join(*it, number, request.sharing.as_ref()))
            .collect()
    }

    fn held(&self, number: u8) -> Vec<IpAddr> {
        let holds =
            |(a, them): (&IpAddr, &BTreeMap<u8, _>)| them.contains_key(&number).then_some(*a);
        self.holders.iter().filter_map(holds).collect()
    }

    fn release(&mut self, number: u8, address: IpAddr) {
        if let Some(holders) = self.holders.get_mut(&address) {
            holders.remove(&number);
            if holders.is_empty() {
                self.holders.remove(&address);
            }
        }
    }

    fn everything_changes(&mut self) {
        self.changed = (0..OWNERS).collect();
    }

    /// What the pool's usage is, address by address.
    fn usage(&self, pool: &Pool, in_use: bool, family: Family) -> Usage {
        let mut usage = Usage::default();
        let own = every_address().filter(|a| Family::of(*a) == family && within(&pool.ranges, *a));
        for address in own {
            usage.total += 1;
            let left_out =
                within(&pool.excluded, address) || (pool.avoid_buggy_ips && is_buggy(address));
            if self.holders.contains_key(&address) {
                usage.used += 1;
            } else if in_use && (left_out || self.is_reserved(address)) {
                usage.reserved += 1;
            } else if in_use {
                usage.free += 1;
            }
        }
        usage
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    (family(), 0..ADDRESSES).prop_map(|(family, number)| address(family, number))
}

fn range() -> impl Strategy<Value = AddressRange> {
    (family(), 0..ADDRESSES, 0..6u8).prop_map(|(family, first, more)| {
        let last = (first + more).min(ADDRESSES - 1);
        AddressRange::new(address(family, first), address(family, last)).unwrap()
    })
}

fn pool(number: usize) -> impl Strategy<Value = Pool> {
    let ranges = prop::collection::vec(range(), 1..4);
    let excluded = prop::collection::vec(range(), 0..2);
    let rules = prop::option::weighted(0.3, (0..3u32, prop::option::of(0..2u8)));
    let scope = prop::sample::select(vec![SharingScope::Namespace, SharingScope::Cluster]);
    (ranges, excluded, prop::bool::weighted(0.7), any::<bool>(), rules, scope).prop_map(
        move |(ranges, excluded, auto_assign, avoid_buggy_ips, rules, sharing)| Pool {
            sharing,
            excluded,
            auto_assign,
            avoid_buggy_ips,
            rules: rules.map(|(priority, namespace)| AllocationRules {
                priority,
                namespaces: namespace.iter().map(|it| format!("namespace-{it}")).collect(),
                ..AllocationRules::default()
            }),
            ..Pool::new(format!("pool-{number}").into(), ranges)
        },
    )
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    (pool(0), pool(1), pool(2), pool(3), prop::sample::subsequence(vec![0, 1, 2, 3], 0..=4))
        .prop_map(|(a, b, c, d, chosen)| {
            let all = [a, b, c, d];
            chosen.into_iter().map(|number| all[number].clone()).collect()
        })
}

fn pool_names() -> impl Strategy<Value = Vec<arpeggio_ipam::PoolName>> {
    prop::collection::vec((0..5usize).prop_map(|it| format!("pool-{it}").into()), 1..3)
}

fn sharing() -> impl Strategy<Value = Sharing> {
    let backend = prop_oneof![
        3 => Just(Backend::Anywhere),
        1 => prop::sample::select(vec!["a", "b"])
            .prop_map(|app| Backend::Local(Labels::from([("app".to_owned(), app.to_owned())]))),
        1 => Just(Backend::Local(Labels::new())),
    ];
    let port = (1..5u16).prop_map(|number| Port { protocol: Protocol::Tcp, number });
    let ports = prop::collection::btree_set(port, 1..3);
    (prop::sample::select(vec!["k", "l"]), backend, ports).prop_map(|(key, backend, ports)| {
        Sharing { namespace: String::new(), key: key.into(), backend, ports }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let families = (family(), 0..3u8).prop_map(|(family, policy)| match policy {
        0 => Families::One(family),
        1 => Families::Prefer(family),
        _ => Families::Both(family),
    });
    let pools = prop_oneof![
        3 => Just(PoolChoice::Any),
        2 => pool_names().prop_map(PoolChoice::Named),
        1 => (pool_names(), pool_names())
            .prop_map(|(v4, v6)| PoolChoice::PerFamily([(Family::V4, v4), (Family::V6, v6)].into())),
    ];
    let addresses = prop_oneof![
        4 => Just(Vec::new()),
        1 => some_address().prop_map(|it| vec![it]),
        1 => (0..ADDRESSES, 0..ADDRESSES)
            .prop_map(|(a, b)| vec![address(Family::V4, a), address(Family::V6, b)]),
    ];
    (families, pools, addresses, 0..2u8, prop::option::of(sharing())).prop_map(
        |(families, pools, addresses, namespace, sharing)| Request {
            requester: Requester {
                namespace: format!("namespace-{namespace}"),
                ..Requester::default()
            },
            families,
            addresses,
            pools,
            sharing: sharing
                .map(|sharing| Sharing { namespace: format!("namespace-{namespace}"), ..sharing }),
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let grace = prop::sample::select(vec![Grace::Lasts, Grace::Over]);
    let ask = (0..OWNERS, request(), grace);
    prop_oneof![
        1 => pools().prop_map(Step::Pools),
        8 => ask.prop_map(|(owner, request, grace)| Step::Ask { owner, request, grace }),
        3 => (0..OWNERS).prop_map(|owner| Step::AskAgain { owner }),
        3 => (0..OWNERS).prop_map(|owner| Step::Leave { owner }),
        1 => (some_address(), any::<bool>())
            .prop_map(|(address, reserved)| Step::Reserve { address, reserved }),
        1 => (some_address(), any::<bool>())
            .prop_map(|(address, answers)| Step::Quarantine { address, answers }),
    ]
}

/// Serves a Service: plans, checks the plan, does what it says.
fn serve(
    number: u8,
    request: &Request,
    grace: Grace,
    allocator: &mut Allocator,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let held = model.held(number);
    for address in &held {
        let kept = allocator.keep(&owner(number), *address, request.sharing.clone().into()).is_ok();
        let agrees = model.shares(*address, number, request.sharing.as_ref());
        prop_assert_eq!(kept, agrees, "terms at {}", address);
        if kept {
            let holders = model.holders.get_mut(address).unwrap();
            let before = holders.insert(number, request.sharing.clone());
            if before.as_ref() != Some(&request.sharing) {
                // Who could not join so far may do so now.
                model.everything_changes();
            }
        }
    }
    let known: Vec<Held> =
        held.iter().map(|address| Held { address: *address, origin: None }).collect();
    let plan = allocator.plan(&owner(number), request, &known, grace);
    check_what_is_held(&plan, &held, number, request, model)?;
    check_what_is_added(&plan, number, request, model)?;
    let (unchanged, again) = (!model.changed.contains(&number), model.requests.get(&number));
    if unchanged && again == Some(request) && grace == Grace::Lasts {
        let moves = !plan.add.is_empty() || !plan.leaving.is_empty();
        prop_assert!(!moves, "a change without a cause: {:?}", plan);
    }
    carry_out(&plan, number, request, allocator, model)
}

fn carry_out(
    plan: &Plan,
    number: u8,
    request: &Request,
    allocator: &mut Allocator,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    for choice in &plan.add {
        let terms = SharingTerms::from(request.sharing.clone());
        prop_assert!(allocator.claim(&owner(number), choice.address, terms).is_ok());
        let sharing = request.sharing.clone();
        model.holders.entry(choice.address).or_default().insert(number, sharing);
    }
    for leaving in &plan.leaving {
        prop_assert!(allocator.release(&owner(number), leaving.address));
        model.release(number, leaving.address);
        model.everything_changes();
    }
    model.changed.remove(&number);
    model.requests.insert(number, request.clone());
    Ok(())
}

fn check_what_is_held(
    plan: &Plan,
    held: &[IpAddr],
    number: u8,
    request: &Request,
    model: &Model,
) -> Result<(), TestCaseError> {
    let leaving = plan.expiring.iter().chain(&plan.leaving);
    let mut all: Vec<IpAddr> =
        plan.keep.iter().copied().chain(leaving.map(|it| it.address)).collect();
    all.sort_unstable();
    prop_assert_eq!(&all[..], held, "every held address has one fate");
    for leaving in plan.leaving.iter().chain(&plan.expiring) {
        let allowed = model.allows(leaving.address, request, false);
        let shared = model.shares(leaving.address, number, request.sharing.as_ref());
        let right = match &leaving.why {
            Misfit::Disallowed(_) => !allowed,
            Misfit::Clash(_) => allowed && !shared,
            Misfit::Quarantined(_) => model.quarantined.contains(&leaving.address),
            Misfit::Unwanted(_) => true,
            // Where addresses came from is not part of the model.
            Misfit::Taken(_) => false,
        };
        prop_assert!(right, "{:?}, but allowed: {}, shared: {}", leaving, allowed, shared);
    }
    for address in &plan.keep {
        let fits = model.allows(*address, request, false);
        let overlapping = model.pools.iter().any(|pool| within(&pool.ranges, *address));
        let taken = model.quarantined.contains(address);
        prop_assert!(fits || overlapping || taken || plan.refusal.is_some(), "{} stays", address);
    }
    check_what_strangers_have(plan, number, request, model)
}

/// An address at which a stranger answers stays only where no other one of its family is to be had.
fn check_what_strangers_have(
    plan: &Plan,
    number: u8,
    request: &Request,
    model: &Model,
) -> Result<(), TestCaseError> {
    let Families::One(family) = request.families else { return Ok(()) };
    if request.addresses.iter().any(|it| Family::of(*it) != family) {
        // What cannot be understood is refused as a whole, and everything stays.
        return Ok(());
    }
    let fitting = model.fitting(number, request);
    // The strangers of this model have one MAC address: three of them, and another address would be no better.
    let escapable = model.quarantined.len() < 3;
    let quarantined = |it: &&IpAddr| escapable && model.quarantined.contains(it);
    for address in plan.keep.iter().filter(quarantined) {
        prop_assert!(fitting.is_empty(), "{} stays with {:?} free", address, fitting);
    }
    let lost = plan.leaving.iter().filter(|it| matches!(it.why, Misfit::Quarantined(_)));
    for address in lost.map(|it| it.address) {
        let added = plan.add.iter().map(|it| it.address);
        let mut others = added.chain(plan.keep.iter().copied());
        prop_assert!(others.any(|it| Family::of(it) == family), "nothing replaces {}", address);
    }
    Ok(())
}

fn check_what_is_added(
    plan: &Plan,
    number: u8,
    request: &Request,
    model: &Model,
) -> Result<(), TestCaseError> {
    let fitting = model.fitting(number, request);
    for choice in &plan.add {
        prop_assert!(fitting.contains(&choice.address), "{:?} does not fit", choice);
    }
    let staying = plan.keep.iter().chain(plan.expiring.iter().map(|it| &it.address));
    let staying: BTreeSet<Family> = staying.map(|it| Family::of(*it)).collect();
    let possible =
        |family| staying.contains(&family) || fitting.iter().any(|it| Family::of(*it) == family);
    let strange = request.addresses.iter().any(|it| !request.families.want(Family::of(*it)));
    let enough = !strange
        && match request.families {
            Families::One(family) => possible(family),
            Families::Prefer(_) => possible(Family::V4) || possible(Family::V6),
            Families::Both(_) => possible(Family::V4) && possible(Family::V6),
        };
    // What stays because nothing replaces it is only there when something is missing.
    let waits = plan.refusal.is_some();
    let nothing_stays = plan.keep.is_empty() && plan.expiring.is_empty();
    prop_assert!(!(waits && enough && nothing_stays), "{:?} with {:?} free", plan, fitting);
    prop_assert!(waits || enough, "{:?} with nothing that fits", plan);
    if let ([one, other], PoolChoice::Any) = (&plan.add[..], &request.pools) {
        let both = one_pool_has_both(&fitting, model);
        let asked = !request.addresses.is_empty();
        prop_assert!(one.pool == other.pool || !both || asked, "one pool has both: {:?}", plan);
    }
    Ok(())
}

fn one_pool_has_both(fitting: &[IpAddr], model: &Model) -> bool {
    model.in_use().iter().any(|pool| {
        Family::ALL.iter().all(|family| {
            fitting.iter().any(|it| Family::of(*it) == *family && within(&pool.ranges, *it))
        })
    })
}

fn take(step: Step, allocator: &mut Allocator, model: &mut Model) -> Result<(), TestCaseError> {
    match step {
        Step::Pools(pools) => {
            allocator.set_pools(pools.iter().cloned().map(Ok));
            model.pools = pools;
            model.everything_changes();
        }
        Step::Ask { owner, request, grace } => serve(owner, &request, grace, allocator, model)?,
        Step::AskAgain { owner } => {
            let request = model.requests.get(&owner).cloned().unwrap_or_default();
            serve(owner, &request, Grace::Lasts, allocator, model)?;
        }
        Step::Leave { owner: number } => {
            for address in model.held(number) {
                prop_assert!(allocator.release(&owner(number), address));
                model.release(number, address);
            }
            model.requests.remove(&number);
            model.everything_changes();
        }
        Step::Reserve { address, reserved } => {
            let reason = Reservation::Node("node-1".to_owned());
            if reserved {
                allocator.reserve(address, reason);
                model.reserved.insert(address);
            } else {
                allocator.unreserve(address, &reason);
                model.reserved.remove(&address);
            }
            model.everything_changes();
        }
        Step::Quarantine { address, answers } => {
            let reason = Reservation::Quarantined("02:00:00:00:00:09".to_owned());
            if answers {
                allocator.reserve(address, reason);
                model.quarantined.insert(address);
            } else {
                allocator.unreserve(address, &reason);
                model.quarantined.remove(&address);
            }
            model.everything_changes();
        }
    }
    Ok(())
}

fn compare(allocator: &Allocator, model: &Model) -> Result<(), TestCaseError> {
    for address in every_address() {
        let holders: Vec<Owner> = allocator.holders(address).cloned().collect();
        let expected = model.holders.get(&address).into_iter().flatten();
        prop_assert_eq!(holders, expected.map(|(number, _)| owner(*number)).collect::<Vec<_>>());
    }
    let in_use: Vec<_> = model.in_use().iter().map(|pool| &pool.name).collect();
    for (pool, (name, state)) in model.pools.iter().zip(allocator.pools()) {
        let used = in_use.contains(&name);
        prop_assert_eq!(state == PoolState::Usable, used);
        for family in Family::ALL {
            let usage = allocator.usage(name, family).unwrap();
            prop_assert_eq!(usage, model.usage(pool, used, family), "{} {}", name, family);
        }
    }
    Ok(())
}

/// What must be true of all that is held, whatever happened.
fn check_sharers(model: &Model) -> Result<(), TestCaseError> {
    for (address, holders) in &model.holders {
        for (one, ours) in holders {
            for (_, theirs) in holders.iter().filter(|(other, _)| *other != one) {
                prop_assert!(agree(ours.as_ref(), theirs.as_ref()), "{} is given twice", address);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Never one address twice without an equal key, no change without a cause, nobody refused while a fitting address
    /// is free, every count right.
    #[test]
    fn any_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let (mut allocator, mut model) = (Allocator::default(), Model::default());
        for step in steps {
            take(step, &mut allocator, &mut model)?;
            check_sharers(&model)?;
            compare(&allocator, &model)?;
        }
    }

    /// The order and names of pools say who gets what next, never who holds what.
    #[test]
    fn order_and_names_of_pools_never_change_who_holds_what(
        claims in prop::collection::vec((0..OWNERS, some_address()), 1..30),
        before in pools(),
        after in pools(),
    ) {
        let mut allocator = Allocator::default();
        allocator.set_pools(before.into_iter().map(Ok));
        for (number, address) in &claims {
            // Refused where an earlier claim took it: that one must stay.
            let _ = allocator.claim(&owner(*number), *address, SharingTerms::Alone);
        }
        let holders = |allocator: &Allocator| -> Vec<Vec<Owner>> {
            every_address().map(|address| allocator.holders(address).cloned().collect()).collect()
        };
        let held = holders(&allocator);
        allocator.set_pools(after.into_iter().rev().map(Ok));
        prop_assert_eq!(holders(&allocator), held);
    }
}
