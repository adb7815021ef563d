//! A lock as the controller knows it, and how it changes.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::{
    lease::Kind,
    lock::{self, Amendment, ClaimedFor, Expiry, LockRecord, ServiceRef},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::{Claimant, Node, Version};
use arpeggio_ipam::{Owner, PoolName, Reservation};
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::ResourceExt as _;

use super::clock::is_far_ahead;
use crate::effect::Change;

/// A lock, as far as the controller is concerned.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each of them is told for itself")]
pub(super) struct KnownLock {
    /// Who has it, in the order in which they came.
    pub(super) owners: Vec<Owner>,
    pub(super) services: Vec<ServiceRef>,
    /// Those of them whose Service this process has never seen.
    pub(super) unmet: Vec<Owner>,
    /// When a backup has brought the Lease, if one has.
    pub(super) restored: Option<Time>,
    /// When the Lease was created, by the API server's clock.
    pub(super) created: Option<Time>,
    /// Since when the address is claimed: for longer than there is the Lease where a backup has brought that.
    pub(super) claimed_since: Option<Time>,
    /// The lock itself says so, and the times of its Lease do not say that it is for longer.
    pub(super) says_since: bool,
    /// The Service that was deleted, or not for us any more, while it had the address, which rests since.
    pub(super) former: Option<Owner>,
    /// The Service that is to have the address when its present one leaves it for another one.
    pub(super) promised_to: Option<Owner>,
    pub(super) expiring: Vec<Expiry>,
    /// Something of it was not understood: others may have it, too, who are not on it any more.
    pub(super) is_damaged: bool,
    /// It is of a format that only a newer release understands.
    pub(super) is_newer: bool,
    pub(super) pool: Option<PoolName>,
    pub(super) terms: WrittenAnnounceTerms,
    /// All nodes that can are to serve the address.
    pub(super) spread: bool,
    /// The node that announces the address.
    pub(super) holder: Option<Node>,
    /// It does not at present, since no node has a backend.
    pub(super) is_backless: bool,
    /// Who goes on claiming the address, by what the holder has found.
    pub(super) disputed_by: Option<Claimant>,
    /// Since when it does.
    pub(super) since: Option<MicroTime>,
    pub(super) claimed_for: Option<ClaimedFor>,
    pub(super) resting_until: Option<Time>,
    /// It rests, and until when is not understood.
    pub(super) rest_is_unclear: bool,
    /// The MAC address of the machine that answers at the address.
    pub(super) stranger_mac: Option<String>,
    /// Why the address is given to nobody for now.
    pub(super) reservation: Option<Reservation>,
    pub(super) lease_uid: String,
    pub(super) version: u64,
}

/// Whom a Service is to the allocator: its namespace and name. A Service that is created again is the same owner, and so
/// inherits what its predecessor had; which of the two a lock was written for, its uid tells.
pub(super) fn owner_of(service: &ServiceRef) -> Owner {
    Owner::from(service.path())
}

impl KnownLock {
    pub(super) fn of(record: LockRecord) -> Self {
        if let Some(damage) = &record.damage {
            tracing::warn!(%damage, "a lock is written anew");
        }
        if let Some(format) = &record.newer {
            let address = record.lock.address;
            tracing::warn!(%address, format, "a newer release wrote the lock: it is left alone");
        }
        let (reservation, stranger_mac) = (record.reservation(), record.stranger());
        let pool = Some(record.claim.pool).filter(|pool| !pool.is_empty());
        Self {
            owners: record.claim.services.iter().map(owner_of).collect(),
            unmet: Vec::new(),
            restored: None,
            created: None,
            says_since: record.claimed_since.is_some(),
            claimed_since: record.claimed_since,
            expiring: record.expiring,
            former: record.last_service.map(Owner::from),
            promised_to: record.promised_to.map(Owner::from),
            services: record.claim.services,
            is_damaged: record.damage.is_some() || record.newer.is_some(),
            is_newer: record.newer.is_some(),
            pool: pool.map(PoolName::from),
            terms: record.claim.terms,
            spread: record.claim.spread,
            is_backless: record.lock.unannounced,
            disputed_by: record.lock.disputed_by,
            holder: record.lock.holder.map(|holder| holder.node),
            since: record.since,
            claimed_for: record.claimed_for,
            rest_is_unclear: record.rests && record.resting_until.is_none(),
            resting_until: record.resting_until,
            stranger_mac,
            reservation,
            lease_uid: record.uid,
            version: record.lock.version.0,
        }
    }

