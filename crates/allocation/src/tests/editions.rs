//! Controllers of other releases, as far as a cluster sees them: what they write in Leases, and what they make of what
//! stands there.

use arpeggio_api::lease::newer_format;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};

const FORMAT: &str = "arpeggio.dev/format";
const SERVICES: &str = "arpeggio.dev/services";
/// Texts that the release after this one writes in another way.
const TEXTS: [&str; 2] = ["arpeggio.dev/announce", "arpeggio.dev/last-good"];
/// What the release before this one does not know.
const LAST_SERVICE: &str = "arpeggio.dev/last-service";
const CLAIMED_SINCE: &str = "arpeggio.dev/claimed-since";
const PROMISED_TO: &str = "arpeggio.dev/promised-to";
/// How its messages end.
const EARLIER: &str = ", as before";

/// What the release after this one says of each Service beyond what is said today.
const MORE: &str = "/weight-3";
/// How its texts begin.
const OTHERWISE: &str = "2:";

/// A release of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Edition {
    /// It says no format, keeps no records of pools, knows nothing of heirs, and says the same in other words.
    Before,
    /// The one that is under test.
    #[default]
    This,
    /// It writes format 2, in which nothing reads as it did, and understands format 1.
    After,
}

impl Edition {
    pub(super) const ALL: [Self; 3] = [Self::Before, Self::This, Self::After];

    /// Whose format a Lease has.
    pub(super) fn of(lease: &Lease) -> Self {
        if newer_format(lease).is_some() { Self::After } else { Self::This }
    }

    /// Whether it must leave this Lease alone.
    pub(super) fn is_older_than(self, lease: &Lease) -> bool {
        self != Self::After && Self::of(lease) == Self::After
    }

    pub(super) fn keeps_records(self) -> bool {
        self != Self::Before
    }

    /// A Lease as this release understands it, in the words of the one that is under test.
    pub(super) fn reads(self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self {
            Self::Before => {
                annotations.remove(LAST_SERVICE);
                annotations.remove(PROMISED_TO);
                annotations.remove(CLAIMED_SINCE);
            }
            Self::After if annotations.get(FORMAT).is_some_and(|format| format == "2") => {
                annotations.insert(FORMAT.to_owned(), "1".to_owned());
                if let Some(services) = annotations.get_mut(SERVICES) {
                    *services = services.replace(MORE, "");
                }
                for key in TEXTS {
                    if let Some(text) = annotations.get_mut(key) {
                        *text = text.trim_start_matches(OTHERWISE).to_owned();
                    }
                }
            }
            Self::This | Self::After => {}
        }
        lease
    }

    /// A Service as this release understands it. The texts of another one's conditions are not what it would write.
    pub(super) fn reads_service(self, mut service: Service) -> Service {
        let status = service.status.as_mut();
        let conditions = status.and_then(|status| status.conditions.as_mut());
        for condition in conditions.into_iter().flatten() {
            let message = &mut condition.message;
            match (self, message.strip_suffix(EARLIER)) {
                (Self::Before, Some(own)) => *message = own.to_owned(),
                (Self::Before, None) => message.push_str(" (of another release)"),
                _ => {}
            }
        }
        service
    }

    /// What this release says in a condition.
    pub(super) fn says(self, mut condition: Condition) -> Condition {
        if self == Self::Before {
            condition.message.push_str(EARLIER);
        }
        condition
    }

    /// What becomes of a Lease that this release writes, in place of the one of `before`.
    pub(super) fn writes(self, mut lease: Lease, before: Option<&Lease>) -> Lease {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self {
            Self::Before => {
                let before = before.and_then(|it| it.metadata.annotations.as_ref());
                for key in [FORMAT, LAST_SERVICE, PROMISED_TO, CLAIMED_SINCE] {
                    match before.and_then(|it| it.get(key)) {
                        Some(value) => annotations.insert(key.to_owned(), value.clone()),
                        None => annotations.remove(key),
                    };
                }
            }
            Self::This => {}
            Self::After => {
                annotations.insert(FORMAT.to_owned(), "2".to_owned());
                if let Some(services) = annotations.get_mut(SERVICES).filter(|it| !it.is_empty()) {
                    let said =
                        services.split(',').map(|it| format!("{}{MORE}", it.replace(MORE, "")));
                    *services = said.collect::<Vec<_>>().join(",");
                }
                for key in TEXTS {
                    if let Some(text) = annotations.get_mut(key) {
                        *text = format!("{OTHERWISE}{}", text.trim_start_matches(OTHERWISE));
                    }
                }
            }
        }
        lease
    }
}
