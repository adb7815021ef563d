//! Every pool that there is, in whatever format it was declared.

use arpeggio_allocation::{
    Declarer, Index, Records, Watched,
    sources::{MetalLb, PoolFile},
};
use arpeggio_api::{
    address_pool::AddressPool,
    config_map::Dialect,
    last_good,
    metallb::{IPAddressPool, L2Advertisement, LegacyPool},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::api::ListParams;

use super::strays::Read;
use crate::reader::Reader;

/// Where the controller looks for pools that are not `AddressPool`s; the same arguments and defaults as its own.
#[derive(Debug, Clone, clap::Args)]
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
pub(super) struct PlacesArgs {
    /// The ConfigMap with pools, in Arpeggio's namespace.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP", default_value = "arpeggio", value_name = "NAME")]
    config_map: String,
    /// The key of its value with pools.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP_KEY", default_value = "config", value_name = "KEY")]
    config_map_key: String,
    /// Where the controller reads MetalLB's pools. Default: what its Deployment says, if you may read it.
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

impl PlacesArgs {
    fn metallb(&self) -> Option<&str> {
        self.metallb_namespace.as_deref().filter(|name| !name.is_empty())
    }

    /// The same, where nobody has said where `MetalLB`'s objects are: in this namespace, and this `ConfigMap`.
    pub(super) fn or(mut self, metallb: Option<(String, String)>) -> Self {
        if let (None, Some((namespace, config_map))) = (self.metallb(), metallb) {
            (self.metallb_namespace, self.metallb_config_map) = (Some(namespace), config_map);
        }
        self
    }

    /// Where `MetalLB`'s objects are read.
    pub(super) fn read(&self) -> Read {
        Read {
            namespace: self.metallb().map(str::to_owned),
            config_map: self.metallb_config_map.clone(),
            key: self.config_map_key.clone(),
        }
    }
}

/// The objects that declare pools.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pub(super) own: Vec<AddressPool>,
    /// The key of a `ConfigMap`'s value with pools.
    pub(super) key: String,
    pub(super) file: Vec<ConfigMap>,
    pub(super) metallb: MetalLbObjects,
    /// What objects with pools said when they could last be used.
    pub(super) records: Vec<Lease>,
    /// The namespace in which the controller reads `MetalLB`'s objects, if in any.
    pub(super) metallb_namespace: Option<String>,
    /// Whether some could not be read.
    pub(super) incomplete: bool,
}

/// Those of `MetalLB`'s.
#[derive(Debug, Default)]
pub(super) struct MetalLbObjects {
    file: Vec<ConfigMap>,
    pools: Vec<IPAddressPool>,
    legacy_pools: Vec<LegacyPool>,
    advertisements: Vec<L2Advertisement>,
}

impl Pools {
    pub(super) async fn read(reader: &mut Reader, namespace: &str, places: &PlacesArgs) -> Self {
        let before = reader.gaps.len();
        let metallb = places.metallb();
        Self {
            own: reader.all().await,
            key: places.config_map_key.clone(),
            file: reader.inside(namespace, &named(&places.config_map)).await,
            metallb: match metallb {
                Some(metallb) => MetalLbObjects::read(reader, metallb, places).await,
                None => MetalLbObjects::default(),
            },
            metallb_namespace: metallb.map(str::to_owned),
            records: reader
                .inside(namespace, &ListParams::default().labels(last_good::SELECTOR))
                .await,
            incomplete: reader.gaps.len() > before,
        }
    }

    /// Tells the index of all of them.
    pub(super) fn tell(&self, index: &mut Index) {
        index.set_undecodable_pools(self.incomplete);
        index.reset(self.own.clone());
        if let Some(namespace) = &self.metallb_namespace {
            index.reads_metallb_in(namespace);
        }
        self.tell_file(index, Declarer::ConfigMap, Dialect::Ours, &self.file);
        self.tell_file(index, Declarer::MetalLbConfigMap, Dialect::MetalLb, &self.metallb.file);
        let mut metallb = MetalLb::default();
        metallb.reset(self.metallb.pools.clone());
        metallb.reset(self.metallb.legacy_pools.clone());
        metallb.reset(self.metallb.advertisements.clone());
        Records { index, metallb: &mut metallb }.reset(self.records.clone());
        metallb.tell(index);
    }

    fn tell_file(&self, index: &mut Index, by: Declarer, dialect: Dialect, file: &[ConfigMap]) {
        let mut pools = PoolFile::new(by, &self.key, dialect);
        pools.reset(file.to_vec());
        pools.tell(index);
    }
}

impl MetalLbObjects {
    /// The releases of `MetalLB` differ in which of these kinds they install.
    async fn read(reader: &mut Reader, namespace: &str, places: &PlacesArgs) -> Self {
        let all = ListParams::default();
        let objects = Self {
            file: reader.inside(namespace, &named(&places.metallb_config_map)).await,
            pools: reader.inside(namespace, &all).await,
            legacy_pools: reader.legacy_pools(Some(namespace)).await,
            advertisements: reader.inside(namespace, &all).await,
        };
        reader.excuse::<IPAddressPool>(Some(namespace));
        reader.excuse::<L2Advertisement>(Some(namespace));
        objects
    }
}

/// The object of this name, if there is one.
fn named(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}
