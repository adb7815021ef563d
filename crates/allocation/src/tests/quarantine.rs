//! What becomes of addresses at which somebody else answers.

use arpeggio_api::{
    service::{ADDRESS_CONFLICT, ADDRESS_RELEASING},
    session::{LinkAddress, Whereabouts},
};

use super::*;

const ADDRESSES: &str = "arpeggio.dev/addresses";
const KEY: &str = "arpeggio.dev/sharing-key";
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];

impl Lab {
    /// A speaker finds a stranger at 10.0.0.1.
    fn find_stranger(&mut self) {
        self.writes.clear();
        self.cluster.find_stranger("10.0.0.1", STRANGER);
        self.settle();
    }

    fn conflict(&self, name: &str) -> Option<String> {
        let condition = self.record(name).condition(ADDRESS_CONFLICT).cloned()?;
        assert_eq!(condition.status, "True");
        Some(condition.message)
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.told.iter().map(|news| news.reason).collect()
    }
}

#[test]
fn a_service_gets_another_address_before_it_gives_up_that_of_a_stranger() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.find_stranger();
    assert_eq!(lab.addresses("web"), ["10.0.0.2"]);
    assert_eq!(lab.writes, ["claim", "service", "release", "service"]);
    assert_eq!(
        lab.last_note(),
        "Assigned 10.0.0.2 from pool home instead of 10.0.0.1: the machine with the MAC address 02:00:00:00:00:09 answers at it"
    );
    assert_eq!(lab.conflict("web"), None);
    assert_eq!(lab.record("web").condition(ADDRESS_RELEASING), None);
    assert_eq!(lab.sharers("10.0.0.1"), [""; 0], "the lock stays as a record");
}

#[test]
fn the_address_of_a_stranger_is_tried_again_when_the_quarantine_is_over() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.find_stranger();
    lab.create("next");
    lab.wait(Duration::from_mins(6));
    lab.restart();
    assert_eq!((lab.addresses("next"), lab.writes.len()), (vec![], 0));
    let quarantined: Vec<u64> = lab.controller.index.quarantined().into_values().collect();
    assert_eq!(quarantined, [1]);
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("next"), ["10.0.0.1"]);
    assert_eq!(lab.controller.index.quarantined().len(), 0);
    assert_eq!(lab.addresses("web"), ["10.0.0.2"], "nobody moves back");
}

#[test]
fn a_router_that_answers_for_every_address_empties_no_pool() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.0/28"])]);
    lab.create("web");
    let mut given = Vec::new();
    for _ in 0..6 {
        let address = lab.addresses("web").remove(0);
        lab.cluster.find_stranger(&address, STRANGER);
        lab.settle();
        given.push(address);
    }
    // One at the other end of the pool, where a host with addresses of its own would not answer.
    let kept = ["10.0.0.15"; 4];
    assert_eq!(given[..2], ["10.0.0.0", "10.0.0.1"]);
    assert_eq!(given[2..], kept);
    let conflict = lab.conflict("web").unwrap();
    assert!(conflict.contains("proxy ARP") && conflict.contains("conflictProbing"), "{conflict}");
    let conflicts = lab.reasons().into_iter().filter(|reason| *reason == "AddressConflict");
    assert_eq!(conflicts.count(), 1, "it is told once");
    lab.create("next");
    assert_eq!(lab.addresses("next").len(), 1, "who comes next may be luckier");
}

/// Another balancer, or a host with static addresses that stand scattered in the pool.
#[test]
fn a_service_leaves_a_machine_that_does_not_answer_at_what_others_get() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.0/28"])]);
    for (name, address) in [("a", "10.0.0.0"), ("b", "10.0.0.7"), ("c", "10.0.0.15")] {
        lab.cluster.create_service(name, &[(ADDRESSES, address)]);
        lab.settle();
        lab.cluster.find_stranger(address, STRANGER);
        lab.settle();
    }
    lab.cluster.remove_annotation("c", ADDRESSES);
    lab.settle();
    assert_eq!(lab.addresses("c"), ["10.0.0.15"], "it may as well be a router");
    lab.create("next");
    lab.settle();
    let next = lab.addresses("next").remove(0);
    lab.cluster.take_lock(&next);
    lab.settle();
    assert_ne!(lab.addresses("c"), ["10.0.0.15"], "nobody answered at {next}");
    assert_eq!(lab.conflict("c"), None);
}

/// A tool that restores a backup creates all locks at one time, by their names.
#[test]
fn a_router_that_answers_for_every_address_is_known_after_a_restore() {
    const POOL: (&str, &[&str]) = ("home", &["10.0.0.0/28"]);
    let mut lab = Lab::with_pools(&[POOL]);
    for last in [0, 1, 2] {
        lab.create(&format!("good-{last}"));
        lab.cluster.take_lock(&format!("10.0.0.{last}"));
    }
    lab.wait(Duration::from_hours(1));
    for last in [3, 4, 15] {
        let address = format!("10.0.0.{last}");
        lab.cluster.create_service(&address, &[(ADDRESSES, &address)]);
        lab.settle();
        lab.cluster.find_stranger(&address, STRANGER);
    }
    let mut other = Lab::with_pools(&[POOL]);
    other.wait(Duration::from_hours(3));
    for lease in lab.cluster.leases() {
        other.cluster.restore_lease(lease.clone(), cluster::after(other.time));
    }
    other.restart();
    let last = "10.0.0.15".parse().unwrap();
    assert!(other.controller.index.allocator.answers_everywhere(last));
}

