//! Namespaces, of which only the labels matter, and whether they are being deleted.

use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, api::ObjectMeta, core::PartialObjectMeta};

use crate::{Index, Watched, name};

type Meta = PartialObjectMeta<Namespace>;

fn ends(namespace: &Meta) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

impl Watched<Meta> for Index {
    fn apply(&mut self, namespace: Meta) {
        let name = namespace.name_any();
        self.set_namespace_ends(&name, ends(&namespace));
        self.set_namespace(&name, namespace.labels().clone());
    }

    fn gone(&mut self, namespace: &ObjectMeta) {
        self.forget_namespace(name(namespace));
    }

    fn reset(&mut self, namespaces: Vec<Meta>) {
        let ending = namespaces.iter().filter(|it| ends(it)).map(ResourceExt::name_any);
        self.ending_namespaces = ending.collect();
        let labels = namespaces.iter().map(|it| (it.name_any(), it.labels().clone()));
        self.set_namespaces(labels.collect());
    }
}
