//! Every pool that there is, in whatever format it was declared.

use anyhow::Context as _;
use arpeggio_api::{
    address_pool::AddressPool,
    config_map::{self, Dialect},
    declaration::Declaration,
    metallb::{Advertisement, IPAddressPool, L2Advertisement, LegacyPool},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;

/// Where the controller looks for pools that are not `AddressPool`s; the same arguments and defaults as its own.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
pub(super) struct PlacesArgs {
    /// The ConfigMap with pools, in Arpeggio's namespace.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP", default_value = "arpeggio", value_name = "NAME")]
    config_map: String,
    /// The key of its value with pools.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP_KEY", default_value = "config", value_name = "KEY")]
    config_map_key: String,
    /// Where the controller reads MetalLB's pools, if it was told to.
    #[arg(long, env = "ARPEGGIO_METALLB_NAMESPACE", value_name = "NAME")]
    metallb_namespace: Option<String>,
    /// The name of MetalLB's ConfigMap there.
    #[arg(
        long,
        env = "ARPEGGIO_METALLB_CONFIG_MAP",
        default_value = "config",
        value_name = "NAME"
    )]
    metallb_config_map: String,
}

/// Reads them all, the oldest first: where two have an address in common, the older one is used.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    places: &PlacesArgs,
) -> anyhow::Result<Vec<Declaration>> {
    let key = places.config_map_key.as_str();
    let own: Vec<AddressPool> = listed(Api::all(client.clone())).await?;
    let mut pools: Vec<Declaration> = own.iter().map(Declaration::from).collect();
    pools.extend(of_config_map(client, namespace, &places.config_map, key, Dialect::Ours).await?);
    if let Some(metallb) = places.metallb_namespace.as_deref().filter(|name| !name.is_empty()) {
        pools.extend(of_metallb(client, metallb, places).await?);
    }
    pools.sort_by(|one, other| {
        let age = |pool: &Declaration| pool.created.as_ref().map(|time| time.0);
        age(one).cmp(&age(other)).then_with(|| one.origin.cmp(&other.origin))
    });
    Ok(pools)
}

async fn of_config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    dialect: Dialect,
) -> anyhow::Result<Vec<Declaration>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let what = || format!("cannot read ConfigMap {namespace}/{name}");
    let Some(object) = api.get_opt(name).await.with_context(what)? else { return Ok(Vec::new()) };
    Ok(config_map::parse(&object, key, dialect).with_context(what)?.pools)
}

/// MetalLB's objects; its `ConfigMap` where there are none.
async fn of_metallb(
    client: &Client,
    namespace: &str,
    places: &PlacesArgs,
) -> anyhow::Result<Vec<Declaration>> {
    let pools: Vec<IPAddressPool> = listed(Api::namespaced(client.clone(), namespace)).await?;
    let legacy: Vec<LegacyPool> = listed(Api::namespaced(client.clone(), namespace)).await?;
    if pools.is_empty() && legacy.is_empty() {
        let (name, key) = (&places.metallb_config_map, &places.config_map_key);
        return of_config_map(client, namespace, name, key, Dialect::MetalLb).await;
    }
    let objects: Vec<L2Advertisement> = listed(Api::namespaced(client.clone(), namespace)).await?;
    let advertisements: Vec<Advertisement> =
        objects.iter().filter_map(|it| Advertisement::parse(it).ok()).collect();
    let all_known = advertisements.len() == objects.len();
    let pools = pools.iter().map(|pool| pool.declare(&advertisements, all_known).0);
    Ok(pools.chain(legacy.iter().map(|pool| pool.declare().0)).collect())
}

/// All objects of a kind; none where the kind itself is not known.
async fn listed<K>(api: Api<K>) -> anyhow::Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Resource<DynamicType = ()>,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", K::plural(&()))),
    }
}
