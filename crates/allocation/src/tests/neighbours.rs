//! Other programs that write what we write, and what they leave behind.

use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec},
    reservations::Reservations,
    service::{ADDRESS_ALLOCATED, ADDRESS_CONFLICT, FIELD_MANAGER, STATUS_CONTESTED},
};

use super::*;
use crate::Advice;

const WIDE: (&str, &[&str]) = ("home", &["10.0.0.1-10.0.0.20"]);

/// A cluster whose node n1 has this address.
fn lab_with_node(address: &str) -> Lab {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.set_node(address);
    lab
}

impl Lab {
    fn set_node(&mut self, address: &str) {
        let mut reserved = Reservations::default();
        reserved.add_node("n1", [address.parse().unwrap()]);
        self.controller.index.set_reserved(reserved);
    }

    fn contest(&self, name: &str) -> Option<String> {
        self.record(name).condition(STATUS_CONTESTED).map(|it| it.message.clone())
    }
}

#[test]
fn a_rival_that_clears_the_status_costs_few_writes_and_is_named_once() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.writes.clear();
    for _ in 0..50 {
        lab.cluster.clear_status("web", "cilium-operator");
        lab.wait(Duration::from_millis(600));
    }
    assert!(lab.count("service") <= 7, "{:?}", lab.writes);
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"], "written again in the end");
    let contest = lab.contest("web").unwrap();
    for part in ["\"cilium-operator\"", "spec.loadBalancerClass", "enable-lb-ipam"] {
        assert!(contest.contains(part), "{contest}");
    }
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated", "RivalWriter"]);
    assert_eq!(lab.locks(), ["address-10.0.0.1"]);
}

/// What is written against a rival is seldom written at once: the rival writes, too.
#[test]
fn a_rival_that_is_faster_each_time_is_named_when_a_status_is_restored() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.cluster.clear_status("web", "cilium-operator");
    lab.settle();
    lab.seconds(2);
    for _ in 0..6 {
        lab.cluster.clear_status("web", "cilium-operator");
        // The lock is written first, and then the status.
        for is_faster in [false, true] {
            lab.controller.hear_all(&lab.cluster);
            let tasks = lab.controller.decide(&cluster::after(lab.time));
            if is_faster {
                lab.cluster.clear_status("web", "cilium-operator");
            }
            tasks.into_iter().for_each(|task| lab.perform(task));
        }
        lab.time += Duration::from_secs(1);
    }
    lab.seconds(3);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"], "what was not written counts as no round");
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated", "RivalWriter"]);
}

/// Another process has withdrawn the address meanwhile; that was no rival.
#[test]
fn who_decides_after_another_takes_its_writes_for_nobodys_attack() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    let mut other = Controller::started(&lab.cluster);
    std::mem::swap(&mut other, &mut lab.controller);
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.wait(cluster::GRACE + Duration::from_secs(10));
    assert_eq!(lab.addresses("web"), [""; 0]);
    std::mem::swap(&mut other, &mut lab.controller);
    lab.told.clear();
    lab.cluster.set_pool(WIDE.0, WIDE.1);
    lab.controller.hear_all(&lab.cluster);
    lab.controller.index.takes_over();
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated"]);
}

#[test]
fn a_rival_that_changes_something_else_of_the_status_costs_few_writes_and_is_named_once() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.writes.clear();
    for _ in 0..50 {
        lab.cluster.set_ip_mode("web", "Proxy", "hairpin");
        lab.wait(Duration::from_millis(600));
    }
    assert!(lab.count("service") <= 8, "{:?}", lab.writes);
    let contest = lab.contest("web").unwrap();
    assert!(contest.contains("\"hairpin\""), "{contest}");
    let reasons: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert_eq!(reasons, ["IPAllocated", "RivalWriter"]);
}

#[test]
fn a_webhook_that_drops_what_we_write_costs_few_writes() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.cluster.drops = Some("arpeggio.dev/AddressAllocated");
    lab.create("web");
    lab.seconds(600);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.count("service") <= 20, "{:?}", lab.writes);
}

#[test]
fn a_webhook_that_drops_what_we_write_on_locks_costs_few_writes() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.cluster.drops = Some("arpeggio.dev/announce");
    lab.create("web");
    lab.cluster.announce_on("home", "eth1");
    lab.seconds(600);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.writes.len() <= 35, "{:?}", lab.writes);
}

