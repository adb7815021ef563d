//! A plan, for people.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::lock::{LockRecord, ServiceRef};
use arpeggio_election::rebalance::{Leveling, Move};
use serde::Serialize;

use super::requests::Missed;
use crate::{status::section, table};

/// What would be moved, or has been, and what comes of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Preview {
    moves: Vec<Planned>,
    nodes: Vec<Load>,
    /// The most addresses of a node in the end, less the fewest.
    spread: usize,
}

#[derive(Debug, Clone, Serialize)]
struct Planned {
    address: IpAddr,
    /// `NAMESPACE/NAME`.
    services: Vec<String>,
    from: String,
    to: String,
    /// Whether it was done; absent as long as nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Load {
    node: String,
    before: usize,
    after: usize,
}

impl Preview {
    pub(super) fn of(plan: &Leveling, locks: &[LockRecord]) -> Self {
        let services: BTreeMap<_, _> =
            locks.iter().map(|record| (record.lock.address, services(record))).collect();
        let planned = |Move { address, from, to }: &Move| Planned {
            address: *address,
            services: services.get(address).cloned().unwrap_or_default(),
            from: from.to_string(),
            to: to.to_string(),
            done: None,
            reason: None,
        };
        let load = |(node, count): (&arpeggio_election::Node, &usize)| Load {
            node: node.to_string(),
            before: *count,
            after: plan.after.get(node).copied().unwrap_or_default(),
        };
        Self {
            moves: plan.moves.iter().map(planned).collect(),
            nodes: plan.before.iter().map(load).collect(),
            spread: plan.spread,
        }
    }

    /// The same, with what has become of each move.
    pub(super) fn carried_out(mut self, missed: &[Missed]) -> Self {
        for planned in &mut self.moves {
            let missed = missed.iter().find(|it| it.wanted.address == planned.address);
            planned.done = Some(missed.is_none());
            planned.reason = missed.map(|it| it.reason.clone());
        }
        self
    }

    pub(super) fn to_text(&self) -> String {
        if self.nodes.is_empty() {
            return "no speaker has a session that counts\n".to_owned();
        }
        let moves: Vec<_> = self.moves.iter().map(Planned::cells).collect();
        let mut text = section("nothing to move\n", ["ADDRESS", "SERVICES", "FROM", "TO"], &moves);
        text.push('\n');
        let nodes: Vec<_> = self.nodes.iter().map(Load::cells).collect();
        text.push_str(&table::render(["NODE", "ADDRESSES", "AFTER"], &nodes));
        if self.spread > 1 {
            text.push_str(
                "\nThis is as even as it gets: rules and preferences of pools, the state of nodes, or pod placement prevent more.\n",
            );
        }
        text
    }
}

impl Planned {
    fn cells(&self) -> [String; 4] {
        let services = self.services.join(",");
        [self.address.to_string(), services, self.from.clone(), self.to.clone()]
    }
}

impl Load {
    fn cells(&self) -> [String; 3] {
        [self.node.clone(), self.before.to_string(), self.after.to_string()]
    }
}

/// The Services that a lock is for: `NAMESPACE/NAME`.
fn services(record: &LockRecord) -> Vec<String> {
    record.claim.services.iter().map(ServiceRef::path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(moves: Vec<Move>, before: [usize; 2], after: [usize; 2]) -> String {
        let counts =
            |[a, b]: [usize; 2]| [("node-1".into(), a), ("node-2".into(), b)].into_iter().collect();
        let spread = after[0].abs_diff(after[1]);
        let plan = Leveling { moves, before: counts(before), after: counts(after), spread };
        Preview::of(&plan, &[]).to_text()
    }

    #[test]
    fn moves_and_counts_are_shown() {
        let address = [192, 168, 0, 240].into();
        let moves = vec![Move { address, from: "node-1".into(), to: "node-2".into() }];
        let text = plan(moves, [2, 0], [1, 1]);
        assert!(text.contains("192.168.0.240              node-1   node-2"), "{text}");
        assert!(text.contains("node-1   2           1"), "{text}");
    }

    #[test]
    fn nothing_to_do_is_said_and_why_it_is_not_even() {
        assert!(plan(vec![], [1, 1], [1, 1]).starts_with("nothing to move\n"));
        assert!(!plan(vec![], [2, 1], [2, 1]).contains("cannot be"));
        assert!(plan(vec![], [3, 1], [3, 1]).contains("This is as even as it gets"));
        let nobody = Preview::of(&Leveling::default(), &[]).to_text();
        assert_eq!(nobody, "no speaker has a session that counts\n");
    }

    /// Programs rely on these names.
    #[test]
    fn the_names_of_fields_stay() {
        let address = [192, 168, 0, 240].into();
        let wanted = Move { address, from: "node-1".into(), to: "node-2".into() };
        let plan = Leveling { moves: vec![wanted.clone()], ..Leveling::default() };
        let missed = Missed { wanted, reason: "no".into() };
        let report = Preview::of(&plan, &[]).carried_out(&[missed]);
        let expected = serde_json::json!({
            "moves": [{
                "address": "192.168.0.240", "services": [], "from": "node-1", "to": "node-2",
                "done": false, "reason": "no",
            }],
            "nodes": [],
            "spread": 0,
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
