//! The whole controller before an API server that does not show everything.

use std::sync::{Arc, Mutex};

use arpeggio_allocation::Periods;
use arpeggio_api::leader;
use arpeggio_runtime::events::EventQueue;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::sources::MetalLbPlace;

/// An API server with a Service that asks for an address, and two pools.
#[derive(Clone)]
struct Server {
    /// The part of paths that it answers with this code, which is none of success.
    refuses: Arc<Mutex<&'static str>>,
    code: u16,
    /// Whether the only pool is one of `MetalLB`'s old kind, in the version that came first.
    is_old: bool,
    /// The methods and paths of what it was asked to write.
    writes: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(refuses: &'static str) -> Self {
        let refuses = Arc::new(Mutex::new(refuses));
        Self { refuses, code: 500, is_old: false, writes: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let answer = server.answer(&request);
                async move {
                    let Some((code, body)) = answer else { return std::future::pending().await };
                    let body = Body::from(body.to_string().into_bytes());
                    Response::builder().status(code).body(body)
                }
            }),
            "lb",
        )
    }

    /// Watches and writes are never answered.
    fn answer(&self, request: &Request<Body>) -> Option<(u16, Value)> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if request.method() != Method::GET {
            self.writes.lock().unwrap().push(format!("{} {path}", request.method()));
            return None;
        }
        let refuses = *self.refuses.lock().unwrap();
        let is_refused = match refuses {
            "" => false,
            "/api/v1/namespaces" => path == refuses,
            part => path.contains(part),
        };
        if is_refused {
            let message = "conversion webhook for metallb.io failed: no endpoints available";
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": self.code,
                "message": message,
            });
            return Some((self.code, status));
        }
        if query.contains("watch=true") {
            return None;
        }
        let metadata = json!({ "resourceVersion": "9" });
        let items = items(path, query, self.is_old);
        let list =
            json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items });
        Some((200, list))
    }

    fn has_claimed(&self) -> bool {
        let writes = self.writes.lock().unwrap();
        writes.iter().any(|it| it == "POST /apis/coordination.k8s.io/v1/namespaces/lb/leases")
    }
}

fn items(path: &str, query: &str, is_old: bool) -> Vec<Value> {
    let metadata = |name: &str, namespace: &str| {
        let created = "2026-01-01T00:00:00Z";
        json!({
            "name": name, "namespace": namespace, "uid": name, "resourceVersion": "1", "creationTimestamp": created,
        })
    };
    if path.ends_with("/services") {
        let ports = json!([{ "port": 80 }]);
        let spec = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": ports });
        vec![json!({ "metadata": metadata("web", "default"), "spec": spec })]
    } else if path.ends_with("/namespaces") {
        vec![json!({ "metadata": { "name": "default" } })]
    } else if path.contains("metallb.io/v1alpha1") && is_old {
        let spec = json!({ "protocol": "layer2", "addresses": ["10.0.2.1/32"] });
        vec![json!({ "metadata": metadata("old", "metallb-system"), "spec": spec })]
    } else if path.contains("arpeggio.dev") && !is_old {
        vec![json!({ "metadata": metadata("home", ""), "spec": { "addresses": ["10.0.0.1"] } })]
    } else if path.contains("namespaces/lb/configmaps") && !is_old {
        let text = "address-pools: [{name: file, addresses: [10.0.1.1]}]";
        vec![json!({ "metadata": metadata("pools", "lb"), "data": { "config": text } })]
    } else if path.ends_with("/leases") && query.contains("fieldSelector") {
        vec![json!({ "metadata": metadata(leader::NAME, "lb"), "spec": {} })]
    } else {
        Vec::new()
    }
}

/// A controller that leads without an election, and reads all kinds.
fn start(server: &Server) -> (Health, tokio::task::JoinHandle<()>) {
    let (client, health) = (server.client(), Health::default());
    let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
    let shutdown = Shutdown::on_signal().unwrap();
    let known = health.awaits("the leader Lease");
    let leadership = Leadership::new(client.clone(), "lb", ("one", true), known, shutdown.clone());
    let (events, _) = EventQueue::new(metrics.events_lost.clone());
    let executor = Executor::new(client.clone(), "lb".into(), None, events, metrics.clone());
    let metallb = MetalLbPlace { namespace: "metallb-system".into(), config_map: "config".into() };
    let places = Places {
        namespace: "lb".into(),
        config_map: "pools".into(),
        key: "config".into(),
        metallb: Some(metallb),
    };
    let index = Index::new(None, Periods::default());
    let controller =
        Controller::new(&client, &places, index, leadership, executor, &health, metrics);
    let running = tokio::spawn(async move { Box::pin(controller.run(&shutdown)).await });
    (health, running)
}

#[tokio::test(start_paused = true)]
async fn only_services_and_leases_are_needed() {
    let kinds = [
        "arpeggio.dev/v1alpha1/addresspools",
        "ipaddresspools",
        "metallb-system/addresspools",
        "l2advertisements",
        "namespaces/lb/configmaps",
        "namespaces/metallb-system/configmaps",
        "/api/v1/namespaces",
        "nodes",
        "servicecidrs",
    ];
    for kind in kinds {
        let server = Server::new(kind);
        let (health, running) = start(&server);
        tokio::time::sleep(Duration::from_secs(45)).await;
        assert!(!server.has_claimed() && !health.missing().is_empty(), "{kind}: it may come yet");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(health.missing().is_empty(), "{kind}: {:?}", health.missing());
        assert!(server.has_claimed(), "{kind}: no address");
        let forgone = health.forgone();
        let is_told = forgone.iter().all(|it| it.contains("conversion webhook"));
        assert!(is_told && !forgone.is_empty(), "{forgone:?}");
        // It is shown again.
        *server.refuses.lock().unwrap() = "";
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(health.forgone().is_empty(), "{kind}");
        running.abort();
    }
}

/// MetalLB's operator up to 4.9 has no other version, and with MetalLB's webhook gone objects are only shown in the version in
/// which they are stored.
#[tokio::test(start_paused = true)]
async fn pools_of_metallb_s_old_kind_are_found_in_the_version_that_there_is() {
    for (code, seconds) in [(404, 5), (500, 90)] {
        let server = Server::new("v1beta1/namespaces/metallb-system/addresspools");
        let server = Server { code, is_old: true, ..server };
        let (health, running) = start(&server);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert!(
            server.has_claimed() && health.missing().is_empty(),
            "{code}: {:?}",
            health.missing()
        );
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn without_services_or_leases_nothing_is_decided_and_nothing_given_up() {
    for kind in ["api/v1/services", "leases", "api"] {
        let server = Server::new(kind);
        let (health, running) = start(&server);
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(!server.has_claimed() && !health.missing().is_empty(), "{kind}");
        assert!(health.forgone().is_empty(), "{kind}");
        running.abort();
    }
}
