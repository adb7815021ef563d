//! Pools in `MetalLB`'s formats where nobody reads them: in another namespace than the one that was named, or in a
//! `ConfigMap` of another name. The controller may not look there; whoever asks may.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::{
    config_map::{self, Dialect},
    metallb::{IPAddressPool, Kind, L2Advertisement, Object},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt as _, api::ListParams};

use crate::{
    installed::{Duties, METALLB_CONFIG_MAP},
    reader::Reader,
};

/// The names that `MetalLB`'s releases and charts gave their `ConfigMap`.
const CONFIG_MAPS: [&str; 3] = ["config", "metallb-config", "metallb"];

/// How many objects of one namespace are named.
const NAMED: usize = 5;

/// Where `MetalLB`'s objects are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The namespace; `None`: nowhere.
    pub(super) namespace: Option<String>,
    /// The name of its `ConfigMap`.
    pub(super) config_map: String,
    /// The key of its value with pools.
    pub(super) key: String,
}

impl Read {
    /// As the controller reads them.
    pub(super) fn of(duties: &Duties) -> Self {
        let (namespace, config_map) = duties.metallb.clone().unzip();
        let config_map = config_map.unwrap_or_else(|| METALLB_CONFIG_MAP.to_owned());
        Self { namespace, config_map, key: duties.key.clone() }
    }
}

/// What is not read, by namespace: kinds and names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Strays {
    read: Read,
    by_namespace: BTreeMap<String, Vec<String>>,
}

impl Strays {
    /// Looks for them in all namespaces.
    pub(super) async fn find(reader: &mut Reader, read: Read) -> Self {
        let mut strays = Self { read, ..Self::default() };
        let all = ListParams::default();
        strays.add_objects(&reader.everywhere::<IPAddressPool>(&all).await);
        strays.add_objects(&reader.legacy_pools(None).await);
        strays.add_objects(&reader.everywhere::<L2Advertisement>(&all).await);
        let names: BTreeSet<String> = CONFIG_MAPS
            .map(str::to_owned)
            .into_iter()
            .chain([strays.read.config_map.clone()])
            .collect();
        for name in names {
            let params = ListParams::default().fields(&format!("metadata.name={name}"));
            strays.add_files(&reader.everywhere(&params).await);
        }
        reader.excuse::<IPAddressPool>(None);
        reader.excuse::<L2Advertisement>(None);
        strays
    }

    fn add_objects<S: Kind>(&mut self, objects: &[Object<S>]) {
        for object in objects {
            if object.namespace() != self.read.namespace {
                self.add(object, S::KIND);
            }
        }
    }

    fn add_files(&mut self, files: &[ConfigMap]) {
        for file in files {
            let namespace = file.namespace();
            let is_read =
                namespace == self.read.namespace && file.name_any() == self.read.config_map;
            let found = config_map::parse(file, &self.read.key, Dialect::MetalLb);
            if !is_read && found.is_ok_and(|found| !found.pools.is_empty()) {
                self.add(file, "ConfigMap");
            }
        }
    }

    fn add(&mut self, object: &impl Resource, kind: &str) {
        let name = object.meta().name.as_deref().unwrap_or_default();
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        self.by_namespace.entry(namespace).or_default().push(format!("{kind} {name}"));
    }

    /// What there is and what to do, a line each.
    pub(super) fn told(&self) -> Vec<String> {
        let line = |(namespace, objects): (&String, &Vec<String>)| {
            let mut named = objects.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if objects.len() > NAMED {
                named = format!("{named} and {} more", objects.len() - NAMED);
            }
            format!("in namespace {namespace}: {named}")
        };
        let mut lines: Vec<String> = self.by_namespace.iter().map(line).collect();
        if !lines.is_empty() {
            lines.push(self.advice());
        }
        lines
    }

    fn advice(&self) -> String {
        match &self.read.namespace {
            Some(namespace) => format!(
                "MetalLB's objects are read in namespace {namespace} only, and its ConfigMap by the name {} (--metallb-namespace and \
                 --metallb-config-map, of the controller as of this command): move them there, or name their place in both files of \
                 manifests/components/metallb",
                self.read.config_map
            ),
            None => "a controller reads them only where it was told to (manifests/components/metallb), and this command \
                     does with --metallb-namespace"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<K: serde::de::DeserializeOwned>(namespace: &str, name: &str, rest: &Value) -> K {
        let mut object = json!({ "metadata": { "namespace": namespace, "name": name } });
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    fn strays(read: Option<&str>) -> Strays {
        let read = Read {
            namespace: read.map(str::to_owned),
            config_map: "config".to_owned(),
            key: "config".to_owned(),
        };
        Strays { read, ..Strays::default() }
    }

    fn pool(namespace: &str, name: &str) -> IPAddressPool {
        object(namespace, name, &json!({ "spec": { "addresses": ["10.0.0.0/24"] } }))
    }

    fn file(namespace: &str, name: &str, text: &str) -> ConfigMap {
        object(namespace, name, &json!({ "data": { "config": text } }))
    }

    const POOLS: &str = "address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/24]}]";

    #[test]
    fn what_is_read_elsewhere_is_named_with_its_namespace() {
        let mut found = strays(Some("metallb-system"));
        found.add_objects(&[pool("metallb-system", "read"), pool("lb", "lan")]);
        found.add_objects(&[object::<L2Advertisement>("lb", "l2", &json!({}))]);
        let told = found.told();
        assert_eq!(told[0], "in namespace lb: IPAddressPool lan, L2Advertisement l2");
        assert!(told[1].contains("read in namespace metallb-system only"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn of_config_maps_only_those_with_pools_count_and_that_of_the_right_name_does_not() {
        let mut found = strays(Some("metallb-system"));
        found.add_files(&[
            file("metallb-system", "config", POOLS),
            file("metallb-system", "metallb-config", POOLS),
            file("shop", "config", "debug: true"),
            file("blog", "config", "{"),
        ]);
        assert_eq!(found.told()[0], "in namespace metallb-system: ConfigMap metallb-config");
        assert_eq!(found.told().len(), 2);
    }

    #[test]
    fn where_nothing_is_read_everything_is_named_up_to_a_bound() {
        let mut found = strays(None);
        let pools: Vec<_> = (0..7).map(|number| pool("lb", &format!("p{number}"))).collect();
        found.add_objects(&pools);
        let told = found.told();
        assert!(told[0].ends_with("IPAddressPool p4 and 2 more"), "{told:?}");
        assert!(told[1].contains("with --metallb-namespace"), "{told:?}");
        assert_eq!(strays(None).told(), [""; 0]);
    }
}
