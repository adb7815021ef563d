//! The pools, and the definition of their kind.

use std::collections::BTreeSet;

use arpeggio_api::{
    address_pool::{AddressPool, READY},
    config_map::{self, Dialect},
    crds,
};
use arpeggio_doctor::{
    Known,
    facts::{Definition, Pool},
};
use arpeggio_ipam::AddressRange;
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    },
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use super::kubernetes::{get, list};

const DEFINITION: &str = "addresspools.arpeggio.dev";
const VERSION: &str = "v1alpha1";

/// How the definition in the cluster differs from this release's.
pub(super) async fn definition(client: &Client) -> Known<Definition> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let Some(installed) = get(&api, DEFINITION).await? else { return Ok(Definition::default()) };
    let ours = crds::crds().into_iter().find(|it| it.name_any() == DEFINITION);
    Ok(compared(&installed, ours.as_ref()))
}

fn compared(
    installed: &CustomResourceDefinition,
    ours: Option<&CustomResourceDefinition>,
) -> Definition {
    let (theirs, ours) = (fields(installed), ours.map(fields).unwrap_or_default());
    let beyond =
        |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect();
    Definition { installed: true, lacks: beyond(&ours, &theirs), unknown: beyond(&theirs, &ours) }
}

/// All fields of the version that we write, by their paths.
fn fields(definition: &CustomResourceDefinition) -> BTreeSet<String> {
    let version = definition.spec.versions.iter().find(|it| it.name == VERSION);
    let schema = version.and_then(|it| it.schema.as_ref()?.open_api_v3_schema.as_ref());
    let mut found = BTreeSet::new();
    if let Some(schema) = schema {
        collect(schema, "", &mut found);
    }
    found
}

fn collect(schema: &JSONSchemaProps, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(field, &path, found);
        found.insert(path);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        collect(item, path, found);
    }
}

/// All `AddressPool`s, and the pools in the `ConfigMap`.
pub(super) async fn read(client: &Client, namespace: &str) -> Known<Vec<Pool>> {
    let (pools, file): (Api<AddressPool>, Api<ConfigMap>) =
        (Api::all(client.clone()), Api::namespaced(client.clone(), namespace));
    let (pools, file) = tokio::join!(installed(client, &pools), get(&file, "arpeggio"));
    let mut known: Vec<Pool> = pools?.iter().map(understood).collect();
    known.extend(file?.iter().flat_map(declared));
    Ok(known)
}

/// Without the definition there are none.
async fn installed(client: &Client, pools: &Api<AddressPool>) -> Known<Vec<AddressPool>> {
    let listed = list(pools, &ListParams::default()).await;
    match listed {
        Err(why) => match definition(client).await {
            Ok(Definition { installed: false, .. }) => Ok(Vec::new()),
            _ => Err(why),
        },
        listed => listed,
    }
}

fn understood(pool: &AddressPool) -> Pool {
    let status = pool.status.clone().unwrap_or_default();
    let unready = status.conditions.iter().find(|it| it.type_ == READY && it.status != "True");
    let unready = unready.map(|it| format!("{}: {}", it.reason, it.message));
    let is_full = unready.is_none()
        && [status.ipv4, status.ipv6]
            .into_iter()
            .flatten()
            .any(|it| it.free == 0 && it.total > it.reserved);
    let known = pool.to_pool();
    Pool {
        name: pool.name_any(),
        unready: unready.or_else(|| known.as_ref().err().map(ToString::to_string)),
        is_full,
        routed: pool.spec.routed,
        names_interfaces: pool.spec.announce.iter().any(|rule| !rule.interfaces.is_empty()),
        ranges: known.map(|it| without(it.ranges, &it.excluded)).unwrap_or_default(),
        is_plan: false,
    }
}

/// The ranges without those that are left out as a whole. One that loses only a part stays as it is.
fn without(ranges: Vec<AddressRange>, excluded: &[AddressRange]) -> Vec<AddressRange> {
    let is_out = |range: &AddressRange| {
        excluded.iter().any(|it| it.contains(range.first()) && it.contains(range.last()))
    };
    ranges.into_iter().filter(|range| !is_out(range)).collect()
}

/// The pools in a `ConfigMap` of ours.
fn declared(file: &ConfigMap) -> Vec<Pool> {
    let read = config_map::parse(file, "config", Dialect::Ours);
    let pools = match read {
        Ok(declarations) => declarations.pools,
        Err(why) => {
            let name = "in ConfigMap arpeggio".to_owned();
            return vec![Pool { name, unready: Some(why.to_string()), ..Pool::default() }];
        }
    };
    let pool = |it: &arpeggio_api::declaration::Declaration| Pool {
        name: it.name().to_string(),
        unready: it.pool.as_ref().err().map(ToString::to_string),
        ranges: it.pool.as_ref().map(|it| it.ranges.clone()).unwrap_or_default(),
        ..Pool::default()
    };
    pools.iter().map(pool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_missing_is_named() {
        let ours = crds::crds().remove(0);
        assert_eq!(
            compared(&ours, Some(&ours)),
            Definition { installed: true, ..Definition::default() }
        );
        let mut older = ours.clone();
        let schema = older.spec.versions[0].schema.as_mut().unwrap();
        let properties = schema.open_api_v3_schema.as_mut().unwrap().properties.as_mut().unwrap();
        let spec = properties.get_mut("spec").unwrap().properties.as_mut().unwrap();
        spec.remove("routed").unwrap();
        assert_eq!(compared(&older, Some(&ours)).lacks, ["spec.routed"]);
        assert_eq!(compared(&ours, Some(&older)).unknown, ["spec.routed"]);
    }

    #[test]
    fn what_is_left_out_counts_for_nothing() {
        let parse = |text: &str| text.parse::<AddressRange>().unwrap();
        let ranges = vec![parse("192.168.0.1/32"), parse("192.168.0.240/31")];
        let left = without(ranges, &[parse("192.168.0.0/28")]);
        assert_eq!(left, [parse("192.168.0.240/31")]);
    }
}
