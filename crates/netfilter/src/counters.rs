//! Named counters.

use crate::{
    attributes::{self, Attributes},
    error::Error,
    message::Kind,
    socket::Netfilter,
    tables::Table,
};

/// What a named counter has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Netfilter {
    /// All named counters of a table.
    ///
    /// # Errors
    ///
    /// When the kernel does not list them.
    pub fn counters(&mut self, table: &Table) -> Result<Vec<Counted>, Error> {
        let mut wanted = Attributes::default();
        // NFT_OBJECT_COUNTER
        wanted.text(1, &table.name).number(3, 1);
        let kind = (Kind::GetObject.number(), table.family.number());
        self.list(kind, wanted.as_bytes(), Vec::new, |counters, found| {
            counters.extend(counted(found, &table.name));
        })
    }
}

/// Kernels differ in whether they ask for the table: we do in any case.
fn counted(object: &[u8], table: &str) -> Option<Counted> {
    let text = |kind| attributes::find(object, kind).and_then(attributes::text);
    text(1).filter(|name| *name == table)?;
    let number = |kind| attributes::find_path(object, &[4, kind]).and_then(attributes::long);
    Some(Counted { name: text(2)?.to_owned(), bytes: number(1)?, packets: number(2)? })
}
