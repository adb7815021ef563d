//! Histories, and what the index makes of them.

mod advice;
mod announcing;
mod bad_input;
mod cluster;
mod editions;
mod exchange;
mod formats;
mod growth;
mod moving_pools;
mod neighbours;
mod others;
mod patience;
mod quarantine;
mod refused;
mod remembered;
mod sharers;
mod simulation;
mod spread;
mod stability;
mod succession;
mod tenants;
mod unlisted;
mod versions;

use std::net::IpAddr;

use crate::news::News;
use arpeggio_api::{
    address_pool::{AddressItem, AddressPoolSpec},
    lock,
    service::{ADDRESS_ALLOCATED, ServiceRecord},
};
use k8s_openapi::api::coordination::v1::Lease;

use super::*;
use cluster::{Cluster, Controller};

/// One controller that is told of everything at once.
struct Lab {
    cluster: Cluster,
    controller: Controller,
    /// What users were told, in order.
    told: Vec<News>,
    /// The writes that were made, in order.
    writes: Vec<&'static str>,
    /// How much time has passed.
    time: Duration,
    /// How long things last for the controllers that are started from now on.
    periods: Periods,
}

impl Lab {
    fn with_pools(pools: &[(&str, &[&str])]) -> Self {
        let mut cluster = Cluster::default();
        for (name, addresses) in pools {
            cluster.set_pool(name, addresses);
        }
        let controller = Controller::started(&cluster);
        let mut lab = Self {
            cluster,
            controller,
            told: Vec::new(),
            writes: Vec::new(),
            time: Duration::ZERO,
            periods: cluster::PERIODS,
        };
        lab.settle();
        lab.writes.clear();
        lab
    }

    /// Lets everything happen until nothing does.
    fn settle(&mut self) {
        for _ in 0..300 {
            self.controller.hear_all(&self.cluster);
            let tasks = self.controller.decide(&cluster::after(self.time));
            if tasks.is_empty() {
                return;
            }
            tasks.into_iter().for_each(|task| self.perform(task));
        }
        panic!("never comes to rest: {:?}", &self.writes[self.writes.len() - 20..]);
    }

    /// Lets so many seconds pass, one after the other.
    fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.wait(Duration::from_secs(1));
        }
    }

    /// Brings the statuses of pools up to date.
    fn pool_statuses(&mut self) {
        for task in self.controller.index.decide_pools(&cluster::after(self.time)) {
            self.perform(task);
        }
        self.settle();
    }

    /// Has a task done. Users are told of what was done only.
    fn perform(&mut self, task: Task) {
        self.note(&task);
        let news = match &task.effect {
            Effect::WriteService(write) => write.news.clone(),
            _ => Vec::new(),
        };
        self.cluster.time = self.time;
        let report = self.cluster.perform_at_once(task);
        if report.result.is_ok() {
            self.told.extend(news);
        }
        self.controller.index.finish(report, &cluster::after(self.time));
    }

    /// How often this was written.
    fn count(&self, kind: &str) -> usize {
        self.writes.iter().filter(|it| **it == kind).count()
    }

    fn note(&mut self, task: &Task) {
        self.writes.push(match &task.effect {
            Effect::Claim(..) => "claim",
            Effect::Join(_) => "join",
            Effect::Amend(_) => "amend",
            Effect::Release(_) => "release",
            Effect::WriteService(_) => "service",
            Effect::WritePool(_) => "pool",
            Effect::WriteRecord(_) => "record",
        });
    }

    fn wait(&mut self, time: Duration) {
        self.time += time;
        self.settle();
    }

    fn restart(&mut self) {
        self.controller = Controller::restarted(Index::new(None, self.periods), &self.cluster);
        self.writes.clear();
        self.settle();
    }

    fn create(&mut self, name: &str) {
        self.cluster.create_service(name, &[]);
        self.settle();
    }

    fn record(&self, name: &str) -> ServiceRecord {
        ServiceRecord::parse(self.cluster.service(name), None)
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        self.record(name).ingress.addresses.iter().map(IpAddr::to_string).collect()
    }

    fn says(&self, name: &str) -> String {
        self.record(name)
            .condition(ADDRESS_ALLOCATED)
            .map(|it| format!("{}: {}", it.status, it.message))
            .unwrap()
    }

    fn locks(&self) -> Vec<String> {
        self.cluster.leases().map(|lease| lease.metadata.name.clone().unwrap()).collect()
    }

    /// The names of the Services on the lock of `address`.
    fn sharers(&self, address: &str) -> Vec<String> {
        let name = lock::name(address.parse().unwrap());
        let lease = self.cluster.leases().find(|it| it.metadata.name.as_ref() == Some(&name));
        let services = lock::parse(lease.unwrap()).unwrap().claim.services;
        services.into_iter().map(|service| service.name).collect()
    }

    fn last_note(&self) -> &str {
        &self.told.last().unwrap().note
    }
}

