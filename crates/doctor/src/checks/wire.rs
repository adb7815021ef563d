//! What the nodes hear on the segment.
//!
//! Each node has asked for the others' own addresses, for the announced ones and for its routers, first everybody and then by
//! unicast, and has listened to who asked for its own. A question that arrives and is not answered by anybody tells which
//! direction is dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{answered, list, pools::node_addresses, unasked};
use crate::{
    code::Code,
    facts::{Asking, Facts, Lock, Session},
    finding::Finding,
    survey::{Answers, Survey},
};

/// Why nobody asks the segment where speakers ask sparsely.
const SPARSE: &str = "speakers have --probe-profile=sparse, so that switches may close a port that sends as many ARP frames at \
                      once as this takes: no node was told to ask. arpeggio who-has asks for single addresses";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let failed = facts.surveys.iter().filter_map(|(node, it)| Some((node, it.as_ref().err()?)));
    let mut findings: Vec<Finding> = failed
        .map(|(node, why)| Finding::unchecked(Code::W110, format!("node {node}"), why))
        .collect();
    if facts.surveys.is_empty() {
        findings.push(Finding::unchecked(Code::W110, "segment", "no node was asked"));
        return findings;
    }
    if facts.is_sparse() {
        findings.push(Finding::unchecked(Code::W110, "segment", SPARSE));
    }
    findings.extend(unasked(facts, Asking::Nodes, Code::W101, "ways between nodes"));
    findings.extend(unasked(facts, Asking::Announced, Code::W106, "announced addresses"));
    findings.extend(unasked(facts, Asking::Free, Code::W109, "free addresses of pools"));
    let wire = Wire::of(facts);
    let hops = wire.hops();
    findings.extend(hops.iter().map(|(hop, fault)| hop.finding(*fault)));
    findings.extend(wire.foreign());
    for lock in facts.locks.as_deref().unwrap_or_default() {
        findings.extend(wire.announced(lock, &hops));
    }
    findings.extend(wire.routers());
    findings.extend(wire.free(facts));
    findings
}

/// A way from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Hop<'a> {
    from: &'a str,
    to: &'a str,
    protocol: &'static str,
}

/// What is wrong with a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Nothing arrives.
    Dead,
    /// Nothing arrives on this way or on the way back; which of both is not known.
    DeadOrBack,
    /// Only what is sent to everybody arrives.
    UnicastLost,
    /// Only what is sent to one machine arrives.
    BroadcastLost,
}

impl Hop<'_> {
    fn finding(&self, fault: Fault) -> Finding {
        let Self { from, to, protocol } = self;
        let (code, seen) = match fault {
            Fault::Dead => {
                (Code::W101, format!("what {from} sends does not reach {to} ({protocol})"))
            }
            Fault::DeadOrBack => (
                Code::W101,
                format!("{to} does not answer {from}: one of both directions is dead ({protocol})"),
            ),
            Fault::UnicastLost => (
                Code::W102,
                format!(
                    "{to} hears {from} when it asks everybody, and not by unicast ({protocol})"
                ),
            ),
            Fault::BroadcastLost => (
                Code::W103,
                format!(
                    "{to} hears {from} by unicast, and not when it asks everybody ({protocol})"
                ),
            ),
        };
        Finding::new(code, format!("{from} to {to}"), seen)
    }
}

struct Wire<'a> {
    surveys: BTreeMap<&'a str, &'a Survey>,
    sessions: BTreeMap<&'a str, &'a Session>,
    own: BTreeSet<IpAddr>,
}

impl<'a> Wire<'a> {
    fn of(facts: &'a Facts) -> Self {
        let sessions = facts.sessions.as_deref().unwrap_or_default().iter();
        Self {
            surveys: answered(&facts.surveys).map(|(node, it)| (node.as_str(), it)).collect(),
            sessions: sessions.map(|it| (it.node.as_str(), it)).collect(),
            own: node_addresses(facts),
        }
    }

