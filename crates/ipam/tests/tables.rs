//! How Services with two families, changed requests and shared keys are served: the tables that MetalLB's users know,
//! row by row. A row that begins with "ours" is where we differ on purpose; it says how and why.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

mod common;

use arpeggio_ipam::{
    Backend, Grace, Misfit, Owner, Plan, Pool, Reservation, SharingScope, Unwanted,
};
use arpeggio_labels::Labels;
use common::{Ask, Bench, PREFER, REQUIRE, V4, V6, ip, pool};

const BOTH: [&str; 2] = ["10.0.0.0/30", "fd00::/126"];

fn addresses(plan: &Plan) -> (Vec<String>, Vec<String>, Vec<String>) {
    let text = |leaving: &[arpeggio_ipam::Leaving]| {
        leaving.iter().map(|it| it.address.to_string()).collect()
    };
    (plan.keep.iter().map(ToString::to_string).collect(), text(&plan.expiring), text(&plan.leaving))
}

#[test]
fn two_families() {
    let v4 = || pool("a4", &["10.4.0.0/30"]);
    let v6 = || pool("b6", &["fd06::/126"]);
    let both = || pool("both", &BOTH);
    let pair = &["10.0.0.0", "fd00::"][..];
    let table: [(&str, Vec<Pool>, Ask, &[&str]); 12] = [
        ("one cluster address: one address of its family", vec![both()], V4, &["10.0.0.0"]),
        ("one cluster address: one address of its family", vec![both()], V6, &["fd00::"]),
        ("RequireDualStack: both from one pool", vec![v4(), v6(), both()], REQUIRE, pair),
        (
            "ours: two pools when none has both, rather than none",
            vec![v4(), v6()],
            REQUIRE,
            &["10.4.0.0", "fd06::"],
        ),
        ("RequireDualStack: not half of it", vec![v4()], REQUIRE, &[]),
        ("PreferDualStack: the first pool with both", vec![v4(), v6(), both()], PREFER, pair),
        (
            "ours: two pools when none has both, rather than one",
            vec![v4(), v6()],
            PREFER,
            &["10.4.0.0", "fd06::"],
        ),
        ("PreferDualStack: one, when there is no other", vec![v4()], PREFER, &["10.4.0.0"]),
        ("PreferDualStack: one, when there is no other", vec![v6()], PREFER, &["fd06::"]),
        (
            "ours: a pool for each family",
            vec![v4(), v6(), both()],
            REQUIRE.each_from("a4", "both"),
            &["10.4.0.0", "fd00::"],
        ),
        (
            "two requested addresses",
            vec![both()],
            PREFER.at(&["10.0.0.3", "fd00::3"]),
            &["10.0.0.3", "fd00::3"],
        ),
        (
            "ours: one requested address is enough for PreferDualStack, which is a wish",
            vec![both()],
            PREFER.at(&["fd00::3"]),
            &["fd00::3"],
        ),
    ];
    for (row, pools, ask, expected) in table {
        let mut bench = Bench::with(pools);
        assert_eq!(bench.carry_out("s", &ask, Grace::Lasts), expected, "{row}");
    }
    let bench = Bench::with([both()]);
    assert!(bench.refusal("s", &REQUIRE.at(&["10.0.0.1"])).contains("request an IPv6 address too"));
}

#[test]
fn the_second_family_comes_later() {
    let mut bench = Bench::with([pool("home", &BOTH[..1])]);
    bench.give("s", &PREFER);
    bench.set_pools([pool("home", &BOTH), pool("a-other", &["fd09::/126"])]);
    assert_eq!(
        bench.give("s", &PREFER),
        ["10.0.0.0", "fd00::"],
        "from the same pool, the first kept"
    );

    let mut bench = Bench::with([pool("home", &BOTH[..1])]);
    bench.give("s", &PREFER);
    bench.set_pools([pool("home", &BOTH[..1]), pool("other", &["10.9.0.0/30", "fd09::/126"])]);
    assert_eq!(
        bench.give("s", &PREFER),
        ["10.0.0.0", "fd09::"],
        "ours: what is held stays, what is missing comes"
    );
}

