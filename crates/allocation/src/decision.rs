//! What to do for one Service.

use std::net::IpAddr;

use arpeggio_api::{
    lock::{Claim, ClaimedFor, ServiceRef},
    service::{ADDRESS_RELEASING, RequestError, ServiceRecord},
};
use arpeggio_ipam::{
    Choice, Clash, Families, Family, Grace, Held, Leaving, Misfit, Owner, Plan, Refusal, Request,
    UnfitAddress,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Index,
    clock::is_far_ahead,
    exchange::Exchange,
    outcome::{FOREIGN_STATUS, Hint, Outcome, Reason, Replacement, Terminating},
    rivals::{Contest, List, Said, Saying},
    setbacks::Work,
    wording::{self, Difference},
};
use crate::effect::{Effect, ServiceWrite, Subject, Task};

/// The next step for one Service.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Create or change the lock of this address, so that it names the Service in its present version. The other address, which
    /// it needs as well, is claimed after that, and given to nobody meanwhile.
    Claim(IpAddr, Option<IpAddr>),
    /// Bring the status in line, and then the locks.
    Settle(Box<Outcome>),
    /// Say on the lock of this address that the grace period began at that time, or that there is none.
    Mark(IpAddr, Option<Time>),
    /// Say on the lock of this address to whom it is promised.
    Promise(IpAddr, Owner),
    /// Remove from the status which addresses the Service is not going to get.
    Unrenounce,
    /// Remove from the status what we said.
    Withdraw,
    /// Take the Service off the lock of this address.
    Release(IpAddr),
    /// All is as it should be.
    Rest,
}

/// All that a decision is made from.
struct View<'a> {
    index: &'a Index,
    owner: &'a Owner,
    record: &'a ServiceRecord,
    /// The addresses whose locks name the Service.
    locked: Vec<IpAddr>,
    now: &'a Time,
}

