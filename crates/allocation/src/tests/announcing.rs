//! What locks say about how their addresses are to be announced.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec},
    declaration::{Declaration, Origin},
    service::{
        ADDRESS_NOT_ANNOUNCED, ANNOUNCED, CONNECTIONS_LEFT, NOT_SPREAD, request::SPREAD_ANNOTATION,
    },
    session::Whereabouts,
    terms::{Announcement, WrittenAnnounceTerms},
};
use arpeggio_election::{Interface, Reach};
use arpeggio_ipam::Pool;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::*;

pub(super) const KEY: &str = "arpeggio.dev/sharing-key";

/// A pool of two addresses with these announce rules.
pub(super) fn spec(announce: &Value) -> AddressPoolSpec {
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())];
    let announce = serde_json::from_value(announce.clone()).unwrap();
    AddressPoolSpec { addresses, announce, ..AddressPoolSpec::default() }
}

pub(super) fn with_rules(announce: &Value) -> Lab {
    let mut lab = Lab::with_pools(&[]);
    lab.cluster.set_pool_spec("home", spec(announce));
    lab.settle();
    lab.writes.clear();
    lab
}

/// A rule for this interface, and for Services with the label `app` of that value.
fn rule(interface: &str, app: &str) -> Value {
    let services = json!([{ "matchLabels": { "app": app } }]);
    json!({ "interfaces": [interface], "serviceSelectors": services })
}

impl Lab {
    /// What the lock of 10.0.0.1 says.
    pub(super) fn terms(&self) -> WrittenAnnounceTerms {
        lock::parse(self.lease("address-10.0.0.1")).unwrap().claim.terms
    }

    pub(super) fn lease(&self, name: &str) -> &Lease {
        let found = self.cluster.leases().find(|it| it.metadata.name.as_deref() == Some(name));
        found.unwrap()
    }

    /// The interfaces that the lock of 10.0.0.1 names; `None` when it does not say anything.
    fn interfaces(&self) -> Option<Vec<String>> {
        let rules = self.terms().rules?;
        Some(rules.iter().flat_map(|rule| &rule.interfaces).map(|it| it.0.clone()).collect())
    }
}

#[test]
fn a_pool_that_asks_nothing_writes_nothing() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    let annotations = lab.lease("address-10.0.0.1").metadata.annotations.clone().unwrap();
    assert!(!annotations.contains_key("arpeggio.dev/announce"), "{annotations:?}");
}

#[test]
fn what_the_pool_asks_is_written_with_the_claim_and_again_when_it_changes() {
    let mut lab = with_rules(&json!([{ "interfaces": ["eth0"] }]));
    lab.create("web");
    assert_eq!(lab.interfaces().unwrap(), ["eth0"]);
    assert_eq!(lab.writes, ["claim", "service"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);

    lab.cluster.set_pool_spec("home", spec(&json!([{ "interfaces": ["eth1"] }])));
    lab.settle();
    assert_eq!(lab.interfaces().unwrap(), ["eth1"]);
    assert_eq!(lab.writes, ["amend", "record"]);
    let unprobed = AddressPoolSpec { conflict_probing: false, ..spec(&json!([])) };
    lab.cluster.set_pool_spec("home", unprobed);
    lab.restart();
    assert_eq!(
        lab.terms(),
        WrittenAnnounceTerms { probing: false, ..WrittenAnnounceTerms::default() }
    );
    assert_eq!(lab.writes, ["amend", "record"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn speakers_are_told_whose_traffic_must_not_leave_its_node() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.writes.clear();
    for (policy, expected) in [("Local", true), ("Cluster", false)] {
        lab.cluster.set_policy("web", policy);
        lab.settle();
        assert_eq!(lab.terms().local, expected);
    }
    assert_eq!(lab.writes, ["amend", "amend"]);
}

#[test]
fn who_announces_is_told_a_little_later_and_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    let says = |lab: &Lab| {
        let condition = lab.record("web").condition(ANNOUNCED).cloned().unwrap();
        (condition.status, condition.message)
    };
    assert_eq!(says(&lab).0, "False");
    lab.writes.clear();
    lab.cluster.take_lock("10.0.0.1");
    lab.settle();
    assert_eq!(lab.writes, [""; 0], "moves come first");
    lab.wait(Duration::from_secs(2));
    let message = "10.0.0.1 from node-1 since 1970-01-01T00:00:00Z".to_owned();
    assert_eq!(says(&lab), ("True".to_owned(), message));
    assert_eq!(lab.writes, ["service"]);
    lab.restart();
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.writes, [""; 0]);
}

/// A lock names its holder until another node takes it, and there need not be one that may.
#[test]
fn what_a_node_without_a_session_holds_is_not_called_announced() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(9);
    let after = |lab: &mut Lab, living: &[&str], seconds: u64| {
        let living = living.iter().map(|it| (*it).to_owned());
        lab.controller.index.set_living(living.collect());
        lab.writes.clear();
        lab.seconds(seconds);
        let condition = lab.record("web").condition(ANNOUNCED).cloned().unwrap();
        (condition.reason, lab.writes.len())
    };
    let is = |reason: &str, writes: usize| (reason.to_owned(), writes);
    assert_eq!(after(&mut lab, &["node-1", "node-2"], 9), is("Announced", 0));
    assert_eq!(after(&mut lab, &["node-1"], 9), is("Announced", 0), "it has nothing");
    assert_eq!(after(&mut lab, &["node-2"], 3), is("Announced", 0), "another one may have it soon");
    assert_eq!(after(&mut lab, &["node-2"], 3), is("NotAnnounced", 1));
    assert_eq!(after(&mut lab, &["node-2"], 60), is("NotAnnounced", 0));
    assert_eq!(after(&mut lab, &["node-1", "node-2"], 3), is("Announced", 1));
    assert_eq!(after(&mut lab, &["node-2"], 1), is("Announced", 0));
    assert_eq!(after(&mut lab, &["node-1"], 9), is("Announced", 0), "it was away for a moment");
}

