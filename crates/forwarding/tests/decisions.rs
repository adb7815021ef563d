//! What one node is to do, case by case.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{AnnounceTerms, EndReason, Families, Interface, Node, Places};
use arpeggio_forwarding::{
    Because, Drain, Endpoints, Kind, LeftOut, Life, OneNode, Passing, Port, Protocol, Reset,
    Service, SpreadBy, Way, Wire, explain,
};
use cluster::{Cluster, KEEP, PORT, address, client, fellow, name};

const SECOND: Duration = Duration::from_secs(1);

fn wait(cluster: &mut Cluster, span: Duration) {
    cluster.pass(span);
    cluster.tell_all();
}

fn move_to(cluster: &mut Cluster, n: usize) {
    cluster.about().holder = Some(name(n));
    cluster.tell_all();
}

fn target(way: &Way) -> Option<&Node> {
    match way {
        Way::Local => None,
        Way::To(hop) => Some(&hop.node),
    }
}

fn drains(cluster: &Cluster, n: usize) -> Option<Drain> {
    cluster.machines[n].decision.draining.addresses.get(&address()).cloned()
}

/// Whether the second machine, to which the address has moved, passes anything on.
fn is_planned(cluster: &Cluster) -> bool {
    !cluster.machines[1].decision.plan.addresses.is_empty()
}

#[test]
fn at_rest_the_holder_has_nothing_to_do_and_the_others_pass_on_to_it() {
    let cluster = Cluster::of(3, false);
    for (n, machine) in cluster.machines.iter().enumerate() {
        let planned = machine.decision.plan.addresses.get(&address());
        let passing = planned.map(|planned| planned.passing.clone()).unwrap_or_default();
        let holder = name(0);
        assert_eq!(target(&passing.from_outside), (n != 0).then_some(&holder));
        assert!(machine.decision.draining.addresses.is_empty());
        assert_eq!(machine.decision.next, None);
        assert_eq!(machine.decision.plan.fellows.len(), 2);
    }
}

#[test]
fn a_moved_address_drains_where_it_was_for_as_long_as_is_kept() {
    let mut cluster = Cluster::of(3, false);
    let udp = |number, quic| {
        (Port { protocol: Protocol::Udp, number }, Service { quic, ..Service::default() })
    };
    cluster.about().services.extend([udp(443, true), udp(53, false)]);
    let moved = cluster.now;
    move_to(&mut cluster, 1);
    let planned = &cluster.machines[1].decision.plan.addresses[&address()];
    let Way::To(hop) = &planned.passing.from_outside else { panic!("{planned:?}") };
    assert_eq!((hop.node.clone(), hop.interface.as_str()), (name(0), "eth0"));
    assert_eq!(hop.next_hop, IpAddr::from([192, 168, 0, 11]));
    assert_eq!((hop.mac, hop.own_mac), ([2, 0, 0, 0, 0, 11], [2, 0, 0, 0, 0, 12]));
    assert!(planned.spread.is_empty() && planned.interfaces.is_empty());
    let drain = Drain { until: moved + KEEP, served: true, quic: [443].into() };
    assert_eq!(drains(&cluster, 0), Some(drain), "plain UDP is not kept, and not counted");
    assert_eq!((drains(&cluster, 1), drains(&cluster, 2)), (None, None));

    while let Some(next) = cluster.machines[1].decision.next {
        assert!(next > cluster.now && next <= moved + KEEP);
        assert!(is_planned(&cluster));
        cluster.now = next;
        cluster.tell_all();
    }
    assert_eq!(cluster.now, moved + KEEP);
    assert!(!is_planned(&cluster));
    assert_eq!(drains(&cluster, 0), None);
}

/// Such a node would have a backend reset it.
#[test]
fn a_node_knows_the_mark_whose_forwarder_works_and_says_so() {
    type Change = fn(&mut Cluster);
    let table: [(Change, bool); 6] = [
        (|_| {}, true),
        (|it| it.fellow(0).forwarder = None, false),
        (|it| it.fellow(0).forwarder.as_mut().unwrap().knows_mark = false, false),
        (|it| it.fellow(0).forwarder.as_mut().unwrap().stale = true, false),
        (|it| it.fellow(0).forwarder.as_mut().unwrap().trouble = Some("old".into()), false),
        (|it| it.fellow(0).life = Life::Ended(EndReason::Expired), false),
    ];
    for (index, (change, expected)) in table.into_iter().enumerate() {
        let mut cluster = Cluster::of(2, false);
        move_to(&mut cluster, 1);
        change(&mut cluster);
        cluster.tell_all();
        let planned = &cluster.machines[1].decision.plan.addresses[&address()];
        let hop = planned.passing.from_outside.hop().unwrap();
        assert_eq!((&hop.node, hop.knows_mark), (&name(0), expected), "{index}");
    }
}

