//! The Lease of a node's session.

use arpeggio_api::session;

use crate::object::Fields;

/// Any Lease is read or refused with words; where the node is found is written back the same.
pub fn check(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    match session::parse(&fields.lease()) {
        Ok(record) => {
            assert_eq!(Some(session::name(&record.session.node)), fields.get("name"));
            for link in record.links {
                let text = format!("name: session-x\nresourceVersion: 1\n{LINKS}: {link}");
                let again = session::parse(&Fields::of(text.as_bytes()).lease());
                assert_eq!(again.map(|it| it.links), Ok(vec![link]));
            }
        }
        Err(error) => assert!(!error.what.is_empty()),
    }
}

const LINKS: &str = "arpeggio.dev/link-addresses";
