//! What somebody wants to see.

use super::report::{Address, LeftBehind, NodeRow, Waiting};

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// Of a Service in this namespace.
    pub(super) namespace: Option<String>,
    pub(super) node: Option<String>,
    pub(super) pool: Option<String>,
    /// Only what is not as it should be.
    pub(super) problems: bool,
}

impl Selection {
    pub(super) fn has_address(&self, address: &Address) -> bool {
        is(self.node.as_deref(), address.node.as_deref())
            && is(self.pool.as_deref(), address.pool.as_deref())
            && self.has_any_of(&address.services)
            && (!self.problems || address.problem.is_some())
    }

    pub(super) fn has_node(&self, node: &NodeRow) -> bool {
        is(self.node.as_deref(), Some(&node.node)) && (!self.problems || node.problem.is_some())
    }

    /// Connections of an address that is shown, or on a node that is.
    pub(super) fn has_left_behind(&self, left: &LeftBehind, shown: &[Address]) -> bool {
        let is_shown = shown.iter().any(|it| it.address == left.address);
        let is_all = self.pool.is_none() && self.namespace.is_none() && !self.problems;
        is(self.node.as_deref(), Some(&left.node)) && (is_all || is_shown)
    }

    /// A Service that waits is on no node, and in no pool.
    pub(super) fn has_waiting(&self, waiting: &Waiting) -> bool {
        self.node.is_none()
            && self.pool.is_none()
            && self.has_any_of(std::slice::from_ref(&waiting.service))
    }

    /// Whether one of the Services, `NAMESPACE/NAME`, is in the namespace that counts.
    pub(super) fn has_any_of(&self, services: &[String]) -> bool {
        let namespaces = services.iter().filter_map(|service| service.split('/').next());
        self.namespace.as_ref().is_none_or(|wanted| namespaces.into_iter().any(|it| it == wanted))
    }
}

fn is(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found == Some(wanted))
}
