//! What other programs and people do to Services, pools and namespaces, one after the other.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, AddressPoolStatus, Allocation, FamilyUsage},
    selector::LabelSelector,
    service::{ADDRESS_ALLOCATED, ADDRESS_EXPIRING, ANNOUNCED, STATUS_CONTESTED},
};

use super::*;

/// What another program does to the status of a Service, again and again.
type Meddling = (&'static str, fn(&mut Cluster, u64));

const RIVAL: &str = "rival";

const MEDDLING: [Meddling; 16] = [
    ("clears all", |it, _| it.clear_status("web", RIVAL)),
    ("lists another address", |it, _| it.set_ingress("web", "203.0.113.9", RIVAL)),
    ("lists another address each time", |it, round| {
        it.set_ingress("web", &format!("203.0.113.{round}"), RIVAL);
    }),
    ("adds an address", |it, _| it.set_ingresses("web", &["10.0.0.1", "203.0.113.9"], RIVAL)),
    ("adds one of a pool", |it, _| it.set_ingresses("web", &["10.0.0.1", "10.0.0.2"], RIVAL)),
    ("lists one twice", |it, _| it.set_ingresses("web", &["10.0.0.1", "10.0.0.1"], RIVAL)),
    ("another of the pool", |it, round| {
        it.set_ingress("web", if round % 2 == 0 { "10.0.0.2" } else { "10.0.0.1" }, RIVAL);
    }),
    ("empties the list", |it, _| it.set_ingresses("web", &[], RIVAL)),
    ("ipMode Proxy", |it, _| it.set_ip_mode("web", "Proxy", RIVAL)),
    ("a name instead", |it, _| it.set_hostname("web", None, "lb.example", RIVAL)),
    ("a name beside the address", |it, _| {
        it.set_hostname("web", Some("10.0.0.1"), "lb.example", RIVAL);
    }),
    ("says that it has none", |it, round| {
        it.set_condition("web", ADDRESS_ALLOCATED, &format!("no pool of mine, {round}"), RIVAL);
    }),
    ("takes all conditions away", |it, _| it.remove_conditions("web")),
    ("renounces the address", |it, _| it.annotate("web", "arpeggio.dev/releasing", "10.0.0.1")),
    ("renounces another", |it, _| it.annotate("web", "arpeggio.dev/releasing", "10.0.0.2")),
    ("renounces all", |it, _| it.annotate("web", "arpeggio.dev/releasing", "10.0.0.1,10.0.0.2")),
];

#[test]
fn two_kinds_of_meddling_by_turns_cost_a_bounded_number_of_writes_a_minute() {
    for (number, (first, one)) in MEDDLING.into_iter().enumerate() {
        for (second, other) in MEDDLING.into_iter().skip(number + 1) {
            let mut lab = Lab::with_pools(&[HOME]);
            lab.create("web");
            for round in 0..120 {
                // The first minute has what may be written at once.
                if round == 60 {
                    lab.writes.clear();
                    lab.told.clear();
                }
                let meddle = if round % 2 == 0 { one } else { other };
                meddle(&mut lab.cluster, round);
                lab.seconds(1);
            }
            let what = format!("{first}, {second}: {:?}", lab.writes);
            assert!(lab.count("service") <= 32 && lab.writes.len() <= 96, "{what}");
            assert!(lab.told.len() <= 32, "{what}: {:?}", lab.told);
        }
    }
}

/// Slowly enough not to be held back by what may be written in a minute.
#[test]
fn two_kinds_of_meddling_that_go_on_for_long_cost_few_writes_a_minute() {
    const MINUTES: usize = 10;
    for (number, (first, one)) in MEDDLING.into_iter().enumerate() {
        for (second, other) in MEDDLING.into_iter().skip(number + 1) {
            let mut lab = Lab::with_pools(&[HOME]);
            lab.create("web");
            for round in 0..150 {
                // It has gone on for five minutes.
                if round == 50 {
                    lab.writes.clear();
                    lab.told.clear();
                }
                let meddle = if round % 2 == 0 { one } else { other };
                meddle(&mut lab.cluster, round);
                lab.seconds(6);
            }
            let what = format!("{first}, {second}: {:?}", lab.writes);
            assert!(lab.writes.len() <= 4 * MINUTES, "{what}");
            assert!(lab.told.len() <= MINUTES, "{what}: {:?}", lab.told);
        }
    }
}

#[test]
fn who_changes_a_status_in_ever_other_ways_is_named_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    for round in 0..240 {
        if round % 2 == 0 {
            lab.cluster.clear_status("web", RIVAL);
        } else {
            lab.cluster.set_ingress("web", "203.0.113.9", RIVAL);
        }
        lab.seconds(1);
    }
    let contests = lab.told.iter().filter(|it| it.reason == "RivalWriter");
    assert_eq!(contests.count(), 1);
    assert!(lab.told.iter().any(|it| it.note.contains("\"rival\" clears or overwrites")));
}

