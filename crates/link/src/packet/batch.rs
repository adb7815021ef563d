//! Several frames by one system call (recvmmsg(2), sendmmsg(2)).
//!
//! Under a flood a system call for each frame costs about as much as the frame itself. Both boxes
//! are made once and used again, so that a frame costs no allocation either.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Deref;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

/// How many frames one system call receives or sends at most.
pub const BATCH: usize = 32;

/// The longest frame of a segment without jumbo frames, in bytes. A longer one is cut: ARP loses
/// padding, and a solicitation with so many options is refused as truncated.
pub const LONGEST_FRAME: usize = 1514;

/// The frames that were received last.
///
/// Not to be sent to another thread: make it where it is used.
pub struct Inbox {
    buffers: Box<[[u8; LONGEST_FRAME]]>,
    /// Of the received frames, in bytes.
    lengths: [usize; BATCH],
    received: usize,
    headers: MultiHeaders<()>,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            buffers: vec![[0; LONGEST_FRAME]; BATCH].into_boxed_slice(),
            lengths: [0; BATCH],
            received: 0,
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// The frames in the order in which they came, each from its Ethernet header on.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let filled = self.buffers.iter().zip(self.lengths).take(self.received);
        filled.map(|(buffer, length)| buffer.get(..length).unwrap_or(buffer))
    }

    /// Forgets what is in it, and takes the frames that have come, without waiting for any.
    pub(super) fn fill(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        self.received = 0;
        let mut buffers = self.buffers.iter_mut();
        let mut next = || buffers.next().map_or(&mut [][..], |it| it);
        let mut slices: [_; BATCH] = std::array::from_fn(|_| [IoSliceMut::new(next())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let socket = socket.as_raw_fd();
        let messages = recvmmsg(socket, &mut self.headers, &mut slices, flags, None)?;
        for (length, message) in self.lengths.iter_mut().zip(messages) {
            *length = message.bytes;
            self.received += 1;
        }
        Ok(())
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

/// What it takes to send several frames.
///
/// Not to be sent to another thread: make it where it is used.
pub struct Outbox {
    headers: MultiHeaders<()>,
}

impl Outbox {
    /// Ready to be used.
    pub fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(BATCH, None) }
    }

    /// Sends all frames but those that the kernel refuses; returns how many have left.
    pub(super) fn send_all<Bytes: Deref<Target = [u8]>>(
        &mut self,
        socket: &impl AsRawFd,
        mut frames: &[Bytes],
    ) -> usize {
        let mut sent = 0;
        while !frames.is_empty() {
            // An error is about the first of them. The others may fare better.
            let left = self.send_some(socket, frames).unwrap_or_default();
            sent += left;
            frames = frames.get(left.max(1)..).unwrap_or_default();
        }
        sent
    }

    /// Sends the first of the frames, up to one that the kernel refuses.
    fn send_some<Bytes: Deref<Target = [u8]>>(
        &mut self,
        socket: &impl AsRawFd,
        frames: &[Bytes],
    ) -> nix::Result<usize> {
        const NOTHING_ELSE: [ControlMessage; 0] = [];
        let bytes = |at: usize| frames.get(at).map_or(&[][..], |frame| frame);
        let slices: [_; BATCH] = std::array::from_fn(|at| [IoSlice::new(bytes(at))]);
        let slices = slices.iter().take(frames.len());
        let (socket, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let to_the_interface = [None; BATCH];
        sendmmsg(socket, &mut self.headers, slices, to_the_interface, NOTHING_ELSE, flags)
            .map(Iterator::count)
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}
