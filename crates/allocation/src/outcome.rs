//! What is decided for a Service: what it has, and why it has no more.

use std::{fmt, net::IpAddr};

use arpeggio_api::service::{RequestError, ServiceRecord};
use arpeggio_election::{Claimant, Node};
use arpeggio_ipam::{Leaving, Owner, Refusal, Reservation, UnfitAddress};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::effect::Refused;

/// The word for a status that another program has written.
pub(super) const FOREIGN_STATUS: &str = "ForeignStatus";

/// What a Service has and is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The addresses in its status.
    pub(super) addresses: Vec<IpAddr>,
    /// What takes the place of those that it loses.
    pub(super) replacement: Replacement,
    /// Those of them that no pool allows any more.
    pub(super) expiring: Vec<Leaving>,
    /// Those that no pool allows either, of which that is not written yet: it may be so for a moment only.
    pub(super) in_doubt: Vec<IpAddr>,
    /// Those that it cannot share with those who were there before it, which may be so for a moment only, too.
    pub(super) parting: Vec<IpAddr>,
    /// Those that it loses.
    pub(super) leaving: Vec<Leaving>,
    /// Those that it has for the grace period though its status, which another program has written, does not list them.
    pub(super) retained: Vec<IpAddr>,
    /// Until when it has which of these, as far as their locks say so already.
    pub(super) ends: Vec<(IpAddr, Time)>,
    /// Whether it is to have none, and the status lists some of ours in another program's name: they have to go.
    pub(super) clears: bool,
    /// Those that have a lock for it and that it does not get.
    pub(super) releasing: Vec<IpAddr>,
    /// Those of its addresses that no node announces, since a router has a route to them.
    pub(super) routed: Vec<IpAddr>,
    /// Whether one of those strangers answers at so many addresses that no other one would be better.
    pub(super) answered_everywhere: bool,
    /// Those of its addresses at which a stranger answers, and the strangers' MAC addresses.
    pub(super) conflicts: Vec<(IpAddr, String)>,
    /// Those of its addresses that a node or a gateway has, at which no stranger was heard, and which machine it is.
    pub(super) of_machines: Vec<(IpAddr, Reservation)>,
    /// Those of its addresses that a node announces and somebody else goes on claiming: these two.
    pub(super) disputed: Vec<(IpAddr, Node, Claimant)>,
    /// Who announces which of them.
    pub(super) announcers: Vec<Option<String>>,
    /// Those that nobody announces until a pod is ready.
    pub(super) backless: Vec<IpAddr>,
    /// Those that nobody announces, though somebody is to.
    pub(super) dark: Vec<IpAddr>,
    /// The connections to its addresses that nodes still have which do not serve them any more.
    pub(super) left_behind: Vec<(IpAddr, String, u32)>,
    /// Those of its addresses that one node serves though all are to, and why.
    pub(super) not_spread: Vec<(IpAddr, String)>,
    /// Those of its addresses that nobody is to announce.
    pub(super) unannounced: Vec<IpAddr>,
    /// Why it does not get what it asks for.
    pub(super) refusal: Option<Reason>,
    /// Those who have to do something before it gets the address of one of them in exchange for its own.
    pub(super) waits_for: Vec<Owner>,
    /// When it is looked again whether that can be.
    pub(super) waits_until: Option<Time>,
    /// Whether it would get more if some address came free.
    pub(super) wants_more: bool,
}

impl Outcome {
    /// What its status is to list. `None`: the list is not ours to write.
    pub(super) fn list(&self) -> Option<Vec<IpAddr>> {
        (self.clears || !self.addresses.is_empty()).then(|| self.addresses.clone())
    }

    /// Whether its status is somebody else's, which is left alone.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.refusal, Some(Reason::ForeignStatus { .. }))
    }

    /// Whether the Service is refused nothing but what it has already: an address that a stranger has.
    pub(super) fn is_about_conflict(&self, refusal: &Refusal) -> bool {
        matches!(
            refusal,
            Refusal::Address { address, why: UnfitAddress::Reserved(Reservation::Quarantined(_)) }
                if self.addresses.contains(address)
        )
    }
}

/// What takes the place of an address that a Service loses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// What it asks for, if that is to be had.
    #[default]
    Sought,
    /// Nothing, since nothing can be planned for it.
    Nothing,
}

/// Why a Service does not get what it asks for.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Reason {
    #[error("{0}")]
    Request(RequestError),
    #[error("{0}{1}")]
    NoneToGive(Refusal, Hint),
    #[error(
        "status.loadBalancer was written by {writers}, not by Arpeggio, and is left alone: set \
         spec.loadBalancerClass if the Service is for another load balancer; if that one is gone, annotate the Service \
         with arpeggio.dev/take-over=true"
    )]
    ForeignStatus { writers: String },
    #[error("{0}")]
    ApiRefused(Refused),
    #[error("the Service is being deleted{0}: it gets no address any more")]
    Terminating(Terminating),
    #[error("the namespace of the Service is being deleted: it gets no address any more")]
    NamespaceTerminating,
    #[error("{0}. The Service that has it is being deleted{1}: wait, or find out what holds it")]
    HeldByTerminating(Refusal, Terminating),
}

impl Reason {
    /// One word, for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Request(error) => error.reason(),
            Self::NoneToGive(refusal, _) | Self::HeldByTerminating(refusal, _) => refusal.reason(),
            Self::ForeignStatus { .. } => FOREIGN_STATUS,
            Self::ApiRefused(_) => "ApiRefused",
            Self::Terminating(_) | Self::NamespaceTerminating => "Terminating",
        }
    }
}

/// What may be the reason behind a refusal.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Hint {
    #[default]
    None,
    /// `MetalLB`'s objects are read in this namespace, and there is no pool in it.
    MetalLbElsewhere(String),
    /// The API server does not show these objects.
    Unlisted(String),
    /// The Service gives this address up first, since it exchanges it for the one that it asks for.
    Exchange(IpAddr),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::MetalLbElsewhere(namespace) => write!(
                f,
                ". MetalLB's objects are read in namespace {namespace:?} only, where there is no pool: if they are in another \
                 one, the controller's --metallb-namespace has to name it, and --metallb-config-map a ConfigMap that is \
                 not called config"
            ),
            Self::Exchange(address) => write!(
                f,
                ". The Services exchange their addresses: this one gives {address} up first, and has none for a moment"
            ),
            Self::Unlisted(objects) => write!(
                f,
                ". The API server does not list {objects} for the controller, which goes on with what it knew of them: its \
                 log says why"
            ),
        }
    }
}

/// Since when a Service is being deleted, and what it still waits for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Terminating {
    since: Option<String>,
    finalizers: Vec<String>,
}

impl Terminating {
    /// `None` for a Service that is not being deleted.
    pub(super) fn of(record: &ServiceRecord) -> Option<Self> {
        let since = record.deleting_since.as_ref()?.0.to_string();
        Some(Self { since: Some(since), finalizers: record.finalizers.clone() })
    }

    /// What of it concerns the author of another Service: of one in another namespace only that it is so.
    pub(super) fn seen_by(record: &ServiceRecord, other: &ServiceRecord) -> Option<Self> {
        let of = Self::of(record)?;
        let same = record.service.namespace == other.service.namespace;
        Some(if same { of } else { Self::default() })
    }
}

impl fmt::Display for Terminating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = &self.since {
            write!(f, " since {since}")?;
        }
        match self.finalizers.as_slice() {
            [] => Ok(()),
            finalizers => write!(f, " and waits for its finalizers ({})", finalizers.join(", ")),
        }
    }
}
