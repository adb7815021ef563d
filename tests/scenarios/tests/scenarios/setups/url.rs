//! A page, and where a client on the internet finds it.

use std::net::{IpAddr, SocketAddr};

/// A page, and where a client on the internet finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Url {
    pub(super) scheme: &'static str,
    pub(super) name: &'static str,
    pub(super) at: SocketAddr,
}

impl Url {
    pub(crate) fn http(name: &'static str, at: IpAddr) -> Self {
        Self::http_on_port(80, name, at)
    }

    pub(crate) fn http_on_port(port: u16, name: &'static str, at: IpAddr) -> Self {
        Self { scheme: "http", name, at: SocketAddr::new(at, port) }
    }

    pub(crate) fn https(name: &'static str, at: IpAddr) -> Self {
        Self { scheme: "https", name, at: SocketAddr::new(at, 443) }
    }

    /// What curl's `--resolve` wants, to find it without DNS.
    pub(super) fn resolved(self) -> String {
        format!("{}:{}:{}", self.name, self.at.port(), self.at.ip())
    }
}
