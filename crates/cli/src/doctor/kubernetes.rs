//! Reading from the API server, with bounds, and what to say where it cannot be done.

use std::{fmt::Debug, future::Future, time::Duration};

use arpeggio_api::metallb::LegacyPool;
use arpeggio_doctor::Known;
use futures::{StreamExt as _, stream};
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    complaint::words,
    gaps::{Gap, Reading},
    reader,
};

/// How long the API server has for one request.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// So many requests are under way at once.
pub(super) const AT_ONCE: usize = 8;

/// The objects that `params` select.
pub(super) async fn list<K>(api: &Api<K>, params: &ListParams) -> Known<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = within(PATIENCE, reader::list(api, params)).await?;
    listed.map_err(|gap| gap.to_string())
}

/// All of a kind that need not be installed.
pub(super) async fn list_if_installed<K>(api: &Api<K>) -> Known<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = ListParams::default();
    let listed = within(PATIENCE, reader::list_if_installed(api, &all)).await?;
    listed.map_err(|gap| gap.to_string())
}

/// `MetalLB`'s `AddressPool`s, in whatever version the API server shows them.
pub(super) async fn legacy_pools(client: &Client, namespace: &str) -> Known<Vec<LegacyPool>> {
    let listed = within(PATIENCE, reader::list_legacy_pools(client, namespace)).await?;
    listed.map_err(|gap| gap.to_string())
}

/// The object of this name, if there is one.
pub(super) async fn get<K>(api: &Api<K>, name: &str) -> Known<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = within(PATIENCE, api.get_opt(name)).await?;
    let reading = || Reading::of::<K>(api.namespace()).to("get");
    found.map_err(|error| Gap::of(reading(), &error).to_string())
}

/// What the API server makes of an object that it keeps nowhere.
pub(super) async fn create<K>(api: &Api<K>, object: &K) -> Known<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let params = PostParams::default();
    let created = within(PATIENCE, api.create(&params, object)).await?;
    let reading = || Reading::of::<K>(api.namespace()).to("create");
    created.map_err(|error| Gap::of(reading(), &error).to_string())
}

/// What comes in time.
pub(super) async fn within<T>(patience: Duration, answer: impl Future<Output = T>) -> Known<T> {
    timeout(patience, answer).await.map_err(|_| format!("no answer within {patience:?}"))
}

/// Whatever the API server answers in time.
pub(super) async fn asked<T>(answer: impl Future<Output = kube::Result<T>>) -> Known<T> {
    within(PATIENCE, answer).await?.map_err(|error| words(&error))
}

/// Does all of it, some at once, in the order given.
pub(super) async fn each<I, T, F>(items: Vec<I>, act: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    stream::iter(items.into_iter().map(act)).buffered(AT_ONCE).collect().await
}