#[test]
fn a_pool_that_loses_one_family_costs_that_family_only() {
    let mut bench = Bench::with([pool("home", &BOTH)]);
    bench.give("s", &REQUIRE);
    bench.set_pools([pool("home", &BOTH[..1]), pool("other", &["10.9.0.0/30", "fd09::/126"])]);
    let (keep, expiring, leaving) = addresses(&bench.plan("s", &REQUIRE, Grace::Lasts));
    assert_eq!((keep, expiring, leaving), (vec!["10.0.0.0".into()], vec!["fd00::".into()], vec![]));
    let after = bench.carry_out("s", &REQUIRE, Grace::Over);
    assert_eq!(after, ["10.0.0.0", "fd09::"], "ours: only the lost one is replaced, not both");
}

#[test]
fn families_that_change() {
    let mut bench = Bench::with([pool("home", &BOTH)]);
    bench.give("s", &V4);
    assert_eq!(bench.give("s", &REQUIRE), ["10.0.0.0", "fd00::"], "ours: the first one stays");
    assert_eq!(bench.give("s", &V6), ["fd00::"]);
    assert_eq!(bench.give("s", &V4), ["10.0.0.0"]);
}

type Row<'a> = (&'a str, Vec<Pool>, Ask, [&'a [&'a str]; 4]);

/// What is held, what becomes of the pools, what is asked then; what is kept, what expires, what goes, what comes.
#[test]
fn kept_cleared_allocated_anew() {
    let home = || pool("home", &["10.0.0.0/24"]);
    let other = || pool("other", &["10.1.0.0/24"]);
    let for_nobody = || {
        let rules = arpeggio_ipam::AllocationRules {
            namespaces: ["elsewhere".to_owned()].into(),
            ..Default::default()
        };
        Pool { rules: Some(rules), ..home() }
    };
    let held = "10.0.0.0";
    let table: [Row<'_>; 11] = [
        ("no change", vec![home()], V4, [&[held], &[], &[], &[]]),
        ("ours: last pool deleted: grace", vec![], V4, [&[], &[held], &[], &[]]),
        ("ours: pool deleted: grace", vec![other()], V4, [&[], &[held], &[], &[]]),
        (
            "ours: pool shrunk: grace",
            vec![pool("home", &["10.0.0.8/29"])],
            V4,
            [&[], &[held], &[], &[]],
        ),
        (
            "ours: selectors do not match any more: grace",
            vec![for_nobody()],
            V4,
            [&[], &[held], &[], &[]],
        ),
        (
            "ours: avoided from now on: grace",
            vec![Pool { avoid_buggy_ips: true, ..home() }],
            V4,
            [&[], &[held], &[], &[]],
        ),
        (
            "the address is another pool's now",
            vec![pool("new", &["10.0.0.0/30"])],
            V4,
            [&[held], &[], &[], &[]],
        ),
        (
            "another pool is asked for",
            vec![home(), other()],
            V4.from(&["other"]),
            [&[], &[], &[held], &["10.1.0.0"]],
        ),
        (
            "ours: the other pool is full or missing: kept",
            vec![home()],
            V4.from(&["other"]),
            [&[held], &[], &[], &[]],
        ),
        (
            "another address is requested",
            vec![home()],
            V4.at(&["10.0.0.9"]),
            [&[], &[], &[held], &["10.0.0.9"]],
        ),
        (
            "ours: the other address cannot be had: kept",
            vec![home()],
            V4.at(&["10.7.0.9"]),
            [&[held], &[], &[], &[]],
        ),
    ];
    for (row, pools, ask, [keep, expiring, leaving, add]) in table {
        let mut bench = Bench::with([home()]);
        bench.give("s", &V4.from(&["home"]));
        bench.set_pools(pools);
        let plan = bench.plan("s", &ask, Grace::Lasts);
        let (kept, expires, goes) = addresses(&plan);
        assert_eq!((kept, expires, goes), (own(keep), own(expiring), own(leaving)), "{row}");
        let added: Vec<String> = plan.add.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(added, own(add), "{row}");
    }
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn when_the_grace_period_is_over_the_address_goes_whether_or_not_there_is_another_one() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    bench.give("s", &V4);
    bench.set_pools([pool("other", &["10.1.0.0/30"])]);
    assert_eq!(bench.carry_out("s", &V4, Grace::Over), ["10.1.0.0"]);
    bench.set_pools([]);
    assert_eq!(bench.carry_out("s", &V4, Grace::Over), [""; 0]);
}

