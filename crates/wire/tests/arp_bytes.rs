//! Every frame that we send, byte by byte, against what the RFCs say; and every reason to refuse
//! one that we hear.

use std::net::Ipv4Addr;

use arpeggio_wire::{
    ArpError, ArpFrame, ArpOperation, Asker, Claim, MIN_FRAME_LEN, MacAddr, Question,
};

const OURS: MacAddr = MacAddr(0x02, 0x00, 0x00, 0x00, 0x00, 0x0a);
const THEIRS: MacAddr = MacAddr(0x02, 0x00, 0x00, 0x00, 0x00, 0x0b);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

/// An ARP frame in the order and with the names of RFC 826, everything after it as padding.
struct Fields {
    ethernet_destination: [u8; 6],
    ethernet_source: [u8; 6],
    ethernet_type: [u8; 2],
    hrd: [u8; 2],
    pro: [u8; 2],
    hln: u8,
    pln: u8,
    op: [u8; 2],
    sha: [u8; 6],
    spa: [u8; 4],
    tha: [u8; 6],
    tpa: [u8; 4],
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MIN_FRAME_LEN);
        bytes.extend(self.ethernet_destination);
        bytes.extend(self.ethernet_source);
        bytes.extend(self.ethernet_type);
        bytes.extend(self.hrd);
        bytes.extend(self.pro);
        bytes.extend([self.hln, self.pln]);
        bytes.extend(self.op);
        bytes.extend(self.sha);
        bytes.extend(self.spa);
        bytes.extend(self.tha);
        bytes.extend(self.tpa);
        bytes.resize(MIN_FRAME_LEN, 0);
        bytes
    }
}

/// The neighbour's request for our address, as its kernel broadcasts it.
const REQUEST: Fields = Fields {
    ethernet_destination: [0xff; 6],
    ethernet_source: [0x02, 0, 0, 0, 0, 0x0b],
    ethernet_type: [0x08, 0x06],
    hrd: [0, 1],
    pro: [0x08, 0x00],
    hln: 6,
    pln: 4,
    op: [0, 1],
    sha: [0x02, 0, 0, 0, 0, 0x0b],
    spa: [192, 0, 2, 11],
    tha: [0; 6],
    tpa: [192, 0, 2, 10],
};

const QUESTION: Question<Ipv4Addr> =
    Question { address: ADDRESS, asker: Asker { mac: THEIRS, address: Some(NEIGHBOUR) } };

const PROBE: Question<Ipv4Addr> =
    Question { address: ADDRESS, asker: Asker { mac: THEIRS, address: None } };

const CLAIM: Claim<Ipv4Addr> = Claim { address: ADDRESS, mac: OURS };

#[test]
fn broadcast_request() {
    assert_eq!(QUESTION.broadcast().to_bytes(), *REQUEST.bytes());
}

#[test]
fn unicast_request() {
    let expected = Fields { ethernet_destination: [0x02, 0, 0, 0, 0, 0x0a], ..REQUEST };
    assert_eq!(QUESTION.unicast(OURS).to_bytes(), *expected.bytes());
}

#[test]
fn probe_has_no_sender_address() {
    let expected = Fields { spa: [0; 4], ..REQUEST };
    assert_eq!(PROBE.broadcast().to_bytes(), *expected.bytes());
}

#[test]
fn reply_goes_to_the_asker() {
    let expected = Fields {
        ethernet_destination: [0x02, 0, 0, 0, 0, 0x0b],
        ethernet_source: [0x02, 0, 0, 0, 0, 0x0a],
        op: [0, 2],
        sha: [0x02, 0, 0, 0, 0, 0x0a],
        spa: [192, 0, 2, 10],
        tha: [0x02, 0, 0, 0, 0, 0x0b],
        tpa: [192, 0, 2, 11],
        ..REQUEST
    };
    assert_eq!(QUESTION.answer(OURS).to_bytes(), *expected.bytes());
    let to_probe = Fields { tpa: [0; 4], ..expected };
    assert_eq!(PROBE.answer(OURS).to_bytes(), *to_probe.bytes());
}

