//! Seeing what a user of the network sees. Independent of the product's own code, so that it cannot
//! share its errors.
//!
//! All times are of one monotonic clock ([`std::time::Instant`]).

mod arp_watch;
mod capture;
mod request_loop;
mod timeline;

pub use arp_watch::{ArpReply, ArpSightings, ArpWatch};
pub use capture::Capture;
pub use request_loop::{Outcome, Request, RequestLoop, RequestPlan, get};
pub use timeline::{Silence, Span, answers, longest_silence, spans};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the threads of an observation when it is dropped, also by who has forgotten to stop it.
#[derive(Debug, Default)]
struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// What a thread asks whether it is to end.
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
