//! The last frames that concern this node's addresses and its own questions, for who looks for a fault.
//!
//! The answering threads never wait here: what comes while somebody else writes or reads is counted and not kept.

use std::{
    collections::VecDeque,
    fmt::{self, Display, Formatter, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arpeggio_runtime::wall_clock;
use arpeggio_wire::{ArpFrame, ArpOperation, NdpFrame, NdpMessage};

/// So many frames are kept of each subject.
const KEPT: usize = 500;

/// So much is kept of a frame: more than ARP and NDP need with the options that anybody sends.
const LENGTH: usize = 128;

/// What a frame is about. Each has room of its own, since neighbours are asked many times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The addresses that this node announces, or asks for before their first use.
    Address,
    /// Other nodes and gateways, and whether they answer.
    Neighbour,
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Heard.
    In,
    /// Sent.
    Out,
}

/// What is kept for all interfaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    addresses: Mutex<VecDeque<Record>>,
    neighbours: Mutex<VecDeque<Record>>,
    /// Not kept, since another thread was at it.
    missed: AtomicU64,
}

#[derive(Debug, Clone)]
struct Record {
    at: Instant,
    interface: Arc<str>,
    direction: Direction,
    length: usize,
    bytes: [u8; LENGTH],
}

impl Frames {
    /// Keeps frames of one interface.
    pub(crate) fn of_interface(&self, name: &str) -> Recorder {
        Recorder { frames: self.clone(), interface: name.into() }
    }

    /// All that is kept, oldest first, one line each.
    pub(crate) fn page(&self) -> String {
        let Kept { addresses, neighbours, missed } = &*self.0;
        let mut records: Vec<Record> = locked(addresses).iter().cloned().collect();
        records.extend(locked(neighbours).iter().cloned());
        records.sort_by_key(|record| record.at);
        let mut page = format!(
            "# The last {KEPT} frames of addresses and the last {KEPT} of neighbours, by this node's clock.\n"
        );
        let missed = missed.load(Ordering::Relaxed);
        if missed > 0 {
            // Writing to a string cannot fail, here and below.
            let _ =
                writeln!(page, "# {missed} since the start were not kept: too many came at once.");
        }
        let (now, clock) = (Instant::now(), wall_clock::now());
        for record in records {
            let at = clock - now.saturating_duration_since(record.at);
            let _ = writeln!(page, "{at:.6} {record}");
        }
        page
    }
}

/// The writers do nothing that could leave it half done.
fn locked(records: &Mutex<VecDeque<Record>>) -> MutexGuard<'_, VecDeque<Record>> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the frames of one interface.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    frames: Frames,
    interface: Arc<str>,
}

impl Recorder {
    /// Keeps a frame, unless another thread is at it.
    pub(crate) fn keep(&self, subject: Subject, direction: Direction, at: Instant, frame: &[u8]) {
        let kept = &self.frames.0;
        let records = match subject {
            Subject::Address => &kept.addresses,
            Subject::Neighbour => &kept.neighbours,
        };
        let Ok(mut records) = records.try_lock() else {
            kept.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut bytes = [0; LENGTH];
        let length = frame.len().min(LENGTH);
        bytes[..length].copy_from_slice(&frame[..length]);
        if records.len() == KEPT {
            records.pop_front();
        }
        let interface = self.interface.clone();
        records.push_back(Record { at, interface, direction, length, bytes });
    }
}

impl Display for Record {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in ",
            Direction::Out => "out",
        };
        write!(formatter, "{} {direction} ", self.interface)?;
        let bytes = &self.bytes[..self.length];
        if let Ok(frame) = ArpFrame::parse(bytes) {
            arp(&frame, formatter)
        } else if let Ok(frame) = NdpFrame::parse(bytes) {
            ndp(&frame, formatter)
        } else {
            write!(formatter, "{} bytes or more", self.length)
        }
    }
}

fn arp(frame: &ArpFrame, formatter: &mut Formatter<'_>) -> fmt::Result {
    let ArpFrame { source, destination, sender_hardware, sender_protocol, target_protocol, .. } =
        frame;
    write!(formatter, "arp {source} > {destination}: ")?;
    match frame.operation {
        ArpOperation::Request => write!(
            formatter,
            "who has {target_protocol}? asks {sender_protocol} at {sender_hardware}"
        ),
        ArpOperation::Reply => write!(
            formatter,
            "{sender_protocol} is at {sender_hardware}, told to {target_protocol}"
        ),
    }
}

