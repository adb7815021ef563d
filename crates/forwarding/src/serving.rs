//! Which nodes serve an address.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::net::IpAddr;

use arpeggio_election::{EndReason, Families, Interface, Node, NodeFacts};
use ipnet::IpNet;

use crate::{
    known::{Address, Endpoints, Fellow, Known, Life, Port, Protocol, Service, Wire},
    memory::Served,
    notes::{LeftOut, OneNode},
    packet::SpreadBy,
    table::Table,
};

/// Who serves an address that is to be spread.
#[derive(Debug, Default)]
pub(crate) struct Crew<'a> {
    /// The nodes that can.
    pub(crate) able: Vec<&'a Node>,
    /// Those that might announce the address, and cannot.
    pub(crate) left_out: BTreeMap<Node, LeftOut>,
}

/// The tables of the last decision, by the weights that they follow from. Most Services have the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    known: BTreeMap<Vec<(Node, u32)>, Arc<Table>>,
    used: BTreeMap<Vec<(Node, u32)>, Arc<Table>>,
}

impl Tables {
    pub(crate) fn of(&mut self, weights: Vec<(Node, u32)>) -> Option<Arc<Table>> {
        let found = self.used.get(&weights).or_else(|| self.known.get(&weights)).cloned();
        let table = found.or_else(|| Table::of(&weights).map(Arc::new))?;
        self.used.insert(weights, Arc::clone(&table));
        Some(table)
    }

    /// Forgets those that nobody has asked for since the last time.
    pub(crate) fn turn(&mut self) {
        self.known = core::mem::take(&mut self.used);
    }
}

/// Who serves `address`, or why it is one node after all. `address` is to be spread.
pub(crate) fn crew<'a>(
    known: &'a Known,
    address: IpAddr,
    about: &Address,
) -> (Crew<'a>, Option<OneNode>) {
    let Some((holder, holding)) =
        about.holder.as_ref().and_then(|it| known.nodes.get_key_value(it))
    else {
        return (Crew::default(), Some(OneNode::NoHolder));
    };
    let plugged_in = plugged_in(holding);
    let segment = announcing(address, about, &plugged_in);
    let mut crew = Crew::default();
    for (node, fellow) in &known.nodes {
        match check(address, about, node, fellow, segment) {
            Ok(()) => crew.able.push(node),
            Err(why) => {
                crew.left_out.insert(node.clone(), why);
            }
        }
    }
    let reason = one_node(about, holder, holding, segment, &crew);
    (crew, reason)
}

/// A node as it is when no cable is out: the segment of an address does not change by that.
fn plugged_in(fellow: &Fellow) -> Fellow {
    let mut fellow = fellow.clone();
    fellow.reach.interfaces.iter_mut().for_each(|it| it.cut_off = Families::NONE);
    fellow
}

/// Of a holder whose session was ended nothing more is asked: somebody else is about to announce the address.
fn one_node(
    about: &Address,
    holder: &Node,
    holding: &Fellow,
    segment: Option<&Interface>,
    crew: &Crew<'_>,
) -> Option<OneNode> {
    let is_live = holding.life == Life::Live;
    if about.services.is_empty() {
        return Some(OneNode::NoPort);
    }
    let forwarder = holding.forwarder.as_ref();
    if is_live && forwarder.is_none() {
        return Some(OneNode::HolderHasNoForwarder(holder.clone()));
    }
    if is_live && forwarder.is_some_and(|it| it.stale) {
        return Some(OneNode::HolderForwarderStale(holder.clone()));
    }
    if let Some(why) = forwarder.filter(|_| is_live).and_then(|it| it.trouble.clone()) {
        return Some(OneNode::HolderTrouble { node: holder.clone(), why });
    }
    if let Some(radio) = segment.filter(|it| is_live && it.wireless) {
        return Some(OneNode::Wireless { node: holder.clone(), interface: radio.name.clone() });
    }
    crew.able.iter().all(|node| *node == holder).then_some(OneNode::TooFewNodes)
}

/// The weights of the nodes that serve one port.
pub(crate) fn weights(service: &Service, able: &[&Node]) -> Vec<(Node, u32)> {
    let weight = |node: &Node| match &service.endpoints {
        Endpoints::Anywhere => 1,
        Endpoints::OnNodes(counts) => counts.get(node).copied().unwrap_or_default(),
    };
    let weights = able.iter().map(|node| ((*node).clone(), weight(node)));
    weights.filter(|(_, weight)| *weight > 0).collect()
}

/// The interface on which a node announces the address, or would.
fn announcing<'a>(address: IpAddr, about: &Address, fellow: &'a Fellow) -> Option<&'a Interface> {
    places(address, about, fellow).into_iter().next()
}

/// All of them.
pub(crate) fn places<'a>(
    address: IpAddr,
    about: &Address,
    fellow: &'a Fellow,
) -> Vec<&'a Interface> {
    about.terms.interfaces(address, fellow.facts.as_ref(), &fellow.reach)
}

