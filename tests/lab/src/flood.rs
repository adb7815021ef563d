//! A machine that sends as many frames as it can.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessage, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind,
    sendmmsg, socket,
};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::plan::Machine;

/// So many frames are handed to the kernel at once.
const BATCH: usize = 64;

/// Frames that have left, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// How many.
    pub frames: u64,
    /// How many in a second.
    pub per_second: u64,
}

/// Has `intruder` send these frames, each given from its Ethernet header on, again and again for `span`, as fast as it can.
///
/// # Errors
/// When it is not on the LAN or its raw socket is refused.
pub fn send(lab: &Lab, intruder: Machine, frames: &[Vec<u8>], span: Duration) -> Result<Flood> {
    let sent = lab.namespace(intruder).enter(|| repeat(&open(intruder)?, frames, span))?;
    sent.map_err(|error: Errno| LabError::Unexpected {
        what: format!("a flood from {intruder}"),
        detail: error.to_string(),
    })
}

/// A socket that sends on the machine's LAN interface and receives nothing.
fn open(machine: Machine) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let is_lan = |name: &str| name == machine.interface();
    let mut links = getifaddrs()?.filter(|it| is_lan(&it.interface_name));
    let link: Option<LinkAddr> = links.find_map(|it| it.address?.as_link_addr().copied());
    bind(socket.as_raw_fd(), &link.ok_or(Errno::ENODEV)?)?;
    Ok(socket)
}

fn repeat(socket: &OwnedFd, frames: &[Vec<u8>], span: Duration) -> nix::Result<Flood> {
    let (begin, mut headers, mut sent) =
        (Instant::now(), MultiHeaders::preallocate(BATCH, None), 0);
    while begin.elapsed() < span {
        for batch in frames.chunks(BATCH) {
            sent += send_batch(socket, &mut headers, batch)?;
        }
    }
    let millis = begin.elapsed().as_millis().max(1);
    let per_second = u128::from(sent) * 1000 / millis;
    Ok(Flood { frames: sent, per_second: u64::try_from(per_second).unwrap_or(u64::MAX) })
}

/// What a full queue refuses is not sent.
fn send_batch(
    socket: &OwnedFd,
    headers: &mut MultiHeaders<()>,
    frames: &[Vec<u8>],
) -> nix::Result<u64> {
    const NOTHING_ELSE: [ControlMessage; 0] = [];
    let bytes = |at: usize| frames.get(at).map_or(&[][..], |frame| frame);
    let slices: [_; BATCH] = std::array::from_fn(|at| [IoSlice::new(bytes(at))]);
    let slices = slices.iter().take(frames.len());
    let flags = MsgFlags::MSG_DONTWAIT;
    match sendmmsg(socket.as_raw_fd(), headers, slices, [None; BATCH], NOTHING_ELSE, flags) {
        Ok(sent) => Ok(u64::try_from(sent.count()).unwrap_or_default()),
        Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(0),
        Err(error) => Err(error),
    }
}