#[test]
fn what_its_holder_does_not_announce_is_not_called_announced() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.settle();
    lab.wait(Duration::from_secs(2));
    let says = |lab: &Lab| {
        let condition = lab.record("web").condition(ANNOUNCED).cloned().unwrap();
        (condition.status, condition.reason)
    };
    for (announced, expected) in
        [(false, ("False", "NoReadyEndpoints")), (true, ("True", "Announced"))]
    {
        lab.cluster.note("10.0.0.1", announced);
        lab.settle();
        lab.wait(Duration::from_secs(2));
        assert_eq!(says(&lab), (expected.0.to_owned(), expected.1.to_owned()));
    }
}

/// Whoever shares an address holds no second one, and what nobody is to announce is not missed.
#[test]
fn addresses_that_nobody_announces_are_counted() {
    let mut lab = Lab::with_pools(&[HOME]);
    let count = |lab: &Lab| lab.controller.index.unannounced();
    assert_eq!(count(&lab), 0);
    for name in ["web", "other"] {
        let port = if name == "web" { 80 } else { 81 };
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    lab.create("third");
    assert_eq!(count(&lab), 2);
    lab.cluster.take_lock("10.0.0.1");
    lab.cluster.take_lock("10.0.0.2");
    lab.settle();
    assert_eq!(count(&lab), 0);

    // All speakers are gone.
    lab.controller.index.set_living(["node-1".to_owned()].into());
    lab.settle();
    assert_eq!(count(&lab), 0);
    lab.controller.index.set_living(BTreeSet::new());
    lab.settle();
    assert_eq!(count(&lab), 2);
    lab.cluster.note("10.0.0.1", false);
    lab.settle();
    assert_eq!(count(&lab), 1, "no pod is there for it");
    lab.cluster.delete_service("third");
    lab.settle();
    assert_eq!(count(&lab), 0);

    let anybody = json!({ "interfaces": ["eth0"] });
    for (rule, expected) in [(anybody, 1), (rule("eth0", "of others"), 0)] {
        let mut lab = with_rules(&json!([rule]));
        lab.create("web");
        assert_eq!(count(&lab), expected, "{rule}");
    }
}

/// Wishes that cannot be understood.
const MISTAKES: [(&str, &str); 3] = [
    ("arpeggio.dev/addresses", "nonsense"),
    ("arpeggio.dev/address-pool", "a,"),
    (SPREAD_ANNOTATION, "all"),
];

#[test]
fn without_a_pool_the_terms_stay_and_with_a_request_that_is_not_understood_they_follow_the_pool() {
    for (key, value) in MISTAKES {
        let mut lab = with_rules(&json!([{ "interfaces": ["eth0"] }]));
        lab.create("web");
        lab.cluster.annotate("web", key, value);
        lab.settle();
        lab.cluster.set_pool_spec("home", spec(&json!([{ "interfaces": ["eth1"] }])));
        lab.cluster.set_policy("web", "Local");
        lab.settle();
        assert_eq!((lab.interfaces().unwrap(), lab.terms().local), (vec!["eth1".into()], true));
        lab.cluster.delete_pool("home");
        lab.restart();
        assert_eq!(lab.interfaces().unwrap(), ["eth1"]);
    }
}

#[test]
fn a_new_lock_for_a_request_that_is_not_understood_says_what_the_pool_says() {
    for (key, value) in MISTAKES {
        let mut lab = with_rules(&json!([rule("eth0", "a"), rule("eth1", "b")]));
        lab.cluster.create_service("web", &[(key, value)]);
        lab.cluster.label("web", "app", "b");
        lab.cluster.set_policy("web", "Local");
        // As another load balancer left it, or a backup without Leases.
        lab.cluster.set_ingress("web", "10.0.0.1", "metallb");
        lab.restart();
        let found = (lab.interfaces(), lab.terms().local);
        assert_eq!(found, (Some(vec!["eth1".to_owned()]), true), "{key}");
    }
}

#[test]
fn a_lock_that_is_made_anew_while_no_pool_has_its_address_has_it_announced_nowhere() {
    let mut lab = with_rules(&json!([{ "interfaces": ["eth0"] }]));
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.cluster.delete_lease("address-10.0.0.1");
    lab.settle();
    assert!(lab.terms().is_nowhere(), "{:?}", lab.terms());
    lab.cluster.set_pool_spec("home", spec(&json!([{ "interfaces": ["eth0"] }])));
    lab.settle();
    assert_eq!(lab.interfaces().unwrap(), ["eth0"]);
}

#[test]
fn a_typing_error_in_the_spread_of_a_service_leaves_its_address_spread_as_it_is() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(SPREAD_ANNOTATION, "nodes")]);
    lab.settle();
    for (value, expected) in [("node", true), ("none", false), ("all", false), ("nodes", true)] {
        lab.cluster.annotate("web", SPREAD_ANNOTATION, value);
        lab.settle();
        let spread = lock::parse(lab.lease("address-10.0.0.1")).unwrap().claim.spread;
        assert_eq!(spread, expected, "{value}");
    }
    lab.cluster.annotate("web", SPREAD_ANNOTATION, "all");
    lab.settle();
    lab.cluster.remove_annotation("web", SPREAD_ANNOTATION);
    lab.settle();
    assert!(!lock::parse(lab.lease("address-10.0.0.1")).unwrap().claim.spread);
}

