//! What is decided for a Service: what it has, and why it has no more.

use std::net::IpAddr;

use arpeggio_api::service::RequestError;
use arpeggio_ipam::{Leaving, Refusal, Reservation, UnfitAddress};

use super::effect::Refused;

/// What a Service has and is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The addresses in its status.
    pub(super) addresses: Vec<IpAddr>,
    /// Those of them that no pool allows any more.
    pub(super) expiring: Vec<Leaving>,
    /// Those that it loses.
    pub(super) leaving: Vec<Leaving>,
    /// Those that have a lock for it and that it does not get.
    pub(super) releasing: Vec<IpAddr>,
    /// Those of its addresses at which a stranger answers, and the strangers' MAC addresses.
    pub(super) conflicts: Vec<(IpAddr, String)>,
    /// Who announces which of them.
    pub(super) announcers: Vec<Option<String>>,
    /// Those that nobody announces until a pod is ready.
    pub(super) backless: Vec<IpAddr>,
    /// Those of its addresses that nobody is to announce.
    pub(super) unannounced: Vec<IpAddr>,
    /// Why it does not get what it asks for.
    pub(super) refusal: Option<Reason>,
    /// Whether it would get more if some address came free.
    pub(super) wants_more: bool,
}

impl Outcome {
    /// Whether the Service is refused nothing but what it has already: an address that a stranger has.
    pub(super) fn is_about_conflict(&self, refusal: &Refusal) -> bool {
        matches!(
            refusal,
            Refusal::Address { address, why: UnfitAddress::Reserved(Reservation::Quarantined(_)) }
                if self.addresses.contains(address)
        )
    }
}

/// Why a Service does not get what it asks for.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Reason {
    #[error("{0}")]
    Request(RequestError),
    #[error("{0}")]
    NoneToGive(Refusal),
    #[error(
        "status.loadBalancer was written by {writers}, not by Arpeggio, and is left alone: set \
         spec.loadBalancerClass if the Service is for another load balancer, or clear its status"
    )]
    ForeignStatus { writers: String },
    #[error("{0}")]
    ApiRefused(Refused),
}

impl Reason {
    /// One word, for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Request(error) => error.reason(),
            Self::NoneToGive(refusal) => refusal.reason(),
            Self::ForeignStatus { .. } => "ForeignStatus",
            Self::ApiRefused(_) => "ApiRefused",
        }
    }
}
