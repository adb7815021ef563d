//! A plan, for people.

use std::collections::BTreeMap;

use arpeggio_api::lock::LockRecord;
use arpeggio_election::rebalance::{Move, Plan};

use crate::table;

/// What would be moved, and what comes of it.
pub(super) struct Preview<'a> {
    pub(super) plan: &'a Plan,
    pub(super) locks: &'a [LockRecord],
}

impl Preview<'_> {
    pub(super) fn to_text(&self) -> String {
        let Self { plan, .. } = self;
        if plan.before.is_empty() {
            return "no speaker has a session that counts\n".to_owned();
        }
        let mut text = match plan.moves.len() {
            0 => "nothing to move\n".to_owned(),
            _ => table::render(["ADDRESS", "SERVICES", "FROM", "TO"], &self.moves()),
        };
        text.push('\n');
        text.push_str(&table::render(["NODE", "ADDRESSES", "AFTER"], &self.counts()));
        if plan.spread > 1 {
            text.push_str(
                "\nThis is as even as it gets: rules and preferences of pools, the state of nodes, or pod placement prevent more.\n",
            );
        }
        text
    }

    fn moves(&self) -> Vec<[String; 4]> {
        let services: BTreeMap<_, _> =
            self.locks.iter().map(|record| (record.lock.address, services(record))).collect();
        let row = |Move { address, from, to }: &Move| {
            let services = services.get(address).cloned().unwrap_or_default();
            [address.to_string(), services, from.to_string(), to.to_string()]
        };
        self.plan.moves.iter().map(row).collect()
    }

    fn counts(&self) -> Vec<[String; 3]> {
        let Plan { before, after, .. } = self.plan;
        let row = |(node, count): (&arpeggio_election::Node, &usize)| {
            let after = after.get(node).copied().unwrap_or_default();
            [node.to_string(), count.to_string(), after.to_string()]
        };
        before.iter().map(row).collect()
    }
}

/// The Services that a lock is for: `NAMESPACE/NAME,...`.
fn services(record: &LockRecord) -> String {
    let services = record.claim.services.iter();
    let names: Vec<String> = services.map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(moves: Vec<Move>, before: [usize; 2], after: [usize; 2]) -> String {
        let counts =
            |[a, b]: [usize; 2]| [("node-1".into(), a), ("node-2".into(), b)].into_iter().collect();
        let spread = after[0].abs_diff(after[1]);
        let plan = Plan { moves, before: counts(before), after: counts(after), spread };
        Preview { plan: &plan, locks: &[] }.to_text()
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
        let nobody = Preview { plan: &Plan::default(), locks: &[] }.to_text();
        assert_eq!(nobody, "no speaker has a session that counts\n");
    }
}