const HOME: (&str, &[&str]) = ("home", &["10.0.0.1-10.0.0.2"]);

#[test]
fn an_allocation_costs_two_writes_and_rest_costs_none() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.says("web"), "True: 10.0.0.1 assigned");
    assert_eq!(lab.last_note(), "Assigned 10.0.0.1 from pool home");
    assert_eq!(lab.locks(), ["address-10.0.0.1"]);
    assert_eq!(lab.writes, ["claim", "service"]);
    lab.restart();
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn nothing_is_decided_before_everything_was_listed() {
    let mut cluster = Cluster::default();
    cluster.set_pool(HOME.0, HOME.1);
    let web = cluster.create_service("web", &[]);
    let mut index = Index::default();
    Watched::<AddressPool>::reset(&mut index, cluster.pools().cloned().collect());
    index.reset(vec![web]);
    assert!(index.decide(&cluster::now()).is_empty());
    Watched::<Lease>::reset(&mut index, Vec::new());
    index.set_namespaces([("default".to_owned(), Labels::new())].into());
    assert_eq!(index.decide(&cluster::now()).len(), 1);
}

#[test]
fn who_waits_is_told_why_once_and_served_when_there_is_an_address() {
    let mut lab = Lab::with_pools(&[HOME]);
    for name in ["a", "b", "c"] {
        lab.create(name);
    }
    assert_eq!(lab.addresses("c"), [""; 0]);
    assert!(lab.says("c").starts_with("False: no pool has an IPv4 address to give"));
    let told = lab.told.len();
    lab.restart();
    assert_eq!((lab.told.len(), lab.writes.len()), (told, 0));

    lab.cluster.delete_service("a");
    lab.settle();
    assert_eq!(lab.addresses("c"), ["10.0.0.1"]);
    assert_eq!(lab.writes, ["release", "claim", "service"]);
}

#[test]
fn a_pool_that_appears_serves_who_asked_for_it() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[("arpeggio.dev/address-pool", "extern")]);
    lab.settle();
    assert_eq!(
        lab.last_note(),
        "no IPv4 address to give: pool \"extern\": it does not exist: create it, or name \
         another one in arpeggio.dev/address-pool"
    );
    lab.cluster.set_pool("extern", &["10.1.0.1"]);
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.1.0.1"]);
}

#[test]
fn what_a_service_has_it_keeps_when_pools_go_and_annotations_change() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_pool("home");
    lab.cluster.annotate("web", "arpeggio.dev/address-pool", "elsewhere");
    lab.settle();
    lab.restart();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.writes, [""; 0]);

    lab.cluster.delete_lease("address-10.0.0.1");
    lab.settle();
    assert_eq!(lab.locks(), ["address-10.0.0.1"], "a lost lock is made again");
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_gives_its_address_back() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.set_type("web", "ClusterIP");
    lab.settle();
    assert_eq!((lab.addresses("web"), lab.locks()), (vec![], vec![]));
    assert_eq!(lab.record("web").conditions, []);
    assert_eq!(lab.writes, ["claim", "service", "service", "release"]);
    assert_eq!(lab.told.last().unwrap().reason, "ClearAssignment");
}

#[test]
fn a_service_that_waited_and_is_no_load_balancer_any_more_is_not_accused_for_ever() {
    let mut lab = Lab::with_pools(&[]);
    lab.create("web");
    assert_eq!(
        lab.says("web"),
        "False: there are no pools: create one, or have MetalLB's read (manifests/components/metallb)"
    );
    lab.cluster.set_type("web", "ClusterIP");
    lab.settle();
    assert_eq!(lab.record("web").conditions, []);
    assert_eq!(lab.told.len(), 1);
}

