//! Moves that somebody has asked for, on the lock: its holder obeys, or takes the request back and says why.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Effect, Elector};
use crate::{
    eligibility::Standing,
    model::{Lock, Node, Timestamp},
    writes::{GiveReason, LockChange, Refusal, Write},
};

impl Elector {
    /// Gives away what this node was asked to give away. A lock that is on its way already is left alone.
    pub(super) fn obey_requests(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.view.asked_to_move(&self.me).next().is_none() {
            return;
        }
        let candidates = self.candidates(now);
        let requests = self.view.asked_to_move(&self.me);
        let writes: Vec<Write> =
            requests.filter_map(|(lock, to)| self.answer(lock, to, &candidates)).collect();
        for write in writes {
            self.hand_over(write, now, effects);
        }
    }

    fn answer(&self, lock: &Lock, to: &Node, candidates: &BTreeSet<Node>) -> Option<Write> {
        match self.may_move(lock, to, candidates) {
            Ok(()) => self.give(lock, to.clone(), GiveReason::Requested),
            Err(reason) => Some(Write::on(lock, LockChange::Refuse { to: to.clone(), reason })),
        }
    }

    /// Whether the holder of a lock may give it to `to`: to nobody whom it would have to be taken from again. A lesser
    /// preference is no obstacle: who asks knows better.
    fn may_move(&self, lock: &Lock, to: &Node, candidates: &BTreeSet<Node>) -> Result<(), Refusal> {
        if *to == self.me {
            return Err(Refusal::AlreadyThere);
        }
        if !candidates.contains(to) {
            return Err(Refusal::NotAlive);
        }
        match self.view.merit(lock, to).map_err(Refusal::Unfit)?.standing {
            Standing::Good => Ok(()),
            worse => Err(Refusal::Worse(worse)),
        }
    }
}