#[test]
fn nothing_is_passed_to_a_node_that_is_dead() {
    let mut cluster = Cluster::of(2, false);
    move_to(&mut cluster, 1);
    assert!(is_planned(&cluster));
    // Why its session ended, whether its forwarder has a Lease, what it says on the wire; whether it gets packets, and whether what
    // stays here is reset.
    let table = [
        (EndReason::NodeSilent, true, Wire::Answers, false, true),
        (EndReason::Stopped, true, Wire::Unasked, true, false),
        (EndReason::Stopped, true, Wire::Silent, false, true),
        (EndReason::Stopped, false, Wire::Unasked, true, true),
        (EndReason::Stopped, false, Wire::Answers, true, false),
        (EndReason::Stopped, false, Wire::Silent, false, true),
        (EndReason::Stopped, false, Wire::Unknown, false, true),
        (EndReason::SpeakerSilent, false, Wire::Answers, true, false),
        (EndReason::SpeakerSilent, false, Wire::Silent, false, true),
        (EndReason::SpeakerSilent, true, Wire::Unknown, true, false),
        (EndReason::SpeakerSilent, true, Wire::Silent, false, true),
        (EndReason::Expired, true, Wire::Unasked, true, true),
        (EndReason::Expired, true, Wire::Answers, true, false),
        (EndReason::Expired, false, Wire::Answers, true, false),
        (EndReason::Expired, true, Wire::Silent, false, true),
        (EndReason::Expired, true, Wire::Unknown, false, true),
    ];
    for (reason, forwarder, wire, passed, reset) in table {
        let forwarder = fellow(0).forwarder.filter(|_| forwarder);
        cluster.fellow(0).life = Life::Ended(reason);
        cluster.fellow(0).forwarder = forwarder;
        let heir = &mut cluster.machines[1];
        let known = cluster.truth.asked(&[(name(0), wire)].into());
        heir.decision = heir.forwarding.decide(&known, cluster.now);
        let planned = heir.decision.plan.addresses.get(&address());
        let found = planned.is_some_and(|planned| planned.passing != Passing::default());
        let case = format!("{reason:?} {:?} {wire:?}", cluster.fellow(0).forwarder);
        let resets = cluster.machines[1].decision.plan.addresses.get(&address());
        assert_eq!(
            (found, resets.is_some_and(|it| it.reset == Reset::Everything)),
            (passed, reset),
            "{case}"
        );
    }
}

fn asked(cluster: &Cluster) -> Vec<Vec<Node>> {
    let of = |machine: &cluster::Machine| {
        machine.decision.ask.iter().map(|hop| hop.node.clone()).collect()
    };
    cluster.machines.iter().map(of).collect()
}

#[test]
fn who_gives_packets_to_a_node_asks_whether_it_is_there_where_nobody_else_would_tell() {
    let mut cluster = Cluster::of(3, false);
    let nobody: Vec<Vec<Node>> = vec![vec![], vec![], vec![]];
    assert_eq!(asked(&cluster), nobody, "speakers watch who announces");
    move_to(&mut cluster, 1);
    assert_eq!(asked(&cluster), [vec![name(1)], vec![name(0)], vec![]]);
    cluster.kill(0);
    cluster.tell_all();
    assert_eq!(asked(&cluster)[1..], nobody[1..], "it is known to be dead");
    cluster.cut_off(1);
    cluster.tell_all();
    assert_eq!(asked(&cluster)[2], [name(1)]);
    wait(&mut cluster, KEEP);
    assert_eq!(asked(&cluster)[1..], nobody[1..], "nothing is kept any more");
    let mut spread = Cluster::of(3, true);
    assert_eq!(asked(&spread), nobody);
    spread.deaf = true;
    spread.ask_again();
    let others = |n| (0..3).filter(|other| *other != n).map(name).collect::<Vec<_>>();
    assert_eq!(asked(&spread), [others(0), others(1), others(2)], "nobody tells of a death");
    spread.deaf = false;
    spread.ask_again();
    assert_eq!(asked(&spread), nobody);
}

/// Any node may be one that others ask, and gives packets to the next one of the order.
#[test]
fn nodes_that_have_just_started_ask_those_next_to_them() {
    let mut cluster = Cluster::of(5, false);
    (0..5).for_each(|n| cluster.restart(n));
    cluster.tell_all();
    let asked_now = asked(&cluster);
    assert!(asked_now.iter().all(|asked| asked.len() <= 2), "{asked_now:?}");
    // All but the last of the order.
    assert!(asked_now.iter().filter(|asked| !asked.is_empty()).count() >= 4, "{asked_now:?}");
    wait(&mut cluster, KEEP);
    assert!(asked(&cluster).iter().all(Vec::is_empty));
}

#[test]
fn a_node_that_is_cut_off_keeps_its_connections_until_it_dies() {
    for spread in [false, true] {
        let mut cluster = Cluster::of(2, spread);
        let clients: Vec<_> = (0..40).map(client).collect();
        clients.iter().for_each(|it| drop(cluster.connect(0, *it)));
        cluster.cut_off(0);
        cluster.tell_all();
        for client in &clients {
            let end = cluster.send(1, *client, Kind::Other).end();
            assert!(cluster.machines[end].conntrack.contains(client), "{spread} {client:?}");
        }
        // Nobody can say so but the wire.
        cluster.kill(0);
        cluster.tell_all();
        let ends = clients.iter().map(|it| cluster.send(1, *it, Kind::Other).end());
        assert!(ends.into_iter().all(|end| end == 1));
        assert!(cluster.machines[1].decision.plan.addresses[&address()].reset == Reset::Everything);
    }
}

