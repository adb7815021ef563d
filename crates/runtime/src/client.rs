//! The connection to the Kubernetes API server.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    http::{
        HeaderMap, HeaderName, Response, Uri,
        header::{CONTENT_LENGTH, DATE, RETRY_AFTER},
    },
};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::{
        legacy,
        legacy::connect::{
            Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::Intercept,
    },
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt as _, retry::RetryPolicy},
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::{Status, response::StatusDetails},
};
use tower::{
    BoxError, Service, ServiceBuilder, filter::AsyncFilterLayer, retry::RetryLayer,
    util::MapRequestLayer,
};

use crate::{
    credentials::{self, CredentialError},
    names::Names,
    printed_token::PrintedToken,
    proxy::{self, Environment},
    server_clock,
    token_file::TokenFile,
};

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
        "cannot find a Kubernetes cluster: set KUBECONFIG{}, or run in a pod with a ServiceAccount",
        advice(.of_distributions)
    )]
    NoCluster {
        /// Why not.
        source: Box<InferConfigError>,
        /// The kubeconfigs that the machine's distribution has written elsewhere, and whether this user may read them.
        of_distributions: Vec<(&'static str, bool)>,
    },
    /// The configuration was found but cannot be used (certificates, keys).
    #[error("cannot use the cluster configuration")]
    Unusable(#[source] Box<kube::Error>),
    /// The kubeconfig or the context that was asked for is not there, or cannot be read.
    #[error("cannot use the kubeconfig that was asked for")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// The token cannot be used, or there is none.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The context names a user whom the kubeconfig does not have: everything would be asked without a name.
    #[error("the kubeconfig has no user {0}, whom its context names")]
    NoUser(String),
    /// A proxy that nobody here can speak with.
    #[error("cannot use the proxy {0}: write http://, https:// or socks5:// before it")]
    Proxy(Uri),
}

/// Where distributions write a kubeconfig that only their own kubectl looks for, or none does: k3s, RKE2, `MicroK8s`,
/// kubeadm.
const OF_DISTRIBUTIONS: [&str; 4] = [
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
    "/var/snap/microk8s/current/credentials/client.config",
    "/etc/kubernetes/admin.conf",
];

/// Those of them that this machine has, and whether this user may read them.
fn of_distributions() -> Vec<(&'static str, bool)> {
    let there = OF_DISTRIBUTIONS.into_iter().filter(|it| Path::new(it).exists());
    there.map(|it| (it, File::open(it).is_ok())).collect()
}

/// What to type where there are such files. Why there is no client comes behind it, so it is in brackets.
fn advice(files: &[(&str, bool)]) -> String {
    let line = |(file, is_readable): &(&str, bool)| {
        let who = if *is_readable { "" } else { " in a shell of root, who may read it" };
        format!("'export KUBECONFIG={file}'{who}")
    };
    let lines: Vec<String> = files.iter().map(line).collect();
    if lines.is_empty() { String::new() } else { format!(" (here {})", lines.join(", or ")) }
}

/// Where the cluster's configuration comes from, where somebody says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeconfigChoice {
    /// The file. `None`: `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. `None`: the current one.
    pub context: Option<String>,
}

impl KubeconfigChoice {
    /// Whoever asks for a file or a context does not mean the pod's ServiceAccount.
    async fn config(&self) -> Result<Config, ConnectError> {
        let wrong = |error| ConnectError::Kubeconfig(Box::new(error));
        let known = |it: Kubeconfig| has_user(it, self.context.as_deref());
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = known(Kubeconfig::read_from(file).map_err(wrong)?)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)
            }
            None => match listed(&env::var_os("KUBECONFIG").unwrap_or_default()) {
                Some(kubeconfig) => {
                    let kubeconfig = known(kubeconfig.map_err(wrong)?)?;
                    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)
                }
                None if self.context.is_some() => {
                    let kubeconfig = known(Kubeconfig::read().map_err(wrong)?)?;
                    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)
                }
                None => {
                    if let Ok(kubeconfig) = Kubeconfig::read() {
                        known(kubeconfig)?;
                    }
                    let missing = |error| ConnectError::NoCluster {
                        source: Box::new(error),
                        of_distributions: of_distributions(),
                    };
                    Config::infer().await.map_err(missing)
                }
            },
        }
    }
}

