//! The API server goes back to an earlier state, as after etcd was restored from a backup: all versions are lower than
//! those that speakers know.

use crate::sim::{Sim, ip, millis, secs};

const ADDRESSES: u8 = 6;

fn settled() -> Sim {
    let mut sim = Sim::new(3);
    (0..ADDRESSES).for_each(|last| sim.create_lock(ip(last)));
    sim.run(secs(3));
    sim
}

fn owners(sim: &Sim) -> Vec<usize> {
    (0..ADDRESSES).map(|last| sim.only_announcer(ip(last))).collect()
}

/// Every millisecond somebody announces each address, whatever the API server has forgotten.
fn watch(sim: &mut Sim, count: u64) {
    for _ in 0..count {
        sim.run(millis(1));
        let nobodys = (0..ADDRESSES).find(|last| sim.announcers(ip(*last)).is_empty());
        assert_eq!(nobodys, None, "{:#?}", sim.log);
    }
}

#[test]
fn addresses_that_have_moved_since_are_where_the_backup_has_them_or_where_they_were() {
    let mut sim = settled();
    let backup = sim.backup();
    (0..ADDRESSES).for_each(|last| sim.ask_to_move(ip(last), 1));
    watch(&mut sim, 10_000);
    assert_eq!(owners(&sim), [1; ADDRESSES as usize]);
    sim.restore(backup);
    watch(&mut sim, 15_000);
    let owners = owners(&sim);
    let held: Vec<_> = (0..ADDRESSES).filter_map(|last| sim.holder(ip(last))).collect();
    assert_eq!(owners, held, "who announces has the lock");
    assert!(sim.longest_overlap <= millis(5), "{:?}", sim.longest_overlap);
}

#[test]
fn nodes_that_fail_afterwards_are_replaced_as_ever() {
    let mut sim = settled();
    let backup = sim.backup();
    sim.power_off(0);
    sim.run(secs(2));
    sim.power_on(0);
    sim.run(secs(8));
    sim.restore(backup);
    watch(&mut sim, 15_000);
    sim.power_off(1);
    sim.run(secs(1));
    assert!(owners(&sim).iter().all(|owner| *owner != 1), "{:#?}", sim.log);
    sim.power_on(1);
    sim.run(secs(5));
    owners(&sim);
}

#[test]
fn an_address_that_the_backup_does_not_know_is_given_up_and_one_that_it_knows_comes_back() {
    let mut sim = settled();
    let backup = sim.backup();
    sim.delete_lock(ip(0));
    sim.create_lock(ip(100));
    sim.run(secs(5));
    assert_eq!((sim.announcers(ip(0)).len(), sim.announcers(ip(100)).len()), (0, 1));
    sim.restore(backup);
    sim.absent(ip(100));
    sim.run(secs(15));
    assert_eq!((sim.announcers(ip(0)).len(), sim.announcers(ip(100)).len()), (1, 0));
}
