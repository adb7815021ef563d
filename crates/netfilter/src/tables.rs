//! What tables, chains, sets and rules are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::expression::{Expression, Verdict};

/// All tables that are wanted, with what is in them.
pub type Tables = BTreeMap<Table, Contents>;

/// A rule: each expression is met in turn, until one does not match.
pub type Rule = Vec<Expression>;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// All frames of a device.
    Netdev,
}

/// A table, by its family and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// The family.
    pub family: Family,
    /// The name, unique in the family.
    pub name: String,
}

/// What is in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The named counters.
    pub counters: BTreeSet<String>,
    /// The sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// The chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come in. `None`: only from rules of other chains.
    pub hook: Option<Hook>,
    /// The rules, in order. A packet that none of them judges goes on.
    pub rules: Vec<Rule>,
}

/// Where a base chain gets its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Before routing, in a table of [`Family::Ip`] or [`Family::Ip6`]. Conntrack has priority -200, destination NAT -100.
    Prerouting {
        /// Lower is earlier.
        priority: i32,
    },
    /// As soon as the device has a frame, in a table of [`Family::Netdev`].
    Ingress {
        /// The name of the device.
        device: String,
        /// Its index. The kernel does not ask for it: a device of the same name and another index is another device, and the
        /// chain must be made anew.
        index: u32,
        /// Lower is earlier.
        priority: i32,
    },
}

/// A set or a map with its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it can have.
    pub kind: SetKind,
    /// Keys, and what they stand for. In a key and in data each field is filled up with zeros to a multiple of four bytes.
    pub elements: BTreeMap<Vec<u8>, Data>,
}

/// What a set or a map can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKind {
    /// What a key is made of.
    pub key: Vec<Field>,
    /// What a key stands for.
    pub value: SetValue,
}

/// What the keys of a set stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// Nothing: they are in the set.
    Nothing,
    /// A verdict.
    Verdict,
    /// Data.
    Data(Vec<Field>),
}

/// What one key of a set stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: it is in the set.
    Nothing,
    /// A verdict.
    Verdict(Verdict),
    /// Data.
    Bytes(Vec<u8>),
}

/// A part of a key or of data. The kernel only asks for its length; the program `nft` prints it by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ip,
    /// An IPv6 address.
    Ip6,
    /// A MAC address.
    Mac,
    /// A transport protocol.
    Protocol,
    /// A port.
    Port,
    /// A number of four bytes in the machine's byte order.
    Number,
    /// The index of a device, in the machine's byte order.
    Device,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        // NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Netdev => 5,
        }
    }
}

/// As `nft` writes it.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        })
    }
}

/// As `nft` writes it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl Set {
    /// An empty one.
    pub fn new(key: impl Into<Vec<Field>>, value: SetValue) -> Self {
        Self { kind: SetKind { key: key.into(), value }, elements: BTreeMap::new() }
    }
}

impl SetKind {
    pub(crate) fn is_map(&self) -> bool {
        self.value != SetValue::Nothing
    }
}

impl Field {
    /// The bytes that it takes in a register, a key, or data.
    fn length(self) -> u32 {
        match self {
            Self::Ip | Self::Protocol | Self::Port | Self::Number | Self::Device => 4,
            Self::Mac => 8,
            Self::Ip6 => 16,
        }
    }

    /// The bytes that a field by itself has: only joined fields are filled up.
    fn own_length(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Mac => 6,
            other => other.length(),
        }
    }

    /// The number by which `nft` knows the kind.
    fn kind(self) -> u32 {
        match self {
            Self::Number => 4,
            Self::Ip => 7,
            Self::Ip6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Device => 20,
        }
    }
}

/// The bytes of joined fields.
pub(crate) fn length_of(fields: &[Field]) -> u32 {
    match fields {
        [field] => field.own_length(),
        several => several.iter().map(|field| field.length()).sum(),
    }
}

/// The number by which `nft` knows joined fields.
pub(crate) fn kind_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |kinds, field| kinds << 6 | field.kind())
}