/// The watch shows what we have written before we hear that it was written, and who else wrote the list is not to be seen then.
#[test]
fn a_rival_has_the_same_name_in_event_and_condition_however_soon_the_watch_is() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    let mut said = Vec::new();
    for _ in 0..60 {
        lab.cluster.set_ingresses("web", &[], RIVAL);
        (0..3).for_each(|_| lab.round(|_| {}));
        let record = lab.record("web");
        said.extend(record.condition(STATUS_CONTESTED).map(|it| it.message.clone()));
        lab.time += Duration::from_secs(1);
    }
    let names_it = |it: &String| it.starts_with("\"rival\"");
    assert!(!said.is_empty() && said.iter().all(names_it), "{said:?}");
}

#[test]
fn whatever_another_program_does_to_a_status_writes_are_few() {
    for (what, meddle) in MEDDLING {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.create("web");
        lab.writes.clear();
        lab.told.clear();
        for round in 0..60 {
            meddle(&mut lab.cluster, round);
            lab.seconds(1);
        }
        let writes = lab.writes.len();
        assert!(writes <= 24, "{what}: {writes} writes: {:?}", lab.writes);
        assert!(lab.told.len() <= 8, "{what}: {:?}", lab.told);
        // The other program stops, and what it did last may stay or not, but nothing is written for ever.
        lab.seconds(700);
        lab.writes.clear();
        lab.seconds(60);
        assert_eq!(lab.writes, [""; 0], "{what}");
    }
}

#[test]
fn a_condition_that_another_program_takes_away_or_changes_costs_few_writes() {
    for type_ in [ADDRESS_ALLOCATED, ANNOUNCED] {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.create("web");
        lab.writes.clear();
        for _ in 0..60 {
            lab.cluster.remove_condition("web", type_);
            lab.seconds(1);
        }
        assert!(lab.count("service") <= 16, "{type_}: {}", lab.count("service"));
    }
}

#[test]
fn in_a_namespace_that_is_being_deleted_nothing_new_is_given_and_what_there_is_stays() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.controller.index.set_namespace("shop", Labels::new());
    lab.cluster.create_service_in("shop", "web", &[], 80);
    lab.settle();
    lab.cluster.create_service_in("shop", "waits", &[], 80);
    lab.settle();
    lab.controller.index.set_namespace_ends("shop", true);
    lab.cluster.set_pool("more", &["10.1.0.1"]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
    assert_eq!(lab.addresses("waits"), [""; 0]);
    let said = lab.says("waits");
    assert!(said.contains("the namespace of the Service is being deleted"), "{said}");
    // It has taken nothing from those who wait elsewhere.
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.1.0.1"]);
    // A Service that is created again, or one that asks for an address, gets nothing either.
    lab.cluster.create_service_in("shop", "asks", &[("arpeggio.dev/addresses", "10.1.0.1")], 80);
    lab.cluster.delete_service("other");
    lab.settle();
    assert_eq!(lab.addresses("asks"), [""; 0]);
    lab.writes.clear();
    lab.controller.index.forget_namespace("shop");
    for name in ["web", "waits", "asks"] {
        lab.cluster.delete_service(name);
    }
    lab.settle();
    assert_eq!(lab.locks(), [""; 0]);
    // A namespace of the same name that comes again is as good as any.
    lab.cluster.create_service_in("shop", "web", &[], 80);
    lab.settle();
    assert_eq!(lab.addresses("web"), [""; 0], "the namespace is not known yet");
    lab.controller.index.set_namespace("shop", Labels::new());
    lab.settle();
    assert_eq!(lab.addresses("web").len(), 1);
}

