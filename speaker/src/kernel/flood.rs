//! As many frames a second as this machine can send, of every kind by which a neighbour can be a nuisance.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arpeggio_link::{filter::ArpFilter, packet::FrameSocket, packet::Outbox};
use arpeggio_wire::{ArpOperation, Asker, Claim, MacAddr, Question};

use super::{
    OURS, OURS_V6, QUEUE, Speaker, THERE, THERE_V6, Task, arp_client, namespace::Pair, next, pair,
};
use crate::{
    listener::Said,
    protocol::{Arp, Ndp, Protocol},
};

/// For how long it goes on.
const SPAN: Duration = Duration::from_secs(3);

/// How often a neighbour answers and a client asks meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// Fewer frames a second are no flood. Two cores that have little else to do sent 150,000, with fifty other programs 10,000.
const FEWEST: u64 = 2_000;

/// What this process may need more memory meanwhile, in bytes.
const MEMORY: u64 = 16 << 20;

/// The share of a client's questions that is to be answered at the least: one of so many. Each waits for [`PAUSE`] only, and a thread that
/// gets no time for that long misses it: of fifty other programs' time that is most.
const ANSWERED: usize = 20;

const PATIENCE: Duration = Duration::from_secs(5);

/// A machine of which nobody knows, one of as many as there are numbers.
fn stranger(number: u8) -> MacAddr {
    MacAddr(2, 0, 0, 0, 0x99, number)
}

/// Frames of every kind that concern an address, apart from answers that are awaited; many times with other senders.
fn nuisances<P: Protocol>(ours: P::Address, own: P::Address, to: MacAddr) -> Vec<Vec<u8>> {
    let to = Asker { mac: to, address: Some(own) };
    let of_one = |mac: MacAddr| {
        let asker = Asker { mac, address: Some(own) };
        let probe = Asker { mac, address: None };
        let question = Question { address: ours, asker };
        let claim = Claim { address: ours, mac };
        let mut frames = vec![
            P::ask(question, None),
            P::ask(Question { address: ours, asker: probe }, None),
            P::answer(Question { address: ours, asker: to }, mac),
        ];
        frames.extend(P::announcements(claim));
        frames.into_iter().map(|frame| frame.to_vec())
    };
    (0..=u8::MAX).map(stranger).flat_map(of_one).collect()
}

/// Sends these again and again, by a thread of its own; returns how many have left in a second.
fn send(pair: &Pair, frames: Vec<Vec<u8>>) -> JoinHandle<u64> {
    let socket = arp_client(pair, []);
    thread::spawn(move || {
        let (begin, mut outbox, mut sent) = (Instant::now(), Outbox::new(), 0);
        while begin.elapsed() < SPAN {
            sent += u64::try_from(socket.send_batch(&mut outbox, &frames)).unwrap();
        }
        let rate = sent * 1000 / u64::try_from(begin.elapsed().as_millis()).unwrap();
        println!("a flood of {rate} frames a second");
        rate
    })
}

/// What this process needs, in bytes.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
}

/// The answer of a neighbour to this machine's question.
fn answer<P: Protocol>(address: P::Address, own: P::Address, pair: &Pair, mac: MacAddr) -> Vec<u8> {
    let asker = Asker { mac: pair.here.link().1, address: Some(own) };
    P::answer(Question { address, asker }, mac).to_vec()
}

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