#[test]
fn a_lock_that_waits_for_a_finalizer_is_no_free_address_and_costs_few_writes() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    let name = "address-10.0.0.1";
    lab.cluster.set_finalizers(name, &["example.org/backup"]);
    lab.cluster.delete_service("web");
    lab.writes.clear();
    lab.create("next");
    lab.seconds(600);
    assert_eq!((lab.addresses("next").len(), lab.locks().len()), (0, 1));
    assert!(lab.writes.len() <= 35, "{:?}", lab.writes);
    lab.cluster.set_finalizers(name, &[]);
    lab.settle();
    assert_eq!(lab.addresses("next"), ["10.0.0.1"]);
}

#[test]
fn a_condition_that_another_program_holds_on_to_is_said_not_to_hold() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    for type_ in ["arpeggio.dev/AddressExpiring", "arpeggio.dev/AddressConflict"] {
        lab.cluster.hold_condition("web", type_, "restore");
    }
    lab.seconds(60);
    assert!(lab.count("service") <= 3, "{:?}", lab.writes);
    let record = lab.record("web");
    let expiring = record.condition("arpeggio.dev/AddressExpiring").unwrap();
    assert_eq!((expiring.status.as_str(), expiring.reason.as_str()), ("False", "NotSo"));
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
    lab.cluster.set_type("web", "ClusterIP");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn a_list_that_another_program_has_made_its_own_is_cleared_with_the_last_address() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.cluster.usurp_status("web", "kube-vip");
    lab.settle();
    lab.wait(cluster::GRACE);
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
    let told: Vec<_> = lab.told.iter().map(|news| news.reason).collect();
    assert!(told.contains(&"ClearAssignment"), "{told:?}");
    lab.seconds(60);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn an_address_that_is_listed_twice_is_one() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.writes.clear();
    lab.cluster.set_ingresses("web", &["10.0.0.1", "10.0.0.1"], "kube-vip");
    lab.settle();
    assert_eq!(
        (lab.addresses("web"), lab.writes.as_slice()),
        (vec!["10.0.0.1".to_owned()], &["service"][..])
    );
    assert_eq!(lab.record("web").ingress.managers, [FIELD_MANAGER]);
}

