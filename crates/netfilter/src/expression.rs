//! What rules are made of.

use crate::attributes::Attributes;

/// A register of four bytes. Longer values take the registers that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u8);

impl Register {
    /// How many there are.
    pub const COUNT: u8 = 16;

    /// The register with this number.
    ///
    /// # Panics
    ///
    /// When there is none: at compile time, where it is used in a constant.
    pub const fn new(number: u8) -> Self {
        assert!(number < Self::COUNT, "there are sixteen registers");
        Self(number)
    }

    /// Its number in messages: the first eight numbers are of registers of 16 bytes.
    fn number(self) -> u32 {
        u32::from(self.0) + 8
    }
}

/// A step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads something about the packet.
    Meta {
        /// What.
        key: Meta,
        /// Where to.
        to: Register,
    },
    /// Loads bytes of the packet. The packet does not match when it has none there, as a later fragment has no transport header.
    Payload {
        /// Counted from here.
        header: Header,
        /// The first byte.
        offset: u32,
        /// The number of bytes.
        length: u32,
        /// Where to.
        to: Register,
    },
    /// Writes bytes into the packet.
    SetPayload {
        /// Counted from here.
        header: Header,
        /// The first byte.
        offset: u32,
        /// The number of bytes.
        length: u32,
        /// Where from.
        from: Register,
        /// Where in the header its checksum is, which is corrected. The first byte and the number of bytes must be even then. `None`: no
        /// checksum is corrected.
        checksum: Option<u32>,
    },
    /// Loads 1 where an IPv6 packet has an extension header of this type, 0 otherwise.
    HasExtension {
        /// The type of the header: 44 is a fragment's.
        kind: u8,
        /// Where to.
        to: Register,
    },
    /// Goes on only when the comparison holds.
    Compare {
        /// What is compared.
        register: Register,
        /// How.
        comparison: Comparison,
        /// With what.
        value: Vec<u8>,
    },
    /// Keeps only the bits of the mask.
    Mask {
        /// What is masked, in place.
        register: Register,
        /// The mask.
        mask: Vec<u8>,
    },
    /// Keeps the bits of the mask, and sets others.
    SetBits {
        /// What is changed, in place.
        register: Register,
        /// The bits that stay.
        mask: Vec<u8>,
        /// The bits that are set, none of them in the mask.
        bits: Vec<u8>,
    },
    /// Loads the state that conntrack gives the packet, see [`conntrack_state`].
    ConntrackState {
        /// Where to.
        to: Register,
    },
    /// Goes on only when a key is in a set, or is not.
    InSet {
        /// The set.
        set: String,
        /// The key.
        key: Register,
        /// Whether it must not be there.
        inverted: bool,
    },
    /// Loads what a key stands for in a map. The packet does not match when it is not there.
    LookUp {
        /// The map.
        map: String,
        /// The key.
        key: Register,
        /// Where to.
        to: Register,
    },
    /// Judges as a verdict map says. The packet does not match when its key is not there.
    LookUpVerdict {
        /// The map.
        map: String,
        /// The key.
        key: Register,
    },
    /// Jenkins' hash, scaled: `(jhash(value, length, seed) * modulus) >> 32`, in the machine's byte order.
    Hash {
        /// What is hashed.
        from: Register,
        /// The number of bytes.
        length: u32,
        /// One more than the greatest outcome.
        modulus: u32,
        /// The seed.
        seed: u32,
        /// Where to.
        to: Register,
    },
    /// Loads a value.
    Load {
        /// The value.
        value: Vec<u8>,
        /// Where to.
        to: Register,
    },
    /// Judges.
    Verdict(Verdict),
    /// Sends a copy of the packet to a next hop, past conntrack. In tables of the families ip and ip6.
    Duplicate {
        /// The address of the next hop.
        address: Register,
        /// The index of the device, in the machine's byte order.
        device: Register,
    },
    /// Sends the frame out by a device, and is done with it. In a base chain at a device's ingress.
    Forward {
        /// The index of the device, in the machine's byte order.
        device: Register,
    },
    /// Answers a TCP packet by a reset, and drops it. In tables of the families ip and ip6.
    Reset,
    /// Counts in the rule itself.
    Counter,
    /// Counts in a named counter.
    NamedCounter(String),
}

/// Something about a packet that is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The index of the device by which it came in, in the machine's byte order.
    InDevice,
    /// Its Ethernet type: two bytes.
    Protocol,
    /// Its transport protocol: one byte.
    TransportProtocol,
    /// Whom the frame is for: one byte, 0 when it is for the device by which it came in. Some devices take what is for others, too.
    PacketType,
}

/// Where offsets into a packet are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The frame.
    Link,
    /// IPv4 or IPv6.
    Network,
    /// TCP, UDP and the like.
    Transport,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal.
    Equal,
    /// They differ.
    NotEqual,
    /// What is compared is less: both as numbers of which the first byte weighs most.
    Less,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next base chain.
    Accept,
    /// It is gone.
    Drop,
    /// It goes on behind the rule that jumped here.
    Return,
    /// It goes through another chain, and comes back.
    Jump(String),
    /// It goes through another chain, and does not come back.
    Goto(String),
}