    /// The lock with `service` on it, claimed for it.
    pub(super) fn joined(&self, address: IpAddr, service: ServiceRef, seen: u64) -> Amendment {
        let claimed_for = ClaimedFor { uid: service.uid.clone(), version: seen };
        let mut services = self.services.clone();
        match services.iter_mut().find(|it| it.path() == service.path()) {
            Some(predecessor) => *predecessor = service,
            None => services.push(service),
        }
        Amendment { claimed_for: Some(claimed_for), ..self.unchanged(address, services) }
    }

    /// How the lock changes when these leave. The last one deletes it, unless the address rests until some time.
    pub(super) fn left(
        &self,
        address: IpAddr,
        leaving: &BTreeSet<Owner>,
        resting_until: Option<Time>,
    ) -> Change {
        let stays = |service: &&ServiceRef| !leaving.contains(&owner_of(service));
        let services: Vec<ServiceRef> = self.services.iter().filter(stays).cloned().collect();
        if !services.is_empty() {
            return Change::Amend(Box::new(self.unchanged(address, services)));
        }
        match resting_until {
            None => self.deleted(),
            until => Change::Amend(Box::new(Amendment {
                resting_until: until,
                ..self.unchanged(address, services)
            })),
        }
    }

    /// The lock, where the address is promised to this Service.
    pub(super) fn promised(&self, address: IpAddr, heir: &Owner) -> Amendment {
        let promised_to = Some(heir.as_str().to_owned());
        Amendment { promised_to, ..self.unchanged(address, self.services.clone()) }
    }

    pub(super) fn deleted(&self) -> Change {
        Change::Delete { lease_uid: self.lease_uid.clone(), version: self.version }
    }

    pub(super) fn unchanged(&self, address: IpAddr, services: Vec<ServiceRef>) -> Amendment {
        let expected = Version(self.version);
        let terms = self.terms.clone();
        let stays = |expiry: &&Expiry| services.iter().any(|it| it.uid == expiry.uid);
        let expiring = self.expiring.iter().filter(stays).cloned().collect();
        Amendment {
            address,
            expected,
            pool: None,
            services,
            terms,
            spread: self.spread,
            claimed_for: None,
            claimed_since: self.claimed_since.clone(),
            resting_until: None,
            last_service: None,
            promised_to: None,
            expiring,
        }
    }

    /// Since when the Service with this uid has the address for a grace period only.
    pub(super) fn expiring_since(&self, uid: &str) -> Option<&Time> {
        self.expiring.iter().find(|it| it.uid == uid).map(|it| &it.since)
    }

    /// The lock, where the grace period of the Service with this uid begins at that time, or is none.
    pub(super) fn marked(&self, address: IpAddr, uid: &str, since: Option<Time>) -> Amendment {
        let mut amendment = self.unchanged(address, self.services.clone());
        amendment.expiring.retain(|it| it.uid != uid);
        amendment.expiring.extend(since.map(|since| Expiry { uid: uid.to_owned(), since }));
        amendment
    }

    /// Why nobody gets the address of a lock without Services.
    pub(super) fn resting(&self) -> Option<Reservation> {
        let until = || Some(Reservation::CoolingDown(self.resting_until.as_ref()?.0.to_string()));
        self.reservation.clone().or_else(until)
    }

