//! Connections as a client on this machine would open them, to find out whether somebody answers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// How long a connection may take to be established, and how long somebody has to refuse a datagram.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many are tried at once.
const AT_ONCE: usize = 16;

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where to.
    pub to: SocketAddr,
    /// Why it failed, in words for people. `None`: it has not.
    pub error: Option<String>,
}

/// Opens a TCP connection to each, and closes it at once.
#[must_use]
pub fn connect(to: &[SocketAddr]) -> Vec<Attempt> {
    all(to, |to| TcpStream::connect_timeout(&to, PATIENCE).map(drop))
}

/// Sends each a UDP datagram with nothing in it. That nobody refuses it is no error, whether or not anybody has got it.
#[must_use]
pub fn knock(to: &[SocketAddr]) -> Vec<Attempt> {
    all(to, |to| match knocked(to) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    })
}

fn knocked(to: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&[])?;
    loop {
        match socket.recv(&mut [0; 1]) {
            // What interrupts the waiting refuses nothing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

fn all(to: &[SocketAddr], attempt: impl Fn(SocketAddr) -> io::Result<()> + Sync) -> Vec<Attempt> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(to) = to.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(Attempt { to: *to, error: attempt(*to).err().map(|it| said(&it)) });
        }
        done
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(to.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn tried(attempts: fn(&[SocketAddr]) -> Vec<Attempt>, open: SocketAddr, closed: SocketAddr) {
        let mut done = attempts(&[open, closed]);
        done.sort_by_key(|it| it.to != open);
        let refused = Some("connection refused".to_owned());
        let expected = [Attempt { to: open, error: None }, Attempt { to: closed, error: refused }];
        assert_eq!(done, expected);
    }

    #[test]
    fn who_listens_is_told_from_who_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tried(connect, listener.local_addr().unwrap(), closed);
    }

    #[test]
    fn silence_of_udp_is_no_refusal() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tried(knock, silent.local_addr().unwrap(), closed);
    }
}
