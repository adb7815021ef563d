//! The pools, and the definition of their kind.

use std::collections::BTreeSet;

use arpeggio_api::{
    address_pool::{AddressPool, AnnounceRule, READY},
    config_map::{self, Dialect},
    crds,
    declaration::Declaration,
    metallb::{Advertisement, IPAddressPool, L2Advertisement, LegacyPool},
    terms::Announcement,
};
use arpeggio_doctor::{
    Known,
    facts::{Definition, Pool},
};
use arpeggio_election::Rule;
use arpeggio_runtime::guarded::Guarded;
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    },
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::error_boundary::InvalidObject};

use super::kubernetes::{get, legacy_pools, list, list_if_installed};
use crate::installed::Duties;

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

/// All `AddressPool`s, and the pools of other formats that the controller reads.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    duties: &Known<Duties>,
) -> Known<Vec<Pool>> {
    let places = duties.as_ref().map_err(Clone::clone)?;
    let (pools, file): (Api<Guarded<AddressPool>>, Api<ConfigMap>) =
        (Api::all(client.clone()), Api::namespaced(client.clone(), namespace));
    let (pools, file) = tokio::join!(installed(client, &pools), get(&file, &places.config_map));
    let mut known: Vec<Pool> = pools?.into_iter().map(judged).collect();
    known.extend(file?.iter().flat_map(|it| in_file(it, &places.key, Dialect::Ours)));
    if let Some((namespace, config_map)) = &places.metallb {
        known.extend(of_metallb(client, namespace, config_map, &places.key).await?);
    }
    Ok(known)
}

/// As for the controller, `MetalLB`'s `ConfigMap` counts only where there are no pools of its kinds.
async fn of_metallb(
    client: &Client,
    namespace: &str,
    config_map: &str,
    key: &str,
) -> Known<Vec<Pool>> {
    let pools: Api<IPAddressPool> = Api::namespaced(client.clone(), namespace);
    let advertisements: Api<L2Advertisement> = Api::namespaced(client.clone(), namespace);
    let (pools, legacy, advertisements) = tokio::join!(
        list_if_installed(&pools),
        legacy_pools(client, namespace),
        list_if_installed(&advertisements)
    );
    let declared = declared(&pools?, &legacy?, &advertisements?);
    if !declared.is_empty() {
        return Ok(declared);
    }
    let files: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let file = get(&files, config_map).await?;
    Ok(file.iter().flat_map(|it| in_file(it, key, Dialect::MetalLb)).collect())
}

fn declared(
    pools: &[IPAddressPool],
    legacy: &[LegacyPool],
    advertisements: &[L2Advertisement],
) -> Vec<Pool> {
    let parsed: Vec<_> = advertisements.iter().map(Advertisement::parse).collect();
    let all_known = parsed.iter().all(Result::is_ok);
    let usable: Vec<Advertisement> = parsed.into_iter().filter_map(Result::ok).collect();
    let pools = pools.iter().map(|it| it.declare(&usable, all_known).0);
    pools.chain(legacy.iter().map(|it| it.declare().0)).map(|it| as_declared(&it)).collect()
}

/// A pool of another format than ours. Its name says which, since two formats may use one name.
fn as_declared(declaration: &Declaration) -> Pool {
    let unread = declaration.pool.as_ref().err().map(ToString::to_string);
    let unannounced = (declaration.announcement == Announcement::Nowhere).then(|| {
        "no L2Advertisement selects it, so that nobody answers for its addresses".to_owned()
    });
    let rules = match &declaration.announcement {
        Announcement::ByRules(rules) => rules.as_slice(),
        _ => &[],
    };
    Pool {
        name: format!("{} ({})", declaration.name(), declaration.origin),
        plain_name: declaration.name().to_string(),
        unready: unread.or(unannounced),
        routed: declaration.announcement == Announcement::Routed,
        rules: read_rules(rules),
        ranges: declaration.pool.as_ref().map(arpeggio_ipam::Pool::allowed).unwrap_or_default(),
        avoid_buggy_ips: declaration.pool.as_ref().is_ok_and(|it| it.avoid_buggy_ips),
        ..Pool::default()
    }
}

/// Without the definition there are none.
async fn installed(
    client: &Client,
    pools: &Api<Guarded<AddressPool>>,
) -> Known<Vec<Guarded<AddressPool>>> {
    let listed = list(pools, &ListParams::default()).await;
    match listed {
        Err(why) => match definition(client).await {
            Ok(Definition { installed: false, .. }) => Ok(Vec::new()),
            _ => Err(why),
        },
        listed => listed,
    }
}

/// One that cannot be decoded keeps no other one from being judged.
fn judged(pool: Guarded<AddressPool>) -> Pool {
    match pool.0 {
        Ok(pool) => understood(&pool),
        Err(InvalidObject { error, metadata }) => Pool {
            plain_name: metadata.name.clone().unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            unready: Some(format!("this release does not understand it: {error}")),
            ..Pool::default()
        },
    }
}

