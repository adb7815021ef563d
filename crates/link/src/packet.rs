//! A packet socket for ARP, NDP or DHCP on one interface.

use std::io::{self, ErrorKind, Read};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, Socket, Type};
use tracing::debug;

mod address;
mod batch;
mod losses;
mod membership;

pub use batch::{BATCH, Inbox, LONGEST_FRAME, Outbox};

use crate::calls::uninterrupted;
use crate::filter::{ArpFilter, FrameFilter, MAX_INSTRUCTIONS, MIN_INSTRUCTIONS, NdpFilter};

/// How long [`FrameSocket::recv`] waits for a frame before it comes back without one, so that its
/// thread notices a shutdown.
pub const RECEIVE_TIMEOUT: Duration = Duration::from_millis(RECEIVE_TIMEOUT_MILLIS as u64);
const RECEIVE_TIMEOUT_MILLIS: u8 = 250;

/// How much may wait to be received, in bytes. The kernel takes no more than its sysctl
/// `net.core.rmem_max`, and then reckons with twice that: enough for some hundred frames at least,
/// such as a thread that was kept from its core for a moment finds waiting.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Why a packet socket does not work.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The process may not open packet sockets.
    #[error("not permitted to open a packet socket: add the capability NET_RAW")]
    NotPermitted,
    /// The interface is down. Not fatal: the same socket works again once it is up.
    #[error("the interface is down: keep the socket and try again once it is up")]
    InterfaceDown,
    /// The interface does not exist any more. The socket is of no more use, even if an interface
    /// of the same name or number comes back.
    #[error("the interface is gone: close the socket and open one on an interface that exists")]
    InterfaceGone,
    /// The kernel has no memory for a filter, not even for the smallest one.
    #[error("the kernel refuses the packet filter: raise the sysctl net.core.optmem_max")]
    FilterTooBig,
    /// So many frames wait for the network card that there is no room for another one.
    #[error("the network card does not keep up: the frame is not sent")]
    Full,
    /// Anything else.
    #[error("packet socket")]
    Io(#[source] io::Error),
}

/// Receives and sends Ethernet frames that carry ARP, on one interface.
pub type ArpSocket = FrameSocket<ArpFilter>;

/// Receives and sends Ethernet frames that carry NDP, on one interface.
///
/// It hears solicitations to one machine as well as those to a group, other than a socket for
/// `ICMPv6`, which hears only what is for an address that the machine has. But it joins no group: see
/// [`SolicitedNodes`](crate::groups::SolicitedNodes).
pub type NdpSocket = FrameSocket<NdpFilter>;

/// Receives and sends Ethernet frames of the type that the filter is for, on one interface.
///
/// All methods take `&self` and any number of threads can use them at once; one is meant to receive
/// while others send and change the filter.
#[derive(Debug)]
pub struct FrameSocket<Filter> {
    socket: Socket,
    /// The interface's index.
    interface: u32,
    filter: PhantomData<Filter>,
}