    /// When nodes asked whether another machine has the address, in seconds: they do so when it has just been claimed. It is
    /// said by the API server's clock, so that those of different locks can be compared; of a lock that a backup has brought that
    /// clock says nothing.
    pub(super) fn asked(&self) -> Option<i64> {
        let nobody_answered = self.holder.is_some() && self.terms.probing;
        let was_asked = nobody_answered || self.stranger().is_some();
        let claimed = if self.restored.is_some() { &self.claimed_since } else { &self.created };
        claimed.as_ref().filter(|_| was_asked).map(|it| it.0.as_second())
    }

    /// The lock, with what the times of its Lease say of it.
    fn timed(self, lease: &Lease) -> Self {
        let created = lease.creation_timestamp();
        // By the API server's clock alone: that of its node may be hours behind.
        let is_ahead = |since: &Time| created.as_ref().is_some_and(|it| is_far_ahead(since, it));
        let said = self.claimed_since.clone().filter(|since| !is_ahead(since));
        let says_since = said.is_some();
        let claimed_since = said.or_else(|| self.had_since(created.as_ref()));
        let restored = restored(created.as_ref(), claimed_since.as_ref());
        Self { restored, created, claimed_since, says_since, ..self }
    }

    /// The lock, which was as `before`: where it does not say since when its address is claimed, what its Lease said of that before
    /// a node has taken it.
    pub(super) fn following(self, before: Option<&Self>) -> Self {
        let same = before.filter(|it| !self.says_since && it.lease_uid == self.lease_uid);
        let Some(before) = same else { return self };
        let (restored, claimed_since) = (before.restored.clone(), before.claimed_since.clone());
        Self { restored, claimed_since, ..self }
    }

    /// Whether the controllers to come could not tell that a backup has brought the lock.
    pub(super) fn forgets_restore(&self) -> bool {
        self.restored.is_some() && !self.says_since && !self.is_damaged
    }

    /// Since when the address is claimed where the lock does not say so, as one of an earlier release, or says a later time, as
    /// one does that a clock which was ahead has written: at the latest since its node has it, and since there is the Lease. The
    /// node's time is lost when a node takes the lock.
    fn had_since(&self, created: Option<&Time>) -> Option<Time> {
        let acquired = self.since.as_ref().map(|it| Time(it.0));
        acquired.into_iter().chain(created.cloned()).min()
    }

    /// The MAC address of the machine that answers at the address, with the node's name if it is one.
    pub(super) fn stranger(&self) -> Option<&str> {
        match &self.reservation {
            Some(Reservation::Quarantined(stranger)) => Some(stranger),
            _ => None,
        }
    }
}

/// The address whose lock this is.
pub(super) fn address(lease: &Lease) -> Option<IpAddr> {
    (Kind::of(lease) == Some(Kind::Lock)).then(|| lock::address_of(&lease.name_any())).flatten()
}

/// The lock, if the Lease is one.
pub(super) fn known(lease: &Lease) -> Option<(IpAddr, KnownLock)> {
    let address = address(lease)?;
    let record = lock::parse(lease).inspect_err(|error| tracing::warn!(%error, "no lock")).ok()?;
    Some((address, KnownLock::of(record).timed(lease)))
}

/// The address was claimed long before the Lease was created: a backup has brought it.
fn restored(created: Option<&Time>, claimed_since: Option<&Time>) -> Option<Time> {
    let is_late = |created: &&Time| claimed_since.is_some_and(|since| is_far_ahead(created, since));
    created.filter(is_late).cloned()
}

/// A lock whose label somebody has removed, or a restored backup has lost. The watch does not show it, and it is written
/// anew like one that is damaged.
pub(super) fn without_label(lease: &Lease) -> Option<(IpAddr, KnownLock)> {
    let address = lock::address_of(lease.metadata.name.as_deref()?)?;
    let lock = KnownLock::of(lock::parse(lease).ok()?).timed(lease);
    lock::is_claim(lease).then_some((address, KnownLock { is_damaged: true, ..lock }))
}

/// Who holds an address whose lock's name a Lease of somebody else has.
pub(super) fn foreign_owner(address: IpAddr) -> Owner {
    Owner::from(format!("Lease {}", lock::name(address)))
}