#[test]
fn a_mistake_in_a_pool_costs_nobody_an_address() {
    let broken = || Pool::parse("home".into(), &["10.0.0.1/24"]);
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    bench.give("s", &V4);
    let stays = |bench: &Bench| bench.plan("s", &V4, Grace::Over).keep == [ip("10.0.0.0")];
    bench.allocator.set_pools([broken()]);
    assert!(stays(&bench), "its pool is broken");
    bench.set_pools([pool("older", &["10.0.0.3"]), pool("home", &["10.0.0.0/30"])]);
    assert!(stays(&bench), "its pool overlaps another one");
    bench.set_pools([]);
    assert!(!stays(&bench));
    bench.allocator.set_incomplete(true);
    assert!(stays(&bench), "nobody knows which pools there are");
}

/// Somebody asks, a stranger answers at 10.0.0.0, and they ask again.
#[test]
fn an_address_that_a_stranger_has_is_replaced_when_another_one_will_do() {
    let only = |addresses: &'static [&'static str]| [pool("home", addresses)];
    let table = [
        ("another one is free", only(&["10.0.0.0/31"]), V4, own(&["10.0.0.1"])),
        ("none is free", only(&["10.0.0.0"]), V4, own(&["10.0.0.0"])),
        ("it is requested", only(&["10.0.0.0/31"]), V4.at(&["10.0.0.0"]), own(&["10.0.0.0"])),
        ("one of two", only(&["10.0.0.0/31", "fd00::1"]), PREFER, own(&["10.0.0.1", "fd00::1"])),
        (
            "one of two, no other",
            only(&["10.0.0.0", "fd00::1"]),
            PREFER,
            own(&["10.0.0.0", "fd00::1"]),
        ),
        (
            "one of both, no other",
            only(&["10.0.0.0", "fd00::1"]),
            REQUIRE,
            own(&["10.0.0.0", "fd00::1"]),
        ),
    ];
    for (case, pools, ask, expected) in table {
        let mut bench = Bench::with(pools);
        bench.give("s", &ask);
        let stranger = || Reservation::Quarantined("02:00:00:00:00:09".to_owned());
        bench.allocator.reserve(ip("10.0.0.0"), stranger());
        for leaving in bench.plan("s", &ask, Grace::Lasts).leaving {
            assert_eq!(leaving.why, Misfit::Quarantined("02:00:00:00:00:09".to_owned()), "{case}");
        }
        assert_eq!(bench.carry_out("s", &ask, Grace::Lasts), expected, "{case}");
        bench.allocator.unreserve(ip("10.0.0.0"), &stranger());
        assert_eq!(bench.carry_out("s", &ask, Grace::Lasts), expected, "{case}: nobody moves back");
    }
}

#[test]
fn a_pool_that_is_being_deleted_gives_nothing_and_takes_nothing_away() {
    let home = |ends| Pool { ends, ..pool("home", &["10.0.0.0/30"]) };
    let mut bench = Bench::with([home(false)]);
    bench.give("a", &shared("k", 80));
    bench.set_pools([home(true)]);
    assert_eq!(bench.carry_out("a", &shared("k", 80), Grace::Lasts), ["10.0.0.0"]);
    let table = [
        ("any pool", V4, "has a metadata.deletionTimestamp"),
        ("this pool", V4.from(&["home"]), "has a metadata.deletionTimestamp"),
        ("this address", V4.at(&["10.0.0.1"]), "has a metadata.deletionTimestamp"),
        ("to share", shared("k", 443), "has a metadata.deletionTimestamp"),
    ];
    for (case, ask, expected) in table {
        let refusal = bench.refusal("b", &ask);
        assert!(refusal.contains(expected), "{case}: {refusal}");
    }
    let usage = bench.allocator.usage(&"home".into(), arpeggio_ipam::Family::V4).unwrap();
    assert_eq!((usage.total, usage.used, usage.free), (4, 1, 0));
    bench.set_pools([home(true), pool("other", &["10.0.1.0/30"])]);
    assert_eq!(bench.give("b", &V4), ["10.0.1.0"], "from another pool");
}