#[test]
fn rules_for_other_services_are_left_out_and_none_at_all_is_told() {
    let mut lab = with_rules(&json!([rule("eth0", "a"), rule("eth1", "b")]));
    lab.cluster.create_service("web", &[]);
    lab.cluster.label("web", "app", "b");
    lab.settle();
    assert_eq!(lab.interfaces().unwrap(), ["eth1"]);

    lab.cluster.label("web", "app", "c");
    lab.settle();
    assert!(lab.terms().is_nowhere());
    let condition = lab.record("web").condition(ADDRESS_NOT_ANNOUNCED).cloned().unwrap();
    assert_eq!(condition.reason, "NotAdvertised");
    assert!(condition.message.starts_with("10.0.0.1: no node announces it"), "{condition:?}");
    assert_eq!(lab.told.last().unwrap().reason, "NotAdvertised");
    let told = lab.told.len();
    lab.restart();
    assert_eq!((lab.told.len(), lab.writes.len()), (told, 0), "told once");

    lab.cluster.label("web", "app", "a");
    lab.settle();
    assert_eq!(lab.interfaces().unwrap(), ["eth0"]);
    assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED), None);
    assert!(lab.says("web").starts_with("True: "));
}

#[test]
fn a_pool_that_is_routed_is_announced_nowhere_without_a_warning() {
    let mut lab = Lab::with_pools(&[]);
    let spec = AddressPoolSpec { routed: true, ..spec(&json!([])) };
    lab.cluster.set_pool_spec("home", spec.clone());
    lab.create("web");
    lab.wait(Duration::from_mins(1));
    lab.settle();
    assert!(lab.terms().is_nowhere());
    let record = lab.record("web");
    assert_eq!(record.condition(ADDRESS_NOT_ANNOUNCED), None);
    let announced = record.condition(ANNOUNCED).unwrap();
    assert_eq!((announced.status.as_str(), announced.reason.as_str()), ("False", "Routed"));
    assert!(announced.message.starts_with("no node announces 10.0.0.1"), "{announced:?}");
    let told: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(told, ["IPAllocated"]);
    lab.cluster.set_pool_spec("home", AddressPoolSpec { routed: false, ..spec });
    lab.settle();
    assert!(!lab.terms().is_nowhere(), "the speakers are told when it changes");
}