fn spec(addresses: &[&str]) -> AddressPoolSpec {
    let addresses = addresses.iter().map(|it| AddressItem((*it).to_owned())).collect();
    AddressPoolSpec { addresses, ..AddressPoolSpec::default() }
}

fn for_team(team: &str, addresses: &[&str]) -> AddressPoolSpec {
    let match_labels = [("team".to_owned(), team.to_owned())].into();
    let selector = LabelSelector { match_labels, ..LabelSelector::default() };
    let allocation = Allocation { namespace_selectors: vec![selector], ..Allocation::default() };
    AddressPoolSpec { allocation: Some(allocation), ..spec(addresses) }
}

/// What is done to the pools of addresses 10.0.0.1 to 10.0.0.4, of which two are held.
type Rearrangement = (&'static str, fn(&mut Lab));

const REARRANGEMENTS: [Rearrangement; 7] = [
    ("renamed, the new one first", |lab| {
        lab.cluster.set_pool("house", &["10.0.0.1-10.0.0.4"]);
        lab.settle();
        lab.cluster.delete_pool("home");
    }),
    ("renamed, the old one first", |lab| {
        lab.cluster.delete_pool("home");
        lab.settle();
        lab.seconds(3);
        lab.cluster.set_pool("house", &["10.0.0.1-10.0.0.4"]);
    }),
    ("split, the new one first", |lab| {
        lab.cluster.set_pool("second", &["10.0.0.2-10.0.0.4"]);
        lab.settle();
        lab.cluster.set_pool("home", &["10.0.0.1"]);
    }),
    ("split, the old one first", |lab| {
        lab.cluster.set_pool("home", &["10.0.0.1"]);
        lab.settle();
        lab.seconds(3);
        lab.cluster.set_pool("second", &["10.0.0.2-10.0.0.4"]);
    }),
    ("other spelling", |lab| lab.cluster.set_pool("home", &["10.0.0.1", "10.0.0.2 - 10.0.0.4"])),
    ("broken and mended", |lab| {
        lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.4x"]);
        lab.settle();
        lab.seconds(30);
        lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.4"]);
    }),
    ("deleted and made anew", |lab| {
        lab.cluster.delete_pool("home");
        lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.4"]);
    }),
];

#[test]
fn however_pools_are_rearranged_who_has_an_address_keeps_it() {
    for (what, rearrange) in REARRANGEMENTS {
        let mut lab = Lab::with_pools(&[("home", &["10.0.0.1-10.0.0.4"])]);
        lab.create("a");
        lab.create("b");
        lab.writes.clear();
        rearrange(&mut lab);
        lab.settle();
        lab.seconds(1200);
        for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            assert_eq!(lab.addresses(name), [address], "{what}");
            assert!(lab.record(name).condition(ADDRESS_EXPIRING).is_none(), "{what}");
        }
        // At most, for each of the two and on lock and status: it expires, and it does not.
        assert!(lab.writes.len() - lab.count("record") <= 8, "{what}: {:?}", lab.writes);
        lab.restart();
        assert_eq!(lab.count("service") + lab.count("join"), 0, "{what}");
        lab.create("c");
        assert_eq!(lab.addresses("c"), ["10.0.0.3"], "{what}");
    }
}

#[test]
fn a_label_of_a_namespace_that_comes_and_goes_moves_nobody_within_the_grace_period() {
    let mut lab = Lab::with_pools(&[("home", &["10.1.0.1"])]);
    let blue = || Labels::from([("team".to_owned(), "blue".to_owned())]);
    lab.cluster.set_pool_spec("blue", for_team("blue", &["10.0.0.1-10.0.0.4"]));
    lab.controller.index.set_namespace("shop", blue());
    lab.cluster.create_service_in("shop", "web", &[("arpeggio.dev/address-pool", "blue")], 80);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.writes.clear();
    for _ in 0..10 {
        lab.controller.index.set_namespace("shop", Labels::new());
        lab.seconds(5);
        lab.controller.index.set_namespace("shop", blue());
        lab.seconds(5);
    }
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_none());
    assert!(lab.writes.len() <= 50, "{:?}", lab.writes);
    // The namespace is not seen for a while: nothing is decided about who is in it.
    lab.writes.clear();
    lab.controller.index.forget_namespace("shop");
    lab.seconds(1200);
    assert_eq!((lab.addresses("web"), lab.writes.len()), (vec!["10.0.0.1".to_owned()], 0));
}

