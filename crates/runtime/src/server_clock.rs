//! The time of day by the API server's clock, as far as its answers tell (the header `Date`).
//!
//! The clock of a user's machine may be hours off, and is nobody's business: how old something is that the cluster dates is
//! told by the cluster's own clock. All that is decided by it is whether a backup has brought a lock, for which both times have to be
//! by one clock.

use std::sync::atomic::{AtomicI64, Ordering};

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::DateTime, fmt::rfc2822, tz::TimeZone};

use crate::wall_clock;

/// Clocks that differ by less count as one: the header has whole seconds, and the answer takes time.
const ALIKE: SignedDuration = SignedDuration::from_secs(2);

/// By how many milliseconds the API server's clock is ahead of ours, by the last answer of this process.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// The time now.
pub fn now() -> Timestamp {
    let ahead = SignedDuration::from_millis(AHEAD.load(Ordering::Relaxed));
    let here = wall_clock::now();
    here.checked_add(ahead).unwrap_or(here)
}

/// The two other forms that a date in a header may have (RFC 9110 section 5.6.7), both in UTC.
const OLD_FORMS: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// A date in a header.
pub(crate) fn parse(date: &str) -> Option<Timestamp> {
    let old = || OLD_FORMS.iter().find_map(|form| DateTime::strptime(form, date).ok());
    match rfc2822::parse(date) {
        Ok(zoned) => Some(zoned.timestamp()),
        Err(_) => Some(old()?.to_zoned(TimeZone::UTC).ok()?.timestamp()),
    }
}

/// Takes note of the date of an answer.
pub(crate) fn hear(date: &str) {
    if let Some(ahead) = ahead(date, wall_clock::now()) {
        let millis = i64::try_from(ahead.as_millis()).unwrap_or_default();
        AHEAD.store(millis, Ordering::Relaxed);
    }
}

/// By how much the clock that wrote this is ahead of one that shows `here`.
fn ahead(date: &str, here: Timestamp) -> Option<SignedDuration> {
    let ahead = parse(date)?.duration_since(here);
    Some(if ahead.abs() < ALIKE { SignedDuration::ZERO } else { ahead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_one_of_three_forms() {
        let meant: Timestamp = "2026-11-08T08:49:37Z".parse().unwrap();
        for form in [
            "Sun, 08 Nov 2026 08:49:37 GMT",
            "Sunday, 08-Nov-26 08:49:37 GMT",
            "Sun Nov  8 08:49:37 2026",
        ] {
            assert_eq!(parse(form), Some(meant), "{form}");
        }
        for other in ["", "0", "-1", "soon", "Sun, 99 Nov 2026 08:49:37 GMT"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_more_than_an_answer_takes_counts() {
        let here = "2026-11-29T10:00:00.9Z".parse().unwrap();
        let seconds = |date| ahead(date, here).map(|it| it.as_secs());
        assert_eq!(seconds("Sun, 29 Nov 2026 10:00:00 GMT"), Some(0));
        assert_eq!(seconds("Sun, 29 Nov 2026 10:00:01 GMT"), Some(0));
        assert_eq!(seconds("Sun, 29 Nov 2026 13:00:01 GMT"), Some(10_800));
        assert_eq!(seconds("Sat, 28 Nov 2026 10:00:00 GMT"), Some(-86_400));
        for other in ["", "soon", "2026-11-29T10:00:00Z"] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }
}
