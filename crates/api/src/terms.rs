//! How an address is to be announced, as the controller writes it on the lock and the speakers read it.
//!
//! The controller has read the pool, whatever its format, and left out the rules that are for other Services. What is
//! written is short: nothing at all for an address that is announced everywhere and probed first.

use arpeggio_election::{AnnounceTerms, Places, Preference, Rule};
use arpeggio_ipam::PoolError;
use arpeggio_labels::{Labels, Selector};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    address_pool::{AnnounceRule, PreferredNodes, Spread, is_false, yes},
    selector,
};

/// What stands on a lock, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenAnnounceTerms {
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

/// Why what stands on a lock is not understood.
#[derive(Debug, thiserror::Error)]
pub enum TermsError {
    /// It is not JSON, or not of the right form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is more than what is understood of it.
    #[error("it has fields that are not known, or says what needs not be said")]
    More,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Default for WrittenAnnounceTerms {
    fn default() -> Self {
        Self { rules: None, probing: true, local: false }
    }
}

impl WrittenAnnounceTerms {
    /// What cannot be read allows nothing.
    pub fn nowhere() -> Self {
        Self { rules: Some(Vec::new()), ..Self::default() }
    }

    /// Whether nobody may announce the address.
    pub fn is_nowhere(&self) -> bool {
        self.rules.as_ref().is_some_and(Vec::is_empty)
    }

    /// The same places for these Services, of whose traffic is said here what they say.
    #[must_use]
    pub fn for_services(self, services: &[Announced<'_>]) -> Self {
        Self { local: are_local(services), ..self }
    }

    /// The text of the lock's annotation; `None` when nothing needs to be said.
    pub fn to_text(&self) -> Option<String> {
        // A structure of texts and lists can always be written.
        (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads the text of the lock's annotation.
    ///
    /// # Errors
    /// When it is not what [`Self::to_text`] writes. That counts to the last field: one that is not known, or is written
    /// in another way, may restrict what the others allow.
    pub fn from_text(text: &str) -> Result<Self, TermsError> {
        let value: Value = serde_json::from_str(text)?;
        let terms: Self = serde_json::from_value(value.clone())?;
        if serde_json::to_value(&terms)? == value { Ok(terms) } else { Err(TermsError::More) }
    }

    /// What speakers decide with.
    ///
    /// # Errors
    /// The first selector that is not one.
    pub fn to_terms(&self) -> Result<AnnounceTerms, PoolError> {
        let Some(rules) = &self.rules else {
            return Ok(AnnounceTerms { places: Places::Everywhere, probing: self.probing });
        };
        let rules: Result<Vec<Rule>, PoolError> = rules.iter().map(AnnounceRule::to_rule).collect();
        Ok(AnnounceTerms { places: Places::ByRules(rules?), probing: self.probing })
    }
}

/// Where addresses of a pool are announced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Announcement {
    /// On every node, on the interfaces whose subnet contains the address.
    #[default]
    Everywhere,
    /// Wherever one of these rules allows.
    ByRules(Vec<AnnounceRule>),
    /// Nowhere, as `MetalLB` has it for a pool that no advertisement selects.
    Nowhere,
    /// Nowhere, on purpose: a router has a route to them.
    Routed,
    /// As something says that cannot be read: what was written on locks before stays.
    Unknown,
}

impl Announcement {
    /// No rules mean no restriction.
    pub fn by(rules: Vec<AnnounceRule>) -> Self {
        if rules.is_empty() { Self::Everywhere } else { Self::ByRules(rules) }
    }
}

/// How addresses of one pool are announced, whichever Services have them.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `None`: everywhere.
    rules: Option<Vec<ServiceRule>>,
    probing: bool,
    lacks_advertisement: bool,
}

/// A Service, as far as announcing its address goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced<'a> {
    /// Its labels, which rules select.
    pub labels: &'a Labels,
    /// Whether its traffic must not leave the node that it comes to.
    pub is_local: bool,
    /// Which nodes are to serve it, when the Service says so itself.
    pub spread: Option<Spread>,
}

/// A rule, and the Services that it is for: those that one of these selects; all when there are none.
#[derive(Debug, Clone)]
struct ServiceRule {
    services: Vec<Selector>,
    spread: Spread,
    /// Without its own `serviceSelectors` and `spread`: speakers understand rules as a whole or not at all, and those of other
    /// releases do not know what does not concern announcing.
    rule: AnnounceRule,
}

impl Policy {
    /// The policy of a pool that is announced like this, where `probing` says whether somebody else is looked for before
    /// the first use.
    ///
    /// # Errors
    /// The first selector that is not one; or that nothing is known of the announcement.
    pub fn new(announcement: &Announcement, probing: bool) -> Result<Self, PoolError> {
        let rules = match announcement {
            Announcement::Everywhere => None,
            Announcement::Nowhere | Announcement::Routed => Some(Vec::new()),
            Announcement::Unknown => {
                return Err(PoolError::Format("where it is announced cannot be read".to_owned()));
            }
            Announcement::ByRules(rules) => {
                Some(rules.iter().map(ServiceRule::new).collect::<Result<_, _>>()?)
            }
        };
        let lacks_advertisement = *announcement == Announcement::Nowhere;
        Ok(Self { rules, probing, lacks_advertisement })
    }