/// Its pod was deleted or evicted, say, and not its machine.
#[test]
fn a_node_whose_pod_stops_keeps_its_connections_until_it_dies() {
    for spread in [false, true] {
        let mut cluster = Cluster::of(3, spread);
        cluster.connect(0, client(1));
        cluster.machines[0].conntrack.insert(client(1));
        cluster.stop_pod(0);
        cluster.tell_all();
        assert_eq!(cluster.holder(), 1);
        assert_eq!(asked(&cluster), [vec![], vec![name(0)], vec![name(0)]], "{spread}");
        let resets = |cluster: &Cluster| {
            let planned = cluster.machines[1].decision.plan.addresses.get(&address());
            planned.is_some_and(|planned| planned.reset == Reset::Everything)
        };
        assert!(!resets(&cluster), "{spread}");
        // Where it is spread, its rank may be too high.
        if !spread {
            assert_eq!(cluster.send(1, client(1), Kind::Other).end(), 0);
        }
        cluster.machines[0].powered = false;
        cluster.tell_all();
        assert!(resets(&cluster), "{spread}");
        assert_ne!(cluster.send(1, client(1), Kind::Other).end(), 0);
        cluster.boot(0);
        cluster.tell_all();
        assert!(!resets(&cluster), "{spread}");
    }
}

/// It has missed who served meanwhile.
#[test]
fn a_node_that_was_cut_off_asks_all_others_when_it_is_back() {
    let mut cluster = Cluster::of(3, false);
    cluster.cut_off(0);
    cluster.tell_all();
    cluster.about().holder = Some(name(2));
    cluster.tell_all();
    cluster.connect(2, client(1));
    cluster.about().holder = Some(name(1));
    cluster.tell_all();
    cluster.heal(0);
    move_to(&mut cluster, 0);
    assert_eq!(cluster.send(0, client(1), Kind::Other).end(), 2);
}

#[test]
fn connections_of_a_dead_node_are_reset_for_as_long_as_they_would_be_kept() {
    for spread in [false, true] {
        let mut cluster = Cluster::of(3, spread);
        let resets = |cluster: &Cluster| {
            let planned = cluster.machines[1].decision.plan.addresses.get(&address());
            planned.is_some_and(|planned| planned.reset == Reset::Everything)
        };
        assert!(!resets(&cluster));
        let died = cluster.now;
        cluster.kill(0);
        cluster.tell_all();
        assert!(resets(&cluster));
        while let Some(next) = cluster.machines[1].decision.next {
            assert!(resets(&cluster) && next <= died + KEEP);
            let span = next.since(cluster.now);
            wait(&mut cluster, span);
        }
        assert_eq!(cluster.now, died + KEEP);
        assert!(!resets(&cluster));
    }
}

/// It does not know who served the address, so the dead node may have.
#[test]
fn a_forwarder_that_has_just_started_resets_what_a_node_that_is_silent_may_have_known() {
    let mut cluster = Cluster::of(3, false);
    cluster.about().holder = Some(name(1));
    cluster.tell_all();
    wait(&mut cluster, KEEP);
    for (is_new, expected) in [(false, Reset::Nothing), (true, Reset::Everything)] {
        if is_new {
            cluster.restart(1);
        }
        let known = cluster.truth.asked(&[(name(0), Wire::Silent)].into());
        let machine = &mut cluster.machines[1];
        let decision = machine.forwarding.decide(&known, cluster.now);
        let planned = decision.plan.addresses.get(&address());
        assert_eq!(planned.map(|it| it.reset).unwrap_or_default(), expected);
    }
}

/// The API server is away, or does not know yet: the Leases say that the holder lives, and still name it.
#[test]
fn who_announces_in_the_place_of_a_silent_node_gives_it_nothing() {
    for spread in [false, true] {
        let mut cluster = Cluster::of(3, spread);
        let to_silent = |cluster: &Cluster| {
            let planned = &cluster.machines[1].decision.plan.addresses[&address()];
            let spread = planned.spread.values().flat_map(|it| [&it.first, &it.others, &it.below]);
            let passing = [&planned.passing.from_outside, &planned.passing.from_fellow];
            let ways = spread.flatten().chain(passing);
            (
                ways.filter(|way| target(way) == Some(&name(0))).count(),
                planned.reset == Reset::Everything,
            )
        };
        let (before, reset) = to_silent(&cluster);
        assert!(before > 0 && !reset, "without a word it gets what it had");
        let heir = &mut cluster.machines[1];
        let known = heir.view.without(&[name(0)].into());
        heir.decision = heir.forwarding.decide(&known, cluster.now);
        assert_eq!(to_silent(&cluster), (0, true));
        assert!(
            cluster.machines[1].decision.plan.addresses[&address()].spread.is_empty() != spread
        );
        // The word does not count any more, and the node is there.
        cluster.tell(1);
        assert_eq!(to_silent(&cluster), (before, false));
    }
}