/// Addresses, and when each was asked for.
type Asked<'a> = &'a [(&'a str, i64)];

/// One machine answers.
fn answered(bench: &mut Bench, machine: &str, answers: Asked<'_>) {
    for (address, asked) in answers {
        bench.allocator.reserve(ip(address), Reservation::Quarantined(machine.to_owned()));
        bench.allocator.set_asked(ip(address), Some(*asked));
    }
}

#[test]
fn nobody_flees_from_a_machine_that_answers_everywhere() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/28"])]);
    bench.give("a", &V4);
    let path = [("10.0.0.0", "10.0.0.1"), ("10.0.0.1", "10.0.0.15"), ("10.0.0.15", "10.0.0.15")];
    for (number, (address, expected)) in path.into_iter().enumerate() {
        answered(&mut bench, "router", &[(address, 0)]);
        assert_eq!(bench.carry_out("a", &V4, Grace::Lasts), [expected], "{number}");
        assert_eq!(bench.allocator.answers_everywhere(ip(address)), number == 2);
    }
    answered(&mut bench, "other", &[("10.0.0.3", 0)]);
    assert!(!bench.allocator.answers_everywhere(ip("10.0.0.3")), "another machine");
}

#[test]
fn which_machines_answer_everywhere() {
    let three = &[("10.0.0.0", 10), ("10.0.0.1", 10), ("10.0.0.2", 10)][..];
    let spread = &[("10.0.0.0", 10), ("10.0.0.1", 10), ("10.0.0.15", 10)][..];
    let all_but = |silent: &str| {
        let addresses: Vec<String> = (0..16).map(|it| format!("10.0.0.{it}")).collect();
        addresses.into_iter().filter(|it| it != silent).map(|it| (it, 10)).collect::<Vec<_>>()
    };
    let many = all_but("10.0.0.7");
    let many: Vec<(&str, i64)> = many.iter().map(|(it, asked)| (it.as_str(), *asked)).collect();
    let table: [(&str, Asked<'_>, Asked<'_>, bool); 10] = [
        ("a host with three addresses that stand together", three, &[], false),
        ("the last one as well", spread, &[], true),
        ("two at both ends", &[("10.0.0.0", 10), ("10.0.0.15", 10)], &[], false),
        ("nodes had an address before it began", spread, &[("10.0.0.8", 9)], true),
        ("nodes got one since", spread, &[("10.0.0.8", 11)], false),
        ("nodes got one in the same second", spread, &[("10.0.0.8", 10)], false),
        ("what it answers for is no evidence against it", spread, &[("10.0.0.15", 11)], true),
        ("one question of very many had no answer", &many, &[("10.0.0.7", 11)], true),
        ("in another pool, nodes got one", spread, &[("10.0.1.0", 11)], true),
        ("of the other family, nodes got one", spread, &[("fd00::", 11)], true),
    ];
    for (case, answers, silent, expected) in table {
        let home = pool("home", &["10.0.0.0/28", "fd00::/126"]);
        let mut bench = Bench::with([home, pool("other", &["10.0.1.0/30"])]);
        for (address, asked) in silent {
            bench.allocator.set_asked(ip(address), Some(*asked));
        }
        answered(&mut bench, "machine", answers);
        let (last, _) = answers[answers.len() - 1];
        assert_eq!(bench.allocator.answers_everywhere(ip(last)), expected, "{case}");
    }
}

#[test]
fn a_machine_with_some_addresses_of_a_pool_keeps_nobody_from_the_others() {
    // Another balancer, a host with static addresses, a range of DHCP.
    for count in [3, 4, 9, 15] {
        let mut bench = Bench::with([pool("home", &["10.0.0.0/28"])]);
        bench.give("a", &V4);
        for step in 0..20 {
            let held = bench.held("a").remove(0);
            let number: u8 = held.rsplit('.').next().unwrap().parse().unwrap();
            if number >= count {
                break;
            }
            answered(&mut bench, "machine", &[(&held, step)]);
            bench.carry_out("a", &V4, Grace::Lasts);
        }
        assert_eq!(bench.held("a"), ["10.0.0.15"], "{count}");
    }
}

#[test]
fn whoever_has_to_leave_does_so_whether_or_not_a_stranger_answers() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0"])]);
    bench.give("a", &shared("k", 80));
    bench.give("b", &shared("k", 81));
    bench
        .allocator
        .reserve(ip("10.0.0.0"), Reservation::Quarantined("02:00:00:00:00:09".to_owned()));
    assert_eq!(bench.carry_out("b", &shared("k", 80), Grace::Lasts), [""; 0]);
}

fn shared(key: &str, port: u16) -> Ask {
    V4.sharing(key, Backend::Anywhere, &[port])
}