impl View<'_> {
    fn next_step(&self) -> Step {
        match &self.record.request {
            Some(request) => self.serve(request.as_ref()),
            None => self.let_go(),
        }
    }

    /// The Service is not for us (any more). A load balancer without a lock of ours may be another Arpeggio's, and what
    /// its status says is not our business.
    fn let_go(&self) -> Step {
        let was_ours = !self.locked.is_empty() || !self.record.is_load_balancer;
        let listed = &self.record.ingress.addresses;
        let (listed, gone): (Vec<IpAddr>, Vec<IpAddr>) =
            self.locked.iter().partition(|address| listed.contains(address));
        // The list of a load balancer that another program has written is not ours to clear.
        let clears = self.record.ingress.is_ours() || !self.record.is_load_balancer;
        let lists_ours = clears && !listed.is_empty();
        if was_ours && (wording::says_more_than_remains(self.record) || lists_ours) {
            return Step::Withdraw;
        }
        // Only now: as long as the status lists an address, it must stay claimed.
        let gone = gone.into_iter().find(|it| !self.index.is_newer(*it));
        gone.map_or(Step::Rest, Step::Release)
    }

    fn serve(&self, request: Result<&Request, &RequestError>) -> Step {
        if let Some(outcome) = self.foreign() {
            return self.settle(outcome);
        }
        let mut listed = self.listed();
        listed.retain(|it| !self.is_parting(*it));
        match request {
            Ok(_) if self.record.deleting_since.is_some() => {
                self.rest_in_peace(&listed, Reason::Terminating(self.terminating()))
            }
            Ok(_) if self.index.ending_namespaces.contains(&self.record.service.namespace) => {
                self.rest_in_peace(&listed, Reason::NamespaceTerminating)
            }
            Ok(request) => match self.index.complete(request) {
                Some(request) => self.pursue(&request, &listed),
                None => Step::Rest,
            },
            Err(error) => self.refuse(&listed, Reason::Request(error.clone())),
        }
    }

    /// What the status lists of what the Service holds.
    fn listed(&self) -> Vec<IpAddr> {
        let listed = self.record.ingress.addresses.iter().copied();
        listed.filter(|it| self.holds(*it)).collect()
    }

    /// What becomes of a Service whose status another program has written, which is left alone.
    fn foreign(&self) -> Option<Outcome> {
        let (ingress, listed) = (&self.record.ingress, self.listed());
        let has_others = ingress.has_others || listed.len() < ingress.addresses.len();
        if !has_others || ingress.is_ours() || self.takes_over(&listed) {
            return None;
        }
        let refusal = Some(Reason::ForeignStatus { writers: ingress.writers() });
        Some(Outcome { refusal, retained: self.retained(&listed), ..Outcome::default() })
    }

    /// What a Service has by a lock beside what is `listed`, when another program has written its status: for the grace period,
    /// since that may be a slip, or soon be undone; but nothing that it is to leave to those who came before it.
    fn retained(&self, listed: &[IpAddr]) -> Vec<IpAddr> {
        let service = &self.record.service;
        let lasts = |it: &IpAddr| {
            let end = self.index.end_of_grace(service, *it);
            !self.index.periods.grace.is_zero() && end.is_none_or(|end| end > *self.now)
        };
        let is_kept =
            |it: &IpAddr| self.index.names(service, *it) && !self.is_parting(*it) && lasts(it);
        self.unlisted(listed).filter(is_kept).collect()
    }

    /// Whether the Service is to leave those that it shares `address` with, and has waited for long enough.
    fn is_parting(&self, address: IpAddr) -> bool {
        !self.index.may_stay(self.owner, self.now) && self.clash(address).is_some()
    }

    /// Whether what another balancer has left in the status may be replaced: the user says so, or it is nothing but
    /// addresses of nodes, as k3s' `ServiceLB` leaves them, which are no balancer's to keep.
    fn takes_over(&self, listed: &[IpAddr]) -> bool {
        let ingress = &self.record.ingress;
        let mut others = ingress.addresses.iter().filter(|it| !listed.contains(it));
        self.record.takes_over
            || (!ingress.has_others && others.all(|it| self.index.reserved.is_of_node(*it)))
    }

    /// A Service that is being deleted, or whose namespace is, keeps what pools allow it, and gets nothing new.
    fn rest_in_peace(&self, listed: &[IpAddr], why: Reason) -> Step {
        let kept = self.kept(listed);
        let refusal = kept.addresses.is_empty().then_some(why);
        self.settle(Outcome { refusal, ..kept })
    }

    /// What a Service keeps for which nothing is planned, for a grace period only where no pool allows it any more: what is
    /// listed, and what somebody else has taken out of its status meanwhile.
    fn kept(&self, listed: &[IpAddr]) -> Outcome {
        let own = self
            .unlisted(listed)
            .filter(|it| !self.is_parting(*it) && self.index.names(&self.record.service, *it));
        let mut addresses: Vec<IpAddr> = listed.iter().copied().chain(own).collect();
        let disallowed = self.disallowed(&addresses);
        let unplanned = Outcome { replacement: Replacement::Nothing, ..Outcome::default() };
        if self.is_over(&disallowed) {
            addresses.retain(|it| !disallowed.iter().any(|gone| gone.address == *it));
            return Outcome { addresses, leaving: disallowed, ..unplanned };
        }
        let (expiring, in_doubt) = self.told_apart(disallowed);
        Outcome { addresses, expiring, in_doubt, ..unplanned }
    }

    /// What the Service holds by a lock and has not given up, beside what is `listed`.
    fn unlisted(&self, listed: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
        let renounced = &self.record.renounced;
        let locked = self.locked.iter().copied();
        locked.filter(|it| self.holds(*it) && !listed.contains(it) && !renounced.contains(it))
    }

    /// Those that no pool allows the Service any more, whatever it asks for.
    fn disallowed(&self, addresses: &[IpAddr]) -> Vec<Leaving> {
        let held: Vec<Held> = addresses.iter().map(|it| self.index.held(*it)).collect();
        let requester = self.index.requester(self.record);
        self.index.allocator.disallowed(self.owner, &requester, &held)
    }

    fn is_marked(&self, leaving: &Leaving) -> bool {
        self.index.expiring_since(&self.record.service, leaving.address).is_some()
    }

    fn terminating(&self) -> Terminating {
        Terminating::of(self.record).unwrap_or_default()
    }

    /// Why there is nothing to give.
    fn reason(&self, refusal: Refusal) -> Reason {
        // To those who wait behind another one it would be news once more when the holder is gone, and of no use.
        let holder = match &refusal {
            Refusal::Address { address, why: UnfitAddress::Held(clash) }
                if self.index.first_to_ask(*address) == Some(self.owner) =>
            {
                Some(&clash.with)
            }
            _ => None,
        };
        let holder = holder.and_then(|owner| self.index.services.get(owner));
        let terminating = holder.and_then(|record| Terminating::seen_by(record, self.record));
        if let Some(terminating) = terminating {
            return Reason::HeldByTerminating(refusal, terminating);
        }
        let hint = self.index.hint(&refusal);
        Reason::NoneToGive(refusal, hint)
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.index.allocator.holds(self.owner, address)
    }

    /// How the Service clashes with others who have been at `address` before it. Of two that share it and are changed alike one
    /// is seen first.
    fn clash(&self, address: IpAddr) -> Option<&Clash> {
        self.index.allocator.parting(self.owner, address)
    }

    /// Nothing can be planned. What the Service has it keeps as long as pools allow it.
    fn refuse(&self, listed: &[IpAddr], reason: Reason) -> Step {
        self.settle(Outcome { refusal: Some(reason), ..self.kept(listed) })
    }

    fn pursue(&self, request: &Request, listed: &[IpAddr]) -> Step {
        let renounced = &self.record.renounced;
        let extra = self
            .unlisted(listed)
            .filter(|it| self.clash(*it).is_none() && self.is_due(request, *it));
        let aside = self.index.aside.get(self.owner).copied();
        let mut extra: Vec<IpAddr> = extra.chain(aside).collect();
        extra.sort_by_key(|it| Family::of(*it) != request.families.first());
        // What the status says already stays in its order.
        let mut held = listed.to_vec();
        held.extend(extra);
        let plan = self.plan(request, &held);
        if let Some(choice) = next_claim(request.families, &plan.add) {
            let address = choice.address;
            return match self.obtain(address, renounced.contains(&address)) {
                Step::Claim(address, None) => Step::Claim(address, other_half(&plan.add, address)),
                step => step,
            };
        }
        held.retain(|it| !plan.leaving.iter().any(|leaving| leaving.address == *it));
        let is_refused = plan.refusal.is_some();
        if is_refused && matches!(request.families, Families::Both(_)) {
            // Somebody else was faster with the other half. What is in the status already stays.
            held.retain(|it| listed.contains(it));
        }
        let (expiring, in_doubt) = self.told_apart(plan.expiring);
        let outcome = Outcome {
            addresses: held,
            expiring,
            in_doubt,
            leaving: plan.leaving,
            refusal: plan.refusal.map(|refusal| self.reason(refusal)),
            wants_more: plan.wants_more,
            ..Outcome::default()
        };
        match is_refused.then(|| self.index.exchange(self.owner)).flatten() {
            Some(exchange) => self.take_part(exchange, outcome),
            None => self.settle(outcome),
        }
    }

    /// Of addresses that no pool allows any more, those of which that has been so for long enough; and all of which no lock says
    /// so yet. A pool that is replaced is away for a moment.
    fn told_apart(&self, mut expiring: Vec<Leaving>) -> (Vec<Leaving>, Vec<IpAddr>) {
        let unmarked = expiring.iter().filter(|it| !self.is_marked(it));
        let in_doubt: Vec<IpAddr> = unmarked.map(|it| it.address).collect();
        if !in_doubt.is_empty() && self.index.hesitates(self.owner, self.now) {
            expiring.retain(|it| self.is_marked(it));
        }
        (expiring, in_doubt)
    }

    /// The next step of a Service that is refused the address which it is to have in exchange for its own.
    fn take_part(&self, exchange: Exchange, mut outcome: Outcome) -> Step {
        match exchange {
            Exchange::Promise(address, heir) => return Step::Promise(address, heir),
            Exchange::Wait(others) => outcome.waits_for = others,
            Exchange::WaitUntil(time) => outcome.waits_until = time,
            Exchange::GiveUp => {
                let given_up = std::mem::take(&mut outcome.addresses);
                if let (Some(Reason::NoneToGive(_, hint)), [address]) =
                    (&mut outcome.refusal, given_up.as_slice())
                {
                    *hint = Hint::Exchange(*address);
                }
            }
        }
        self.settle(outcome)
    }

    /// Whether an address is the Service's own, or one of its predecessor that it may have, too.
    fn is_due(&self, request: &Request, address: IpAddr) -> bool {
        let index = self.index;
        index.names(&self.record.service, address)
            || index.allocator.may_inherit(self.owner, request, &index.held(address))
    }

    /// One that was renounced is given back first, and not renounced any more before it is claimed anew.
    fn obtain(&self, address: IpAddr, renounced: bool) -> Step {
        match (renounced, self.locked.contains(&address)) {
            (true, true) => Step::Release(address),
            (true, false) => Step::Unrenounce,
            (false, _) => self.claim(address),
        }
    }

    /// The lock of `address` is to name the Service, unless it is left alone.
    fn claim(&self, address: IpAddr) -> Step {
        let lock = self.index.locks.get(&address).filter(|lock| lock.is_newer);
        let Some(why) = lock.and_then(|lock| lock.reservation.clone()) else {
            return Step::Claim(address, None);
        };
        let refusal = Refusal::Address { address, why: UnfitAddress::Reserved(why) };
        Step::Settle(Box::new(self.unclaimable(Reason::NoneToGive(refusal, Hint::None))))
    }

    /// Why a lock cannot be written that the Service needs. What it has it keeps, and a status that another program has written
    /// is left alone all the same.
    fn unclaimable(&self, why: Reason) -> Outcome {
        if let Some(outcome) = self.foreign() {
            return self.described(self.parted(outcome));
        }
        let addresses = self.listed();
        let mut expiring = self.disallowed(&addresses);
        expiring.retain(|it| self.is_marked(it));
        let refusal = Some(why);
        let outcome =
            self.described(Outcome { addresses, expiring, refusal, ..Outcome::default() });
        Outcome { releasing: self.given_up(&[]), ..outcome }
    }

    /// Which locks a Service gives back for which nothing is planned, apart from those that it is `leaving`: what it has not
    /// given up before is no more and no less wanted.
    fn given_up(&self, leaving: &[Leaving]) -> Vec<IpAddr> {
        let is_given_up = |it: &&IpAddr| {
            self.record.renounced.contains(it) || leaving.iter().any(|gone| gone.address == **it)
        };
        self.locked.iter().filter(is_given_up).copied().collect()
    }

    fn plan(&self, request: &Request, addresses: &[IpAddr]) -> Plan {
        let held: Vec<Held> = addresses.iter().map(|it| self.index.held(*it)).collect();
        let plan = |grace| self.index.allocator.plan(self.owner, request, &held, grace);
        let lasting = plan(Grace::Lasts);
        if self.is_over(&lasting.expiring) { plan(Grace::Over) } else { lasting }
    }

    /// Whether the grace period of these addresses is over.
    fn is_over(&self, expiring: &[Leaving]) -> bool {
        let ends = |it: &Leaving| {
            let end = self.index.end_of_grace(&self.record.service, it.address);
            end.is_some_and(|end| end <= *self.now)
        };
        !expiring.is_empty() && (self.index.periods.grace.is_zero() || expiring.iter().all(ends))
    }

    /// The outcome, with what the Service is to leave to others, unless they agree in a moment: of what its status lists, and of
    /// what it has beside a list of another program.
    fn parted(&self, mut outcome: Outcome) -> Outcome {
        let listed = &self.record.ingress.addresses;
        let retained = self.unlisted(listed).filter(|_| outcome.is_foreign());
        let all: Vec<IpAddr> = listed.iter().copied().chain(retained).collect();
        for address in all {
            let Some(clash) = self.clash(address) else { continue };
            outcome.parting.push(address);
            if listed.contains(&address) && !outcome.addresses.contains(&address) {
                outcome.leaving.push(Leaving { address, why: Misfit::Clash(clash.clone()) });
            }
        }
        outcome
    }

    /// Every address in the status needs a lock; every new one a lock that was written for the Service as it is now.
    fn settle(&self, outcome: Outcome) -> Step {
        let outcome = self.parted(outcome);
        let version = self.record.version;
        let unclaimed = outcome.addresses.iter().find(|address| {
            let listed = self.record.ingress.addresses.contains(address);
            let service = &self.record.service;
            let claimed = self.index.is_claimed_for(&service.uid, version, **address);
            !self.index.names(service, **address) || !(listed || claimed)
        });
        if let Some(address) = unclaimed {
            return self.claim(*address);
        }
        match self.mismarked(&outcome) {
            Some((address, since)) => Step::Mark(address, since),
            None => Step::Settle(Box::new(self.described(outcome))),
        }
    }

    /// An address whose lock does not say yet, or says without reason, that the Service has it for a grace period only,
    /// and what it should say.
    fn mismarked(&self, outcome: &Outcome) -> Option<(IpAddr, Option<Time>)> {
        // Nothing is said on a lock that is left alone.
        let all = outcome.addresses.iter().chain(&outcome.retained);
        // What another program lists as well is the Service's without an end, until it is listed no more.
        let listed = &self.record.ingress.addresses;
        let all = all.chain(listed.iter().filter(|_| outcome.is_foreign()));
        let mut ours = all.filter(|it| !self.index.is_newer(**it));
        ours.find_map(|address| {
            let expires = outcome.retained.contains(address)
                || outcome.expiring.iter().any(|it| it.address == *address);
            let since = self.index.expiring_since(&self.record.service, *address);
            let since = since.filter(|since| !is_far_ahead(since, self.now));
            (since.is_some() != expires).then(|| (*address, expires.then(|| self.now.clone())))
        })
    }

    /// The outcome, with all that there is to say of its addresses.
    fn described(&self, mut outcome: Outcome) -> Outcome {
        let listed = &self.record.ingress.addresses;
        // As long as the status lists an address it must stay claimed, whoever wrote it there.
        let stays = |it: &IpAddr| {
            outcome.retained.contains(it) || (outcome.is_foreign() && listed.contains(it))
        };
        let locked = match outcome.replacement {
            Replacement::Sought => self.locked.clone(),
            Replacement::Nothing => self.given_up(&outcome.leaving),
        };
        let left = locked.into_iter().filter(|it| !outcome.addresses.contains(it) && !stays(it));
        outcome.releasing = left.collect();
        let end = |it: &IpAddr| Some((*it, self.index.end_of_grace(&self.record.service, *it)?));
        outcome.ends = outcome.retained.iter().filter_map(end).collect();
        outcome.clears = outcome.addresses.is_empty()
            && !self.record.ingress.is_ours()
            && outcome.releasing.iter().any(|it| listed.contains(it));
        let nowhere = |it: &IpAddr| self.index.is_announced_nowhere(*it);
        let (silent, wanted): (Vec<_>, Vec<_>) =
            outcome.addresses.iter().copied().partition(nowhere);
        outcome.dark = wanted.into_iter().filter(|it| self.index.is_dark(*it)).collect();
        let (routed, silent): (Vec<_>, Vec<_>) =
            silent.into_iter().partition(|it| self.index.is_routed(*it));
        let lasting = silent.into_iter().filter(|it| !self.index.is_fresh(*it, self.now));
        (outcome.routed, outcome.unannounced) = (routed, lasting.collect());
        let conflict =
            |address: &IpAddr| Some((*address, self.index.stranger_at(*address)?.to_owned()));
        outcome.announcers = outcome.addresses.iter().map(|it| self.index.announcer(*it)).collect();
        let backless = outcome.addresses.iter().filter(|it| self.index.is_backless(**it));
        outcome.backless = backless.copied().collect();
        outcome.left_behind =
            outcome.addresses.iter().flat_map(|it| self.index.left_behind(*it)).collect();
        let why = |address: &IpAddr| Some((*address, self.index.why_one_node(*address)?));
        outcome.not_spread = outcome.addresses.iter().filter_map(why).collect();
        outcome.conflicts = outcome.addresses.iter().filter_map(conflict).collect();
        let quiet = outcome.addresses.iter().filter(|it| self.index.stranger_at(**it).is_none());
        let machine = |it: &IpAddr| Some((*it, self.index.reserved.machine_at(*it)?.clone()));
        outcome.of_machines = quiet.filter_map(machine).collect();
        let dispute = |it: &IpAddr| {
            let (holder, by) = self.index.dispute(*it)?;
            Some((*it, holder.clone(), by.clone()))
        };
        outcome.disputed = outcome.addresses.iter().filter_map(dispute).collect();
        let everywhere = |address: &IpAddr| self.index.allocator.answers_everywhere(*address);
        outcome.answered_everywhere = outcome.addresses.iter().any(everywhere);
        outcome
    }
}

