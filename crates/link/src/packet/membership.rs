//! What a packet socket makes the network card let in (`PACKET_ADD_MEMBERSHIP`, packet(7)).
#![allow(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the constants are small and positive"
)]

use std::io;
use std::os::fd::AsRawFd;

/// Makes the card let in all frames, whomever they are for; undone when the socket is closed.
pub(super) fn hear_everything(socket: &impl AsRawFd, interface: u32) -> io::Result<()> {
    [libc::PACKET_MR_PROMISC, libc::PACKET_MR_ALLMULTI]
        .into_iter()
        .try_for_each(|kind| join(socket, interface, kind as libc::c_ushort))
}

fn join(socket: &impl AsRawFd, interface: u32, kind: libc::c_ushort) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: interface.cast_signed(),
        mr_type: kind,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the kernel reads the request, a whole packet_mreq whose size is given, during the
    // call only, and the socket is open as long as it is borrowed.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
