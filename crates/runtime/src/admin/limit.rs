//! A bound on what strangers can make of a port that anybody may connect to.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, sleep_until},
};

use crate::files;

/// Connections at once, fewer where this process may open few files. Others wait in the kernel's queue, where they cost
/// this process no file descriptor.
const CONNECTIONS: usize = 32;

/// How long one may last: many times what a scrape takes.
const LIFETIME: Duration = Duration::from_secs(30);

/// So many connections are taken at once, each of which is good for one request: see [`super::one_request`].
const AT_ONCE: u32 = 50;

/// One more is taken each time that this has passed. Whoever asks all the time makes a page fifty times a second, which
/// costs some percent of a processor, and none that the threads wait for which decide and answer.
const PAUSE: Duration = Duration::from_millis(20);

/// A listener with few connections at a time, each of which ends, and so many a second.
pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    lifetime: Duration,
    /// When as many may be taken at once as ever.
    rested: Instant,
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        let permits = Arc::new(Semaphore::new(files::for_strangers(CONNECTIONS)));
        Self { listener, permits, lifetime: LIFETIME, rested: Instant::now() }
    }

    #[cfg(test)]
    fn with_lifetime(listener: TcpListener, lifetime: Duration) -> Self {
        Self { lifetime, ..Self::new(listener) }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.permits.clone().acquire_owned().await.ok(); // It is never closed.
        self.rest().await;
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        self.rested = self.rested.max(Instant::now()) + PAUSE;
        (Connection { stream, end: Box::pin(sleep(self.lifetime)), _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Limited {
    /// Waits until one more may be taken. Meanwhile those who come wait in the kernel's queue.
    async fn rest(&self) {
        let may = self.rested.checked_sub(PAUSE * (AT_ONCE - 1));
        if let Some(may) = may {
            sleep_until(may).await;
        }
    }
}

/// A connection that ends when its time is over.
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    async fn answers(address: SocketAddr) -> bool {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read = timeout(Duration::from_millis(500), stream.read_to_string(&mut answer)).await;
        read.is_ok() && answer.contains("well")
    }

    async fn limited() -> (SocketAddr, Limited) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), Limited::new(listener))
    }

    fn serve(limited: Limited) {
        let router = Router::new().route("/", get(|| async { "well" }));
        tokio::spawn(axum::serve(limited, super::super::one_request(router)).into_future());
    }

    #[tokio::test]
    async fn a_connection_is_good_for_one_request() {
        let (address, limited) = limited().await;
        serve(limited);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let requests = "GET / HTTP/1.1\r\nHost: it\r\n\r\n".repeat(1000);
        let _ = stream.write_all(requests.as_bytes()).await; // It may be closed meanwhile.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
    }

    #[tokio::test]
    async fn who_asks_all_the_time_gets_so_many_answers_a_second() {
        let (address, limited) = limited().await;
        serve(limited);
        let (start, mut answered) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            answered += u32::from(answers(address).await);
        }
        let most =
            AT_ONCE + u32::try_from(start.elapsed().as_millis() / PAUSE.as_millis()).unwrap();
        assert!((AT_ONCE / 2..=most + 1).contains(&answered), "{answered}, at most {most}");
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_others_out_for_a_while_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limited = Limited::with_lifetime(listener, Duration::from_secs(2));
        let permits = limited.permits.clone();
        let router = Router::new().route("/", get(|| async { "well" }));
        tokio::spawn(axum::serve(limited, router).into_future());
        assert!(answers(address).await);
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS + 8 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(!answers(address).await, "no more than so many at once");
        assert_eq!(permits.available_permits(), 0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(answers(address).await, "those that said nothing are gone");
    }
}
