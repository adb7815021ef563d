//! TCP connections to Services, as a client on this node would open them.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use arpeggio_doctor::survey::Connect;

/// How long a connection may take to be established.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many are tried at once.
const AT_ONCE: usize = 16;

/// Tries all of them.
pub(super) fn all(to: &[SocketAddr]) -> Vec<Connect> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(to) = to.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(Connect { to: *to, error: tried(*to).err() });
        }
        done
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(to.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

fn tried(to: SocketAddr) -> Result<(), String> {
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::TimedOut => "no answer".to_owned(),
            _ => error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_told_from_who_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut done = all(&[open, closed]);
        done.sort_by_key(|it| it.to != open);
        let refused = Some("connection refused".to_owned());
        let expected = [Connect { to: open, error: None }, Connect { to: closed, error: refused }];
        assert_eq!(done, expected);
    }
}