/// What is claimed first. All who need one of each family claim them in the same order: otherwise two, each with a half
/// that the other one needs, would both give theirs back, and begin anew for ever.
fn next_claim(families: Families, add: &[Choice]) -> Option<&Choice> {
    match families {
        Families::Both(_) => add.iter().min_by_key(|choice| choice.address),
        Families::One(_) | Families::Prefer(_) => add.first(),
    }
}

/// What else is claimed for somebody who needs one of each family.
fn other_half(add: &[Choice], address: IpAddr) -> Option<IpAddr> {
    add.iter().map(|choice| choice.address).find(|it| Family::of(*it) != Family::of(address))
}

impl Index {
    /// The next task for one Service, if any.
    pub(super) fn decide_service(&mut self, owner: &Owner, now: &Time) -> Option<Task> {
        let task = self.next_task(owner, now);
        if !self.claiming.contains_key(owner) {
            self.set_nothing_aside(owner);
        }
        task
    }

    /// Nothing is set aside for `owner` any more.
    pub(super) fn set_nothing_aside(&mut self, owner: &Owner) {
        if self.aside.remove(owner).is_some() {
            self.recall(owner);
        }
    }

    fn next_task(&mut self, owner: &Owner, now: &Time) -> Option<Task> {
        self.waiting.remove(owner);
        if self.yields_to_rival(owner, now) {
            return None;
        }
        let step = self.next_step(owner, now)?;
        tracing::debug!(service = %owner, ?step, "decided");
        match step {
            Step::Rest => {
                self.forget_lacks(owner);
                None
            }
            Step::Claim(..) | Step::Mark(..) | Step::Promise(..)
                if self.is_held_back(&Subject::Service(owner.clone()), Work::Locks) =>
            {
                let refused = self.refusal_of_locks(owner)?;
                self.settle_refused(owner, Reason::ApiRefused(refused), now)
            }
            // What is claimed is to be written in the status next. While that is refused, two that share an address would
            // take turns in claiming it.
            Step::Claim(..)
                if self.is_held_back(&Subject::Service(owner.clone()), Work::Status) =>
            {
                None
            }
            Step::Claim(address, other) => self.claim(owner, address, other),
            Step::Settle(outcome) => self.settle(owner, *outcome, now),
            Step::Mark(address, since) => self.mark(owner, address, since),
            Step::Promise(address, heir) => self.promise(owner, address, &heir),
            Step::Unrenounce => self.unrenounce(owner),
            Step::Withdraw => self.withdraw(owner, now),
            // It may be one again soon, as one that is deleted may be created again.
            Step::Release(address)
                if !self.is_served(owner) && self.awaits_successor(owner, address, now) =>
            {
                None
            }
            Step::Release(address) => {
                self.leaves(owner, address);
                None
            }
        }
    }