#[test]
fn who_shares_with_whom() {
    let local = |app: &str| Backend::Local(Labels::from([("app".into(), app.into())]));
    let first = || V4.sharing("k", Backend::Anywhere, &[80]);
    let first_local = || V4.sharing("k", local("a"), &[80]);
    let (joins, alone) = ("10.0.0.0", "10.0.0.1");
    let table = [
        ("same key, other port", first(), shared("k", 443), joins),
        ("same key, same port", first(), shared("k", 80), alone),
        ("other key", first(), shared("l", 443), alone),
        ("no key", first(), V4, alone),
        ("with somebody who has no key", V4, shared("k", 443), alone),
        ("Cluster and Local", first(), V4.sharing("k", local("a"), &[443]), alone),
        ("Local, same selector", first_local(), V4.sharing("k", local("a"), &[443]), joins),
        ("Local, other selector", first_local(), V4.sharing("k", local("b"), &[443]), alone),
        (
            "ours: Local without a selector shares with nobody: its endpoints are its own",
            first(),
            V4.sharing("k", Backend::Local(Labels::new()), &[443]),
            alone,
        ),
    ];
    for (row, one, other, expected) in table {
        let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
        bench.give("one", &one);
        assert_eq!(bench.give("other", &other), [expected], "{row}");
        assert_eq!(bench.plan("other", &other, Grace::Lasts).add, [], "{row}: and stays");
    }
}

#[test]
fn sharers_fill_an_address_before_they_take_another_one() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/24"])]);
    bench.give("stranger", &V4);
    for (port, expected) in [(80, "10.0.0.1"), (80, "10.0.0.2"), (80, "10.0.0.3")] {
        assert_eq!(bench.give(expected, &shared("k", port)), [expected]);
    }
    bench.allocator.release(&Owner::from("stranger"), ip("10.0.0.0"));
    assert_eq!(bench.give("a", &shared("k", 443)), ["10.0.0.1"]);
    assert_eq!(bench.give("b", &V4.sharing("k", Backend::Anywhere, &[443, 444])), ["10.0.0.2"]);
    assert_eq!(bench.give("c", &V4.sharing("k", Backend::Anywhere, &[444, 445])), ["10.0.0.1"]);
    assert_eq!(bench.give("d", &V4.sharing("k", Backend::Anywhere, &[80, 445])), ["10.0.0.0"]);
}

#[test]
fn whoever_changes_its_terms_is_the_one_to_leave() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    bench.give("shop/one", &shared("k", 80));
    bench.give("shop/other", &shared("k", 443));
    let changed = shared("k", 443);
    let one = Owner::from("shop/one");
    let refused = bench.allocator.claim(&one, ip("10.0.0.0"), changed.request().sharing.into());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "it is in use by shop/other, which listens on TCP/443 too: choose another port"
    );
    let plan = bench.plan("shop/one", &changed, Grace::Lasts);
    assert!(matches!(plan.leaving[..], [arpeggio_ipam::Leaving { why: Misfit::Clash(_), .. }]));
    assert_eq!(bench.plan("shop/other", &shared("k", 443), Grace::Lasts).leaving, []);
    assert_eq!(bench.carry_out("shop/one", &changed, Grace::Lasts), ["10.0.0.1"]);

    // Alone on its address, it may change what it likes.
    bench.allocator.claim(&one, ip("10.0.0.1"), shared("l", 1).request().sharing.into()).unwrap();
    assert_eq!(bench.give("shop/one", &shared("l", 1)), ["10.0.0.1"]);
}

#[test]
fn of_those_on_record_the_one_that_changed_is_to_leave_else_the_later_one() {
    let (a, b, c) = (Owner::from("a"), Owner::from("b"), Owner::from("c"));
    let at = ip("10.0.0.0");
    let clashes = |bench: &Bench| {
        let clash = |owner: &str| bench.allocator.parting(&owner.into(), at);
        ["a", "b", "c"].map(|owner| clash(owner).map(|clash| clash.with.to_string()))
    };
    let with = |owner: &Owner| Some(owner.to_string());
    let table = [
        ("agreed", [shared("k", 1), shared("k", 2), shared("k", 3)], [None, None, None]),
        ("one", [shared("l", 1), shared("k", 2), shared("k", 3)], [with(&c), None, None]),
        (
            "all but one",
            [shared("l", 1), shared("l", 2), shared("k", 3)],
            [with(&c), with(&c), None],
        ),
        ("all", [shared("l", 1), shared("l", 2), shared("l", 3)], [None, None, None]),
        ("a port", [shared("l", 1), shared("l", 3), shared("l", 3)], [None, with(&c), None]),
        ("a port of two", [shared("l", 1), shared("l", 1), shared("l", 3)], [None, with(&a), None]),
        ("the first", [shared("l", 1), shared("l", 2), shared("l", 1)], [None, None, with(&a)]),
    ];
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    for (what, [of_a, of_b, of_c], expected) in table {
        let terms = |ask: &Ask| ask.request().sharing.into();
        // The names say nothing of who came first.
        let record =
            || [(c.clone(), terms(&of_c)), (a.clone(), terms(&of_a)), (b.clone(), terms(&of_b))];
        assert!(bench.allocator.recall_all(at, record()), "{what}");
        assert!(!bench.allocator.recall_all(at, record()), "{what}: it is no news");
        assert_eq!(clashes(&bench), expected, "{what}");
        assert_eq!(bench.held("b"), ["10.0.0.0"], "{what}");
    }
    // Nobody remembers what was before.
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    let terms = |ask: &Ask| ask.request().sharing.into();
    assert!(
        bench
            .allocator
            .recall_all(at, [(c.clone(), terms(&shared("k", 1))), (a, terms(&shared("k", 1)))])
    );
    assert_eq!(clashes(&bench)[0], with(&c));
    // Who shares with nobody any more is parting, too, and nobody joins meanwhile.
    bench.allocator.recall_all(at, [(c.clone(), terms(&shared("k", 1))), (b, terms(&V4))]);
    assert_eq!(clashes(&bench)[1], with(&c));
    assert_eq!(bench.held("b"), ["10.0.0.0"]);
    assert_eq!(bench.give("d", &shared("k", 7)), ["10.0.0.1"]);
}

