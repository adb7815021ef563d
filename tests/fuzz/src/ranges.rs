//! Addresses as people write them in pools.

use arpeggio_ipam::{AddressRange, RangeError};

/// Any text is read or refused with words; a range that is read is written as one that reads the
/// same, and has both of its ends.
///
/// A prefix shorter than that of the IPv4-mapped addresses can end among them (`::/80`), though
/// nobody can write such an end by itself.
pub fn check(bytes: &[u8]) {
    match String::from_utf8_lossy(bytes).parse::<AddressRange>() {
        Ok(range) => {
            let again = range.to_string().parse();
            assert!(again == Ok(range) || matches!(again, Err(RangeError::MappedIpv4 { .. })));
            assert!(range.contains(range.first()) && range.contains(range.last()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
