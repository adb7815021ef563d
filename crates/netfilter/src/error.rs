//! What can go wrong.

use std::io;

use crate::feature::Feature;

/// Why the kernel did not do what it was to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no socket.
    #[error("cannot open a netfilter socket ({0}): the kernel needs CONFIG_NETFILTER_NETLINK")]
    Open(#[source] io::Error),
    /// The socket does not work.
    #[error("cannot talk to netfilter: {0}")]
    Socket(#[source] io::Error),
    /// The process may not.
    #[error(
        "the kernel does not let this process change nf_tables or read conntrack: give it the capability NET_ADMIN"
    )]
    NotPermitted,
    /// The kernel cannot.
    #[error("{0}")]
    Missing(Feature),
    /// The kernel refused a change, and with it the whole batch.
    #[error("the kernel refused to {what}: {reason}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The change.
        what: String,
        /// Why.
        reason: io::Error,
        /// What the kernel adds to that.
        detail: Option<String>,
    },
    /// What the kernel was to list changed while it did, each time.
    #[error("netfilter's list changed again and again while the kernel made it")]
    Interrupted,
    /// The kernel's answer makes no sense.
    #[error("netfilter gave no answer that could be read: {0}")]
    Answer(&'static str),
}

impl Error {
    /// The number that the kernel refused a change with.
    pub fn refusal(&self) -> Option<i32> {
        match self {
            Self::Refused { reason, .. } => reason.raw_os_error(),
            _ => None,
        }
    }
}
