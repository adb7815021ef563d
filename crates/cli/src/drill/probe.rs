//! Connecting to an address again and again, and noting what comes of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// A new attempt begins this often, whatever has become of the ones before.
pub(super) const EVERY: Duration = Duration::from_millis(20);

/// An attempt without an answer for so long has failed. It is shorter than the time after which kernels try a second time
/// by themselves, so that what is answered was answered at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// What is asked for by HTTP, once connected.
    pub(super) path: Option<String>,
}

impl Target {
    fn name(&self) -> String {
        match &self.path {
            None => format!("tcp {}", self.port),
            Some(path) => format!("http {}{path}", self.port),
        }
    }

    async fn is_answered(&self) -> bool {
        let attempt = async {
            let mut stream =
                TcpStream::connect(SocketAddr::new(self.address, self.port)).await.ok()?;
            let Some(path) = &self.path else { return Some(()) };
            let host = SocketAddr::new(self.address, self.port);
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.ok()?;
            is_well(&head).then_some(())
        };
        timeout(PATIENCE, attempt).await.ok().flatten().is_some()
    }
}

/// Whether a server says something else than that it has failed itself.
fn is_well(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.") && head.get(9).is_some_and(|class| (b'1'..b'5').contains(class))
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Try {
    /// When it began, after the beginning of all.
    pub(super) at: Duration,
    pub(super) answered: bool,
}

/// All attempts of one kind, in the order in which they began.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) tries: Vec<Try>,
}

/// Attempts that go on until somebody stops them.
pub(super) struct Probing {
    pub(super) name: String,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    task: JoinHandle<Series>,
}

impl Probing {
    pub(super) fn start(target: Target, began: Instant) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let name = target.name();
        let task = tokio::spawn(probe(target, began, stop.clone(), answered.clone()));
        Self { name, stop, answered, task }
    }

    /// How many attempts were answered so far.
    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// What came of all of them; those that wait are waited for.
    pub(super) async fn stop(self) -> anyhow::Result<Series> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

async fn probe(
    target: Target,
    began: Instant,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Series {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut open, mut tries) = (JoinSet::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let target = target.clone();
        open.spawn(async move {
            let at = began.elapsed();
            Try { at, answered: target.is_answered().await }
        });
        while let Some(done) = open.try_join_next() {
            tries.extend(done.ok().inspect(|it| count(*it, &answered)));
        }
    }
    while let Some(done) = open.join_next().await {
        tries.extend(done.ok());
    }
    tries.sort();
    Series { name: target.name(), tries }
}

fn count(done: Try, answered: &AtomicUsize) {
    if done.answered {
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_a_server_answers_counts_unless_it_has_failed() {
        for (head, expected) in [
            ("HTTP/1.1 200", true),
            ("HTTP/1.0 404", true),
            ("HTTP/1.1 503", false),
            ("SSH-2.0-xxxx", false),
        ] {
            assert_eq!(is_well(head.as_bytes()), expected, "{head}");
        }
    }

    #[tokio::test]
    async fn a_listener_that_goes_away_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target { address: [127, 0, 0, 1].into(), port, path: None };
        let probing = Probing::start(target, Instant::now());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(probing.answered() > 0);
        drop(listener);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let series = probing.stop().await.unwrap();
        assert!(series.tries.first().unwrap().answered);
        assert!(!series.tries.last().unwrap().answered);
        assert!(series.tries.is_sorted());
    }
}