    /// Whether nobody announces them, whatever the Service.
    pub fn is_nowhere(&self) -> bool {
        self.rules.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether nobody announces them only because nothing says where: what does may be on its way.
    pub fn lacks_advertisement(&self) -> bool {
        self.lacks_advertisement
    }

    /// What is written on the lock of an address that these Services have. A rule counts when it is for any of them.
    pub fn terms_for(&self, services: &[Announced<'_>]) -> WrittenAnnounceTerms {
        let (probing, local) = (self.probing, are_local(services));
        let Some(rules) = &self.rules else {
            return WrittenAnnounceTerms { rules: None, probing, local };
        };
        let mut written: Vec<AnnounceRule> = Vec::new();
        for ServiceRule { rule, .. } in rules.iter().filter(|rule| rule.is_for_any(services)) {
            // The weights of preferences add up; everything else says nothing new the second time.
            if !written.contains(rule) || !rule.preferred_nodes.is_empty() {
                written.push(rule.clone());
            }
        }
        let everywhere = [AnnounceRule::default()];
        WrittenAnnounceTerms { rules: (written != everywhere).then_some(written), probing, local }
    }

    /// Whether all nodes are to serve an address that these Services have: one of them says so, or says nothing of it and has
    /// a rule that does.
    pub fn spreads(&self, services: &[Announced<'_>]) -> bool {
        let spread = |it: &Announced<'_>| it.spread.unwrap_or_else(|| self.spread_of(it));
        services.iter().any(|service| spread(service) == Spread::Nodes)
    }

    /// Which nodes serve the Service, as the rules say. One that says `nodes` is not undone by another, as one that allows a
    /// node is not.
    fn spread_of(&self, service: &Announced<'_>) -> Spread {
        let mut rules = self.rules.iter().flatten();
        let spreads = |it: &ServiceRule| it.spread == Spread::Nodes && it.is_for_any(&[*service]);
        if rules.any(spreads) { Spread::Nodes } else { Spread::None }
    }
}

/// Whether the traffic of one of these Services must not leave the node that it comes to.
fn are_local(services: &[Announced<'_>]) -> bool {
    services.iter().any(|service| service.is_local)
}

/// Whether all nodes are to serve an address that these Services have, as far as they say so themselves: `None` where one of
/// them leaves it to the rules, and the others do not say that all are to.
pub fn said_to_spread(services: &[Announced<'_>]) -> Option<bool> {
    let spreads = services.iter().any(|service| service.spread == Some(Spread::Nodes));
    let all_say = services.iter().all(|service| service.spread.is_some());
    (spreads || all_say).then_some(spreads)
}

impl ServiceRule {
    fn new(rule: &AnnounceRule) -> Result<Self, PoolError> {
        let services = selector::parse_all("serviceSelectors", &rule.service_selectors)?;
        let spread = rule.spread;
        let rule =
            AnnounceRule { service_selectors: Vec::new(), spread: Spread::None, ..rule.clone() };
        Ok(Self { services, spread, rule })
    }

    fn is_for_any(&self, services: &[Announced<'_>]) -> bool {
        let selects =
            |service: &Announced<'_>| self.services.iter().any(|it| it.matches(service.labels));
        self.services.is_empty() || services.iter().any(selects)
    }
}

impl AnnounceRule {
    /// The rule as elections judge by it.
    ///
    /// # Errors
    /// When a selector of it cannot be read.
    pub fn to_rule(&self) -> Result<Rule, PoolError> {
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
    use serde_json::{Value, json};

    fn anywhere(labels: &Labels) -> Announced<'_> {
        Announced { labels, is_local: false, spread: None }
    }

    fn labels(app: &str) -> Labels {
        [("app".to_owned(), app.to_owned())].into()
    }

    /// What is written for a pool with these rules, as JSON, when these Services have the address.
    fn written(rules: &Value, services: &[&str]) -> Option<Value> {
        let rules = serde_json::from_value(rules.clone()).unwrap();
        let policy = Policy::new(&Announcement::ByRules(rules), true).unwrap();
        let labels: Vec<Labels> = services.iter().map(|app| labels(app)).collect();
        let terms = policy.terms_for(&labels.iter().map(anywhere).collect::<Vec<_>>());
        terms.to_text().map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn rules_count_that_are_for_any_of_the_services() {
        let for_a = json!([{ "matchLabels": { "app": "a" } }]);
        let rules = json!([
            { "interfaces": ["eth0"], "serviceSelectors": for_a },
            { "interfaces": ["eth1"], "serviceSelectors": [{ "matchLabels": { "app": "b" } }] },
        ]);
        let names = |services: &[&str]| {
            let terms = written(&rules, services).unwrap();
            let rules = terms["rules"].as_array().unwrap().clone();
            rules.iter().map(|rule| rule["interfaces"][0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["a"]), ["eth0"]);
        assert_eq!(names(&["c", "b"]), ["eth1"]);
        assert_eq!(names(&["a", "b"]), ["eth0", "eth1"]);
        assert_eq!(names(&["c"]), [""; 0], "nowhere");
        assert_eq!(names(&[]), [""; 0]);
    }

    #[test]
    fn a_rule_that_asks_nothing_says_nothing() {
        assert_eq!(written(&json!([{}]), &["a"]), None);
        let for_a = json!([{ "matchLabels": { "app": "a" } }]);
        assert_eq!(written(&json!([{ "serviceSelectors": for_a }, {}]), &["a"]), None);
        let both = written(&json!([{}, { "interfaces": ["eth1"] }]), &["a"]).unwrap();
        assert_eq!(both["rules"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_rule_that_is_there_twice_counts_twice_only_where_weights_add_up() {
        let count = |rule: &Value| {
            let terms = written(&json!([rule, rule]), &["a"]).unwrap();
            terms["rules"].as_array().unwrap().len()
        };
        assert_eq!(count(&json!({ "interfaces": ["eth0"] })), 1);
        assert_eq!(count(&json!({ "preferredNodes": [{ "weight": 7, "preference": {} }] })), 2);
    }

    #[test]
    fn what_a_service_says_of_spread_counts_more_than_the_rules_that_are_for_it() {
        let (none, nodes) = (Some(Spread::None), Some(Spread::Nodes));
        let for_a = json!([{ "matchLabels": { "app": "a" } }]);
        let all = json!([{ "spread": "nodes" }]);
        let some = json!([{}, { "spread": "nodes", "serviceSelectors": for_a }]);
        let table = [
            (json!([]), vec![("a", None)], false),
            (json!([]), vec![("a", nodes)], true),
            (json!([]), vec![("a", nodes), ("b", None)], true),
            (json!([]), vec![("a", nodes), ("b", none)], true),
            (all.clone(), vec![("a", None)], true),
            (all.clone(), vec![("a", none)], false),
            (all.clone(), vec![("a", none), ("b", none)], false),
            (all.clone(), vec![("a", none), ("b", None)], true),
            (all, vec![], false),
            (some.clone(), vec![("a", None)], true),
            (some.clone(), vec![("b", None)], false),
            (some.clone(), vec![("b", None), ("a", None)], true),
            (some, vec![("b", nodes)], true),
            (json!([{ "spread": "none" }]), vec![("a", None)], false),
        ];
        for (rules, services, expected) in table {
            let announcement = Announcement::by(serde_json::from_value(rules.clone()).unwrap());
            let policy = Policy::new(&announcement, true).unwrap();
            let labels: Vec<Labels> = services.iter().map(|(app, _)| labels(app)).collect();
            let services: Vec<Announced<'_>> = services
                .iter()
                .zip(&labels)
                .map(|((_, spread), labels)| Announced { spread: *spread, ..anywhere(labels) })
                .collect();
            assert_eq!(policy.spreads(&services), expected, "{rules} {services:?}");
        }
    }

    #[test]
    fn speakers_are_not_told_of_spread() {
        assert_eq!(written(&json!([{ "spread": "nodes" }]), &["a"]), None);
        let rules = |spread| {
            let rules =
                json!([{ "interfaces": ["eth0"], "spread": spread }, { "interfaces": ["eth0"] }]);
            written(&rules, &["a"])
        };
        assert_eq!(rules("nodes"), rules("none"));
        assert_eq!(rules("nodes"), Some(json!({ "rules": [{ "interfaces": ["eth0"] }] })));
    }

    #[test]
    fn everywhere_nowhere_and_unprobed() {
        let terms = |announcement, probing| {
            Policy::new(&announcement, probing).unwrap().terms_for(&[anywhere(&labels("a"))])
        };
        assert_eq!(terms(Announcement::Everywhere, true), WrittenAnnounceTerms::default());
        assert!(terms(Announcement::Nowhere, true).is_nowhere());
        assert!(!terms(Announcement::Everywhere, false).probing);
    }

    #[test]
    fn what_is_usual_needs_no_words() {
        assert_eq!(WrittenAnnounceTerms::default().to_text(), None);
        let nowhere =
            WrittenAnnounceTerms { rules: Some(Vec::new()), ..WrittenAnnounceTerms::default() };
        assert_eq!(nowhere.to_text().unwrap(), r#"{"rules":[]}"#);
        let unprobed = WrittenAnnounceTerms { probing: false, ..WrittenAnnounceTerms::default() };
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
        let written = WrittenAnnounceTerms { rules, probing: false, local: true };
        let read = WrittenAnnounceTerms::from_text(&written.to_text().unwrap()).unwrap();
        assert_eq!(read, written);
        let terms = read.to_terms().unwrap();
        let Places::ByRules(rules) = terms.places else { panic!("{terms:?}") };
        assert!(rules[0].nodes[0].matches(&[("rack".into(), "a".into())].into()));
        assert_eq!(rules[0].preferences[0].weight, 7);
        assert!(rules[0].interfaces[0].matches("eth0"));
    }

    #[test]
    fn traffic_that_must_not_leave_its_node_is_written_with_and_without_rules() {
        let labels = Labels::new();
        let local = Announced { is_local: true, ..anywhere(&labels) };
        for announcement in [Announcement::Everywhere, Announcement::Nowhere] {
            let policy = Policy::new(&announcement, true).unwrap();
            assert!(policy.terms_for(&[anywhere(&labels), local]).local);
            assert!(!policy.terms_for(&[anywhere(&labels)]).local);
        }
    }
}
