//! What the controller would do next for one Service, for people.

use std::net::IpAddr;

use arpeggio_api::lock::ServiceRef;
use arpeggio_ipam::{Leaving, Owner, Refusal, UnfitAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Index,
    decision::Step,
    known_lock::owner_of,
    outcome::{Outcome, Reason},
    turns::Turns,
    wording,
};

/// One thing that the controller finds about a Service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Advice {
    /// It is not for this controller.
    #[error(
        "the Service is not served: it is not of type LoadBalancer, or its spec.loadBalancerClass is another one than \
         the controller's"
    )]
    NotServed,
    /// It was served, and its status still says so.
    #[error("the Service is not served any more: its status loses what the controller wrote there")]
    Withdrawn,
    /// Which pools are for it cannot be said.
    #[error(
        "its namespace \"{0}\" is not known, and so which pools are for it: nothing is decided yet"
    )]
    NamespaceUnknown(String),
    /// It has what it needs.
    #[error("it keeps {0}, whose lock names it")]
    Keeps(IpAddr),
    /// It has a lock, and the status does not say so yet.
    #[error("{0} is claimed for it; its status should say so within a second")]
    Claimed(IpAddr),
    /// The status has an address that no lock gives it.
    #[error("its status has {0}, which no lock gives it: the lock was lost and is made again")]
    Unclaimed(IpAddr),
    /// An address is free for it.
    #[error(
        "it would get {address} from pool \"{pool}\"; if it stays without, see whether a controller leads"
    )]
    WouldGet {
        /// The address.
        address: IpAddr,
        /// The pool that it is from.
        pool: String,
    },
    /// It keeps an address for a while.
    #[error("it keeps {address} for the grace period only, {until}: {why}")]
    Expires {
        /// The address.
        address: IpAddr,
        /// When the grace period ends.
        until: String,
        /// Why it is not to stay.
        why: String,
    },
    /// The lock does not say yet that the grace period has begun.
    #[error(
        "no pool allows {0} any more, or not for it, or another program has taken it out of its status: a grace period \
         begins, which its lock is to say"
    )]
    GraceBegins(IpAddr),
    /// The lock does not say yet that the grace period is called off.
    #[error("it may keep {0} again: its grace period is called off, which its lock is to say")]
    GraceEnds(IpAddr),
    /// It loses an address that its status has.
    #[error("it loses {address}: {why}")]
    Loses {
        /// The address.
        address: IpAddr,
        /// Why it is not to stay.
        why: String,
    },
    /// It has a lock that it does not need.
    #[error("it gives back {0}, which it does not need")]
    GivesBack(IpAddr),
    /// It may have again what it was about to give back.
    #[error("it asks again for an address that it was giving back: its status is to say so first")]
    Reconsiders,
    /// It does not get what it asks for.
    #[error("{0}")]
    Waits(String),
}

impl Index {
    /// What is to be done next for `service`, as things are at the time `now`. It takes the index along, since those who
    /// were there before the Service choose first. Nothing is awaited: what was not listed counts as not there.
    #[must_use]
    pub fn advice(mut self, service: &ServiceRef, now: &Time) -> Vec<Advice> {
        let owner = owner_of(service);
        self.serve_until(&owner, now);
        match self.next_step(&owner, now) {
            Some(step) => self.told(&owner, step),
            None => vec![Advice::NotServed],
        }
    }

    /// Everybody keeps what they have, and those whose turn is before that of `owner` choose.
    fn serve_until(&mut self, owner: &Owner, now: &Time) {
        self.now = Some(now.clone());
        let due = std::mem::take(&mut self.dirty);
        due.iter().for_each(|it| self.recall(it));
        for earlier in self.in_turn(&due).iter().take_while(|it| *it != owner) {
            // What is to be done for them matters here only as far as it takes addresses.
            let _ = self.decide_service(earlier, now);
            // Nothing is written, so nobody waits for it.
            self.turns = Turns::default();
        }
    }

