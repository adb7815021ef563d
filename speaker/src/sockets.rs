//! The wire as the kernel has it: a socket for each way to a segment, and a thread that reads it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arpeggio_election::Pattern;
use arpeggio_link::{
    groups::GroupError,
    interfaces::{Interface, is_wireless},
    packet::{FrameSocket, Inbox, Outbox, SocketError},
};
use arpeggio_runtime::telemetry::causes;

use crate::{
    listener::{Answers, Listener},
    protocol::{Arp, Groups, Ndp, Protocol},
    wire::{Ear, Wire},
};

/// The pause after an error of the socket that nothing is known about.
const RETRY: Duration = Duration::from_millis(250);

/// The segments of the network namespace of whatever thread opens ways to them.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Interfaces, besides wireless ones, whose cards are told to let everything in.
    pub(crate) promiscuous: Arc<[Pattern]>,
}

impl Sockets {
    fn is_promiscuous(&self, name: &str) -> bool {
        is_wireless(name) || self.promiscuous.iter().any(|pattern| pattern.matches(name))
    }

    fn open<P: Protocol>(
        &self,
        interface: &Interface,
        listener: Listener<P>,
    ) -> Result<Box<dyn Ear<P>>, SocketError> {
        let socket = Arc::new(FrameSocket::open(interface.index, &P::Filter::default())?);
        if self.is_promiscuous(&interface.name) {
            socket.hear_everything()?;
        }
        let [stop, busy] = [false; 2].map(|it| Arc::new(AtomicBool::new(it)));
        let name = listener.thread_name();
        let reader =
            Reader { listener, socket: socket.clone(), stop: stop.clone(), busy: busy.clone() };
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || reader.listen())
            .map_err(SocketError::Io)?;
        let groups = P::Groups::new(interface.index);
        Ok(Box::new(OpenSocket { socket, stop, busy, thread, groups }))
    }
}

impl Wire for Sockets {
    fn arp(
        &self,
        interface: &Interface,
        listener: Listener<Arp>,
    ) -> Result<Box<dyn Ear<Arp>>, SocketError> {
        self.open(interface, listener)
    }

    fn ndp(
        &self,
        interface: &Interface,
        listener: Listener<Ndp>,
    ) -> Result<Box<dyn Ear<Ndp>>, SocketError> {
        self.open(interface, listener)
    }
}

/// A socket and the thread that reads it. Dropping it ends the thread.
#[derive(Debug)]
struct OpenSocket<P: Protocol> {
    socket: Arc<FrameSocket<P::Filter>>,
    stop: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    groups: P::Groups,
}

impl<P: Protocol> Ear<P> for OpenSocket<P> {
    fn let_in(&self, filter: &P::Filter) -> Result<(), SocketError> {
        self.socket.set_filter(filter)
    }

    fn join(
        &mut self,
        addresses: &BTreeSet<P::Address>,
        limit: Duration,
    ) -> Result<bool, GroupError> {
        self.groups.join(addresses, limit)
    }

    fn leave_all_but(&mut self, addresses: &BTreeSet<P::Address>) {
        self.groups.leave_all_but(addresses);
    }

    fn send(&self, frame: &[u8]) -> Result<(), SocketError> {
        self.socket.send(frame)
    }

    fn has_backlog(&self) -> bool {
        self.socket.has_unread() || self.busy.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl<P: Protocol> Drop for OpenSocket<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// One thread.
struct Reader<P: Protocol> {
    listener: Listener<P>,
    socket: Arc<FrameSocket<P::Filter>>,
    /// Ends the thread.
    stop: Arc<AtomicBool>,
    /// Set while the thread has frames in hand, and a moment before.
    busy: Arc<AtomicBool>,
}

impl<P: Protocol> Reader<P> {
    /// Listens until it is told to stop or the interface is gone.
    fn listen(&self) {
        let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
        let mut answers = Answers::<P>::new();
        loop {
            self.busy.store(false, Ordering::Release);
            let received =
                self.socket.recv_batch(&mut inbox, || self.busy.store(true, Ordering::Release));
            self.listener.lost(u64::from(self.socket.lost()), "socket_overflow");
            // What came just now is for whoever took this one's place: perhaps at another MAC address.
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            match received {
                Ok(()) => self.listener.hear(inbox.frames(), &mut answers, |frames| {
                    self.socket.send_batch(&mut outbox, frames)
                }),
                Err(SocketError::InterfaceDown) => {}
                Err(SocketError::InterfaceGone) => return,
                Err(error) => {
                    tracing::warn!(
                        interface = self.listener.interface,
                        error = %causes(&error),
                        "cannot receive"
                    );
                    thread::sleep(RETRY);
                }
            }
        }
    }
}