    /// The next step for one Service; `None` if it is not known.
    pub(super) fn next_step(&self, owner: &Owner, now: &Time) -> Option<Step> {
        let record = self.services.get(owner)?;
        let locked = self.locked_by(owner);
        Some(View { index: self, owner, record, locked, now }.next_step())
    }

    /// Whether there is something to do for a Service that waits, apart from telling it once more what it lacks.
    pub(super) fn gains(&self, owner: &Owner, now: &Time) -> bool {
        // A quota holds back all of them: each failure would have all the others planned for.
        if self.hindered_until(owner).is_some() {
            return false;
        }
        let Some(step) = self.next_step(owner, now) else { return false };
        !matches!(step, Step::Settle(outcome) if outcome.refusal.is_some() || outcome.wants_more)
    }

    fn claim(&mut self, owner: &Owner, address: IpAddr, other: Option<IpAddr>) -> Option<Task> {
        if !self.turns.has(address, &Subject::Service(owner.clone())) {
            return None;
        }
        let record = self.services.get(owner)?;
        let (service, version) = (record.service.clone(), record.version);
        if !self.allocator.holds(owner, address) {
            // Fails only when somebody else holds it, and then nothing may be claimed.
            self.take(owner, address).ok()?;
        }
        self.claiming.insert(owner.clone(), address);
        self.set_nothing_aside(owner);
        if let Some(other) = other.filter(|it| self.take(owner, *it).is_ok()) {
            self.aside.insert(owner.clone(), other);
        }
        let effect = if let Some(lock) = self.locks.get(&address) {
            let uid = service.uid.clone();
            let mut amendment = self.with_terms(lock.joined(address, service, version));
            // A grace period of its pool is another one than that beside another program's status, which is over.
            let ends = self.refused.get(owner) == Some(&FOREIGN_STATUS);
            amendment.expiring.retain(|it| !ends || it.uid != uid);
            Effect::Join(amendment)
        } else {
            let claimed_for = ClaimedFor { uid: service.uid.clone(), version };
            let pool = self.allocator.pool_of(address).map(|pool| pool.name.as_str().to_owned());
            let services = vec![service];
            let (terms, spread) = self.first_terms(address, &services);
            let claim = Claim { address, pool: pool.unwrap_or_default(), services, terms, spread };
            Effect::Claim(claim, claimed_for)
        };
        self.task(Subject::Service(owner.clone()), effect)
    }

