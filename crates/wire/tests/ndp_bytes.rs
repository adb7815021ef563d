//! Every frame that we send, byte by byte, against what the RFCs say; and every reason to refuse
//! one that we hear.

// What cannot be must stop the test.
#![allow(clippy::unwrap_used)]

use std::net::Ipv6Addr;

use arpeggio_wire::{
    ALL_NODES, Asker, Claim, MacAddr, NdpError, NdpFrame, NdpMessage, Question, multicast_mac,
    solicited_node,
};

const OURS: MacAddr = MacAddr(0x02, 0x00, 0x00, 0x00, 0x00, 0x0a);
const THEIRS: MacAddr = MacAddr(0x02, 0x00, 0x00, 0x00, 0x00, 0x0b);
/// `2001:db8::1234:5678`
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x1234, 0x5678);
/// `fe80::b`
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x0b);

const ADDRESS_BYTES: [u8; 16] =
    [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78];
const NEIGHBOUR_BYTES: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b];
/// `ff02::1:ff34:5678`
const GROUP_BYTES: [u8; 16] = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, 0x34, 0x56, 0x78];
/// `ff02::1`
const ALL_NODES_BYTES: [u8; 16] = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01];

/// A frame in the order and with the names of RFC 8200 section 3 and RFC 4861 section 4.3.
#[derive(Clone)]
struct Fields {
    ethernet_destination: [u8; 6],
    ethernet_source: [u8; 6],
    ethernet_type: [u8; 2],
    version: u8,
    payload_length: Option<u16>,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
    icmp_type: u8,
    code: u8,
    checksum: Option<[u8; 2]>,
    flags: u8,
    target: [u8; 16],
    options: Vec<u8>,
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let mut icmp = vec![self.icmp_type, self.code, 0, 0, self.flags, 0, 0, 0];
        icmp.extend(self.target);
        icmp.extend(&self.options);
        let sum = self.checksum.unwrap_or_else(|| self.right_checksum(&icmp));
        icmp[2..4].copy_from_slice(&sum);
        let length = u16::try_from(icmp.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(self.ethernet_destination);
        bytes.extend(self.ethernet_source);
        bytes.extend(self.ethernet_type);
        bytes.extend([self.version << 4, 0, 0, 0]);
        bytes.extend(self.payload_length.unwrap_or(length).to_be_bytes());
        bytes.extend([self.next_header, self.hop_limit]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        bytes.extend(icmp);
        bytes
    }

    /// RFC 4443 section 2.3, as one long sum.
    fn right_checksum(&self, icmp: &[u8]) -> [u8; 2] {
        let mut all = [self.source, self.destination].concat();
        all.extend(u32::try_from(icmp.len()).unwrap().to_be_bytes());
        all.extend([0, 0, 0, 58]);
        all.extend(icmp);
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        let sum: u64 = all.chunks(2).map(word).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        (!u16::try_from(folded).unwrap()).to_be_bytes()
    }
}

/// The neighbour's solicitation for our address, as its kernel sends it to the group.
fn solicitation() -> Fields {
    Fields {
        ethernet_destination: [0x33, 0x33, 0xff, 0x34, 0x56, 0x78],
        ethernet_source: [0x02, 0, 0, 0, 0, 0x0b],
        ethernet_type: [0x86, 0xdd],
        version: 6,
        payload_length: None,
        next_header: 58,
        hop_limit: 255,
        source: NEIGHBOUR_BYTES,
        destination: GROUP_BYTES,
        icmp_type: 135,
        code: 0,
        checksum: None,
        flags: 0,
        target: ADDRESS_BYTES,
        options: vec![1, 1, 0x02, 0, 0, 0, 0, 0x0b],
    }
}

/// Our unsolicited advertisement.
fn advertisement() -> Fields {
    Fields {
        ethernet_destination: [0x33, 0x33, 0, 0, 0, 1],
        ethernet_source: [0x02, 0, 0, 0, 0, 0x0a],
        source: ADDRESS_BYTES,
        destination: ALL_NODES_BYTES,
        icmp_type: 136,
        flags: 0b0010_0000,
        options: vec![2, 1, 0x02, 0, 0, 0, 0, 0x0a],
        ..solicitation()
    }
}

/// A probe: duplicate address detection of somebody who wants our address.
fn probe() -> Fields {
    Fields { source: [0; 16], options: Vec::new(), ..solicitation() }
}

const QUESTION: Question<Ipv6Addr> =
    Question { address: ADDRESS, asker: Asker { mac: THEIRS, address: Some(NEIGHBOUR) } };

const PROBE: Question<Ipv6Addr> =
    Question { address: ADDRESS, asker: Asker { mac: THEIRS, address: None } };

const CLAIM: Claim<Ipv6Addr> = Claim { address: ADDRESS, mac: OURS };

/// All written by hand, checksum too: what the helpers above compute is checked by it.
#[test]
fn a_solicitation_written_by_hand() {
    #[rustfmt::skip]
    let expected = [
        0x33, 0x33, 0xff, 0x34, 0x56, 0x78, 0x02, 0, 0, 0, 0, 0x0b, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, 0x34, 0x56, 0x78,
        135, 0, CHECKSUM[0], CHECKSUM[1], 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78,
        1, 1, 0x02, 0, 0, 0, 0, 0x0b,
    ];
    assert_eq!(*QUESTION.multicast().to_bytes(), expected);
    assert_eq!(solicitation().bytes(), expected);
}

/// fe80+000b + ff02+0001+ff34+5678 + 0020+003a + 8700 + 2001+0db8+1234+5678 + 0101+0200+0000+000b
/// is 47405 (hexadecimal); 7405 and the carry 4 are 7409, whose complement this is.
const CHECKSUM: [u8; 2] = [0x8b, 0xf6];

#[test]
fn unicast_solicitation() {
    let expected = Fields {
        ethernet_destination: [0x02, 0, 0, 0, 0, 0x0a],
        destination: ADDRESS_BYTES,
        ..solicitation()
    };
    assert_eq!(*QUESTION.unicast(OURS).to_bytes(), expected.bytes());
}

#[test]
fn a_probe_has_neither_source_nor_link_address() {
    assert_eq!(*PROBE.multicast().to_bytes(), probe().bytes());
    let to_one = Fields { ethernet_destination: [0x02, 0, 0, 0, 0, 0x0a], ..probe() };
    assert_eq!(*PROBE.unicast(OURS).to_bytes(), to_one.bytes());
}

#[test]
fn an_answer_goes_to_the_asker_solicited_and_overriding() {
    let expected = Fields {
        ethernet_destination: [0x02, 0, 0, 0, 0, 0x0b],
        destination: NEIGHBOUR_BYTES,
        flags: 0b0110_0000,
        ..advertisement()
    };
    assert_eq!(*QUESTION.answer(OURS).to_bytes(), expected.bytes());
}

#[test]
fn an_answer_to_a_probe_goes_to_everybody_unsolicited_and_overriding() {
    assert_eq!(*PROBE.answer(OURS).to_bytes(), advertisement().bytes());
}

#[test]
fn an_unsolicited_advertisement_goes_to_everybody() {
    assert_eq!(*CLAIM.advertisement().to_bytes(), advertisement().bytes());
}

#[test]
fn groups() {
    assert_eq!(solicited_node(ADDRESS).octets(), GROUP_BYTES);
    assert_eq!(multicast_mac(solicited_node(ADDRESS)), MacAddr(0x33, 0x33, 0xff, 0x34, 0x56, 0x78));
    assert_eq!(multicast_mac(ALL_NODES), MacAddr(0x33, 0x33, 0, 0, 0, 1));
}

#[test]
fn what_is_refused_and_why() {
    let with = |base: Fields, change: fn(&mut Fields)| {
        let mut fields = base;
        change(&mut fields);
        fields.bytes()
    };
    let ns = solicitation;
    let whole = ns().bytes();
    let table = [
        (NdpError::Truncated, vec![]),
        (NdpError::Truncated, whole[..53].to_vec()),
        (NdpError::Truncated, whole[..85].to_vec()),
        (NdpError::Truncated, with(ns(), |it| it.payload_length = Some(23))),
        (NdpError::Truncated, with(ns(), |it| it.payload_length = Some(33))),
        (NdpError::VlanTagged, with(ns(), |it| it.ethernet_type = [0x81, 0x00])),
        (NdpError::VlanTagged, with(ns(), |it| it.ethernet_type = [0x88, 0xa8])),
        (NdpError::NotIpv6, with(ns(), |it| it.ethernet_type = [0x08, 0x00])),
        (NdpError::NotIpv6, with(ns(), |it| it.version = 4)),
        (NdpError::NotIcmpv6, with(ns(), |it| it.next_header = 17)),
        (NdpError::NotIcmpv6, with(ns(), |it| it.next_header = 0)),
        (NdpError::HopLimit, with(ns(), |it| it.hop_limit = 254)),
        (NdpError::MulticastSource, with(ns(), |it| it.source = ALL_NODES_BYTES)),
        (NdpError::MessageType, with(ns(), |it| it.icmp_type = 134)),
        (NdpError::MessageType, with(ns(), |it| it.icmp_type = 137)),
        (NdpError::Code, with(ns(), |it| it.code = 1)),
        (NdpError::Checksum, with(ns(), |it| it.checksum = Some([0, 0]))),
        (NdpError::MulticastTarget, with(ns(), |it| it.target = ALL_NODES_BYTES)),
        (NdpError::OptionLength, with(ns(), |it| it.options[1] = 0)),
        (NdpError::OptionLength, with(probe(), |it| it.options = vec![99, 0, 0, 0, 0, 0, 0, 0])),
        (NdpError::Truncated, with(ns(), |it| it.options = vec![14])),
        (NdpError::Truncated, with(ns(), |it| it.options[1] = 2)),
        (
            NdpError::LinkAddressLength,
            with(ns(), |it| it.options = [&[1, 2], [0; 14].as_slice()].concat()),
        ),
        (NdpError::ProbeDestination, with(probe(), |it| it.destination = ADDRESS_BYTES)),
        (NdpError::ProbeDestination, with(probe(), |it| it.destination = ALL_NODES_BYTES)),
        (NdpError::ProbeLinkAddress, with(ns(), |it| it.source = [0; 16])),
        (NdpError::SolicitedMulticast, with(advertisement(), |it| it.flags = 0b0110_0000)),
    ];
    for (reason, bytes) in table {
        assert_eq!(NdpFrame::parse(&bytes), Err(reason), "{bytes:02x?}");
    }
}

/// A receiver must skip what it does not know (RFC 4861 section 4.6): here a nonce of RFC 3971,
/// twice as long as a link-layer address, before and after it.
#[test]
fn unknown_options_are_skipped() {
    let known = solicitation().options;
    let nonce = [&[14, 2], [0xee; 14].as_slice()].concat();
    for options in [[nonce.clone(), known.clone()].concat(), [known, nonce.clone()].concat()] {
        let heard = NdpFrame::parse(&Fields { options, ..solicitation() }.bytes());
        assert_eq!(heard, Ok(QUESTION.multicast()));
    }
    // Enhanced duplicate address detection (RFC 7527) puts a nonce into its probes.
    let heard = NdpFrame::parse(&Fields { options: nonce, ..probe() }.bytes());
    assert_eq!(heard, Ok(PROBE.multicast()));
}

#[test]
fn without_a_link_address_option_the_answer_goes_where_the_question_came_from() {
    let bare = Fields { options: Vec::new(), ..solicitation() };
    let heard = NdpFrame::parse(&bare.bytes()).unwrap();
    assert_eq!(heard.question(), Some(QUESTION));
    assert_eq!(heard.claim(), None, "nobody is asked to remember where it came from");
    let elsewhere = Fields { ethernet_source: [0x02, 0, 0, 0, 0, 0x99], ..solicitation() };
    let heard = NdpFrame::parse(&elsewhere.bytes()).unwrap();
    assert_eq!(heard.question(), Some(QUESTION), "the option counts if there is one");
}

#[test]
fn what_frames_mean() {
    let theirs = Claim { address: NEIGHBOUR, mac: THEIRS };
    let bare_answer = NdpFrame { link_address: None, ..QUESTION.answer(OURS) };
    let table = [
        ("solicitation", QUESTION.multicast(), Some(QUESTION), Some(theirs)),
        ("unicast solicitation", QUESTION.unicast(OURS), Some(QUESTION), Some(theirs)),
        ("probe", PROBE.multicast(), Some(PROBE), None),
        ("answer", QUESTION.answer(OURS), None, Some(CLAIM)),
        ("answer without option", bare_answer, None, Some(CLAIM)),
        ("answer to a probe", PROBE.answer(OURS), None, Some(CLAIM)),
        ("unsolicited advertisement", CLAIM.advertisement(), None, Some(CLAIM)),
    ];
    for (name, frame, question, claim) in table {
        let heard = NdpFrame::parse(&frame.to_bytes()).unwrap();
        assert_eq!((heard.question(), heard.claim()), (question, claim), "{name}");
    }
}

#[test]
fn every_flag_is_read() {
    for (flags, router, solicited, overriding) in [
        (0b1000_0000, true, false, false),
        (0b0100_0000, false, true, false),
        (0b0010_0000, false, false, true),
        (0b0001_1111, false, false, false),
    ] {
        let fields = Fields { flags, destination: NEIGHBOUR_BYTES, ..advertisement() };
        let heard = NdpFrame::parse(&fields.bytes()).unwrap().message;
        assert_eq!(heard, NdpMessage::Advertisement { router, solicited, overriding });
    }
}

#[test]
fn senders_without_a_mac_of_their_own_get_no_answer() {
    for mac in [MacAddr::zero(), MacAddr::broadcast(), multicast_mac(ALL_NODES)] {
        let frame = NdpFrame { link_address: Some(mac), ..QUESTION.multicast() };
        assert_eq!(frame.question(), None, "{mac}");
    }
}
