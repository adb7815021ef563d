//! Where this machine announces one address, and what decides that.

use std::net::IpAddr;

use arpeggio_election::{Pattern, Places, Rule};
use arpeggio_link::interfaces::{Family, Interface, Links};
use serde::Serialize;

use super::rules::{OnLock, Rules};

/// Where an address is announced.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Choice {
    address: IpAddr,
    /// The names of the interfaces; none when this machine cannot announce it.
    interfaces: Vec<String>,
    /// What each rule that counts has come to.
    because: Vec<String>,
    /// What else people should know.
    remarks: Vec<String>,
}

/// One of the rules that count: the patterns that it names, and how it is called.
struct Say<'a> {
    patterns: &'a [Pattern],
    whose: String,
}

impl Choice {
    /// Where `address` is announced by these rules.
    pub(super) fn of(address: IpAddr, links: &Links, rules: &Rules) -> Self {
        let (says, remarks) = match says(rules) {
            Ok(says) => (says, remarks(rules)),
            Err(refusal) => {
                return Self {
                    address,
                    interfaces: vec![],
                    because: vec![refusal],
                    remarks: vec![],
                };
            }
        };
        let mut here: Vec<&Interface> = Vec::new();
        let mut because = Vec::new();
        for say in &says {
            match links.announcing_by(address, say.patterns) {
                Ok(found) => {
                    because.push(say.reason(address, &found));
                    here.extend(found);
                }
                Err(unfit) => because.push(format!("{}{unfit}", say.whose)),
            }
        }
        let is_here = |it: &&Interface| here.iter().any(|here| here.index == it.index);
        let interfaces = links.interfaces.iter().filter(is_here).map(|it| it.name.clone());
        Self { address, interfaces: interfaces.collect(), because, remarks }
    }

    /// Whether this machine cannot announce the address.
    pub(super) fn is_refusal(&self) -> bool {
        self.interfaces.is_empty()
    }

    pub(super) fn to_text(&self) -> String {
        let Self { address, interfaces, because, remarks } = self;
        let because = because.join("; ");
        let verdict = match interfaces.join(", ") {
            none if none.is_empty() => {
                format!("{address} cannot be announced by this machine: {because}")
            }
            interfaces => format!("{address} is announced on {interfaces}: {because}"),
        };
        [&[verdict], &remarks[..]].concat().join("\n")
    }
}

/// The rules that count; the error says why none does.
fn says(rules: &Rules) -> Result<Vec<Say<'_>>, String> {
    match rules {
        Rules::ByHand(patterns) => Ok(vec![Say { patterns, whose: "by --interface, ".to_owned() }]),
        Rules::NoLock | Rules::Unknown(_) => Ok(vec![Say { patterns: &[], whose: String::new() }]),
        Rules::OnLock(lock) => lock.says(),
    }
}

impl OnLock {
    fn says(&self) -> Result<Vec<Say<'_>>, String> {
        let pool = &self.pool;
        let Places::ByRules(rules) = &self.terms.places else {
            let whose = format!("pool {pool} names no interfaces, and ");
            return Ok(vec![Say { patterns: &[], whose }]);
        };
        if rules.is_empty() {
            return Err(format!("no announce rule of pool {pool} is for its Services"));
        }
        let facts = self.node.as_ref().map(|(_, facts)| facts);
        if let Some((node, facts)) = &self.node
            && !rules.iter().any(|rule| rule.selects(Some(facts)))
        {
            return Err(format!("no announce rule of pool {pool} selects {node}"));
        }
        // For a machine of which it is not known which node it is, each rule is told.
        let counting: Vec<&Rule> = match facts {
            Some(_) => self.terms.rules_for(facts).collect(),
            None => rules.iter().collect(),
        };
        Ok(counting.into_iter().map(|rule| self.say(rule, rules)).collect())
    }

    fn say<'a>(&'a self, rule: &'a Rule, rules: &[Rule]) -> Say<'a> {
        let number = rules.iter().position(|it| it == rule).unwrap_or_default() + 1;
        let which = format!("rule {number} of {} on its lock (pool {})", rules.len(), self.pool);
        let names: Vec<&str> = rule.interfaces.iter().map(Pattern::as_str).collect();
        let whose = match &names[..] {
            [] => format!("{which} names no interfaces, and "),
            names => format!("{which} names {}, and ", names.join(", ")),
        };
        Say { patterns: &rule.interfaces, whose }
    }
}

impl Say<'_> {
    fn reason(&self, address: IpAddr, found: &[&Interface]) -> String {
        let whose = &self.whose;
        if let ([], [interface, ..]) = (self.patterns, found) {
            return format!("{whose}{}", by_default(interface, address));
        }
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        format!("{whose}{} can announce", names.join(", "))
    }
}

fn by_default(interface: &Interface, address: IpAddr) -> String {
    let here = &interface.name;
    if let Some(subnet) = interface.subnet_of(address) {
        return format!("the subnet {subnet} of {here} contains the address");
    }
    format!(
        "no subnet contains the address, and the {} default route leaves by {here}",
        Family::of(address).name()
    )
}

