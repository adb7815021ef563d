//! An object of `MetalLB`'s that decodes whatever its spec says, so that one mistake is told of by the object's name and
//! keeps no other object from being read.

use std::{borrow::Cow, fmt::Debug};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The spec of one of `MetalLB`'s kinds. A spec that says nothing is the default.
pub trait Kind: Debug + Clone + Default + PartialEq + DeserializeOwned + Send + Sync {
    /// The kind.
    const KIND: &'static str;
    /// The kind in addresses of the API.
    const PLURAL: &'static str;
    /// The version in which it is read.
    const VERSION: &'static str = "v1beta1";
    /// The fields that a spec of this kind has.
    const FIELDS: &'static [&'static str];
}

/// An object of this kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Object<S: Kind> {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its spec. Absent means the same as empty.
    #[serde(default, bound(deserialize = ""))]
    pub spec: Written<S>,
}

/// A spec as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<S> {
    /// What it says.
    ///
    /// # Errors
    /// The field that is not what it should be, and why.
    pub meaning: Result<S, String>,
    /// Its fields that the kind does not have.
    pub unknown: Vec<String>,
}

impl<S: Kind> Object<S> {
    /// An object with this name and spec, for tests and drafts.
    #[must_use]
    pub fn new(name: &str, spec: S) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { metadata, spec: spec.into() }
    }
}

impl<S> From<S> for Written<S> {
    fn from(spec: S) -> Self {
        Self { meaning: Ok(spec), unknown: Vec::new() }
    }
}

impl<S: Default> Default for Written<S> {
    fn default() -> Self {
        Self::from(S::default())
    }
}

impl<'de, S: Kind> Deserialize<'de> for Written<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::read)
    }
}

impl<S: Kind> Written<S> {
    /// A field that is null counts as absent, as with `MetalLB`. An item of a list that is null does not: where the list is
    /// of those who may have the pool, it would be for everybody without it.
    fn read(mut value: Value) -> Self {
        drop_nulls(&mut value);
        let unknown = match &value {
            Value::Null => return Self::default(),
            Value::Object(fields) => {
                fields.keys().filter(|it| !S::FIELDS.contains(&it.as_str())).cloned().collect()
            }
            _ => Vec::new(),
        };
        let meaning = S::deserialize(&value).map_err(|error| wrong_field::<S>(&value, &error));
        Self { meaning, unknown }
    }
}

/// Which field it is that does not decode.
fn wrong_field<S: Kind>(spec: &Value, error: &serde_json::Error) -> String {
    let alone = |(key, value): (&String, &Value)| {
        let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
        S::deserialize(alone).err().map(|error| format!("spec.{key}: {error}"))
    };
    let found = spec.as_object().and_then(|fields| fields.iter().find_map(alone));
    found.unwrap_or_else(|| format!("spec: {error}"))
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl<S: Kind> Resource for Object<S> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        S::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "metallb.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        S::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        S::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