/// States of conntrack, as bits of four bytes in the machine's byte order.
pub mod conntrack_state {
    /// It is of no connection.
    pub const INVALID: u32 = 1;
    /// It is of a connection that has answered.
    pub const ESTABLISHED: u32 = 2;
    /// It is about a connection.
    pub const RELATED: u32 = 4;
    /// It would begin a connection.
    pub const NEW: u32 = 8;
}

/// The verdict "register".
const VERDICT: u32 = 0;

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    /// As `NFTA_DATA_VERDICT`.
    pub(crate) fn write(&self, data: &mut Attributes) {
        data.nest(2, |verdict| {
            verdict.bytes(1, &self.code().to_be_bytes());
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                verdict.text(2, chain);
            }
        });
    }
}

impl Expression {
    /// As an element of `NFTA_RULE_EXPRESSIONS`.
    pub(crate) fn write(&self, list: &mut Attributes) {
        list.nest(1, |expression| {
            expression.text(1, self.name());
            expression.nest(2, |data| self.write_data(data));
        });
    }

    /// The name by which the kernel knows it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } | Self::SetPayload { .. } => "payload",
            Self::HasExtension { .. } => "exthdr",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } | Self::SetBits { .. } => "bitwise",
            Self::ConntrackState { .. } => "ct",
            Self::InSet { .. } | Self::LookUp { .. } | Self::LookUpVerdict { .. } => "lookup",
            Self::Hash { .. } => "hash",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::Duplicate { .. } => "dup",
            Self::Forward { .. } => "fwd",
            Self::Reset => "reject",
            Self::Counter => "counter",
            Self::NamedCounter(_) => "objref",
        }
    }

    fn write_data(&self, data: &mut Attributes) {
        match self {
            Self::Meta { key, to } => data.number(1, to.number()).number(2, key.number()),
            Self::Payload { header, offset, length, to } => data
                .number(1, to.number())
                .number(2, header.number())
                .number(3, *offset)
                .number(4, *length),
            Self::SetPayload { header, offset, length, from, checksum } => {
                data.number(5, from.number()).number(2, header.number());
                data.number(3, *offset).number(4, *length);
                // NFT_PAYLOAD_CSUM_INET
                checksum.iter().fold(data, |data, at| data.number(6, 1).number(7, *at))
            }
            Self::HasExtension { kind, to } => {
                // Offset 0, length 1, NFT_EXTHDR_F_PRESENT, NFT_EXTHDR_OP_IPV6.
                data.number(1, to.number())
                    .bytes(2, &[*kind])
                    .number(3, 0)
                    .number(4, 1)
                    .number(5, 1)
                    .number(6, 0)
            }
            Self::Compare { register, comparison, value } => data
                .number(1, register.number())
                .number(2, comparison.number())
                .nest(3, |data| plain(data, value)),
            Self::Mask { register, mask } => {
                write_bits(data, *register, mask, &vec![0; mask.len()])
            }
            Self::SetBits { register, mask, bits } => write_bits(data, *register, mask, bits),
            Self::ConntrackState { to } => data.number(1, to.number()).number(2, 0),
            Self::InSet { set, key, inverted } => {
                data.text(1, set).number(2, key.number()).number(5, u32::from(*inverted))
            }
            Self::LookUp { map, key, to } => {
                data.text(1, map).number(2, key.number()).number(3, to.number())
            }
            Self::LookUpVerdict { map, key } => {
                data.text(1, map).number(2, key.number()).number(3, VERDICT)
            }
            Self::Hash { from, length, modulus, seed, to } => data
                .number(1, from.number())
                .number(2, to.number())
                .number(3, *length)
                .number(4, *modulus)
                .number(5, *seed)
                .number(7, 0),
            Self::Load { value, to } => {
                data.number(1, to.number()).nest(2, |data| plain(data, value))
            }
            Self::Verdict(verdict) => data.number(1, VERDICT).nest(2, |data| verdict.write(data)),
            Self::Duplicate { address, device } => {
                data.number(1, address.number()).number(2, device.number())
            }
            Self::Forward { device } => data.number(1, device.number()),
            // NFT_REJECT_TCP_RST, and no code.
            Self::Reset => data.number(1, 1).bytes(2, &[0]),
            Self::Counter => data,
            // NFT_OBJECT_COUNTER
            Self::NamedCounter(name) => data.number(1, 1).text(2, name),
        };
    }
}

fn write_bits<'a>(
    data: &'a mut Attributes,
    register: Register,
    mask: &[u8],
    bits: &[u8],
) -> &'a mut Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    data.number(1, register.number())
        .number(2, register.number())
        .number(3, length)
        .nest(4, |data| plain(data, mask))
        .nest(5, |data| plain(data, bits))
}

/// As `NFTA_DATA_VALUE`.
pub(crate) fn plain(data: &mut Attributes, value: &[u8]) {
    data.bytes(1, value);
}

impl Meta {
    fn number(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::InDevice => 4,
            Self::TransportProtocol => 16,
            Self::PacketType => 19,
        }
    }
}

impl Header {
    fn number(self) -> u32 {
        match self {
            Self::Link => 0,
            Self::Network => 1,
            Self::Transport => 2,
        }
    }
}

impl Comparison {
    fn number(self) -> u32 {
        match self {
            Self::Equal => 0,
            Self::NotEqual => 1,
            Self::Less => 2,
        }
    }
}
