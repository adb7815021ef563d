//! Watching other nodes, and ending the sessions of those that have failed.

use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::Elector;
use crate::{
    exchange::Effect,
    model::{EndReason, Holder, Node, SessionState, Timestamp},
    questions::Question,
    reach::{Interface, Reach},
    view::SeenSession,
    witnesses::Expiry,
    writes::Write,
};

impl Elector {
    /// Works out which nodes this one watches.
    pub(super) fn choose_charges(&mut self, now: Timestamp) {
        let alone = self.is_alone(now);
        let in_touch_since = self.own.in_touch_since();
        let expiry = Expiry { usual: self.settings.session, in_touch_since };
        self.charges.update(&mut self.view, now, expiry, alone, &self.me);
    }

    /// Asks on the wire for the nodes that this one watches.
    pub(super) fn watch_wire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let probes = self.wire.tick(now, self.charges.targets(), &self.settings);
        let mut questions: Vec<Question> = probes.nodes.into_iter().map(Question::Node).collect();
        questions.extend(probes.anywhere.into_iter().map(Question::NodeAnywhere));
        let others = Some(probes.missed_on).filter(|it| !it.is_empty());
        questions.extend(others.map(|on| Question::Others { on }));
        let nodes = self.charges.nodes();
        let asked = self.speakers.tick(now, nodes, &self.view, &self.wire, &self.settings);
        questions.extend(asked.map(|(node, address)| Question::Speaker { node, address }));
        effects.extend(questions.into_iter().map(Effect::Ask));
    }

    /// Ends the sessions that are over.
    pub(super) fn judge_sessions(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for address in self.speakers.unread(now, &self.settings) {
            self.send(Write::Read { address }, now, effects);
        }
        let verdict = |seen: &SeenSession| self.verdict(seen, now);
        let writes: Vec<Write> = if self.charges.none_expires_by(now) && self.unaided.is_idle() {
            // Nothing but the wire speaks against anybody.
            let asked = self.charges.asked().filter_map(|node| self.view.seen_session(node));
            asked.filter_map(verdict).collect()
        } else {
            let others = self.view.sessions().filter(|seen| seen.session.node != self.me);
            others.filter_map(verdict).collect()
        };
        for write in writes {
            self.send(write, now, effects);
        }
    }

    /// What to write about another node's session, if anything.
    fn verdict(&self, seen: &SeenSession, now: Timestamp) -> Option<Write> {
        let SessionState::Live { accused_by } = &seen.session.state else {
            return None;
        };
        let node = seen.session.node.clone();
        let expected = seen.session.version;
        let end = |reason| Write::End { node: node.clone(), expected, reason };
        if self.has_expired(seen, now) {
            return Some(end(EndReason::Expired));
        }
        if self.was_replaced(seen) {
            return Some(end(EndReason::NodeSilent));
        }
        let reason = self.silence(&node, now)?;
        let confirms = accused_by.as_ref().is_some_and(|by| *by != self.me);
        if confirms || !self.has_fellow(&node, now) {
            return Some(end(reason));
        }
        (!seen.session.is_accused()).then_some(Write::Accuse { node, expected })
    }

    /// Those who watch a node speak first, so that not all nodes write at once.
    fn has_expired(&self, seen: &SeenSession, now: Timestamp) -> bool {
        let lasts = seen.lasts(self.settings.session);
        let after = |longest| seen.expired(now, longest, self.own.in_touch_since());
        let is_charge = || self.charges.nodes().contains(&seen.session.node);
        after(lasts) && (is_charge() || after(lasts + self.settings.patience))
    }

    /// Whether this node announces something in the place of another one, whose session was not renewed since it began to:
    /// while the API server was away, nobody on the segment answered. What has moved stays where it is.
    fn was_replaced(&self, seen: &SeenSession) -> bool {
        let holder = Holder { node: seen.session.node.clone(), epoch: seen.session.epoch };
        self.unaided.since(&holder).is_some_and(|since| seen.renewed <= since)
    }

    /// Whether somebody else could confirm that `node` is silent: it lives, as far as this node can hear, and hears `node`,
    /// where only its speaker is silent on the segment of the address in question. Of whom this node cannot hear, it cannot say that
    /// it does not live.
    fn has_fellow(&self, node: &Node, now: Timestamp) -> bool {
        let of_node = self.is_silent(node);
        let unanswered = self.speakers.unanswered(node, &self.view, now, &self.settings);
        let unanswered = unanswered.filter(|_| !of_node);
        let mut others = self.charges.other_witnesses(node, &self.view, &self.me);
        others.any(|other| {
            self.silence(other, now).is_none()
                && unanswered.is_none_or(|address| {
                    self.is_in_touch_with(other, address)
                        && self.may_have_heard(other, node, address)
                })
        })
    }

    /// Whether `other` has heard the node so early that it may have heard its speaker, too, for as long as it takes until silence
    /// says something. Who came to hear the node when its speaker was silent already will never say so.
    fn may_have_heard(&self, other: &Node, node: &Node, address: IpAddr) -> bool {
        let named = self.view.seen_session(other).and_then(|seen| seen.names_since(node));
        let last = self.speakers.last_answer(node, address);
        let takes = self.settings.speaker_probe * 2;
        named.zip(last).is_none_or(|(named, last)| named + takes <= last)
    }

    /// Whether `other` is not cut off from the segment of `address`.
    fn is_in_touch_with(&self, other: &Node, address: IpAddr) -> bool {
        let reach = self.view.reach(other);
        reach.is_none_or(|it| !it.is_beside(address) || it.is_announcing(address, &[]))
    }

    /// Whether a node that this one asks does not answer any more.
    pub(super) fn is_silent(&self, node: &Node) -> bool {
        let is_alone_with = |node: &Node, interface: &str| self.is_alone_with(node, interface);
        self.wire.silent(node, is_alone_with, &self.settings)
    }

    /// The same while the API server is away: nobody's session ends, so nodes that have missed many questions do not count as being
    /// there.
    pub(super) fn is_silent_while_alone(&self, node: &Node) -> bool {
        let is_alone_with = |node: &Node, interface: &str| {
            let is_lost =
                |other: &Node| self.wire.has_long_missed(other, interface, &self.settings);
            self.is_nobody_at(interface, |other| other == node || is_lost(other))
        };
        self.wire.silent(node, is_alone_with, &self.settings)
    }

    /// Whether nobody but `node` is to be heard on an interface of this node.
    pub(super) fn is_alone_with(&self, node: &Node, interface: &str) -> bool {
        self.is_nobody_at(interface, |other| other == node)
    }

    fn is_nobody_at(&self, interface: &str, does_not_count: impl Fn(&Node) -> bool) -> bool {
        let reach = self.view.reach(&self.me);
        let place = reach.and_then(|it| it.interfaces.iter().find(|it| it.name == interface));
        place.is_some_and(|place| self.is_nobody_on(&[place], does_not_count))
    }

    /// Whether nobody is to be heard on these interfaces: no gateway, and no other node, not counting some.
    pub(super) fn is_nobody_on(
        &self,
        places: &[&Interface],
        does_not_count: impl Fn(&Node) -> bool,
    ) -> bool {
        let nets: Vec<IpNet> = places.iter().flat_map(|it| &it.subnets).copied().collect();
        // As for watching: a segment is where addresses are, whatever length nodes give it.
        let is_beside = |net: &IpNet| {
            nets.iter().any(|own| own.contains(&net.addr()) || net.contains(&own.addr()))
        };
        let is_there = |reach: &Reach| reach.nets().any(|net| is_beside(&net));
        let others: Vec<&Node> =
            self.charges.live().iter().filter(|node| **node != self.me).collect();
        let (uncounted, mut others): (Vec<&Node>, _) =
            others.into_iter().partition(|node| does_not_count(node));
        others.retain(|node| self.view.reach(node).is_none_or(is_there));
        // A gateway may be one of those that do not count.
        let is_of = |gateway: &IpAddr, node: &Node| {
            let reach = self.view.reach(node);
            reach.is_some_and(|reach| reach.nets().any(|net| net.addr() == *gateway))
        };
        let mut gateways = places.iter().flat_map(|it| &it.gateways);
        others.is_empty()
            && gateways.all(|gateway| uncounted.iter().any(|node| is_of(gateway, node)))
    }

    /// What this node misses of another one that it watches.
    pub(super) fn silence(&self, node: &Node, now: Timestamp) -> Option<EndReason> {
        if self.is_silent(node) {
            return Some(EndReason::NodeSilent);
        }
        let unanswered = self.speakers.unanswered(node, &self.view, now, &self.settings);
        unanswered.map(|_| EndReason::SpeakerSilent)
    }
}