fn ndp(frame: &NdpFrame, formatter: &mut Formatter<'_>) -> fmt::Result {
    let NdpFrame { source, destination, sender, receiver, target, .. } = frame;
    let mac = frame.link_address.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
    write!(formatter, "ndp {source} > {destination}: ")?;
    match frame.message {
        NdpMessage::Solicitation => {
            write!(formatter, "who has {target}? asks {sender} at {mac}")
        }
        NdpMessage::Advertisement { router, solicited, overriding } => {
            write!(formatter, "{target} is at {mac}, told by {sender} to {receiver}")?;
            let flags = [(router, "router"), (solicited, "solicited"), (overriding, "override")];
            let mut set = flags.into_iter().filter(|(is_set, _)| *is_set);
            set.try_for_each(|(_, name)| write!(formatter, ", {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        time::Duration,
    };

    use arpeggio_wire::{Asker, Claim, MacAddr, Question};

    use super::*;

    const OURS: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const THEIRS: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);

    fn question(last: u8) -> Question<Ipv4Addr> {
        let asker = Asker { mac: THEIRS, address: Some(Ipv4Addr::new(192, 0, 2, 2)) };
        Question { address: Ipv4Addr::new(192, 0, 2, last), asker }
    }

    /// Without times and what the page says of itself.
    fn lines(frames: &Frames) -> Vec<String> {
        let page = frames.page();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_frame_is_one_line_that_says_who_told_what_to_whom() {
        let frames = Frames::default();
        let recorder = frames.of_interface("eth0");
        let begin = Instant::now();
        let keep = |direction, millis, bytes: &[u8]| {
            let at = begin + Duration::from_millis(millis);
            recorder.keep(Subject::Address, direction, at, bytes);
        };
        keep(Direction::In, 1, &question(10).broadcast().to_bytes());
        keep(Direction::Out, 2, &question(10).answer(OURS).to_bytes());
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
        let asker =
            Asker { mac: THEIRS, address: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)) };
        keep(Direction::In, 3, &Question { address: v6, asker }.multicast().to_bytes());
        keep(Direction::Out, 4, &Claim { address: v6, mac: OURS }.advertisement().to_bytes());
        keep(Direction::In, 5, b"no frame");
        assert_eq!(
            lines(&frames),
            [
                "eth0 in  arp 02:00:00:00:00:02 > ff:ff:ff:ff:ff:ff: who has 192.0.2.10? asks 192.0.2.2 at \
                 02:00:00:00:00:02",
                "eth0 out arp 02:00:00:00:00:01 > 02:00:00:00:00:02: 192.0.2.10 is at 02:00:00:00:00:01, told to \
                 192.0.2.2",
                "eth0 in  ndp 02:00:00:00:00:02 > 33:33:ff:00:00:10: who has 2001:db8::10? asks fe80::2 at \
                 02:00:00:00:00:02",
                "eth0 out ndp 02:00:00:00:00:01 > 33:33:00:00:00:01: 2001:db8::10 is at 02:00:00:00:00:01, told by \
                 2001:db8::10 to ff02::1, override",
                "eth0 in  8 bytes or more",
            ]
        );
    }

    #[test]
    fn the_oldest_goes_first_and_neighbours_drive_out_no_address() {
        let frames = Frames::default();
        let recorder = frames.of_interface("eth0");
        let keep = |subject, last| {
            let frame = question(last).broadcast().to_bytes();
            recorder.keep(subject, Direction::In, Instant::now(), &frame);
        };
        keep(Subject::Address, 10);
        (0..=KEPT).for_each(|_| keep(Subject::Neighbour, 1));
        let kept = lines(&frames);
        assert_eq!(kept.len(), KEPT + 1);
        assert!(kept[0].contains("who has 192.0.2.10?"), "in the order of time: {}", kept[0]);
        (0..KEPT).for_each(|_| keep(Subject::Address, 11));
        assert!(lines(&frames).iter().all(|line| !line.contains("who has 192.0.2.10?")));
    }

    #[test]
    fn nobody_waits_for_who_reads() {
        let frames = Frames::default();
        let reading = locked(&frames.0.addresses);
        let frame = question(10).broadcast().to_bytes();
        let recorder = frames.of_interface("eth0");
        recorder.keep(Subject::Address, Direction::In, Instant::now(), &frame);
        drop(reading);
        assert!(lines(&frames).is_empty());
        assert!(frames.page().contains("\n# 1 since the start were not kept"));
    }

    #[test]
    fn a_long_frame_is_kept_in_part() {
        let frames = Frames::default();
        let recorder = frames.of_interface("eth0");
        recorder.keep(Subject::Address, Direction::In, Instant::now(), &[0xff; 1500]);
        assert_eq!(lines(&frames), ["eth0 in  128 bytes or more"]);
    }
}
