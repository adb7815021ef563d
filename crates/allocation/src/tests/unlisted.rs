//! Kinds of objects that the API server does not show.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec, Allocation},
    metallb::IPAddressPool,
    selector::LabelSelector,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::json;

use super::*;
use crate::sources::MetalLb;

fn set<const N: usize>(unlisted: [Unlisted; N]) -> std::collections::BTreeSet<Unlisted> {
    unlisted.into()
}

/// A controller that starts while the API server does not show `AddressPool`s, nor records when `forgets`.
fn started_without_pools(lab: &mut Lab, forgets: bool) {
    let mut index = Index::new(None, lab.periods);
    index.reset(lab.cluster.services().cloned().collect::<Vec<_>>());
    index.reset(lab.cluster.leases().cloned().collect::<Vec<Lease>>());
    index.set_namespaces([("default".to_owned(), Labels::new())].into());
    let mut metallb = MetalLb::default();
    if !forgets {
        let records: Vec<Lease> = lab.cluster.records().cloned().collect();
        Records { index: &mut index, metallb: &mut metallb }.reset(records);
    }
    assert!(!index.is_complete());
    index.set_unlisted(set([Unlisted::all::<AddressPool>()]));
    lab.controller.index = index;
    lab.writes.clear();
    lab.settle();
}

#[test]
fn pools_that_are_not_shown_are_used_as_they_were() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    let records = lab.cluster.records().count();
    assert_eq!(records, 1);
    started_without_pools(&mut lab, false);
    assert_eq!(lab.writes, [""; 0]);
    lab.wait(cluster::GRACE * 2);
    assert_eq!((lab.addresses("web"), lab.cluster.records().count()), (vec!["10.0.0.1".into()], 1));
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
}

#[test]
fn nobody_loses_an_address_to_pools_that_are_not_shown_and_were_never_known() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    started_without_pools(&mut lab, true);
    lab.wait(cluster::GRACE * 2);
    assert_eq!((lab.addresses("web"), lab.writes.clone()), (vec!["10.0.0.1".into()], vec![]));
    lab.create("other");
    assert_eq!(
        lab.says("other").split_once(". ").unwrap().1,
        "The API server does not list addresspools.arpeggio.dev for the controller, which goes on with what it knew of \
         them: its log says why"
    );
    // They are shown at last.
    lab.controller.index.reset(lab.cluster.pools().cloned().collect::<Vec<AddressPool>>());
    lab.controller.index.set_unlisted(set([]));
    lab.settle();
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_namespace_that_is_not_shown_is_selected_by_none_and_refused_by_none() {
    let spec = |addresses: &str, allocation| AddressPoolSpec {
        addresses: vec![AddressItem(addresses.to_owned())],
        allocation,
        ..AddressPoolSpec::default()
    };
    let without: LabelSelector = serde_json::from_value(json!({
        "matchExpressions": [{ "key": "tenant", "operator": "DoesNotExist" }],
    }))
    .unwrap();
    let mut lab = Lab::with_pools(&[]);
    let allocation = Allocation { namespace_selectors: vec![without], ..Allocation::default() };
    lab.cluster.set_pool_spec("ours", spec("10.0.0.1-10.0.0.2", Some(allocation)));
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.controller = Controller::started(&lab.cluster);
    lab.controller.index.set_namespaces([].into());
    lab.create("young");
    lab.wait(cluster::GRACE * 2);
    assert!(lab.record("young").conditions.is_empty(), "its namespace may be as young");
    lab.controller.index.set_unlisted(set([Unlisted::all::<Namespace>()]));
    lab.wait(cluster::GRACE * 2);
    assert_eq!((lab.addresses("web"), lab.addresses("young")), (vec!["10.0.0.1".into()], vec![]));
    let says = lab.says("young");
    assert!(says.contains("does not list namespaces for the controller"), "{says}");
    lab.cluster.set_pool_spec("all", spec("10.0.1.1", None));
    lab.settle();
    assert_eq!(lab.addresses("young"), ["10.0.1.1"], "this pool is for everybody");
}

#[test]
fn metallb_s_forgotten_config_map_is_not_used_because_its_pools_are_not_shown() {
    let pool: IPAddressPool = serde_json::from_value(json!({
        "metadata": { "name": "lan", "namespace": "m", "uid": "lan" },
        "spec": { "addresses": ["10.0.0.0/28"] },
    }))
    .unwrap();
    let file: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": "config", "namespace": "m", "uid": "file" },
        "data": { "config": "address-pools: [{name: old, protocol: layer2, addresses: [10.0.1.0/28]}]" },
    }))
    .unwrap();
    let started = |kept: &[Lease]| {
        let mut index = Index::new(None, cluster::PERIODS);
        index.reset(Vec::<k8s_openapi::api::core::v1::Service>::new());
        index.reset(Vec::<Lease>::new());
        index.reset(Vec::<AddressPool>::new());
        let mut metallb = MetalLb::default();
        Records { index: &mut index, metallb: &mut metallb }.reset(kept.to_vec());
        let dialect = arpeggio_api::config_map::Dialect::MetalLb;
        let mut text = crate::sources::PoolFile::new(Declarer::MetalLbConfigMap, "config", dialect);
        text.reset(vec![file.clone()]);
        text.tell(&mut index);
        (index, metallb)
    };
    let kept = |index: &mut Index| -> Vec<Lease> {
        let tasks = index.decide_records(&cluster::now()).into_iter();
        let leases = tasks.map(|task| match task.effect {
            Effect::WriteRecord(write) => {
                arpeggio_api::last_good::lease(&write.uid, &write.text.unwrap())
            }
            other => panic!("{other:?}"),
        });
        leases.collect()
    };
    let in_use = |index: &Index| {
        ["10.0.0.1", "10.0.1.1"]
            .map(|it| index.allocator.pool_of(it.parse().unwrap()).map(|it| it.name.to_string()))
    };
    let (mut first, mut metallb) = started(&[]);
    metallb.reset(vec![pool]);
    metallb.tell(&mut first);
    assert_eq!(in_use(&first), [Some("lan".to_owned()), None]);
    let records = kept(&mut first);
    assert_eq!(records.len(), 1);

    let (mut next, _) = started(&records);
    next.set_unlisted(set([Unlisted::all::<IPAddressPool>()]));
    assert_eq!(in_use(&next), [Some("lan".to_owned()), None]);
    assert!(kept(&mut next).is_empty(), "what is kept of it stays");
    let (mut other, _) = started(&records);
    other.set_unlisted(set([Unlisted::one::<ConfigMap>("m", "else")]));
    assert_eq!(
        in_use(&other),
        [None, Some("old".to_owned())],
        "IPAddressPools are shown, and none is there"
    );
}
