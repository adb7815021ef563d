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
    /// Who holds an address: opaque here, a Service's `metadata.uid` to the controller.
    Owner
}

name! {
    /// A sharing key: Services with the same one may share an address.
    SharingKey
}
