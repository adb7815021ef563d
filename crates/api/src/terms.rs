//! How an address is to be announced, as the controller writes it on the lock and the speakers read it.
//!
//! The controller has read the pool, whatever its format, and left out the rules that are for other Services. What is
//! written is short: nothing at all for an address that is announced everywhere and probed first.

use arpeggio_election::{Places, Preference, Rule, Terms};
use arpeggio_ipam::PoolError;
use serde::{Deserialize, Serialize};

use crate::{
    address_pool::{AnnounceRule, PreferredNodes},
    selector,
};

/// What stands on a lock, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenTerms {
    /// Absent: everywhere. Empty: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<AnnounceRule>>,
    /// Whether somebody else is looked for before the first use.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub probing: bool,
    /// Whether the traffic must not leave the node that announces (`externalTrafficPolicy: Local`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for WrittenTerms {
    fn default() -> Self {
        Self { rules: None, probing: true, local: false }
    }
}

impl WrittenTerms {
    /// The text of the lock's annotation; `None` when nothing needs to be said.
    pub fn to_text(&self) -> Option<String> {
        // A structure of texts and lists can always be written.
        (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads the text of the lock's annotation.
    ///
    /// # Errors
    /// When it is not what [`Self::to_text`] writes.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What speakers decide with.
    ///
    /// # Errors
    /// The first selector that is not one.
    pub fn to_terms(&self) -> Result<Terms, PoolError> {
        let Some(rules) = &self.rules else {
            return Ok(Terms { places: Places::Everywhere, probing: self.probing });
        };
        let rules: Result<Vec<Rule>, PoolError> = rules.iter().map(AnnounceRule::to_rule).collect();
        Ok(Terms { places: Places::ByRules(rules?), probing: self.probing })
    }
}

impl AnnounceRule {
    fn to_rule(&self) -> Result<Rule, PoolError> {
        let preference = |it: &PreferredNodes| {
            let nodes = it.preference.parse().map_err(|error| PoolError::Selector {
                field: "preferredNodes".to_owned(),
                error,
            })?;
            Ok(Preference { weight: u32::try_from(it.weight).unwrap_or_default(), nodes })
        };
        Ok(Rule {
            nodes: selector::parse_all("nodeSelectors", &self.node_selectors)?,
            preferences: self.preferred_nodes.iter().map(preference).collect::<Result<_, _>>()?,
            interfaces: self.interfaces.iter().map(|it| it.0.as_str().into()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_usual_needs_no_words() {
        assert_eq!(WrittenTerms::default().to_text(), None);
        let nowhere = WrittenTerms { rules: Some(Vec::new()), ..WrittenTerms::default() };
        assert_eq!(nowhere.to_text().unwrap(), r#"{"rules":[]}"#);
        let unprobed = WrittenTerms { probing: false, ..WrittenTerms::default() };
        assert_eq!(unprobed.to_text().unwrap(), r#"{"probing":false}"#);
    }

    #[test]
    fn what_is_written_is_read_back_and_understood() {
        let rules = json!([{
            "nodeSelectors": [{ "matchLabels": { "rack": "a" } }],
            "preferredNodes": [{ "weight": 7, "preference": { "matchLabels": { "fast": "yes" } } }],
            "interfaces": ["eth*"],
        }]);
        let rules = serde_json::from_value(rules).unwrap();
        let written = WrittenTerms { rules, probing: false, local: true };
        let read = WrittenTerms::from_text(&written.to_text().unwrap()).unwrap();
        assert_eq!(read, written);
        let terms = read.to_terms().unwrap();
        let Places::ByRules(rules) = terms.places else { panic!("{terms:?}") };
        assert!(rules[0].nodes[0].matches(&[("rack".into(), "a".into())].into()));
        assert_eq!(rules[0].preferences[0].weight, 7);
        assert!(rules[0].interfaces[0].matches("eth0"));
    }
}
