//! What to do for one Service.

use std::net::IpAddr;

use arpeggio_api::{
    condition::Finding,
    lock::Claim,
    service::{ADDRESS_ALLOCATED, RequestError, ServiceRecord},
};
use arpeggio_ipam::{
    Allocator, Choice, Families, FamilyRequest, Owner, PoolName, Refusal, Request,
};
use arpeggio_runtime::events::{Kind, News};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Index;
use crate::effect::{Effect, ServiceWrite, Subject, Task};

/// The next step for one Service.
#[derive(Debug, PartialEq)]
enum Step {
    /// All is as it should be.
    Rest,
    /// Create the lock of this address.
    Claim(IpAddr),
    /// Say in the status that the Service has these addresses.
    Grant(Vec<IpAddr>),
    /// Say in the status why the Service has no address.
    Refuse(Reason),
    /// Remove from the status what we said.
    Withdraw,
    /// Delete the lock of this address.
    Release(IpAddr),
}

/// Why a Service gets no address.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Reason {
    #[error("{0}")]
    Request(RequestError),
    #[error("{0}")]
    NoneToGive(Refusal),
    #[error(
        "ipFamilyPolicy is RequireDualStack, and only one address is given to a Service so far: set it to \
         PreferDualStack or SingleStack"
    )]
    DualStack,
    #[error(
        "status.loadBalancer was written by {writers}, not by Arpeggio, and is left alone: set \
         spec.loadBalancerClass if the Service is for another load balancer, or clear its status"
    )]
    ForeignStatus { writers: String },
}

impl Reason {
    /// One word, for metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Request(error) => error.reason(),
            Self::NoneToGive(refusal) => refusal.reason(),
            Self::DualStack => "RequireDualStack",
            Self::ForeignStatus { .. } => "ForeignStatus",
        }
    }
}

/// All that a decision is made from.
struct View<'a> {
    owner: &'a Owner,
    record: &'a ServiceRecord,
    /// The addresses that the Service has locks for.
    locked: Vec<IpAddr>,
    allocator: &'a Allocator,
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
        let lists_ours = self.locked.iter().any(|address| listed.contains(address));
        if was_ours && (self.record.condition.is_some() || lists_ours) {
            return Step::Withdraw;
        }
        // Only now: as long as the status lists the address, it must stay claimed.
        self.locked.first().map_or(Step::Rest, |address| Step::Release(*address))
    }

    fn serve(&self, request: Result<&Request, &RequestError>) -> Step {
        let ingress = &self.record.ingress;
        let kept: Vec<IpAddr> =
            ingress.addresses.iter().copied().filter(|it| self.holds(*it)).collect();
        let foreign = ingress.has_others || kept.len() < ingress.addresses.len();
        if foreign && !ingress.is_ours() {
            return Step::Refuse(Reason::ForeignStatus { writers: self.writers() });
        }
        match request {
            _ if !kept.is_empty() => self.keep(kept),
            Ok(request) => self.first_address(request),
            Err(error) => Step::Refuse(Reason::Request(error.clone())),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.allocator.holder(address) == Some(self.owner)
    }

    fn writers(&self) -> String {
        match self.record.ingress.managers.as_slice() {
            [] => "an unknown program".to_owned(),
            managers => managers.join(", "),
        }
    }

    fn first_address(&self, request: &Request) -> Step {
        if let Some(address) = self.locked.first() {
            return Step::Grant(vec![*address]);
        }
        if matches!(request.families, Families::Both(_)) {
            return Step::Refuse(Reason::DualStack);
        }
        let wanted = FamilyRequest { pool: first_pool(request), family: request.families.first() };
        match self.allocator.choose(&wanted) {
            Ok(Choice { address, .. }) => Step::Claim(address),
            Err(refusal) => Step::Refuse(Reason::NoneToGive(refusal)),
        }
    }

    /// What a Service has it keeps, whatever its pool or its annotations say now.
    fn keep(&self, kept: Vec<IpAddr>) -> Step {
        if let Some(address) = kept.iter().find(|it| !self.locked.contains(it)) {
            return Step::Claim(*address);
        }
        if !self.record.ingress.says(&kept) || !self.says_allocated(&kept) {
            return Step::Grant(kept);
        }
        let extra = self.locked.iter().find(|address| !kept.contains(address));
        extra.map_or(Step::Rest, |address| Step::Release(*address))
    }

    fn says_allocated(&self, addresses: &[IpAddr]) -> bool {
        let wanted = allocated(addresses);
        self.record
            .condition
            .as_ref()
            .is_some_and(|it| it.status == "True" && it.message == wanted.message)
    }
}