    /// Writes the outcome, unless the status says it already; then gives back what is left over.
    fn settle(&mut self, owner: &Owner, outcome: Outcome, now: &Time) -> Option<Task> {
        if outcome.wants_more || outcome.refusal.is_some() {
            self.queue_up(owner);
        }
        // Whatever they wait for themselves, they do not wait for this one.
        self.dirty.extend(outcome.waits_for.iter().cloned());
        let alarm = |time: &Time| (time.clone(), Subject::Service(owner.clone()));
        self.alarms.extend(outcome.waits_until.as_ref().map(alarm));
        match &outcome.refusal {
            Some(why) => _ = self.refused.insert(owner.clone(), why.word()),
            None => _ = self.refused.remove(owner),
        }
        match &outcome.dark[..] {
            [] => _ = self.dark.remove(owner),
            dark => _ = self.dark.insert(owner.clone(), dark.to_vec()),
        }
        self.note_lack(owner, &outcome, now);
        if self.is_premature(owner, &outcome, now) {
            return None;
        }
        self.await_advertisements(owner, &outcome, now);
        let record = self.services.get(owner)?;
        let expiring_since = outcome
            .expiring
            .iter()
            .filter_map(|it| self.expiring_since(&record.service, it.address));
        let since = expiring_since.max().cloned();
        let rival = self.rival_of(owner);
        let conditions = wording::conditions(record, &outcome, since, rival.as_deref(), now);
        let untouched = outcome.list().is_none() && !record.ingress.is_ours();
        let said = untouched || record.ingress.says(&outcome.addresses);
        let difference = wording::difference(&record.conditions, &conditions);
        let rest = said
            && outcome.releasing.iter().all(|it| record.renounced.contains(it))
            && match difference {
                Difference::Nothing => {
                    self.untold.remove(owner);
                    true
                }
                Difference::Later(wait) => !self.may_tell_now(owner, wait, now),
                Difference::More => false,
            };
        if rest {
            self.remind(owner, now);
            let address = outcome.releasing.first()?;
            self.leaves(owner, *address);
            return None;
        }
        let said = Said::of(outcome.list().as_deref(), &conditions, &outcome.releasing);
        let repeats = self.said.get(owner) == Some(&said);
        if repeats && self.is_paused(owner, now) {
            return None;
        }
        let subject = Subject::Service(owner.clone());
        if self.is_written_too_often(&subject, Work::Status) {
            self.suspect_rival(owner, now);
            return None;
        }
        let record = self.services.get(owner)?;
        let contest = self.contest(owner, repeats);
        let mut news = Vec::new();
        if !contest.is_no_news {
            news = wording::news(record, &outcome, &self.allocator);
        }
        news.extend(contest.unmasks.as_deref().map(wording::contested));
        let write = ServiceWrite {
            record: record.clone(),
            refusal: outcome.refusal.as_ref().map(Reason::word),
            addresses: outcome.list(),
            releasing: outcome.releasing,
            conditions,
            news,
        };
        self.write(owner, write, contest)
    }

