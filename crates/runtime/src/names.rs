//! Host names, looked up without the C library.
//!
//! Our programs are static. A static glibc reads `/etc/hosts` by itself, but loads shared libraries for DNS: an image without
//! them cannot look up anything, and on a system with others than those that it was built with the process dies.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;
use tower::{BoxError, Service};

/// Looks up names as `/etc/hosts` and `/etc/resolv.conf` say. Both are read anew each time: connections are rare, and what
/// these files say may change while a program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names;

type Addresses = vec::IntoIter<SocketAddr>;

impl Service<Name> for Names {
    type Response = Addresses;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Addresses, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(look_up(name))
    }
}

/// The port is the caller's business.
async fn look_up(name: Name) -> Result<Addresses, BoxError> {
    let resolver = TokioResolver::builder_tokio()?.build()?;
    let found = resolver.lookup_ip(name.as_str()).await?;
    Ok(found.iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_the_hosts_file_is_found() {
        let found = Names.call("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }
}