fn first_pool(request: &Request) -> Option<PoolName> {
    request.pools.named(request.families.first())?.first().cloned()
}

fn allocated(addresses: &[IpAddr]) -> Finding {
    let message = format!("{} assigned", join(addresses));
    Finding { type_: ADDRESS_ALLOCATED, holds: true, reason: "Allocated", message }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

impl Index {
    /// The next task for one Service, if any.
    pub(super) fn decide_service(&mut self, owner: &Owner, now: &Time) -> Option<Task> {
        self.waiting.remove(owner);
        let record = self.services.get(owner)?;
        let locked = self.locked_by(owner);
        let step = View { owner, record, locked, allocator: &self.allocator }.next_step();
        tracing::debug!(service = record.path(), ?step, "decided");
        match step {
            Step::Rest => None,
            Step::Claim(address) => self.claim(owner, address),
            Step::Grant(addresses) => self.grant(owner, addresses, now),
            Step::Refuse(reason) => self.refuse(owner, &reason, now),
            Step::Withdraw => self.withdraw(owner),
            Step::Release(address) => self.release(address),
        }
    }

    fn claim(&mut self, owner: &Owner, address: IpAddr) -> Option<Task> {
        let services = vec![self.services.get(owner)?.service.clone()];
        let pool = self.allocator.pool_of(address).map(ToString::to_string).unwrap_or_default();
        // Fails only when somebody else holds it, and then nothing may be claimed.
        self.allocator.claim(owner, address).ok()?;
        self.claiming.insert(owner.clone(), address);
        self.pools_dirty = true;
        let claim = Claim { address, pool, services };
        self.task(Subject::Service(owner.clone()), Effect::Claim(claim))
    }

    fn grant(&mut self, owner: &Owner, addresses: Vec<IpAddr>, now: &Time) -> Option<Task> {
        let record = self.services.get(owner)?;
        let news =
            (record.ingress.addresses != addresses).then(|| self.granted(record, &addresses));
        let condition =
            allocated(&addresses).observed(None, record.condition.as_ref(), now.clone());
        let write = ServiceWrite {
            record: record.clone(),
            addresses,
            condition: Some(condition),
            news,
            refusal: None,
        };
        self.write(owner, write)
    }

    fn granted(&self, record: &ServiceRecord, addresses: &[IpAddr]) -> News {
        let from = |address: &IpAddr| match self.allocator.pool_of(*address) {
            Some(pool) => format!("{address} from pool {pool}"),
            None => address.to_string(),
        };
        let given: Vec<String> = addresses.iter().map(from).collect();
        let instead = match record.ingress.addresses.as_slice() {
            [] => String::new(),
            before => format!(" instead of {}, which another Service holds", join(before)),
        };
        let note = format!("Assigned {}{instead}", given.join(", "));
        News { kind: Kind::Normal, reason: "IPAllocated", action: "Allocate", note }
    }

    /// Says why there is no address, unless that is said already. Addresses that are not ours stay untouched.
    fn refuse(&mut self, owner: &Owner, reason: &Reason, now: &Time) -> Option<Task> {
        self.waiting.insert(owner.clone());
        let record = self.services.get(owner)?;
        let finding = Finding {
            type_: ADDRESS_ALLOCATED,
            holds: false,
            reason: "AllocationFailed",
            message: reason.to_string(),
        };
        let condition = finding.observed(None, record.condition.as_ref(), now.clone());
        let said = record.condition.as_ref() == Some(&condition);
        if said && (record.ingress.is_empty() || !record.ingress.is_ours()) {
            return None;
        }
        let news = News {
            kind: Kind::Warning,
            reason: "AllocationFailed",
            action: "Allocate",
            note: condition.message.clone(),
        };
        let write = ServiceWrite {
            record: record.clone(),
            addresses: Vec::new(),
            condition: Some(condition),
            news: Some(news),
            refusal: Some(reason.word()),
        };
        self.write(owner, write)
    }

    fn withdraw(&mut self, owner: &Owner) -> Option<Task> {
        let record = self.services.get(owner)?;
        let locked = self.locked_by(owner);
        let news = (!locked.is_empty()).then(|| News {
            kind: Kind::Normal,
            reason: "ClearAssignment",
            action: "Release",
            note: format!(
                "Released {}, since the Service is not a load balancer of this class any more",
                join(&locked)
            ),
        });
        let write = ServiceWrite {
            record: record.clone(),
            addresses: Vec::new(),
            condition: None,
            news,
            refusal: None,
        };
        self.write(owner, write)
    }

    fn write(&mut self, owner: &Owner, write: ServiceWrite) -> Option<Task> {
        self.task(Subject::Service(owner.clone()), Effect::WriteService(Box::new(write)))
    }
}
