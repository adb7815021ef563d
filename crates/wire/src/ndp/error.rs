//! Why a frame is refused.

/// Why bytes are not a neighbour solicitation or advertisement, or one that must be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NdpError {
    /// The frame ends before a field or option does, or before the IPv6 payload length says.
    #[error("the frame is shorter than its IPv6 header or its message says")]
    Truncated,
    /// The frame carries a VLAN tag (IEEE 802.1Q or 802.1ad): it belongs to another network.
    #[error("the frame carries a VLAN tag, so it belongs to another network")]
    VlanTagged,
    /// The Ethernet type is not 0x86dd or the version is not 6.
    #[error("the frame does not carry IPv6")]
    NotIpv6,
    /// The IPv6 header is not followed by ICMPv6 at once. NDP needs no extension header, and must
    /// not be fragmented (RFC 6980 section 5).
    #[error("the next header is not ICMPv6")]
    NotIcmpv6,
    /// The hop limit is not 255: a router has forwarded the packet from elsewhere.
    #[error("the hop limit is not 255, so the packet may come from another segment")]
    HopLimit,
    /// The source is a group (RFC 4291 section 2.7 forbids it).
    #[error("the source address is a multicast address")]
    MulticastSource,
    /// The type is neither 135 nor 136.
    #[error("the message is neither a neighbour solicitation nor an advertisement")]
    MessageType,
    /// The code is not 0.
    #[error("the code is not 0")]
    Code,
    /// The checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// The target is a group.
    #[error("the target is a multicast address")]
    MulticastTarget,
    /// An option's length is 0.
    #[error("an option has the length 0")]
    OptionLength,
    /// A link-layer address option does not have the length of an Ethernet address.
    #[error("the link-layer address is not an Ethernet address")]
    LinkAddressLength,
    /// A probe (source `::`) was not sent to the target's solicited-node group.
    #[error("a probe was not sent to a solicited-node group")]
    ProbeDestination,
    /// A probe (source `::`) has a link-layer address, as if somebody could keep it.
    #[error("a probe has a source link-layer address")]
    ProbeLinkAddress,
    /// An advertisement to a group says that it was asked for.
    #[error("an advertisement to a multicast address has the solicited flag")]
    SolicitedMulticast,
}

impl NdpError {
    /// A stable name in `snake_case` for a metric's `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::VlanTagged => "vlan_tagged",
            Self::NotIpv6 => "not_ipv6",
            Self::NotIcmpv6 => "not_icmpv6",
            Self::HopLimit => "hop_limit",
            Self::MulticastSource => "multicast_source",
            Self::MessageType => "message_type",
            Self::Code => "code",
            Self::Checksum => "checksum",
            Self::MulticastTarget => "multicast_target",
            Self::OptionLength => "option_length",
            Self::LinkAddressLength => "link_address_length",
            Self::ProbeDestination => "probe_destination",
            Self::ProbeLinkAddress => "probe_link_address",
            Self::SolicitedMulticast => "solicited_multicast",
        }
    }
}