#[test]
fn sharers_have_the_rules_of_both_and_who_leaves_takes_its_own_along() {
    let mut lab = with_rules(&json!([rule("eth0", "a"), rule("eth1", "b")]));
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.cluster.label(name, "app", name);
        lab.settle();
    }
    assert_eq!(lab.interfaces().unwrap(), ["eth0", "eth1"]);
    lab.writes.clear();
    lab.cluster.delete_service("a");
    lab.settle();
    assert_eq!(
        (lab.interfaces().unwrap(), lab.sharers("10.0.0.1")),
        (vec!["eth1".into()], vec!["b".into()])
    );
    assert_eq!(lab.writes, ["release"]);
}

/// A pool of MetalLB's with one address, older than any other.
fn of_metallb(announcement: Announcement) -> Declared {
    let object = ObjectReference::default();
    let origin = Origin::IpAddressPool { namespace: "metallb-system".into(), name: "lan".into() };
    let pool = Ok(Pool::new("lan".into(), vec!["10.0.0.1".parse().unwrap()]));
    let declaration = Declaration {
        origin,
        object,
        generation: None,
        created: None,
        pool,
        announcement,
        probing: true,
        ends: false,
    };
    Declared { pools: vec![declaration], ..Declared::default() }
}

#[test]
fn a_pool_of_metallb_s_is_announced_when_an_advertisement_selects_it() {
    let mut lab = Lab::with_pools(&[]);
    lab.controller.index.set_declared(Declarer::MetalLb, of_metallb(Announcement::Nowhere));
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.terms().is_nowhere());
    assert!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED).is_some());
    assert_eq!(lab.writes, ["claim", "service"]);

    let everything = Announcement::by(serde_json::from_value(json!([{}])).unwrap());
    lab.controller.index.set_declared(Declarer::MetalLb, of_metallb(everything));
    lab.settle();
    assert_eq!(lab.terms(), WrittenAnnounceTerms::default());
    assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED), None);
}

#[test]
fn a_pool_that_comes_just_before_its_advertisement_earns_no_warning() {
    for comes in [true, false] {
        let declared = |announcement| {
            let mut declared = of_metallb(announcement);
            declared.pools[0].created = Some(cluster::now());
            declared
        };
        let mut lab = Lab::with_pools(&[]);
        let index = &mut lab.controller.index;
        index.set_declared(Declarer::MetalLb, declared(Announcement::Nowhere));
        lab.create("web");
        lab.wait(Duration::from_secs(4));
        assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED), None);
        if comes {
            let index = &mut lab.controller.index;
            index.set_declared(Declarer::MetalLb, declared(Announcement::Everywhere));
        }
        lab.wait(Duration::from_secs(1));
        assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED).is_some(), !comes);
        assert_eq!(lab.told.iter().any(|news| news.reason == "NotAdvertised"), !comes);
    }
}

#[test]
fn who_deletes_a_pool_with_its_advertisement_silences_nothing() {
    for pool_goes in [true, false] {
        let mut lab = Lab::with_pools(&[]);
        let set = |lab: &mut Lab, declared| {
            lab.controller.index.set_declared(Declarer::MetalLb, declared);
            lab.settle();
        };
        set(&mut lab, of_metallb(Announcement::Everywhere));
        lab.create("web");
        set(&mut lab, of_metallb(Announcement::Nowhere));
        lab.wait(Duration::from_secs(4));
        assert!(!lab.terms().is_nowhere());
        assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED), None);
        if pool_goes {
            set(&mut lab, Declared::default());
        }
        lab.wait(Duration::from_secs(1));
        assert_eq!(lab.terms().is_nowhere(), !pool_goes);
        assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED).is_some(), !pool_goes);
    }
}

