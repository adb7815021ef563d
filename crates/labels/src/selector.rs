//! Label selectors, with the meaning that Kubernetes gives them (`LabelSelector`, apimachinery `meta/v1`).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

/// The labels of one object.
pub type Labels = BTreeMap<String, String>;

/// What an object's labels must fulfil. Without requirements it selects every object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement: a label's key and what must be true of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

/// What must be true of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// It is there, with one of these values.
    In(BTreeSet<String>),
    /// It is absent, or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// Why something is not a [`Selector`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// `In` and `NotIn` compare with something.
    #[error("{key}: {operator} needs at least one value")]
    NoValues {
        /// The label's key.
        key: String,
        /// `In` or `NotIn`.
        operator: String,
    },
    /// `Exists` and `DoesNotExist` compare with nothing.
    #[error("{key}: {operator} takes no values: remove them, or use In or NotIn")]
    UnusedValues {
        /// The label's key.
        key: String,
        /// `Exists` or `DoesNotExist`.
        operator: String,
    },
    /// Not one of the four.
    #[error("{key}: {operator:?} is no operator: use In, NotIn, Exists or DoesNotExist")]
    UnknownOperator {
        /// The label's key.
        key: String,
        /// What was written.
        operator: String,
    },
    /// A requirement about no label.
    #[error("a label's key is empty: write the key of the label that is meant")]
    NoKey,
}

impl Selector {
    /// Requires in addition that the label `key` has this `value` (`matchLabels`).
    ///
    /// # Errors
    /// When the key is empty.
    pub fn with_label(self, key: &str, value: &str) -> Result<Self, SelectorError> {
        self.with_expression(key, "In", [value])
    }

    /// Requires in addition what `operator` says of the label `key` (`matchExpressions`).
    ///
    /// # Errors
    /// When the operator is unknown or does not go with the values, or the key is empty.
    pub fn with_expression<'a>(
        mut self,
        key: &str,
        operator: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SelectorError> {
        if key.is_empty() {
            return Err(SelectorError::NoKey);
        }
        let values = values.into_iter().map(String::from).collect();
        let test = Test::new(operator, values, key)?;
        self.requirements.push(Requirement { key: key.into(), test });
        Ok(self)
    }

    /// What is required: keys, operators and values, as [`Self::with_expression`] takes them.
    pub fn requirements(&self) -> impl Iterator<Item = (&str, &'static str, Vec<&str>)> {
        self.requirements.iter().map(|it| {
            let (operator, values) = it.test.parts();
            (it.key.as_str(), operator, values)
        })
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|it| it.test.passes(labels.get(&it.key)))
    }
}

impl Test {
    fn new(operator: &str, values: BTreeSet<String>, key: &str) -> Result<Self, SelectorError> {
        let (key, named) = (String::from(key), String::from(operator));
        match (operator, values.is_empty()) {
            ("In", false) => Ok(Self::In(values)),
            ("NotIn", false) => Ok(Self::NotIn(values)),
            ("Exists", true) => Ok(Self::Exists),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist),
            ("In" | "NotIn", true) => Err(SelectorError::NoValues { key, operator: named }),
            ("Exists" | "DoesNotExist", false) => {
                Err(SelectorError::UnusedValues { key, operator: named })
            }
            _ => Err(SelectorError::UnknownOperator { key, operator: named }),
        }
    }

    fn parts(&self) -> (&'static str, Vec<&str>) {
        match self {
            Self::In(values) => ("In", values.iter().map(String::as_str).collect()),
            Self::NotIn(values) => ("NotIn", values.iter().map(String::as_str).collect()),
            Self::Exists => ("Exists", Vec::new()),
            Self::DoesNotExist => ("DoesNotExist", Vec::new()),
        }
    }

    fn passes(&self, value: Option<&String>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
    }

    fn selector(key: &str, operator: &str, values: &[&str]) -> Result<Selector, SelectorError> {
        Selector::default().with_expression(key, operator, values.iter().copied())
    }

    #[test]
    fn every_operator_with_the_label_present_other_and_absent() {
        let table = [
            ("In", &["a", "b"][..], [true, false, false]),
            ("NotIn", &["a", "b"], [false, true, true]),
            ("Exists", &[], [true, true, false]),
            ("DoesNotExist", &[], [false, false, true]),
        ];
        let objects = [labels(&[("app", "a")]), labels(&[("app", "c")]), labels(&[("x", "a")])];
        for (operator, values, expected) in table {
            let selector = selector("app", operator, values).unwrap();
            let selected: Vec<bool> = objects.iter().map(|it| selector.matches(it)).collect();
            assert_eq!(selected, expected, "{operator}");
        }
    }

    #[test]
    fn all_requirements_count_and_none_selects_everything() {
        let both = Selector::default().with_label("a", "1").unwrap().with_label("b", "2").unwrap();
        assert!(both.matches(&labels(&[("a", "1"), ("b", "2"), ("c", "3")])));
        assert!(!both.matches(&labels(&[("a", "1")])));
        assert!(Selector::default().matches(&Labels::new()));
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        let table = [
            ("app", "In", &[][..], "app: In needs at least one value"),
            (
                "app",
                "Exists",
                &["x"],
                "app: Exists takes no values: remove them, or use In or NotIn",
            ),
            (
                "app",
                "Gt",
                &["1"],
                "app: \"Gt\" is no operator: use In, NotIn, Exists or DoesNotExist",
            ),
            ("", "Exists", &[], "a label's key is empty: write the key of the label that is meant"),
        ];
        for (key, operator, values, message) in table {
            assert_eq!(selector(key, operator, values).unwrap_err().to_string(), message);
        }
    }
}