/// Nodes that have just started ask one another. All but the one that announces then have heard of nothing; that the API server is away they
/// find out later than that, or when it comes to the same before.
#[test]
fn without_the_api_server_a_dead_nodes_connections_are_reset_whoever_is_asked_for_them() {
    let cases = (2..=5).flat_map(|count| (1..count).map(move |heir| (count, heir)));
    let cases = cases.flat_map(|(count, heir)| {
        [(count, heir, true, true), (count, heir, true, false), (count, heir, false, true)]
    });
    for case @ (count, heir, all_new, deaf) in cases {
        let mut cluster = Cluster::of(count, false);
        if all_new {
            (0..count).for_each(|n| cluster.restart(n));
        }
        cluster.restart(heir);
        cluster.tell_all();
        cluster.connect(0, client(1));
        // Of what was before they started only new ones ask all.
        let kept = (1..count).find(|n| all_new && *n != heir).unwrap_or(heir);
        cluster.machines[kept].conntrack.insert(client(2));
        cluster.deaf = deaf;
        assert_eq!(cluster.kill_unnoticed(0, heir), heir);
        cluster.ask_again();
        let trace = cluster.send(heir, client(1), Kind::Other);
        assert!(cluster.is_told(client(1), &trace), "{case:?} {trace:?}");
        assert_eq!(cluster.send(heir, client(2), Kind::Other).end(), kept, "{case:?}");
        // It is still silent when packets have long gone elsewhere, and lives when it answers.
        cluster.ask_again();
        assert!(cluster.is_told(client(1), &trace), "{case:?} {trace:?}");
        cluster.machines[0].powered = true;
        cluster.machines[0].conntrack.insert(client(1));
        cluster.machines[heir].silent.clear();
        cluster.ask_again();
        assert_eq!(cluster.send(heir, client(1), Kind::Other).end(), 0, "{case:?}");
    }
}

#[test]
fn without_the_api_server_no_new_connection_is_given_to_a_dead_node() {
    let mut cluster = Cluster::of(3, true);
    cluster.deaf = true;
    assert_eq!(cluster.kill_unnoticed(2, 1), 0);
    cluster.ask_again();
    for client in (0..40).map(client) {
        let server = cluster.connect(0, client).end();
        assert_ne!(server, 2);
        assert_eq!(cluster.send(0, client, Kind::Other).end(), server);
    }
}

#[test]
fn a_node_that_is_back_is_asked_and_nothing_is_reset() {
    let mut cluster = Cluster::of(2, false);
    cluster.kill(0);
    cluster.tell_all();
    cluster.boot(0);
    cluster.tell(1);
    let planned = &cluster.machines[1].decision.plan.addresses[&address()];
    assert_eq!(target(&planned.passing.from_outside), Some(&name(0)));
    assert_eq!(planned.reset, Reset::Nothing);
}

#[test]
fn a_node_that_says_that_it_has_none_left_is_asked_no_more() {
    let mut cluster = Cluster::of(2, false);
    // A zero of before says nothing.
    cluster.fellow(0).forwarder.as_mut().unwrap().connections =
        Some(BTreeMap::from([(address(), 0)]));
    cluster.tell_all();
    move_to(&mut cluster, 1);
    wait(&mut cluster, SECOND * 59);
    assert!(is_planned(&cluster), "it has not said anything since it served");

    let mut cluster = Cluster::of(2, false);
    cluster.connect(0, client(1));
    move_to(&mut cluster, 1);
    wait(&mut cluster, SECOND);
    cluster.publish(0);
    wait(&mut cluster, SECOND * 30);
    assert!(is_planned(&cluster), "it has one");
    cluster.machines[0].conntrack.clear();
    cluster.publish(0);
    cluster.tell_all();
    assert!(!is_planned(&cluster));

    let mut cluster = Cluster::of(2, false);
    move_to(&mut cluster, 1);
    cluster.publish(0);
    wait(&mut cluster, SECOND * 9);
    assert!(is_planned(&cluster), "it may not have heard yet that it serves no more");
    wait(&mut cluster, SECOND);
    assert!(!is_planned(&cluster));
}

#[test]
fn with_nothing_to_keep_nothing_is_passed_on() {
    let mut cluster = Cluster::of(2, false);
    let settings = arpeggio_forwarding::Settings { keep: Duration::ZERO };
    for n in 0..2 {
        cluster.machines[n].forwarding =
            arpeggio_forwarding::Forwarding::new(name(n), settings, cluster.now);
    }
    cluster.tell_all();
    move_to(&mut cluster, 1);
    assert!(!is_planned(&cluster));
    assert_eq!(drains(&cluster, 0), None);
    assert_eq!(cluster.machines[1].decision.next, None);
    cluster.deaf = true;
    cluster.ask_again();
    assert!(asked(&cluster).iter().all(Vec::is_empty));
}

