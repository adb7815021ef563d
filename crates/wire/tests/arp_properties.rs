//! What holds for all frames and for all bytes.

use std::net::Ipv4Addr;

use arpeggio_wire::{ArpFrame, ArpOperation, MacAddr};
use proptest::prelude::*;

fn macs() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::from)
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![Just(Ipv4Addr::UNSPECIFIED), any::<Ipv4Addr>()]
}

fn operations() -> impl Strategy<Value = ArpOperation> {
    prop_oneof![Just(ArpOperation::Request), Just(ArpOperation::Reply)]
}

prop_compose! {
    fn frames()(
        (destination, source) in (macs(), macs()),
        operation in operations(),
        (sender_hardware, sender_protocol) in (macs(), addresses()),
        (target_hardware, target_protocol) in (macs(), addresses()),
    ) -> ArpFrame {
        ArpFrame {
            destination,
            source,
            operation,
            sender_hardware,
            sender_protocol,
            target_hardware,
            target_protocol,
        }
    }
}

/// Reads the bytes and asks everything that can be asked of the result.
fn read_through(bytes: &[u8]) {
    if let Ok(frame) = ArpFrame::parse(bytes) {
        assert_eq!(frame.to_bytes()[..ArpFrame::LEN], bytes[..ArpFrame::LEN]);
        if let Some(question) = frame.question() {
            assert!(question.answer(frame.destination).destination.is_unicast());
        }
        assert!(frame.claim().is_none_or(|claim| !claim.address.is_unspecified()));
    }
}

proptest! {
    #[test]
    fn written_frames_read_back(frame in frames()) {
        prop_assert_eq!(ArpFrame::parse(&frame.to_bytes()), Ok(frame));
    }

    #[test]
    fn padding_does_not_matter(frame in frames(), padding in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = frame.to_bytes()[..ArpFrame::LEN].to_vec();
        bytes.extend(padding);
        prop_assert_eq!(ArpFrame::parse(&bytes), Ok(frame));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        read_through(&bytes);
    }

    /// Random bytes hardly ever look like ARP; damaged frames do.
    #[test]
    fn damaged_frames_are_read_or_refused(
        frame in frames(),
        damage in prop::collection::vec((0..ArpFrame::LEN, any::<u8>()), 0..4),
        length in 0..=ArpFrame::LEN,
    ) {
        let mut bytes = frame.to_bytes();
        for (position, value) in damage {
            bytes[position] = value;
        }
        read_through(&bytes);
        read_through(&bytes[..length]);
    }

    #[test]
    fn questions_survive_the_wire(frame in frames(), to in macs()) {
        if let Some(question) = frame.question() {
            prop_assert_eq!(question.unicast(to).question(), Some(question));
            prop_assert_eq!(question.broadcast().question(), Some(question));
        }
    }
}
