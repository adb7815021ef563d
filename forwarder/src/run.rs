//! The loop that joins what is known, what is decided and what the kernel does.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::forwarder::Forwarder as Says;
use arpeggio_election::{Node, Timestamp};
use arpeggio_forwarder::rules::{Counters, Rules};
use arpeggio_forwarding::{Decision, Draining, Forwarding, Hop, Plan, Settings};
use arpeggio_runtime::{
    health::{Awaited, Health, Heartbeat},
    shutdown::Shutdown,
    telemetry::causes,
};
use futures::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::{
    counts::{Counted, Counts, Next, take_out_moved},
    feed::Feed,
    metrics::Metrics,
    silent_nodes::SilentNodes,
    sources::Sources,
    teller::Teller,
    ways::{Minded, Ways},
};

/// How often connections are counted while any run out, and what the rules have counted is read.
const PACE: Duration = Duration::from_secs(5);

/// How often it is looked whether interfaces are still those that the rules name, and whether the API server tells anything.
const LOOK: Duration = Duration::from_millis(500);

/// The pause before the kernel is asked again for what it has refused.
const RETRY: Duration = Duration::from_secs(10);

/// For so long the first decision waits for Services, Nodes and slices. Connections are kept without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A loop that has not gone round for this long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// One node's forwarder.
pub(crate) struct Forwarder {
    /// Which of the node's processes this is: its pod's name.
    instance: String,
    node: Node,
    /// What this process has said was on its node's Lease when the watch told last.
    is_said: bool,
    sources: Sources,
    silent: SilentNodes,
    /// The API server told nothing when it was decided last.
    deaf: bool,
    started: Timestamp,
    feed: Feed,
    forwarding: Forwarding,
    teller: Teller,
    kernel: Kernel,
    ways: Minded,
    draining: Draining,
    counts: Counts<Counted>,
    metrics: Metrics,
    pace: Interval,
    look: Interval,
    beat: Heartbeat,
    /// Done when rules are in force, or it is known why they cannot be.
    settled: Option<Awaited>,
}

/// The rules in the kernel.
struct Kernel {
    rules: Option<Rules>,
    /// The plan that it was asked for last.
    plan: Option<Plan>,
    /// Why it cannot be.
    unable: Option<String>,
    /// When the kernel is asked again.
    retry: Instant,
}

