//! Addresses as people write them in pools.

use arpeggio_ipam::AddressRange;

/// Any text is read or refused with words; a range that is read is written as one that reads the
/// same, and has both of its ends.
pub fn check(bytes: &[u8]) {
    match String::from_utf8_lossy(bytes).parse::<AddressRange>() {
        Ok(range) => {
            assert_eq!(range.to_string().parse(), Ok(range));
            assert!(range.contains(range.first()) && range.contains(range.last()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
