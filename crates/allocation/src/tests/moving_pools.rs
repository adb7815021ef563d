//! Pools that are renamed, cut, joined and exchanged while Services have their addresses.

use super::*;

const A: &str = "10.0.0.1-10.0.0.2";
const B: &str = "10.0.0.3-10.0.0.4";

/// Four Services, one at each of four addresses.
fn lab(pools: &[(&str, &[&str])]) -> Lab {
    let mut lab = Lab::with_pools(pools);
    for number in 1..=4 {
        lab.create(&format!("s{number}"));
    }
    assert_unmoved(&lab, "at first");
    lab.writes.clear();
    lab
}

fn assert_unmoved(lab: &Lab, when: &str) {
    for number in 1..=4 {
        let address = format!("10.0.0.{number}");
        assert_eq!(lab.addresses(&format!("s{number}")), [address], "{when}");
    }
}

/// Whatever has changed, nobody moves, neither now nor when everything has settled for good, nor after a restart.
fn assert_stays(mut lab: Lab, when: &str) {
    lab.settle();
    assert_unmoved(&lab, when);
    lab.wait(cluster::GRACE * 2);
    assert_unmoved(&lab, when);
    lab.restart();
    lab.wait(cluster::GRACE * 2);
    assert_unmoved(&lab, when);
    for number in 1..=4 {
        let record = lab.record(&format!("s{number}"));
        assert_eq!(record.condition("arpeggio.dev/AddressExpiring"), None, "{when}");
    }
}

type Step = fn(&mut Lab);

/// Performs the steps in both orders, each with and without time to settle between them.
fn in_any_order(pools: &[(&str, &[&str])], steps: [Step; 2]) {
    for (first, second) in [(0, 1), (1, 0)] {
        for settles in [false, true] {
            let mut lab = lab(pools);
            steps[first](&mut lab);
            if settles {
                lab.settle();
                lab.wait(Duration::from_mins(1));
            }
            steps[second](&mut lab);
            assert_stays(lab, &format!("step {first} first, settles: {settles}"));
        }
    }
}

#[test]
fn a_pool_that_is_renamed_keeps_its_services() {
    in_any_order(
        &[("a", &[A, B])],
        [|lab| lab.cluster.delete_pool("a"), |lab| lab.cluster.set_pool("z", &[A, B])],
    );
}

#[test]
fn a_pool_that_is_cut_in_two_keeps_its_services() {
    in_any_order(
        &[("a", &[A, B])],
        [|lab| lab.cluster.set_pool("a", &[A]), |lab| lab.cluster.set_pool("b", &[B])],
    );
}

#[test]
fn two_pools_that_become_one_keep_their_services() {
    in_any_order(
        &[("a", &[A]), ("b", &[B])],
        [|lab| lab.cluster.set_pool("a", &[A, B]), |lab| lab.cluster.delete_pool("b")],
    );
}

#[test]
fn two_pools_that_exchange_their_addresses_keep_their_services() {
    in_any_order(
        &[("a", &[A]), ("b", &[B])],
        [|lab| lab.cluster.set_pool("a", &[B]), |lab| lab.cluster.set_pool("b", &[A])],
    );
}

#[test]
fn a_pool_that_is_deleted_and_made_anew_keeps_its_services() {
    for settles in [false, true] {
        let mut lab = lab(&[("a", &[A, B])]);
        lab.cluster.delete_pool("a");
        if settles {
            lab.settle();
        }
        lab.cluster.set_pool("a", &[A, B]);
        assert_stays(lab, "made anew");
    }
}