/// What those files of the list say together that exist, as kubectl reads it; `None` unless it names several, and one of them
/// does.
fn listed(list: &OsStr) -> Option<Result<Kubeconfig, KubeconfigError>> {
    let files: Vec<PathBuf> =
        env::split_paths(list).filter(|it| !it.as_os_str().is_empty()).collect();
    let mut there = files.iter().filter(|it| it.exists()).peekable();
    if files.len() < 2 || there.peek().is_none() {
        return None;
    }
    Some(there.try_fold(Kubeconfig::default(), |all, file| all.merge(Kubeconfig::read_from(file)?)))
}

/// The kubeconfig, unless its context names somebody whom it does not have.
fn has_user(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Kubeconfig, ConnectError> {
    let wanted = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig.contexts.iter().find(|it| Some(it.name.as_str()) == wanted);
    let user = context.and_then(|it| it.context.as_ref()?.user.clone());
    let is_known = |user: &String| kubeconfig.auth_infos.iter().any(|it| it.name == *user);
    match user.filter(|user| !user.is_empty() && !is_known(user)) {
        Some(user) => Err(ConnectError::NoUser(user)),
        None => Ok(kubeconfig),
    }
}

/// Where `https://` is left out, kubectl puts it there.
fn with_scheme(server: Uri) -> Uri {
    if server.scheme().is_some() {
        return server;
    }
    format!("https://{server}").parse().unwrap_or(server)
}

/// Makes a client from `KUBECONFIG`, `~/.kube/config` or the pod's ServiceAccount, in this order. Connects lazily:
/// success says nothing about the server.
///
/// # Errors
/// When no configuration is found, or it is unusable.
pub async fn connect(patience: Patience) -> Result<Client, ConnectError> {
    connect_to(&KubeconfigChoice::default(), patience).await
}

/// The same, as `choice` says.
///
/// # Errors
/// When no configuration is found there, or it is unusable.
pub async fn connect_to(
    choice: &KubeconfigChoice,
    patience: Patience,
) -> Result<Client, ConnectError> {
    let mut config = choice.config().await?;
    config.cluster_url = with_scheme(config.cluster_url);
    config.connect_timeout = Some(patience.connect);
    config.read_timeout = patience.read;
    // Otherwise the idle time of a pooled connection counts against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = patience.retry;
    attentive(config, &Environment::present())
}

/// The library's client, but that the kernel finds out dead connections, and that proxies are used as kubectl does.
fn attentive(mut config: Config, environment: &Environment) -> Result<Client, ConnectError> {
    let unusable = |error| ConnectError::Unusable(Box::new(error));
    let (auth_info, token) = credentials::usable(config.auth_info)?;
    config.auth_info = auth_info;
    let direct = keeping_alive();
    let proxy = proxy::towards(&config.cluster_url, config.proxy_url.as_ref(), environment);
    let Some(proxy) = proxy.map_err(ConnectError::Proxy)? else {
        return through(config, token, direct).map_err(unusable);
    };
    let at = proxy.uri().clone();
    match at.scheme_str() {
        Some("socks5" | "socks5h") => {
            let connector = SocksV5::new(at, direct);
            let (user, word) = proxy.raw_auth().unwrap_or_default();
            let known = !user.is_empty();
            let with = |it: SocksV5<_>| it.with_auth(user.to_owned(), word.to_owned());
            through(config, token, if known { with(connector) } else { connector })
        }
        Some("http") => through(config, token, tunnel(&proxy, direct)),
        Some("https") => {
            let secured = config.rustls_https_connector_with_connector(direct);
            secured.and_then(|secured| through(config, token, tunnel(&proxy, secured)))
        }
        _ => return Err(ConnectError::Proxy(at)),
    }
    .map_err(unusable)
}

fn tunnel<C>(proxy: &Intercept, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.uri().clone(), connector);
    match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    }
}

/// A client whose connections `connector` makes, in whose name `token` says, if a command has printed one.
fn through<C>(mut config: Config, token: Option<PrintedToken>, connector: C) -> kube::Result<Client>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Error + Send + Sync + 'static,
{
    let tls = config.rustls_https_connector_with_connector(connector)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let connections = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let token_file = TokenFile::taken_from(&mut config.auth_info);
    let signed = token_file.map(|file| MapRequestLayer::new(move |request| file.signed(request)));
    let printed = token.map(|token| AsyncFilterLayer::new(move |it| token.clone().signed(it)));
    let retry = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let requests = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(signed)
        .option_layer(printed)
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
    let Some(pause) = asked_pause(answer.headers()).filter(|_| refused) else {
        return Ok(answer.map(Body::new));
    };
    let (mut head, body) = answer.into_parts();
    let text = to_bytes(Body::new(body), LONGEST_REFUSAL).await?;
    let status = paused(head.status.as_u16(), &text, pause);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::from(serde_json::to_vec(&status)?)))
}

