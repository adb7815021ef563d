//! Reading objects from the API server, where some of them may not be for the user to read.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource,
    api::ListParams,
    core::{ClusterResourceScope, DeserializeGuard, NamespaceResourceScope},
};
use serde::de::DeserializeOwned;

use crate::gaps::{Gap, Reading};

/// The objects that `params` select, or why none of them could be read. For who cannot do without: [`Reader`] goes on.
pub(crate) async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Gap>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = api.list(params).await;
    listed
        .map(|list| list.items)
        .map_err(|error| Gap::of(Reading::of::<K>(api.namespace()), &error))
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

    /// One object of a kind without namespaces; for want of a permission to list them all.
    pub(crate) async fn one<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        // That something is missing was noted when all were asked for.
        Api::all(self.client.clone()).get_opt(name).await.ok().flatten()
    }

    async fn list<K>(&mut self, api: Api<DeserializeGuard<K>>, params: &ListParams) -> Vec<K>
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

    /// Forgets that this kind is not installed, since it need not be.
    pub(crate) fn excuse<K: Resource<DynamicType = ()>>(&mut self, namespace: Option<&str>) {
        let absent = Gap::UnknownKind(Reading::of::<K>(namespace));
        self.gaps.retain(|gap| *gap != absent);
    }
}

/// Those objects that can be decoded.
fn understood<K>(
    reading: &Reading,
    objects: Vec<DeserializeGuard<K>>,
    gaps: &mut Vec<Gap>,
) -> Vec<K> {
    let note = |object: DeserializeGuard<K>| {
        object.0.map_err(|invalid| gaps.push(Gap::malformed(reading.clone(), invalid))).ok()
    };
    objects.into_iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_decoded_is_used_and_the_rest_is_named() {
        let object = |name: &str, spec: serde_json::Value| -> DeserializeGuard<Service> {
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
