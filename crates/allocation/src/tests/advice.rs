//! What the next step for a Service is called.

use super::{cluster::now, *};
use crate::Advice;

/// What is said of this Service by an index that has just listed everything.
fn advice(lab: &Lab, name: &str) -> Vec<Advice> {
    let service = arpeggio_api::service::reference(lab.cluster.service(name));
    Controller::started(&lab.cluster).index.advice(&service, &now())
}

#[test]
fn each_step_on_the_way_to_an_address_has_its_words() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1/32"])]);
    lab.cluster.create_service("web", &[]);
    let address = "10.0.0.1".parse().unwrap();
    let would_get = Advice::WouldGet { address, pool: "home".to_owned() };
    assert_eq!(advice(&lab, "web"), [would_get]);
    lab.settle();
    assert_eq!(advice(&lab, "web"), [Advice::Keeps(address)]);
    lab.cluster.clear_status("web", "rival");
    assert_eq!(advice(&lab, "web"), [Advice::Claimed(address)]);
    lab.settle();
    lab.cluster.set_type("web", "ClusterIP");
    assert_eq!(advice(&lab, "web"), [Advice::Withdrawn]);
    lab.settle();
    assert_eq!(advice(&lab, "web"), [Advice::NotServed]);
}

#[test]
fn who_waits_reads_what_its_condition_says() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1/32"])]);
    lab.cluster.create_service("web", &[]);
    lab.settle();
    lab.cluster.create_service("late", &[]);
    lab.settle();
    let said = lab.record("late").conditions[0].message.clone();
    assert_eq!(advice(&lab, "late"), [Advice::Waits(said)]);
}

#[test]
fn who_asks_for_an_address_that_another_service_has_reads_whose_it_is() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.create_service("asks", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    let said = lab.record("asks").conditions[0].message.clone();
    assert!(!said.contains("web"), "{said}");
    let told = format!("{said}. Service default/web has it now");
    assert_eq!(advice(&lab, "asks"), [Advice::Waits(told)]);
}

/// A lock that is left alone is no more claimed by words than by the controller.
#[test]
fn of_a_lock_that_a_newer_release_has_written_the_same_is_said_as_is_done() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1/32"])]);
    lab.create("web");
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/format", "2");
    lab.cluster.clear_status("web", "rival");
    let before = advice(&lab, "web");
    lab.settle();
    let said = lab.record("web").conditions[0].message.clone();
    assert_eq!(before, [Advice::Waits(said.clone())]);
    assert_eq!(advice(&lab, "web"), [Advice::Waits(said)]);
    lab.cluster.set_type("web", "ClusterIP");
    lab.settle();
    assert_eq!(advice(&lab, "web"), [Advice::NotServed]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn what_expires_in_spite_of_a_mistake_is_not_said_to_stay() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.annotate("web", "arpeggio.dev/spread", "x");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.seconds(6);
    let said = advice(&lab, "web");
    let [Advice::Expires { until, .. }, Advice::Waits(why)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert!(until.starts_with("until ") && !why.contains("stays"), "{said:?}");
}
