//! Addresses of packet sockets (`struct sockaddr_ll`), which the standard library does not know.
#![allow(unsafe_code)]
#![expect(clippy::cast_possible_truncation, reason = "the constants are far below the limits")]

use socket2::{SockAddr, SockAddrStorage, socklen_t};

const LENGTH: socklen_t = size_of::<libc::sockaddr_ll>() as socklen_t;

/// "Frames of this type on this interface"; `None` if no interface can have this index.
pub(super) fn frames_on(interface: u32, ethernet_type: u16) -> Option<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's socket address types.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethernet_type.to_be();
    address.sll_ifindex = i32::try_from(interface).ok()?;
    // SAFETY: the storage holds a sockaddr_ll with its family, and this is its length.
    Some(unsafe { SockAddr::new(storage, LENGTH) })
}

/// Whether an address that the kernel gave for a packet socket names an interface.
pub(super) fn has_interface(address: &SockAddr) -> bool {
    // SAFETY: a SockAddr is backed by a whole sockaddr_storage, initialised, larger than and aligned
    // for a sockaddr_ll, whose fields are integers that may have any value.
    let address = unsafe { &*address.as_ptr().cast::<libc::sockaddr_ll>() };
    i32::from(address.sll_family) == libc::AF_PACKET && address.sll_ifindex > 0
}
