//! What becomes of packets when the kernel refuses a change of the rules, in network namespaces of the tests' own.
#![cfg(test)]

mod segment;

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc};

use arpeggio_forwarder::rules::{Counting, Rules};
use arpeggio_forwarding::{
    BUCKETS, Plan, PlannedAddress, Port, Protocol, Reset, Spread, SpreadBy, Way,
};
use segment::{Namespace, Segment, WEB, both};

/// Node 2 announces an address that is spread, and has all parts of it, since node 1 is dead.
fn without_node_1(segment: &Segment) -> Plan {
    let all = vec![Way::Local; usize::from(BUCKETS)];
    let [first, others, below] = [all.clone(), all.clone(), all];
    let spread = Spread { by: SpreadBy::ClientAndPort, seed: 1, first, others, below };
    let port = Port { protocol: Protocol::Tcp, number: WEB };
    let planned = PlannedAddress {
        spread: BTreeMap::from([(port, Arc::new(spread))]),
        reset: Reset::Everything,
        interfaces: vec![segment.interface.to_owned()],
        ..PlannedAddress::default()
    };
    segment.plan(2, planned)
}

/// Makes the kernel of a node refuse the rules one table: another program has one by its name.
fn occupy(node: &Namespace, family: &str) -> String {
    let tables = node.command("nft list tables");
    let name = tables.split_whitespace().find(|word| word.starts_with("arpeggio-")).unwrap();
    let table = format!("{family} {name}");
    node.nft(&format!("add table {table}"));
    table
}

/// The rest of the plan is what keeps packets from a dead node.
#[test]
fn of_a_plan_only_the_table_that_the_kernel_refuses_is_not_there() {
    both(|segment| {
        let mut open = segment.connect();
        let node = segment.node(2);
        let mut rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        segment.move_to(2);
        assert_eq!(open.node(), 1);
        let occupied = occupy(node, "netdev");
        segment.plug(1, false);
        let plan = without_node_1(segment);
        let apply = |rules: &mut Rules| node.run(|| rules.apply(&plan).map(drop));
        let refused = apply(&mut rules).unwrap_err().to_string();
        assert!(refused.contains(&occupied), "{refused}");
        assert!(!node.run(|| rules.are_outdated()), "it was looked at");
        let told = open.ask().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionReset, "{told}");
        let service = segment.version.service();
        let counted = |rules: &mut Rules, counting: &Counting| {
            let counters = rules.read_counters().unwrap();
            counters.iter().any(|it| it.counting == *counting && it.packets > 0)
        };
        assert!(counted(&mut rules, &Counting::Reset(service)), "by the rules, not by a backend");
        assert_eq!(segment.connect().node(), 2);
        node.nft(&format!("delete table {occupied}"));
        apply(&mut rules).unwrap();
        assert_eq!(segment.connect().node(), 2);
        assert!(counted(&mut rules, &Counting::Stayed(service)), "the rest is there");
    });
}
