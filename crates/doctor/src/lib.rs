//! What is seen of an installation, and what is wrong with it.
//!
//! [`Facts`] go in, [`Finding`]s come out. Nothing here asks anybody: who gathers the facts says what it could not find out
//! ([`Known`]), and then the check says so, too. Each finding has a [`Code`] that never changes its meaning; what it means and
//! what to do stands in `docs/troubleshooting.md`.

#![forbid(unsafe_code)]

mod checks;
mod code;
pub mod facts;
mod finding;
pub mod survey;

pub use self::{
    checks::{examine, is_repeatable},
    code::{Code, Group, Selection, Selector, UnknownSelector},
    facts::{Facts, Known, Stage},
    finding::{Finding, Severity},
};
