//! What locks say about which nodes serve their addresses.

use arpeggio_api::{service::request::SPREAD_ANNOTATION as SPREAD, terms::WrittenAnnounceTerms};
use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::{
    announcing::{KEY, spec, with_rules},
    *,
};

impl Lab {
    /// Whether the lock of 10.0.0.1 says that all nodes serve it.
    fn is_spread(&self) -> bool {
        lock::parse(self.lease("address-10.0.0.1")).unwrap().claim.spread
    }

    /// The lock of 10.0.0.1, apart from that and from its version.
    fn without_spread(&self) -> Lease {
        let mut lock = self.lease("address-10.0.0.1").clone();
        lock.metadata.resource_version = None;
        lock.metadata.annotations.as_mut().unwrap().remove(SPREAD);
        lock
    }

    fn say_spread(&mut self, service: &str, value: &str) {
        self.cluster.annotate(service, SPREAD, value);
        self.settle();
    }
}

#[test]
fn spread_is_written_with_the_claim() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(SPREAD, "nodes")]);
    lab.settle();
    assert!(lab.is_spread());
    assert_eq!(lab.writes, ["claim", "service"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

/// What somebody may say of spread, and when.
#[derive(Debug, Clone, Copy)]
enum Said {
    ByService(&'static str),
    ByPool(&'static str),
    Restart,
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        select(vec!["", "nodes", " nodes ", "none", "zones"]).prop_map(Said::ByService),
        select(vec!["none", "nodes"]).prop_map(Said::ByPool),
        Just(Said::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_else_of_the_lock_changes_and_each_change_is_one_write(
        history in proptest::collection::vec(said(), 1..12),
    ) {
        let mut lab = with_rules(&json!([{ "interfaces": ["eth0"] }]));
        lab.create("web");
        lab.cluster.take_lock("10.0.0.1");
        lab.settle();
        lab.wait(Duration::from_secs(2));
        let (lock, had) = (lab.without_spread(), lab.addresses("web"));
        let (mut by_service, mut by_pool, mut expected) = ("", "none", false);
        for said in history {
            let before = expected;
            lab.writes.clear();
            match said {
                Said::ByService(value) => {
                    by_service = value.trim();
                    lab.say_spread("web", value);
                }
                Said::ByPool(value) => {
                    by_pool = value;
                    let rules = json!([{ "interfaces": ["eth0"], "spread": value }]);
                    lab.cluster.set_pool_spec("home", spec(&rules));
                    lab.settle();
                }
                Said::Restart => lab.restart(),
            }
            expected = match by_service {
                "" => by_pool == "nodes",
                // What is not understood changes nothing.
                "zones" => before,
                value => value == "nodes",
            };
            prop_assert_eq!(lab.is_spread(), expected);
            let writes = lab.writes.iter().filter(|it| **it == "amend").count();
            prop_assert_eq!(writes, usize::from(before != expected));
            prop_assert_eq!(lab.without_spread(), lock.clone());
            prop_assert_eq!(lab.addresses("web"), had.clone());
        }
    }
}

#[test]
fn spread_follows_the_rules_of_the_pool_and_a_service_can_refuse_it() {
    let mut lab = with_rules(&json!([{}]));
    lab.create("web");
    assert!(!lab.is_spread());
    let nodes = json!([{ "spread": "nodes" }]);
    lab.cluster.set_pool_spec("home", spec(&nodes));
    lab.settle();
    assert!(lab.is_spread());
    assert_eq!(lab.terms(), WrittenAnnounceTerms::default(), "speakers are not told");
    lab.say_spread("web", "none");
    assert!(!lab.is_spread());
    lab.say_spread("web", "");
    assert!(lab.is_spread());
    lab.cluster.delete_pool("home");
    lab.restart();
    assert!(lab.is_spread(), "what was good last stays");
    lab.cluster.set_pool_spec("home", spec(&json!([])));
    lab.settle();
    assert!(!lab.is_spread());
}

#[test]
fn one_of_the_services_that_share_an_address_is_enough_to_spread_it() {
    let mut lab = Lab::with_pools(&[HOME]);
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    lab.say_spread("b", "nodes");
    assert!(lab.is_spread());
    lab.say_spread("a", "none");
    assert!(lab.is_spread());
    lab.cluster.delete_service("b");
    lab.settle();
    assert_eq!((lab.is_spread(), lab.sharers("10.0.0.1")), (false, vec!["a".into()]));
}

#[test]
fn what_is_not_understood_of_spread_is_told_and_changes_nothing() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(SPREAD, "nodes")]);
    lab.settle();
    lab.say_spread("web", "zones");
    assert!(lab.says("web").contains("arpeggio.dev/spread: \"zones\" is not known: write nodes"));
    assert_eq!((lab.is_spread(), lab.addresses("web").len()), (true, 1));
    lab.restart();
    assert_eq!((lab.is_spread(), lab.addresses("web").len()), (true, 1));
    lab.say_spread("web", "none");
    assert!(!lab.is_spread() && lab.says("web").starts_with("True: "));
}

#[test]
fn what_a_newer_release_says_of_spread_stays_unless_something_else_is_to_be_said() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.writes.clear();
    lab.cluster.damage_lease("address-10.0.0.1", SPREAD, "zones");
    lab.settle();
    assert_eq!((lab.writes.len(), lab.is_spread()), (0, false));
    lab.say_spread("web", "nodes");
    assert!(lab.is_spread());
}