#[test]
fn with_nothing_to_keep_icmp_errors_still_find_one_of_many_nodes() {
    let mut cluster = Cluster::of(3, true);
    let settings = arpeggio_forwarding::Settings { keep: Duration::ZERO };
    for n in 0..3 {
        cluster.machines[n].forwarding =
            arpeggio_forwarding::Forwarding::new(name(n), settings, cluster.now);
    }
    cluster.tell_all();
    for n in 0..30 {
        let server = cluster.connect(0, client(n)).end();
        assert_eq!(cluster.send(0, client(n), Kind::IcmpError).end(), server);
    }
}

/// A forwarder that has some left says so again and again. One that was killed does not.
#[test]
fn a_count_that_is_not_renewed_counts_no_more() {
    let mut cluster = Cluster::of(2, false);
    cluster.connect(0, client(1));
    move_to(&mut cluster, 1);
    for renewed in [true, false] {
        cluster.machines[0].runs = renewed;
        for _ in 0..10 {
            wait(&mut cluster, SECOND * 59);
            if renewed {
                cluster.publish(0);
                cluster.fellow(0).forwarder.as_mut().unwrap().connections =
                    Some([(address(), 7)].into());
            }
            cluster.tell_all();
        }
        assert_eq!(is_planned(&cluster), renewed);
    }
    assert_eq!(cluster.machines[1].decision.next, None);
}

/// Its container crashes again and again, say, and nobody takes back what it has said.
#[test]
fn a_forwarder_that_renews_its_lease_no_more_counts_as_none() {
    let mut cluster = Cluster::of(3, true);
    let alone = |cluster: &Cluster| -> Vec<bool> {
        let notes = cluster.machines[1..].iter().map(|machine| &machine.decision.notes);
        notes.map(|it| it.one_node.contains_key(&address())).collect()
    };
    let minutes = |cluster: &mut Cluster, count| {
        (0..count).for_each(|_| wait(cluster, SECOND * 60));
    };
    minutes(&mut cluster, 10);
    assert_eq!(alone(&cluster), [false, false], "all are renewed");
    cluster.machines[0].runs = false;
    minutes(&mut cluster, 2);
    assert_eq!(alone(&cluster), [false, false]);
    // While the API server is away nobody hears of renewals, and for a moment afterwards nobody has.
    cluster.deaf = true;
    for _ in 0..10 {
        cluster.now = cluster.now + SECOND * 60;
        cluster.ask_again();
    }
    assert_eq!(alone(&cluster), [false, false]);
    cluster.deaf = false;
    cluster.ask_again();
    minutes(&mut cluster, 2);
    assert_eq!(alone(&cluster), [false, false]);
    minutes(&mut cluster, 1);
    assert_eq!(alone(&cluster), [true, true]);
    cluster.deaf = true;
    cluster.ask_again();
    assert_eq!(alone(&cluster), [true, true], "it was known before");
    cluster.deaf = false;
    cluster.machines[0].runs = true;
    cluster.publish(0);
    cluster.tell_all();
    assert_eq!(alone(&cluster), [false, false]);
}

/// Its machine was asleep: they have renewed their Leases meanwhile, and it has not been told yet.
#[test]
fn who_has_not_looked_for_long_does_not_take_the_others_for_dead() {
    let mut cluster = Cluster::of(3, true);
    let is_alone =
        |cluster: &Cluster| cluster.machines[1].decision.notes.one_node.contains_key(&address());
    let minutes = |cluster: &mut Cluster, count| {
        (0..count).for_each(|_| wait(cluster, SECOND * 60));
    };
    minutes(&mut cluster, 2);
    cluster.now = cluster.now + SECOND * 600;
    cluster.ask_again();
    assert!(!is_alone(&cluster));
    cluster.machines[0].runs = false;
    minutes(&mut cluster, 2);
    assert!(!is_alone(&cluster));
    minutes(&mut cluster, 1);
    assert!(is_alone(&cluster), "their time has begun anew");
}

/// It asks nobody in turn.
#[test]
fn a_node_whose_forwarder_is_dead_does_not_end_the_search() {
    for dead in 0..2 {
        let mut cluster = Cluster::of(3, false);
        cluster.machines[dead].runs = false;
        for n in 0..3 {
            move_to(&mut cluster, n);
            cluster.connect(n, client(u16::try_from(n).unwrap()));
            wait(&mut cluster, SECOND * 70);
        }
        wait(&mut cluster, SECOND * 60);
        let planned = &cluster.machines[2].decision.plan.addresses[&address()];
        assert_eq!(target(&planned.passing.from_outside), Some(&name(1 - dead)), "{dead}");
    }
}

