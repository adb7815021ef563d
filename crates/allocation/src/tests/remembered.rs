//! A change of a pool that cannot be used, and a controller that starts after it.

use arpeggio_api::{
    address_pool::READY,
    config_map::Dialect,
    last_good,
    metallb::{IPAddressPool, L2Advertisement},
};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Condition};
use serde_json::{Value, json};

use super::*;
use crate::sources::{MetalLb, PoolFile};

/// The API server takes it, and the controller cannot.
const BROKEN: &[&str] = &["fd00::1/64"];

impl Lab {
    fn kept(&self) -> usize {
        self.cluster.records().count()
    }

    fn texts(&self) -> Vec<String> {
        self.cluster.records().map(|lease| last_good::text(lease).to_owned()).collect()
    }

    fn uid(&self, pool: &str) -> String {
        let mut pools = self.cluster.pools();
        pools.find(|it| it.name_any() == pool).and_then(ResourceExt::uid).unwrap()
    }

    fn ready(&mut self, pool: &str) -> Condition {
        for task in self.controller.index.decide_pools(&cluster::after(self.time)) {
            let report = self.cluster.perform_at_once(task);
            self.controller.index.finish(report, &cluster::after(self.time));
        }
        self.settle();
        let mut pools = self.cluster.pools();
        let status = pools.find(|it| it.name_any() == pool).unwrap().status.clone().unwrap();
        status.conditions.into_iter().find(|it| it.type_ == READY).unwrap()
    }
}

#[test]
fn what_a_pool_said_last_is_in_force_for_a_controller_that_starts_later() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1-10.0.0.5"])]);
    lab.create("before");
    lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.9"]);
    lab.settle();
    lab.cluster.set_pool("home", BROKEN);
    lab.settle();
    lab.restart();
    assert_eq!(lab.writes, [""; 0], "nothing has changed");
    lab.cluster.create_service("after", &[("arpeggio.dev/addresses", "10.0.0.9")]);
    lab.settle();
    assert_eq!(lab.addresses("after"), ["10.0.0.9"]);
    let ready = lab.ready("home");
    let end = "what the pool said before (generation 2) stays in force";
    assert!(ready.status == "False" && ready.message.ends_with(end), "{ready:?}");
    assert_eq!(lab.controller.index.used_as_before().len(), 1);
    // It is mended while nobody watches.
    lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.2"]);
    lab.restart();
    assert_eq!(lab.ready("home").status, "True");
    assert_eq!(lab.controller.index.used_as_before(), [""; 0]);
}

