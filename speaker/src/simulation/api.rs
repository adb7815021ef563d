//! An API server that keeps Leases: every patch names the version that it is for.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::orders::Request;

/// All Leases, by their names.
#[derive(Debug, Default)]
pub(super) struct ApiServer {
    leases: BTreeMap<String, Lease>,
    version: u64,
}

impl ApiServer {
    /// Does what is asked; returns the Lease as it is now if it was changed.
    pub(super) fn perform(&mut self, name: &str, request: &Request) -> Option<Lease> {
        let lease = match request {
            Request::Create(_) if self.leases.contains_key(name) => return None,
            Request::Create(lease) => (**lease).clone(),
            Request::Patch(patch) => self.patched(name, patch)?,
            Request::Read => return None,
        };
        Some(self.store(lease))
    }

    pub(super) fn store(&mut self, mut lease: Lease) -> Lease {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.leases.insert(lease.metadata.name.clone().unwrap(), lease.clone());
        lease
    }

    pub(super) fn delete(&mut self, name: &str) -> Option<Lease> {
        self.version += 1;
        let mut lease = self.leases.remove(name)?;
        lease.metadata.resource_version = Some(self.version.to_string());
        Some(lease)
    }

    fn patched(&self, name: &str, patch: &Value) -> Option<Lease> {
        let known = self.leases.get(name)?;
        let expected = patch["metadata"]["resourceVersion"].as_str();
        (expected == known.metadata.resource_version.as_deref()).then(|| {
            let mut lease = serde_json::to_value(known).unwrap();
            json_patch::merge(&mut lease, patch);
            serde_json::from_value(lease).unwrap()
        })
    }

    pub(super) fn read(&self, name: &str) -> Option<&Lease> {
        self.leases.get(name)
    }

    pub(super) fn list(&self) -> Vec<Lease> {
        self.leases.values().cloned().collect()
    }
}