#[test]
fn a_forwarder_that_has_just_started_asks_all_that_have_not_said_no() {
    let mut cluster = Cluster::of(3, false);
    cluster.connect(0, client(1));
    move_to(&mut cluster, 1);
    cluster.restart(1);
    cluster.tell_all();
    assert_eq!(cluster.send(1, client(1), Kind::Other).end(), 0);
    let drain = Drain { until: cluster.now + KEEP, served: false, quic: BTreeSet::new() };
    cluster.restart(2);
    cluster.tell_all();
    assert_eq!(drains(&cluster, 2), Some(drain));
    // Nodes that have counted since, and name no such address, have none.
    wait(&mut cluster, SECOND * 20);
    (0..3).for_each(|n| cluster.publish(n));
    cluster.tell_all();
    let planned = &cluster.machines[1].decision.plan.addresses[&address()];
    assert_eq!(target(&planned.passing.from_outside), Some(&name(0)));
    assert_eq!(cluster.send(1, client(1), Kind::Other).end(), 0);
    let unknown = cluster.send(1, client(2), Kind::Other);
    assert!(unknown.ended && unknown.nodes.starts_with(&[1, 0]), "{unknown:?}");
}

/// It says nothing until its new pod has counted.
#[test]
fn a_forwarder_that_has_just_started_asks_a_node_whose_forwarder_stops_after_that() {
    let mut cluster = Cluster::of(2, false);
    cluster.connect(0, client(1));
    move_to(&mut cluster, 1);
    cluster.restart(1);
    cluster.tell_all();
    cluster.fellow(0).forwarder = None;
    cluster.tell_all();
    assert_eq!(cluster.send(1, client(1), Kind::Other).nodes, [1, 0]);
    wait(&mut cluster, KEEP);
    assert!(!is_planned(&cluster), "what it has missed counts no more");
}

/// Its kernel answers for what it knows all the same.
#[test]
fn a_node_without_a_forwarder_is_asked_when_nobody_else_is_left() {
    let mut cluster = Cluster::of(3, false);
    cluster.connect(0, client(1));
    cluster.fellow(0).forwarder = None;
    move_to(&mut cluster, 1);
    assert_eq!(cluster.send(1, client(1), Kind::Other).nodes, [1, 0]);
    move_to(&mut cluster, 2);
    let planned = &cluster.machines[2].decision.plan.addresses[&address()];
    assert_eq!(target(&planned.passing.from_outside), Some(&name(1)), "it asks others in turn");
}

#[test]
fn new_connections_are_spread_and_answered_where_they_were_given() {
    let mut cluster = Cluster::of(3, true);
    let mut counts = [0; 3];
    for n in 0..300 {
        let trace = cluster.connect(0, client(n));
        assert!(trace.nodes.len() <= 2, "{trace:?}");
        counts[trace.end()] += 1;
        let again = cluster.send(0, client(n), Kind::Other);
        assert_eq!(again.nodes, trace.nodes);
    }
    assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
    let planned = &cluster.machines[1].decision.plan.addresses[&address()];
    assert_eq!(planned.interfaces, ["eth0"], "whoever announces next has it already");
    assert_eq!(planned.spread[&PORT].by, SpreadBy::ClientAndPort);
}

#[test]
fn what_chooses_the_bucket_follows_from_the_service() {
    let mut cluster = Cluster::of(2, true);
    let port = |protocol, number| Port { protocol, number };
    let service = |affinity, quic| Service { affinity, quic, ..Service::default() };
    let table = [
        (port(Protocol::Tcp, 80), service(false, false), SpreadBy::ClientAndPort),
        (port(Protocol::Tcp, 81), service(true, false), SpreadBy::Client),
        (port(Protocol::Udp, 53), service(false, false), SpreadBy::Client),
        (port(Protocol::Udp, 443), service(false, true), SpreadBy::Client),
    ];
    cluster.about().services =
        table.iter().map(|(port, service, _)| (*port, service.clone())).collect();
    cluster.tell_all();
    let planned = &cluster.machines[0].decision.plan.addresses[&address()];
    for (port, _, by) in table {
        assert_eq!(planned.spread[&port].by, by, "{port}");
    }
    assert_eq!(planned.quic, [443].into());
}

#[test]
fn who_serves_nothing_and_why() {
    type Change = fn(&mut Cluster);
    let table: [(Change, LeftOut); 10] = [
        (|it| it.fellow(2).life = Life::Ended(EndReason::Stopped), LeftOut::Away),
        (|it| it.fellow(2).facts.as_mut().unwrap().cordoned = true, LeftOut::Cordoned),
        (|it| it.fellow(2).facts.as_mut().unwrap().not_ready = true, LeftOut::NotReady),
        (|it| it.fellow(2).facts.as_mut().unwrap().excluded = true, LeftOut::Unfit),
        (|it| it.fellow(2).reach.interfaces.clear(), LeftOut::Unfit),
        (|it| it.fellow(2).forwarder = None, LeftOut::NoForwarder),
        (
            |it| it.fellow(2).forwarder.as_mut().unwrap().trouble = Some("no nf_tables".into()),
            LeftOut::Trouble("no nf_tables".into()),
        ),
        (|it| it.fellow(2).reach.interfaces[0].wireless = true, LeftOut::Wireless("eth0".into())),
        (
            |it| {
                let interface = &mut it.fellow(2).reach.interfaces[0];
                interface.subnets = vec!["10.9.0.3/24".parse().unwrap()];
                interface.default_ipv4 = true;
            },
            LeftOut::Elsewhere,
        ),
        (|it| it.weigh(&[1, 1, 0]), LeftOut::NoEndpoint),
    ];
    for (change, expected) in table {
        let mut cluster = Cluster::of(3, true);
        change(&mut cluster);
        cluster.tell_all();
        for n in [0, 1] {
            let decision = &cluster.machines[n].decision;
            let left_out = &decision.notes.left_out[&address()];
            assert_eq!(*left_out, BTreeMap::from([(name(2), expected.clone())]));
            assert!(decision.notes.one_node.is_empty());
            let first = &decision.plan.addresses[&address()].spread[&PORT].first;
            assert!(first.iter().all(|way| target(way) != Some(&name(2))), "{expected:?}");
        }
    }
}