#[test]
fn a_pool_that_is_made_anew_just_before_its_advertisement_silences_nothing() {
    for (renamed, advertised) in [(false, true), (true, true), (false, false)] {
        let mut lab = Lab::with_pools(&[]);
        let set = |lab: &mut Lab, mut declared: Declared, name: &str| {
            if let Some(Ok(pool)) = declared.pools.first_mut().map(|it| it.pool.as_mut()) {
                pool.name = name.into();
            }
            lab.controller.index.set_declared(Declarer::MetalLb, declared);
            lab.settle();
        };
        set(&mut lab, of_metallb(Announcement::Everywhere), "lan");
        lab.create("web");
        let name = if renamed { "office" } else { "lan" };
        set(&mut lab, Declared::default(), "lan");
        set(&mut lab, of_metallb(Announcement::Nowhere), name);
        lab.wait(Duration::from_secs(4));
        assert!(!lab.terms().is_nowhere(), "renamed: {renamed}");
        assert_eq!(lab.record("web").condition(ADDRESS_NOT_ANNOUNCED), None);
        if advertised {
            set(&mut lab, of_metallb(Announcement::Everywhere), name);
        }
        lab.wait(Duration::from_secs(1));
        assert_eq!(lab.terms().is_nowhere(), !advertised);
        // What is silent already stays so, whatever else changes.
        lab.cluster.set_pool("other", &["10.9.0.1"]);
        lab.settle();
        lab.create("new");
        assert_eq!(lab.terms().is_nowhere(), !advertised);
    }
}

#[test]
fn while_it_cannot_be_read_where_a_pool_is_announced_only_new_addresses_are_silent() {
    for (before, nowhere) in [(Announcement::Everywhere, false), (Announcement::Unknown, true)] {
        let mut lab = Lab::with_pools(&[]);
        lab.controller.index.set_declared(Declarer::MetalLb, of_metallb(before));
        lab.create("web");
        let unknown = of_metallb(Announcement::Unknown);
        lab.controller.index.set_declared(Declarer::MetalLb, unknown);
        lab.settle();
        assert_eq!((lab.addresses("web").len(), lab.terms().is_nowhere()), (1, nowhere));
    }
}

#[test]
fn a_pool_that_is_declared_anew_in_our_format_costs_nobody_an_address() {
    let mut lab = Lab::with_pools(&[]);
    let index = |lab: &mut Lab, declared| {
        lab.controller.index.set_declared(Declarer::MetalLb, declared);
        lab.settle();
    };
    index(&mut lab, of_metallb(Announcement::Everywhere));
    lab.create("web");
    lab.writes.clear();
    lab.cluster.set_pool("lan-of-ours", &["10.0.0.1"]);
    lab.settle();
    index(&mut lab, Declared::default());
    lab.wait(cluster::GRACE);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!((lab.count("record"), lab.count("amend")), (1, 1), "those of the new pool");
    assert_eq!(lab.writes.len(), 2, "{:?}", lab.writes);
    assert!(lab.says("web").starts_with("True: "));
}

/// A node with this interface in the subnet of the addresses.
fn whereabouts(interface: &str, own: &str) -> Whereabouts {
    let lan = Interface {
        name: interface.to_owned(),
        subnets: vec!["10.0.0.101/24".parse().unwrap()],
        ..Interface::default()
    };
    let own = [own.parse().unwrap()].into();
    Whereabouts { reach: Reach { interfaces: vec![lan] }, own, ..Whereabouts::default() }
}

#[test]
fn where_an_address_is_announced_is_said_anew_when_its_node_says_so() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    let holder = lab.lease("address-10.0.0.1").spec.as_ref().unwrap().holder_identity.clone();
    let mut after = |node: &str, interface: &str, own: &str| {
        let speakers = [(node.to_owned(), whereabouts(interface, own))];
        lab.controller.index.set_speakers(speakers.into());
        lab.writes.clear();
        lab.settle();
        lab.wait(Duration::from_secs(5));
        let message = lab.record("web").condition(ANNOUNCED).unwrap().message.clone();
        (message.contains(&format!("({interface})")), lab.writes.len())
    };
    let holder = holder.unwrap();
    assert_eq!(after(&holder, "eth0", "10.9.9.9"), (true, 1));
    assert_eq!(after(&holder, "eth0", "10.9.9.9"), (true, 0));
    assert_eq!(after(&holder, "eth0", "10.9.9.8"), (true, 0), "that is said nowhere");
    assert_eq!(after(&holder, "bond0", "10.9.9.8"), (true, 1));
    let (_, writes) = after("another", "eth0", "10.9.9.8");
    assert_eq!(writes, 1, "nothing is known of the holder any more");
    assert_eq!(after("another", "eth9", "10.9.9.8"), (false, 0), "it holds nothing");
}

