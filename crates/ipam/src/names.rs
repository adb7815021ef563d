//! The words by which pools and holders are known.

use alloc::{string::String, sync::Arc};
use core::{cmp::Ordering, fmt};

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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A pool's name, unique among pools.
    PoolName
}

name! {
    /// A sharing key: Services with the same one may share an address.
    SharingKey
}

/// Who holds an address: a Service, by its `metadata.uid`. It carries a name that people know it by, which does not
/// count in comparisons.
#[derive(Clone)]
pub struct Owner {
    id: Arc<str>,
    name: Arc<str>,
}

impl Owner {
    /// The owner with this identity, which messages call `name`.
    pub fn named(id: &str, name: &str) -> Self {
        Self { id: id.into(), name: name.into() }
    }

    /// The identity.
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

impl From<&str> for Owner {
    fn from(id: &str) -> Self {
        Self::named(id, id)
    }
}

impl From<String> for Owner {
    fn from(id: String) -> Self {
        Self::from(id.as_str())
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Owner {}

impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Owner {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.id, f)
    }
}