#[test]
fn sharers_whose_terms_change_part_and_the_first_one_stays() {
    let key = "arpeggio.dev/sharing-key";
    let changes: [Rearrangement; 4] = [
        ("the port", |lab| lab.cluster.set_port("second", 80)),
        ("the key", |lab| lab.cluster.annotate("second", "arpeggio.dev/sharing-key", "other")),
        ("no key", |lab| lab.cluster.annotate("second", "arpeggio.dev/sharing-key", " ")),
        ("the policy", |lab| lab.cluster.set_policy("second", "Local")),
    ];
    for (what, change) in changes {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.cluster.create_service_on("first", &[(key, "k")], 80);
        lab.settle();
        lab.cluster.create_service_on("second", &[(key, "k")], 443);
        lab.settle();
        assert_eq!(lab.addresses("second"), ["10.0.0.1"]);
        change(&mut lab);
        lab.settle();
        assert_eq!(lab.addresses("first"), ["10.0.0.1"], "{what}");
        assert_eq!(lab.addresses("second"), ["10.0.0.2"], "{what}");
        assert_eq!(lab.sharers("10.0.0.1"), ["first"], "{what}");
        lab.restart();
        assert_eq!(lab.writes, [""; 0], "{what}");
    }
}

#[test]
fn a_pool_that_goes_costs_who_waits_nothing() {
    let mut lab = Lab::with_pools(&[HOME, ("b", &["10.1.0.1"]), ("c", &["10.2.0.1"])]);
    lab.cluster
        .set_pool_spec("manual", AddressPoolSpec { auto_assign: false, ..spec(&["10.3.0.1"]) });
    lab.settle();
    for number in 0..44 {
        lab.create(&format!("s{number:02}"));
    }
    for pool in ["c", "manual"] {
        lab.writes.clear();
        lab.told.clear();
        lab.cluster.delete_pool(pool);
        lab.settle();
        let holders = usize::from(pool == "c");
        assert_eq!(lab.count("service"), holders, "{pool}");
        assert!(lab.told.len() <= holders, "{pool}: {:?}", lab.told);
        lab.restart();
        assert_eq!(lab.count("service"), 0, "{pool}, after a restart");
    }
    // The last ones that they could have had are gone: that is another reason.
    lab.cluster.delete_pool("home");
    lab.cluster.delete_pool("b");
    lab.settle();
    assert!(lab.says("s43").contains("there are no pools"), "{}", lab.says("s43"));
}