#[test]
fn connections_that_are_left_on_an_old_node_are_said_and_their_number_once_a_minute() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(2);
    let left = |lab: &mut Lab, counts: &[(&str, u32)]| {
        let counts = counts.iter().map(|(node, count)| ((*node).to_owned(), *count));
        let left = [("10.0.0.1".parse().unwrap(), counts.collect())];
        lab.controller.index.set_left_behind(left.into());
    };
    let says =
        |lab: &Lab| lab.record("web").condition(CONNECTIONS_LEFT).map(|it| it.message.clone());
    lab.writes.clear();
    // node-1 announces the address: its own connections are not left behind.
    left(&mut lab, &[("node-1", 3), ("node-2", 7)]);
    lab.seconds(4);
    assert_eq!(says(&lab), None, "short ones end by themselves");
    lab.seconds(2);
    assert_eq!(says(&lab).unwrap(), "7 connections to 10.0.0.1 still on node-2");
    for second in 0..150 {
        left(&mut lab, &[("node-2", 200 - second)]);
        lab.seconds(1);
    }
    assert_eq!(lab.count("service"), 3, "as they came, and in two of two and a half minutes");
    left(&mut lab, &[("node-2", 1), ("node-3", 2)]);
    lab.seconds(61);
    let both =
        "1 connection to 10.0.0.1 still on node-2; 2 connections to 10.0.0.1 still on node-3";
    assert_eq!(says(&lab).unwrap(), both);
    lab.writes.clear();
    left(&mut lab, &[]);
    lab.seconds(6);
    assert_eq!((says(&lab), lab.count("service")), (None, 1));
    lab.restart();
    lab.seconds(6);
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn that_one_node_serves_an_address_though_all_are_to_is_said_when_it_lasts() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(SPREAD_ANNOTATION, "nodes")]);
    lab.settle();
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(2);
    lab.writes.clear();
    let says = |lab: &Lab| lab.record("web").condition(NOT_SPREAD).map(|it| it.message.clone());
    let tell = |lab: &mut Lab, whys: &[(&str, &str)]| {
        let why = |why: &str| {
            let said = (!why.is_empty()).then(|| ("10.0.0.1".parse().unwrap(), why.to_owned()));
            said.into_iter().collect()
        };
        let says = whys.iter().map(|(node, text)| ((*node).into(), why(text)));
        lab.controller.index.set_not_spread(Some(says.collect()));
    };
    lab.seconds(10);
    assert_eq!(says(&lab), None, "nothing is known yet");
    tell(&mut lab, &[]);
    lab.seconds(4);
    assert_eq!(says(&lab), None, "it may end by itself");
    lab.seconds(2);
    let message =
        |why: &str| Some(format!("one node serves what all nodes are to serve: 10.0.0.1: {why}"));
    assert_eq!(says(&lab), message("no node has a forwarder: install it"));
    for second in 0..150 {
        tell(&mut lab, &[("node-1", &format!("reason {second}")), ("node-2", "")]);
        lab.seconds(1);
    }
    assert_eq!(lab.count("service"), 3, "as it came, and in two of two and a half minutes");
    lab.writes.clear();
    tell(&mut lab, &[("node-1", ""), ("node-2", "node-1 knows better")]);
    lab.seconds(6);
    assert_eq!((says(&lab), lab.count("service")), (None, 1));
    lab.restart();
    lab.seconds(6);
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn an_end_is_told_soon_also_when_a_number_waits() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(2);
    for (count, wait) in [(7, 6), (6, 1), (0, 6)] {
        let counts = (count > 0).then(|| ("node-2".to_owned(), count));
        let left = [("10.0.0.1".parse().unwrap(), counts.into_iter().collect())];
        lab.controller.index.set_left_behind(left.into());
        lab.seconds(wait);
    }
    assert_eq!(lab.record("web").condition(CONNECTIONS_LEFT), None);
}
