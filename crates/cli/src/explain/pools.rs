//! Every pool that there is, in whatever format it was declared.

use std::collections::BTreeSet;

use arpeggio_allocation::{
    Declarer, Index, Records, Unlisted, Watched,
    sources::{MetalLb, PoolFile},
};
use arpeggio_api::{
    address_pool::AddressPool,
    config_map::Dialect,
    last_good,
    metallb::{IPAddressPool, L2Advertisement, LegacyPool},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace},
};
use kube::{Resource, api::ListParams};

use super::given;
use crate::{
    gaps::Gap,
    installed::{Duties, METALLB_CONFIG_MAP},
    reader::Reader,
};

/// Where the controller looks for pools that are not `AddressPool`s; the same arguments as its own.
#[derive(Debug, Clone, clap::Args)]
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
pub(super) struct PlacesArgs {
    /// The ConfigMap with pools, in Arpeggio's namespace. Default: what the controller's Deployment says, if you may read
    /// it, else arpeggio.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP", value_name = "NAME")]
    config_map: Option<String>,
    /// The key of its value with pools. Default: what the controller's Deployment says, if you may read it, else config.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP_KEY", value_name = "KEY")]
    config_map_key: Option<String>,
    /// Where the controller reads MetalLB's pools. Default: what its Deployment says, if you may read it.
    #[arg(long, env = "ARPEGGIO_METALLB_NAMESPACE", value_name = "NAME")]
    metallb_namespace: Option<String>,
    /// The name of MetalLB's ConfigMap there. Default: what the controller's Deployment says, if you may read it, else
    /// config.
    #[arg(long, env = "ARPEGGIO_METALLB_CONFIG_MAP", value_name = "NAME")]
    metallb_config_map: Option<String>,
}

