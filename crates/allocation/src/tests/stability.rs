//! What happens to addresses that Services have, when requests, pools and sharers change.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec},
    service::{ADDRESS_EXPIRING, ADDRESS_RELEASING},
};

use super::*;

const POOL: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";
const KEY: &str = "arpeggio.dev/sharing-key";
const OTHER: (&str, &[&str]) = ("other", &["10.1.0.1"]);

#[test]
fn a_changed_request_gets_its_new_address_before_the_old_one_is_given_up() {
    let mut lab = Lab::with_pools(&[HOME, OTHER]);
    lab.cluster.create_service("web", &[(POOL, "home")]);
    lab.settle();
    lab.writes.clear();
    lab.cluster.annotate("web", POOL, "other");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.1.0.1"]);
    assert_eq!(lab.writes, ["claim", "service", "release", "service"]);
    assert_eq!(
        lab.last_note(),
        "Assigned 10.1.0.1 from pool other instead of 10.0.0.1: the Service asks for another pool than \"home\""
    );
    assert_eq!(lab.locks(), ["address-10.1.0.1"]);
    assert_eq!(lab.record("web").condition(ADDRESS_RELEASING), None);
}

#[test]
fn a_changed_request_that_cannot_be_met_costs_nothing() {
    let mut lab = Lab::with_pools(&[HOME, OTHER]);
    lab.create("other");
    lab.cluster.create_service("web", &[(POOL, "home")]);
    lab.settle();
    for (key, value, expected) in [
        (
            POOL,
            "none",
            "pool \"none\": it does not exist: create it, or name another one in arpeggio.dev/address-pool",
        ),
        (ADDRESSES, "10.9.9.9", "10.9.9.9 cannot be given: no pool in use has it"),
        (
            ADDRESSES,
            "10.0.0.1",
            "10.0.0.1 cannot be given: another Service of this namespace has it",
        ),
        (ADDRESSES, "nonsense", "\"nonsense\""),
    ] {
        lab.cluster.annotate("web", POOL, "home");
        lab.cluster.annotate("web", key, value);
        lab.settle();
        lab.restart();
        assert_eq!(lab.addresses("web"), ["10.0.0.2"], "{value}");
        let said = lab.says("web");
        assert!(said.starts_with("False: ") && said.contains(expected), "{said}");
        assert!(said.ends_with("; 10.0.0.2 stays until then"), "{said}");
    }
}

#[test]
fn an_address_that_no_pool_allows_stays_for_the_grace_period_across_restarts() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.cluster.set_pool(OTHER.0, OTHER.1);
    lab.settle();
    let expiring = lab.record("web").condition(ADDRESS_EXPIRING).cloned().unwrap();
    assert!(expiring.message.starts_with("10.0.0.1: no pool in use has it"), "{expiring:?}");
    assert_eq!(lab.told.last().unwrap().reason, "AddressExpiring");

    lab.wait(Duration::from_mins(9));
    lab.restart();
    assert_eq!((lab.addresses("web"), lab.writes.len()), (vec!["10.0.0.1".to_owned()], 0));
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("web"), ["10.1.0.1"]);
    assert_eq!(lab.record("web").condition(ADDRESS_EXPIRING), None);
    assert!(lab.last_note().starts_with("Assigned 10.1.0.1 from pool other instead of 10.0.0.1"));
}

#[test]
fn without_another_address_the_grace_period_ends_all_the_same() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.wait(cluster::GRACE);
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
    assert_eq!(
        lab.says("web"),
        "False: there are no pools: create one, or have MetalLB's read (manifests/components/metallb)"
    );
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated", "AddressExpiring", "ClearAssignment", "AllocationFailed"]);
}

#[test]
fn a_pool_that_comes_back_in_time_costs_nothing() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.wait(Duration::from_mins(9));
    lab.cluster.set_pool(HOME.0, HOME.1);
    lab.settle();
    lab.wait(cluster::GRACE);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.record("web").condition(ADDRESS_EXPIRING), None);
}

#[test]
fn a_pool_that_is_broken_by_mistake_costs_nothing_at_all() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.set_pool("home", &["10.0.0.1/24"]);
    lab.settle();
    lab.restart();
    lab.wait(cluster::GRACE * 2);
    assert_eq!((lab.addresses("web"), lab.writes.len()), (vec!["10.0.0.1".to_owned()], 0));
}