#[test]
fn one_address_of_each_family_is_enough() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    bench.give("s", &V4);
    bench.allocator.claim(&"s".into(), ip("10.0.0.2"), arpeggio_ipam::SharingTerms::Alone).unwrap();
    let plan = bench.plan("s", &V4, Grace::Lasts);
    assert_eq!(plan.keep, [ip("10.0.0.0")]);
    assert!(matches!(plan.leaving[0].why, Misfit::Unwanted(Unwanted::Surplus(_))));
}

/// A Service of a namespace that shares with this key.
fn shared_in(namespace: &str, port: u16) -> Ask {
    let mut ask = shared("k", port);
    namespace.clone_into(&mut ask.sharing.as_mut().unwrap().namespace);
    ask
}

#[test]
fn an_address_is_shared_within_a_namespace_unless_the_pool_says_otherwise() {
    let cluster =
        |sharing| Pool { sharing, ..Pool::parse("home".into(), &["10.0.0.0/30"]).unwrap() };
    let (near, far) = (SharingScope::Namespace, SharingScope::Cluster);
    for (scope, expected) in [(near, "10.0.0.1"), (far, "10.0.0.0")] {
        let mut bench = Bench::with([cluster(scope)]);
        bench.give("a/one", &shared_in("a", 443));
        assert_eq!(bench.give("b/two", &shared_in("b", 80)), [expected], "{scope:?}");
        assert_eq!(bench.give("a/three", &shared_in("a", 81)), ["10.0.0.0"], "{scope:?}");
    }
}

#[test]
fn who_shares_across_namespaces_already_stays_and_nobody_else_comes() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    let both = [("a/one", "a", 443), ("b/two", "b", 80)].map(|(name, namespace, port)| {
        (Owner::from(name), shared_in(namespace, port).request().sharing.into())
    });
    bench.allocator.recall_all(ip("10.0.0.0"), both);
    for (name, namespace, port) in [("a/one", "a", 443), ("b/two", "b", 80)] {
        assert_eq!(bench.plan(name, &shared_in(namespace, port), Grace::Lasts).keep.len(), 1);
    }
    assert_eq!(bench.give("b/three", &shared_in("b", 81)), ["10.0.0.1"]);
}

#[test]
fn who_asks_for_the_address_of_another_namespace_learns_nothing() {
    let mut bench = Bench::with([pool("home", &["10.0.0.0/30"])]);
    bench.give("a/secret", &shared_in("a", 443));
    let expected =
        "10.0.0.0 cannot be given: a Service of another namespace has it: request another one";
    for (namespace, key, port) in [("b", "k", 80), ("b", "k", 443), ("b", "guess", 80)] {
        let mut ask = shared_in(namespace, port).at(&["10.0.0.0"]);
        ask.sharing.as_mut().unwrap().key = key.into();
        assert_eq!(bench.refusal("b/curious", &ask), expected);
    }
    assert_eq!(bench.refusal("b/curious", &V4.at(&["10.0.0.0"])), expected);
    let neighbour = bench.refusal("a/neighbour", &shared_in("a", 443).at(&["10.0.0.0"]));
    assert!(
        neighbour.contains("of this namespace") && neighbour.contains("TCP/443"),
        "{neighbour}"
    );
}
