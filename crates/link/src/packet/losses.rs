//! How many frames a packet socket had no room for (`PACKET_STATISTICS`, packet(7)).
#![allow(unsafe_code)]
#![expect(clippy::cast_possible_truncation, reason = "the structure is small")]

use std::io;
use std::os::fd::AsRawFd;

/// Counted from the last call on.
pub(super) fn lost(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the statistics, during
    // the call only, and the socket is open as long as it is borrowed.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(statistics.tp_drops) } else { Err(io::Error::last_os_error()) }
}