#[test]
fn where_it_cannot_be_spread_one_node_serves_it() {
    type Change = fn(&mut Cluster);
    let wireless = OneNode::Wireless { node: name(0), interface: "eth0".into() };
    let trouble = OneNode::HolderTrouble { node: name(0), why: "no nf_tables".into() };
    let table: [(Change, OneNode); 7] = [
        (|it| it.about().holder = None, OneNode::NoHolder),
        (
            |it| {
                let forwarder = it.fellow(0).forwarder.as_mut().unwrap();
                forwarder.trouble = Some("no nf_tables".into());
            },
            trouble,
        ),
        (|it| it.about().services.clear(), OneNode::NoPort),
        (|it| it.fellow(0).forwarder = None, OneNode::HolderHasNoForwarder(name(0))),
        (|it| it.fellow(0).reach.interfaces[0].wireless = true, wireless),
        (
            |it| {
                it.about().terms = AnnounceTerms { places: Places::ByRules(vec![]), probing: true }
            },
            OneNode::TooFewNodes,
        ),
        (
            |it| {
                it.fellow(1).facts.as_mut().unwrap().cordoned = true;
                it.fellow(2).forwarder = None;
            },
            OneNode::TooFewNodes,
        ),
    ];
    for (change, expected) in table {
        let mut cluster = Cluster::of(3, true);
        change(&mut cluster);
        cluster.tell_all();
        for machine in &cluster.machines {
            let notes = &machine.decision.notes;
            assert_eq!(notes.one_node.get(&address()), Some(&expected));
            let planned = machine.decision.plan.addresses.get(&address());
            assert!(planned.is_none_or(|it| it.spread.is_empty()), "{expected}");
        }
    }
}

/// Somebody else announces it before the lock says so, by the table that all had.
#[test]
fn the_holders_death_changes_nothing_but_its_own_part() {
    let mut cluster = Cluster::of(3, true);
    let first = |cluster: &Cluster| {
        cluster.machines[1].decision.plan.addresses[&address()].spread[&PORT].first.clone()
    };
    let before = first(&cluster);
    cluster.fellow(0).life = Life::Ended(EndReason::NodeSilent);
    cluster.fellow(0).forwarder = None;
    cluster.tell(1);
    let after = first(&cluster);
    let of_others = before.iter().zip(&after).filter(|(way, _)| target(way) != Some(&name(0)));
    let moved = of_others.filter(|(before, after)| before != after).count();
    assert!(moved < 1024 / 16, "{moved}");
    assert!(after.iter().all(|way| target(way) != Some(&name(0))));

    // A cable that is out, and a session that goes on.
    let mut cluster = Cluster::of(3, true);
    cluster.fellow(0).reach.interfaces[0].cut_off = Families::ALL;
    cluster.tell(1);
    assert_eq!(first(&cluster).iter().filter(|way| target(way) == Some(&name(0))).count(), 0);
}

#[test]
fn a_node_that_comes_or_goes_breaks_nothing() {
    let mut cluster = Cluster::of(4, true);
    cluster.fellow(3).facts.as_mut().unwrap().cordoned = true;
    cluster.tell_all();
    let ends: Vec<usize> = (0..200).map(|n| cluster.connect(0, client(n)).end()).collect();
    let check = |cluster: &Cluster| {
        for (n, end) in (0..200).zip(&ends) {
            assert_eq!(cluster.send(cluster.holder(), client(n), Kind::Other).end(), *end);
            assert_eq!(cluster.send(cluster.holder(), client(n), Kind::IcmpError).end(), *end);
        }
    };
    cluster.fellow(3).facts.as_mut().unwrap().cordoned = false;
    cluster.tell_all();
    check(&cluster);
    cluster.fellow(1).facts.as_mut().unwrap().cordoned = true;
    cluster.tell_all();
    check(&cluster);
    move_to(&mut cluster, 2);
    check(&cluster);
    cluster.about().spread = false;
    cluster.tell_all();
    check(&cluster);
}