impl Forwarder {
    /// A forwarder that keeps connections for as long as `keep` after their address has moved.
    pub(crate) fn new(
        (sources, silent, feed): (Sources, SilentNodes, Feed),
        (node, instance): (Node, String),
        keep: Duration,
        health: &Health,
        metrics: Metrics,
    ) -> Self {
        let [pace, look] = [PACE, LOOK].map(|period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self {
            instance,
            node: node.clone(),
            is_said: false,
            sources,
            silent,
            deaf: false,
            started: now(),
            feed,
            teller: Teller::new(node.clone()),
            forwarding: Forwarding::new(node, Settings { keep }, now()),
            kernel: Kernel::new(),
            ways: Minded::begin(),
            draining: Draining::default(),
            counts: Counts::new(),
            metrics,
            pace,
            look,
            beat: health.watches("decisions", STUCK),
            settled: Some(health.awaits("rules")),
        }
    }

    /// Runs until it is asked to stop.
    pub(crate) async fn run(mut self, shutdown: &Shutdown, news: &watch::Sender<Option<Says>>) {
        let (mut next, mut is_news) = (Some(self.started + PATIENCE), false);
        loop {
            let wake =
                next.map_or_else(Instant::now, |at: Timestamp| Instant::now() + at.since(now()));
            tokio::select! {
                () = shutdown.asked() => return,
                shown = self.sources.next() => {
                    is_news |= shown.is_some_and(|it| self.feed.take(it));
                }
                heard = self.silent.next() => is_news |= self.silent.hear(&heard, now()),
                () = self.ways.changed() => is_news = true,
                _ = self.pace.tick() => self.counts.want(),
                turn = self.counts.next() => if let Next::Done(counted) = turn {
                    self.take(counted.as_ref(), news);
                },
                _ = self.look.tick() => {
                    is_news |= self.look();
                }
                () = tokio::time::sleep_until(wake), if next.is_some() => {
                    (next, is_news) = (None, true);
                }
            }
            self.beat.beat();
            // A drain changes many Leases at once, and is decided on as a whole.
            while let Some(shown) = self.sources.next().now_or_never() {
                is_news |= shown.is_some_and(|it| self.feed.take(it));
            }
            self.sources.want(self.feed.wanted());
            self.say_again(news);
            if self.can_decide() && (is_news || self.kernel.is_due()) {
                is_news = false;
                next = self.decide(news);
            }
            self.count(news);
        }
    }

    /// Whether anything has changed that nobody tells of.
    fn look(&mut self) -> bool {
        let deaf = self.sources.are_silent();
        let is_heard = self.forwarding.hear(self.feed.known(), deaf, now());
        self.kernel.is_outdated() || self.deaf != deaf || is_heard
    }

    /// Says at once what was taken from the Lease: by somebody who deleted it, or by a process of this node that has stopped. What another
    /// process has put in its place stays until the next renewal, since both would go on for ever.
    fn say_again(&mut self, news: &watch::Sender<Option<Says>>) {
        let is_there = self.feed.has_forwarder(&self.node);
        if std::mem::replace(&mut self.is_said, is_there) && !is_there {
            news.send_modify(|_| {});
        }
    }

    /// Later lists change one thing after the other: who has decided once does not wait for them.
    fn can_decide(&self) -> bool {
        let waits = self.settled.is_some() && now().since(self.started) < PATIENCE;
        self.sources.has_leases() && (self.sources.are_complete() || !waits)
    }

    /// When to decide again at the latest.
    fn decide(&mut self, news: &watch::Sender<Option<Says>>) -> Option<Timestamp> {
        let mut known = Cow::Borrowed(self.feed.known());
        let (silent, found) = (self.silent.nodes(now()), self.ways.found());
        if !found.is_empty() {
            known = Cow::Owned(known.asked(&found));
        }
        if !silent.is_empty() {
            known = Cow::Owned(known.without(&silent));
        }
        self.deaf = self.sources.are_silent();
        if self.deaf {
            known.to_mut().deaf = true;
        }
        let Decision { plan, draining, ask, next, notes } = self.forwarding.decide(&known, now());
        self.teller.tell(&known, &notes);
        self.metrics.show_one_node(self.teller.one_node());
        let before = self.kernel.unable.clone();
        let told: BTreeSet<&Hop> = plan.hops().collect();
        self.ways.set(Ways { told: told.into_iter().cloned().collect(), asked: ask });
        self.kernel.bring(plan, &self.metrics);
        let is_new = draining != self.draining;
        let earlier = std::mem::replace(&mut self.draining, draining);
        take_back(news, &earlier, &self.draining);
        if is_new || self.kernel.unable != before || self.settled.is_some() {
            self.counts.want();
        }
        if let Some(settled) = self.settled.take() {
            settled.done();
        }
        next.into_iter().chain(self.silent.next_end()).min()
    }

    /// Begins to count what runs out here and what was passed on, when that is due.
    fn count(&mut self, news: &watch::Sender<Option<Says>>) {
        if !self.sources.has_leases() {
            // Otherwise one that is wanted would be due at once, for as long as nothing is listed.
            return self.counts.skip();
        }
        if !self.counts.is_due() {
            return;
        }
        if let Some(counters) = self.kernel.counters() {
            let draining = self.draining.clone();
            self.counts.begin(move || Counted::now(draining, &counters));
        } else {
            self.counts.skip();
            self.publish(self.draining.addresses.is_empty().then(BTreeMap::new), news);
        }
    }

    /// Publishes what was counted, if that is news.
    fn take(&self, counted: Option<&Counted>, news: &watch::Sender<Option<Says>>) {
        if let Some(counters) = counted.and_then(|it| it.counters.as_ref()) {
            self.metrics.show_counters(counters);
        }
        self.publish(counted.and_then(|it| it.connections(&self.draining)), news);
    }

    /// `connections`: those of the addresses that run out here. `None`: they cannot be counted.
    fn publish(
        &self,
        connections: Option<BTreeMap<IpAddr, u32>>,
        news: &watch::Sender<Option<Says>>,
    ) {
        self.metrics.show_connections(connections.as_ref());
        let unable = self.kernel.unable.clone();
        let (instance, not_spread) = (self.instance.clone(), self.teller.not_spread());
        set(news, Some(Says { instance, connections, unable, not_spread, knows_mark: true }));
    }
}

impl Kernel {
    /// Of which nothing is asked yet.
    fn new() -> Self {
        Self { rules: None, plan: None, unable: None, retry: Instant::now() }
    }