    /// The node that has an interface with this MAC address.
    fn node_at(&self, mac: &str) -> Option<&'a str> {
        self.sessions.values().find(|it| it.has_mac(mac)).map(|it| it.node.as_str())
    }

    /// Who has this address for its own.
    fn node_of(&self, address: IpAddr) -> Option<&'a Session> {
        self.sessions.values().find(|it| it.links.iter().any(|(own, _)| *own == address)).copied()
    }

    fn described(&self, mac: &str) -> String {
        self.node_at(mac)
            .map_or_else(|| format!("a stranger ({mac})"), |node| format!("{node} ({mac})"))
    }

    /// All ways between nodes on which something is wrong.
    fn hops(&self) -> BTreeMap<Hop<'a>, Fault> {
        let mut hops: BTreeMap<Hop<'a>, Fault> = BTreeMap::new();
        for (asker, survey) in &self.surveys {
            let asked = survey.answers.iter().filter(|it| it.unasked.is_none());
            for (answers, peer) in asked.filter_map(|it| Some((it, self.node_of(it.address)?))) {
                if peer.node == *asker {
                    continue;
                }
                if let Some((hop, fault)) = self.judged(asker, answers, peer) {
                    hops.entry(hop).and_modify(|known| *known = fault.min(*known)).or_insert(fault);
                }
            }
        }
        hops
    }

    fn judged(
        &self,
        asker: &'a str,
        answers: &Answers,
        peer: &'a Session,
    ) -> Option<(Hop<'a>, Fault)> {
        let protocol = if answers.address.is_ipv4() { "ARP" } else { "NDP" };
        let there = Hop { from: asker, to: &peer.node, protocol };
        let back = Hop { from: &peer.node, to: asker, protocol };
        let by_broadcast = answers.broadcast.keys().any(|mac| peer.has_mac(mac));
        let by_unicast =
            answers.unicast.as_ref().map(|macs| macs.keys().any(|mac| peer.has_mac(mac)));
        match (by_broadcast, by_unicast) {
            // Its speaker asks by unicast all the time, and the answers to that are answers, too.
            (true, Some(true) | None) => {
                let heard = self.heard(&peer.node, asker, answers.address);
                (heard == Some(false)).then_some((there, Fault::BroadcastLost))
            }
            (true, Some(false)) => Some((there, Fault::UnicastLost)),
            (false, Some(true)) => Some((there, Fault::BroadcastLost)),
            (false, Some(false) | None) => {
                let heard_there = self.heard(&peer.node, asker, answers.address);
                let heard_back = self.heard(asker, &peer.node, answers.address);
                Some(match (heard_there, heard_back) {
                    (Some(true), Some(true)) => (back, Fault::UnicastLost),
                    (Some(true), _) => (back, Fault::Dead),
                    (Some(false), _) => (there, Fault::Dead),
                    (None, _) => (there, Fault::DeadOrBack),
                })
            }
        }
    }

    /// Whether `listener` has heard `asker` ask everybody, in the family of `address`. `None`: nobody knows.
    fn heard(&self, listener: &str, asker: &str, address: IpAddr) -> Option<bool> {
        let survey = self.surveys.get(listener)?;
        let asker = self.sessions.get(asker)?;
        let is_his = |heard: IpAddr| {
            heard.is_ipv4() == address.is_ipv4() && asker.links.iter().any(|(own, _)| *own == heard)
        };
        Some(survey.heard.iter().any(|it| it.broadcast > 0 && is_his(it.address)))
    }

    /// Machines that answer for a node's own address.
    fn foreign(&self) -> Vec<Finding> {
        let mut found: BTreeMap<(IpAddr, String), BTreeSet<&str>> = BTreeMap::new();
        for (asker, survey) in &self.surveys {
            for answers in &survey.answers {
                let Some(peer) = self.node_of(answers.address) else { continue };
                for mac in answers.macs().filter(|mac| !peer.has_mac(mac)) {
                    found.entry((answers.address, mac.to_owned())).or_default().insert(asker);
                }
            }
        }
        let finding = |((address, mac), askers): ((IpAddr, String), BTreeSet<&str>)| {
            let node = self.node_of(address).map_or("", |it| it.node.as_str());
            let seen = format!(
                "{} answers for it to {}, too; it is an address of {node}",
                self.described(&mac),
                list(askers)
            );
            Finding::new(Code::W104, format!("address {address}"), seen)
        };
        found.into_iter().map(finding).collect()
    }

    /// What askers were told about an announced address.
    fn announced(&self, lock: &Lock, hops: &BTreeMap<Hop<'_>, Fault>) -> Vec<Finding> {
        let Some(holder) = lock.holder.as_deref().filter(|_| !lock.unannounced) else {
            return Vec::new();
        };
        let asked: Vec<(&str, &Answers)> = self.answers_for(lock.address);
        let others: Vec<&(&str, &Answers)> =
            asked.iter().filter(|(asker, _)| *asker != holder).collect();
        let macs: BTreeSet<&str> = asked.iter().flat_map(|(_, it)| it.macs()).collect();
        let about = format!("address {}", lock.address);
        let wrong: Vec<&str> =
            macs.iter().copied().filter(|mac| self.node_at(mac) != Some(holder)).collect();
        let holder_answers = macs.iter().any(|mac| self.node_at(mac) == Some(holder));
        let mut findings: Vec<Finding> =
            self.impostors(&about, holder, &wrong, holder_answers).into_iter().collect();
        let silent =
            others.iter().filter(|(_, it)| !it.macs().any(|mac| self.node_at(mac) == Some(holder)));
        let is_explained = |asker: &str| {
            hops.keys().any(|hop| {
                [hop.from, hop.to].contains(&asker) && [hop.from, hop.to].contains(&holder)
            })
        };
        let silent: Vec<&str> =
            silent.map(|(asker, _)| *asker).filter(|it| !is_explained(it)).collect();
        if !silent.is_empty() && wrong.is_empty() {
            let seen = format!("{holder} holds it, and does not answer for it to {}", list(silent));
            findings.push(Finding::new(Code::W106, &about, seen));
        }
        findings.extend(self.unicast_lost(&about, holder, &others, &is_explained));
        findings
    }

    fn impostors(
        &self,
        about: &str,
        holder: &str,
        wrong: &[&str],
        holder_answers: bool,
    ) -> Option<Finding> {
        let who = || list(wrong.iter().map(|mac| self.described(mac)));
        match wrong {
            [] => None,
            [one] if !holder_answers && self.node_at(one).is_some() => {
                let seen = format!("{} answers for it, though {holder} holds it", who());
                Some(Finding::new(Code::W107, about, seen))
            }
            _ => {
                let seen = format!("{} answers for it, and {holder} holds it", who());
                Some(Finding::new(Code::W105, about, seen))
            }
        }
    }

    /// The owner answers everybody who asks everybody, and not who asks it alone.
    fn unicast_lost(
        &self,
        about: &str,
        holder: &str,
        others: &[&(&str, &Answers)],
        is_explained: &dyn Fn(&str) -> bool,
    ) -> Option<Finding> {
        let is_holders = |mac: &str| self.node_at(mac) == Some(holder);
        let lost = others.iter().filter(|(asker, it)| {
            let by_unicast =
                it.unicast.as_ref().is_some_and(|macs| !macs.keys().any(|mac| is_holders(mac)));
            it.broadcast.keys().any(|mac| is_holders(mac)) && by_unicast && !is_explained(asker)
        });
        let lost: Vec<&str> = lost.map(|(asker, _)| *asker).collect();
        let seen = || {
            format!(
                "{holder} answers for it when everybody is asked, and not by unicast, to {}",
                list(&lost)
            )
        };
        (!lost.is_empty()).then(|| Finding::new(Code::W102, about, seen()))
    }

    fn answers_for(&self, address: IpAddr) -> Vec<(&'a str, &'a Answers)> {
        let of = |survey: &'a Survey| {
            survey.answers.iter().find(|it| it.address == address && it.unasked.is_none())
        };
        self.surveys.iter().filter_map(|(node, survey)| Some((*node, of(survey)?))).collect()
    }

    /// Default routers that do not answer a node.
    fn routers(&self) -> Vec<Finding> {
        let mut silent: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for (node, survey) in &self.surveys {
            let gateways =
                self.sessions.get(node).map(|it| it.gateways.as_slice()).unwrap_or_default();
            for (_, gateway) in gateways {
                let answers =
                    survey.answers.iter().find(|it| it.address == *gateway && it.unasked.is_none());
                if answers.is_some_and(|it| it.macs().next().is_none()) {
                    silent.entry(*gateway).or_default().push(node);
                }
            }
        }
        let finding = |(gateway, nodes): (IpAddr, Vec<&str>)| {
            Finding::new(
                Code::W108,
                format!("router {gateway}"),
                format!("it does not answer {}", list(nodes)),
            )
        };
        silent.into_iter().map(finding).collect()
    }

    /// Machines that answer for addresses that nobody was given.
    fn free(&self, facts: &Facts) -> Vec<Finding> {
        let Ok(locks) = &facts.locks else { return Vec::new() };
        let locked: BTreeSet<IpAddr> = locks.iter().map(|it| it.address).collect();
        let pools = facts.pools.as_deref().unwrap_or_default();
        let in_pool = |address: IpAddr| pools.iter().any(|pool| pool.has(address));
        let is_free = |address: IpAddr| {
            in_pool(address) && !locked.contains(&address) && !self.own.contains(&address)
        };
        let routers: BTreeSet<IpAddr> =
            self.sessions.values().flat_map(|it| it.gateways.iter().map(|it| it.1)).collect();
        let mut taken: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for answers in self.surveys.values().flat_map(|it| &it.answers) {
            if is_free(answers.address) && !routers.contains(&answers.address) {
                for mac in answers.macs() {
                    taken.entry(mac).or_default().insert(answers.address);
                }
            }
        }
        taken.into_iter().map(|(mac, addresses)| self.taken(mac, &addresses)).collect()
    }

    fn taken(&self, mac: &str, addresses: &BTreeSet<IpAddr>) -> Finding {
        /// One that answers for so many addresses answers for all.
        const PROXY: usize = 3;
        let who = self.described(mac);
        if addresses.len() >= PROXY {
            let seen = format!(
                "it answers for {} free addresses of pools: {}",
                addresses.len(),
                list(addresses)
            );
            return Finding::new(Code::W111, who, seen);
        }
        Finding::new(
            Code::W109,
            format!("address {}", list(addresses)),
            format!("{who} has it, and a pool may give it out"),
        )
    }
}

#[cfg(test)]
mod tests;