#[test]
fn a_pool_that_cannot_be_decoded_may_still_have_the_address() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.controller.index.set_undecodable_pools(true);
    lab.cluster.delete_pool("home");
    lab.wait(cluster::GRACE * 2);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.controller.index.set_undecodable_pools(false);
    lab.settle();
    lab.wait(cluster::GRACE);
    assert_eq!(lab.addresses("web"), [""; 0]);
}

#[test]
fn without_a_grace_period_the_address_is_replaced_at_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.cluster.set_pool(OTHER.0, OTHER.1);
    let periods = Periods { grace: Duration::ZERO, ..cluster::PERIODS };
    lab.controller = Controller::restarted(Index::new(None, periods), &lab.cluster);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.1.0.1"]);
}

#[test]
fn an_address_that_was_given_back_rests_before_somebody_else_gets_it() {
    let mut lab = Lab::with_pools(&[]);
    let addresses = vec![AddressItem("10.0.0.1".to_owned())];
    let spec = AddressPoolSpec { addresses, reuse_cool_down_seconds: 90, ..Default::default() };
    lab.cluster.set_pool_spec("home", spec);
    lab.create("first");
    lab.cluster.delete_service("first");
    lab.create("second");
    lab.restart();
    assert_eq!(lab.addresses("second"), [""; 0]);
    assert!(lab.says("second").contains("in use, reserved or excluded"), "{}", lab.says("second"));
    lab.wait(Duration::from_secs(89));
    assert_eq!(lab.addresses("second"), [""; 0]);
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.addresses("second"), ["10.0.0.1"]);
}

#[test]
fn sharers_are_all_on_the_lock_and_the_last_one_deletes_it() {
    let mut lab = Lab::with_pools(&[HOME]);
    for (name, port) in [("a", 80), ("b", 443), ("c", 80)] {
        lab.cluster.create_service(name, &[(KEY, "k")]);
        lab.cluster.set_port(name, port);
        lab.settle();
    }
    assert_eq!((lab.addresses("a"), lab.addresses("b")), (lab.addresses("b"), lab.addresses("a")));
    assert_eq!(lab.addresses("c"), ["10.0.0.2"]);
    assert_eq!(lab.sharers("10.0.0.1"), ["a", "b"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);

    lab.cluster.delete_service("a");
    lab.settle();
    assert_eq!(
        (lab.addresses("b"), lab.sharers("10.0.0.1")),
        (vec!["10.0.0.1".into()], vec!["b".into()])
    );
    lab.cluster.delete_service("b");
    lab.settle();
    assert_eq!(lab.locks(), ["address-10.0.0.2"]);
}

#[test]
fn who_changes_its_port_to_that_of_another_sharer_moves_and_the_other_stays() {
    let mut lab = Lab::with_pools(&[HOME]);
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service(name, &[(KEY, "k")]);
        lab.cluster.set_port(name, port);
        lab.settle();
    }
    lab.cluster.set_port("a", 443);
    lab.settle();
    assert_eq!(
        (lab.addresses("a"), lab.addresses("b")),
        (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()])
    );
    assert!(
        lab.last_note().ends_with(
            "it is in use by default/b, which listens on TCP/443 too: choose another port"
        )
    );
}

#[test]
fn sharers_whose_locks_were_all_deleted_by_hand_find_together_again() {
    let mut lab = Lab::with_pools(&[HOME]);
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service(name, &[(KEY, "k")]);
        lab.cluster.set_port(name, port);
        lab.settle();
    }
    lab.cluster.delete_lease("address-10.0.0.1");
    lab.restart();
    assert_eq!((lab.addresses("a"), lab.addresses("b")), (lab.addresses("b"), lab.addresses("a")));
    assert_eq!(lab.sharers("10.0.0.1"), ["a", "b"]);
}

