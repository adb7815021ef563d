//! What users and counters are told of the engine's writes.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::lock::NO_READY_ENDPOINTS;
use arpeggio_election::{
    Decision, Effect, GiveReason, LockChange, Node, Refusal, Stranded, TakeReason, Timestamp,
    Unfit, Write,
};
use arpeggio_wire::MacAddr;

use super::{CONFLICT, Engine};
use crate::notices::Trouble;

/// So many nodes are named of those that one thing keeps from announcing: an event has room for 1,024 characters.
const NAMED: usize = 3;

impl Engine {
    /// Whoever has to begin a session again was taken for dead, and is not.
    pub(super) fn count_lost_session(&mut self, write: &Write) {
        match write {
            Write::Start { .. } if self.had_session => self.metrics.sessions_lost.inc(),
            Write::Start { .. } | Write::Renew { .. } => self.had_session = true,
            _ => {}
        }
    }

    /// Tells users and counters of a write that has succeeded.
    pub(super) fn report(&mut self, write: &Write) {
        match write {
            Write::Start { epoch, .. } => tracing::info!(epoch = epoch.0, "session started"),
            Write::Accuse { node, .. } => {
                tracing::warn!(%node, "a node or its speaker is silent on the wire; waiting for the other node that watches it to confirm");
            }
            Write::End { node, reason, .. } => {
                self.metrics.ended.with_label_values(&[reason.as_str()]).inc();
                tracing::warn!(%node, %reason, "session ended");
            }
            Write::Lock { address, change, .. } => self.report_lock(*address, change),
            Write::Renew { .. } | Write::Read { .. } => {}
        }
    }

    fn report_lock(&mut self, address: IpAddr, change: &LockChange) {
        match change {
            LockChange::Take { reason, .. } => self.report_taken(address, reason),
            LockChange::Give { to, reason, .. } => self.report_given(address, to, *reason),
            LockChange::Refuse { to, reason } => self.report_refused(address, to, *reason),
            LockChange::Quarantine { stranger } => {
                self.report_quarantined(address, (*stranger).into());
            }
            LockChange::Note { .. } => {} // Users are told by what is stranded, and of who claims what.
        }
    }

    /// Whoever answers all questions has every new address. A condition tells each Service of it in any case.
    fn report_quarantined(&mut self, address: IpAddr, mac: MacAddr) {
        self.metrics.quarantined.inc();
        if !self.notices.tell(address, Trouble::Occupied, true, self.now()) {
            return;
        }
        let known = self.neighbours.node_at(mac);
        let machine = occupant(mac, known);
        tracing::warn!(%address, machine, "another machine has the address, so it is not announced");
        let remedy = match known {
            Some(_) => OF_A_NODE,
            None => "Give that machine another address, or exclude this one from the pool.",
        };
        let note = format!(
            "{address} is not announced, because {machine} answers for it. {remedy} The nodes ask for it again every {} s.",
            self.settings.recheck.as_secs()
        );
        self.warn(address, &note, CONFLICT);
    }

    fn report_taken(&self, address: IpAddr, reason: &TakeReason) {
        self.metrics.takes.with_label_values(&[reason.as_str()]).inc();
        tracing::info!(%address, %reason, "lock taken");
        let Some(record) = self.locks.get(&address) else { return };
        if *reason != TakeReason::Ours {
            let place = self.place(address);
            let note = format!("{address} is announced from {} ({place}): {reason}", self.me.node);
            self.news.tell(&record.claim.services, "nodeAssigned", &note);
        }
    }

    /// Notes from whom a decision takes what this node has not announced yet.
    pub(super) fn note_takeovers(&mut self, decision: &Decision) {
        for effect in &decision.effects {
            if let Effect::Write(Write::Lock { address, change, .. }) = effect
                && let LockChange::Take { reason, .. } = change
                && !self.announcer.announced().contains(address)
            {
                self.failovers.takes(*address, reason);
            }
        }
    }

    /// Notes how long those of the addresses that are gained now were dark whose owners had failed.
    pub(super) fn count_failovers(&mut self, gained: &[IpAddr], now: Timestamp) {
        let announced = self.announcer.announced();
        for address in gained.iter().filter(|address| announced.contains(*address)) {
            let lock = self.locks.get(address).map(|record| &record.lock);
            let holder = lock.and_then(|lock| Some(&lock.holder.as_ref()?.node));
            if let Some(dark) = self.failovers.announced(*address, holder, &self.me.node, now) {
                self.metrics.failover_seconds.observe(dark.as_secs_f64());
            }
        }
        self.failovers.settle();
    }