#[test]
fn a_change_costs_one_write_and_rest_costs_none() {
    let mut lab = Lab::with_pools(&[HOME]);
    assert_eq!(lab.kept(), 1);
    lab.create("web");
    assert_eq!(lab.writes, ["claim", "service"]);
    lab.writes.clear();
    lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.3"]);
    lab.settle();
    lab.ready("home");
    assert_eq!(lab.writes, ["record"]);
    lab.cluster.set_pool("home", BROKEN);
    lab.settle();
    assert_eq!(lab.writes, ["record"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn what_is_deleted_is_forgotten_also_while_nobody_watches() {
    for down in [false, true] {
        let mut lab = Lab::with_pools(&[HOME, ("other", &["10.0.9.1"])]);
        lab.cluster.set_pool("home", BROKEN);
        lab.settle();
        lab.cluster.delete_pool("home");
        if !down {
            lab.settle();
            assert_eq!(lab.kept(), 1);
        }
        // One of the same name is another one.
        lab.cluster.set_pool("home", BROKEN);
        lab.restart();
        lab.cluster.create_service("web", &[("arpeggio.dev/address-pool", "home")]);
        lab.settle();
        assert_eq!(lab.addresses("web"), [""; 0], "{down}");
        assert!(lab.says("web").contains("it is not used, since it is invalid"));
        assert_eq!(lab.kept(), 1, "{down}");
    }
}

#[test]
fn what_is_damaged_or_deleted_by_hand_is_written_anew_while_somebody_remembers() {
    let mut lab = Lab::with_pools(&[HOME]);
    let uid = lab.uid("home");
    let before: Vec<Lease> = lab.cluster.records().cloned().collect();
    for text in [Some("{}"), None, Some("?")] {
        lab.cluster.damage_record(&uid, text);
        lab.settle();
        let text = |lease: &Lease| lease.metadata.annotations.clone();
        let after: Vec<_> = lab.cluster.records().map(text).collect();
        assert_eq!(after, before.iter().map(text).collect::<Vec<_>>());
    }
    lab.cluster.set_pool("home", BROKEN);
    lab.settle();
    lab.cluster.damage_record(&uid, Some("{}"));
    lab.restart();
    assert_eq!(lab.controller.index.used_as_before(), [""; 0], "nobody knows any more");
    assert_eq!(lab.kept(), 0);
}

#[test]
fn what_a_newer_release_keeps_is_left_alone() {
    let mut lab = Lab::with_pools(&[HOME]);
    let mut newer = lab.cluster.records().next().unwrap().clone();
    let annotations = newer.metadata.annotations.get_or_insert_default();
    annotations.insert("arpeggio.dev/format".to_owned(), "2".to_owned());
    let Controller { index, metallb, .. } = &mut lab.controller;
    Records { index, metallb }.apply(newer);
    lab.cluster.set_pool("home", &["10.0.0.7"]);
    lab.settle();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn an_object_that_cannot_be_decoded_is_used_as_it_was() {
    let mut lab = Lab::with_pools(&[HOME]);
    let uid = lab.uid("home");
    lab.cluster.hide_pool("home");
    lab.controller = Controller::restarted(Index::new(None, lab.periods), &lab.cluster);
    lab.controller.index.set_left_out([uid].into());
    lab.create("web");
    assert_eq!((lab.addresses("web"), lab.kept()), (vec!["10.0.0.1".to_owned()], 1));
    // Somebody deletes it.
    lab.controller.index.set_left_out(BTreeSet::new());
    lab.settle();
    assert_eq!(lab.kept(), 0);
}

#[test]
fn of_two_controllers_that_remember_differently_the_newer_knowledge_counts() {
    let mut lab = Lab::with_pools(&[HOME]);
    let mut follower = Controller::started(&lab.cluster);
    lab.cluster.set_pool("home", &["10.0.0.7"]);
    lab.settle();
    lab.cluster.set_pool("home", BROKEN);
    lab.settle();
    // Its watch was broken meanwhile: it has not seen the second version.
    let pools: Vec<AddressPool> = lab.cluster.pools().cloned().collect();
    follower.index.reset(pools);
    while follower.hear(cluster::Watch::Records, &lab.cluster) {}
    lab.controller = follower;
    lab.writes.clear();
    lab.settle();
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.7"]);
    assert_eq!(lab.writes, ["claim", "service"]);
}

/// One controller has seen a change of a pool. Another one has seen only what the first one keeps of it, writes what it knows
/// itself, and dies before it sees the change.
#[test]
fn what_a_controller_writes_that_lags_behind_is_mended_by_whoever_has_seen_more() {
    for is_broken in [false, true] {
        let mut lab = Lab::with_pools(&[HOME]);
        let mut late = Controller::started(&lab.cluster);
        lab.cluster.set_pool("home", &["10.0.0.7"]);
        lab.settle();
        let newest = lab.texts();
        if is_broken {
            lab.cluster.set_pool("home", BROKEN);
            lab.settle();
        }
        while late.hear(cluster::Watch::Records, &lab.cluster) {}
        for task in late.decide(&cluster::after(lab.time)) {
            late.index.finish(lab.cluster.perform_at_once(task), &cluster::after(lab.time));
        }
        assert_ne!(lab.texts(), newest, "the test is about this state");
        lab.writes.clear();
        lab.settle();
        assert_eq!((lab.texts(), &lab.writes), (newest.clone(), &vec!["record"]), "{is_broken}");
        while late.hear(cluster::Watch::Records, &lab.cluster) {}
        assert!(late.decide(&cluster::after(lab.time)).is_empty(), "it has said what it knows");
        // A change that cannot be used takes nobody back behind the last one that could.
        lab.cluster.set_pool("home", BROKEN);
        lab.restart();
        assert_eq!(lab.writes, [""; 0], "{is_broken}");
        lab.create("web");
        assert_eq!(lab.addresses("web"), ["10.0.0.7"], "{is_broken}");
    }
}

#[test]
fn what_an_object_has_not_come_to_yet_is_not_in_force() {
    let mut lab = Lab::with_pools(&[HOME]);
    let uid = lab.uid("home");
    let text = last_good::text(lab.cluster.records().next().unwrap()).to_owned();
    let future = text.replace("\"generation\":1", "\"generation\":9");
    assert_ne!(text, future);
    lab.cluster.set_pool("home", BROKEN);
    lab.cluster.damage_record(&uid, Some(&future));
    lab.restart();
    assert_eq!(lab.controller.index.used_as_before(), [""; 0]);
}

#[test]
fn what_is_too_much_to_be_kept_is_told() {
    let mut lab = Lab::with_pools(&[]);
    let addresses: Vec<String> =
        (0..20_000_u32).map(|it| format!("10.{}.{}.0", it / 250, it % 250)).collect();
    lab.cluster.set_pool("huge", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    lab.settle();
    assert_eq!(lab.kept(), 0);
    lab.controller.index.news(&cluster::after(Duration::ZERO));
    let told = lab.controller.index.news(&cluster::after(Duration::from_secs(5)));
    assert!(told.iter().any(|(_, remark)| remark.reason == "TooLarge"), "{told:?}");
}

/// The controller's other sources: a `ConfigMap` and `MetalLB`'s objects.
struct Sources {
    file: PoolFile,
    metallb: MetalLb,
    index: Index,
}

impl Sources {
    fn started(kept: &[Lease]) -> Self {
        let mut index = Index::new(None, cluster::PERIODS);
        index.reset(Vec::<k8s_openapi::api::core::v1::Service>::new());
        index.reset(Vec::<Lease>::new());
        index.reset(Vec::<AddressPool>::new());
        let file = PoolFile::new(Declarer::ConfigMap, "config", Dialect::Ours);
        let mut all = Self { file, metallb: MetalLb::default(), index };
        Records { index: &mut all.index, metallb: &mut all.metallb }.reset(kept.to_vec());
        all
    }

    /// The Leases that are written for these objects.
    fn kept(&mut self) -> Vec<Lease> {
        self.file.tell(&mut self.index);
        self.metallb.tell(&mut self.index);
        let lease = |task: Task| match task.effect {
            Effect::WriteRecord(write) => {
                let (uid, text) = (write.uid, write.text.unwrap());
                last_good::lease(&uid, &text)
            }
            other => panic!("{other:?}"),
        };
        self.index.decide_records(&cluster::now()).into_iter().map(lease).collect()
    }

    /// The same, when they have been written and the watch has shown them in this version.
    fn written(&mut self, version: &str) -> Vec<String> {
        let leases = self.kept();
        for mut lease in leases.clone() {
            let uid = last_good::uid(&lease.name_any()).unwrap().to_owned();
            let report = TaskReport { subject: Subject::Record(uid), result: Ok(Observed::Record) };
            self.index.finish(report, &cluster::now());
            lease.metadata.resource_version = Some(version.to_owned());
            self.shown(lease);
        }
        leases.iter().map(|lease| last_good::text(lease).to_owned()).collect()
    }

    /// The watch shows this Lease.
    fn shown(&mut self, lease: Lease) {
        Records { index: &mut self.index, metallb: &mut self.metallb }.apply(lease);
    }

    fn in_use(&self, address: &str) -> Option<String> {
        Some(self.index.allocator.pool_of(address.parse().unwrap())?.name.to_string())
    }
}

fn file(text: &str) -> ConfigMap {
    file_at(1, text)
}

/// The `ConfigMap` in this version.
fn file_at(version: u64, text: &str) -> ConfigMap {
    let version = version.to_string();
    let metadata =
        json!({ "name": "arpeggio", "namespace": "n", "uid": "file", "resourceVersion": version });
    serde_json::from_value(json!({ "metadata": metadata, "data": { "config": text } })).unwrap()
}

const TWO: &str =
    "address-pools: [{name: a, addresses: [10.0.0.1]}, {name: b, addresses: [10.0.1.1]}]";

#[test]
fn a_config_map_is_used_as_it_was_whatever_is_wrong_with_it() {
    let broken = [
        ("one entry", TWO.replace("10.0.1.1", "10.0.1")),
        ("a name is lost", TWO.replace("name: b", "name:")),
        ("no YAML", TWO.replace('[', "{")),
    ];
    for (what, text) in broken {
        let mut first = Sources::started(&[]);
        first.file.reset(vec![file(TWO)]);
        let kept = first.kept();
        assert_eq!(kept.len(), 1, "{what}");
        let mut next = Sources::started(&kept);
        next.file.reset(vec![file(&text)]);
        assert_eq!(next.kept(), [], "{what}: it is kept already");
        let in_use = ["10.0.0.1", "10.0.1.1"].map(|it| next.in_use(it));
        assert_eq!(in_use, [Some("a".to_owned()), Some("b".to_owned())], "{what}");
        assert!(!next.index.declarations.are_incomplete(), "{what}");
    }
}

/// What a controller writes that has seen the `ConfigMap` in this version.
fn by_another(file: ConfigMap, version: &str) -> Lease {
    let mut other = Sources::started(&[]);
    other.file.reset(vec![file]);
    let mut lease = other.kept().pop().unwrap();
    lease.metadata.resource_version = Some(version.to_owned());
    lease
}

#[test]
fn of_two_texts_of_a_config_map_the_newer_one_is_kept_also_while_it_cannot_be_used() {
    let older = || file_at(4, &TWO.replace("10.0.1.1", "10.0.1.9"));
    let unusable = [TWO.replace("10.0.1.1", "10.0.1"), TWO.replace('[', "{")];
    for text in unusable {
        let mut all = Sources::started(&[]);
        all.file.reset(vec![file_at(5, TWO)]);
        let own = all.written("1");
        assert_eq!(own.len(), 1);
        all.shown(by_another(older(), "2"));
        assert_eq!(all.written("3"), own);
        assert_eq!(all.kept(), []);
        all.file.apply(file_at(6, &text));
        all.written("4");
        all.shown(by_another(older(), "5"));
        let kept = all.kept();
        assert_eq!(kept.len(), 1, "{text}");
        let mut next = Sources::started(&kept);
        next.file.reset(vec![file_at(6, &text)]);
        assert_eq!(next.kept(), [], "{text}");
        assert_eq!(next.in_use("10.0.1.1").as_deref(), Some("b"), "{text}");
    }
}

#[test]
fn a_text_of_a_config_map_that_only_another_controller_has_seen_is_in_force() {
    let mut all = Sources::started(&[]);
    all.file.reset(vec![file_at(5, TWO)]);
    all.written("1");
    all.shown(by_another(file_at(6, &TWO.replace("10.0.1.1", "10.0.1.9")), "2"));
    all.file.reset(vec![file_at(7, &TWO.replace("10.0.1.1", "10.0.1"))]);
    all.kept();
    assert_eq!(all.in_use("10.0.1.9").as_deref(), Some("b"));
}

#[test]
fn a_config_map_of_which_something_else_changes_costs_nothing() {
    let mut all = Sources::started(&[]);
    all.file.reset(vec![file_at(5, TWO)]);
    assert_eq!(all.written("1").len(), 1);
    for version in 6..20 {
        all.file.apply(file_at(version, TWO));
        assert_eq!(all.kept(), []);
    }
}

#[test]
fn a_pool_that_is_no_more_in_a_config_map_is_forgotten() {
    let mut all = Sources::started(&[]);
    all.file.reset(vec![file(TWO)]);
    all.kept();
    let one = "address-pools: [{name: a, addresses: [10.0.0.1]}]";
    let mut next = Sources::started(&[]);
    next.file.reset(vec![file(one)]);
    let kept = next.kept();
    let mut last = Sources::started(&kept);
    last.file.reset(vec![file(&TWO.replace('[', "{"))]);
    last.kept();
    assert_eq!((last.in_use("10.0.0.1"), last.in_use("10.0.1.1")), (Some("a".into()), None));
}

#[test]
fn metallb_s_objects_are_used_as_they_were() {
    let object = |name: &str, spec: Value| {
        let metadata = json!({ "name": name, "namespace": "m", "uid": name });
        json!({ "metadata": metadata, "spec": spec })
    };
    let pool = |addresses: Value| -> IPAddressPool {
        serde_json::from_value(object("lan", json!({ "addresses": addresses }))).unwrap()
    };
    let advertisement = |interfaces: Value| -> L2Advertisement {
        serde_json::from_value(object("l2", json!({ "interfaces": interfaces }))).unwrap()
    };
    let mut first = Sources::started(&[]);
    first.metallb.reset(vec![pool(json!(["10.0.0.0/28"]))]);
    first.metallb.reset(vec![advertisement(json!(["eth1"]))]);
    let kept = first.kept();
    assert_eq!(kept.len(), 2);
    let policy = |all: &Sources| format!("{:?}", all.index.declarations.policy(&"lan".into()));
    let before = policy(&first);
    assert!(before.contains("eth1"), "{before}");

    let mut next = Sources::started(&kept);
    next.metallb.reset(vec![pool(json!("10.0.0.0/28"))]);
    next.metallb.reset(vec![advertisement(json!("eth1"))]);
    assert_eq!(next.kept(), []);
    assert_eq!(next.in_use("10.0.0.1").as_deref(), Some("lan"));
    assert_eq!(policy(&next), before);
}
