//! A client that fetches a page again and again, each time over a new connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Stopper;
use crate::error::{LabError, Result};
use crate::namespace::Namespace;

/// What to ask, how often and how long to wait.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    /// Where the web server is.
    pub server: SocketAddr,
    /// The time from the begin of one request to the begin of the next. No request waits for
    /// another one.
    pub interval: Duration,
    /// How long each may take, from connecting to the last byte.
    pub patience: Duration,
}

impl RequestPlan {
    /// A request every 20 ms with a patience of 500 ms.
    pub fn new(server: SocketAddr) -> Self {
        Self { server, interval: Duration::from_millis(20), patience: Duration::from_millis(500) }
    }
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// When the connection was begun.
    pub started: Instant,
    /// When the answer was complete, or hope was given up.
    pub ended: Instant,
    /// What came back.
    pub outcome: Outcome,
}

impl Request {
    /// Whether the server's answer was the page.
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { status: 200, .. })
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An HTTP answer.
    Answered {
        /// Its status code.
        status: u16,
        /// Its body.
        body: String,
    },
    /// No answer within the patience.
    TimedOut,
    /// The connection was refused or broken; the system's words.
    Broken(String),
}

/// A running loop. Dropping it ends it, without a result.
#[derive(Debug)]
pub struct RequestLoop {
    stopper: Stopper,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: JoinHandle<()>,
}

impl RequestLoop {
    /// Starts asking from inside a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &Namespace, plan: RequestPlan) -> Result<Self> {
        let (stopper, requests) = (Stopper::default(), Arc::default());
        let (stop_here, record_here) = (stopper.flag(), Arc::clone(&requests));
        let thread = from.start_thread(move || ask_until(&stop_here, &plan, &record_here))?;
        Ok(Self { stopper, requests, thread })
    }

    /// What has ended so far, in the order of the ends.
    pub fn so_far(&self) -> Vec<Request> {
        locked(&self.requests).clone()
    }

    /// Ends the loop, waits for the requests under way, and returns all in the order of their
    /// starts.
    ///
    /// # Errors
    /// When the loop has crashed.
    pub fn stop(self) -> Result<Vec<Request>> {
        drop(self.stopper);
        self.thread.join().map_err(|_| LabError::Panicked("send requests".to_owned()))?;
        let mut requests = std::mem::take(&mut *locked(&self.requests));
        requests.sort_by_key(|request| request.started);
        Ok(requests)
    }
}

/// Starts a thread per request at fixed times; a slow request delays no other.
fn ask_until(stopped: &AtomicBool, plan: &RequestPlan, requests: &Mutex<Vec<Request>>) {
    let mut next = Instant::now();
    thread::scope(|scope| {
        while !stopped.load(Ordering::Relaxed) {
            scope.spawn(|| {
                let request = get(plan);
                locked(requests).push(request);
            });
            next += plan.interval;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
}

/// Fetches the page once, from the calling thread's namespace.
pub fn get(plan: &RequestPlan) -> Request {
    let started = Instant::now();
    let outcome = match exchange(plan, started + plan.patience) {
        Ok(answer) => read_answer(&answer),
        Err(error) if is_timeout(&error) => Outcome::TimedOut,
        Err(error) => Outcome::Broken(error.to_string()),
    };
    Request { started, ended: Instant::now(), outcome }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Sends the request and reads until the server closes or the deadline passes.
fn exchange(plan: &RequestPlan, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&plan.server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", plan.server);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            // The waiting for a socket with a time-out can be, without a signal that anybody handles (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn read_answer(answer: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    match (status, text.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Outcome::Answered { status, body: body.to_owned() },
        _ => Outcome::Broken(format!("no HTTP answer but {} bytes", answer.len())),
    }
}

/// A poisoned lock only says that some request's thread crashed; the list is whole.
fn locked(requests: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn outcomes() {
        let page = RequestPlan::new(server(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello"));
        let answered = Outcome::Answered { status: 200, body: "hello".to_owned() };
        assert_eq!(get(&page).outcome, answered);
        let missing = get(&RequestPlan::new(server(b"HTTP/1.1 404 Not Found\r\n\r\n")));
        assert!(!missing.is_answered());
        assert!(matches!(missing.outcome, Outcome::Answered { status: 404, .. }));
        let noise = get(&RequestPlan::new(server(b"")));
        assert!(matches!(noise.outcome, Outcome::Broken(_)));
    }

    #[test]
    fn a_silent_server_costs_the_patience_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = RequestPlan {
            patience: Duration::from_millis(50),
            ..RequestPlan::new(listener.local_addr().unwrap())
        };
        let request = get(&plan);
        assert_eq!(request.outcome, Outcome::TimedOut);
        assert!(request.ended - request.started < Duration::from_secs(5));
    }
}