#[test]
fn a_lock_that_is_damaged_by_hand_is_written_anew_and_nobody_loses_its_address() {
    for (restart, damage) in
        [(false, "oops"), (true, "oops"), (false, "default/a/uid-a,oops"), (true, "oops,")]
    {
        let mut lab = Lab::with_pools(&[HOME]);
        for (name, port) in [("a", 80), ("b", 443)] {
            lab.cluster.create_service(name, &[(KEY, "k")]);
            lab.cluster.set_port(name, port);
            lab.settle();
        }
        lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/services", damage);
        if restart {
            lab.restart();
        }
        lab.create("late");
        let mut sharers = lab.sharers("10.0.0.1");
        sharers.sort();
        assert_eq!(sharers, ["a", "b"], "{damage}");
        assert_eq!(lab.addresses("a"), ["10.0.0.1"], "{damage}");
        assert_eq!(lab.addresses("b"), ["10.0.0.1"], "{damage}");
        assert_eq!(lab.addresses("late"), ["10.0.0.2"], "{damage}");
    }
}

#[test]
fn a_damaged_lock_that_nobody_needs_is_removed() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/services", "oops");
    lab.cluster.delete_service("web");
    lab.settle();
    assert_eq!(lab.locks(), [""; 0]);

    lab.create("web");
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/resting-until", "tomorrow");
    lab.settle();
    assert_eq!(lab.sharers("10.0.0.1"), ["web"]);
    assert_eq!(lab.writes.last(), Some(&"amend"), "once, and then all is well");
}

#[test]
fn an_address_for_each_family_costs_three_writes() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1", "fd00::1"])]);
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_cluster_addresses("web", &["10.96.0.1", "fd96::1"]);
    lab.cluster.require_dual_stack("web");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1", "fd00::1"]);
    assert_eq!(lab.writes, ["claim", "claim", "service"]);
}

#[test]
fn of_many_who_need_both_families_each_has_both_or_nothing() {
    const FIRST: [[&str; 2]; 2] = [["10.96.0.1", "fd96::1"], ["fd96::1", "10.96.0.1"]];
    for scarce in [["10.0.0.1-10.0.0.9", "fd00::1"], ["10.0.0.1", "fd00::1-fd00::9"]] {
        for orders in [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]] {
            let mut lab = Lab::with_pools(&[("home", &scarce)]);
            let names = ["a", "b", "c"];
            for (name, order) in names.into_iter().zip(orders) {
                lab.cluster.create_service(name, &[]);
                lab.cluster.set_cluster_addresses(name, &FIRST[order]);
                lab.cluster.require_dual_stack(name);
            }
            lab.settle();
            let mut counts = names.map(|name| lab.addresses(name).len());
            counts.sort_unstable();
            assert_eq!((counts, lab.locks().len()), ([0, 0, 2], 2), "{scarce:?} {orders:?}");
            lab.restart();
            assert_eq!(lab.writes, [""; 0], "{scarce:?} {orders:?}");
        }
    }
}

#[test]
fn the_address_of_the_first_family_comes_first() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1", "fd00::1"])]);
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_cluster_addresses("web", &["fd96::1", "10.96.0.1"]);
    lab.cluster.require_dual_stack("web");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["fd00::1", "10.0.0.1"]);
    lab.restart();
    assert_eq!(lab.addresses("web"), ["fd00::1", "10.0.0.1"]);
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn a_slip_of_the_pen_in_a_pool_stops_neither_old_services_nor_new_ones() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.0/28"])]);
    lab.create("old");
    lab.cluster.set_pool("home", &["10.0.0.0/99"]);
    lab.settle();
    lab.create("new");
    assert_eq!(lab.addresses("old"), ["10.0.0.0"]);
    assert_eq!(lab.addresses("new"), ["10.0.0.1"]);
    for task in lab.controller.index.decide_pools(&cluster::now()) {
        lab.cluster.perform_at_once(task);
    }
    let said = &lab.cluster.pools().next().unwrap().status.as_ref().unwrap().conditions[0];
    assert_eq!((said.type_.as_str(), said.status.as_str()), ("Ready", "False"));
    assert!(said.message.contains("stays in force"), "{}", said.message);
    lab.cluster.set_pool("home", &["10.0.1.0/28"]);
    lab.settle();
    lab.create("newer");
    assert_eq!(lab.addresses("newer"), ["10.0.1.0"]);
}

