//! What is downloaded from.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::threads::Time;
use crate::segment::Namespace;

/// The time between two parts of a download that has a pace.
const BEAT: Duration = Duration::from_millis(10);

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) bytes: usize,
    /// Bytes a second. `None`: as fast as it goes.
    pub(crate) pace: Option<usize>,
}

impl Request {
    pub(crate) fn encoded(self) -> Vec<u8> {
        [self.bytes, self.pace.unwrap_or_default()].map(usize::to_be_bytes).concat()
    }

    fn read(stream: &mut TcpStream) -> Self {
        let mut number = || {
            let mut bytes = [0; size_of::<usize>()];
            stream.read_exact(&mut bytes).unwrap();
            usize::from_be_bytes(bytes)
        };
        let (bytes, pace) = (number(), number());
        Self { bytes, pace: (pace > 0).then_some(pace) }
    }
}

/// A pod that sends what it is asked for, to one client at a time.
pub(crate) struct Server(Time);

impl Server {
    pub(crate) fn start(namespace: &Namespace, at: (IpAddr, u16)) -> Self {
        let listener = namespace.run(|| TcpListener::bind(at).unwrap());
        let (sender, time) = mpsc::channel();
        thread::spawn(move || {
            sender.send(Time::own()).unwrap();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = Request::read(&mut stream);
                send(&mut stream, request);
            }
        });
        Self(time.recv().unwrap())
    }

    /// Of its thread.
    pub(crate) fn time(&self) -> &Time {
        &self.0
    }
}

fn send(stream: &mut TcpStream, request: Request) {
    let part = request.pace.map(|pace| pace / 100);
    let bytes = vec![7; part.unwrap_or(256 * 1024)];
    let (mut left, mut next) = (request.bytes, Instant::now());
    while left > 0 {
        let length = left.min(bytes.len());
        stream.write_all(&bytes[..length]).unwrap();
        left -= length;
        if part.is_some() {
            next += BEAT;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}
