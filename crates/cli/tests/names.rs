//! An API server that the kubeconfig names by a host name: it is looked up by DNS, as `/etc/resolv.conf` says.
#![cfg(test)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;
use namespace::Namespace;

/// A name that no hosts file has, and only a search domain completes.
const NAME: &str = "api";
const DOMAIN: &str = "lab.test";
const REFUSAL: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"you need the permission"}"#;

/// A name server; it ends with the test.
struct NameServer(Child);

impl NameServer {
    fn start(namespace: &Namespace) -> Self {
        let address = format!("--address=/{NAME}.{DOMAIN}/127.0.0.2");
        let started = namespace.run(|| {
            Command::new("dnsmasq")
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                ])
                .args([
                    "--listen-address=127.0.0.3",
                    "--bind-interfaces",
                    "--user=root",
                    "--pid-file",
                ])
                .arg(&address)
                .stderr(Stdio::null())
                .spawn()
        });
        Self(started.expect("install dnsmasq-base"))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Refuses everything that it is asked, in words.
fn refuse_all(server: &TcpListener) {
    for connection in server.incoming() {
        let Ok(mut connection) = connection else { continue };
        let _ = connection.read(&mut [0; 4096]);
        let length = REFUSAL.len();
        let _ = write!(
            connection,
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{REFUSAL}"
        );
    }
}

fn write_files(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let resolv = format!("nameserver 127.0.0.3\nsearch {DOMAIN}\noptions timeout:1 attempts:2\n");
    fs::write(folder.join("resolv.conf"), resolv).unwrap();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{NAME}:6443'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n"
    );
    fs::write(folder.join("kubeconfig"), kubeconfig).unwrap();
}

/// `arpeggio status`, with a `/etc/resolv.conf` of its own and no proxy.
fn status(namespace: &Namespace, folder: &Path) -> Output {
    let inside =
        "mount --bind resolv.conf /etc/resolv.conf && exec \"$0\" status --kubeconfig kubeconfig";
    namespace.run(|| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", inside, env!("CARGO_BIN_EXE_arpeggio")])
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .unwrap()
    })
}

#[test]
fn the_api_server_is_found_by_its_name() {
    let Some([here]) = Namespace::several() else { return };
    here.ip("link set lo up");
    let folder: PathBuf =
        std::env::temp_dir().join(format!("arpeggio-names-{}", std::process::id()));
    write_files(&folder);
    let server = here.run(|| TcpListener::bind("127.0.0.2:6443")).unwrap();
    thread::spawn(move || refuse_all(&server));
    let _names = NameServer::start(&here);
    // The name server needs a moment.
    let start = Instant::now();
    let said = loop {
        let output = status(&here, &folder);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if said.contains("you need the permission") || start.elapsed() > Duration::from_mins(1) {
            break said;
        }
        thread::sleep(Duration::from_millis(50));
    };
    fs::remove_dir_all(&folder).unwrap();
    assert!(said.contains("you need the permission"), "{said}");
}
