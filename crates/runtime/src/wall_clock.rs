//! The time of day.
//!
//! It jumps: by hand, at a daylight saving change done wrong, when a virtual machine is resumed. It dates what people
//! read, and tells the controller how old a record is that has outlived a restart. Nobody's session and nobody's lock
//! depends on it; a lint refuses all other ways to read it.

use k8s_openapi::jiff::Timestamp;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
