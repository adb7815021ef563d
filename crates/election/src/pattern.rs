//! Names of interfaces, as people write them.

use alloc::string::String;

/// A pattern for a whole name: `*` stands for any number of characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` is of this form.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Remembers only the last star: whatever an earlier one stood for, what follows it has been found already. So the
/// cost is at most the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(token) if *token == b'?' || name.get(read) == Some(token) => {
                at += 1;
                read += 1;
            }
            _ => match star {
                // The star takes one more.
                Some((position, taken)) => {
                    star = Some((position, taken + 1));
                    (at, read) = (position + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|token| *token == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_the_whole_name() {
        let table = [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth", "eth0", false),
            ("eth*", "eth0", true),
            ("eth*", "veth0", false),
            ("*", "", true),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("*th*0", "enth10.100", true),
            ("*.100", "bond0.100", true),
            ("*.100", "bond0.1000", false),
            ("e*h*", "eth", true),
            ("", "eth0", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Pattern::from(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = Pattern::from("*a*a*a*a*a*a*a*a*a*b");
        assert!(!pattern.matches(&"a".repeat(4096)));
    }
}
