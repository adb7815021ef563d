//! The API server says no.

use arpeggio_api::service::ADDRESS_EXPIRING;

use super::*;

impl Lab {
    fn outbox(&mut self) -> Vec<String> {
        let outbox = self.controller.index.take_outbox();
        outbox
            .into_iter()
            .map(|(object, news)| format!("{}: {}", object.name.unwrap(), news.note))
            .collect()
    }
}

#[test]
fn who_gets_no_lock_is_told_what_was_refused_and_why_and_is_tried_again() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.refuses = Some("create Lease");
    lab.create("web");
    let said = "False: the API server refused to create Lease: exceeded quota, used: 1";
    assert_eq!(lab.says("web"), said);
    assert_eq!((lab.told[0].reason, lab.told.len()), ("ApiRefused", 1));
    lab.seconds(120);
    assert_eq!(lab.says("web"), said, "in the first words, though it counts on");
    let writes = lab.writes.iter().filter(|it| **it == "service").count();
    assert_eq!((writes, lab.told.len()), (1, 1));
    assert!(lab.cluster.refusals < 15, "{}", lab.cluster.refusals);
    lab.cluster.refuses = None;
    lab.seconds(30);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
}

#[test]
fn who_is_behind_asks_seldom_and_at_once_when_it_is_not() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    while lab.controller.hear(cluster::Watch::Services, &lab.cluster) {}
    // The watch of Services stands still from now on.
    lab.cluster.annotate("web", "team", "blue");
    let mut asked = 0;
    for second in 0..120 {
        for _ in 0..20 {
            for task in lab.controller.decide(&cluster::after(Duration::from_secs(second))) {
                asked += 1;
                let report = lab.cluster.perform_at_once(task);
                lab.controller.finish(report, &cluster::after(Duration::from_secs(second)));
            }
        }
    }
    assert!(asked < 15, "{asked}");
    lab.time = Duration::from_mins(2);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

impl Lab {
    /// Lets time pass in which each request takes 10 ms, and the watch 100 ms to show what a refused one was about.
    /// Another program changes the Service every so often, or just before each write of its status.
    fn with_meddler(&mut self, seconds: u64, every: Option<u64>) -> Vec<String> {
        let (end, step) = (self.time + Duration::from_secs(seconds), Duration::from_millis(10));
        let mut told = Vec::new();
        let mut late = Vec::new();
        while self.time < end {
            self.time += step;
            let passed = u64::try_from(self.time.as_millis()).unwrap();
            if every.is_some_and(|every| passed.is_multiple_of(every)) {
                self.cluster.touch("web", "flux");
            }
            self.controller.hear_all(&self.cluster);
            let now = cluster::after(self.time);
            let (due, later) = late.into_iter().partition(|(time, _)| *time <= self.time);
            let due: Vec<(Duration, TaskReport)> = due;
            late = later;
            due.into_iter().for_each(|(_, report)| self.controller.index.finish(report, &now));
            for task in self.controller.decide(&now) {
                self.note(&task);
                if every.is_none() && matches!(task.effect, Effect::WriteService(_)) {
                    self.cluster.touch("web", "flux");
                }
                let report = self.cluster.perform_at_once(task);
                let takes = if report.result.is_ok() { 1 } else { 11 };
                late.push((self.time + step * takes, report));
            }
            told.extend(self.outbox());
        }
        told
    }
}

#[test]
fn a_service_that_is_changed_every_200_ms_is_served_all_the_same() {
    for phase in 0..20 {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.time = Duration::from_millis(phase * 10);
        lab.cluster.create_service("web", &[]);
        assert_eq!(lab.with_meddler(2, Some(200)), [""; 0]);
        assert_eq!(lab.addresses("web"), ["10.0.0.1"], "{phase}: {:?}", lab.writes);
    }
}

#[test]
fn who_overtakes_each_write_of_a_status_is_named_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    let told = lab.with_meddler(600, None);
    assert_eq!(lab.addresses("web"), [""; 0]);
    let note = "web: the API server fails to patch the status of the Service: \"flux\" changes the object again and again, each \
                time before the request arrives: have it stop, or do so less often";
    assert_eq!(told, [note]);
    assert!(lab.writes.len() < 300, "{}", lab.writes.len());
    lab.seconds(10);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn a_users_mend_is_tried_at_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.refuses = Some("create Lease");
    lab.create("web");
    lab.seconds(100);
    lab.cluster.refuses = None;
    lab.cluster.annotate("web", "team", "blue");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn who_cannot_be_told_in_the_status_is_told_by_an_event_once() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.refuses = Some("services/status");
    lab.create("web");
    assert_eq!(
        lab.outbox(),
        ["web: the API server refused to patch services/status: exceeded quota, used: 1"]
    );
    lab.seconds(120);
    assert_eq!(lab.outbox(), [""; 0]);
    assert!(lab.cluster.refusals < 15, "{}", lab.cluster.refusals);
    lab.cluster.refuses = None;
    lab.seconds(30);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn nobody_else_waits_for_who_is_refused() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.refuses = Some("services/status");
    lab.create("web");
    lab.seconds(100);
    lab.cluster.refuses = None;
    lab.create("other");
    assert_eq!(lab.addresses("other"), ["10.0.0.2"]);
}

