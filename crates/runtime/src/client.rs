//! The connection to the Kubernetes API server.

use std::{path::PathBuf, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    http::{
        Response,
        header::{CONTENT_LENGTH, DATE, RETRY_AFTER},
    },
};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt as _, retry::RetryPolicy},
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::{Status, response::StatusDetails},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use crate::{names::Names, server_clock};

/// After so long without a word on a connection, the kernel asks whether the other side still knows it. One that has
/// lost its power, or its connection tracking, sends nothing on a watch, and its successor knows nothing of it.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// The time between two such questions.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// So many unanswered ones mean that the connection is dead.
const UNANSWERED: u32 = 3;

/// How much of a refusal is read, in bytes.
const LONGEST_REFUSAL: usize = 1 << 20;

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
    /// The kubeconfig or the context that was asked for is not there, or cannot be read.
    #[error("cannot use the kubeconfig that was asked for")]
    Kubeconfig(#[source] Box<KubeconfigError>),
}

/// Where the cluster's configuration comes from, where somebody says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file. `None`: `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. `None`: the current one.
    pub context: Option<String>,
}

impl Origin {
    /// Whoever asks for a file or a context does not mean the pod's ServiceAccount.
    async fn config(&self) -> Result<Config, ConnectError> {
        let wrong = |error| ConnectError::Kubeconfig(Box::new(error));
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(wrong)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(wrong)
            }
            None => Config::infer().await.map_err(|error| ConnectError::NoCluster(Box::new(error))),
        }
    }
}

/// Makes a client from `KUBECONFIG`, `~/.kube/config` or the pod's ServiceAccount, in this order. Connects lazily:
/// success says nothing about the server.
///
/// # Errors
/// When no configuration is found, or it is unusable.
pub async fn connect(patience: Patience) -> Result<Client, ConnectError> {
    connect_to(&Origin::default(), patience).await
}

/// The same, from where `origin` says.
///
/// # Errors
/// When no configuration is found there, or it is unusable.
pub async fn connect_to(origin: &Origin, patience: Patience) -> Result<Client, ConnectError> {
    let mut config = origin.config().await?;
    config.connect_timeout = Some(patience.connect);
    config.read_timeout = patience.read;
    // Otherwise the idle time of a pooled connection counts against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = patience.retry;
    attentive(config).map_err(|error| ConnectError::Unusable(Box::new(error)))
}

/// The library's client, but that the kernel finds out dead connections. Through a proxy it is the library's own: there
/// the proxy is the other side.
fn attentive(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let tls = config.rustls_https_connector_with_connector(keeping_alive())?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let connections = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let retry = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let requests = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .and_then(with_pause)
        .map_response(dated)
        .service(connections);
    Ok(ClientBuilder::new(requests, config.default_namespace).build())
}

/// Takes note of what time it is at the API server.
fn dated<B>(answer: Response<B>) -> Response<B> {
    if let Some(date) = answer.headers().get(DATE).and_then(|it| it.to_str().ok()) {
        server_clock::hear(date);
    }
    answer
}

/// Has a refusal say itself how long the API server asks to be left alone. Of one that is plain text, as all are that come
/// of its limits on requests, the library passes on the text only, and of no refusal the header.
async fn with_pause<B>(answer: Response<B>) -> Result<Response<Body>, BoxError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let refused = answer.status().is_client_error() || answer.status().is_server_error();
    let header = answer.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    let Some(pause) = header.filter(|_| refused) else {
        return Ok(answer.map(Body::new));
    };
    let (mut head, body) = answer.into_parts();
    let text = to_bytes(Body::new(body), LONGEST_REFUSAL).await?;
    let status = paused(head.status.as_u16(), &text, pause);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::from(serde_json::to_vec(&status)?)))
}

/// The refusal as the API server's own kind of object, with the pause where it names none.
fn paused(code: u16, text: &[u8], pause: u32) -> Status {
    let plain = || {
        let text = String::from_utf8_lossy(text);
        Status::failure(text.trim(), "").with_code(code)
    };
    let mut status: Status = serde_json::from_slice(text).unwrap_or_else(|_| plain());
    let details = status.details.get_or_insert_with(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    });
    if details.retry_after_seconds == 0 {
        details.retry_after_seconds = pause;
    }
    status
}

fn keeping_alive() -> HttpConnector<Names> {
    let mut connector = HttpConnector::new_with_resolver(Names);
    connector.enforce_http(false);
    connector.set_keepalive(Some(ASK_AFTER));
    connector.set_keepalive_interval(Some(ASK_EVERY));
    connector.set_keepalive_retries(Some(UNANSWERED));
    connector
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{Api, client};

    use super::*;
    use crate::failure::Failure;

    async fn failure(code: u16, header: &str, text: &str) -> Failure {
        let (header, text) = (header.to_owned(), text.to_owned());
        let server = tower::service_fn(move |_: Request<client::Body>| {
            let body = Body::from(text.clone());
            let answer = Response::builder().status(code).header(RETRY_AFTER, &header);
            let answer = answer.header(CONTENT_LENGTH, text.len()).body(body);
            async move { answer.map_err(BoxError::from) }
        });
        let client =
            Client::new(ServiceBuilder::new().and_then(with_pause).service(server), "shop");
        let pods: Api<Pod> = Api::default_namespaced(client);
        (&pods.get("web").await.unwrap_err()).into()
    }

    #[tokio::test]
    async fn the_pause_that_a_header_names_counts() {
        let seconds = |it| Some(Duration::from_secs(it));
        let own =
            r#"{"kind":"Status","code":429,"message":"no","details":{"retryAfterSeconds":9}}"#;
        let other = r#"{"kind":"Status","code":503,"message":"no"}"#;
        let table = [
            (429, "7", "Too many requests, please try again later.", seconds(7)),
            (429, "7", own, seconds(9)),
            (429, "", own, seconds(9)),
            (429, "Wed, 21 Oct 2026 07:28:00 GMT", "Too many requests", None),
        ];
        for (code, header, text, retry_after) in table {
            assert_eq!(
                failure(code, header, text).await,
                Failure::Busy { retry_after },
                "{header}"
            );
        }
        for text in ["<html>no</html>", "", other] {
            let expected = Failure::Unanswered { retry_after: seconds(5) };
            assert_eq!(failure(503, "5", text).await, expected, "{text}");
        }
        assert_eq!(failure(404, "5", "404 page not found").await, Failure::NotFound);
    }
}
