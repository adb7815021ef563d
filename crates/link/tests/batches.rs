//! Several frames by one system call, between two kernels.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use arpeggio_link::filter::ArpFilter;
use arpeggio_link::packet::{ArpSocket, BATCH, Inbox, Outbox, RECEIVE_TIMEOUT, SocketError};
use arpeggio_wire::{ArpFrame, Asker, MIN_FRAME_LEN, MacAddr, Question};

mod namespace;
use namespace::{Namespace, Pair};

/// One batch and some more.
const FRAMES: usize = BATCH + 8;

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..FRAMES).map(|number| Ipv4Addr::new(192, 0, 2, u8::try_from(number).unwrap() + 100))
}

/// A question for each address.
fn questions() -> Vec<[u8; MIN_FRAME_LEN]> {
    let asker = Asker { mac: MacAddr(2, 0, 0, 0, 0, 0x99), address: None };
    addresses().map(|address| Question { address, asker }.broadcast().to_bytes()).collect()
}

fn socket(side: &Namespace) -> ArpSocket {
    let index = side.link().0;
    let filter = ArpFilter { ours: addresses().collect(), ..ArpFilter::default() };
    side.run(|| ArpSocket::open(index, &filter)).unwrap()
}

/// What `send_batch` takes.
fn boxed(frames: &[[u8; MIN_FRAME_LEN]]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

fn targets(inbox: &Inbox) -> Vec<Ipv4Addr> {
    inbox.frames().map(|bytes| ArpFrame::parse(bytes).unwrap().target_protocol).collect()
}

/// What comes until so many frames have come, by batches. A busy kernel delivers frames some moments after they were sent.
fn receive(listener: &ArpSocket, frames: usize) -> Vec<Vec<Ipv4Addr>> {
    let mut inbox = Inbox::new();
    let mut batches: Vec<Vec<Ipv4Addr>> = Vec::new();
    let begin = Instant::now();
    while batches.iter().map(Vec::len).sum::<usize>() < frames {
        assert!(begin.elapsed() < Duration::from_secs(30), "{frames} frames: {batches:?}");
        listener.recv_batch(&mut inbox, || {}).unwrap();
        batches.extend(Some(targets(&inbox)).filter(|batch| !batch.is_empty()));
    }
    batches
}

#[test]
fn frames_arrive_together_and_in_order() {
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let witness = socket(&pair.here);
    let sent = sender.send_batch(&mut Outbox::new(), &boxed(&questions()));
    assert_eq!(sent, FRAMES);
    // The kernel gives both the same: what one has, the other one has, too, or has a moment later.
    receive(&witness, FRAMES);
    thread::sleep(RECEIVE_TIMEOUT);
    let expected: Vec<Ipv4Addr> = addresses().collect();
    assert_eq!(receive(&listener, FRAMES), expected.chunks(BATCH).collect::<Vec<_>>());
    let mut inbox = Inbox::new();
    let waiting = Instant::now();
    listener.recv_batch(&mut inbox, || {}).unwrap();
    assert!(waiting.elapsed() >= RECEIVE_TIMEOUT);
    assert_eq!(targets(&inbox), [] as [Ipv4Addr; 0], "what was in it is not heard twice");
}

/// Many clients ask at once when an address has moved.
#[test]
fn hundreds_of_frames_wait_for_a_thread_that_is_kept_from_its_core() {
    const BURST: usize = 400;
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let frames: Vec<Vec<u8>> = boxed(&questions()).into_iter().cycle().take(BURST).collect();
    assert_eq!(sender.send_batch(&mut Outbox::new(), &frames), BURST);
    let (mut inbox, mut heard) = (Inbox::new(), 0);
    while heard < BURST {
        listener.recv_batch(&mut inbox, || {}).unwrap();
        let together = inbox.frames().count();
        assert!(together > 0, "{heard} frames of {BURST} have waited");
        heard += together;
    }
}

#[test]
fn one_frame_is_not_kept_back_until_others_come() {
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let comes_at_once = || {
        sender.send(&questions()[0]).unwrap();
        let waiting = Instant::now();
        assert_eq!(receive(&listener, 1).len(), 1);
        waiting.elapsed() < RECEIVE_TIMEOUT
    };
    // Any of them can meet a machine that stands still for a moment.
    assert!((0..5).any(|_| comes_at_once()));
}

/// Whoever looks for frames that nobody has dealt with finds each either unread or with a busy thread.
#[test]
fn the_receiver_is_busy_before_it_takes_a_frame() {
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let mut inbox = Inbox::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            sender.send(&questions()[0]).unwrap();
        });
        let mut was_unread = false;
        let begin = Instant::now();
        while inbox.frames().count() == 0 && begin.elapsed() < Duration::from_secs(30) {
            listener.recv_batch(&mut inbox, || was_unread = listener.has_unread()).unwrap();
        }
        assert!(was_unread && !listener.has_unread());
        assert_eq!(inbox.frames().count(), 1);
    });
}

#[test]
fn a_frame_that_is_refused_does_not_take_the_others_with_it() {
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let mut frames = boxed(&questions()[..5]);
    frames[0].clear();
    frames[3].resize(20_000, 0);
    assert_eq!(sender.send_batch(&mut Outbox::new(), &frames), 3);
    let expected: Vec<Ipv4Addr> = addresses().collect();
    assert_eq!(receive(&listener, 3).concat(), [expected[1], expected[2], expected[4]]);
}

#[test]
fn an_interface_that_is_down_or_gone_is_told() {
    let Some(pair) = Pair::new() else { return };
    let (listener, sender) = (socket(&pair.here), socket(&pair.there));
    let mut inbox = Inbox::new();
    sender.send(&questions()[0]).unwrap();
    listener.recv_batch(&mut inbox, || {}).unwrap();
    pair.here.ip("link set eth0 down");
    let down = listener.recv_batch(&mut inbox, || {});
    assert!(matches!(down, Err(SocketError::InterfaceDown)), "{down:?}");
    assert_eq!(inbox.frames().count(), 0);
    assert_eq!(listener.send_batch(&mut Outbox::new(), &boxed(&questions())), 0);
    pair.here.ip("link delete eth0");
    let gone = listener.recv_batch(&mut inbox, || {});
    assert!(matches!(gone, Err(SocketError::InterfaceGone)), "{gone:?}");
}

/// Whoever decides sends, too: it must not stand still because a cable does.
#[test]
fn a_card_that_is_stuck_holds_nobody_up() {
    let Some(pair) = Pair::new() else { return };
    let sender = socket(&pair.here);
    pair.here.tc("qdisc add dev eth0 root tbf rate 8bit burst 1600 limit 1000000");
    let begin = Instant::now();
    let frame = questions()[0];
    let sent = (0..10_000).map_while(|_| sender.send(&frame).ok()).count();
    println!("{sent} frames before there was no room");
    let refused = sender.send(&frame);
    assert!(matches!(refused, Err(SocketError::Full)), "{refused:?}");
    assert_eq!(sender.send_batch(&mut Outbox::new(), &boxed(&questions())), 0);
    assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", begin.elapsed());
}