    /// Whether it is time to ask the kernel again for what it has refused.
    fn is_due(&self) -> bool {
        self.unable.is_some() && self.retry <= Instant::now()
    }

    /// Brings the kernel to a plan. What it refuses is not in force, and is tried again later; another plan is tried at once.
    fn bring(&mut self, plan: Plan, metrics: &Metrics) {
        if self.plan.as_ref() == Some(&plan) && !self.is_due() && !self.is_outdated() {
            return;
        }
        match self.apply(&plan) {
            Ok(()) => {
                if self.unable.take().is_some() {
                    tracing::info!("packets are passed on");
                }
                metrics.applied("done");
            }
            Err(error) => {
                let why = causes(&error).to_string();
                if self.unable.as_ref() != Some(&why) {
                    tracing::error!(
                        why,
                        "what the kernel refuses is not passed on: moves reset connections"
                    );
                }
                self.unable = Some(why);
                self.retry = Instant::now() + RETRY;
                metrics.applied("failed");
            }
        }
        self.plan = Some(plan);
        metrics.show_able(self.unable.is_none());
    }

    /// An interface was made anew, say: the plan is the same, and the rules that follow from it are others.
    fn is_outdated(&self) -> bool {
        self.rules.as_ref().is_some_and(Rules::are_outdated)
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), arpeggio_netfilter::Error> {
        let rules = match self.rules.take() {
            Some(rules) => self.rules.insert(rules),
            None => self.rules.insert(Rules::new()?),
        };
        let applied = rules.apply(plan);
        if rules.are_of_an_earlier_plan() {
            self.rules = None;
        }
        let applied = applied?;
        if !applied.missing.is_empty() {
            tracing::warn!(interfaces = ?applied.missing, "interfaces are not there: nothing is passed on by them");
        }
        Ok(())
    }

