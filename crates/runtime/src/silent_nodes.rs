//! What the speaker of a node tells its forwarder without the API server: in whose place it announces addresses.
//!
//! That a node is dead stands on its session, which both watch. Before it is written there, and for as long as the API server is away,
//! only the speakers know: they announce what the dead node held at once. The forwarder beside must not give packets to a node that is
//! not there meanwhile, so it is told by datagrams on a unix socket in a folder that no other pod has.
//!
//! They are sent when something changes, and again and again while there is a silent node; who hears nothing for some time believes
//! nothing.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::UnixDatagram,
    sync::watch::Receiver,
    time::{Instant, timeout_at},
};

/// The socket, beside those of both programs.
const NAME: &str = "silent-nodes.sock";

/// How often what is still so is said again.
const PACE: Duration = Duration::from_millis(500);

/// For how long what was said counts.
pub const COUNTS_FOR: Duration = Duration::from_secs(2);

/// Longer than any list that is sent: each of some hundred nodes has a name of at most 253 bytes.
const LONGEST: usize = 64 * 1024;

/// Where the one is who listens: in the folder of a program's own socket.
pub fn beside(socket: &Path) -> PathBuf {
    socket.with_file_name(NAME)
}

/// Says who is silent until nobody can say so any more. Nobody has to listen.
pub async fn tell(to: PathBuf, mut silent: Receiver<BTreeSet<String>>) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    loop {
        let now = silent.borrow_and_update().clone();
        if !now.is_empty() {
            // Fails while there is no forwarder, which is no fault.
            let _ = socket.send_to(written(&now).as_bytes(), &to).await;
        }
        let is_over = if now.is_empty() {
            silent.changed().await.is_err()
        } else {
            let again = timeout_at(Instant::now() + PACE, silent.changed()).await;
            again.is_ok_and(|changed| changed.is_err())
        };
        if is_over {
            return;
        }
    }
}

/// Hears who is silent.
#[derive(Debug)]
pub struct Listener(UnixDatagram);

impl Listener {
    /// In the place of one that may have been there before.
    ///
    /// # Errors
    /// When the folder is not there or cannot be written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixDatagram::bind(path).map(Self)
    }

    /// Waits for the next word. May be cancelled at any time.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn next(&self) -> io::Result<BTreeSet<String>> {
        let mut bytes = vec![0; LONGEST];
        let length = self.0.recv(&mut bytes).await?;
        Ok(read(&String::from_utf8_lossy(bytes.get(..length).unwrap_or_default())))
    }
}

/// One name in each line.
fn written(nodes: &BTreeSet<String>) -> String {
    nodes.iter().fold(String::new(), |text, node| text + node + "\n")
}

fn read(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|it| (*it).to_owned()).collect()
    }

    #[tokio::test]
    async fn who_listens_hears_of_changes_at_once_and_of_the_rest_again() {
        let folder = std::env::temp_dir().join(format!("silent-nodes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = beside(&folder.join("admin.sock"));
        let (sender, receiver) = watch::channel(BTreeSet::new());
        let telling = tokio::spawn(tell(path.clone(), receiver));
        for _ in 0..2 {
            // Again in the place of the first one.
            let listener = Listener::open(&path).unwrap();
            sender.send(nodes(&["node-1", "node-2"])).unwrap();
            let heard = tokio::time::timeout(PACE * 4, listener.next()).await;
            assert_eq!(heard.unwrap().unwrap(), nodes(&["node-1", "node-2"]));
            let again = tokio::time::timeout(PACE * 4, listener.next()).await;
            assert_eq!(again.unwrap().unwrap(), nodes(&["node-1", "node-2"]));
        }
        let listener = Listener::open(&path).unwrap();
        sender.send(BTreeSet::new()).unwrap();
        let nothing = tokio::time::timeout(PACE * 2, listener.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        drop(sender);
        telling.await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