#[test]
fn a_pool_that_is_extended_over_another_one_disables_only_its_own_change() {
    for restarts in [false, true] {
        let mut lab = Lab::with_pools(&[("a", &["10.0.0.1-10.0.0.9"]), ("b", &["10.0.1.1"])]);
        let asks_for_b = [("arpeggio.dev/address-pool", "b")];
        lab.cluster.create_service("old", &asks_for_b);
        lab.settle();
        lab.cluster.set_pool("a", &["10.0.0.1-10.0.1.9"]);
        if restarts {
            lab.restart();
        }
        lab.wait(cluster::GRACE * 2);
        assert_eq!(lab.addresses("old"), ["10.0.1.1"]);
        assert!(lab.says("old").starts_with("True"), "{}", lab.says("old"));
        lab.create("of-a");
        assert_eq!(lab.addresses("of-a"), ["10.0.0.1"]);
        lab.cluster.delete_service("old");
        lab.settle();
        lab.cluster.create_service("new", &asks_for_b);
        lab.settle();
        assert_eq!(lab.addresses("new"), ["10.0.1.1"]);
        lab.pool_statuses();
        let said = |name: &str| {
            let pool = lab.cluster.pools().find(|it| it.name_any() == name).unwrap();
            pool.status.as_ref().unwrap().conditions[0].clone()
        };
        assert_eq!((said("a").reason, said("b").reason), ("Overlapping".into(), "Valid".into()));
        assert!(said("a").message.contains("stays in force"), "{}", said("a").message);
        lab.cluster.set_pool("b", &["10.0.2.1"]);
        lab.settle();
        lab.cluster.create_service("more", &[("arpeggio.dev/addresses", "10.0.1.2")]);
        lab.settle();
        assert_eq!(lab.addresses("more"), ["10.0.1.2"]);
    }
}

#[test]
fn nobody_waits_until_two_clocks_agree() {
    for (ahead, told_at_once) in [(3, false), (3600, true)] {
        let mut lab = Lab::with_pools(&[]);
        lab.cluster.create_service("web", &[("arpeggio.dev/address-pool", "none")]);
        lab.cluster.set_created("web", ahead);
        lab.settle();
        assert_eq!(!lab.told.is_empty(), told_at_once, "{ahead}");
        lab.wait(Duration::from_secs(8));
        assert_eq!(lab.told.len(), 1, "{ahead}");
    }
}

#[test]
fn a_service_that_comes_just_before_its_pool_is_warned_of_nothing() {
    for comes in [true, false] {
        let mut lab = Lab::with_pools(&[]);
        lab.cluster.create_service("web", &[("arpeggio.dev/address-pool", "late")]);
        lab.cluster.set_created("web", 0);
        lab.settle();
        lab.wait(Duration::from_secs(4));
        assert_eq!((lab.writes.len(), lab.told.len()), (0, 0));
        if comes {
            lab.cluster.set_pool("late", &["10.0.0.1"]);
        }
        lab.wait(Duration::from_secs(1));
        let warned = lab.told.iter().any(|news| news.reason == "AllocationFailed");
        assert_eq!((lab.addresses("web").len(), warned), (usize::from(comes), !comes));
    }
}

/// Who came later asks for one address only, and is done with it before the first has its other one.
#[test]
fn who_needs_an_address_of_each_family_and_has_waited_longest_gets_both() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("both", &[]);
    lab.cluster.set_cluster_addresses("both", &["10.96.0.1", "fd00:96::1"]);
    lab.cluster.require_dual_stack("both");
    lab.settle();
    lab.seconds(10);
    lab.cluster.create_service("later", &[]);
    lab.cluster.set_cluster_addresses("later", &["fd00:96::2"]);
    lab.settle();
    assert_eq!((lab.addresses("both"), lab.addresses("later")), (vec![], vec![]));
    lab.writes.clear();
    lab.cluster.set_pool("home", &[HOME.1[0], "fd00::1"]);
    lab.settle();
    assert_eq!(lab.addresses("both"), ["10.0.0.1", "fd00::1"]);
    assert_eq!(lab.addresses("later"), [""; 0]);
    assert_eq!((lab.count("claim"), lab.count("release")), (2, 0), "{:?}", lab.writes);
    lab.cluster.delete_service("both");
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("later"), ["fd00::1"]);
}
