//! Kubernetes objects of a rendered file.

use std::collections::BTreeMap;

use serde_json::Value;

/// By kind and name, as `DaemonSet/arpeggio-speaker`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects(pub(crate) BTreeMap<String, Value>);

impl Objects {
    /// Of a file with one YAML document for each.
    pub(crate) fn parse(yaml: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
        let named = documents.into_iter().filter(Value::is_object).map(|object| {
            let text =
                |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
            (format!("{}/{}", text("/kind"), text("/metadata/name")), object)
        });
        Self(named.collect())
    }

    pub(crate) fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.0.keys()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of an object's first container's environment.
    pub(crate) fn environment(&self, name: &str) -> BTreeMap<&str, &str> {
        self.environment_of(name, 0)
    }

    /// The same of another container.
    pub(crate) fn environment_of(&self, name: &str, container: usize) -> BTreeMap<&str, &str> {
        let container = &self.get(name)["spec"]["template"]["spec"]["containers"][container];
        let entries = container["env"].as_array().into_iter().flatten();
        entries.filter_map(|it| Some((it["name"].as_str()?, it["value"].as_str()?))).collect()
    }
}