#[test]
fn an_overloaded_server_is_asked_again_when_it_says() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    lab.controller.hear_all(&lab.cluster);
    let task = lab.controller.decide(&cluster::now()).remove(0);
    let retry_after = Some(Duration::from_mins(1));
    let result = Err(cluster::unanswered("create Lease", retry_after));
    lab.controller.index.finish(TaskReport { subject: task.subject, result }, &cluster::now());
    lab.wait(Duration::from_secs(59));
    assert_eq!(lab.locks(), [""; 0]);
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn sharers_learn_that_their_lock_is_not_amended() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.refuses = Some("patch Lease");
    lab.cluster.set_policy("web", "Local");
    lab.settle();
    let told = lab.outbox();
    assert!(told[0].starts_with("web: the API server refused to patch Lease"), "{told:?}");
    lab.seconds(60);
    assert_eq!(lab.outbox(), [""; 0]);
}

#[test]
fn a_pause_of_a_day_is_not_believed() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    lab.controller.hear_all(&lab.cluster);
    let task = lab.controller.decide(&cluster::now()).pop().unwrap();
    for retry_after in [Duration::from_hours(24), Duration::MAX] {
        let result = Err(cluster::unanswered("create Lease", Some(retry_after)));
        let report = TaskReport { subject: task.subject.clone(), result };
        lab.controller.index.finish(report, &cluster::now());
    }
    lab.wait(Duration::from_mins(9));
    assert_eq!(lab.addresses("web"), [""; 0]);
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn who_gets_no_lock_since_nobody_answers_is_told_when_it_lasts() {
    let mut lab = Lab::with_pools(&[HOME]);
    (lab.cluster.refuses, lab.cluster.is_silent) = (Some("create Lease"), true);
    lab.create("web");
    lab.seconds(59);
    assert!(lab.record("web").condition(ADDRESS_ALLOCATED).is_none(), "it may pass");
    lab.seconds(60);
    let said = "False: the API server fails to create Lease: no answer";
    assert_eq!(lab.says("web"), said);
    lab.seconds(600);
    assert_eq!((lab.says("web").as_str(), lab.count("service"), lab.told.len()), (said, 1, 1));
    lab.cluster.refuses = None;
    lab.seconds(30);
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
}

/// What the API server does not do, and what makes it necessary.
type Stays = (&'static str, fn(&mut Lab));

#[test]
fn whatever_is_not_done_for_long_its_author_is_told_once() {
    let stays: [Stays; 4] = [
        ("services/status", |lab| lab.create("late")),
        ("patch Lease", |lab| lab.cluster.delete_pool("home")),
        ("patch Lease", |lab| lab.cluster.set_policy("web", "Local")),
        ("delete Lease", |lab| lab.cluster.set_type("web", "ClusterIP")),
    ];
    for (what, change) in stays {
        for is_silent in [false, true] {
            let mut lab = Lab::with_pools(&[HOME]);
            lab.create("web");
            lab.told.clear();
            (lab.cluster.refuses, lab.cluster.is_silent) = (Some(what), is_silent);
            change(&mut lab);
            lab.seconds(600);
            let outbox = lab.outbox();
            let told = lab.told.iter().map(|news| news.note.clone()).chain(outbox);
            let refused: Vec<String> = told.filter(|it| it.contains("the API server")).collect();
            assert_eq!(refused.len(), 1, "{what}, {is_silent}: {refused:?}");
        }
    }
}

#[test]
fn a_webhook_that_undoes_what_is_written_is_told_of() {
    for (what, change) in [
        ("arpeggio.dev/AddressAllocated", (|_| {}) as fn(&mut Lab)),
        ("arpeggio.dev/announce", |lab| lab.cluster.announce_on("home", "eth1")),
    ] {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.cluster.drops = Some(what);
        lab.create("web");
        change(&mut lab);
        lab.seconds(600);
        let told = lab.outbox();
        assert!(
            told.len() == 1 && told[0].contains("a webhook or a finalizer undoes it"),
            "{what}: {told:?}"
        );
    }
}

#[test]
fn what_expires_still_does_while_its_successor_cannot_be_claimed() {
    let mut lab = Lab::with_pools(&[HOME, ("spare", &["10.1.0.1"])]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.settle();
    lab.seconds(6);
    let expiring = |lab: &Lab| lab.record("web").condition(ADDRESS_EXPIRING).cloned();
    let before = expiring(&lab).unwrap();
    lab.cluster.refuses = Some("create Lease");
    lab.wait(cluster::GRACE);
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert!(lab.says("web").contains("create Lease"), "{}", lab.says("web"));
    let now = expiring(&lab).unwrap();
    assert_eq!(
        (now.message, now.last_transition_time),
        (before.message, before.last_transition_time)
    );
    lab.cluster.refuses = None;
    lab.seconds(120);
    assert_eq!((lab.addresses("web"), expiring(&lab)), (vec!["10.1.0.1".to_owned()], None));
}