impl<Filter: FrameFilter> FrameSocket<Filter> {
    /// Opens a socket on the interface with this index, in the calling thread's network namespace.
    ///
    /// Every frame that is ever received has passed the filter: the socket belongs to no protocol,
    /// so that nothing is queued, until the filter is in place.
    ///
    /// # Errors
    /// [`SocketError::NotPermitted`] without the capability `NET_RAW`;
    /// [`SocketError::InterfaceGone`] if there is no such interface. An interface that is down is no
    /// error here, but for [`recv`](Self::recv) and [`send`](Self::send).
    pub fn open(interface: u32, filter: &Filter) -> Result<Self, SocketError> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(from_io)?;
        socket.set_read_timeout(Some(RECEIVE_TIMEOUT)).map_err(from_io)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(from_io)?;
        let socket = Self { socket, interface, filter: PhantomData };
        socket.set_filter(filter)?;
        let address = address::frames_on(interface, Filter::ETHERNET_TYPE);
        let address = address.ok_or(SocketError::InterfaceGone)?;
        socket.socket.bind(&address).map_err(from_io)?;
        Ok(socket)
    }

    /// Waits for a frame, for [`RECEIVE_TIMEOUT`] at most, and writes it into `buffer` from its
    /// Ethernet header on. Returns its length, or `None` if there was none in time. What does not
    /// fit into the buffer is lost.
    ///
    /// # Errors
    /// [`SocketError::InterfaceDown`] once, each time that the interface goes down; further calls
    /// wait as usual. [`SocketError::InterfaceGone`] from when the interface is removed.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>, SocketError> {
        self.received(uninterrupted(|| (&self.socket).read(buffer)))
    }

    /// Waits for a frame, for [`RECEIVE_TIMEOUT`] at most, and fills `inbox` with it and those that
    /// came with it, up to [`BATCH`] in all. If there was none in time, or in case of an error, the
    /// inbox is empty.
    ///
    /// Calls `before` after the waiting, and while the frames are still [unread](Self::has_unread): who
    /// notes there that it is busy is at no moment idle with a frame in hands.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_batch(&self, inbox: &mut Inbox, before: impl FnOnce()) -> Result<(), SocketError> {
        self.is_ready(PollTimeout::from(RECEIVE_TIMEOUT_MILLIS));
        before();
        self.received(inbox.fill(&self.socket)).map(Option::unwrap_or_default)
    }

    /// How many frames that the filter let through the kernel had no room for, since this was last
    /// asked. Zero if it does not say.
    pub fn lost(&self) -> u32 {
        losses::lost(&self.socket).unwrap_or_default()
    }

    /// Whether frames, or an error, wait to be received.
    pub fn has_unread(&self) -> bool {
        self.is_ready(PollTimeout::ZERO)
    }

    fn is_ready(&self, patience: PollTimeout) -> bool {
        let mut events = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let ready = uninterrupted(|| poll(&mut events, patience).map_err(io::Error::from));
        ready.is_ok_and(|ready| ready > 0)
    }

    /// Sends a frame, given from its Ethernet header on. Never waits: an answer that is late may be
    /// wrong, and whoever decides must not be held up by a card that is stuck.
    ///
    /// # Errors
    /// [`SocketError::InterfaceDown`] and [`SocketError::InterfaceGone`] while that is so;
    /// [`SocketError::Full`] if the frame would have to wait.
    pub fn send(&self, frame: &[u8]) -> Result<(), SocketError> {
        self.socket.send_with_flags(frame, libc::MSG_DONTWAIT).map(|_| ()).map_err(from_io)
    }

    /// Sends frames as [`send`](Self::send) does each; returns how many of them have left. What the
    /// kernel refuses is left out.
    pub fn send_batch<Bytes>(&self, outbox: &mut Outbox, frames: &[Bytes]) -> usize
    where
        Bytes: Deref<Target = [u8]>,
    {
        outbox.send_all(&self.socket, frames)
    }

    /// Replaces the filter at once: each frame is judged by the old one or by the new one. Frames
    /// that the old one let in stay queued, so the receiver has to look at what it gets.
    ///
    /// When the kernel has no room for a precise filter, a coarser one takes its place; it lets
    /// through everything wanted and some more.
    ///
    /// # Errors
    /// [`SocketError::FilterTooBig`] if there is no room for the coarsest one. The old filter then
    /// stays in force.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), SocketError> {
        let mut limit = MAX_INSTRUCTIONS;
        while limit >= MIN_INSTRUCTIONS {
            match self.attach(filter, limit) {
                // The kernel charges filters, old and new at once, to net.core.optmem_max, which
                // was 20 KiB before Linux 6.8 and holds some hundred instructions.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                    limit /= 2;
                    debug!(limit, "packet filter too long for this kernel, coarser one next");
                }
                result => return result.map_err(from_io),
            }
        }
        Err(SocketError::FilterTooBig)
    }

    /// Makes the network card let in all frames, whomever they are for, until the socket is dropped.
    /// The filter still lets through only those that are for this machine. For cards that leave out
    /// too much: wireless ones.
    ///
    /// # Errors
    /// [`SocketError::InterfaceGone`] if it is.
    pub fn hear_everything(&self) -> Result<(), SocketError> {
        membership::hear_everything(&self.socket, self.interface).map_err(from_io)
    }

    fn attach(&self, filter: &Filter, limit: usize) -> io::Result<()> {
        let program: Vec<_> = filter
            .program(self.interface, limit)
            .iter()
            .map(|it| SockFilter::new(it.code, it.jump_true, it.jump_false, it.operand))
            .collect();
        self.socket.attach_filter(&program)
    }

    /// What a call that waits for frames has come to: `None` if it was in vain.
    fn received<T>(&self, result: io::Result<T>) -> Result<Option<T>, SocketError> {
        match result {
            Ok(received) => Ok(Some(received)),
            // An interface goes down before it is removed, and only the former is reported.
            Err(_) if self.is_unbound() => Err(SocketError::InterfaceGone),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Ok(None),
                _ => Err(from_io(error)),
            },
        }
    }

    /// Whether the kernel has parted the socket from its interface, which is removed then.
    fn is_unbound(&self) -> bool {
        self.socket.local_addr().is_ok_and(|address| !address::has_interface(&address))
    }
}

/// For whoever waits in another way than [`FrameSocket::recv`] does.
impl<Filter> AsFd for FrameSocket<Filter> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn from_io(error: io::Error) -> SocketError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SocketError::NotPermitted,
        Some(libc::ENETDOWN) => SocketError::InterfaceDown,
        Some(libc::ENODEV | libc::ENXIO) => SocketError::InterfaceGone,
        Some(libc::EAGAIN | libc::ENOBUFS) => SocketError::Full,
        _ => SocketError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        for (code, expected) in [
            (libc::EPERM, "add the capability NET_RAW"),
            (libc::EACCES, "add the capability NET_RAW"),
            (libc::ENETDOWN, "try again once it is up"),
            (libc::ENODEV, "open one on an interface that exists"),
            (libc::ENXIO, "open one on an interface that exists"),
            (libc::EAGAIN, "does not keep up"),
            (libc::ENOBUFS, "does not keep up"),
        ] {
            let message = from_io(io::Error::from_raw_os_error(code)).to_string();
            assert!(message.contains(expected), "{code}: {message}");
        }
    }
}