#[test]
fn load_balancers_of_another_class_are_left_alone() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_lease("address-10.0.0.1");
    let index = Index::new(Some("other".to_owned()), cluster::PERIODS);
    lab.controller = Controller::restarted(index, &lab.cluster);
    lab.writes.clear();
    lab.settle();
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
    assert_eq!(lab.writes, [""; 0]);
}

#[test]
fn releases_that_nobody_saw_are_made_up_for_at_the_start() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.create("web");
    lab.cluster.delete_service("web");
    lab.restart();
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn who_has_an_address_comes_before_who_wants_one() {
    let mut lab = Lab::with_pools(&[HOME]);
    // As another load balancer left it: no lock, no condition.
    lab.cluster.create_service("z", &[]);
    lab.cluster.set_ingress("z", "10.0.0.1", "metallb");
    lab.cluster.create_service("a", &[]);
    lab.restart();
    assert_eq!(lab.addresses("z"), ["10.0.0.1"]);
    assert_eq!(lab.addresses("a"), ["10.0.0.2"]);
}

#[test]
fn a_status_that_somebody_else_wrote_stays_untouched() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    lab.cluster.set_ingress("web", "203.0.113.9", "cloud");
    lab.settle();
    assert_eq!(lab.addresses("web"), ["203.0.113.9"]);
    assert!(lab.says("web").starts_with("False: status.loadBalancer was written by cloud"));
    assert_eq!(lab.locks(), [""; 0]);
}

#[test]
fn a_lock_of_somebody_else_means_another_address() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_foreign_lease(&lock::name("10.0.0.1".parse().unwrap()));
    lab.create("web");
    assert_eq!(lab.addresses("web"), ["10.0.0.2"]);
    assert_eq!(lab.locks(), ["address-10.0.0.1", "address-10.0.0.2"]);
}

#[test]
fn an_address_behind_a_lease_of_somebody_else_is_tried_again_when_that_may_be_gone() {
    let mut lab = Lab::with_pools(&[("home", &["10.0.0.1"])]);
    let name = lock::name("10.0.0.1".parse().unwrap());
    lab.cluster.create_foreign_lease(&name);
    lab.create("web");
    lab.wait(Duration::from_mins(2));
    assert_eq!(lab.addresses("web"), [""; 0]);
    lab.cluster.remove_silently(&name);
    lab.wait(Duration::from_mins(1));
    assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn who_asks_for_an_address_behind_a_lease_of_somebody_else_reads_which_lease_it_is() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_foreign_lease("address-10.0.0.1");
    for name in ["web", "other"] {
        lab.cluster.create_service(name, &[("arpeggio.dev/addresses", "10.0.0.1")]);
    }
    lab.settle();
    for name in ["web", "other"] {
        let said = lab.says(name);
        assert!(said.contains("Lease address-10.0.0.1") && said.contains("delete it"), "{said}");
        assert!(!said.contains("Service of"), "{said}");
    }
    lab.writes.clear();
    lab.told.clear();
    lab.seconds(300);
    assert_eq!((lab.count("service"), lab.told.len()), (0, 0), "{:?}", lab.told);
    assert!(lab.count("claim") > 2, "it is tried again");
    let service = arpeggio_api::service::reference(lab.cluster.service("web"));
    let index = std::mem::take(&mut lab.controller.index);
    let advice = index.advice(&service, &cluster::after(lab.time));
    let said = lab.record("web").condition(ADDRESS_ALLOCATED).unwrap().message.clone();
    assert_eq!(advice, [Advice::Waits(said)]);
}

#[test]
fn a_lock_that_has_lost_its_label_gets_it_back() {
    for restarted in [false, true] {
        let mut lab = Lab::with_pools(&[HOME]);
        lab.create("web");
        lab.cluster.unlabel_lease("address-10.0.0.1");
        if restarted {
            lab.restart();
        }
        lab.settle();
        assert_eq!(lab.addresses("web"), ["10.0.0.1"]);
        let lease = lab.cluster.leases().next().unwrap();
        assert!(lease.metadata.labels.is_some(), "{lease:?}");
        lab.restart();
        assert_eq!(lab.writes, [""; 0]);
    }
}

