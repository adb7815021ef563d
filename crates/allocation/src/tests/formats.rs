//! Locks that are damaged, and those that a newer release has written.

use arpeggio_api::address_pool::{AddressItem, AddressPoolSpec};

use super::*;

const ADDRESSES: &str = "arpeggio.dev/addresses";
const ANNOUNCE: &str = "arpeggio.dev/announce";
const SERVICES: &str = "arpeggio.dev/services";
const FORMAT: &str = "arpeggio.dev/format";
const LOCK: &str = "address-10.0.0.1";

impl Lab {
    fn lock_annotation(&self, key: &str) -> Option<String> {
        self.lease(LOCK).metadata.annotations.as_ref()?.get(key).cloned()
    }
}

#[test]
fn rules_that_are_damaged_are_written_anew_when_a_pool_says_them() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.damage_lease(LOCK, ANNOUNCE, "{");
    lab.settle();
    assert_eq!((lab.lock_annotation(ANNOUNCE), lab.writes.last()), (None, Some(&"amend")));

    lab.cluster.delete_pool("home");
    lab.settle();
    lab.writes.clear();
    lab.cluster.damage_lease(LOCK, ANNOUNCE, "{");
    lab.settle();
    assert_eq!(lab.lock_annotation(ANNOUNCE).as_deref(), Some("{"), "{:?}", lab.writes);
    lab.cluster.set_pool("home", &["10.0.0.1-10.0.0.2"]);
    lab.settle();
    assert_eq!(lab.lock_annotation(ANNOUNCE), None, "{:?}", lab.writes);
}

#[test]
fn who_needs_a_lock_that_a_newer_release_has_written_is_told_why_it_is_left_alone() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.damage_lease(LOCK, FORMAT, "2");
    lab.cluster.clear_status("web", "rival");
    lab.settle();
    let why =
        "10.0.0.1 cannot be given: its lock was written by a newer release of Arpeggio (format 2)";
    assert!(lab.says("web").contains(why), "{}", lab.says("web"));
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
    lab.cluster.damage_lease(LOCK, FORMAT, "1");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.locks().len()), (vec!["10.0.0.1".to_owned()], 1));
}

#[test]
fn a_lock_that_is_left_alone_keeps_nobody_from_being_told_of_anything_else() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.damage_lease(LOCK, FORMAT, "2");
    lab.settle();
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.writes.clear();
    lab.seconds(120);
    assert_eq!((lab.addresses("web"), lab.writes.len()), (vec!["10.0.0.1".to_owned()], 0));
    let record = lab.record("web");
    assert!(record.condition("arpeggio.dev/AddressExpiring").is_some());
    lab.cluster.annotate("web", ADDRESSES, "nonsense");
    lab.settle();
    assert!(lab.says("web").contains("nonsense"), "{}", lab.says("web"));
}

#[test]
fn a_lock_that_a_newer_release_has_written_is_left_alone() {
    for (key, value) in
        [(SERVICES, "default/web/uid-web/extra"), (SERVICES, "oops"), (ANNOUNCE, "{")]
    {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.create("web");
        lab.cluster.damage_lease(LOCK, FORMAT, "2");
        lab.cluster.damage_lease(LOCK, key, value);
        let before = lab.lease(LOCK).clone();
        for restart in [false, true] {
            if restart {
                lab.restart();
            }
            lab.create("other");
            lab.cluster.set_port("other", 81);
            lab.settle();
            assert_eq!(lab.addresses("other"), ["10.0.0.2"], "{value}");
            assert_eq!(lab.addresses("web"), ["10.0.0.1"], "{value}");
        }
        lab.cluster.create_service("exact", &[(ADDRESSES, "10.0.0.1")]);
        lab.settle();
        assert_eq!(lab.addresses("exact"), [""; 0], "{value}");
        let why = "its lock was written by a newer release of Arpeggio (format 2)";
        assert!(lab.says("exact").contains(why), "{}", lab.says("exact"));
        lab.cluster.delete_service("web");
        lab.settle();
        lab.wait(Duration::from_hours(1));
        assert_eq!(*lab.lease(LOCK), before, "{value}");
    }
}

/// Of what cannot be read nothing follows that anybody is allowed.
#[test]
fn a_rest_whose_end_cannot_be_read_begins_anew() {
    let mut lab = Lab::with_pools(&[]);
    let spec = AddressPoolSpec {
        addresses: vec![AddressItem("10.0.0.1-10.0.0.2".to_owned())],
        reuse_cool_down_seconds: 60,
        ..AddressPoolSpec::default()
    };
    lab.cluster.set_pool_spec("home", spec);
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.settle();
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/resting-until", "soon");
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
    lab.restart();
    lab.cluster.create_service("third", &[("arpeggio.dev/addresses", "10.0.0.1")]);
    lab.settle();
    assert_eq!(lab.addresses("third"), [""; 0]);
    lab.wait(Duration::from_mins(2));
    assert_eq!(lab.addresses("third"), ["10.0.0.1"]);
}

/// A pool that has no rest any more has none to begin.
#[test]
fn a_rest_whose_end_cannot_be_read_is_over_where_nothing_rests() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    lab.create("web");
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/resting-until", "soon");
    lab.cluster.damage_lease("address-10.0.0.1", "arpeggio.dev/services", "");
    lab.cluster.delete_service("web");
    lab.settle();
    assert_eq!(lab.locks(), [""; 0]);
}
