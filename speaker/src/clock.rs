//! The clock that this process judges by, which a simulation replaces.

use arpeggio_election::Timestamp;

/// Reads a clock that never steps and that counts suspended time.
pub(crate) type Clock = fn() -> Timestamp;

/// The machine's own.
pub(crate) fn of_this_machine() -> Timestamp {
    Timestamp::from_origin(arpeggio_link::clock::now())
}