fn check(
    address: IpAddr,
    about: &Address,
    node: &Node,
    fellow: &Fellow,
    segment: Option<&Interface>,
) -> Result<(), LeftOut> {
    if fellow.life != Life::Live || fellow.wire == Wire::Silent {
        return Err(LeftOut::Away);
    }
    check_facts(about, fellow.facts.as_ref())?;
    let place = announcing(address, about, fellow).ok_or(LeftOut::Unfit)?;
    let forwarder = fellow.forwarder.as_ref().ok_or(LeftOut::NoForwarder)?;
    if forwarder.stale {
        return Err(LeftOut::ForwarderStale);
    }
    if let Some(trouble) = &forwarder.trouble {
        return Err(LeftOut::Trouble(trouble.clone()));
    }
    if !segment.is_some_and(|segment| share_segment(segment, place, address)) {
        return Err(LeftOut::Elsewhere);
    }
    if place.wireless {
        return Err(LeftOut::Wireless(place.name.clone()));
    }
    let serves = |service: &Service| !weights(service, &[node]).is_empty();
    if about.services.values().any(serves) { Ok(()) } else { Err(LeftOut::NoEndpoint) }
}

fn check_facts(about: &Address, facts: Option<&NodeFacts>) -> Result<(), LeftOut> {
    let mut rules = about.terms.rules_for(facts);
    if !rules.any(|rule| rule.selects(facts)) {
        return Err(LeftOut::Unfit);
    }
    match facts {
        Some(it) if it.excluded || it.out_of_service || it.network_unavailable => {
            Err(LeftOut::Unfit)
        }
        Some(it) if it.cordoned => Err(LeftOut::Cordoned),
        Some(it) if it.not_ready => Err(LeftOut::NotReady),
        _ => Ok(()),
    }
}

/// Whether two interfaces are in one subnet of the address's family.
fn share_segment(one: &Interface, other: &Interface, address: IpAddr) -> bool {
    let nets = |it: &Interface| -> Vec<IpNet> {
        it.subnets.iter().filter(|net| is_segment(net, address)).map(IpNet::trunc).collect()
    };
    let others = nets(other);
    nets(one).iter().any(|net| others.contains(net))
}

/// Whether neighbours are found in `net` by addresses of the family of `address`. All segments have the same link-local subnet.
pub(crate) fn is_segment(net: &IpNet, address: IpAddr) -> bool {
    let is_link_local = match net {
        IpNet::V4(it) => it.addr().is_link_local(),
        IpNet::V6(it) => it.addr().is_unicast_link_local(),
    };
    net.addr().is_ipv4() == address.is_ipv4()
        && net.prefix_len() < net.max_prefix_len()
        && !is_link_local
}

impl Fellow {
    /// Whether its forwarder works.
    pub(crate) fn passes(&self) -> bool {
        self.forwarder.as_ref().is_some_and(|it| it.trouble.is_none() && !it.stale)
    }

    /// Whether it passes on what it does not know to whoever may know it.
    pub(crate) fn asks_others(&self) -> bool {
        self.passes() && !self.is_out_of_touch()
    }

    /// Whether it drops what is marked where nobody is left to ask. One that does not ask others may have no rules for the address.
    pub(crate) fn knows_mark(&self) -> bool {
        self.asks_others() && self.forwarder.as_ref().is_some_and(|it| it.knows_mark)
    }

    /// Whether its kernel may still answer for what it knows: nobody has said that it is dead, and it answers when it is asked.
    pub(crate) fn lives(&self) -> bool {
        self.is_not_said_to_be_dead()
            && match self.wire {
                Wire::Answers | Wire::Unasked => true,
                Wire::Silent => false,
                Wire::Unknown => !self.is_out_of_touch(),
            }
    }

    /// Whether nobody has found it dead. A session that ended in another way says nothing of the node's kernel.
    pub(crate) fn is_not_said_to_be_dead(&self) -> bool {
        self.life != Life::Ended(EndReason::NodeSilent)
    }

    /// Whether it is dead, cut off from the API server, or without both speaker and forwarder: only the wire tells which. If it lives, it
    /// knows its own connections, and nothing of what has moved since. One whose speaker alone has ended is told by its forwarder.
    pub(crate) fn is_out_of_touch(&self) -> bool {
        match self.life {
            Life::Live | Life::Ended(EndReason::NodeSilent) => false,
            Life::Ended(EndReason::Stopped | EndReason::SpeakerSilent) => {
                self.forwarder.as_ref().is_none_or(|it| it.stale)
            }
            Life::Ended(EndReason::Expired) => true,
        }
    }

    /// Whether its connections are lost, as far as is known.
    pub(crate) fn is_lost(&self) -> bool {
        !self.lives() || self.is_out_of_touch() && self.wire != Wire::Answers
    }
}

/// What chooses the bucket of a connection to a port.
pub(crate) fn spread_by(port: Port, service: &Service) -> SpreadBy {
    match port.protocol {
        Protocol::Tcp if !service.affinity => SpreadBy::ClientAndPort,
        Protocol::Tcp | Protocol::Udp => SpreadBy::Client,
    }
}

/// Who serves each port.
pub(crate) fn tables(
    about: &Address,
    able: &[&Node],
    tables: &mut Tables,
) -> BTreeMap<Port, Served> {
    let of = |(port, service): (&Port, &Service)| {
        let table = tables.of(weights(service, able));
        (*port, Served { by: spread_by(*port, service), table })
    };
    about.services.iter().map(of).collect()
}
