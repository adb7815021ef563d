//! What Kubernetes says of nodes.

use arpeggio_labels::Labels;

/// What Kubernetes says of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent facts of one Node object")]
pub struct NodeFacts {
    /// `metadata.labels`.
    pub labels: Labels,
    /// Its label `node.kubernetes.io/exclude-from-external-load-balancers` is there and is obeyed.
    pub excluded: bool,
    /// `spec.unschedulable`, or the Node object is being deleted.
    pub cordoned: bool,
    /// The condition `Ready` is not true.
    pub not_ready: bool,
    /// The condition `NetworkUnavailable` is true.
    pub network_unavailable: bool,
    /// It has the taint `node.kubernetes.io/out-of-service`.
    pub out_of_service: bool,
}

impl NodeFacts {
    /// Of a node that Kubernetes has no object for.
    pub(crate) const NONE: &Self = &Self {
        labels: Labels::new(),
        excluded: false,
        cordoned: false,
        not_ready: false,
        network_unavailable: false,
        out_of_service: false,
    };
}
