//! What Arpeggio's programs may do.

use super::{known, list};
use crate::{
    code::Code,
    facts::{Component, Facts, Permission},
    finding::Finding,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::A201, "permissions", &facts.permissions, |permissions| {
        let of = [(Code::A201, Component::Controller), (Code::A202, Component::Speaker)];
        of.into_iter().filter_map(|(code, who)| missing(code, who, permissions)).collect()
    })
}

fn missing(code: Code, who: Component, permissions: &[Permission]) -> Option<Finding> {
    let missing = permissions.iter().filter(|it| it.who == who && !it.allowed);
    let missing: Vec<&str> = missing.map(|it| it.what.as_str()).collect();
    let about = format!("ServiceAccount arpeggio-{}", who.as_str());
    (!missing.is_empty())
        .then(|| Finding::new(code, about, format!("it may not {}", list(missing))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        finding::Severity,
    };

    #[test]
    fn what_is_missing_is_named() {
        let mut facts = facts();
        let lacks = |who| Permission { who, what: "list nodes".to_owned(), allowed: false };
        assert!(check(&facts).is_empty());
        facts.permissions = Ok(vec![lacks(Component::Speaker)]);
        let findings = check(&facts);
        assert_eq!(codes(&findings), [(Code::A202, Severity::Error)]);
        assert!(findings[0].seen.contains("list nodes"), "{findings:?}");
        facts.permissions = Ok(vec![lacks(Component::Controller), lacks(Component::Speaker)]);
        assert_eq!(check(&facts).len(), 2);
        facts.permissions = Err("you may not ask".to_owned());
        assert_eq!(codes(&check(&facts)), [(Code::A201, Severity::Unchecked)]);
    }
}