    fn told(&self, owner: &Owner, step: Step) -> Vec<Advice> {
        match step {
            Step::Rest => vec![self.rests(owner)],
            Step::Withdraw => vec![Advice::Withdrawn],
            Step::Unrenounce => vec![Advice::Reconsiders],
            Step::Release(address) => vec![Advice::GivesBack(address)],
            Step::Mark(address, Some(_)) => vec![Advice::GraceBegins(address)],
            Step::Mark(address, None) => vec![Advice::GraceEnds(address)],
            // It stays until the others of the ring have promised theirs.
            Step::Promise(address, _) => vec![self.keeps(owner, address)],
            Step::Claim(address, _) => self.claims(owner, address),
            Step::Settle(outcome) => self.settles(owner, &outcome),
        }
    }

    fn rests(&self, owner: &Owner) -> Advice {
        match self.services.get(owner) {
            Some(record) if record.request.is_some() => {
                Advice::NamespaceUnknown(record.service.namespace.clone())
            }
            _ => Advice::NotServed,
        }
    }

    /// One address is claimed, and what the Service has besides it keeps for the time being.
    fn claims(&self, owner: &Owner, address: IpAddr) -> Vec<Advice> {
        let kept = self.locked_by(owner).into_iter().filter(|it| *it != address);
        let kept = kept.filter(|it| self.allocator.holds(owner, *it));
        let kept = kept.map(|it| self.keeps(owner, it));
        let claimed = if self.has_lock(owner, address) {
            Advice::Claimed(address)
        } else if self.lists(owner, address) {
            Advice::Unclaimed(address)
        } else {
            let pool = self.allocator.pool_of(address).map(|pool| pool.name.as_str());
            Advice::WouldGet { address, pool: pool.unwrap_or_default().to_owned() }
        };
        kept.chain([claimed]).collect()
    }

    fn settles(&self, owner: &Owner, outcome: &Outcome) -> Vec<Advice> {
        let has = outcome.addresses.iter().map(|address| {
            let expiring = outcome.expiring.iter().find(|it| it.address == *address);
            expiring.map_or_else(|| self.keeps(owner, *address), |it| self.expires(owner, it))
        });
        let loses = outcome.leaving.iter().map(loses);
        let is_left_over = |it: &&IpAddr| outcome.leaving.iter().all(|gone| gone.address != **it);
        let left_over = outcome.releasing.iter().filter(is_left_over).copied();
        let message = |why| format!("{}{}", wording::allocated(outcome).message, holder(why));
        let waits = outcome.refusal.as_ref().map(message);
        has.chain(loses)
            .chain(left_over.map(Advice::GivesBack))
            .chain(waits.map(Advice::Waits))
            .collect()
    }

    fn keeps(&self, owner: &Owner, address: IpAddr) -> Advice {
        if self.lists(owner, address) { Advice::Keeps(address) } else { Advice::Claimed(address) }
    }

    fn expires(&self, owner: &Owner, leaving: &Leaving) -> Advice {
        let record = self.services.get(owner);
        let end = record.and_then(|it| self.end_of_grace(&it.service, leaving.address));
        let until = end.map_or("which begins now".to_owned(), |end| format!("until {}", end.0));
        Advice::Expires { address: leaving.address, until, why: leaving.why.to_string() }
    }

    fn lists(&self, owner: &Owner, address: IpAddr) -> bool {
        let record = self.services.get(owner);
        record.is_some_and(|it| it.ingress.addresses.contains(&address))
    }
}

/// Who of the same namespace has what the Service asks for. Its condition does not say that, which would have to be written
/// anew each time that another one has it.
fn holder(why: &Reason) -> String {
    let (Reason::NoneToGive(refusal, _) | Reason::HeldByTerminating(refusal, _)) = why else {
        return String::new();
    };
    match refusal {
        Refusal::Address { why: UnfitAddress::Held(clash), .. }
            if !clash.is_elsewhere && clash.with.namespace().is_some() =>
        {
            format!(". Service {} has it now", clash.with)
        }
        _ => String::new(),
    }
}

fn loses(leaving: &Leaving) -> Advice {
    Advice::Loses { address: leaving.address, why: leaving.why.to_string() }
}
