//! What holds for all frames and for all bytes.

// What cannot be must stop the test.
#![allow(clippy::unwrap_used)]

use std::net::Ipv6Addr;

use arpeggio_wire::{MacAddr, NdpError, NdpFrame, NdpMessage, solicited_node};
use proptest::prelude::*;

fn macs() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::from)
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<Ipv6Addr>().prop_filter("a group", |address| !address.is_multicast())
}

fn advertisements() -> impl Strategy<Value = NdpMessage> {
    any::<[bool; 3]>().prop_map(|[router, solicited, overriding]| NdpMessage::Advertisement {
        router,
        solicited,
        overriding,
    })
}

prop_compose! {
    /// Frames that keep the rules, probes among them.
    fn frames()(
        (destination, source) in (macs(), macs()),
        (sender, receiver, target) in (unicast(), unicast(), unicast()),
        message in prop_oneof![Just(NdpMessage::Solicitation), advertisements()],
        link_address in prop::option::of(macs()),
        probe in prop::bool::weighted(0.2),
    ) -> NdpFrame {
        let frame = NdpFrame { destination, source, sender, receiver, message, target, link_address };
        if !probe {
            return frame;
        }
        NdpFrame {
            sender: Ipv6Addr::UNSPECIFIED,
            receiver: solicited_node(target),
            message: NdpMessage::Solicitation,
            link_address: None,
            ..frame
        }
    }
}

/// Reads the bytes and asks everything that can be asked of the result.
fn read_through(bytes: &[u8]) {
    if let Ok(frame) = NdpFrame::parse(bytes) {
        assert_eq!(NdpFrame::parse(&frame.to_bytes()), Ok(frame));
        if let Some(question) = frame.question() {
            let answer = question.answer(frame.destination);
            assert_eq!(NdpFrame::parse(&answer.to_bytes()), Ok(answer));
        }
        assert!(frame.claim().is_none_or(|claim| !claim.address.is_unspecified()));
    }
}

proptest! {
    #[test]
    fn written_frames_read_back(frame in frames()) {
        prop_assert_eq!(NdpFrame::parse(&frame.to_bytes()), Ok(frame));
    }

    #[test]
    fn padding_does_not_matter(frame in frames(), padding in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = frame.to_bytes().to_vec();
        bytes.extend(padding);
        prop_assert_eq!(NdpFrame::parse(&bytes), Ok(frame));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        read_through(&bytes);
    }

    #[test]
    fn damaged_frames_are_read_or_refused(
        frame in frames(),
        damage in prop::collection::vec((0..NdpFrame::MAX_LEN, any::<u8>()), 0..4),
        length in 0..=NdpFrame::MAX_LEN,
    ) {
        let mut bytes = frame.to_bytes().to_vec();
        for (position, value) in damage {
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
        }
        read_through(&bytes);
        read_through(bytes.get(..length).unwrap_or(&bytes));
    }

    /// One wrong bit behind the fixed headers is always found: the checksum covers it.
    #[test]
    fn no_damaged_message_is_believed(frame in frames(), position in 54..78_usize, bit in 0..8_u8) {
        let mut bytes = frame.to_bytes().to_vec();
        bytes[position] ^= 1 << bit;
        prop_assert!(NdpFrame::parse(&bytes).is_err());
    }

    /// Options as anybody may send them, under a right checksum, which random bytes never have.
    #[test]
    fn any_options_are_read_or_refused(
        frame in frames(),
        options in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let bytes = with_options(&frame, &options);
        let read = NdpFrame::parse(&bytes);
        prop_assert_ne!(read, Err(NdpError::Checksum));
        read_through(&bytes);
    }

    #[test]
    fn questions_survive_the_wire(frame in frames(), to in macs()) {
        if let Some(question) = frame.question() {
            prop_assert_eq!(question.unicast(to).question(), Some(question));
            prop_assert_eq!(question.multicast().question(), Some(question));
        }
    }
}

/// The frame without its own option and with these instead.
fn with_options(frame: &NdpFrame, options: &[u8]) -> Vec<u8> {
    let mut bytes = NdpFrame { link_address: None, ..*frame }.to_bytes().to_vec();
    bytes.extend(options);
    let length = u16::try_from(bytes.len() - 54).unwrap();
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes[56..58].fill(0);
    let pseudo_header = [&bytes[22..54], &length.to_be_bytes(), &[0, 58]].concat();
    let words = |bytes: &[u8]| -> u64 {
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        bytes.chunks(2).map(word).sum()
    };
    let sum = words(&pseudo_header) + words(&bytes[54..]);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    bytes[56..58].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
    bytes
}
