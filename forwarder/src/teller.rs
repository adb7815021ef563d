//! Tells people once of what cannot be as it was wanted.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_election::Node;
use arpeggio_forwarding::{Known, LeftOut, Notes};

/// What was told last, of the addresses that this node is to tell of.
#[derive(Debug)]
pub(crate) struct Teller {
    node: Node,
    told: BTreeMap<IpAddr, Told>,
}

/// Of an address that all nodes are to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    /// Why one node serves it.
    one_node: Option<String>,
    /// This node announces it.
    is_here: bool,
    left_out: BTreeMap<Node, LeftOut>,
}

impl Teller {
    /// For the addresses that `node` is to tell of: all nodes know the same, and one is to tell it.
    pub(crate) fn new(node: Node) -> Self {
        Self { node, told: BTreeMap::new() }
    }

    /// Writes to the log what is new.
    pub(crate) fn tell(&mut self, known: &Known, notes: &Notes) {
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
        let here = self.told.iter().filter(|(_, told)| told.is_here && told.one_node.is_some());
        here.map(|(address, _)| address)
    }

    /// Why one node, this or another one, serves addresses that all are to serve.
    pub(crate) fn not_spread(&self) -> BTreeMap<IpAddr, String> {
        let told = self.told.iter();
        told.filter_map(|(address, told)| Some((*address, told.one_node.clone()?))).collect()
    }
}

fn ours(node: &Node, known: &Known, notes: &Notes) -> BTreeMap<IpAddr, Told> {
    let of = |(address, left_out): (&IpAddr, &BTreeMap<Node, LeftOut>)| {
        let about = known.addresses.get(address)?;
        let told = || Told {
            one_node: notes.why_one_node(*address),
            is_here: about.holder.as_ref() == Some(node),
            left_out: left_out.clone(),
        };
        (notes.tellers.get(address) == Some(node)).then(|| (*address, told()))
    };
    notes.left_out.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use arpeggio_election::Epoch;
    use arpeggio_forwarding::{Address, Fellow, Forwarder, Life, OneNode, Wire};

    use super::*;

    fn fellow(forwarder: bool) -> Fellow {
        Fellow {
            life: Life::Live,
            epoch: Epoch(1),
            wire: Wire::default(),
            reach: arpeggio_election::Reach::default(),
            macs: BTreeMap::new(),
            facts: None,
            forwarder: forwarder.then(Forwarder::default),
        }
    }

    #[test]
    fn the_holder_tells_of_an_address_or_another_in_its_stead() {
        let address = IpAddr::from([192, 168, 0, 240]);
        let about = Address { holder: Some("a".into()), spread: true, ..Address::default() };
        let left_out: BTreeMap<Node, LeftOut> = [("b".into(), LeftOut::Away)].into();
        let notes = Notes {
            one_node: [(address, OneNode::TooFewNodes)].into(),
            left_out: [(address, left_out)].into(),
            tellers: [(address, "a".into())].into(),
        };
        let by_b = Notes { tellers: [(address, "b".into())].into(), ..notes.clone() };
        let (mut a, mut b) = (Teller::new("a".into()), Teller::new("b".into()));
        let mut told = |has_forwarder, notes: &Notes| {
            let fellows = [("a".into(), fellow(has_forwarder)), ("b".into(), fellow(true))];
            let addresses = [(address, about.clone())].into();
            let known = Known { nodes: fellows.into(), addresses, ..Known::default() };
            a.tell(&known, notes);
            b.tell(&known, notes);
            let of = |it: &Teller| (it.one_node().count(), it.not_spread().len());
            (of(&a), of(&b))
        };
        assert_eq!(told(true, &notes), ((1, 1), (0, 0)));
        assert_eq!(told(false, &by_b), ((0, 0), (0, 1)), "b tells, and does not serve it");
        assert_eq!(told(true, &Notes::default()), ((0, 0), (0, 0)));
    }
}
