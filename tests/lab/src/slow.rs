//! A cable that is slow: what passes is held up for a while, and some of it is lost.
//!
//! The kernel's own means for that (`sch_netem`) is not in every kernel, so frames pass through a thread here:
//!
//! ```text
//!   machine eth0 ══ port ── thread ── PORT-near ══ PORT-far ── bridge
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    socket,
};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::plan::Machine;

/// What a cable does to frames, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// How long each frame is held up at least.
    pub delay: Duration,
    /// By how much longer at most; frames stay in order.
    pub jitter: Duration,
    /// How many of a thousand are lost.
    pub lost: u16,
}

/// A machine's cable while it is slow. Dropping it mends the cable.
#[derive(Debug)]
pub struct SlowCable {
    switch: Namespace,
    port: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<nix::Result<()>>>,
}

/// The longest frame that passes.
const LONGEST: usize = 2048;

/// So many wait on the way at most, as on any link.
const WAITING: usize = 1000;

/// How long a direction waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Frames that the kernel has handed on from here; packet(7).
const OUTGOING: u8 = 4;

/// Has all that `machine` sends and is sent on the LAN pass a cable of this `quality`. Connections survive.
///
/// # Errors
/// When it is not on the LAN, or the switch refuses.
pub fn slow_down(lab: &Lab, machine: Machine, quality: Quality) -> Result<SlowCable> {
    let (switch, port) = (lab.namespace(Machine::Switch), machine.to_string());
    let (near, far) = (format!("{port}-near"), format!("{port}-far"));
    // The kernel leaves checksums and the division into frames to network cards; this cable is none.
    without_offload(&lab.namespace(machine), machine.interface())?;
    switch.run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far])?;
    without_offload(&switch, &far)?;
    switch.run("ip", &["link", "set", &near, "up"])?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut cable = SlowCable { switch, port: port.clone(), stop, threads: Vec::new() };
    let open = |one: &str| cable.switch.enter(|| open(one))?.map_err(refused);
    let sockets = Arc::new([open(&port)?, open(&near)?]);
    for from in [0, 1] {
        let (sockets, stop) = (Arc::clone(&sockets), Arc::clone(&cable.stop));
        let pass = move || pass(&sockets[from], &sockets[1 - from], quality, &stop);
        let thread = cable.switch.start_thread(pass)?;
        cable.threads.push(thread);
    }
    cable.switch.run("ip", &["link", "set", &port, "nomaster"])?;
    cable.switch.run("ip", &["link", "set", &far, "master", "br0", "up"])?;
    Ok(cable)
}

impl Drop for SlowCable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
        // The switch may be gone by now, and the cable with it.
        let _ = self.switch.run("ip", &["link", "delete", &format!("{}-near", self.port)]);
        let _ = self.switch.run("ip", &["link", "set", &self.port, "master", "br0"]);
    }
}

fn refused(error: Errno) -> LabError {
    LabError::Unexpected { what: "a slow cable".to_owned(), detail: error.to_string() }
}

fn without_offload(namespace: &Namespace, interface: &str) -> Result<()> {
    let off = ["tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"];
    namespace.run("ethtool", &[&["-K", interface][..], &off].concat()).map(drop)
}

/// A socket for every frame on an interface, whomever it is for.
fn open(interface: &str) -> nix::Result<Socket> {
    let mut links = getifaddrs()?.filter(|it| it.interface_name == interface);
    let link: Option<LinkAddr> = links.find_map(|it| it.address?.as_link_addr().copied());
    let link = link.ok_or(Errno::ENODEV)?;
    let (flags, all) = (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all)?;
    bind(socket.as_raw_fd(), &link)?;
    Ok(Socket { socket, interface: link.ifindex() })
}

struct Socket {
    socket: OwnedFd,
    interface: usize,
}

impl Socket {
    /// The next frame that has come in here; `None` when there is none.
    fn next(&self, buffer: &mut [u8]) -> nix::Result<Option<Vec<u8>>> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
                // Heard elsewhere before the socket was bound, or sent from here.
                Ok((_, Some(from)))
                    if from.ifindex() != self.interface || from.pkttype() == OUTGOING => {}
                Ok((length, _)) => return Ok(buffer.get(..length).map(<[u8]>::to_vec)),
                // The latter says once that the cable is out.
                Err(Errno::EAGAIN | Errno::ENETDOWN) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One direction, until it is to end.
fn pass(from: &Socket, to: &Socket, quality: Quality, stop: &AtomicBool) -> nix::Result<()> {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; LONGEST];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while waiting.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, frame)) = waiting.pop_front() {
                // What a cable that is out does not take is lost.
                let _ = send(to.socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT);
            }
        }
        let next = waiting.front().map_or(LOOK, |(due, _)| due.saturating_duration_since(now));
        let timeout = PollTimeout::try_from(next.min(LOOK) + Duration::from_micros(999));
        let mut events = [PollFd::new(from.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut events, timeout.unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        while let Some(frame) = from.next(&mut buffer)? {
            if fastrand::u16(..1000) < quality.lost || waiting.len() >= WAITING {
                continue;
            }
            let due = Instant::now() + quality.delay + quality.jitter.mul_f64(fastrand::f64());
            let last = waiting.back().map_or(due, |(last, _)| *last);
            waiting.push_back((due.max(last), frame));
        }
    }
    Ok(())
}
