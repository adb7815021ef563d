//! The connection to the Kubernetes API server.

use std::time::Duration;

use kube::{Client, Config, config::InferConfigError};

/// How patient a client is. The defaults of the library let a dead connection go unnoticed for minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest time to establish a connection.
    pub connect: Duration,
    /// Longest silence on a connection that something is expected from, watches included. `None`: for ever, and the
    /// watcher's own time-out is the only bound.
    pub read: Option<Duration>,
    /// Whether the client itself retries 429, 503 and 504. Off where the caller has a deadline of its own.
    pub retry: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), read: None, retry: true }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a ServiceAccount was found.
    #[error(
        "cannot find a Kubernetes cluster: set KUBECONFIG, or run in a pod with a ServiceAccount"
    )]
    NoCluster(#[source] Box<InferConfigError>),
    /// The configuration was found but cannot be used (certificates, keys).
    #[error("cannot use the cluster configuration")]
    Unusable(#[source] Box<kube::Error>),
}

/// Makes a client from `KUBECONFIG`, `~/.kube/config` or the pod's ServiceAccount, in this order. Connects lazily:
/// success says nothing about the server.
///
/// # Errors
/// When no configuration is found, or it is unusable.
pub async fn connect(patience: Patience) -> Result<Client, ConnectError> {
    let mut config =
        Config::infer().await.map_err(|error| ConnectError::NoCluster(Box::new(error)))?;
    config.connect_timeout = Some(patience.connect);
    config.read_timeout = patience.read;
    // Otherwise the idle time of a pooled connection counts against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = patience.retry;
    Client::try_from(config).map_err(|error| ConnectError::Unusable(Box::new(error)))
}
