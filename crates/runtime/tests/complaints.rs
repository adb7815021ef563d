//! What a process keeps of objects that it does not understand.
#![cfg(test)]

use arpeggio_runtime::{
    health::Health,
    watch::{Haste, Watch},
};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    client::Body,
    runtime::watcher::{Config, Event as Shown},
};
use serde_json::{Value, json};

/// Most processes never ask for complaints.
#[tokio::test]
async fn complaints_are_as_many_as_there_are_bad_objects() {
    let nobody = tower::service_fn(|_: axum::http::Request<Body>| {
        std::future::pending::<Result<axum::http::Response<Body>, std::io::Error>>()
    });
    let services = Api::all(Client::new(nobody, "default"));
    let awaited = Health::default().awaits("Services");
    let mut watch: Watch<Service> =
        Watch::new(services, Config::default(), Haste::Patient, awaited);
    let mut show = |name: &str, ports: Value| {
        let object = json!({ "metadata": { "name": name }, "spec": { "ports": ports } });
        watch.pass(Ok(Shown::Apply(serde_json::from_value(object).unwrap())));
    };
    for number in 0..100 {
        show("stays", json!(number));
        show("mended", json!(number));
        show("mended", json!([]));
    }
    let told = watch.take_complaints().into_iter().filter_map(|it| it.object.name);
    assert_eq!(told.collect::<Vec<_>>(), ["stays"]);
}