#[test]
fn an_address_that_a_foreign_list_has_too_stays_claimed() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.cluster.set_ingresses("web", &["10.0.0.1", "203.0.113.9"], "cloud");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1", "203.0.113.9"]);
    assert!(lab.says("web").contains("written by cloud"), "{}", lab.says("web"));
    assert_eq!(lab.locks(), ["address-10.0.0.1"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn what_another_program_has_listed_something_else_for_is_kept_for_the_grace_period() {
    for (restarts, is_undone) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
        lab.create("web");
        lab.create("waits");
        lab.cluster.set_ingresses("web", &["203.0.113.9"], "cloud");
        lab.settle();
        assert_eq!((lab.addresses("web"), lab.locks().len()), (vec!["203.0.113.9".to_owned()], 1));
        if restarts {
            lab.restart();
            assert_eq!(lab.writes, [""; 0]);
        }
        lab.wait(Duration::from_secs(590));
        assert_eq!(lab.addresses("waits"), [""; 0]);
        if is_undone {
            lab.cluster.clear_status("web", "cloud");
        }
        lab.wait(cluster::GRACE);
        let (web, waits) = if is_undone { ("10.0.0.1", 0) } else { ("203.0.113.9", 1) };
        assert_eq!((lab.addresses("web"), lab.addresses("waits").len()), (vec![web.into()], waits));
        lab.wait(cluster::GRACE);
        lab.restart();
        assert_eq!((lab.writes.len(), lab.addresses("web")), (0, vec![web.to_owned()]));
    }
}

/// A Service with an address of each family that another program lists only the first one of, beside one of its own.
fn half_listed() -> Lab {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1", "fd00::1"])]);
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_cluster_addresses("web", &["10.96.0.1", "fd00:96::1"]);
    lab.cluster.require_dual_stack("web");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1", "fd00::1"]);
    lab.cluster.set_ingresses("web", &["10.0.0.1", "203.0.113.9"], "cloud");
    lab
}

#[test]
fn a_list_of_another_program_stays_also_while_nothing_can_be_written_on_locks() {
    for is_silent in [false, true] {
        let mut lab = half_listed();
        (lab.cluster.refuses, lab.cluster.is_silent) = (Some("patch Lease"), is_silent);
        for _ in 0..180 {
            lab.seconds(1);
            assert_eq!(lab.addresses("web"), ["10.0.0.1", "203.0.113.9"]);
        }
        assert!(lab.says("web").contains("written by cloud"), "{}", lab.says("web"));
        assert_eq!(lab.locks().len(), 2);
        lab.cluster.refuses = None;
        lab.seconds(60);
        lab.wait(cluster::GRACE);
        assert_eq!(lab.addresses("web"), ["10.0.0.1", "203.0.113.9"]);
        assert_eq!(lab.locks(), ["address-10.0.0.1"]);
    }
}

#[test]
fn each_time_that_another_program_takes_an_address_off_its_list_the_grace_period_begins_anew() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    for (list, minutes) in
        [(&["203.0.113.9"][..], 5), (&["10.0.0.1", "203.0.113.9"], 6), (&["203.0.113.9"], 9)]
    {
        lab.cluster.set_ingresses("web", list, "cloud");
        lab.seconds(minutes * 60);
    }
    assert_eq!(lab.locks(), ["address-10.0.0.1"]);
    lab.restart();
    assert_eq!(lab.count("amend") + lab.count("release"), 0);
    lab.wait(Duration::from_mins(2));
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn who_was_kept_beside_a_list_of_another_program_has_the_whole_grace_period_of_its_pool() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    lab.cluster.set_ingresses("web", &["203.0.113.9"], "cloud");
    lab.settle();
    lab.wait(Duration::from_mins(9));
    lab.cluster.delete_pool("home");
    lab.wait(Duration::from_secs(30));
    lab.cluster.clear_status("web", "cloud");
    lab.settle();
    lab.wait(Duration::from_mins(9));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.record("web").condition("arpeggio.dev/AddressExpiring").is_some());
    lab.wait(Duration::from_mins(1));
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
}

#[test]
fn who_has_an_address_beside_a_list_of_another_program_is_told_until_when() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    lab.told.clear();
    lab.cluster.set_ingresses("web", &["203.0.113.9"], "cloud");
    lab.seconds(300);
    let kept = "; 10.0.0.1 is kept until 1970-01-01T00:10:01Z";
    assert!(lab.says("web").ends_with(kept), "{}", lab.says("web"));
    assert_eq!((lab.told.len(), lab.last_note().ends_with(kept)), (1, true), "{:?}", lab.told);
    let service = arpeggio_api::service::reference(lab.cluster.service("web"));
    let index = Controller::started(&lab.cluster).index;
    let advice = index.advice(&service, &cluster::after(lab.time));
    let said = lab.record("web").condition(ADDRESS_ALLOCATED).unwrap().message.clone();
    assert_eq!(advice, [Advice::Waits(said)]);
    lab.wait(cluster::GRACE);
    assert!(!lab.says("web").contains("is kept"), "{}", lab.says("web"));
}

#[test]
fn a_status_that_is_cleared_once_is_written_again_at_once() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.cluster.clear_status("web", "kubectl-edit");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.contest("web")), (vec!["10.0.0.1".to_owned()], None));
}

#[test]
fn a_rival_that_has_gone_is_forgotten() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    for _ in 0..3 {
        lab.cluster.clear_status("web", "cilium-operator");
        lab.wait(Duration::from_secs(5));
    }
    assert!(lab.contest("web").is_some());
    for _ in 0..12 {
        lab.wait(Duration::from_mins(1));
    }
    assert_eq!(lab.contest("web"), None);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn what_the_user_changes_during_a_contest_is_done() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    for _ in 0..8 {
        lab.cluster.clear_status("web", "cilium-operator");
        lab.wait(Duration::from_millis(100));
    }
    lab.cluster.set_type("web", "ClusterIP");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
}