    /// Writes why a lock cannot be written that the Service needs. What it has it keeps.
    fn settle_refused(&mut self, owner: &Owner, why: Reason, now: &Time) -> Option<Task> {
        let record = self.services.get(owner)?;
        let locked = self.locked_by(owner);
        let outcome = View { index: self, owner, record, locked, now }.unclaimable(why);
        self.settle(owner, outcome, now)
    }

    /// Has the Service looked at when the grace period of its addresses is over. One that is over and could not be given
    /// back yet is tried again by what keeps it.
    fn remind(&mut self, owner: &Owner, now: &Time) {
        let Some(record) = self.services.get(owner) else { return };
        let end = |address: &IpAddr| self.end_of_grace(&record.service, *address);
        let ends = self
            .locked_by(owner)
            .iter()
            .filter_map(end)
            .filter(|end| end > now)
            .collect::<Vec<_>>();
        self.alarms.extend(ends.into_iter().map(|end| (end, Subject::Service(owner.clone()))));
    }

    /// When the grace period for which `service` has `address` is over, if it has it for one only.
    pub(super) fn end_of_grace(&self, service: &ServiceRef, address: IpAddr) -> Option<Time> {
        let since = self.expiring_since(service, address)?;
        since.0.checked_add(self.periods.grace).ok().map(Time)
    }

