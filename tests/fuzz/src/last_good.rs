//! What is kept of a pool in a Lease, which anybody who may write Leases can damage.

use arpeggio_api::last_good::{self, LastGood};

/// The uid of the object in the seeds.
const UID: &str = "u-1";

/// Any text is read or refused with words; what is read is written back the same, and its pools can be used.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match LastGood::parse(&last_good::lease(UID, &text)) {
        Ok(read) => {
            assert!(read.pools.iter().all(|pool| pool.pool.is_ok()));
            let again = last_good::lease(UID, &read.to_text());
            assert_eq!(LastGood::parse(&again), Ok(read));
        }
        Err(error) => assert!(!error.what.is_empty()),
    }
}