#[test]
fn the_address_of_a_node_is_never_adopted_whoever_wrote_it() {
    for manager in ["k3s", "controller", "somebody"] {
        let mut lab = lab_with_node("10.0.0.3");
        lab.cluster.create_service("web", &[]);
        lab.cluster.set_ingress("web", "10.0.0.3", manager);
        lab.settle();
        assert_eq!(lab.addresses("web"), ["10.0.0.1"], "a status of nodes' addresses is replaced");
        assert_eq!(lab.locks(), ["address-10.0.0.1"]);
        let told = format!("instead of 10.0.0.3, which {manager} had left in the status");
        assert!(lab.last_note().contains(&told), "{}", lab.last_note());
    }
}

/// What else may stand beside a node's address.
#[test]
fn the_address_of_a_node_is_never_adopted_however_it_is_written() {
    let mut lab = lab_with_node("10.0.0.3");
    let lists: [&[&str]; 5] = [
        &["::ffff:10.0.0.3"],
        &["10.0.0.3", "10.0.0.3"],
        &["10.0.0.3", "::ffff:10.0.0.3"],
        &["203.0.113.9", "10.0.0.3"],
        &["10.0.0.3", "10.0.0.7"],
    ];
    for (number, list) in lists.iter().enumerate() {
        let name = format!("web-{number}");
        lab.cluster.create_service(&name, &[]);
        lab.cluster.set_ingresses(&name, list, "k3s");
    }
    lab.cluster.create_service("named", &[]);
    lab.cluster.set_hostname("named", Some("10.0.0.3"), "node-1.example.com", "k3s");
    lab.cluster.create_service("name-alone", &[]);
    lab.cluster.set_hostname("name-alone", None, "node-1.example.com", "k3s");
    lab.cluster.create_service("by-proxy", &[]);
    lab.cluster.set_ingress("by-proxy", "10.0.0.3", "k3s");
    lab.cluster.set_ip_mode("by-proxy", "Proxy", "k3s");
    lab.settle();
    assert!(!lab.locks().contains(&"address-10.0.0.3".to_owned()), "{:?}", lab.locks());
    for name in ["web-0", "web-1", "web-2", "by-proxy", "named"] {
        assert!(lab.says(name).starts_with("True: "), "{name}: {}", lab.says(name));
        assert!(lab.record(name).ingress.is_ours(), "{name}");
    }
    assert_eq!(lab.addresses("web-4"), ["10.0.0.7"], "no node has the other one");
    for name in ["web-3", "name-alone"] {
        assert!(lab.says(name).contains("written by k3s"), "{name}: {}", lab.says(name));
    }
}

#[test]
fn an_address_that_a_node_has_got_goes_to_nobody_else() {
    let key = ("arpeggio.dev/sharing-key", "web");
    let asks = ("arpeggio.dev/addresses", "10.0.0.1");
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.cluster.create_service_on("web", &[key], 80);
    lab.settle();
    lab.set_node("10.0.0.1");
    lab.cluster.create_service_on("joins", &[key], 81);
    lab.cluster.create_service_on("asks", &[key, asks], 82);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.addresses("joins"), ["10.0.0.2"]);
    assert!(lab.says("asks").contains("it is an address of node n1"), "{}", lab.says("asks"));
    lab.cluster.delete_service("web");
    lab.settle();
    assert_eq!(lab.addresses("asks"), [""; 0]);
    lab.set_node("10.0.0.9");
    lab.settle();
    assert_eq!(lab.addresses("asks"), ["10.0.0.1"], "the node has another one now");
}

#[test]
fn who_comes_again_does_not_inherit_what_a_node_has_got_meanwhile() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.periods.succession = Duration::from_secs(5);
    lab.restart();
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.set_node("10.0.0.1");
    lab.settle();
    lab.create("web");
    lab.seconds(6);
    assert_eq!(lab.addresses("web"), ["10.0.0.2"]);
}

#[test]
fn an_address_that_we_gave_stays_when_a_node_says_that_it_has_it() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.set_node("10.0.0.1");
    lab.cluster.annotate("web", "team", "blue");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_status_that_may_be_somebodys_is_replaced_when_the_user_says_so() {
    let mut lab = lab_with_node("10.0.0.3");
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_ingress("web", "203.0.113.9", "cloud");
    lab.settle();
    let said = lab.says("web");
    assert!(said.contains("written by cloud") && said.contains("take-over=true"), "{said}");
    lab.cluster.annotate("web", "arpeggio.dev/take-over", "true");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.record("web").ingress.managers, [FIELD_MANAGER]);
}

