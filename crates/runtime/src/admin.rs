//! The local HTTP page of a process: `/livez`, `/readyz`, `/metrics`.
//!
//! It is served on a TCP port, for Prometheus, and optionally on a unix socket, for the kubelet's exec probes. The TCP
//! port is opened with `SO_REUSEPORT`: during an upgrade two speakers of one node run side by side in the host's
//! network, and the second must be able to start. For the same reason the speaker's probes do not use the port (the
//! other process might answer) but the socket in the pod's own volume, by way of [`HealthArgs`].

mod limit;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware::map_response,
    response::Response,
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
};

use crate::{health::Health, telemetry::causes};

/// Longest time for one local check.
const CHECK_LIMIT: Duration = Duration::from_secs(3);

/// The pause after a TCP port was not to be had: whoever has it may end.
const RETRY: Duration = Duration::from_secs(10);

/// What the page shows.
#[derive(Debug)]
pub struct Admin {
    sources: Sources,
    /// What only the unix socket has.
    local: Router,
}

/// Where the page comes from.
#[derive(Debug, Clone)]
struct Sources {
    health: Health,
    registry: Registry,
}

/// Where the page is served; for `#[command(flatten)]`.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address and port of /metrics, /livez and /readyz; `[::]` means every address of both families.
    #[arg(long, env = "ARPEGGIO_ADMIN_ADDRESS", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,
    /// Unix socket that serves the same, for probes by exec.
    #[arg(long, env = "ARPEGGIO_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
}

/// A question for the health of a process that runs, by the kubelet's exec probes; the arguments of a subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthArgs {
    /// What to ask for.
    page: Page,
    #[command(flatten)]
    socket: SocketArgs,
}

/// A process that runs; for `#[command(flatten)]`, or the arguments of a subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct SocketArgs {
    /// The running process's --admin-socket.
    #[arg(long, env = "ARPEGGIO_ADMIN_SOCKET", value_name = "PATH")]
    socket: PathBuf,
}

/// A question about health.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Page {
    /// Is it working, or stuck?
    Live,
    /// Does it have what it needs before it counts, its first lists among it?
    Ready,
}

impl HealthArgs {
    /// Asks.
    ///
    /// # Errors
    /// When nothing answers, or the process is not well; the message says what it waits for.
    pub async fn ask(&self) -> Result<(), AdminError> {
        let page = match self.page {
            Page::Live => "/livez",
            Page::Ready => "/readyz",
        };
        self.socket.read(page).await.map(drop)
    }
}

impl SocketArgs {
    /// What the process says there.
    ///
    /// # Errors
    /// When nothing answers, or the process has no such page or is not well; the message says what it says.
    pub async fn read(&self, page: &str) -> Result<String, AdminError> {
        read(&self.socket, page).await
    }
}

