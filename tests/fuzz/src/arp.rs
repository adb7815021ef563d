//! ARP frames.

use arpeggio_wire::ArpFrame;

/// Any bytes are read or refused as ARP, and what is read is written back the same.
pub fn check(bytes: &[u8]) {
    let Ok(frame) = ArpFrame::parse(bytes) else { return };
    assert_eq!(frame.to_bytes()[..ArpFrame::LEN], bytes[..ArpFrame::LEN]);
    if let Some(question) = frame.question() {
        assert_eq!(question.broadcast().question(), Some(question));
        assert!(question.answer(frame.destination).destination.is_unicast());
    }
    assert!(frame.claim().is_none_or(|claim| !claim.address.is_unspecified()));
}