#[test]
fn a_service_that_is_being_deleted_keeps_what_it_has_and_gets_nothing_new() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("has");
    lab.cluster.begin_deletion("has", "load-balancer-cleanup");
    lab.cluster.create_service("new", &[]);
    lab.cluster.begin_deletion("new", "load-balancer-cleanup");
    lab.settle();
    assert_eq!((lab.addresses("has"), lab.addresses("new").len()), (vec!["10.0.0.1".into()], 0));
    assert!(
        lab.says("new").contains("the Service is being deleted since 1970"),
        "{}",
        lab.says("new")
    );
    lab.cluster.annotate("has", "arpeggio.dev/addresses", "10.0.0.5");
    lab.settle();
    assert_eq!(lab.addresses("has"), ["10.0.0.1"]);
    lab.cluster.create_service("asks", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    let said = lab.says("asks");
    assert!(said.contains("is being deleted since 1970"), "{said}");
    assert!(said.contains("finalizers (load-balancer-cleanup)"), "{said}");
}

#[test]
fn a_pool_that_is_being_deleted_gives_nothing_new() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("has");
    let before = lab.addresses("has");
    lab.cluster.begin_pool_deletion("home");
    lab.create("new");
    assert_eq!((lab.addresses("has"), lab.addresses("new").len()), (before.clone(), 0));
    let said = lab.says("new");
    assert!(said.contains("has a metadata.deletionTimestamp"), "{said}");
    // Who comes again has it already, and a controller that starts knows no more.
    lab.cluster.delete_service("has");
    lab.create("has");
    lab.restart();
    lab.settle();
    assert_eq!((lab.addresses("has"), lab.addresses("new").len()), (before.clone(), 0));
    lab.pool_statuses();
    let ready = lab.cluster.pools().find(|it| it.metadata.name.as_deref() == Some("home"));
    let ready = ready.and_then(|it| it.status.clone()).unwrap().conditions.remove(0);
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Terminating"));
    lab.cluster.set_pool("other", &["10.0.9.1"]);
    lab.settle();
    assert_eq!(lab.addresses("new"), ["10.0.9.1"]);
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.wait(cluster::GRACE);
    assert_ne!(lab.addresses("has"), before, "now it is gone");
}

#[test]
fn who_waits_for_a_service_that_is_being_deleted_is_told_what_holds_it_now() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("old");
    lab.cluster.create_service("new", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.cluster.begin_deletion("old", "example.com/first");
    lab.settle();
    assert!(lab.says("new").contains("example.com/first"), "{}", lab.says("new"));
    lab.cluster.begin_deletion("old", "example.com/second");
    lab.settle();
    assert!(lab.says("new").contains("example.com/second"), "{}", lab.says("new"));
}

#[test]
fn a_namespace_that_is_not_known_yet_selects_nothing_and_refuses_nothing() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.controller.index.forget_namespace("default");
    lab.create("web");
    assert_eq!((lab.writes.len(), lab.locks().len()), (0, 0));
    lab.controller.index.set_namespace("default", Labels::new());
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_service_keeps_its_address_when_its_namespace_is_not_known() {
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.controller.index.forget_namespace("default");
    lab.cluster.annotate("web", "team", "blue");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.locks().len()), (vec!["10.0.0.1".to_owned()], 1));
}

#[test]
fn who_waits_is_served_in_the_order_of_creation() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("one");
    lab.create("two");
    for (second, name) in ["z", "a", "m"].into_iter().enumerate() {
        lab.cluster.create_service(name, &[]);
        lab.cluster.set_created(name, second.try_into().unwrap());
    }
    lab.settle();
    for (freed, served) in [("one", "z"), ("two", "a"), ("z", "m")] {
        lab.cluster.delete_service(freed);
        lab.settle();
        assert_eq!(lab.addresses(served).len(), 1, "{served} is next");
    }
}