#[test]
fn a_lock_without_services_that_has_lost_its_label_is_dealt_with_like_any_other() {
    let rest = Duration::from_mins(5);
    let marks: [fn(&mut Lab); 2] = [
        |lab| lab.cluster.delete_service("web"),
        |lab| {
            lab.cluster.find_stranger("10.0.0.1", [2, 0, 0, 0, 0, 9]);
            lab.settle();
            lab.cluster.delete_service("web");
        },
    ];
    for (case, mark) in marks.into_iter().enumerate() {
        for restarted in [false, true] {
            let mut lab = Lab::with_pools(&[]);
            lab.cluster.set_pool_spec(
                "home",
                AddressPoolSpec {
                    addresses: vec![AddressItem("10.0.0.1".to_owned())],
                    reuse_cool_down_seconds: 300,
                    ..AddressPoolSpec::default()
                },
            );
            lab.create("web");
            mark(&mut lab);
            lab.settle();
            lab.cluster.unlabel_lease("address-10.0.0.1");
            if restarted {
                lab.restart();
            }
            lab.settle();
            lab.create("next");
            assert_eq!(lab.addresses("next"), [""; 0], "case {case}, restarted: {restarted}");
            lab.wait(rest + cluster::QUARANTINE + Duration::from_secs(61));
            lab.wait(Duration::from_mins(2));
            assert_eq!(lab.addresses("next"), ["10.0.0.1"], "case {case}, restarted: {restarted}");
        }
    }
}

#[test]
fn both_families_are_refused_rather_than_half_given() {
    let mut lab = Lab::with_pools(&[HOME]);
    lab.cluster.create_service("web", &[]);
    lab.cluster.require_dual_stack("web");
    lab.settle();
    assert!(lab.says("web").starts_with("False: spec.ipFamilyPolicy is RequireDualStack"));
}

#[test]
fn a_follower_collects_nothing_of_what_is_gone() {
    let mut cluster = Cluster::default();
    cluster.set_pool(HOME.0, HOME.1);
    let mut follower = Controller::started(&cluster);
    let mut leader = Controller::started(&cluster);
    for number in 0..500 {
        let name = format!("web-{number}");
        cluster.create_service(&name, &[]);
        for deleted in [false, true] {
            if deleted {
                cluster.delete_service(&name);
            }
            leader.hear_all(&cluster);
            for task in leader.decide(&cluster::now()) {
                let report = cluster.perform_at_once(task);
                leader.index.finish(report, &cluster::now());
            }
        }
    }
    follower.hear_all(&cluster);
    let Index { dirty, written, left, alarms, .. } = &follower.index;
    let all = dirty.len() + written.len() + left.len() + alarms.len();
    assert!(all < 5, "{dirty:?} {written:?} {left:?} {alarms:?}");
}

#[test]
fn pools_report_their_state_once() {
    let mut lab = Lab::with_pools(&[HOME, ("late", &["10.0.0.2-10.0.0.9"])]);
    lab.create("web");
    let mut pool_writes = || {
        let tasks = lab.controller.index.decide_pools(&cluster::now());
        let names = tasks.iter().map(|task| format!("{:?}", task.subject)).collect::<Vec<_>>();
        for task in tasks {
            let report = lab.cluster.perform_at_once(task);
            lab.controller.index.finish(report, &cluster::now());
        }
        names
    };
    assert_eq!(pool_writes(), [r#"Pool("home")"#, r#"Pool("late")"#]);
    assert_eq!(pool_writes(), [""; 0]);
    let written = lab.cluster.pools().map(|pool| pool.status.clone().unwrap());
    let states: Vec<_> =
        written.map(|it| (it.ipv4.unwrap(), it.conditions[0].reason.clone())).collect();
    assert_eq!((states[0].0.used, states[0].0.free, states[0].1.as_str()), (1, 1, "Valid"));
    assert_eq!((states[1].0.used, states[1].0.free, states[1].1.as_str()), (0, 0, "Overlapping"));
}
