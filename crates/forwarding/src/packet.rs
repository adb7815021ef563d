//! How packets are told apart.

use core::fmt;

/// Into how many parts the connections to one port of a spread address are divided.
pub const BUCKETS: u16 = 1024;

/// What can be said of a packet to an address before anybody looks for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It may begin a connection, and is never passed on: TCP with SYN and without ACK, RST and FIN; UDP that is not QUIC;
    /// QUIC's long header (the first bit of the first byte is set).
    First,
    /// It belongs to a connection that somebody knows: all other TCP; QUIC's short header (the first bit is clear).
    Other,
    /// An ICMP error about something that the address has sent: destination unreachable, packet too big, time exceeded,
    /// parameter problem. Those that conntrack relates to a connection are not looked at.
    IcmpError,
}

/// What of a packet chooses its bucket: the bytes, as they are in the packet, that `nft_hash` is given.
///
/// Bucket = `(jhash(key, length of the key, seed) * 1024) >> 32`, with `jhash` of `linux/jhash.h`: what `nf_tables` computes for
/// `jhash KEY mod 1024 seed SEED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpreadBy {
    /// The source address: 4 or 16 bytes. For UDP, since only the first of several fragments has ports, and for session affinity.
    Client,
    /// The source address, the source port, and two bytes of zero, since `nf_tables` fills its registers of four bytes: 8 or 20
    /// bytes in all. For TCP.
    ClientAndPort,
}

impl fmt::Display for SpreadBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client's address",
            Self::ClientAndPort => "the client's address and port",
        })
    }
}
