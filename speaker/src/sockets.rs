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
    interfaces::Interface,
    packet::{FrameSocket, Inbox, Outbox, SocketError},
};
use arpeggio_runtime::{
    standstill::{Rounds, Watchdog},
    telemetry::causes,
};

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
    /// Watches the threads that read.
    pub(crate) watchdog: Watchdog,
}

impl Sockets {
    /// A radio below a bridge is in that mode already. The bridge itself would hand over what goes from port to port.
    fn is_promiscuous(&self, interface: &Interface) -> bool {
        let is_radio = interface.wireless && interface.kind.as_deref() != Some("bridge");
        is_radio || self.promiscuous.iter().any(|pattern| pattern.matches(&interface.name))
    }

    fn open<P: Protocol>(
        &self,
        interface: &Interface,
        listener: Listener<P>,
    ) -> Result<Box<dyn Ear<P>>, SocketError> {
        let socket = Arc::new(FrameSocket::open(interface.index, &P::Filter::default())?);
        if self.is_promiscuous(interface) {
            socket.hear_everything()?;
        }
        let signs = Arc::<Signs>::default();
        let name = listener.thread_name();
        let reader = Reader { listener, socket: socket.clone(), signs: signs.clone() };
        let watchdog = self.watchdog.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || reader.listen(&watchdog.watch(name)))
            .map_err(SocketError::Io)?;
        let groups = P::Groups::new(interface.index);
        Ok(Box::new(OpenSocket { socket, signs, thread, groups }))
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

/// What a thread that reads, and whoever has started it, tell each other.
#[derive(Debug, Default)]
struct Signs {
    /// Ends the thread.
    stop: AtomicBool,
    /// Set while the thread has frames in hand, and a moment before.
    busy: AtomicBool,
    /// The kernel hands over no frames, though the interface is up.
    deaf: AtomicBool,
}

impl Signs {
    /// The kernel has refused to hand over frames. Whether that is news.
    fn refused(&self) -> bool {
        !self.deaf.swap(true, Ordering::AcqRel)
    }

    /// The kernel has not refused. Whether that is news.
    fn heard(&self) -> bool {
        self.deaf.swap(false, Ordering::AcqRel)
    }
}

/// A socket and the thread that reads it. Dropping it ends the thread.
#[derive(Debug)]
struct OpenSocket<P: Protocol> {
    socket: Arc<FrameSocket<P::Filter>>,
    signs: Arc<Signs>,
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
        self.socket.has_unread() || self.signs.busy.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    fn is_deaf(&self) -> bool {
        self.signs.deaf.load(Ordering::Acquire)
    }
}

impl<P: Protocol> Drop for OpenSocket<P> {
    fn drop(&mut self) {
        self.signs.stop.store(true, Ordering::Release);
    }
}

/// One thread.
struct Reader<P: Protocol> {
    listener: Listener<P>,
    socket: Arc<FrameSocket<P::Filter>>,
    signs: Arc<Signs>,
}

impl<P: Protocol> Reader<P> {
    /// Listens until it is told to stop or the interface is gone.
    fn listen(&self, rounds: &Rounds) {
        let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
        let mut answers = Answers::<P>::new();
        let Signs { stop, busy, .. } = &*self.signs;
        loop {
            rounds.next();
            busy.store(false, Ordering::Release);
            let received =
                self.socket.recv_batch(&mut inbox, || busy.store(true, Ordering::Release));
            self.listener.lost(u64::from(self.socket.lost()), "socket_overflow");
            // What came just now is for whoever took this one's place: perhaps at another MAC address.
            if stop.load(Ordering::Acquire) {
                return;
            }
            match received {
                Ok(()) => {
                    self.hears();
                    self.listener.hear(inbox.frames(), &mut answers, |frames| {
                        self.socket.send_batch(&mut outbox, frames)
                    });
                }
                Err(SocketError::InterfaceDown) => {}
                Err(SocketError::InterfaceGone) => return,
                Err(error) => {
                    self.is_refused(&error);
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn hears(&self) {
        if self.signs.heard() {
            let interface = &self.listener.interface;
            tracing::info!(interface, "frames are received again");
        }
    }

    /// Said once, however long it lasts.
    fn is_refused(&self, error: &SocketError) {
        if self.signs.refused() {
            let interface = &self.listener.interface;
            tracing::error!(interface, error = %causes(error), "cannot receive");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_refuses_again_and_again_is_news_once() {
        let signs = Signs::default();
        assert!(!signs.heard(), "as ever");
        let news: Vec<bool> = (0..100).map(|_| signs.refused()).collect();
        assert_eq!(news.iter().filter(|it| **it).count(), 1);
        assert!(signs.heard());
        assert!(!signs.heard());
        assert!(signs.refused(), "anew");
    }
}
