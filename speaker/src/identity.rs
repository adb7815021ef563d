//! Who this process is.

use arpeggio_election::Node;

/// One speaker, among those of all nodes and of its own.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its node.
    pub(crate) node: Node,
    /// Which of the node's speakers it is: its pod's name.
    pub(crate) instance: String,
}
