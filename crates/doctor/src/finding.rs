//! What a check has to say.

use std::fmt;

use crate::code::Code;

/// How bad it is; the worse, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// It could not be checked, so nobody knows.
    Unchecked,
    /// It works, and something should be done.
    Warning,
    /// Something does not work, or would not when it is needed.
    Error,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Unchecked => "unchecked",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The object that it is about.
    pub about: String,
    /// What was seen.
    pub seen: String,
}

impl Finding {
    /// Something about an object, as bad as such things are as a rule.
    pub fn new(code: Code, about: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { code, severity: code.severity(), about: about.into(), seen: seen.into() }
    }

    /// The same, but so bad.
    #[must_use]
    pub fn with(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// A check that could not be made, and why.
    pub fn unchecked(code: Code, about: impl Into<String>, why: &str) -> Self {
        Self::new(code, about, format!("not checked: {why}")).with(Severity::Unchecked)
    }

    /// What is to be done. `None`: what could not be checked may be right.
    pub fn advice(&self) -> Option<&'static str> {
        match (self.code, self.severity) {
            (_, Severity::Unchecked) => None,
            // Whoever has done what the code advises is not told to do it again.
            (Code::A401, Severity::Info) => {
                Some("Nothing, as long as each has its own spec.loadBalancerClass.")
            }
            (code, _) => Some(code.advice()),
        }
    }
}
