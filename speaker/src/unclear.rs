//! Leases that are not understood in full.
//!
//! | what | what follows |
//! |---|---|
//! | a lock of a format that only a newer release understands | what was known of it stays in force; it is neither taken nor written |
//! | a session of such a format | it lives as long as it changes; no other node writes on it |
//! | a lock whose announce rules are damaged | the last ones that were understood stay in force; without any, it is announced nowhere |

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::lock::LockRecord;
use arpeggio_election::{Node, Target, Write};

/// The Leases that are not understood in full.
#[derive(Debug, Default)]
pub(crate) struct UnclearLeases {
    newer_locks: BTreeSet<IpAddr>,
    newer_sessions: BTreeSet<Node>,
    without_rules: BTreeSet<IpAddr>,
}

impl UnclearLeases {
    /// The lock of `address` has a format that only a newer release understands. Says so once.
    pub(crate) fn lock_is_newer(&mut self, address: IpAddr, format: &str) {
        if self.newer_locks.insert(address) {
            tracing::warn!(%address, format, "a newer release wrote the lock: it is left alone");
        }
    }

    /// A lock in a format that is understood. What cannot be read of it is replaced by what is `known`. Says so once.
    pub(crate) fn completed(
        &mut self,
        mut record: LockRecord,
        known: Option<&LockRecord>,
    ) -> LockRecord {
        let address = record.lock.address;
        self.newer_locks.remove(&address);
        if !record.rules_unknown {
            self.without_rules.remove(&address);
            return record;
        }
        if let Some(known) = known {
            record.lock.terms = known.lock.terms.clone();
            record.claim.terms = known.claim.terms.clone();
        }
        if self.without_rules.insert(address) {
            let damage = record.damage.as_ref().map(ToString::to_string);
            let until_mended = if known.is_some() {
                "the last ones stay in force"
            } else {
                "it is announced nowhere"
            };
            tracing::warn!(%address, damage, until_mended, "the announce rules on a lock are damaged");
        }
        record
    }

    /// There is no lock of `address` any more.
    pub(crate) fn lock_gone(&mut self, address: IpAddr) {
        self.newer_locks.remove(&address);
        self.without_rules.remove(&address);
    }

    /// What the session of `node` is now. Says so once.
    pub(crate) fn session_is(&mut self, node: &Node, newer: Option<&str>) {
        match newer {
            None => _ = self.newer_sessions.remove(node),
            Some(format) => {
                if self.newer_sessions.insert(node.clone()) {
                    tracing::warn!(%node, format, "a newer release wrote the session: it is left alone");
                }
            }
        }
    }

    /// Whether a write is about one of them. A lock of them is not even read: that would say nothing.
    pub(crate) fn bar(&self, write: &Write) -> bool {
        match write.target() {
            Target::Lock(address) => self.newer_locks.contains(&address),
            Target::Session(node) => self.newer_sessions.contains(&node),
            Target::OwnSession => false,
        }
    }

    /// The addresses whose announce rules cannot be read.
    pub(crate) fn without_rules(&self) -> impl Iterator<Item = IpAddr> {
        self.without_rules.iter().copied()
    }

    /// How many locks are not understood in full.
    pub(crate) fn locks(&self) -> usize {
        self.newer_locks.union(&self.without_rules).count()
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{
        lock::{self, Claim},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::{EndReason, Epoch, LockChange, Places, TakeReason, Version};

    use super::*;

    #[test]
    fn what_a_newer_release_has_written_is_left_alone_until_it_is_not() {
        let address = IpAddr::from([192, 168, 0, 240]);
        let (expected, epoch, node) = (Version(7), Epoch(1), Node::from("node-2"));
        let (reason, lasts) = (EndReason::Expired, std::time::Duration::from_secs(9));
        let lock = |change| Write::Lock { address, expected, change };
        let writes = [
            (lock(LockChange::Take { epoch, reason: TakeReason::New }), true),
            (Write::Read { address }, true),
            (lock(LockChange::Quarantine { stranger: [2; 6] }), true),
            (Write::Read { address: [192, 168, 0, 241].into() }, false),
            (Write::Accuse { node: node.clone(), expected }, true),
            (Write::End { node: node.clone(), expected, reason }, true),
            (Write::Accuse { node: "node-3".into(), expected }, false),
            (Write::Renew { epoch, expected, lasts, hears: BTreeSet::new() }, false),
        ];
        let mut newer = UnclearLeases::default();
        newer.lock_is_newer(address, "2");
        newer.session_is(&node, Some("2"));
        for (write, expected) in &writes {
            assert_eq!(newer.bar(write), *expected, "{write:?}");
        }
        newer.lock_gone(address);
        newer.session_is(&node, None);
        assert!(writes.iter().all(|(write, _)| !newer.bar(write)));
    }

    fn lock(rules: &str) -> LockRecord {
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let address = [192, 168, 0, 240].into();
        let mut lease =
            Claim { address, pool: "home".into(), services, terms, spread: false }.created();
        lease.metadata.resource_version = Some("7".into());
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert("arpeggio.dev/announce".into(), rules.into());
        lock::parse(&lease).unwrap()
    }

    #[test]
    fn rules_that_are_damaged_are_those_that_were_understood_last_or_none() {
        let mut unclear = UnclearLeases::default();
        let first = unclear.completed(lock("{"), None);
        assert_eq!(first.lock.terms.places, Places::ByRules(vec![]));
        let rules = r#"{"rules":[{"interfaces":["lan0"]}],"probing":false,"local":true}"#;
        let good = unclear.completed(lock(rules), Some(&first));
        assert_eq!((good.rules_unknown, unclear.locks()), (false, 0));
        let damaged = unclear.completed(lock("{"), Some(&good));
        assert_eq!((&damaged.lock.terms, unclear.locks()), (&good.lock.terms, 1));
        let again = unclear.completed(lock("[]"), Some(&damaged));
        assert_eq!(
            again.claim.terms, good.claim.terms,
            "also whether it is for local traffic only"
        );
    }
}
