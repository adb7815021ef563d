//! Random histories of moves, deaths, returns, drains and restarts.
//!
//! That they can fail was tried by changing the decision. They find each of these:
//!
//! - what a fellow gave goes to any other node that may know it, and not only to one below: it goes round, also while all agree;
//! - the order of nodes depends on whether the address is spread: it goes round when they are of different minds about that;
//! - who was the primary of a bucket before is forgotten;
//! - that a Service's buckets change with its session affinity is forgotten;
//! - a forwarder that has just started asks nobody;
//! - a node that is cut off from the API server is not asked, or is asked before those that are not; or asks by what it knew when it is back;
//! - a node whose pod was deleted is taken for dead;
//! - a zero counts though it was said before the node served last;
//! - what a fellow gives to a node that has nobody left to ask stays there (1,000 cases).

#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;

use std::{collections::BTreeSet, time::Duration};

use arpeggio_forwarding::{Kind, Service, explain};
use cluster::{Client, Cluster, PORT, address, client, name};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Move(usize),
    Kill(usize),
    Boot(usize),
    /// It does not reach the API server any more.
    CutOff(usize),
    /// Its pod is deleted, and its machine goes on.
    StopPod(usize),
    Heal(usize),
    Cordon(usize, bool),
    Restart(usize),
    Publish(usize),
    Spread(bool),
    Affinity(bool),
    Weigh(Vec<u32>),
    Wait(u64),
    Connect(u16),
    Close(u16),
    /// One node hears the news. Where all are told at once it is nothing.
    Tell(usize),
    /// A node believes what is not so: it has missed the latest news of the holder, or of who lives.
    Believe(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0usize..5;
    prop_oneof![
        4 => node.clone().prop_map(Step::Move),
        2 => node.clone().prop_map(Step::Kill),
        3 => node.clone().prop_map(Step::Boot),
        2 => node.clone().prop_map(Step::CutOff),
        2 => node.clone().prop_map(Step::StopPod),
        2 => node.clone().prop_map(Step::Heal),
        3 => (node.clone(), any::<bool>()).prop_map(|(n, is)| Step::Cordon(n, is)),
        2 => node.clone().prop_map(Step::Restart),
        3 => node.clone().prop_map(Step::Publish),
        2 => any::<bool>().prop_map(Step::Spread),
        1 => any::<bool>().prop_map(Step::Affinity),
        2 => prop::collection::vec(0u32..4, 5).prop_map(Step::Weigh),
        4 => (0u64..200).prop_map(Step::Wait),
        8 => (0u16..40).prop_map(Step::Connect),
        2 => (0u16..40).prop_map(Step::Close),
        4 => node.clone().prop_map(Step::Tell),
        1 => (node.clone(), node).prop_map(|(n, other)| Step::Believe(n, other)),
    ]
}

struct Run {
    cluster: Cluster,
    clients: BTreeSet<Client>,
    /// All hear of everything at once.
    agree: bool,
}

impl Run {
    fn of(count: usize, spread: bool, agree: bool) -> Self {
        Self { cluster: Cluster::of(count, spread), clients: BTreeSet::new(), agree }
    }

    fn take(&mut self, step: &Step) {
        // Who served until now did so until now.
        self.cluster.note(&self.clients);
        self.change(step);
        if self.agree {
            self.cluster.tell_all();
        } else {
            self.cluster.ask_again();
        }
        self.cluster.note(&self.clients);
    }

    fn change(&mut self, step: &Step) {
        let count = self.cluster.machines.len();
        let cluster = &mut self.cluster;
        match *step {
            Step::Move(n) if cluster.is_in_touch(n % count) => {
                cluster.about().holder = Some(name(n % count));
            }
            Step::Kill(n) => cluster.kill(n % count),
            Step::CutOff(n) => cluster.cut_off(n % count),
            Step::StopPod(n) => cluster.stop_pod(n % count),
            Step::Heal(n) => cluster.heal(n % count),
            Step::Boot(n) if !cluster.lives(n % count) => self.boot(n % count),
            Step::Cordon(n, is) => {
                cluster.fellow(n % count).facts.as_mut().unwrap().cordoned = is;
            }
            Step::Restart(n) => cluster.restart(n % count),
            Step::Publish(n) if cluster.is_in_touch(n % count) => cluster.publish(n % count),
            Step::Spread(is) => cluster.about().spread = is,
            Step::Affinity(affinity) => {
                let service = cluster.about().services.get_mut(&PORT).unwrap();
                *service = Service { affinity, ..service.clone() };
            }
            Step::Weigh(ref weights) => cluster.weigh(&weights[..count]),
            Step::Wait(seconds) => {
                cluster.pass(Duration::from_secs(seconds));
                cluster.note(&self.clients);
            }
            Step::Connect(n) => self.connect(client(n)),
            Step::Close(n) => self.close(client(n)),
            Step::Tell(n) if cluster.is_in_touch(n % count) => cluster.tell(n % count),
            Step::Believe(n, other) if !self.agree => {
                let view = cluster.machines[other % count].view.clone();
                cluster.machines[n % count].view = view;
            }
            _ => {}
        }
    }

