//! What the speaker of this node says of others before the API server can.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    path::Path,
};

use arpeggio_election::{Node, Timestamp};
use arpeggio_runtime::silent_nodes::{COUNTS_FOR, Listener, beside};

/// The nodes in whose place this one announces addresses, as its speaker says.
#[derive(Debug, Default)]
pub(crate) struct SilentNodes {
    listener: Option<Listener>,
    /// For how long the word counts.
    until: BTreeMap<Node, Timestamp>,
}

impl SilentNodes {
    /// Listens beside this program's own socket. Without one nothing is heard.
    pub(crate) fn beside(socket: Option<&Path>) -> Self {
        let listener = socket.and_then(|socket| {
            let path = beside(socket);
            let failed = |error: &std::io::Error| {
                tracing::warn!(%error, path = %path.display(), "the speaker is not heard: that a node is dead is known when the API server says so");
            };
            Listener::open(&path).inspect_err(failed).ok()
        });
        Self { listener, ..Self::default() }
    }

    /// Waits for the next word. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> BTreeSet<String> {
        if let Some(listener) = &self.listener {
            match listener.next().await {
                Ok(nodes) => return nodes,
                Err(error) => {
                    tracing::warn!(%error, "the speaker is not heard any more");
                    self.listener = None;
                }
            }
        }
        future::pending().await
    }

    /// Whether that is news.
    pub(crate) fn hear(&mut self, nodes: &BTreeSet<String>, now: Timestamp) -> bool {
        let before = self.until.len();
        for node in nodes {
            self.until.insert(node.as_str().into(), now + COUNTS_FOR);
        }
        self.until.len() > before
    }

    /// Those whose time has not come yet.
    pub(crate) fn nodes(&mut self, now: Timestamp) -> BTreeSet<Node> {
        self.until.retain(|_, until| *until > now);
        self.until.keys().cloned().collect()
    }

    /// When a word counts no more.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.until.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_word_counts_for_as_long_as_it_is_repeated() {
        let mut silent = SilentNodes::default();
        let word: BTreeSet<String> = ["node-1".to_owned()].into();
        let at = |milliseconds| Timestamp::from_origin(Duration::from_millis(milliseconds));
        assert!(silent.hear(&word, at(0)));
        assert!(!silent.hear(&word, at(1_000)), "it is known");
        assert_eq!(silent.nodes(at(2_500)), ["node-1".into()].into());
        assert_eq!(silent.next_end(), Some(at(3_000)));
        assert_eq!(silent.nodes(at(3_000)), BTreeSet::new());
        assert_eq!(silent.next_end(), None);
        assert!(silent.hear(&word, at(4_000)));
    }
}
