//! Label selectors, as users write them.
//!
//! They are those of Kubernetes (`LabelSelector`, apimachinery `meta/v1`), with bounds, so that the API server can check
//! them by schema and rules.

use std::collections::BTreeMap;

use arpeggio_ipam::PoolError;
use arpeggio_labels::{Selector, SelectorError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an object's labels must fulfil, all of it. An empty selector selects everything.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that the object must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,

    /// What must be true of its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,
}

/// What must be true of one label.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
    "message": "In and NotIn need values, Exists and DoesNotExist take none",
}]))]
pub struct LabelExpression {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,

    /// `In`: it has one of the values. `NotIn`: it has none of them, or is absent. `Exists`: it is there.
    /// `DoesNotExist`: it is absent.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,

    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// The selector that this text means.
    ///
    /// # Errors
    /// The first requirement that is not one.
    pub fn parse(&self) -> Result<Selector, SelectorError> {
        let labels = self
            .match_labels
            .iter()
            .try_fold(Selector::default(), |all, (key, value)| all.with_label(key, value))?;
        self.match_expressions.iter().try_fold(labels, |all, it| {
            all.with_expression(&it.key, &it.operator, it.values.iter().map(String::as_str))
        })
    }
}

impl From<&Selector> for LabelSelector {
    fn from(selector: &Selector) -> Self {
        let expression = |(key, operator, values): (&str, &str, Vec<&str>)| LabelExpression {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: values.into_iter().map(str::to_owned).collect(),
        };
        let match_expressions = selector.requirements().map(expression).collect();
        Self { match_labels: BTreeMap::new(), match_expressions }
    }
}

/// The selectors of the list that stands at `field`.
///
/// # Errors
/// The first one that is not one, with its place.
pub fn parse_all<'a>(
    field: &str,
    selectors: impl IntoIterator<Item = &'a LabelSelector>,
) -> Result<Vec<Selector>, PoolError> {
    let one = |(position, selector): (usize, &LabelSelector)| {
        let at = |error| PoolError::Selector { field: format!("{field}[{position}]"), error };
        selector.parse().map_err(at)
    };
    selectors.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_and_expressions_all_count() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": { "app": "web" },
            "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["test"] }],
        }))
        .unwrap();
        let selects = |labels: serde_json::Value| {
            selector.parse().unwrap().matches(&serde_json::from_value(labels).unwrap())
        };
        assert!(selects(json!({ "app": "web" })));
        assert!(!selects(json!({ "app": "web", "tier": "test" })));
        assert!(!selects(json!({ "tier": "live" })));
    }
}