/// Changes of a Service's spec that its user makes, undoes and makes again.
type Toggle = (&'static str, fn(&mut Cluster), fn(&mut Cluster));

const TOGGLES: [Toggle; 5] = [
    ("the type", |it| it.set_type("web", "ClusterIP"), |it| it.set_type("web", "LoadBalancer")),
    ("the class", |it| it.set_class("web", Some("other")), |it| it.set_class("web", None)),
    ("the policy", |it| it.set_policy("web", "Local"), |it| it.set_policy("web", "Cluster")),
    (
        "the families",
        |it| it.set_cluster_addresses("web", &["10.96.0.1", "fd00:96::1"]),
        |it| it.set_cluster_addresses("web", &["10.96.0.1"]),
    ),
    (
        "the request",
        |it| it.annotate("web", "arpeggio.dev/addresses", "10.0.0.2"),
        |it| it.annotate("web", "arpeggio.dev/addresses", ""),
    ),
];

#[test]
fn what_a_user_changes_and_undoes_ends_where_it_began_and_costs_a_few_writes_each_time() {
    for (what, change, undo) in TOGGLES {
        let mut lab = Lab::with_pools(&[("home", &["10.0.0.1-10.0.0.2", "fd00::1-fd00::2"])]);
        lab.cluster.create_service("web", &[]);
        lab.cluster.set_cluster_addresses("web", &["10.96.0.1"]);
        lab.settle();
        for _ in 0..5 {
            lab.writes.clear();
            change(&mut lab.cluster);
            lab.seconds(20);
            undo(&mut lab.cluster);
            lab.seconds(20);
            assert!(lab.writes.len() <= 10, "{what}: {:?}", lab.writes);
            let addresses = lab.addresses("web");
            assert_eq!(addresses.len(), 1, "{what}");
            assert_eq!(lab.locks(), [format!("address-{}", addresses[0])], "{what}");
            assert_eq!(lab.says("web"), format!("True: {} assigned", addresses[0]), "{what}");
        }
        assert!(
            !lab.told.iter().any(|it| it.reason == "RivalWriter"),
            "{what}: nobody else writes"
        );
        lab.restart();
        assert_eq!(lab.writes, [""; 0], "{what}");
    }
}

#[test]
fn a_status_with_our_address_under_another_class_loses_the_lock_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.writes.clear();
    lab.cluster.set_class("web", Some("other"));
    // The other load balancer is faster than we are.
    lab.cluster.set_ingress("web", "10.0.0.1", "other");
    lab.settle();
    lab.seconds(60);
    assert!(lab.writes.len() <= 4, "{:?}", lab.writes);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn namespaces_listed_anew_end_what_goes_on_no_more() {
    let mut lab = Lab::with_pools(&[HOME]);
    let listed = |ends: bool| {
        let mut meta =
            kube::core::PartialObjectMeta::<k8s_openapi::api::core::v1::Namespace>::default();
        meta.metadata.name = Some("default".to_owned());
        meta.metadata.deletion_timestamp = ends.then(cluster::now);
        meta
    };
    lab.controller.index.reset(vec![listed(true)]);
    lab.create("web");
    assert!(lab.says("web").contains("namespace of the Service is being deleted"));
    lab.controller.index.reset(vec![listed(false)]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.controller.index.apply(listed(true));
    lab.create("late");
    assert_eq!(lab.addresses("late"), [""; 0]);
    lab.controller.index.delete(listed(true));
    lab.controller.index.apply(listed(false));
    lab.settle();
    assert_eq!(lab.addresses("late"), ["10.0.0.2"]);
}

#[test]
fn what_another_program_does_to_the_status_of_a_pool_costs_few_writes() {
    let meddling: [Meddling; 3] = [
        ("clears it", |it, _| it.set_pool_status("home", None)),
        ("counts otherwise", |it, round| {
            let used = i64::try_from(round).unwrap();
            let ipv4 = Some(FamilyUsage { total: 9, used, reserved: 0, free: 0 });
            it.set_pool_status(
                "home",
                Some(AddressPoolStatus { ipv4, ..AddressPoolStatus::default() }),
            );
        }),
        ("empties it", |it, _| it.set_pool_status("home", Some(AddressPoolStatus::default()))),
    ];
    for (what, meddle) in meddling {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.pool_statuses();
        lab.writes.clear();
        for round in 0..120 {
            meddle(&mut lab.cluster, round);
            lab.seconds(1);
            lab.pool_statuses();
        }
        assert!(lab.count("pool") <= 45, "{what}: {}", lab.count("pool"));
        // What it says of itself is told at once, all the same.
        lab.seconds(700);
        lab.pool_statuses();
        lab.create("web");
        lab.pool_statuses();
        let status = lab.cluster.pools().next().unwrap().status.clone().unwrap();
        assert_eq!(status.ipv4.unwrap().used, 1, "{what}");
    }
}

#[test]
fn what_another_program_does_to_a_lock_costs_few_writes() {
    let lock = "address-10.0.0.1";
    let keys = ["announce", "services", "pool", "claimed-for", "format", "spread"];
    for key in keys {
        for value in ["", "?", "[]", "null"] {
            let mut lab = Lab::with_pools(&[HOME]);
            lab.create("web");
            lab.writes.clear();
            for _ in 0..120 {
                if lab.cluster.leases().next().is_some() {
                    lab.cluster.damage_lease(lock, &format!("arpeggio.dev/{key}"), value);
                }
                lab.seconds(1);
            }
            assert!(lab.writes.len() <= 90, "{key}={value}: {}", lab.writes.len());
        }
    }
}
