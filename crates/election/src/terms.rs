//! Where an address may be announced, as the author of its pool wants it.

use alloc::vec::Vec;
use core::{net::IpAddr, slice};

use arpeggio_labels::Selector;

use crate::{
    facts::NodeFacts,
    pattern::Pattern,
    reach::{Interface, Reach},
};

/// How one address is to be announced. The controller works it out from the pool and writes it on the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceTerms {
    /// Where.
    pub places: Places,
    /// Whether somebody else is looked for at the address before it is announced for the first time.
    pub probing: bool,
}

/// Where an address may be announced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Places {
    /// On every node that is in its subnet.
    #[default]
    Everywhere,
    /// Wherever one of these rules allows; nowhere when there are none.
    ByRules(Vec<Rule>),
}

/// One rule of a pool's author.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The nodes that may announce: those that one of these selects, all when there are none.
    pub nodes: Vec<Selector>,
    /// Those of them that rather should.
    pub preferences: Vec<Preference>,
    /// The names of the interfaces to announce on; when there are none, the one whose subnet has the address.
    pub interfaces: Vec<Pattern>,
}

/// Nodes that should rather announce than others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// How much being selected counts; the weights of all that select a node add up.
    pub weight: u32,
    /// The nodes.
    pub nodes: Selector,
}

/// The rule of an address without any.
static USUAL: Rule = Rule { nodes: Vec::new(), preferences: Vec::new(), interfaces: Vec::new() };

impl AnnounceTerms {
    /// Whether nobody is to announce.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(&self.places, Places::ByRules(rules) if rules.is_empty())
    }

    /// Its rules, whichever nodes they are for. Everywhere is one that selects every node and says nothing else.
    pub(crate) fn rules(&self) -> &[Rule] {
        match &self.places {
            Places::Everywhere => slice::from_ref(&USUAL),
            Places::ByRules(rules) => rules,
        }
    }

    /// The names of interfaces in its rules, whichever nodes they are for.
    pub fn named(&self) -> impl Iterator<Item = &Pattern> {
        self.rules().iter().flat_map(|rule| &rule.interfaces)
    }

    /// The interfaces, out of `reach`, on which the node that `facts` are about announces `address`: what
    /// [`Self::rules_for`] it say, taken together.
    pub fn interfaces<'a>(
        &self,
        address: IpAddr,
        facts: Option<&NodeFacts>,
        reach: &'a Reach,
    ) -> Vec<&'a Interface> {
        let rules = self.rules_for(facts);
        let named: Vec<&Interface> =
            rules.flat_map(|rule| reach.announcing(address, &rule.interfaces)).collect();
        reach.interfaces.iter().filter(|it| named.contains(it)).collect()
    }

    /// The rules that say on which interfaces the node that `facts` are about announces: those that select it.
    ///
    /// When none selects it any more, all rules: the address is to be reached until another node has it. While its labels are
    /// not known, those that select every node; all rules, if it makes no difference which of them selects it.
    pub fn rules_for(&self, facts: Option<&NodeFacts>) -> impl Iterator<Item = &Rule> {
        let rules = self.rules();
        let all = match facts {
            Some(_) => !rules.iter().any(|rule| rule.selects(facts)),
            None => rules.windows(2).all(|two| two[0].interfaces == two[1].interfaces),
        };
        rules.iter().filter(move |rule| all || rule.selects(facts))
    }

    /// Whether labels of nodes matter for where it is announced.
    pub(crate) fn goes_by_labels(&self) -> bool {
        self.rules().iter().any(|rule| !rule.nodes.is_empty())
    }
}

impl Rule {
    /// Whether a node may announce by this rule. Labels that are not known select nothing.
    pub fn selects(&self, facts: Option<&NodeFacts>) -> bool {
        let by_labels = |facts: &NodeFacts| self.nodes.iter().any(|it| it.matches(&facts.labels));
        self.nodes.is_empty() || facts.is_some_and(by_labels)
    }
}

impl Default for AnnounceTerms {
    fn default() -> Self {
        Self { places: Places::Everywhere, probing: true }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec, vec::Vec};

    use super::*;

    /// For the nodes of these racks, on these interfaces.
    fn rule(racks: &[&str], interfaces: &[&str]) -> Rule {
        let selector = |rack: &&str| Selector::default().with_label("rack", rack).unwrap();
        Rule {
            nodes: racks.iter().map(selector).collect(),
            interfaces: interfaces.iter().map(|it| Pattern::from(*it)).collect(),
            ..Rule::default()
        }
    }

    /// On which interfaces a node announces 192.168.0.240, of which `facts` are known: `lan`, in whose subnet it is, or `dmz`.
    fn names(places: &Places, facts: Option<&NodeFacts>) -> Vec<String> {
        let interface = |name: &str, net: &str| {
            let subnets = vec![net.parse().unwrap()];
            Interface { name: name.into(), subnets, ..Interface::default() }
        };
        let lan = interface("lan", "192.168.0.11/24");
        let reach = Reach { interfaces: vec![lan, interface("dmz", "10.0.0.11/8")] };
        let terms = AnnounceTerms { places: places.clone(), ..AnnounceTerms::default() };
        let found = terms.interfaces(IpAddr::from([192, 168, 0, 240]), facts, &reach);
        found.iter().map(|it| it.name.clone()).collect()
    }

    #[test]
    fn rules_that_select_the_node_name_interfaces_together() {
        let facts =
            NodeFacts { labels: [("rack".into(), "a".into())].into(), ..Default::default() };
        let table = [
            (Places::Everywhere, &["lan"][..]),
            (Places::ByRules(vec![]), &[]),
            (Places::ByRules(vec![rule(&["a"], &[])]), &["lan"]),
            (Places::ByRules(vec![rule(&["a"], &["d*"]), rule(&["b"], &["lan"])]), &["dmz"]),
            (Places::ByRules(vec![rule(&["a"], &["d*"]), rule(&["a"], &[])]), &["lan", "dmz"]),
            (Places::ByRules(vec![rule(&["a"], &["wlan*"])]), &[]),
            // The node was selected once.
            (Places::ByRules(vec![rule(&["b"], &["dmz"])]), &["dmz"]),
        ];
        for (places, expected) in table {
            assert_eq!(names(&places, Some(&facts)), expected, "{places:?}");
        }
    }

    #[test]
    fn while_labels_are_not_known_only_what_they_cannot_change_is_announced_by() {
        let table = [
            (vec![rule(&[], &["dmz"])], &["dmz"][..]),
            (vec![rule(&["a"], &[])], &["lan"]),
            (vec![rule(&["a"], &["dmz"]), rule(&["b"], &["dmz"])], &["dmz"]),
            (vec![rule(&["a"], &["dmz"]), rule(&["b"], &["lan"])], &[]),
            (vec![rule(&["a"], &["dmz"]), rule(&[], &["lan"])], &["lan"]),
        ];
        for (rules, expected) in table {
            let places = Places::ByRules(rules);
            assert_eq!(names(&places, None), expected, "{places:?}");
        }
    }
}
