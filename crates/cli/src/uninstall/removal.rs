//! Removes, step by step, and says each step when it is done.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, bail};
use arpeggio_api::{
    address_pool::AddressPool,
    leader, lease,
    service::{FIELD_MANAGER, ServiceRecord},
};
use arpeggio_runtime::{failure::Failure, guarded::Guarded};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::Service,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::found::{CONTROLLER, Found, SPEAKER, bears_our_mark, record, what_it_has};

/// Between two looks whether something is gone.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a status is tried to be written that somebody else changes meanwhile.
const ATTEMPTS: u32 = 5;

/// Everything that a removal needs to know.
pub(super) struct Removal {
    client: Client,
    namespace: String,
    patience: Duration,
}

impl Removal {
    /// `patience`: how long the pods of each kind may take to end.
    pub(super) fn new(client: Client, namespace: &str, patience: Duration) -> Self {
        Self { client, namespace: namespace.to_owned(), patience }
    }

    /// A step that fails leaves the later ones undone; the command can be given again.
    pub(super) async fn remove(&self, found: &Found, with_pools: bool) -> anyhow::Result<()> {
        self.remove_workload::<Deployment>(CONTROLLER).await?;
        for service in &found.services {
            self.release(service).await?;
        }
        self.remove_workload::<DaemonSet>(SPEAKER).await?;
        self.remove_leases().await?;
        if !found.leases.is_empty() {
            anstream::println!("deleted the Leases in namespace {}", self.namespace);
        }
        if with_pools && !found.pools.is_empty() {
            self.remove_pools().await?;
            anstream::println!("deleted AddressPools {}", found.pools.join(", "));
        }
        Ok(())
    }

    /// Returns when its pods have ended: as long as one is there, it may write.
    async fn remove_workload<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("{} {}/{name}", K::kind(&()), self.namespace);
        let found = gone(api.delete(name, &DeleteParams::foreground()).await)
            .with_context(|| format!("cannot delete {what}"))?;
        if found.is_none() {
            return Ok(());
        }
        let end = Instant::now() + self.patience;
        while api.get_metadata_opt(name).await?.is_some() {
            if Instant::now() >= end {
                bail!(
                    "pods of {what} are still there after {} s (kubectl get pods -n {} -o wide). Those on a node that is gone end by \
                     'kubectl delete pod --force'. Then give this command again",
                    self.patience.as_secs(),
                    self.namespace
                );
            }
            sleep(PAUSE).await;
        }
        anstream::println!("deleted {what}");
        Ok(())
    }

    /// Takes what is ours out of a Service's status. What others wrote there stays.
    async fn release(&self, known: &ServiceRecord) -> anyhow::Result<()> {
        let services: Api<Guarded<Service>> =
            Api::namespaced(self.client.clone(), &known.service.namespace);
        let name = &known.service.name;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        for _ in 0..ATTEMPTS {
            let service = services.get_opt(name).await.context("cannot read a Service")?;
            let service = service
                .map(Guarded::understood)
                .transpose()
                .context("a Service is not understood")?;
            let Some(service) = service.filter(bears_our_mark) else { return Ok(()) };
            let patch = Patch::Apply(nothing_of_ours(&record(&service)));
            match services.patch_status(name, &params, &patch).await {
                Ok(_) => {
                    anstream::println!("released Service {}", what_it_has(known));
                    return Ok(());
                }
                Err(error) if Failure::from(&error).tells_of_change() => {}
                Err(error) => {
                    let what = format!("cannot write the status of Service {}", known.path());
                    return Err(error).context(what);
                }
            }
        }
        bail!(
            "the status of Service {} changes all the time: somebody else writes it, see its metadata.managedFields",
            known.path()
        )
    }

    async fn remove_leases(&self) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let ours = ListParams::default().labels(lease::EVERY_SELECTOR);
        let deleted = leases.delete_collection(&DeleteParams::default(), &ours).await;
        gone(deleted).context("cannot delete Leases")?;
        gone(leases.delete(leader::NAME, &DeleteParams::default()).await)
            .context("cannot delete the leader's Lease")?;
        Ok(())
    }

    async fn remove_pools(&self) -> anyhow::Result<()> {
        // What was deleted is answered, and one whose spec is not understood has a name, too.
        let pools: Api<PartialObjectMeta<AddressPool>> = Api::all(self.client.clone());
        gone(pools.delete_collection(&DeleteParams::default(), &ListParams::default()).await)
            .context("cannot delete AddressPools")?;
        Ok(())
    }
}

/// The server-side apply that says nothing: what we said before and others did not is removed, and our name with it. An empty
/// `status` would still be ours.
fn nothing_of_ours(record: &ServiceRecord) -> Value {
    json!({
        "apiVersion": Service::api_version(&()),
        "kind": Service::kind(&()),
        "metadata": {
            "name": record.service.name,
            "namespace": record.service.namespace,
            "uid": record.service.uid,
            "resourceVersion": record.version.to_string(),
        },
    })
}

/// That it was not there is as good as its deletion.
fn gone<T>(deleted: kube::Result<T>) -> kube::Result<Option<T>> {
    match deleted {
        Ok(deleted) => Ok(Some(deleted)),
        Err(error) if Failure::from(&error) == Failure::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::{client::Body, core::Status};

    use super::*;

    #[tokio::test]
    async fn pools_that_are_not_understood_are_deleted_too() {
        let answer = |request: Request<Body>| async move {
            assert_eq!(request.method(), "DELETE");
            let pool = json!({ "metadata": { "name": "newer" }, "spec": { "addresses": [7] } });
            let deleted = json!({ "metadata": {}, "items": [pool] });
            Response::builder().status(200).body(Body::from(deleted.to_string().into_bytes()))
        };
        let client = Client::new(tower::service_fn(answer), "default");
        Removal::new(client, "lb", Duration::from_secs(1)).remove_pools().await.unwrap();
    }

    /// A webhook denies with whichever code it likes.
    #[test]
    fn what_is_denied_is_not_gone() {
        let answer = |words: &str| {
            let status = Status::failure(words, "").with_code(404);
            gone::<()>(Err(kube::Error::Api(Box::new(status))))
        };
        assert!(answer("leases \"a\" not found").is_ok_and(|it| it.is_none()));
        assert!(answer("admission webhook \"a\" denied the request: kept").is_err());
    }
}