    fn boot(&mut self, n: usize) {
        self.cluster.boot(n);
        // Of a node that nobody announced for until now.
        let holder = self.cluster.holder();
        if !self.cluster.lives(holder) {
            self.cluster.about().holder = Some(name(n));
        }
    }

    fn connect(&mut self, client: Client) {
        let holder = self.cluster.holder();
        if !self.cluster.lives(holder) || !self.clients.insert(client) {
            return;
        }
        let trace = self.cluster.connect(holder, client);
        let server = explain(&self.cluster.truth, (address(), PORT), client).node;
        if self.agree
            && let Some(server) = server
        {
            assert_eq!(name(trace.end()), server, "{client:?} {trace:?}");
        }
    }

    fn close(&mut self, client: Client) {
        self.clients.remove(&client);
        self.cluster.served.retain(|(_, it), _| *it != client);
        self.cluster.machines.iter_mut().for_each(|it| {
            it.conntrack.remove(&client);
        });
    }

    /// No packet goes on for ever, wherever it came in.
    fn check_loops(&self) {
        for client in &self.clients {
            for entry in 0..self.cluster.machines.len() {
                for kind in [Kind::First, Kind::Other, Kind::IcmpError] {
                    let trace = self.cluster.send(entry, *client, kind);
                    assert!(trace.ended, "{client:?} {kind:?} {trace:?}");
                }
            }
        }
    }

    /// No packet ends where nobody knows it, while one lives that does. `clients` that nobody knows are as good as any.
    fn check_ends(&self) {
        let holder = self.cluster.holder();
        if !self.cluster.lives(holder) {
            return;
        }
        for client in &self.clients {
            let knowing = self.cluster.must_be_asked(*client);
            for kind in [Kind::Other, Kind::IcmpError] {
                let trace = self.cluster.send(holder, *client, kind);
                let is_known = self.cluster.machines[trace.end()].conntrack.contains(client);
                assert!(
                    is_known || knowing.is_empty(),
                    "{client:?} {kind:?} {trace:?}, known at {knowing:?}"
                );
            }
        }
    }
}

impl Run {
    /// The API server is away, and a node dies. Clients that had a connection there are told, and what others know goes on.
    fn check_without_api(&mut self, died: usize, heir: usize) {
        let cluster = &mut self.cluster;
        if died == heir
            || !cluster.lives(cluster.holder())
            || !cluster.is_in_touch(heir)
            || !cluster.is_in_touch(died)
        {
            return;
        }
        let known = cluster.machines[died].conntrack.iter().copied();
        let lost: Vec<Client> = known.filter(|it| cluster.has_served(died, *it)).collect();
        cluster.deaf = true;
        let entry = cluster.kill_unnoticed(died, heir);
        (0..2).for_each(|_| cluster.ask_again());
        for client in &self.clients {
            let knowing = cluster.must_be_asked(*client);
            let trace = cluster.send(entry, *client, Kind::Other);
            let is_known = cluster.machines[trace.end()].conntrack.contains(client);
            assert!(is_known || knowing.is_empty(), "{client:?} {trace:?}, known at {knowing:?}");
            let is_told = cluster.is_told(*client, &trace);
            assert!(is_told || !lost.contains(client), "{client:?} {trace:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn while_all_agree_no_packet_ends_where_nobody_knows_it(
        count in 2usize..=5,
        spread: bool,
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let mut run = Run::of(count, spread, true);
        for step in &steps {
            run.take(step);
            run.check_loops();
            run.check_ends();
        }
    }

    #[test]
    fn without_the_api_server_clients_of_a_dead_node_are_told(
        count in 2usize..=5,
        spread: bool,
        steps in prop::collection::vec(step(), 1..50),
        died in 0usize..5,
        heir in 0usize..5,
    ) {
        let mut run = Run::of(count, spread, true);
        steps.iter().for_each(|step| run.take(step));
        run.check_without_api(died % count, heir % count);
    }

    #[test]
    fn whatever_nodes_believe_no_packet_goes_round(
        count in 2usize..=5,
        spread: bool,
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let mut run = Run::of(count, spread, false);
        for step in &steps {
            run.take(step);
            run.check_loops();
        }
    }
}
