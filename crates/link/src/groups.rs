//! Membership of the groups that questions for IPv6 addresses are sent to.
//!
//! A packet socket hears what the network card lets in. Only a membership makes the card let a
//! group's frames in, and makes the kernel report it (MLD, RFC 3810), so that a switch that snoops
//! on such reports forwards them. The kernel repeats the reports when the carrier returns.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use arpeggio_wire::solicited_node;
use socket2::{Domain, Socket, Type};

/// Why a group is not joined.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The interface does not exist any more, or IPv6 is off.
    #[error("the interface is gone or has no IPv6: check the sysctl net.ipv6.conf.*.disable_ipv6")]
    NoIpv6,
    /// Anything else.
    #[error("cannot join the group {group}")]
    Join {
        /// The group.
        group: Ipv6Addr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The kernel gives no socket.
    #[error("cannot open an IPv6 socket: the kernel may have been started without IPv6")]
    Open(#[source] io::Error),
}

/// The solicited-node groups of the addresses that one interface announces. Dropping it leaves all.
#[derive(Debug)]
pub struct SolicitedNodes {
    interface: u32,
    /// Each remembers its memberships up to a limit of the kernel (`net.core.optmem_max`); some
    /// hundred before Linux 6.8, some thousand since.
    sockets: Vec<Socket>,
    /// The groups, and which socket has joined each.
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl SolicitedNodes {
    /// None so far, on the interface with this index in the calling thread's network namespace.
    pub const fn new(interface: u32) -> Self {
        Self { interface, sockets: Vec::new(), joined: BTreeMap::new() }
    }

    /// Joins the groups of `addresses`, for those that were not joined before. Call it before they
    /// are announced. Returns whether all are joined: the kernel serves one change of its network
    /// configuration at a time, so that many take long on a node where pods come and go, and no
    /// further one is begun when `limit` is over.
    ///
    /// # Errors
    /// The first group that could not be joined; others may be joined all the same, and all missing
    /// ones are tried again with the next call.
    pub fn join(
        &mut self,
        addresses: &BTreeSet<Ipv6Addr>,
        limit: Duration,
    ) -> Result<bool, GroupError> {
        let (begin, mut result) = (Instant::now(), Ok(true));
        for group in groups_of(addresses) {
            if self.joined.contains_key(&group) {
                continue;
            }
            if begin.elapsed() >= limit {
                return result.map(|_| false);
            }
            let joined = self.join_group(group);
            result = result.and_then(|all| joined.map(|()| all));
        }
        result
    }

    /// Leaves all groups but those of `addresses`. Call it when the others are announced no longer.
    pub fn leave_all_but(&mut self, addresses: &BTreeSet<Ipv6Addr>) {
        let wanted = groups_of(addresses);
        let Self { interface, sockets, joined } = self;
        joined.retain(|group, socket| {
            let stays = wanted.contains(group);
            if !stays && let Some(socket) = sockets.get(*socket) {
                // Fails only when the interface is gone, and the membership with it.
                let _ = socket.leave_multicast_v6(group, *interface);
            }
            stays
        });
    }

    /// How many groups are joined. Addresses that end in the same 24 bits share one.
    pub fn len(&self) -> usize {
        self.joined.len()
    }

    /// Whether no group is joined.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }

    fn join_group(&mut self, group: Ipv6Addr) -> Result<(), GroupError> {
        for (position, socket) in self.sockets.iter().enumerate() {
            match socket.join_multicast_v6(&group, self.interface) {
                Ok(()) => {
                    self.joined.insert(group, position);
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(from_io(group, error)),
            }
        }
        self.join_with_new_socket(group)
    }

    fn join_with_new_socket(&mut self, group: Ipv6Addr) -> Result<(), GroupError> {
        // It has no port, so it never receives anything.
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).map_err(GroupError::Open)?;
        socket.join_multicast_v6(&group, self.interface).map_err(|error| from_io(group, error))?;
        self.joined.insert(group, self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }
}

fn groups_of(addresses: &BTreeSet<Ipv6Addr>) -> BTreeSet<Ipv6Addr> {
    addresses.iter().copied().map(solicited_node).collect()
}

/// Whether the socket remembers as many memberships as the kernel allows it to.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

fn from_io(group: Ipv6Addr, source: io::Error) -> GroupError {
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::EINVAL | libc::EADDRNOTAVAIL) => GroupError::NoIpv6,
        _ => GroupError::Join { group, source },
    }
}
