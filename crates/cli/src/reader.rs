//! Reading objects from the API server, where some of them may not be for the user to read.

use std::fmt::Debug;

use arpeggio_api::metallb::{LegacyPool, OldestPool};
use arpeggio_runtime::guarded::Guarded;
use kube::{
    Api, Client, Resource,
    api::ListParams,
    core::{ClusterResourceScope, NamespaceResourceScope, ObjectList, Request},
};
use serde::de::DeserializeOwned;

use crate::gaps::{Gap, Reading};

/// The objects that `params` select, or why none of them could be read. For who cannot do without: [`Reader`] goes on.
pub(crate) async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Gap>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let reading = Reading::of::<K>(api.namespace());
    let listed = guarded(api, params).await.map_err(|error| Gap::of(reading.clone(), &error))?;
    let understood: Result<Vec<K>, _> = listed.items.into_iter().map(Guarded::understood).collect();
    understood.map_err(|invalid| Gap::malformed(reading, *invalid))
}

/// What [`Api::list`] asks for. Others may have written on each object.
async fn guarded<K>(api: &Api<K>, params: &ListParams) -> kube::Result<ObjectList<Guarded<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let request = Request::new(api.resource_url()).list(params);
    let request = request.map_err(kube::Error::BuildRequest)?;
    api.clone().into_client().request(request).await
}

/// The same of a kind that need not be installed: none are there then.
pub(crate) async fn list_if_installed<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Gap>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match list(api, params).await {
        Err(Gap::UnknownKind(_)) => Ok(Vec::new()),
        listed => listed,
    }
}

/// `MetalLB`'s `AddressPool`s, in whatever version the API server shows them; none where it knows none.
pub(crate) async fn list_legacy_pools(
    client: &Client,
    namespace: &str,
) -> Result<Vec<LegacyPool>, Gap> {
    let all = ListParams::default();
    let present = list(&Api::namespaced(client.clone(), namespace), &all).await;
    let Err(gap) = present else { return present };
    let oldest: Api<OldestPool> = Api::namespaced(client.clone(), namespace);
    match list(&oldest, &all).await {
        Ok(pools) => Ok(pools.into_iter().map(LegacyPool::from).collect()),
        Err(_) if matches!(gap, Gap::UnknownKind(_)) => Ok(Vec::new()),
        Err(_) => Err(gap),
    }
}

/// Reads, and takes note of what could not be read.
pub(crate) struct Reader {
    client: Client,
    pub(crate) gaps: Vec<Gap>,
}

impl Reader {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, gaps: Vec::new() }
    }

    /// The objects of a kind in all namespaces, or of one that has none.
    pub(crate) async fn all<K>(&mut self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.everywhere(&ListParams::default()).await
    }

    /// Those of them that `params` select.
    pub(super) async fn everywhere<K>(&mut self, params: &ListParams) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.list(Api::all(self.client.clone()), params).await
    }

    /// The objects of a kind in a namespace that `params` select.
    pub(crate) async fn inside<K>(&mut self, namespace: &str, params: &ListParams) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = Api::namespaced(self.client.clone(), namespace);
        self.list(api, params).await
    }

    /// `MetalLB`'s `AddressPool`s in a namespace, or in all, in whatever version the API server shows them.
    pub(crate) async fn legacy_pools(&mut self, namespace: Option<&str>) -> Vec<LegacyPool> {
        let (all, before) = (ListParams::default(), self.gaps.len());
        let present = self.list(self.api(namespace), &all).await;
        let gaps = self.gaps.split_off(before);
        if gaps.is_empty() || !present.is_empty() {
            self.gaps.extend(gaps);
            return present;
        }
        let oldest = self.list::<OldestPool>(self.api(namespace), &all).await;
        if self.gaps.len() > before {
            // What is told is why the present version is not shown.
            self.gaps.truncate(before);
            self.gaps.extend(gaps);
        }
        self.excuse::<LegacyPool>(namespace);
        oldest.into_iter().map(LegacyPool::from).collect()
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<Guarded<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// One object of a kind without namespaces; for want of a permission to list them all.
    pub(crate) async fn one<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        // That something is missing was noted when all were asked for.
        let api: Api<Guarded<K>> = Api::all(self.client.clone());
        api.get_opt(name).await.ok().flatten()?.0.ok()
    }

    async fn list<K>(&mut self, api: Api<Guarded<K>>, params: &ListParams) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        match list(&api, params).await {
            Ok(objects) => understood(&Reading::of::<K>(api.namespace()), objects, &mut self.gaps),
            Err(gap) => {
                self.gaps.push(gap);
                Vec::new()
            }
        }
    }

    /// Whether the API server has failed to list this kind, as it would for others.
    pub(crate) fn has_failed<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
    ) -> bool {
        let reading = Reading::of::<K>(namespace);
        self.gaps.iter().any(|gap| matches!(gap, Gap::Failed(of, _) if *of == reading))
    }

    /// Forgets that this kind is not installed, since it need not be.
    pub(crate) fn excuse<K: Resource<DynamicType = ()>>(&mut self, namespace: Option<&str>) {
        let absent = Gap::UnknownKind(Reading::of::<K>(namespace));
        self.gaps.retain(|gap| *gap != absent);
    }
}

