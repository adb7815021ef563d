//! What a kernel may lack.

use crate::{
    batch::Batch,
    error::Error,
    expression::{Expression, Register, Verdict},
    socket::Netfilter,
    tables::{Family, Hook, Table},
};

/// Something that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Feature {
    /// Tables of IPv4.
    #[error(
        "the kernel has no nf_tables for IPv4: it needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_IPV4 (module nf_tables)"
    )]
    TablesIp,
    /// Tables of IPv6.
    #[error(
        "the kernel has no nf_tables for IPv6: it needs CONFIG_NF_TABLES_IPV6 (module nf_tables)"
    )]
    TablesIp6,
    /// Tables of devices.
    #[error(
        "the kernel has no nf_tables for devices: it needs CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_INGRESS"
    )]
    TablesNetdev,
    /// Tables that go with their owner.
    #[error(
        "the kernel cannot remove tables with the process that made them: it needs Linux 5.12 or later"
    )]
    Owner,
    /// `ct`.
    #[error("the kernel's nf_tables cannot ask conntrack: it needs CONFIG_NFT_CT (module nft_ct)")]
    Conntrack,
    /// `jhash`.
    #[error("the kernel's nf_tables cannot hash: it needs CONFIG_NFT_HASH (module nft_hash)")]
    Hash,
    /// `dup` in the family ip.
    #[error(
        "the kernel's nf_tables cannot send packets on in IPv4: it needs CONFIG_NFT_DUP_IPV4 (module nft_dup_ipv4)"
    )]
    DuplicateIp,
    /// `dup` in the family ip6.
    #[error(
        "the kernel's nf_tables cannot send packets on in IPv6: it needs CONFIG_NFT_DUP_IPV6 (module nft_dup_ipv6)"
    )]
    DuplicateIp6,
    /// `reject` in the family ip, before routing.
    #[error(
        "the kernel's nf_tables cannot reset connections in IPv4: it needs CONFIG_NFT_REJECT_IPV4 (module nft_reject_ipv4)"
    )]
    ResetIp,
    /// `reject` in the family ip6, before routing.
    #[error(
        "the kernel's nf_tables cannot reset connections in IPv6: it needs CONFIG_NFT_REJECT_IPV6 (module nft_reject_ipv6)"
    )]
    ResetIp6,
    /// `fwd`.
    #[error(
        "the kernel's nf_tables cannot forward frames: it needs CONFIG_NFT_FWD_NETDEV (module nft_fwd_netdev)"
    )]
    Forward,
}

impl Feature {
    /// All of them, what the others need first.
    pub const ALL: [Self; 11] = [
        Self::TablesIp,
        Self::TablesIp6,
        Self::TablesNetdev,
        Self::Owner,
        Self::Conntrack,
        Self::Hash,
        Self::DuplicateIp,
        Self::DuplicateIp6,
        Self::ResetIp,
        Self::ResetIp6,
        Self::Forward,
    ];

    fn family(self) -> Family {
        match self {
            Self::TablesIp6 | Self::DuplicateIp6 | Self::ResetIp6 => Family::Ip6,
            Self::TablesNetdev | Self::Forward => Family::Netdev,
            _ => Family::Ip,
        }
    }

    /// A rule that only a kernel with the feature takes.
    fn rule(self) -> Vec<Expression> {
        let (first, second) = (Register::new(0), Register::new(4));
        let load = |length, to| Expression::Load { value: vec![0; length], to };
        match self {
            Self::TablesIp | Self::TablesIp6 | Self::TablesNetdev | Self::Owner => {
                vec![Expression::Verdict(Verdict::Accept)]
            }
            Self::Conntrack => vec![Expression::ConntrackState { to: first }],
            Self::Hash => {
                vec![
                    load(4, first),
                    Expression::Hash { from: first, length: 4, modulus: 2, seed: 1, to: second },
                ]
            }
            Self::DuplicateIp => vec![
                load(4, first),
                load(4, second),
                Expression::Duplicate { address: first, device: second },
            ],
            Self::DuplicateIp6 => vec![
                load(16, first),
                load(4, second),
                Expression::Duplicate { address: first, device: second },
            ],
            Self::ResetIp | Self::ResetIp6 => vec![Expression::Reset],
            Self::Forward => vec![load(4, first), Expression::Forward { device: first }],
        }
    }

    /// Makes a table with a rule, and removes it, in one transaction: no packet ever sees it.
    fn trial(self, table: &Table) -> Batch {
        let hook = match table.family {
            Family::Netdev => Hook::Ingress { device: "lo".to_owned(), index: 1, priority: 0 },
            Family::Ip | Family::Ip6 => Hook::Prerouting { priority: 0 },
        };
        let mut batch = Batch::new();
        batch.add_table_with(table, self == Self::Owner);
        batch.add_chain(table, "trial", Some(&hook));
        batch.add_rule(table, "trial", &self.rule());
        batch.delete_table(table);
        batch
    }
}

impl Netfilter {
    /// Whether the kernel has some features.
    ///
    /// # Errors
    ///
    /// Names the first that it lacks, or says why nobody can tell.
    pub fn require(&mut self, features: &[Feature]) -> Result<(), Error> {
        for feature in features {
            let table = Table { family: feature.family(), name: format!("trial-{}", self.port()) };
            match self.commit(&feature.trial(&table)) {
                Err(Error::Refused { .. }) => return Err(Error::Missing(*feature)),
                other => other?,
            }
        }
        Ok(())
    }
}