#[test]
fn announcement_as_request() {
    let expected = Fields {
        ethernet_source: [0x02, 0, 0, 0, 0, 0x0a],
        sha: [0x02, 0, 0, 0, 0, 0x0a],
        spa: [192, 0, 2, 10],
        tha: [0; 6],
        tpa: [192, 0, 2, 10],
        ..REQUEST
    };
    let frame = CLAIM.announcement(ArpOperation::Request);
    assert_eq!(frame.to_bytes(), *expected.bytes());
}

#[test]
fn announcement_as_reply() {
    let expected = Fields {
        ethernet_source: [0x02, 0, 0, 0, 0, 0x0a],
        op: [0, 2],
        sha: [0x02, 0, 0, 0, 0, 0x0a],
        spa: [192, 0, 2, 10],
        tha: [0x02, 0, 0, 0, 0, 0x0a],
        tpa: [192, 0, 2, 10],
        ..REQUEST
    };
    let frame = CLAIM.announcement(ArpOperation::Reply);
    assert_eq!(frame.to_bytes(), *expected.bytes());
}

#[test]
fn what_is_refused_and_why() {
    let with = |change: fn(&mut Fields)| {
        let mut fields = REQUEST;
        change(&mut fields);
        fields.bytes()
    };
    let table = [
        (ArpError::Truncated, vec![]),
        (ArpError::Truncated, REQUEST.bytes()[..13].to_vec()),
        (ArpError::Truncated, REQUEST.bytes()[..41].to_vec()),
        (ArpError::VlanTagged, with(|it| it.ethernet_type = [0x81, 0x00])),
        (ArpError::VlanTagged, with(|it| it.ethernet_type = [0x88, 0xa8])),
        (ArpError::NotArp, with(|it| it.ethernet_type = [0x86, 0xdd])),
        (ArpError::HardwareType, with(|it| it.hrd = [0, 6])),
        (ArpError::ProtocolType, with(|it| it.pro = [0x86, 0xdd])),
        (ArpError::AddressLength, with(|it| it.hln = 8)),
        (ArpError::AddressLength, with(|it| it.pln = 16)),
        (ArpError::Operation, with(|it| it.op = [0, 0])),
        (ArpError::Operation, with(|it| it.op = [0, 3])),
    ];
    for (reason, bytes) in table {
        assert_eq!(ArpFrame::parse(&bytes), Err(reason), "{bytes:02x?}");
    }
}

#[test]
fn a_frame_without_padding_is_whole() {
    let bytes = REQUEST.bytes();
    assert_eq!(ArpFrame::parse(&bytes[..ArpFrame::LEN]), ArpFrame::parse(&bytes));
    assert!(ArpFrame::parse(&bytes).is_ok());
}

#[test]
fn what_frames_mean() {
    let theirs = Claim { address: NEIGHBOUR, mac: THEIRS };
    let table = [
        ("request", QUESTION.broadcast(), Some(QUESTION), Some(theirs)),
        ("unicast request", QUESTION.unicast(OURS), Some(QUESTION), Some(theirs)),
        ("probe", PROBE.broadcast(), Some(PROBE), None),
        ("reply", QUESTION.answer(OURS), None, Some(CLAIM)),
        ("announcement as request", CLAIM.announcement(ArpOperation::Request), None, Some(CLAIM)),
        ("announcement as reply", CLAIM.announcement(ArpOperation::Reply), None, Some(CLAIM)),
    ];
    for (name, frame, question, claim) in table {
        let heard = ArpFrame::parse(&frame.to_bytes()).unwrap();
        assert_eq!((heard.question(), heard.claim()), (question, claim), "{name}");
    }
}

#[test]
fn senders_without_a_mac_of_their_own_get_no_answer() {
    let multicast = MacAddr(0x01, 0x00, 0x5e, 0x00, 0x00, 0x01);
    for mac in [MacAddr::zero(), MacAddr::broadcast(), multicast] {
        let frame = ArpFrame { sender_hardware: mac, ..QUESTION.broadcast() };
        assert_eq!(frame.question(), None, "{mac}");
        // It can still be a sign of somebody else with an address of ours.
        let address = NEIGHBOUR;
        assert_eq!(frame.claim(), Some(Claim { address, mac }));
    }
}