fn remarks(rules: &Rules) -> Vec<String> {
    let remark = match rules {
        Rules::ByHand(_) => return Vec::new(),
        Rules::OnLock(lock) if lock.node.is_some() => return Vec::new(),
        Rules::OnLock(_) => {
            "This machine's labels are not known: rules for other nodes are taken for its own."
                .to_owned()
        }
        Rules::NoLock => {
            "Nobody has been given this address: the rules of a pool may name other interfaces."
                .to_owned()
        }
        Rules::Unknown(why) => format!(
            "The cluster was not asked: {why}. The rules of the address's pool may name other interfaces."
        ),
    };
    vec![remark]
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{AnnounceTerms, NodeFacts};
    use arpeggio_labels::Selector;

    use super::{super::report::tests::node, *};

    fn text(address: &str, rules: &Rules) -> (String, bool) {
        let choice = Choice::of(address.parse().unwrap(), &node(), rules);
        (choice.to_text(), choice.is_refusal())
    }

    fn on_lock(places: Places, rack: Option<&str>) -> Rules {
        let labels = |rack: &str| [("rack".to_owned(), rack.to_owned())].into();
        let facts = |rack: &str| NodeFacts { labels: labels(rack), ..NodeFacts::default() };
        Rules::OnLock(OnLock {
            pool: "home".to_owned(),
            terms: AnnounceTerms { places, ..AnnounceTerms::default() },
            node: rack.map(|rack| ("node-1".into(), facts(rack))),
        })
    }

    fn rule(rack: &str, interfaces: &[&str]) -> Rule {
        Rule {
            nodes: vec![Selector::default().with_label("rack", rack).unwrap()],
            interfaces: interfaces.iter().map(|it| Pattern::from(*it)).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn without_rules_the_subnet_or_the_default_route_decides() {
        let table = [
            (
                "192.0.2.240",
                "is announced on br0: pool home names no interfaces, and the subnet 192.0.2.0/24 of br0 contains the address",
            ),
            (
                "203.0.113.1",
                "is announced on br0: pool home names no interfaces, and no subnet contains the address, and the IPv4 default route leaves by br0",
            ),
            (
                "198.51.100.9",
                "cannot be announced by this machine: pool home names no interfaces, and interface eth1 is down: bring it up",
            ),
            (
                "2001:db8:1::1",
                "cannot be announced by this machine: pool home names no interfaces, and no interface's subnet",
            ),
        ];
        for (address, expected) in table {
            let (text, is_refusal) = text(address, &on_lock(Places::Everywhere, Some("a")));
            assert!(text.starts_with(&format!("{address} {expected}")), "{text}");
            assert_eq!(is_refusal, expected.starts_with("cannot"), "{address}");
        }
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        let by = |rules: Vec<Rule>| on_lock(Places::ByRules(rules), Some("a"));
        let table = [
            (
                by(vec![rule("b", &["br0"]), rule("a", &["eth*"])]),
                "192.0.2.240 is announced on eth2: rule 2 of 2 on its lock (pool home) names eth*, and eth2 can announce",
            ),
            (
                by(vec![rule("a", &["eth2"]), rule("a", &[])]),
                "192.0.2.240 is announced on br0, eth2: rule 1 of 2 on its lock (pool home) names eth2, and eth2 can announce; \
                 rule 2 of 2 on its lock (pool home) names no interfaces, and the subnet 192.0.2.0/24 of br0 contains the address",
            ),
            (
                by(vec![rule("a", &["eth1", "wlan*"])]),
                "192.0.2.240 cannot be announced by this machine: rule 1 of 1 on its lock (pool home) names eth1, wlan*, and \
                 interface eth1 is down: bring it up",
            ),
            (
                by(vec![rule("b", &[])]),
                "192.0.2.240 cannot be announced by this machine: no announce rule of pool home selects node-1",
            ),
            (
                by(vec![]),
                "192.0.2.240 cannot be announced by this machine: no announce rule of pool home is for its Services",
            ),
            (
                Rules::ByHand(vec!["eth?".into()]),
                "192.0.2.240 is announced on eth2: by --interface, eth2 can announce",
            ),
        ];
        for (rules, expected) in table {
            assert_eq!(text("192.0.2.240", &rules).0, expected);
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let table = [
            (
                Rules::Unknown("no route".into()),
                "The cluster was not asked: no route. The rules of",
            ),
            (Rules::NoLock, "Nobody has been given this address"),
            (
                on_lock(Places::ByRules(vec![rule("a", &[])]), None),
                "This machine's labels are not known",
            ),
        ];
        for (rules, expected) in table {
            let (text, is_refusal) = text("192.0.2.240", &rules);
            let remark = text.lines().nth(1).unwrap();
            assert!(remark.starts_with(expected) && !is_refusal, "{text}");
        }
    }
}
