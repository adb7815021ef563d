//! TCP by hand: packets that no kernel would send.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use arpeggio_link::calls::uninterrupted;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Segment, Version, WEB};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// `IPPROTO_RAW`: packets come with IP's header.
const WITH_HEADER: i32 = 255;

/// The bytes of a fragment; a multiple of eight.
const CUT: usize = 1000;

/// One side of a connection, of which the client's kernel knows nothing.
pub(crate) struct Raw {
    version: Version,
    /// TCP, without IP's header.
    socket: Socket,
    /// With IP's header.
    whole: Socket,
    port: u16,
    /// What is sent next, and what is expected next.
    pub(crate) next: u32,
    pub(crate) expected: u32,
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segmented {
    pub(crate) flags: u8,
    sequence: u32,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    /// From a port of the client that no socket has.
    pub(crate) fn new(segment: &Segment, port: u16) -> Self {
        let version = segment.version;
        let domain = if version == Version::V4 { Domain::IPV4 } else { Domain::IPV6 };
        // The client's kernel would reset what it does not know.
        segment.client.nft(&format!(
            "table {} raw-{port} {{ chain c {{ type filter hook output priority 0;
             tcp sport {port} tcp flags rst meta skuid 0 accept; tcp sport {port} tcp flags rst drop; }}
             }}",
            version.family()
        ));
        let open = |protocol| {
            segment.client.run(move || Socket::new(domain, Type::RAW, Some(protocol)).unwrap())
        };
        let (socket, whole) = (open(Protocol::TCP), open(Protocol::from(WITH_HEADER)));
        Self { version, socket, whole, port, next: 1_000_000, expected: 0 }
    }

    /// Opens a connection.
    pub(crate) fn open(segment: &Segment, port: u16) -> Self {
        let mut raw = Self::new(segment, port);
        raw.begin();
        raw
    }

    /// Opens another connection from the same port, with a number to begin with as a kernel chooses it, which depends on the time.
    pub(crate) fn open_again(self) -> Self {
        let next = self.next + 900_000_000;
        let mut raw = Self { next, expected: 0, ..self };
        raw.begin();
        raw
    }

    fn begin(&mut self) {
        self.send(SYN, self.next, &[]);
        let answer = self.receive().expect("SYN and ACK");
        assert_eq!(answer.flags & (SYN | ACK | RST), SYN | ACK);
        self.next += 1;
        self.expected = answer.sequence + 1;
        self.send(ACK, self.next, &[]);
    }

    /// Closes the connection, as the other side does then.
    pub(crate) fn close(&mut self) {
        self.send(FIN | ACK, self.next, &[]);
        self.next += 1;
        let is_last = |answer: &Segmented| answer.flags & FIN != 0;
        while !self.receive().as_ref().is_none_or(is_last) {}
        self.expected += 1;
        self.send(ACK, self.next, &[]);
    }

    /// Sends a packet of the connection.
    pub(crate) fn send(&self, flags: u8, sequence: u32, data: &[u8]) {
        let to = SocketAddr::new(self.version.service(), 0).into();
        self.socket.send_to(&self.packet(flags, sequence, data), &to).unwrap();
    }

    /// Asks a question, and says which node answers. `None`: the connection is reset, or nobody answers.
    pub(crate) fn ask(&mut self) -> Option<usize> {
        self.question(b"hello\n", false)
    }

    /// The same with a long question, which comes in several fragments.
    pub(crate) fn ask_in_fragments(&mut self) -> Option<usize> {
        self.question(&[vec![b'x'; CUT * 2], vec![b'\n']].concat(), true)
    }

    fn question(&mut self, data: &[u8], cut: bool) -> Option<usize> {
        if cut {
            self.send_in_fragments(&self.packet(PSH | ACK, self.next, data));
        } else {
            self.send(PSH | ACK, self.next, data);
        }
        self.next += u32::try_from(data.len()).unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\n") {
            let answer = self.receive().filter(|it| it.flags & RST == 0)?;
            if answer.sequence == self.expected {
                self.expected += u32::try_from(answer.data.len()).unwrap();
                text.extend(answer.data);
            }
        }
        self.send(ACK, self.next, &[]);
        String::from_utf8(text).unwrap().split(' ').next()?.parse().ok()
    }

    /// The next packet that comes within two seconds.
    pub(crate) fn receive(&self) -> Option<Segmented> {
        let until = Instant::now() + Duration::from_secs(2);
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let left = until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();
            let length = uninterrupted(|| (&self.socket).read(&mut bytes)).ok()?;
            let header = if self.version == Version::V4 { 20 } else { 0 };
            if let Some(found) = self.read(bytes.get(header..length)?) {
                return Some(found);
            }
        }
    }

    fn read(&self, tcp: &[u8]) -> Option<Segmented> {
        let number = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        if (number(0), number(2)) != (WEB, self.port) {
            return None;
        }
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let data = tcp[usize::from(tcp[12] >> 4) * 4..].to_vec();
        Some(Segmented { flags: tcp[13], sequence, data })
    }

    fn packet(&self, flags: u8, sequence: u32, data: &[u8]) -> Vec<u8> {
        let ack = if flags & ACK == 0 { 0 } else { self.expected };
        let mut tcp = [self.port.to_be_bytes(), WEB.to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(data);
        let length = u32::try_from(tcp.len()).unwrap().to_be_bytes();
        let pseudo = [self.addresses(), length.to_vec(), vec![0, 0, 0, 6], tcp.clone()].concat();
        tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        tcp
    }

    fn addresses(&self) -> Vec<u8> {
        [self.version.client(), self.version.service()].map(octets).concat()
    }

    /// As a path cuts it that is narrower than the sender has thought.
    fn send_in_fragments(&self, packet: &[u8]) {
        let parts = packet.chunks(CUT);
        let last = parts.len() - 1;
        for (index, part) in parts.enumerate() {
            let place = u16::try_from(index * CUT).unwrap();
            let whole = [self.headers(place, index < last, part.len()), part.to_vec()].concat();
            let to = SocketAddr::new(self.version.service(), 0).into();
            self.whole.send_to(&whole, &to).unwrap();
        }
    }

    /// IP's headers of a fragment.
    fn headers(&self, place: u16, more: bool, length: usize) -> Vec<u8> {
        let length = u16::try_from(length).unwrap();
        let number = self.next.to_be_bytes();
        if self.version == Version::V4 {
            let flags = ((place / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
            let mut header =
                [[0x45, 0], (length + 20).to_be_bytes(), [number[2], number[3]]].concat();
            header.extend([flags[0], flags[1], 64, 6, 0, 0]);
            header.extend(self.addresses());
            return header;
        }
        let length = (length + 8).to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, length[0], length[1], 44, 64];
        header.extend(self.addresses());
        header.extend([6, 0]);
        header.extend((place | u16::from(more)).to_be_bytes());
        header.extend(number);
        header
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}