/// Who was there before, and did not ask, has not waited.
#[test]
fn who_begins_to_wait_later_is_served_later_however_old_it_is() {
    for restarts in [false, true] {
        let mut lab = Lab::with_pools(&[HOME, ("small", &["10.1.0.1"])]);
        lab.time = Duration::from_secs(100);
        lab.cluster.create_service("sleeps", &[]);
        lab.cluster.set_type("sleeps", "ClusterIP");
        lab.cluster.create_service("has", &[("arpeggio.dev/address-pool", "small")]);
        for (name, second) in [("one", 1), ("two", 2), ("sleeps", 3), ("has", 4)] {
            if second < 3 {
                lab.cluster.create_service(name, &[("arpeggio.dev/address-pool", "home")]);
            }
            lab.cluster.set_created(name, second);
        }
        lab.settle();
        assert_eq!(lab.addresses("has"), ["10.1.0.1"]);
        let wait = |lab: &mut Lab, name: &str| {
            lab.wait(Duration::from_secs(10));
            lab.cluster.create_service(name, &[("arpeggio.dev/address-pool", "home")]);
            lab.cluster.set_created(name, lab.time.as_secs().try_into().unwrap());
            lab.settle();
        };
        wait(&mut lab, "early");
        lab.wait(Duration::from_secs(10));
        lab.cluster.set_type("sleeps", "LoadBalancer");
        lab.cluster.annotate("sleeps", "arpeggio.dev/address-pool", "home");
        lab.settle();
        lab.wait(Duration::from_secs(10));
        lab.cluster.annotate("has", "arpeggio.dev/address-pool", "home");
        lab.settle();
        wait(&mut lab, "late");
        if restarts {
            lab.restart();
        }
        let order = ["one", "two", "early", "sleeps", "has", "late"];
        for (freed, served) in order.iter().zip(&order[2..]) {
            lab.cluster.delete_service(freed);
            lab.settle();
            assert!(lab.addresses(served).iter().any(|it| it.starts_with("10.0.")), "{served}");
        }
    }
}

/// A cluster in which it is late, and then it turns out that it is hours earlier.
const PUT_BACK: Duration = Duration::from_hours(5);

#[test]
fn a_pause_lasts_no_longer_because_the_clock_was_put_back() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.time += PUT_BACK;
    lab.create("web");
    for _ in 0..20 {
        lab.cluster.clear_status("web", "cilium-operator");
        lab.settle();
    }
    assert_eq!(lab.addresses("web"), [""; 0], "it is left to the rival for a while");
    lab.time -= PUT_BACK;
    lab.settle();
    lab.seconds(60);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn what_was_refused_is_tried_again_though_the_clock_was_put_back() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.time += PUT_BACK;
    lab.cluster.refuses = Some("create Lease");
    lab.create("web");
    lab.seconds(60);
    lab.cluster.refuses = None;
    lab.time -= PUT_BACK;
    lab.settle();
    lab.seconds(60);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn what_nobody_answers_is_told_though_the_clock_was_put_back() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.time += PUT_BACK;
    (lab.cluster.refuses, lab.cluster.is_silent) = (Some("create Lease"), true);
    lab.create("web");
    lab.seconds(10);
    lab.time -= PUT_BACK;
    lab.settle();
    lab.seconds(120);
    assert_eq!(lab.says("web"), "False: the API server fails to create Lease: no answer");
}

#[test]
fn a_deleted_services_address_is_given_back_though_the_clock_was_put_back() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.periods.succession = Duration::from_secs(3);
    lab.time += PUT_BACK;
    lab.restart();
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.time -= PUT_BACK;
    lab.settle();
    lab.seconds(4);
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn what_was_written_by_a_clock_far_ahead_lasts_no_longer() {
    let mut lab = Lab::with_pools(&[]);
    let spec = AddressPoolSpec {
        addresses: vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())],
        reuse_cool_down_seconds: 60,
        ..AddressPoolSpec::default()
    };
    lab.cluster.set_pool_spec("home", spec.clone());
    lab.time += PUT_BACK;
    for name in ["a", "b"] {
        lab.create(name);
    }
    lab.cluster.delete_service("a");
    lab.settle();
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.time -= PUT_BACK;
    lab.cluster.set_pool_spec("home", spec);
    lab.restart();
    lab.create("next");
    assert_eq!(lab.addresses("next"), [""; 0], "it rests");
    lab.seconds(61);
    assert_eq!(lab.addresses("next"), ["10.0.0.1"]);

    lab.time += PUT_BACK;
    lab.cluster.delete_pool("home");
    lab.settle();
    assert_eq!(lab.addresses("b"), ["10.0.0.2"]);
    lab.time -= PUT_BACK;
    lab.restart();
    lab.wait(cluster::GRACE);
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.addresses("b"), [""; 0], "the grace period is over");
}

