//! The words by which pools and holders are known.

use alloc::{string::String, sync::Arc};
use core::fmt;

/// Makes a type for one kind of name, cheap to clone, so that one kind is never taken for another.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        /// For people: what could end a line, or hide something, is escaped, and what is too long is cut.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_shown(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

/// The longest text of somebody else that a message shows, in characters; no name of Kubernetes is longer.
const LONGEST_SHOWN: usize = 253;

/// Writes what users wrote so that it cannot be taken for anything else.
fn write_shown(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let end = text.char_indices().nth(LONGEST_SHOWN).map(|(end, _)| end);
    let shown = &text[..end.unwrap_or(text.len())];
    // A quotation mark would end the name where it stands in quotation marks.
    let escapes =
        |character| arpeggio_text::is_hidden(character) || matches!(character, '"' | '\'' | '\\');
    f.write_str(&arpeggio_text::escaped(shown, escapes))?;
    if end.is_some() { f.write_str("...") } else { Ok(()) }
}

name! {
    /// A pool's name, unique among pools.
    PoolName
}

name! {
    /// A sharing key: Services with the same one may share an address.
    SharingKey
}

name! {
    /// Who holds an address: a Service, as `NAMESPACE/NAME`, or something else without a slash in its name.
    Owner
}

impl Owner {
    /// The Service's namespace; `None` for what is no Service.
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_users_wrote_stays_on_its_line_and_is_not_endless() {
        let table = [
            ("home", "home"),
            ("a\nERROR x", "a\\nERROR x"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("caf\u{e9} \"1\"", "caf\u{e9} \\\"1\\\""),
        ];
        for (name, shown) in table {
            assert_eq!(PoolName::from(name).to_string(), shown);
        }
        let long = PoolName::from("x".repeat(100_000)).to_string();
        assert_eq!((long.len(), long.ends_with("...")), (256, true));
    }
}
