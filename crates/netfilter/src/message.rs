//! Messages as they are sent.

use netlink_packet_core::{Emitable, NLM_F_REQUEST, NetlinkHeader};

use crate::attributes::Attributes;

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The length of `struct nfgenmsg`, which is before the attributes.
pub(crate) const FAMILY_HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const NF_TABLES: u8 = 10;
/// `NFNL_SUBSYS_CTNETLINK`.
pub(crate) const CONNTRACK: u8 = 1;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(crate) const BATCH_BEGIN: u16 = 16;
/// `NFNL_MSG_BATCH_END`.
pub(crate) const BATCH_END: u16 = 17;

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) flags: u16,
    pub(crate) family: u8,
    pub(crate) attributes: Attributes,
    /// For people, when the kernel refuses it.
    pub(crate) what: String,
}

/// The `NFT_MSG_*` that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    DeleteChain = 5,
    NewRule = 6,
    DeleteRule = 8,
    NewSet = 9,
    DeleteSet = 11,
    NewElements = 12,
    DeleteElements = 14,
    NewObject = 18,
    GetObject = 19,
    DeleteObject = 20,
}

impl Kind {
    pub(crate) fn creates(self) -> bool {
        use Kind::{NewChain, NewElements, NewObject, NewRule, NewSet, NewTable};
        matches!(self, NewTable | NewChain | NewRule | NewSet | NewElements | NewObject)
    }

    pub(crate) fn number(self) -> u16 {
        u16::from(NF_TABLES) << 8 | self as u16
    }
}

/// Writes a message with its headers.
pub(crate) fn write(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    subsystem: u8,
    attributes: &[u8],
) {
    let start = buffer.len();
    let length = HEADER + FAMILY_HEADER + attributes.len();
    buffer.resize(start + HEADER, 0);
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    header.emit(&mut buffer[start..]);
    buffer.extend([family, 0, 0, subsystem]);
    buffer.extend(attributes);
}
