//! Services that ask for each other's addresses.

use arpeggio_api::address_pool::{AddressItem, AddressPoolSpec};

use super::*;

const ADDRESSES: &str = "arpeggio.dev/addresses";

/// Services s1, s2, ... that have the addresses 10.0.0.1, 10.0.0.2, ..., of a pool without any other.
fn lab(services: usize) -> Lab {
    lab_of(AddressPoolSpec::default(), services)
}

fn lab_of(spec: AddressPoolSpec, services: usize) -> Lab {
    let mut lab = Lab::with_pools(&[]);
    let addresses = vec![AddressItem(format!("10.0.0.1-10.0.0.{services}"))];
    lab.cluster.set_pool_spec("home", AddressPoolSpec { addresses, ..spec });
    for number in 1..=services {
        lab.create(&format!("s{number}"));
        assert_eq!(lab.addresses(&format!("s{number}")), [format!("10.0.0.{number}")]);
    }
    lab.writes.clear();
    lab
}

fn ask(lab: &mut Lab, number: usize, last: usize) {
    lab.cluster.annotate(&format!("s{number}"), ADDRESSES, &format!("10.0.0.{last}"));
    lab.settle();
}

/// The last bytes of what they have.
fn have(lab: &Lab, services: usize) -> Vec<String> {
    let of = |number: usize| lab.addresses(&format!("s{number}")).join(" ").replace("10.0.0.", "");
    (1..=services).map(of).collect()
}

#[test]
fn services_that_ask_for_each_other_s_addresses_get_them() {
    for services in 2..=5 {
        let mut lab = lab(services);
        // Somebody has waited for any address all the time, and somebody for one of those.
        lab.create("any");
        lab.cluster.create_service("first", &[(ADDRESSES, "10.0.0.1")]);
        lab.settle();
        for number in 1..services {
            ask(&mut lab, number, number + 1);
            assert!(lab.says(&format!("s{number}")).contains("stays until then"));
        }
        ask(&mut lab, services, 1);
        let expected: Vec<String> =
            (2..=services).chain([1]).map(|last: usize| last.to_string()).collect();
        assert_eq!(have(&lab, services), expected);
        assert_eq!((lab.addresses("any").len(), lab.addresses("first").len()), (0, 0));
        let told: Vec<&str> = lab.told.iter().map(|it| it.note.as_str()).collect();
        let gave_up = told.iter().filter(|it| it.contains("The Services exchange"));
        assert_eq!(gave_up.count(), 1, "{told:?}");
        let released = "Released 10.0.0.1: the Services exchange their addresses";
        assert!(told.contains(&released), "{told:?}");
        lab.writes.clear();
        lab.restart();
        lab.wait(cluster::GRACE * 2);
        assert_eq!((have(&lab, services), lab.writes.len()), (expected, 0));
    }
}

#[test]
fn who_does_not_close_the_ring_keeps_what_it_has() {
    let mut lab = lab(3);
    ask(&mut lab, 1, 2);
    ask(&mut lab, 2, 3);
    assert_eq!(have(&lab, 3), ["1", "2", "3"]);
    // Who is being deleted gets nothing.
    lab.cluster.begin_deletion("s3", "example.com/wait");
    ask(&mut lab, 3, 1);
    lab.wait(cluster::GRACE * 2);
    assert_eq!(have(&lab, 3), ["1", "2", "3"]);
}

#[test]
fn what_would_rest_is_not_exchanged() {
    let spec = AddressPoolSpec { reuse_cool_down_seconds: 300, ..AddressPoolSpec::default() };
    let mut lab = lab_of(spec, 2);
    ask(&mut lab, 1, 2);
    ask(&mut lab, 2, 1);
    lab.wait(cluster::GRACE * 2);
    assert_eq!(have(&lab, 2), ["1", "2"]);
}

#[test]
fn a_controller_that_dies_at_any_moment_leaves_the_exchange_to_the_next_one() {
    for dies_after in 0..14 {
        let mut lab = lab(2);
        lab.create("any");
        ask(&mut lab, 1, 2);
        lab.cluster.annotate("s2", ADDRESSES, "10.0.0.1");
        let mut done = 0;
        'life: loop {
            lab.controller.hear_all(&lab.cluster);
            let tasks = lab.controller.decide(&cluster::after(lab.time));
            if tasks.is_empty() {
                break;
            }
            for task in tasks {
                if done == dies_after {
                    break 'life;
                }
                done += 1;
                let report = lab.cluster.perform_at_once(task);
                lab.controller.index.finish(report, &cluster::after(lab.time));
            }
        }
        lab.restart();
        lab.wait(Duration::from_mins(1));
        assert_eq!(have(&lab, 2), ["2", "1"], "after {dies_after} writes");
        assert!(lab.addresses("any").is_empty());
    }
}

#[test]
fn a_mind_that_is_changed_in_time_changes_nothing() {
    let mut lab = lab(2);
    ask(&mut lab, 1, 2);
    lab.cluster.annotate("s2", ADDRESSES, "10.0.0.1");
    // Only the first promise is made.
    lab.controller.hear_all(&lab.cluster);
    for task in lab.controller.decide(&cluster::after(lab.time)) {
        let report = lab.cluster.perform_at_once(task);
        lab.controller.index.finish(report, &cluster::after(lab.time));
    }
    lab.cluster.annotate("s2", ADDRESSES, "10.0.0.2");
    lab.settle();
    assert_eq!(have(&lab, 2), ["1", "2"]);
    lab.cluster.delete_service("s2");
    lab.settle();
    assert_eq!(have_only(&lab, "s1"), "2", "it waits for it as ever");
}

fn have_only(lab: &Lab, name: &str) -> String {
    lab.addresses(name).join(" ").replace("10.0.0.", "")
}