/// Those objects that can be decoded.
fn understood<K>(reading: &Reading, objects: Vec<Guarded<K>>, gaps: &mut Vec<Gap>) -> Vec<K> {
    let note = |object: Guarded<K>| {
        object.0.map_err(|invalid| gaps.push(Gap::malformed(reading.clone(), invalid))).ok()
    };
    objects.into_iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Service;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that has an `AddressPool` of `MetalLB`'s in version v1alpha1, if `known`, and answers with this code in the
    /// other one.
    fn server(code: u16, known: bool) -> Client {
        let answer = move |request: Request<Body>| async move {
            let is_oldest = request.uri().path().contains("/v1alpha1/");
            let object = json!({
                "metadata": { "name": "lan" },
                "spec": { "protocol": "layer2", "addresses": ["10.0.0.0/28"] },
            });
            let list =
                json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": [object] });
            let status = |code| {
                (
                    code,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code }),
                )
            };
            let (code, body) = match (is_oldest, known) {
                (true, true) => (200, list),
                (true, false) => status(404),
                (false, _) => status(code),
            };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn pools_of_metallb_s_old_kind_are_read_in_the_version_that_there_is() {
        for (code, known, names, told) in
            [(404, true, 1, 0), (500, true, 1, 0), (404, false, 0, 0), (500, false, 0, 1)]
        {
            let client = server(code, known);
            for namespace in [Some("m"), None] {
                let mut reader = Reader::new(client.clone());
                let pools = reader.legacy_pools(namespace).await;
                assert_eq!((pools.len(), reader.gaps.len()), (names, told), "{:?}", reader.gaps);
            }
            let listed = list_legacy_pools(&client, "m").await;
            assert_eq!(
                listed.map_or(usize::MAX, |it| it.len()),
                if told > 0 { usize::MAX } else { names }
            );
        }
    }

    /// Whoever may write conditions on a Service keeps nobody from listing Services.
    #[tokio::test]
    async fn what_others_write_on_one_object_spoils_no_list() {
        let answer = move |_: Request<Body>| async move {
            let condition = json!({ "type": "example.com/Checked", "status": "True", "lastTransitionTime": null });
            let object =
                json!({ "metadata": { "name": "web" }, "status": { "conditions": [condition] } });
            let list = json!({ "kind": "ServiceList", "apiVersion": "v1", "metadata": {}, "items": [object] });
            Response::builder().body(Body::from(list.to_string().into_bytes()))
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let services: Api<Service> = Api::all(client);
        assert_eq!(list(&services, &ListParams::default()).await.unwrap().len(), 1);
    }

    #[test]
    fn what_can_be_decoded_is_used_and_the_rest_is_named() {
        let object = |name: &str, spec: serde_json::Value| -> Guarded<Service> {
            let object = json!({ "metadata": { "name": name }, "spec": spec });
            serde_json::from_value(object).unwrap()
        };
        let objects = vec![object("good", json!({})), object("bad", json!({ "ports": 7 }))];
        let mut gaps = Vec::new();
        let good = understood(&Reading::of::<Service>(None), objects, &mut gaps);
        assert_eq!(good.len(), 1);
        let said = gaps.iter().map(ToString::to_string).collect::<String>();
        let expected =
            "services (API group \"\", cluster-wide): the object \"bad\" cannot be read: ";
        assert!(said.starts_with(expected), "{said}");
    }
}