/// For how many seconds an answer asks to be left alone: it says so itself, or until when by the clock that it shows. How much
/// of a very long time is believed is for the caller to say.
fn asked_pause(headers: &HeaderMap) -> Option<u32> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?.trim();
    let until = || {
        let now = text(DATE).and_then(server_clock::parse).unwrap_or_else(server_clock::now);
        u64::try_from(server_clock::parse(asked)?.duration_since(now).as_secs()).ok()
    };
    let is_number = !asked.is_empty() && asked.bytes().all(|it| it.is_ascii_digit());
    // More digits than a number has room for are a long time, too.
    let seconds = if is_number { Some(asked.parse().unwrap_or(u64::MAX)) } else { until() };
    seconds.map(|it| u32::try_from(it).unwrap_or(u32::MAX))
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
    use serde_json::json;
    use std::sync::Arc;
    use tokio::{
        io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    };

    use super::*;
    use crate::failure::Failure;

    /// What the clock of an API server shows that is asked here.
    const NOW: &str = "Wed, 21 Oct 2026 07:27:30 GMT";

    /// What is made of a pause that is longer than numbers of the API server can say.
    const LONGEST: Duration = Duration::from_secs(4_294_967_295);

    async fn failure(code: u16, header: &str, text: &str) -> Failure {
        let (header, text) = (header.to_owned(), text.to_owned());
        let server = tower::service_fn(move |_: Request<client::Body>| {
            let body = Body::from(text.clone());
            let answer = Response::builder().status(code).header(RETRY_AFTER, &header);
            let answer = answer.header(DATE, NOW).header(CONTENT_LENGTH, text.len()).body(body);
            async move { answer.map_err(BoxError::from) }
        });
        let client =
            Client::new(ServiceBuilder::new().and_then(with_pause).service(server), "shop");
        let pods: Api<Pod> = Api::default_namespaced(client);
        (&pods.get("web").await.unwrap_err()).into()
    }

    #[test]
    fn a_context_names_a_user_whom_the_kubeconfig_has() {
        let judged = |context: Option<&str>| {
            let text = "
                users: [{name: admin, user: {token: t}}]
                contexts:
                  - {name: right, context: {cluster: c, user: admin}}
                  - {name: wrong, context: {cluster: c, user: gone}}
                  - {name: nobody, context: {cluster: c, user: ''}}
                current-context: wrong";
            has_user(Kubeconfig::from_yaml(text).unwrap(), context).err().map(|it| it.to_string())
        };
        assert_eq!(judged(Some("right")), None);
        assert_eq!(judged(Some("nobody")), None);
        assert_eq!(judged(Some("no-such-context")), None, "another error tells of that");
        for context in [None, Some("wrong")] {
            let told = judged(context).unwrap();
            assert!(told.contains("no user gone"), "{told}");
        }
    }

    #[test]
    fn who_has_no_kubeconfig_reads_where_the_distribution_has_put_one() {
        let [k3s, .., kubeadm] = OF_DISTRIBUTIONS;
        let (one, other) =
            (format!("export KUBECONFIG={k3s}"), format!("export KUBECONFIG={kubeadm}"));
        let table = [
            (vec![], String::new()),
            (vec![(k3s, true)], format!(" (here '{one}')")),
            (
                vec![(k3s, false), (kubeadm, true)],
                format!(" (here '{one}' in a shell of root, who may read it, or '{other}')"),
            ),
        ];
        for (files, expected) in table {
            assert_eq!(advice(&files), expected, "{files:?}");
        }
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
            (429, "Wed, 21 Oct 2026 07:28:00 GMT", "Too many requests", seconds(30)),
            (429, "Wednesday, 21-Oct-26 07:28:00 GMT", "Too many requests", seconds(30)),
            (429, "Wed Oct 21 07:28:00 2026", "Too many requests", seconds(30)),
            (429, "Wed, 21 Oct 2026 07:28:00 GMT", own, seconds(9)),
            (429, NOW, "Too many requests", None),
            (429, "Tue, 20 Oct 2026 07:28:00 GMT", "Too many requests", None),
            (429, "in a while", "Too many requests", None),
            (429, "-7", "Too many requests", None),
            (429, "99999999999", "Too many requests", Some(LONGEST)),
            (429, "Tue, 31 Dec 2999 23:59:59 GMT", "Too many requests", Some(LONGEST)),
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

    /// What the client sends next.
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
        let mut asked = vec![0; 4096];
        let count = stream.read(&mut asked).await?;
        asked.truncate(count);
        Ok(asked)
    }

    /// Answers one request as the API server does.
    async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
        const ANSWER: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"}}"#;
        read(stream).await?;
        let length = ANSWER.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + ANSWER).as_bytes()).await
    }

    /// Speaks with one client as a proxy does, then as the API server, and returns what the client sent first.
    async fn tunnelled(
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> std::io::Result<String> {
        let asked = read(stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        serve(stream).await?;
        Ok(String::from_utf8_lossy(&asked).to_lowercase())
    }

    /// The same by SOCKS (RFC 1928, RFC 1929), and returns what the client sent before it was connected.
    async fn by_socks(
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> std::io::Result<Vec<u8>> {
        let mut asked = read(stream).await?;
        let method = if asked.contains(&2) { 2 } else { 0 };
        stream.write_all(&[5, method]).await?;
        if method == 2 {
            asked.extend(read(stream).await?);
            stream.write_all(&[1, 0]).await?;
        }
        asked.extend(read(stream).await?);
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await?;
        serve(stream).await?;
        Ok(asked)
    }

    /// Asks for a Pod through this proxy; `authority` is what the cluster trusts.
    async fn ask_through(proxy: &str, authority: Option<Vec<u8>>) -> kube::Result<Pod> {
        let mut config = Config::new("http://api.home.example:6443".parse().unwrap());
        config.proxy_url = Some(proxy.parse().unwrap());
        config.root_cert = authority.map(|it| vec![it]);
        let client = attentive(config, &Environment::default()).unwrap();
        Api::<Pod>::namespaced(client, "shop").get("web").await
    }

    /// The proxy was asked for the API server, in somebody's name, and the answer came through it.
    fn assert_tunnelled(asked: &str, pod: kube::Result<Pod>) {
        assert!(asked.starts_with("connect api.home.example:6443 "), "{asked}");
        assert!(asked.contains("proxy-authorization: basic "), "{asked}");
        assert_eq!(pod.unwrap().metadata.name.as_deref(), Some("web"));
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_api_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let serve = async { tunnelled(&mut listener.accept().await?.0).await };
        let (asked, pod) = tokio::join!(serve, ask_through(&proxy, None));
        assert_tunnelled(&asked.unwrap(), pod);
    }

    #[tokio::test]
    async fn a_proxy_that_speaks_tls_is_trusted_as_the_api_server_is() {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.clone()], secret).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("https://me:secret@{}", listener.local_addr().unwrap());
        let serve =
            async { tunnelled(&mut acceptor.accept(listener.accept().await?.0).await?).await };
        let authority = Some(certificate.to_vec());
        let (asked, pod) = tokio::join!(serve, ask_through(&proxy, authority));
        assert_tunnelled(&asked.unwrap(), pod);
    }

    #[tokio::test]
    async fn a_socks_proxy_looks_the_name_up_itself() {
        for (scheme, user) in [("socks5", ""), ("socks5h", ""), ("socks5", "me:secret@")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let proxy = format!("{scheme}://{user}{}", listener.local_addr().unwrap());
            let serve = async { by_socks(&mut listener.accept().await?.0).await };
            let (asked, pod) = tokio::join!(serve, ask_through(&proxy, None));
            let asked = String::from_utf8_lossy(&asked.unwrap()).into_owned();
            assert!(asked.contains("api.home.example"), "{asked:?}");
            assert_eq!(asked.contains("secret"), !user.is_empty(), "{asked:?}");
            assert_eq!(pod.unwrap().metadata.name.as_deref(), Some("web"), "{proxy}");
        }
    }

    #[tokio::test]
    async fn a_token_that_no_header_can_have_is_refused_and_not_shown() {
        let provider = |token: &str| json!({ "name": "oidc", "config": { "id-token": token } });
        for bad in ["topsecret\n", "top\nsecret", "topsecret\r\n", "topsecret\u{0}"] {
            for auth in [json!({ "token": bad }), json!({ "auth-provider": provider(bad) })] {
                let mut config = Config::new("https://api.home.example:6443".parse().unwrap());
                config.auth_info = serde_json::from_value(auth).unwrap();
                let error = attentive(config, &Environment::default()).err().unwrap().to_string();
                assert!(error.contains("it has a line break"), "{error}");
                assert!(!error.contains("secret"), "{error}");
            }
        }
        let mut config = Config::new("https://api.home.example:6443".parse().unwrap());
        config.auth_info.token = Some("topsecret".to_owned().into());
        assert!(attentive(config, &Environment::default()).is_ok());
    }

    /// What a client with these credentials asks an API server.
    async fn asked_with(auth: serde_json::Value) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let mut config = Config::new(server.parse().unwrap());
        config.auth_info = serde_json::from_value(auth).unwrap();
        let client = attentive(config, &Environment::default()).unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "shop");
        let asked = async {
            let mut stream = listener.accept().await?.0;
            let asked = read(&mut stream).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&asked).to_lowercase())
        };
        tokio::join!(asked, pods.get("web")).0.unwrap()
    }

    #[tokio::test]
    async fn the_api_server_is_asked_in_the_name_of_the_token_in_a_file() {
        let file = env::temp_dir().join(format!("arpeggio-asked-{}", std::process::id()));
        for written in ["topsecret", "topsecret\n"] {
            std::fs::write(&file, written).unwrap();
            let asked = asked_with(json!({ "tokenFile": file.display().to_string() })).await;
            assert!(asked.contains("authorization: bearer topsecret\r\n"), "{asked}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[tokio::test]
    async fn a_command_that_prints_a_token_is_run_once() {
        let file = env::temp_dir().join(format!("arpeggio-run-{}", std::process::id()));
        for expires in ["", r#", "expirationTimestamp": "2999-01-01T00:00:00Z""#] {
            let script = format!(
                r#"echo run >> {}; echo '{{"status": {{"token": "topsecret"{expires}}}}}'"#,
                file.display()
            );
            let exec =
                json!({ "command": "sh", "args": ["-c", script], "interactiveMode": "Never" });
            let asked = asked_with(json!({ "exec": exec })).await;
            assert!(asked.contains("authorization: bearer topsecret\r\n"), "{asked}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "run\n", "{expires}");
            std::fs::remove_file(&file).unwrap();
        }
    }

    #[tokio::test]
    async fn a_proxy_of_another_kind_is_refused_with_those_that_there_are() {
        let mut config = Config::new("https://api.home.example:6443".parse().unwrap());
        config.proxy_url = Some("ftp://proxy.example".parse().unwrap());
        let error = attentive(config, &Environment::default()).err().unwrap().to_string();
        assert!(error.contains("write http://, https:// or socks5://"), "{error}");
    }

    #[test]
    fn of_a_list_of_kubeconfigs_those_count_that_exist() {
        let folder = env::temp_dir().join(format!("arpeggio-kubeconfigs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let first = file("first", "current-context: home");
        let second = file("second", "current-context: other\ncontexts: [{name: home}]");
        let bad = file("bad", "{");
        let missing = folder.join("missing");
        let read = |files: &[&PathBuf]| listed(&env::join_paths(files).unwrap());
        let all = read(&[&missing, &first, &second]).unwrap().unwrap();
        assert_eq!((all.current_context.as_deref(), all.contexts.len()), (Some("home"), 1));
        assert!(read(&[&first, &bad]).unwrap().is_err());
        assert!(read(&[&first]).is_none(), "one file has to be there");
        assert!(read(&[&missing, &missing]).is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_server_without_a_scheme_is_asked_by_https() {
        let table = [
            ("192.168.1.10:6443", "https://192.168.1.10:6443/"),
            ("api.home.example", "https://api.home.example/"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
            (
                "https://rancher.example/k8s/clusters/c-1",
                "https://rancher.example/k8s/clusters/c-1",
            ),
        ];
        for (given, meant) in table {
            assert_eq!(with_scheme(given.parse().unwrap()).to_string(), meant);
        }
    }
}
