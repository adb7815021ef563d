//! What a speaker remembers of the frames of its segment.

use std::time::{Duration, Instant};

use arpeggio_wire::{Asker, Question};

use super::{OURS, OURS_V6, Speaker, THERE, THERE_V6, arp_client, ndp_client, next, pair};

/// Announced by nobody, and asked for.
const OTHER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 99);

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn questions_for_announced_addresses_and_their_answers_are_remembered() {
    let Some(pair) = pair() else { return };
    pair.here.ip("link set eth0 promisc on");
    let (here, there) = (pair.here.link().1, pair.there.link().1);
    let speaker = Speaker::start(&pair.here);
    let (arp, ndp) = (arp_client(&pair, [OURS]), ndp_client(&pair, [OURS_V6]));
    speaker.announce([OURS.into(), OURS_V6.into()]);
    let end = Instant::now() + PATIENCE;
    assert!(next(&arp, end).is_some() && next(&ndp, end).is_some(), "told unasked");

    let asker = Asker { mac: there, address: Some(THERE) };
    arp.send(&Question { address: OTHER, asker }.broadcast().to_bytes()).unwrap();
    arp.send(&Question { address: OURS, asker }.broadcast().to_bytes()).unwrap();
    let asker = Asker { mac: there, address: Some(THERE_V6) };
    ndp.send(&Question { address: OURS_V6, asker }.multicast().to_bytes()).unwrap();
    let broadcast = "ff:ff:ff:ff:ff:ff";
    let expected = [
        format!("eth0 out arp {here} > {broadcast}: who has {OURS}? asks {OURS} at {here}"),
        format!("eth0 in  arp {there} > {broadcast}: who has {OURS}? asks {THERE} at {there}"),
        format!("eth0 out arp {here} > {there}: {OURS} is at {here}, told to {THERE}"),
        format!("who has {OURS_V6}? asks {THERE_V6} at {there}"),
        format!("{OURS_V6} is at {here}, told by {OURS_V6} to {THERE_V6}, solicited"),
    ];
    loop {
        let page = speaker.frames.page();
        let missing: Vec<_> = expected.iter().filter(|line| !page.contains(*line)).collect();
        if missing.is_empty() {
            let others = page.lines().filter(|line| line.contains(&OTHER.to_string()));
            assert_eq!(others.count(), 0, "what is nobody's business here: {page}");
            return;
        }
        assert!(Instant::now() < end, "missing: {missing:#?}\n{page}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