impl PlacesArgs {
    /// Where pools are, as these have it and, where they say nothing, as the controller was told.
    pub(super) fn over(&self, told: Duties) -> Duties {
        let (namespace, config_map) = told.metallb.unzip();
        let namespace = given(self.metallb_namespace.as_ref()).or(namespace);
        let config_map = given(self.metallb_config_map.as_ref()).or(config_map);
        let config_map = config_map.unwrap_or_else(|| METALLB_CONFIG_MAP.to_owned());
        Duties {
            config_map: given(self.config_map.as_ref()).unwrap_or(told.config_map),
            key: given(self.config_map_key.as_ref()).unwrap_or(told.key),
            metallb: namespace.map(|namespace| (namespace, config_map)),
            ..told
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
    /// The uids of those of which that is known.
    pub(super) left_out: BTreeSet<String>,
    /// What the API server does not list at all.
    pub(super) unlisted: BTreeSet<Unlisted>,
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
    pub(super) async fn read(reader: &mut Reader, namespace: &str, duties: &Duties) -> Self {
        let before = reader.gaps.len();
        let metallb = duties.metallb.as_ref();
        let pools = Self {
            own: reader.all().await,
            key: duties.key.clone(),
            file: reader.inside(namespace, &named(&duties.config_map)).await,
            metallb: match metallb {
                Some((namespace, file)) => MetalLbObjects::read(reader, namespace, file).await,
                None => MetalLbObjects::default(),
            },
            metallb_namespace: metallb.map(|(namespace, _)| namespace.clone()),
            records: reader
                .inside(namespace, &ListParams::default().labels(last_good::SELECTOR))
                .await,
            ..Self::default()
        };
        let gaps = &reader.gaps[before..];
        Self {
            incomplete: !gaps.is_empty(),
            left_out: gaps.iter().filter_map(Gap::left_out).map(str::to_owned).collect(),
            unlisted: unlisted(reader, namespace, duties),
            ..pools
        }
    }

    /// Tells the index of all of them.
    pub(super) fn tell(&self, index: &mut Index) {
        index.set_undecodable_pools(self.incomplete);
        index.set_left_out(self.left_out.clone());
        index.set_unlisted(self.unlisted.clone());
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
        let advertisements = Unlisted::all::<L2Advertisement>();
        metallb.set_advertisements_unlisted(self.unlisted.contains(&advertisements));
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
    async fn read(reader: &mut Reader, namespace: &str, file: &str) -> Self {
        let all = ListParams::default();
        let objects = Self {
            file: reader.inside(namespace, &named(file)).await,
            pools: reader.inside(namespace, &all).await,
            legacy_pools: reader.legacy_pools(Some(namespace)).await,
            advertisements: reader.inside(namespace, &all).await,
        };
        reader.excuse::<IPAddressPool>(Some(namespace));
        reader.excuse::<L2Advertisement>(Some(namespace));
        objects
    }
}

/// Which of these the controller does not see either: it goes on with what it has kept of them.
fn unlisted(reader: &Reader, namespace: &str, duties: &Duties) -> BTreeSet<Unlisted> {
    let file = |namespace: &str, name: &str| {
        let failed = reader.has_failed::<ConfigMap>(Some(namespace));
        failed.then(|| Unlisted::one::<ConfigMap>(namespace, name))
    };
    let of_metallb = |(metallb, config_map): &(String, String)| {
        [
            file(metallb, config_map),
            failed::<IPAddressPool>(reader, Some(metallb)),
            failed::<LegacyPool>(reader, Some(metallb)),
            failed::<L2Advertisement>(reader, Some(metallb)),
        ]
    };
    let own = [
        failed::<AddressPool>(reader, None),
        failed::<Namespace>(reader, None),
        file(namespace, &duties.config_map),
    ];
    own.into_iter().chain(duties.metallb.iter().flat_map(of_metallb)).flatten().collect()
}

fn failed<K: Resource<DynamicType = ()>>(
    reader: &Reader,
    namespace: Option<&str>,
) -> Option<Unlisted> {
    reader.has_failed::<K>(namespace).then(Unlisted::all::<K>)
}

/// The object of this name, if there is one.
fn named(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

#[cfg(test)]
mod tests {
    use arpeggio_allocation::Periods;
    use arpeggio_api::{declaration::Declaration, last_good::LastGood};
    use http::{Request, Response};
    use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Time};
    use kube::{Client, client::Body};
    use serde_json::{Value, json};

    use super::*;

    fn pool(spec: &Value) -> Value {
        json!({
            "apiVersion": "arpeggio.dev/v1alpha1", "kind": "AddressPool", "spec": spec,
            "metadata": { "name": "home", "uid": "p1", "generation": 3 },
        })
    }

    /// An API server that answers like this where `AddressPool`s are asked for, and shows what is kept of one.
    fn server(code: u16, pools: Value) -> Client {
        let good: AddressPool =
            serde_json::from_value(pool(&json!({ "addresses": ["192.168.0.240"] }))).unwrap();
        let good = Declaration::from(&good);
        let kept = LastGood { object: good.object.clone(), pools: vec![good], advertisement: None };
        let kept = last_good::lease("p1", &kept.to_text());
        let list = |items: Vec<Value>| json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items });
        let answer = move |request: Request<Body>| {
            let path = request.uri().path();
            let (code, body) = if path.ends_with("/addresspools") {
                (code, pools.clone())
            } else if path.ends_with("/leases") {
                (200, list(vec![serde_json::to_value(&kept).unwrap()]))
            } else {
                (200, list(Vec::new()))
            };
            async move {
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn pools_that_cannot_be_listed_or_decoded_are_used_as_the_controller_keeps_them() {
        let failure =
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500 });
        let list = |item: Value| {
            json!({
                "kind": "AddressPoolList", "apiVersion": "arpeggio.dev/v1alpha1", "metadata": {},
                "items": [item],
            })
        };
        let undecodable = list(pool(&json!({ "addresses": 7 })));
        let none = json!({
            "kind": "AddressPoolList", "apiVersion": "arpeggio.dev/v1alpha1", "metadata": {}, "items": [],
        });
        for (code, answer, gets) in
            [(500, failure, true), (200, undecodable, true), (200, none, false)]
        {
            let mut reader = Reader::new(server(code, answer.clone()));
            let pools = Pools::read(&mut reader, "arpeggio-system", &Duties::default()).await;
            let mut index = Index::new(None, Periods::default());
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" },
            });
            index.reset(vec![
                serde_json::from_value::<kube::core::PartialObjectMeta<Namespace>>(namespace)
                    .unwrap(),
            ]);
            pools.tell(&mut index);
            index.reset(Vec::<Lease>::new());
            let service: Service = serde_json::from_value(json!({
                "metadata": { "namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "5" },
                "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"] },
            }))
            .unwrap();
            index.reset(vec![service.clone()]);
            let now = "2026-01-01T00:00:00Z".parse().map(Time).unwrap();
            let advice = index.advice(&arpeggio_api::service::reference(&service), &now);
            let told = advice.iter().map(ToString::to_string).collect::<String>();
            let expected = "it would get 192.168.0.240 from pool \"home\"";
            assert_eq!(told.starts_with(expected), gets, "{answer}: {told}");
        }
    }
}
