//! Seeing what a user of the network sees. Independent of the product's own code, so that it cannot
//! share its errors.
//!
//! All times are of one monotonic clock ([`std::time::Instant`]).

mod arp_watch;
mod capture;
mod request_loop;
mod timeline;

pub use arp_watch::{ArpReply, ArpSightings, ArpWatch, NoWatch};
pub use capture::Capture;
pub use request_loop::{Outcome, Request, RequestLoop, RequestPlan, get};
pub use timeline::{Silence, Span, answers, longest_silence, spans};
