//! The API server, asked from the client's network with an administrator's access.

use std::fs;

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

/// How many requests are under way at once when there is much to create.
pub(crate) const CONNECTIONS: usize = 32;

/// Runs asynchronous work with a client. All of its sockets are opened inside of the client's network.
pub(crate) fn run<T: Send>(
    lab: &Lab,
    work: impl AsyncFnOnce(Client) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let kubeconfig = fs::read_to_string(lab.folders().kubeconfig())
        .context("cannot read the lab's kubeconfig")?;
    lab.namespace(Machine::Client).enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { work(connect(&kubeconfig).await?).await })
    })?
}

/// Creates objects, many at once.
pub(crate) async fn create_all<K>(
    api: &Api<K>,
    objects: impl Iterator<Item = Value>,
) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let creates = stream::iter(objects).map(|object| create(api, object));
    creates.buffer_unordered(CONNECTIONS).try_collect::<()>().await
}

/// Creates an object.
pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await.context("an object was not created")?;
    Ok(())
}

/// Connects lazily.
async fn connect(kubeconfig: &str) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("the kubeconfig is damaged")?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.context("the kubeconfig does not fit")?).context("no client")
}