    /// Adds up for how long addresses had no owner since the last decision. A process that stood still for longer than a
    /// decision holds knows nothing of the rest.
    pub(super) fn count_ownerless(&mut self, now: Timestamp) {
        let span = now.since(self.decided).min(self.settings.freshness);
        self.decided = now;
        let addresses = u32::try_from(self.elector.ownerless()).unwrap_or(u32::MAX);
        self.metrics.ownerless_seconds.inc_by(span.as_secs_f64() * f64::from(addresses));
    }

    /// Tells users of an address that no node may announce.
    pub(super) fn report_stranded(&self, stranded: &Stranded) {
        let Stranded { address, backless, why } = stranded;
        let why = obstacles(why);
        let (reason, note) = if *backless {
            (
                NO_READY_ENDPOINTS,
                format!(
                    "No node announces {address} until a pod of the Service is ready: with externalTrafficPolicy: Local a \
                     node announces only addresses that its own pods answer"
                ),
            )
        } else {
            ("NoEligibleNode", format!("No node announces {address}, because no node may: {why}"))
        };
        tracing::warn!(%address, reason, why, "no node announces the address");
        self.warn(*address, &note, reason);
    }

    fn report_given(&self, address: IpAddr, to: &Node, reason: GiveReason) {
        self.metrics.gives.with_label_values(&[reason.as_str()]).inc();
        tracing::info!(%address, %to, %reason, "lock given");
        let Some(record) = self.locks.get(&address) else { return };
        let from = &self.me.node;
        let note =
            format!("{address} is announced from {to}: {from} gave it away because {reason}");
        self.news.tell(&record.claim.services, "nodeAssigned", &note);
    }

    fn report_refused(&self, address: IpAddr, to: &Node, reason: Refusal) {
        tracing::warn!(%address, %to, %reason, "refused a request to give a lock away");
        let Some(record) = self.locks.get(&address) else { return };
        let note =
            format!("{address} stays on {} and does not move to {to}: {reason}", self.me.node);
        self.news.warn(&record.claim.services, "MoveRefused", &note);
    }

    /// Where an address is announced on this node, for people.
    fn place(&self, address: IpAddr) -> String {
        let links = self.announcer.links();
        let interfaces = self.elector.interfaces(address, self.announcer.reach());
        let mac = |name: &str| links.interfaces.iter().find(|it| it.name == name)?.mac();
        let with_mac = |name: &str| match mac(name) {
            Some(mac) => format!("{name}, {mac}"),
            None => name.to_owned(),
        };
        let places: Vec<String> = interfaces.iter().map(|it| with_mac(&it.name)).collect();
        match links.announcing(address) {
            _ if !places.is_empty() => places.join("; "),
            Err(unfit) => unfit.to_string(),
            Ok(_) => "no interface that its pool names can announce".to_owned(),
        }
    }
}

/// Why a node answers for an address that no speaker announces, and what to do about it.
const OF_A_NODE: &str = "If it is an address of the node itself (of the API server, say), exclude it from the pool. If it is \
                         not, another load balancer on that node, or kube-proxy in IPVS mode without strictARP, answers \
                         for Services.";

/// A machine that has an address, for people.
fn occupant(mac: MacAddr, node: Option<&Node>) -> String {
    match node {
        Some(node) => format!("node {node} ({mac})"),
        None => format!("a machine that is no node of this cluster ({mac})"),
    }
}

/// What keeps nodes from announcing an address, and which: `node-1, node-2: no interface of the node can announce it`.
fn obstacles(why: &BTreeMap<Unfit, Vec<Node>>) -> String {
    let of = |(unfit, nodes): (&Unfit, &Vec<Node>)| {
        let named: Vec<&str> = nodes.iter().take(NAMED).map(Node::as_str).collect();
        let others = match nodes.len().saturating_sub(NAMED) {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        format!("{}{others}: {unfit}", named.join(", "))
    };
    why.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_are_named_with_some_of_their_nodes() {
        let nodes = |names: &[&str]| names.iter().map(|name| Node::from(*name)).collect();
        let why = [
            (Unfit::NoInterface, nodes(&["a", "b", "c", "d", "e"])),
            (Unfit::Excluded, nodes(&["f"])),
        ];
        let expected =
            format!("a, b, c and 2 more: {}; f: {}", Unfit::NoInterface, Unfit::Excluded);
        assert_eq!(obstacles(&why.into()), expected);
    }
}