    /// What its rules count. `None`: there are none.
    fn counters(&self) -> Option<Counters> {
        self.rules.as_ref().map(Rules::counters)
    }
}

/// Does not wait until it is counted anew: what was said of an address before it moved would be said once more meanwhile, and taken for
/// what is so since.
fn take_back(news: &watch::Sender<Option<Says>>, before: &Draining, now: &Draining) {
    news.send_if_modified(|said| {
        let counts = said.as_mut().and_then(|said| said.connections.as_mut());
        counts.is_some_and(|counts| take_out_moved(counts, before, now))
    });
}

/// Tells those who wait for a change, if it is one.
pub(crate) fn set<T: PartialEq>(told: &watch::Sender<T>, latest: T) {
    told.send_if_modified(|known| {
        let is_new = *known != latest;
        *known = latest;
        is_new
    });
}

fn now() -> Timestamp {
    Timestamp::from_origin(arpeggio_link::clock::now())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Command, Stdio},
        sync::Arc,
    };

    use arpeggio_forwarding::{PlannedAddress, Way};
    use nix::unistd::{Uid, setresuid};
    use prometheus::Registry;

    use super::*;

    /// Set it to skip the tests that need root.
    const SKIP: &str = "ARPEGGIO_SKIP_ROOT_TESTS";

    /// One of these tests as a process of its own, which `starter` starts. `None` when tests that need root are skipped.
    fn process_of(test: &str, starter: &str, args: &[&str]) -> Option<Command> {
        if std::env::var_os(SKIP).is_some() {
            eprintln!("skipped, since {SKIP} is set");
            return None;
        }
        let mut child = Command::new(starter);
        child.args(args).arg(std::env::current_exe().unwrap());
        let test = format!("run::tests::{test}");
        child.args(["--exact", &test, "--ignored", "--nocapture"]);
        Some(child)
    }

    #[test]
    fn a_kernel_that_refuses_is_said_and_asked_again_later() {
        let without = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
        let Some(mut child) = process_of("refuses", "setpriv", &without) else { return };
        let said = child.output().expect("install util-linux");
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("1 passed"), "{text}");
    }

    /// Rules of the plan before may give packets to a node that is dead by now.
    #[test]
    fn a_kernel_that_refuses_everything_has_no_rules_of_an_earlier_plan() {
        let child = process_of("loses_its_capabilities", "unshare", &["--net"]);
        let Some(mut child) = child else { return };
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().expect("install util-linux");
        let pid = child.id().to_string();
        let tables = || {
            let listed = Command::new("nsenter")
                .args(["--net", "--target", &pid, "nft", "list", "tables"])
                .output()
                .unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = |what: &str| said.any(|line| line.unwrap().contains(what));
        assert!(heard("in force") && tables().contains("arpeggio-"), "{}", tables());
        child.stdin.as_ref().unwrap().write_all(b"go on\n").unwrap();
        assert!(heard("refused"));
        let left = tables();
        child.stdin.as_ref().unwrap().write_all(b"go on\n").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(left, "");
    }

    /// Run by the test before it, as a process of its own.
    #[test]
    #[ignore = "needs a network namespace of its own, and waits for what it is told"]
    fn loses_its_capabilities() {
        let metrics = Metrics::registered(&Registry::new(), &Node::from("node-1")).unwrap();
        let go_on = || std::io::stdin().read_line(&mut String::new()).unwrap();
        let mut kernel = Kernel::new();
        kernel.bring(to_a_fellow(), &metrics);
        assert_eq!(kernel.unable, None);
        println!("in force");
        go_on();
        let nobody = Uid::from_raw(65_534);
        setresuid(nobody, nobody, nobody).unwrap();
        kernel.bring(Plan::default(), &metrics);
        assert!(kernel.unable.is_some());
        println!("refused");
        go_on();
    }

    /// A node passes on what it does not know.
    fn to_a_fellow() -> Plan {
        let hop = Hop {
            node: "node-2".into(),
            interface: "lo".to_owned(),
            next_hop: [192, 0, 2, 2].into(),
            mac: [2, 0, 0, 0, 0, 2],
            own_mac: [2, 0, 0, 0, 0, 1],
            knows_mark: true,
        };
        let mut planned = PlannedAddress::default();
        planned.passing.from_outside = Way::To(Arc::new(hop));
        let addresses = [([192, 0, 2, 200].into(), planned)].into();
        Plan { fellows: [[2, 0, 0, 0, 0, 2]].into(), addresses }
    }

    /// Run by the first test, as a process of its own.
    #[test]
    #[ignore = "needs a process without a capability"]
    fn refuses() {
        let metrics = Metrics::registered(&Registry::new(), &Node::from("node-1")).unwrap();
        let mut kernel = Kernel::new();
        kernel.bring(Plan::default(), &metrics);
        let why = kernel.unable.clone().unwrap();
        assert!(why.contains("NET_ADMIN"), "{why}");
        assert!(kernel.counters().is_none(), "nobody can tell");
        assert!(!kernel.is_due() && !kernel.is_outdated());
        kernel.retry = Instant::now();
        assert!(kernel.is_due());
        kernel.bring(Plan::default(), &metrics);
        assert_eq!(kernel.unable, Some(why));
        assert!(!kernel.is_due(), "not at once");
        let tried = || metrics.count_applied("failed");
        let before = tried();
        kernel.bring(Plan::default(), &metrics);
        assert_eq!(tried(), before, "the same is not tried before it is due");
        kernel.bring(to_a_fellow(), &metrics);
        assert_eq!(tried(), before + 1, "another plan does not wait: a node may have died");
    }
}
