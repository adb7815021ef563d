//! Namespaces, of which only the labels matter.

use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt as _, core::PartialObjectMeta};

use crate::{Index, Watched};

type Meta = PartialObjectMeta<Namespace>;

impl Watched<Meta> for Index {
    fn apply(&mut self, namespace: Meta) {
        self.set_namespace(&namespace.name_any(), namespace.labels().clone());
    }

    fn delete(&mut self, namespace: Meta) {
        self.forget_namespace(&namespace.name_any());
    }

    fn reset(&mut self, namespaces: Vec<Meta>) {
        let labels = namespaces.iter().map(|it| (it.name_any(), it.labels().clone()));
        self.set_namespaces(labels.collect());
    }
}
