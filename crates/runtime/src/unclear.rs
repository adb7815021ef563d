//! Objects that are not understood.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};

use crate::telemetry::causes;

/// The Leases that are not understood, by name, and why not. Each is told of once in the log, however often it is written.
#[derive(Debug, Default)]
pub struct UnclearLeases(BTreeMap<String, String>);

impl UnclearLeases {
    /// What was read of a Lease, if it was understood.
    pub fn pass<T, E: Error>(&mut self, name: &str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(understood) => {
                self.gone(name);
                Some(understood)
            }
            Err(error) => {
                let why = causes(&error).to_string();
                if self.0.get(name) != Some(&why) {
                    tracing::warn!(error = why, "a Lease is not understood");
                    self.0.insert(name.to_owned(), why);
                }
                None
            }
        }
    }

    /// A Lease is gone.
    pub fn gone(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// There are no others than these.
    pub fn listed(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
