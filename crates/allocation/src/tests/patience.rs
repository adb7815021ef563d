//! Pools that are missing for a moment.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation},
    service::ADDRESS_EXPIRING,
};

use super::*;

/// A lab in which nobody is told at once that a pool is missing.
fn patient(pools: &[(&str, &[&str])]) -> Lab {
    let mut lab = Lab::with_pools(pools);
    lab.periods = Periods { patience: Duration::from_secs(5), ..cluster::PERIODS };
    lab.restart();
    lab
}

#[test]
fn a_pool_that_is_replaced_within_seconds_costs_its_services_nothing() {
    for restarts in [false, true] {
        let mut lab = patient(&[HOME]);
        lab.create("web");
        lab.cluster.set_cluster_addresses("web", &["10.96.0.1"]);
        lab.settle();
        lab.writes.clear();
        lab.told.clear();
        for _ in 0..3 {
            lab.cluster.delete_pool("home");
            lab.settle();
            lab.seconds(4);
            if restarts {
                lab.restart();
            }
            lab.cluster.set_pool(HOME.0, HOME.1);
            lab.settle();
            lab.seconds(1);
        }
        assert_eq!((lab.count("service"), lab.count("amend"), &*lab.told), (0, 0, &[][..]));
        assert_eq!(lab.controller.index.lacking.len(), 0);
        lab.cluster.delete_pool("home");
        lab.seconds(5);
        assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_none());
        lab.seconds(1);
        assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_some(), "it lasts");
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
        lab.wait(cluster::GRACE);
        assert_eq!(lab.addresses("web"), [""; 0]);
    }
}

#[test]
fn a_service_that_is_changed_just_before_its_pool_comes_is_warned_of_nothing() {
    let key = "arpeggio.dev/address-pool";
    let mut lab = patient(&[HOME]);
    lab.create("web");
    lab.cluster.create_service("inside", &[(key, "late")]);
    lab.cluster.set_type("inside", "ClusterIP");
    lab.settle();
    lab.told.clear();
    lab.cluster.annotate("web", key, "late");
    lab.cluster.set_type("inside", "LoadBalancer");
    lab.settle();
    lab.seconds(3);
    assert_eq!((&*lab.told, lab.addresses("web")), (&[][..], vec!["10.0.0.1".to_owned()]));
    lab.cluster.set_pool("late", &["10.0.9.1-10.0.9.2"]);
    lab.settle();
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated", "IPAllocated"]);
    lab.cluster.annotate("web", key, "never");
    lab.settle();
    lab.seconds(4);
    assert!(lab.says("web").starts_with("True"), "{}", lab.says("web"));
    lab.seconds(1);
    assert!(lab.says("web").contains("\"never\": it does not exist"), "{}", lab.says("web"));
}

#[test]
fn while_the_api_server_refuses_to_write_that_an_address_expires_nothing_goes_to_and_fro() {
    let mut lab = patient(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.cluster.refuses = Some("patch Lease");
    lab.seconds(30);
    assert!(lab.says("web").contains("refused"), "{}", lab.says("web"));
    lab.writes.clear();
    lab.seconds(120);
    assert_eq!(lab.count("service"), 0);
    lab.cluster.refuses = None;
    lab.seconds(60);
    assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_some());
}

#[test]
fn a_namespace_that_gets_its_labels_a_moment_later_is_warned_of_nothing() {
    let selector = serde_json::json!({ "matchLabels": { "team": "a" } });
    let namespace_selectors = vec![serde_json::from_value(selector).unwrap()];
    let allocation = Some(Allocation { namespace_selectors, ..Allocation::default() });
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.9".to_owned())];
    let spec = AddressPoolSpec { addresses, allocation, ..AddressPoolSpec::default() };
    let wishes: [&[(&str, &str)]; 3] =
        [&[], &[("arpeggio.dev/address-pool", "team")], &[("arpeggio.dev/addresses", "10.0.0.1")]];
    let labels = || Labels::from([("team".to_owned(), "a".to_owned())]);
    for annotations in wishes {
        let mut lab = patient(&[]);
        lab.cluster.set_pool_spec("team", spec.clone());
        lab.cluster.create_service("web", annotations);
        lab.settle();
        lab.seconds(3);
        lab.controller.index.set_namespace("default", labels());
        lab.settle();
        let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
        assert_eq!(reasons, ["IPAllocated"], "{annotations:?}");
        lab.controller.index.set_namespace("default", Labels::new());
        lab.settle();
        lab.seconds(3);
        lab.controller.index.set_namespace("default", labels());
        lab.settle();
        lab.seconds(20);
        assert_eq!(lab.told.len(), 1, "{annotations:?}: {:?}", lab.told);
        lab.controller.index.set_namespace("default", Labels::new());
        lab.cluster.create_service("late", annotations);
        lab.settle();
        lab.seconds(6);
        assert!(
            lab.says("late").contains("not for") || lab.says("late").contains("no pool is for")
        );
        assert!(lab.record("web").condition(ADDRESS_EXPIRING).is_some());
    }
}
