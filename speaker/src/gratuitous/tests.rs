use super::*;

const BEGIN: u64 = 1000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(millis))
}

fn announcement(number: u16) -> Announcement {
    let [high, low] = number.to_be_bytes();
    Announcement { interface: 2, address: IpAddr::from([192, 168, high, low]) }
}

/// Everything that leaves until `end`, and when. Called as often as the schedule asks for.
fn sent(schedule: &mut Schedule, end: Timestamp) -> Vec<(Timestamp, Due)> {
    let mut sent = Vec::new();
    while let Some(now) = schedule.next().filter(|now| *now <= end) {
        sent.extend(std::iter::from_fn(|| schedule.pop(now)).map(|due| (now, due)));
    }
    sent
}

/// The pauses between the announcements of one address.
fn pauses(count: usize) -> Vec<Duration> {
    let mut schedule = Schedule::default();
    schedule.start(announcement(1), at(BEGIN));
    let sent = sent(&mut schedule, at(3_600_000));
    assert_eq!(sent[0].0, at(BEGIN), "the first is due at once");
    let times: Vec<Timestamp> = sent.into_iter().take(count + 1).map(|(now, _)| now).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

#[test]
fn a_burst_spaced_by_more_than_a_second_then_a_slow_refresh() {
    let pauses = pauses(20);
    assert!(pauses[..4].iter().all(|pause| *pause > Duration::from_secs(1)));
    assert!(pauses[..4].iter().all(|pause| *pause < Duration::from_secs(2)));
    let refresh = REFRESH..REFRESH + REFRESH / JITTER;
    assert!(pauses[4..].iter().all(|pause| refresh.contains(pause)), "{pauses:?}");
    assert!(pauses[4..].windows(2).any(|pair| pair[0] != pair[1]), "jitter varies");
}

#[test]
fn a_first_announcement_that_did_not_leave_is_due_again_soon_and_no_other() {
    let mut schedule = Schedule::default();
    schedule.start(announcement(1), at(BEGIN));
    let mut left = Vec::new();
    let mut tries = 0;
    while let Some(now) = schedule.next().filter(|now| *now <= at(BEGIN + 3000)) {
        let due = schedule.pop(now).unwrap();
        tries += 1;
        if tries <= 3 || left.len() == 1 && tries == 5 {
            schedule.refused(due.announcement, now);
        } else {
            left.push(now);
        }
    }
    assert_eq!(left, [at(BEGIN + 30), at(BEGIN + 2230)], "the second one is left out");
    schedule.stop(announcement(1));
    schedule.refused(announcement(1), at(BEGIN + 3000));
    assert_eq!(schedule.next(), None, "it is not ours any more");
}

/// An interface that sends nothing for a minute keeps nobody busy, and tells within a second when it does again.
#[test]
fn a_first_announcement_that_is_refused_again_and_again_is_tried_less_often() {
    let mut schedule = Schedule::default();
    schedule.start(announcement(1), at(BEGIN));
    let mut tried = Vec::new();
    while let Some(now) = schedule.next().filter(|now| *now < at(61_000)) {
        while let Some(due) = schedule.pop(now) {
            tried.push(now);
            schedule.refused(due.announcement, now);
        }
    }
    assert!((90..120).contains(&tried.len()), "{}", tried.len());
    assert!(schedule.next().is_some_and(|next| next < at(62_000)));
    schedule.start(announcement(1), at(62_000));
    assert!(schedule.pop(at(62_000)).is_some());
    schedule.refused(announcement(1), at(62_000));
    assert!(schedule.next() <= Some(at(62_010)), "it begins anew");
}

#[test]
fn a_stopped_address_is_never_due() {
    let mut schedule = Schedule::default();
    schedule.start(announcement(1), at(BEGIN));
    schedule.stop(announcement(1));
    assert_eq!(schedule.next(), None);
    assert_eq!(schedule.pop(at(100_000)), None);
}

#[test]
fn a_thousand_addresses_are_told_within_half_a_second() {
    let mut schedule = Schedule::default();
    (0..1000).for_each(|number| schedule.start(announcement(number), at(BEGIN)));
    let sent = sent(&mut schedule, at(BEGIN + 500));
    let told: BTreeSet<Announcement> = sent.iter().map(|(_, due)| due.announcement).collect();
    assert_eq!((told.len(), sent.len()), (1000, 1000));
    let at_once = sent.iter().filter(|(_, due)| !due.deferred).count();
    assert_eq!(at_once, 100, "two frames each");
}

/// No longer than a second: in that time a burst and what the rate allows.
#[test]
fn no_second_has_more_frames_than_the_cap() {
    let mut schedule = Schedule::default();
    (0..3000).for_each(|number| schedule.start(announcement(number), at(BEGIN)));
    let sent = sent(&mut schedule, at(BEGIN + 60_000));
    let each = sent.iter().fold(BTreeMap::<_, usize>::new(), |mut each, (_, due)| {
        *each.entry(due.announcement).or_default() += 1;
        each
    });
    assert!(each.values().all(|count| *count == 5), "all repeats leave in the end");
    let seconds = sent.iter().fold(BTreeMap::<_, usize>::new(), |mut seconds, (now, _)| {
        *seconds.entry(now.as_duration().as_secs()).or_default() += 2;
        seconds
    });
    // 3,000 addresses take 1.2 s at the rate of first announcements.
    assert!(seconds.values().take(3).all(|frames| *frames <= 5_800), "{seconds:?}");
    assert!(seconds.values().skip(3).all(|frames| *frames <= 600), "{seconds:?}");
}

#[test]
fn repeats_never_delay_a_fresh_address() {
    let mut schedule = Schedule::default();
    (0..2000).for_each(|number| schedule.start(announcement(number), at(BEGIN)));
    // The repeats of all are due now, and take eight seconds.
    sent(&mut schedule, at(BEGIN + 3000));
    let fresh = Announcement { interface: 2, address: IpAddr::from([10, 0, 0, 1]) };
    schedule.start(fresh, at(BEGIN + 3001));
    let due = schedule.pop(at(BEGIN + 3001)).unwrap();
    assert_eq!(due, Due { announcement: fresh, deferred: false });
}

#[test]
fn one_interface_does_not_wait_for_another() {
    let mut schedule = Schedule::default();
    (0..2000).for_each(|number| schedule.start(announcement(number), at(BEGIN)));
    let other = Announcement { interface: 3, ..announcement(1) };
    schedule.start(other, at(BEGIN));
    let at_once: Vec<Due> = std::iter::from_fn(|| schedule.pop(at(BEGIN))).collect();
    assert!(at_once.contains(&Due { announcement: other, deferred: false }));
}

/// What one of several nodes sends in an hour, each of which has as many addresses, once the first repeats are over.
fn frames_in_an_hour(all: &[IpAddr], nodes: usize) -> u32 {
    let mut schedule = Schedule::default();
    all.iter().for_each(|address| schedule.joined(*address));
    let own = all.iter().step_by(nodes);
    own.for_each(|it| schedule.start(Announcement { interface: 2, address: *it }, at(BEGIN)));
    sent(&mut schedule, at(600_000));
    let sent = sent(&mut schedule, at(4_200_000));
    sent.iter().map(|(_, due)| frames(due.announcement.address)).sum()
}

#[test]
fn all_nodes_together_keep_to_their_share_however_many_addresses_there_are() {
    let v4 = |count: u16| (0..count).map(|number| announcement(number).address);
    let v6 =
        |count: u16| (0..count).map(|number| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number]));
    let table: [(Vec<IpAddr>, std::ops::Range<u32>); 5] = [
        // Once in 60 to 75 s.
        (v4(100).collect(), 2..4),
        (v4(1500).collect(), 40..50),
        (v4(10_000).collect(), 40..50),
        (v6(10_000).collect(), 40..50),
        (v4(5000).chain(v6(5000)).collect(), 40..50),
    ];
    for (all, expected) in table {
        for nodes in [1, 10] {
            let each_second = frames_in_an_hour(&all, nodes) * u32::try_from(nodes).unwrap() / 3600;
            assert!(expected.contains(&each_second), "{} {nodes}: {each_second}", all.len());
        }
    }
}

#[test]
fn addresses_that_are_gone_take_no_share() {
    let mut schedule = Schedule::default();
    let all: Vec<IpAddr> = (0..10_000).map(|number| announcement(number).address).collect();
    all.iter().for_each(|address| schedule.joined(*address));
    assert_eq!(schedule.refresh(), Duration::from_secs(400));
    all.iter().for_each(|address| schedule.left(*address));
    assert_eq!(schedule.refresh(), REFRESH);
}

#[test]
fn interfaces_that_are_gone_leave_nothing() {
    let mut schedule = Schedule::default();
    let announcement = |interface| Announcement { interface, address: [192, 168, 0, 1].into() };
    for interface in 1..=100 {
        schedule.start(announcement(interface), Timestamp::default());
        schedule.keep(|it| it == 1 || it == interface);
    }
    assert_eq!(schedule.interfaces.len(), 2);
    schedule.stop(announcement(50));
    schedule.refused(announcement(50), Timestamp::default());
    assert_eq!(schedule.interfaces.len(), 2);
}