#[test]
fn who_has_an_address_that_a_node_gets_is_told_when_it_lasts() {
    let conflict = |lab: &Lab| lab.record("web").condition(ADDRESS_CONFLICT).cloned();
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.cluster.create_service("web", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    lab.create("other");
    lab.writes.clear();
    lab.set_node("10.0.0.1");
    lab.seconds(4);
    lab.set_node("10.0.0.9");
    lab.seconds(60);
    assert_eq!(lab.writes, [""; 0], "it had it for a moment only");
    lab.set_node("10.0.0.1");
    lab.seconds(6);
    let told = conflict(&lab).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "MachineHasIt"));
    let begin = "10.0.0.1: it is an address of node n1, as well as the Service's";
    assert!(told.message.starts_with(begin), "{}", told.message);
    assert_eq!((lab.writes.as_slice(), lab.last_note()), (&["service"][..], told.message.as_str()));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"], "it keeps it");
    // An address that wanders from node to node.
    for round in 0..240 {
        let mut reserved = Reservations::default();
        let node = if round % 2 == 0 { "n1" } else { "n2" };
        reserved.add_node(node, ["10.0.0.1".parse().unwrap()]);
        lab.controller.index.set_reserved(reserved);
        lab.seconds(1);
    }
    assert!(lab.count("service") <= 6, "{:?}", lab.writes);
    lab.set_node("10.0.0.9");
    lab.seconds(6);
    assert_eq!(conflict(&lab), None);
    // A stranger who is heard is told at once, and by the name of the node.
    lab.set_node("10.0.0.1");
    lab.seconds(6);
    lab.cluster.find_stranger("10.0.0.1", [2, 0, 0, 0, 0, 9]);
    lab.settle();
    assert_eq!(conflict(&lab).unwrap().reason, "StrangerAnswers");
    assert_eq!(lab.record("other").condition(ADDRESS_CONFLICT), None);
}

/// Another load balancer on a node, or its kernel, answers for what a fellow announces.
#[test]
fn a_node_that_answers_beside_the_one_that_announces_is_a_conflict_while_it_lasts() {
    let conflict = |lab: &Lab| lab.record("web").condition(ADDRESS_CONFLICT).cloned();
    let mut lab = Lab::with_pools(&[WIDE]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.settle();
    lab.seconds(2);
    lab.writes.clear();
    let news = lab.told.len();
    // For less time than it takes to be told.
    lab.cluster.dispute("10.0.0.1", Some("node-2"));
    lab.seconds(3);
    lab.cluster.dispute("10.0.0.1", None);
    lab.seconds(10);
    assert_eq!(lab.writes, [""; 0]);
    lab.cluster.dispute("10.0.0.1", Some("node-2"));
    lab.seconds(6);
    let told = conflict(&lab).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "NodeAnswersToo"));
    let begin = "10.0.0.1: node node-2 answers as well, though node-1 announces it";
    assert!(told.message.starts_with(begin), "{}", told.message);
    lab.seconds(600);
    assert_eq!(lab.count("service"), 1, "{:?}", lab.writes);
    assert_eq!(lab.told.len(), news, "the speaker has told of it");
    // It goes on when the holder says so of another node, and ends with the lock's holder.
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(10);
    assert_eq!(conflict(&lab), None);
    // Then by a machine that is no node.
    lab.cluster.dispute("10.0.0.1", Some("02:00:00:00:00:09"));
    lab.seconds(70);
    let told = conflict(&lab).unwrap();
    assert_eq!(told.reason, "StrangerAnswersToo");
    let begin = "10.0.0.1: a machine that is no node of this cluster (02:00:00:00:00:09) announces it as well as node-1";
    assert!(told.message.starts_with(begin), "{}", told.message);
    // It is there whichever node announces the address.
    lab.cluster.take_lock("10.0.0.1");
    lab.seconds(70);
    assert_eq!(conflict(&lab).unwrap().reason, "StrangerAnswersToo");
    lab.cluster.dispute("10.0.0.1", None);
    lab.seconds(10);
    assert_eq!(conflict(&lab), None);
}