fn understood(pool: &AddressPool) -> Pool {
    let status = pool.status.clone().unwrap_or_default();
    let unready = status.conditions.iter().find(|it| it.type_ == READY && it.status != "True");
    let unready = unready.map(|it| format!("{}: {}", it.reason, it.message));
    let is_ready = unready.is_none();
    let families = [status.ipv4, status.ipv6].into_iter().flatten();
    let full = families.filter(|it| it.free == 0 && it.total > it.reserved);
    let full = full.filter_map(|it| u128::try_from(it.total).ok()).max();
    let known = pool.to_pool();
    Pool {
        name: pool.name_any(),
        plain_name: pool.name_any(),
        unready: unready.or_else(|| known.as_ref().err().map(ToString::to_string)),
        full: full.filter(|_| is_ready),
        routed: pool.spec.routed,
        rules: read_rules(&pool.spec.announce),
        ranges: known.as_ref().map(arpeggio_ipam::Pool::allowed).unwrap_or_default(),
        avoid_buggy_ips: known.is_ok_and(|it| it.avoid_buggy_ips),
        is_plan: false,
    }
}

/// What cannot be read of rules, their pool says.
fn read_rules(rules: &[AnnounceRule]) -> Vec<Rule> {
    rules.iter().filter_map(|it| it.to_rule().ok()).collect()
}

/// The pools in a `ConfigMap`.
fn in_file(file: &ConfigMap, key: &str, dialect: Dialect) -> Vec<Pool> {
    match config_map::parse(file, key, dialect) {
        Ok(declarations) => declarations.pools.iter().map(as_declared).collect(),
        Err(why) => {
            let name = format!(
                "in ConfigMap {}/{}",
                file.namespace().unwrap_or_default(),
                file.name_any()
            );
            vec![Pool { name, unready: Some(why.to_string()), ..Pool::default() }]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use arpeggio_ipam::AddressRange;

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
    fn pools_of_metallb_are_judged_as_ours() {
        let read = |kind: &str, name: &str, spec: serde_json::Value| {
            json!({ "apiVersion": "metallb.io/v1beta1", "kind": kind, "spec": spec,
                    "metadata": { "namespace": "lb", "name": name } })
        };
        let pool = |name, addresses: &str| -> IPAddressPool {
            let spec = json!({ "addresses": [addresses] });
            serde_json::from_value(read("IPAddressPool", name, spec)).unwrap()
        };
        let of_lan: L2Advertisement = serde_json::from_value(read(
            "L2Advertisement",
            "lan",
            json!({ "ipAddressPools": ["lan"], "interfaces": ["eth1"] }),
        ))
        .unwrap();
        let pools = [
            pool("lan", "192.168.0.240/28"),
            pool("dark", "192.168.0.200/32"),
            pool("bad", "192.168.0.1-"),
        ];
        let [lan, dark, bad] = &declared(&pools, &[], &[of_lan])[..] else { panic!("three") };
        assert_eq!(lan.name, "lan (IPAddressPool lb/lan)");
        assert_eq!((lan.ranges.len(), &lan.unready), (1, &None));
        assert_eq!(lan.rules[0].interfaces, ["eth1".into()]);
        assert!(dark.unready.as_ref().unwrap().contains("no L2Advertisement selects it"));
        assert!(bad.unready.is_some() && bad.ranges.is_empty());
    }

    #[test]
    fn a_pool_that_cannot_be_decoded_is_judged_by_its_name() {
        let pool = |name: &str, sharing: &str| -> Guarded<AddressPool> {
            let spec = json!({ "addresses": ["192.168.0.240/28"], "sharing": sharing });
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
        };
        let good = judged(pool("good", "Cluster"));
        assert_eq!((good.ranges.len(), good.unready), (1, None));
        let newer = judged(pool("newer", "Team"));
        assert_eq!((newer.name.as_str(), newer.ranges.len()), ("newer", 0));
        let why = newer.unready.unwrap();
        let begin = "this release does not understand it: ";
        assert!(why.starts_with(begin) && why.contains("Team"), "{why}");
    }

    #[test]
    fn what_a_config_map_says_is_read() {
        let text = "address-pools: [{name: lan, protocol: layer2, addresses: [192.168.0.241/28]}]";
        let file = |text: &str| -> ConfigMap {
            let metadata = json!({ "namespace": "lb", "name": "config" });
            serde_json::from_value(json!({ "metadata": metadata, "data": { "config": text } }))
                .unwrap()
        };
        let pools = in_file(&file(text), "config", Dialect::MetalLb);
        assert_eq!(pools[0].ranges, ["192.168.0.240/28".parse::<AddressRange>().unwrap()]);
        assert_eq!(pools[0].name, "lan (ConfigMap lb/config, line 1)");
        assert_eq!(pools[0].plain_name, "lan", "as locks have it");
        assert!(!pools[0].avoid_buggy_ips);
        let avoiding = text.replace("}]", ", avoid-buggy-ips: true}]");
        assert!(in_file(&file(&avoiding), "config", Dialect::MetalLb)[0].avoid_buggy_ips);
        let broken = in_file(&file("["), "config", Dialect::Ours);
        assert!(broken[0].unready.is_some(), "{broken:?}");
    }

    #[test]
    fn what_is_left_out_counts_for_nothing() {
        let left = |addresses: &[&str], excluded: &[&str]| {
            let spec = json!({ "addresses": addresses, "excludedAddresses": excluded });
            let pool = judged(
                serde_json::from_value(json!({ "metadata": { "name": "lan" }, "spec": spec }))
                    .unwrap(),
            );
            pool.ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            left(&["192.168.0.1", "192.168.0.240/31"], &["192.168.0.0/28"]),
            ["192.168.0.240-192.168.0.241"]
        );
        assert_eq!(
            left(&["192.168.0.0/24"], &["192.168.0.0-192.168.0.199", "192.168.0.210"]),
            ["192.168.0.200-192.168.0.209", "192.168.0.211-192.168.0.255"]
        );
    }
}