    /// Since when `service` has `address` for a grace period only.
    pub(super) fn expiring_since(&self, service: &ServiceRef, address: IpAddr) -> Option<&Time> {
        self.locks.get(&address)?.expiring_since(&service.uid)
    }

    fn mark(&mut self, owner: &Owner, address: IpAddr, since: Option<Time>) -> Option<Task> {
        let uid = &self.services.get(owner)?.service.uid;
        let amendment = self.locks.get(&address)?.marked(address, uid, since);
        let effect = Effect::Amend(self.with_terms(amendment));
        self.task(Subject::Service(owner.clone()), effect)
    }

    fn promise(&mut self, owner: &Owner, address: IpAddr, heir: &Owner) -> Option<Task> {
        let amendment = self.locks.get(&address)?.promised(address, heir);
        let effect = Effect::Amend(self.with_terms(amendment));
        self.task(Subject::Service(owner.clone()), effect)
    }

    fn unrenounce(&mut self, owner: &Owner) -> Option<Task> {
        let record = self.services.get(owner)?;
        let contest = self.contest(owner, false);
        let ingress = &record.ingress;
        let conditions = record.conditions.iter().filter(|it| it.type_ != ADDRESS_RELEASING);
        let write = ServiceWrite {
            record: record.clone(),
            addresses: ingress.is_ours().then(|| ingress.addresses.clone()),
            conditions: conditions.cloned().collect(),
            releasing: Vec::new(),
            news: contest.unmasks.as_deref().map(wording::contested).into_iter().collect(),
            refusal: None,
        };
        self.write(owner, write, contest)
    }

