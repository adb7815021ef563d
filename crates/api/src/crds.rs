//! The custom resource definitions, generated from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::address_pool::AddressPool;

/// Everything that has to be installed before the controller can work.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AddressPool::crd()]
}

/// A definition as YAML, in the form of the files in `manifests/crds`.
///
/// # Errors
/// Never in practice; the definitions are constants.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(crd)?;
    Ok(format!("# Generated from crates/api; do not edit.\n{yaml}"))
}