/// Why the page cannot be served, or a check failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The TCP port is not to be had.
    #[error("cannot serve metrics on {address}: choose another with --admin-address")]
    Port {
        /// What was asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The unix socket is not to be had.
    #[error("cannot serve probes on {}: the folder must exist and be writable", path.display())]
    Socket {
        /// What was asked for.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing answers at the socket.
    #[error("nothing answers at {}", path.display())]
    Unreachable {
        /// What was asked.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The process says that it is not well.
    #[error("{0}")]
    Unwell(String),
}

impl Admin {
    /// Of a process with this health and these metrics.
    pub fn new(health: Health, registry: Registry) -> Self {
        Self { sources: Sources { health, registry }, local: Router::new() }
    }

    /// With a further page, which is not for everybody who reaches the port: the unix socket alone has it.
    #[must_use]
    pub fn with_local(
        self,
        path: &str,
        page: impl Fn() -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        Self { local: self.local.route(path, get(async move || page())), ..self }
    }

    /// Opens the listeners and serves them on tasks of their own until the runtime ends.
    ///
    /// # Errors
    /// When a listener cannot be opened; the TCP port is worth an error only where probes depend on it. Else it is served
    /// once it can be had.
    pub fn serve(self, args: &AdminArgs) -> Result<(), AdminError> {
        self.serve_with(args, RETRY)
    }

    fn serve_with(self, args: &AdminArgs, retry: Duration) -> Result<(), AdminError> {
        let router = self.sources.router();
        let tcp = listen(args.admin_address)
            .map_err(|source| AdminError::Port { address: args.admin_address, source });
        match tcp {
            Ok(tcp) => _ = tokio::spawn(serve_tcp(tcp, router.clone())),
            // Where probes have a socket of their own, metrics alone do not decide over the process.
            Err(error) if args.admin_socket.is_some() => {
                tracing::error!(error = %causes(&error), "there are no metrics until the port is free");
                tokio::spawn(serve_tcp_later(args.admin_address, retry, router.clone()));
            }
            Err(error) => return Err(error),
        }
        if let Some(path) = &args.admin_socket {
            let unix = listen_unix(path)
                .map_err(|source| AdminError::Socket { path: path.clone(), source })?;
            tokio::spawn(serve_unix(unix, router.merge(self.local)));
        }
        Ok(())
    }
}

impl Sources {
    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn serve_tcp(listener: TcpListener, router: Router) {
    let router = one_request(router);
    if let Err(error) = axum::serve(limit::Limited::new(listener), router).await {
        tracing::error!(error = %causes(&error), "the admin port is closed");
    }
}

/// Closes each connection after its first answer: who wants another one has to wait for a connection like everybody else.
fn one_request(router: Router) -> Router {
    router.layer(map_response(async |mut response: Response| {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}

/// Serves a port that others have, once they do not have it any more.
async fn serve_tcp_later(address: SocketAddr, retry: Duration, router: Router) {
    let listener = loop {
        tokio::time::sleep(retry).await;
        if let Ok(listener) = listen(address) {
            break listener;
        }
    };
    tracing::info!(%address, "there are metrics now");
    serve_tcp(listener, router).await;
}

async fn serve_unix(listener: UnixListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(error = %causes(&error), "the admin socket is closed");
    }
}

async fn livez(State(admin): State<Sources>) -> (StatusCode, String) {
    verdict("stuck", &admin.health.stuck())
}

async fn readyz(State(admin): State<Sources>) -> (StatusCode, String) {
    let (status, text) = verdict("waiting for", &admin.health.missing());
    let forgone = admin.health.forgone();
    if forgone.is_empty() {
        return (status, text);
    }
    (status, format!("{text}going on without: {}\n", forgone.join(", ")))
}

fn verdict(complaint: &str, parts: &[String]) -> (StatusCode, String) {
    if parts.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{complaint}: {}\n", parts.join(", ")))
    }
}

async fn metrics(State(admin): State<Sources>) -> (StatusCode, String) {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// `[::]` stands for all addresses of both families, and for those of IPv4 where the kernel has no IPv6.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_on(address) {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            listen_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    TcpListener::from_std(socket.into())
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // A socket that an earlier container of the same pod left behind.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Asks a process for a page at its unix socket.
///
/// # Errors
/// When nothing answers, or the process is not well; the message says what it waits for.
async fn read(socket: &Path, page: &str) -> Result<String, AdminError> {
    let answer = tokio::time::timeout(CHECK_LIMIT, ask(socket, page))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| AdminError::Unreachable { path: socket.to_owned(), source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(AdminError::Unwell(body.trim().to_owned()))
    }
}

async fn ask(socket: &Path, page: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("arpeggio-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn the_socket_tells_what_is_missing_and_when_all_is_well() {
        let folder = folder("admin");
        let path = folder.join("admin.sock");
        let health = Health::default();
        let leases = health.awaits("leases");
        let registry = crate::telemetry::registry().unwrap();
        let args = AdminArgs {
            admin_address: "127.0.0.1:0".parse().unwrap(),
            admin_socket: Some(path.clone()),
        };
        let admin = Admin::new(health, registry).with_local("/secret", || "here\n".to_owned());
        admin.serve(&args).unwrap();

        read(&path, "/livez").await.unwrap();
        let unwell = read(&path, "/readyz").await.unwrap_err().to_string();
        assert_eq!(unwell, "waiting for: leases");
        leases.done();
        read(&path, "/readyz").await.unwrap();
        assert_eq!(read(&path, "/secret").await.unwrap(), "here\n");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_second_process_can_listen_on_the_same_port() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        listen(first.local_addr().unwrap()).unwrap();
    }

    /// The kubelet asks at the pod's first address, of whichever family that is.
    #[tokio::test]
    async fn all_addresses_of_both_families_are_served() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            tokio::net::TcpStream::connect(address).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_costs_the_metrics_and_not_the_process() {
        let folder = folder("taken");
        let path = folder.join("admin.sock");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin_address = taken.local_addr().unwrap();
        let admin = || Admin::new(Health::default(), crate::telemetry::registry().unwrap());
        let with_socket = AdminArgs { admin_address, admin_socket: Some(path.clone()) };
        admin().serve_with(&with_socket, Duration::from_millis(20)).unwrap();
        read(&path, "/livez").await.unwrap();
        let alone = AdminArgs { admin_address, admin_socket: None };
        assert!(matches!(admin().serve(&alone), Err(AdminError::Port { .. })));
        drop(taken);
        let page = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Ok(page) = ask_port(admin_address, "/metrics").await {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(page.await.unwrap().contains("arpeggio_build_info"), "the port is free");
        std::fs::remove_dir_all(folder).unwrap();
    }

    async fn ask_port(address: SocketAddr, page: &str) -> io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = read(Path::new("/nonexistent/admin.sock"), "/livez").await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/admin.sock"), "{error}");
    }
}
