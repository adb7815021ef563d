//! A process that may open no more files.
//!
//! The limit is one of a process, so the test begins another one: itself.

use std::{borrow::Cow, collections::BTreeSet, fs, net::IpAddr, process::Command, sync::Arc};

use arpeggio_election::Pattern;
use arpeggio_link::interfaces::{self, Links};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::Registry;

use super::{OURS, OURS_V6, THERE, THERE_V6, can_announce, pair, wiring};
use crate::{
    announcer::{Announcer, Demand},
    clock::of_this_machine,
    neighbours::Neighbours,
};

/// As many as the sockets of one interface: for questions and for answers, by ARP and by NDP, and one for groups.
const SOCKETS: u64 = 5;

/// Those of them that answer, by ARP and by NDP.
const SOCKETS_TO_ANSWER: u64 = 2;

const MAY_OPEN: &str = "ARPEGGIO_TEST_MAY_OPEN";

#[test]
fn an_interface_that_lacks_a_socket_announces_nothing_that_needs_it() {
    for may_open in 0..=SOCKETS {
        begin("with_few_files", may_open);
    }
}

#[test]
fn an_interface_without_an_address_that_was_not_opened_is_tried_again() {
    begin("with_few_files_and_no_address", SOCKETS_TO_ANSWER);
}

/// Runs a test of this module in a process of its own, which may open so many sockets.
fn begin(name: &str, may_open: u64) {
    let mut test = Command::new(std::env::current_exe().unwrap());
    let name = format!("kernel::limits::{name}");
    test.args([name.as_str(), "--exact", "--ignored", "--nocapture"]);
    let ended = test.env(MAY_OPEN, may_open.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let complained = String::from_utf8_lossy(&ended.stderr);
    println!("{said}");
    assert!(ended.status.success(), "{may_open} sockets: {said}{complained}");
}

fn may_open() -> u64 {
    std::env::var(MAY_OPEN).unwrap().parse().unwrap()
}

#[test]
#[ignore = "for a process that the test above has begun"]
fn with_few_files() {
    let Some(pair) = pair() else { return };
    pair.here.run(|| announce_with(may_open()));
}

#[test]
#[ignore = "for a process that a test above has begun"]
fn with_few_files_and_no_address() {
    let Some(pair) = pair() else { return };
    pair.here.ip("link add data0 type veth peer name data1");
    pair.here.ip("link set data0 up");
    pair.here.ip("link set data1 up");
    pair.here.run(|| announce_without_address_with(may_open()));
}

/// The interfaces of this network namespace, without a file that stays open.
fn links() -> Arc<Links> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let links = runtime.block_on(interfaces::watch()).unwrap();
    links.borrow().clone()
}

fn announce_with(may_open: u64) {
    let links = links();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = limit_for(may_open);
    let (wiring, _receivers) = wiring(&Registry::new());

    setrlimit(Resource::RLIMIT_NOFILE, limit, most).unwrap();
    let mut announcer = Announcer::new(links, wiring);
    let opened = turns(&mut announcer, &[]);
    let enough = may_open >= SOCKETS;
    println!("{may_open} sockets: can announce: {}", can_announce(&announcer));
    assert_eq!(can_announce(&announcer), enough);
    // The third one is IPv4's second; IPv6 takes one more, for its groups.
    let of_both = [0, 0, 0, 1, 1, 2];
    assert_eq!(announcer.announced().len(), of_both[usize::try_from(may_open).unwrap()]);
    assert!(opened.is_empty());

    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let opened = turns(&mut announcer, &[]);
    assert!(can_announce(&announcer));
    assert_eq!(announcer.announced().len(), 2);
    let names: &[&str] = if enough { &[] } else { &["eth0"] };
    assert_eq!(opened, names, "what happened there meanwhile is to be found out");
}

/// What `eth0` needs to answer can be opened, and nothing for the interface that a rule names.
fn announce_without_address_with(may_open: u64) {
    let links = links();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = limit_for(may_open);
    let (wiring, _receivers) = wiring(&Registry::new());
    let named: [Pattern; 1] = ["data0".into()];

    setrlimit(Resource::RLIMIT_NOFILE, limit, most).unwrap();
    let mut announcer = Announcer::new(links, wiring);
    announcer.name(named.to_vec());
    assert!(turns(&mut announcer, &named).is_empty());
    assert!(announcer.announced().is_empty());

    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(turns(&mut announcer, &named).contains(&"data0".to_owned()));
    assert_eq!(announcer.announced().len(), 2);
}

/// The limit with which so many more files can be opened.
fn limit_for(more: u64) -> u64 {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open: BTreeSet<u64> =
        open.filter_map(|it| it.unwrap().file_name().into_string().ok()?.parse().ok()).collect();
    // One of them was the folder.
    let used = |number: &u64| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    let open: BTreeSet<u64> = open.into_iter().filter(used).collect();
    let more = usize::try_from(more).unwrap();
    (0..).filter(|number| !open.contains(number)).nth(more).unwrap()
}

/// Decides a few times; returns the interfaces that could be opened at last.
fn turns(announcer: &mut Announcer, named: &[Pattern]) -> Vec<String> {
    let ours: BTreeSet<IpAddr> = [OURS.into(), OURS_V6.into()].into();
    let awaited: BTreeSet<IpAddr> = [THERE.into(), THERE_V6.into()].into();
    let mut opened = Vec::new();
    for _ in 0..4 {
        let demand = Demand {
            announced: Cow::Borrowed(&ours),
            awaited: awaited.clone(),
            ..Demand::default()
        };
        announcer.attend_to(
            demand,
            |address, reach| reach.announcing(address, named),
            &Neighbours::default(),
            of_this_machine(),
        );
        let anew = announcer.look_at_opened().into_iter().flatten();
        opened.extend(anew.map(|(name, _)| name));
    }
    opened
}
