//! An object that may not be what its kind says.

use std::borrow::Cow;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Resource,
    api::{ObjectMeta, PartialObjectMeta},
    core::error_boundary::InvalidObject,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, value::RawValue};

/// An object, or why it cannot be decoded and what it is called.
///
/// What [`kube::core::DeserializeGuard`] is, for less time: it reads the text into the object at once, and takes the long
/// way of a tree of values only with what it does not understand. Other than it, it reads JSON only.
///
/// Anybody may write a condition on somebody else's object, and the API server does not look at its times. One that is not there,
/// or of no year that we know, costs nobody the object: it counts as Go's zero time.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(text.get()) {
            Ok(object) => Ok(Self(Ok(object))),
            Err(_) => second_look(&text).map(Self).map_err(D::Error::custom),
        }
    }
}

/// The reason without a place in the text: that is another one with each version of the object.
fn second_look<K: DeserializeOwned + Resource>(
    text: &RawValue,
) -> serde_json::Result<Result<K, InvalidObject>> {
    let mut tree: Value = serde_json::from_str(text.get())?;
    mend_times(&mut tree);
    match serde_json::from_value(tree) {
        Ok(object) => Ok(Ok(object)),
        Err(why) => {
            let named: PartialObjectMeta<K> = serde_json::from_str(text.get())?;
            Ok(Err(InvalidObject { error: why.to_string(), metadata: named.metadata }))
        }
    }
}

/// What Go takes for no time at all, and writes as `null` where a time is needed (`metav1.Time`).
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Puts [`NO_TIME`] where a time belongs, by its name, and none stands that can be understood: `null`, or the last day of the
/// year 9999, which Go still knows.
fn mend_times(tree: &mut Value) {
    match tree {
        Value::Array(values) => values.iter_mut().for_each(mend_times),
        Value::Object(fields) => {
            for (name, value) in fields {
                if name.ends_with("Time") && !is_time(value) {
                    *value = NO_TIME.into();
                }
                mend_times(value);
            }
        }
        _ => {}
    }
}

/// Whether it can stay. What is neither text nor `null` is no time that somebody wrote: it is to be told as wrong.
fn is_time(value: &Value) -> bool {
    match value {
        Value::String(text) => text.parse::<Timestamp>().is_ok(),
        value => !value.is_null(),
    }
}

impl<K> Guarded<K> {
    /// The object.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn understood(self) -> Result<K, Box<InvalidObject>> {
        self.0.map_err(Box::new)
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &K::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &K::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &K::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &K::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    const GOOD: &str =
        r#"{"kind":"ConfigMap","metadata":{"name":"a","namespace":"x"},"data":{"k":"v"}}"#;
    const BAD: &str = r#"{"kind":"ConfigMap","metadata":{"name":"b","uid":"7"},"data":{"k":[1]}}"#;

    #[test]
    fn one_bad_object_does_not_spoil_a_list() {
        let list = format!(r#"{{"kind":"ConfigMapList","metadata":{{}},"items":[{GOOD},{BAD}]}}"#);
        let list: ObjectList<Guarded<ConfigMap>> = serde_json::from_str(&list).unwrap();
        let [good, bad] = &list.items[..] else { panic!("{list:?}") };
        assert_eq!(good.0.as_ref().unwrap().data.as_ref().unwrap()["k"], "v");
        assert_eq!(
            (good.meta().name.as_deref(), bad.meta().uid.as_deref()),
            (Some("a"), Some("7"))
        );
    }

    #[test]
    fn what_is_wrong_is_told_without_a_place() {
        for space in ["", " ", "\n"] {
            let event = format!(r#"{{"type":"MODIFIED","object":{space}{BAD}}}"#);
            let event: WatchEvent<Guarded<ConfigMap>> = serde_json::from_str(&event).unwrap();
            let WatchEvent::Modified(object) = event else { panic!("{event:?}") };
            let invalid = object.0.unwrap_err();
            assert_eq!(invalid.error, "invalid type: sequence, expected a string");
            assert_eq!(invalid.metadata.uid.as_deref(), Some("7"));
        }
    }

    #[test]
    fn what_has_no_name_is_no_object() {
        assert!(serde_json::from_str::<Guarded<ConfigMap>>(r#"{"metadata":7}"#).is_err());
        assert!(serde_json::from_str::<Guarded<ConfigMap>>("7").is_err());
    }
}