#[test]
fn a_flood_of_everything_hides_no_answer_and_clients_are_answered() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let announced = [OURS.into(), OURS_V6.into()].into();
    let awaited = [IpAddr::V4(THERE), THERE_V6.into()];
    speaker.set(&Task { announced, awaited: awaited.into(), ..Task::default() });
    let (mac, index) = (pair.there.link().1, pair.there.link().0);
    let asker = Asker { mac, address: Some(THERE) };
    let question = Question { address: OURS, asker }.broadcast().to_bytes();
    let client = arp_client(&pair, [OURS]);
    assert!(next(&client, Instant::now() + PATIENCE).is_some(), "it announces its address");
    drop(client);
    // Hears the answers to its own questions, and nothing of the flood.
    let heard = ArpFilter { ours: [].into(), peers: [OURS].into() };
    let client = pair.there.run(|| FrameSocket::open(index, &heard)).unwrap();
    let answers =
        [answer::<Arp>(THERE, HERE, &pair, mac), answer::<Ndp>(THERE_V6, HERE_V6, &pair, mac)];
    let before = memory();

    let here = pair.here.link().1;
    let mut frames = nuisances::<Arp>(OURS, THERE, here);
    frames.extend(nuisances::<Ndp>(OURS_V6, THERE_V6, here));
    let flood = send(&pair, frames);
    let (mut sent, mut answered, mut heard) = (0, 0, Vec::new());
    while !flood.is_finished() {
        let pause = Instant::now() + PAUSE;
        answers.iter().for_each(|answer| client.send(answer).unwrap());
        client.send(&question).unwrap();
        sent += 1;
        answered += usize::from(next(&client, pause).is_some());
        heard.extend(speaker.answers.try_iter());
        thread::sleep(pause.saturating_duration_since(Instant::now()));
    }
    let rate = flood.join().unwrap();
    let end = Instant::now() + PATIENCE;
    while heard.len() < 2 * sent && Instant::now() < end {
        heard.extend(speaker.answers.recv_timeout(PAUSE));
    }
    println!(
        "{} of {} answers heard, {answered} of {sent} questions answered",
        heard.len(),
        2 * sent
    );
    println!("{:?}", speaker.counts("ignored_total", "reason"));
    assert!(rate >= FEWEST, "a flood, not {rate} frames a second");
    assert_eq!(speaker.losses.count(), 0);
    assert!(heard.iter().all(|it| it.said == Said::Replied && awaited.contains(&it.claim.address)));
    assert_eq!(heard.len(), 2 * sent, "every answer is heard");
    assert!(answered * ANSWERED >= sent, "{answered} of {sent} questions are answered");
    assert!(speaker.sightings.len() <= QUEUE);
    let more = memory().saturating_sub(before);
    assert!(more < MEMORY, "{more} bytes more");
}

/// Questions of strangers then displace none of it, and what is lost there is counted.
#[test]
fn who_tells_everybody_that_it_has_what_is_asked_for_is_heard_as_one_that_answers() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    speaker.set(&Task { asked: [OURS.into(), OURS_V6.into()].into(), ..Task::default() });
    let mac = pair.there.link().1;
    let probe = Asker { mac: pair.here.link().1, address: None };
    let reply = Claim { address: OURS, mac }.announcement(ArpOperation::Reply).to_bytes().to_vec();
    let table = [
        ("an answer to duplicate address detection", IpAddr::V6(OURS_V6), {
            Ndp::answer(Question { address: OURS_V6, asker: probe }, mac).to_vec()
        }),
        ("a reply by broadcast (RFC 5227 2.6)", OURS.into(), reply),
    ];
    let client = arp_client(&pair, []);
    for (what, address, frame) in table {
        let end = Instant::now() + PATIENCE;
        let heard = loop {
            assert!(Instant::now() < end, "{what}");
            client.send(&frame).unwrap();
            if let Ok(heard) = speaker.answers.recv_timeout(PAUSE) {
                break heard;
            }
        };
        assert_eq!((heard.claim, heard.said), (Claim { address, mac }, Said::Told), "{what}");
        thread::sleep(PAUSE * 10);
        assert!(speaker.answers.try_iter().all(|it| it.claim.address == address));
    }
}

/// Answers in a neighbour's name come by the same way as its own. Some of them may get lost, but not unnoticed.
#[test]
fn answers_that_a_flood_of_forged_ones_displaces_are_counted() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    speaker.set(&Task { awaited: [THERE.into()].into(), ..Task::default() });
    let forged = (0..=u8::MAX).map(|it| answer::<Arp>(THERE, HERE, &pair, stranger(it)));
    let forged: Vec<Vec<u8>> = forged.collect();
    let client = arp_client(&pair, []);
    let end = Instant::now() + PATIENCE;
    while speaker.answers.is_empty() {
        assert!(Instant::now() < end, "answers are awaited");
        client.send(&forged[0]).unwrap();
        thread::sleep(PAUSE);
    }
    let rate = send(&pair, forged).join().unwrap();
    thread::sleep(Duration::from_millis(500));
    println!("{:?}", speaker.counts("ignored_total", "reason"));
    assert!(rate >= FEWEST, "a flood, not {rate} frames a second");
    assert!(speaker.losses.count() > 0, "nobody has read them");
}
