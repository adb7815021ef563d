//! Pools as their author declared them.

use alloc::vec::Vec;

use crate::{
    names::PoolName,
    range::{AddressRange, RangeError},
};

/// A named set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    name: PoolName,
    ranges: Vec<AddressRange>,
    auto_assign: bool,
}

/// A pool that cannot be used because one of its addresses is not one. It keeps its name, so that whoever asks for it
/// learns why it gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {} of {}: {error}", position + 1, of)]
pub struct InvalidPool {
    /// The pool.
    pub pool: PoolName,
    /// Which item is wrong, from 0.
    pub position: usize,
    /// How many items there are.
    pub of: usize,
    /// What is wrong with it.
    pub error: RangeError,
}

impl Pool {
    /// A pool of `ranges`, which may overlap each other. Services that name no pool get addresses from it only when
    /// `auto_assign` is set.
    pub fn new(name: PoolName, ranges: Vec<AddressRange>, auto_assign: bool) -> Self {
        Self { name, ranges, auto_assign }
    }

    /// A pool of addresses as people write them; see [`AddressRange`].
    ///
    /// # Errors
    /// The first item that is not an address range. A pool of which only a part is understood is not used at all:
    /// its author should see it at once, not when the other part is full.
    pub fn parse(
        name: PoolName,
        addresses: &[impl AsRef<str>],
        auto_assign: bool,
    ) -> Result<Self, InvalidPool> {
        let mut ranges = Vec::with_capacity(addresses.len());
        for (position, text) in addresses.iter().enumerate() {
            match text.as_ref().parse() {
                Ok(range) => ranges.push(range),
                Err(error) => {
                    return Err(InvalidPool { pool: name, position, of: addresses.len(), error });
                }
            }
        }
        Ok(Self::new(name, ranges, auto_assign))
    }

    /// Its name.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// Its addresses, as declared.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Whether Services that name no pool get addresses from it.
    pub fn auto_assign(&self) -> bool {
        self.auto_assign
    }

    /// The first range that it shares with `other`.
    pub(crate) fn intersection(&self, other: &Self) -> Option<AddressRange> {
        let with_other = |range: &AddressRange| {
            other.ranges.iter().find_map(|theirs| range.intersection(theirs))
        };
        self.ranges.iter().find_map(with_other)
    }

    pub(crate) fn contains(&self, address: core::net::IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_wrong_item_is_named() {
        let items = ["10.0.0.1", "10.0.0.9-10.0.0.5"];
        let error = Pool::parse("home".into(), &items, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address 2 of 2: 10.0.0.9-10.0.0.5 starts after its end: did you mean 10.0.0.5-10.0.0.9?"
        );
    }
}
