//! Tells people once of what cannot be as it was wanted.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_election::Node;
use arpeggio_forwarding::{Known, LeftOut, Notes, OneNode};

/// What was told last, of the addresses that this node has.
#[derive(Debug)]
pub(crate) struct Teller {
    node: Node,
    told: BTreeMap<IpAddr, Told>,
}

/// Of an address that all nodes are to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    one_node: Option<OneNode>,
    left_out: BTreeMap<Node, LeftOut>,
}

impl Teller {
    /// For the addresses that `node` has: all nodes know the same, and one is to tell it.
    pub(crate) fn new(node: Node) -> Self {
        Self { node, told: BTreeMap::new() }
    }

    /// Writes to the log what is new.
    pub(crate) fn tell(&mut self, known: &Known, notes: Notes) {
        let before = std::mem::replace(&mut self.told, ours(&self.node, known, notes));
        for (address, now) in &self.told {
            let before = before.get(address);
            if before.map(|it| &it.one_node) != Some(&now.one_node) {
                if let Some(why) = &now.one_node {
                    tracing::warn!(%address, %why, "one node serves the address, though all are to");
                } else {
                    tracing::info!(%address, "all nodes that can serve the address");
                }
            }
            for (node, why) in &now.left_out {
                if before.and_then(|it| it.left_out.get(node)) != Some(why) {
                    tracing::info!(%address, %node, %why, "the node serves nothing of the address");
                }
            }
        }
    }

    /// The addresses that this node alone serves, though all are to.
    pub(crate) fn one_node(&self) -> impl Iterator<Item = &IpAddr> {
        self.told.iter().filter(|(_, told)| told.one_node.is_some()).map(|(address, _)| address)
    }
}

fn ours(node: &Node, known: &Known, notes: Notes) -> BTreeMap<IpAddr, Told> {
    let Notes { mut one_node, left_out } = notes;
    let is_ours = |address: &IpAddr| {
        known.addresses.get(address).is_some_and(|about| about.holder.as_ref() == Some(node))
    };
    let ours = left_out.into_iter().filter(|(address, _)| is_ours(address));
    ours.map(|(address, left_out)| {
        (address, Told { one_node: one_node.remove(&address), left_out })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use arpeggio_forwarding::Address;

    use super::*;

    #[test]
    fn the_holder_tells_of_an_address() {
        let address = IpAddr::from([192, 168, 0, 240]);
        let about = Address { holder: Some("a".into()), spread: true, ..Address::default() };
        let known = Known { addresses: [(address, about)].into(), ..Known::default() };
        let left_out: BTreeMap<Node, LeftOut> = [("b".into(), LeftOut::Away)].into();
        let notes = Notes {
            one_node: [(address, OneNode::TooFewNodes)].into(),
            left_out: [(address, left_out)].into(),
        };
        let mut own = Teller::new("a".into());
        own.tell(&known, notes.clone());
        assert_eq!(own.one_node().collect::<Vec<_>>(), [&address]);
        assert_eq!(own.told[&address].left_out.len(), 1);
        let mut other = Teller::new("b".into());
        other.tell(&known, notes);
        assert!(other.told.is_empty());
        own.tell(&known, Notes::default());
        assert_eq!(own.one_node().count(), 0);
    }
}