    /// Nothing is amiss with a Service that is not for us, or is gone.
    pub(super) fn forget_lacks(&mut self, owner: &Owner) {
        self.refused.remove(owner);
        self.dark.remove(owner);
        self.lacking.remove(owner);
        self.parting_since.remove(owner);
    }

    fn withdraw(&mut self, owner: &Owner, now: &Time) -> Option<Task> {
        self.forget_lacks(owner);
        let record = self.services.get(owner)?;
        let write = ServiceWrite {
            record: record.clone(),
            addresses: None,
            conditions: wording::remains(record, &[], now),
            releasing: Vec::new(),
            news: wording::withdrawn(&self.locked_by(owner)).into_iter().collect(),
            refusal: None,
        };
        self.write(owner, write, Contest::default())
    }

    fn write(&mut self, owner: &Owner, write: ServiceWrite, contest: Contest) -> Option<Task> {
        let said = Said::of(write.addresses.as_deref(), &write.conditions, &write.releasing);
        let leaves = List::after(write.addresses.as_deref(), &write.record.ingress);
        let clears = write.addresses.as_ref().is_none_or(Vec::is_empty);
        let subject = Subject::Service(owner.clone());
        let task = self.task(subject, Effect::WriteService(Box::new(write)))?;
        if clears {
            self.forget_written(owner);
        }
        self.saying.insert(owner.clone(), Saying { said, contest, leaves });
        Some(task)
    }
}