#[test]
fn who_asks_for_exactly_this_address_waits_until_the_stranger_is_gone() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(ADDRESSES, "10.0.0.1")]);
    lab.settle();
    lab.find_stranger();
    assert_eq!(
        (lab.addresses("web"), &lab.writes[..]),
        (vec!["10.0.0.1".into()], &["service"][..])
    );
    let conflict = lab.conflict("web").unwrap();
    assert!(
        conflict
            .starts_with("10.0.0.1: the machine with the MAC address 02:00:00:00:00:09 answers"),
        "{conflict}"
    );
    assert!(lab.says("web").starts_with("False: 10.0.0.1 is reserved for the Service"));
    assert_eq!(lab.reasons(), ["IPAllocated", "AddressConflict"]);

    // It is asked for again, with the same result.
    lab.find_stranger();
    lab.restart();
    assert_eq!((lab.writes.len(), lab.told.len()), (0, 2));

    lab.cluster.take_lock("10.0.0.1");
    lab.settle();
    assert_eq!(lab.conflict("web"), None);
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
    assert_eq!(lab.told.len(), 2);
}

#[test]
fn without_another_address_a_service_waits_for_one_or_for_the_stranger_to_go() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.create("other");
    lab.find_stranger();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.conflict("web").is_some());
    let said = lab.says("web");
    assert!(said.starts_with("False: no pool has an IPv4 address to give"), "{said}");
    assert!(said.ends_with("; 10.0.0.1 stays until then"), "{said}");

    lab.cluster.delete_service("other");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.conflict("web")), (vec!["10.0.0.2".into()], None));
    assert_eq!(lab.says("web"), "True: 10.0.0.2 assigned");
}

#[test]
fn an_address_that_somebody_announces_stays_whatever_is_written_of_a_stranger() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.take_lock("10.0.0.1");
    lab.find_stranger();
    assert_eq!((lab.addresses("web"), lab.writes.len()), (vec!["10.0.0.1".into()], 0));
}

#[test]
fn sharers_move_together() {
    let mut lab = Lab::with_pools(&[HOME]);
    for (name, port) in [("a", 80), ("b", 443)] {
        lab.cluster.create_service_on(name, &[(KEY, "k")], port);
        lab.settle();
    }
    lab.find_stranger();
    assert_eq!(
        (lab.addresses("a"), lab.addresses("b")),
        (vec!["10.0.0.2".into()], vec!["10.0.0.2".into()])
    );
    assert_eq!(lab.sharers("10.0.0.1"), [""; 0]);
}

#[test]
fn a_deleted_service_leaves_the_quarantine_behind() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(ADDRESSES, "10.0.0.1")]);
    lab.settle();
    lab.find_stranger();
    lab.cluster.delete_service("web");
    lab.settle();
    lab.create("next");
    assert_eq!(lab.addresses("next"), ["10.0.0.2"]);
    lab.wait(cluster::QUARANTINE);
    assert_eq!(lab.locks(), ["address-10.0.0.2"]);
}

#[test]
fn a_node_that_has_the_address_itself_is_named() {
    let mut lab = Lab::with_pools(&[HOME]);
    let link = LinkAddress { address: "10.0.0.201".parse().unwrap(), mac: STRANGER };
    let node = Whereabouts { links: vec![link], ..Whereabouts::default() };
    lab.controller.index.set_speakers([("node-1".to_owned(), node)].into());
    lab.cluster.create_service("web", &[(ADDRESSES, "10.0.0.1")]);
    lab.settle();
    lab.find_stranger();
    let told = lab.conflict("web").unwrap();
    assert!(told.contains("02:00:00:00:00:09 (node node-1) answers there"), "{told}");
}

/// Sessions come after locks when a controller starts, and a node may get another network card.
#[test]
fn the_node_at_an_address_is_named_as_soon_as_it_is_known_and_no_longer() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[(ADDRESSES, "10.0.0.1")]);
    lab.settle();
    lab.find_stranger();
    let link = LinkAddress { address: "10.0.0.201".parse().unwrap(), mac: STRANGER };
    let node = Whereabouts { links: vec![link], ..Whereabouts::default() };
    let mut told = |speakers: &[(&str, &Whereabouts)]| {
        let speakers = speakers.iter().map(|(name, it)| ((*name).to_owned(), (*it).clone()));
        lab.controller.index.set_speakers(speakers.collect());
        lab.settle();
        lab.wait(Duration::from_secs(5));
        lab.conflict("web").unwrap()
    };
    assert!(!told(&[]).contains("node-1"));
    let named = told(&[("node-1", &node)]);
    assert!(named.contains("02:00:00:00:00:09 (node node-1) answers there"), "{named}");
    let other = told(&[("node-1", &Whereabouts::default()), ("node-2", &node)]);
    assert!(other.contains("02:00:00:00:00:09 (node node-2) answers there"), "{other}");
    let nobody = told(&[("node-1", &Whereabouts::default())]);
    assert!(!nobody.contains("(node"), "{nobody}");
}

#[test]
fn an_address_that_a_stranger_has_is_kept_no_longer_than_pools_allow_it() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.seconds(6);
    lab.find_stranger();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    lab.wait(cluster::GRACE.checked_sub(Duration::from_secs(5)).unwrap());
    lab.wait(Duration::from_secs(5));
    assert_eq!(lab.addresses("web"), [""; 0], "{}", lab.says("web"));
}
