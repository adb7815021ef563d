//! The Lease of an address, which anybody who may write Leases can damage.

use arpeggio_api::lock;

use crate::object::Fields;

/// Any Lease is read or refused with words, and the claim that is read is written back the same.
pub fn check(bytes: &[u8]) {
    match lock::parse(&Fields::of(bytes).lease()) {
        Ok(record) => {
            let mut again = record.claim.created();
            again.metadata.resource_version = Some("1".to_owned());
            assert_eq!(lock::parse(&again).map(|it| it.claim), Ok(record.claim));
        }
        Err(error) => assert!(!error.what.is_empty()),
    }
}