#[test]
fn packets_leave_by_the_segment_of_the_address() {
    let mut cluster = Cluster::of(2, false);
    for n in 0..2 {
        let own = IpAddr::from([10, 0, 0, u8::try_from(11 + n).unwrap()]);
        let other = Interface {
            name: "dmz".into(),
            subnets: vec![format!("{own}/24").parse().unwrap()],
            ..Interface::default()
        };
        let fellow = cluster.fellow(n);
        fellow.macs.insert(own, [4, 0, 0, 0, 0, u8::try_from(n).unwrap()]);
        fellow.reach.interfaces.insert(0, other);
    }
    let interface = |cluster: &Cluster| {
        let planned = &cluster.machines[1].decision.plan.addresses[&address()];
        match &planned.passing.from_outside {
            Way::To(hop) => Some(hop.interface.clone()),
            Way::Local => None,
        }
    };
    cluster.tell_all();
    move_to(&mut cluster, 1);
    assert_eq!(interface(&cluster).as_deref(), Some("eth0"));
    cluster.fellow(0).reach.interfaces[1].cut_off = Families::ALL;
    cluster.tell_all();
    assert_eq!(interface(&cluster).as_deref(), Some("dmz"));
    cluster.fellow(0).reach.interfaces[0].cut_off = Families::ALL;
    cluster.tell_all();
    assert!(cluster.machines[1].decision.plan.addresses.is_empty(), "there is no way");
}

#[test]
fn a_client_is_told_where_it_would_go_and_why() {
    let mut cluster = Cluster::of(3, true);
    cluster.weigh(&[1, 0, 3]);
    cluster.tell_all();
    let told = explain(&cluster.truth, (address(), PORT), client(5));
    assert_eq!(told.node, Some(name(cluster.connect(0, client(5)).end())));
    let shares: Vec<(Node, usize)> =
        told.shares.iter().map(|it| (it.node.clone(), it.buckets)).collect();
    assert_eq!(shares, [(name(2), 768), (name(0), 256)]);
    assert!(told.because.to_string().contains("the client's address and port is in bucket"));
    assert_eq!(told.left_out, BTreeMap::from([(name(1), LeftOut::NoEndpoint)]));

    let other = Port { number: 81, ..PORT };
    let told = explain(&cluster.truth, (address(), other), client(5));
    assert_eq!((told.node, told.because), (Some(name(0)), Because::NoSuchPort(other)));
    cluster.weigh(&[0, 0, 0]);
    let none = Service { endpoints: Endpoints::OnNodes(BTreeMap::new()), ..Service::default() };
    cluster.about().services.insert(PORT, none);
    cluster.about().services.insert(other, Service::default());
    let told = explain(&cluster.truth, (address(), PORT), client(5));
    assert_eq!((told.node, told.because), (None, Because::NoEndpoint(PORT)));
    cluster.about().spread = false;
    let told = explain(&cluster.truth, (address(), PORT), client(5));
    assert_eq!((told.node, told.because), (Some(name(0)), Because::NotSpread));
}

#[test]
fn nodes_that_drain_are_named_in_the_order_in_which_they_are_asked() {
    let mut cluster = Cluster::of(3, false);
    cluster.connect(0, client(1));
    move_to(&mut cluster, 1);
    cluster.connect(1, client(2));
    move_to(&mut cluster, 2);
    [0, 1].into_iter().for_each(|n| cluster.publish(n));
    let told = explain(&cluster.truth, (address(), PORT), client(5));
    cluster.tell_all();
    let order: Vec<Node> = told.draining.iter().map(|(node, _)| node.clone()).collect();
    let walked = cluster.send(2, client(9), Kind::Other).nodes;
    let walked: Vec<Node> = walked.into_iter().map(name).filter(|it| *it != name(2)).collect();
    assert_eq!(order, walked);
    assert!(told.draining.iter().all(|(_, count)| *count == 1));
}

/// What it said before may stand on its Lease for an hour.
#[test]
fn a_forwarder_that_has_just_started_gives_nothing_to_a_node_that_was_dead_before() {
    let mut cluster = Cluster::of(3, false);
    cluster.cut_off(0);
    let holder = cluster.holder();
    cluster.kill(0);
    (1..3).for_each(|n| cluster.restart(n));
    cluster.tell_all();
    assert!(asked(&cluster)[1..].iter().all(|asked| asked.contains(&name(0))));
    for client in (0..10).map(client) {
        assert_ne!(cluster.send(holder, client, Kind::Other).end(), 0);
    }
}

/// It does not know what has moved since: it would end the search.
#[test]
fn a_node_that_is_cut_off_is_asked_when_nobody_else_is_left() {
    for cut_off in 0..3 {
        let mut cluster = Cluster::of(3, true);
        cluster.cut_off(cut_off);
        cluster.tell_all();
        let holder = cluster.holder();
        for client in (0..40).map(client) {
            let server = cluster.connect(holder, client).end();
            assert_ne!(server, cut_off);
            assert_eq!(cluster.send(holder, client, Kind::Other).end(), server, "{client:?}");
        }
    }
}
