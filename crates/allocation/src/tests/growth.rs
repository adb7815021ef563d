//! What is gone leaves nothing in the index.

use arpeggio_api::address_pool::{AddressItem, AddressPoolSpec};

use super::*;

/// What the index still has of things that come and go. Every field is named: one that is new is to be thought of here.
fn remains(index: &Index) -> Vec<(&'static str, usize)> {
    let Index {
        services,
        locks,
        locked,
        formers,
        orphaned,
        pools,
        claiming,
        aside,
        dirty,
        suspects,
        leaving,
        waiting,
        askers,
        refused,
        dark,
        quarantined,
        strangers_dirty: _,
        turns,
        alarms,
        untold,
        lacking,
        parting_since,
        busy,
        setbacks,
        said,
        saying,
        written,
        left,
        rivals,
        outbox,
        // Of the surroundings, which are told as a whole.
        reserved: _,
        speakers: _,
        living: _,
        connections: _,
        not_spread: _,
        namespaces: _,
        ending_namespaces: _,
        // Of pools, and of who holds what of them.
        declarations: _,
        allocator: _,
        class: _,
        listed: _,
        metallb_namespace: _,
        locks_seen: _,
        pools_dirty: _,
        periods: _,
        now: _,
        // Tested where it stands.
        pace: _,
    } = index;
    let all = [
        ("services", services.len()),
        ("locks", locks.len()),
        ("locked", locked.len()),
        ("formers", formers.len()),
        ("orphaned", orphaned.len()),
        ("pools", pools.len()),
        ("claiming", claiming.len()),
        ("aside", aside.len()),
        ("dirty", dirty.len()),
        ("suspects", suspects.len()),
        ("leaving", leaving.len()),
        ("waiting", waiting.len()),
        ("askers", askers.len()),
        ("refused", refused.len()),
        ("dark", dark.len()),
        ("quarantined", quarantined.len()),
        ("alarms", alarms.len()),
        ("untold", untold.len()),
        ("lacking", lacking.len()),
        ("parting_since", parting_since.len()),
        ("busy", busy.len()),
        ("turns", turns.len()),
        ("setbacks", setbacks.len()),
        ("said", said.len()),
        ("saying", saying.len()),
        ("written", written.len()),
        ("left", left.len()),
        ("rivals", rivals.len()),
        ("outbox", outbox.len()),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

impl Lab {
    /// Lets a round of tasks be done, and what else happens happen before their reports are heard.
    pub(super) fn round(&mut self, meanwhile: impl FnOnce(&mut Cluster)) {
        self.controller.hear_all(&self.cluster);
        let tasks = self.controller.decide(&cluster::after(self.time));
        let reports: Vec<TaskReport> =
            tasks.into_iter().map(|task| self.cluster.perform_at_once(task)).collect();
        meanwhile(&mut self.cluster);
        self.controller.hear_all(&self.cluster);
        for report in reports {
            self.controller.index.finish(report, &cluster::after(self.time));
        }
    }

    fn write_pools(&mut self) {
        let now = cluster::after(self.time);
        for task in self.controller.index.decide_pools(&now) {
            let report = self.cluster.perform_at_once(task);
            self.controller.index.finish(report, &now);
        }
    }
}

/// A Service, and at which step of its life it is deleted while a request about it is under way.
fn live_until(lab: &mut Lab, name: &str, step: usize) {
    lab.cluster.create_service(name, &[]);
    for _ in 0..step {
        lab.round(|_| {});
    }
    lab.round(|cluster| cluster.delete_service(name));
    lab.settle();
}

#[test]
fn of_services_that_are_gone_nothing_is_left_whenever_they_went() {
    let mut lab = Lab::with_pools(&[HOME]);
    for step in 0..4 {
        live_until(&mut lab, &format!("web-{step}"), step);
    }
    for refused in ["create Lease", "services/status", "delete Lease"] {
        lab.cluster.refuses = Some(refused);
        for step in 0..4 {
            live_until(&mut lab, &format!("{refused}-{step}").replace([' ', '/'], "-"), step);
        }
        lab.cluster.refuses = None;
        lab.wait(Duration::from_mins(1));
    }
    // One more waits than there are addresses, and another program writes the status of the others.
    for name in ["a", "b", "c"] {
        lab.create(name);
    }
    for _ in 0..5 {
        lab.cluster.clear_status("a", "rival");
        lab.settle();
        lab.seconds(3);
    }
    lab.cluster.set_type("b", "ClusterIP");
    lab.settle();
    for name in ["a", "b", "c"] {
        lab.cluster.delete_service(name);
        lab.settle();
    }
    lab.cluster.delete_pool("home");
    lab.controller.index.take_outbox();
    lab.wait(Duration::from_mins(20));
    assert_eq!(remains(&lab.controller.index), []);
}

#[test]
fn of_pools_that_are_gone_nothing_is_left() {
    for listed_anew in [false, true] {
        let mut lab = Lab::with_pools(&[]);
        lab.cluster.refuses = Some("addresspools/status");
        for number in 0..9 {
            lab.cluster.set_pool(&format!("p{number}"), &["10.0.0.1"]);
            lab.settle();
            lab.write_pools();
            assert!(!lab.controller.index.setbacks.is_empty());
            lab.cluster.delete_pool(&format!("p{number}"));
            if listed_anew {
                Watched::<AddressPool>::reset(&mut lab.controller.index, Vec::new());
            }
            lab.settle();
        }
        lab.controller.index.take_outbox();
        lab.wait(Duration::from_mins(20));
        assert_eq!(remains(&lab.controller.index), []);
    }
}

#[test]
fn who_is_for_another_load_balancer_now_waits_no_more() {
    let mut lab = Lab::with_pools(&[]);
    lab.create("web");
    assert_eq!(lab.controller.index.refused().len(), 1);
    lab.cluster.set_class("web", Some("example.com/other"));
    lab.settle();
    assert_eq!(lab.controller.index.refused().len(), 0);
}

/// What rests, or is kept back because of a stranger, is part of what a pool cannot give at present.
#[test]
fn how_much_a_pool_can_give_is_said_anew_when_a_rest_ends() {
    let mut lab = Lab::with_pools(&[]);
    let addresses = vec![AddressItem("10.0.0.1-10.0.0.3".to_owned())];
    let spec =
        AddressPoolSpec { addresses, reuse_cool_down_seconds: 60, ..AddressPoolSpec::default() };
    lab.cluster.set_pool_spec("home", spec);
    lab.settle();
    let free = |lab: &mut Lab| {
        lab.write_pools();
        let status = lab.cluster.pools().next().unwrap().status.clone().unwrap();
        let usage = status.ipv4.unwrap();
        (usage.used, usage.free)
    };
    assert_eq!(free(&mut lab), (0, 3));
    lab.create("web");
    assert_eq!(free(&mut lab), (1, 2));
    lab.cluster.delete_service("web");
    lab.settle();
    assert_eq!(free(&mut lab), (0, 2), "it rests");
    lab.wait(Duration::from_mins(2));
    assert_eq!(free(&mut lab), (0, 3));
}
