//! Two controllers at once, with any delay anywhere, dying at any moment.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::{lock, service::ServiceRecord};
use proptest::prelude::*;

use super::cluster::{Cluster, Controller, Watch};
use crate::effect::{Effect, Observed, Release, Report, Subject, Task};

/// Fewer addresses than Services, so that they contend.
const POOL: &str = "10.0.0.1-10.0.0.3";
const SERVICES: u8 = 5;
const CONTROLLERS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// The user creates the Service, or deletes it when it exists.
    Toggle(u8),
    /// The user makes the Service a load balancer, or none.
    Retype(u8, bool),
    /// A controller hears of one more change.
    Hear(usize, Watch),
    /// A controller decides.
    Decide(usize),
    /// One of the requests that are under way reaches the API server.
    Perform(usize),
    /// One of the answers that are under way reaches its controller.
    Answer(usize),
    /// A controller dies and is started again. Its requests may still arrive.
    Restart(usize),
}

/// A request under way. `from` is the life of the controller that sent it: no later one gets the answer.
struct Sent {
    from: (usize, u32),
    subject: Subject,
    request: Request,
}

enum Request {
    Task(Effect),
    /// A release that has read the Service and found that it may go on.
    Delete(Release),
}

struct World {
    cluster: Cluster,
    controllers: Vec<Controller>,
    lives: Vec<u32>,
    requests: Vec<Sent>,
    answers: Vec<((usize, u32), Report)>,
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::default();
        cluster.set_pool("home", &[POOL]);
        let controllers = (0..CONTROLLERS).map(|_| Controller::started(&cluster)).collect();
        let lives = vec![0; CONTROLLERS];
        Self { cluster, controllers, lives, requests: Vec::new(), answers: Vec::new() }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Toggle(number) => self.toggle(&name(*number)),
            Step::Retype(number, balancer) => self.retype(&name(*number), *balancer),
            Step::Hear(which, watch) => {
                self.controllers[*which].hear(*watch, &self.cluster);
            }
            Step::Decide(which) => self.decide(*which),
            Step::Perform(which) => self.perform(*which),
            Step::Answer(which) => self.answer(*which),
            Step::Restart(which) => {
                self.lives[*which] += 1;
                self.controllers[*which] = Controller::started(&self.cluster);
            }
        }
    }

    fn toggle(&mut self, name: &str) {
        if self.cluster.has_service(name) {
            self.cluster.delete_service(name);
        } else {
            self.cluster.create_service(name, &[]);
        }
    }

    fn retype(&mut self, name: &str, balancer: bool) {
        if self.cluster.has_service(name) {
            self.cluster.set_type(name, if balancer { "LoadBalancer" } else { "ClusterIP" });
        }
    }

    fn decide(&mut self, which: usize) {
        let from = (which, self.lives[which]);
        for Task { subject, effect, .. } in self.controllers[which].decide() {
            self.requests.push(Sent { from, subject, request: Request::Task(effect) });
        }
    }

    fn perform(&mut self, which: usize) {
        if self.requests.is_empty() {
            return;
        }
        let Sent { from, subject, request } = self.requests.remove(which % self.requests.len());
        let result = match request {
            Request::Delete(release) => Ok(self.cluster.finish_release(&release)),
            Request::Task(Effect::Release(release)) => {
                let Some(service) = self.cluster.needing(&release) else {
                    self.requests.push(Sent { from, subject, request: Request::Delete(release) });
                    return;
                };
                Ok(Observed::Needed(Box::new(service)))
            }
            Request::Task(effect) => self.cluster.perform(&effect),
        };
        self.answers.push((from, Report { subject, result }));
    }

    fn answer(&mut self, which: usize) {
        if self.answers.is_empty() {
            return;
        }
        let ((controller, life), report) = self.answers.remove(which % self.answers.len());
        if self.lives[controller] == life {
            self.controllers[controller].index.finish(report);
        }
    }

    /// Lets all that is under way arrive, until nothing happens any more.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..200 {
            for which in 0..CONTROLLERS {
                self.controllers[which].hear_all(&self.cluster);
                self.decide(which);
            }
            if self.requests.is_empty() && self.answers.is_empty() {
                return Ok(());
            }
            while !self.requests.is_empty() {
                self.perform(0);
                self.check_no_address_twice()?;
            }
            while !self.answers.is_empty() {
                self.answer(0);
            }
        }
        Err(TestCaseError::fail("never comes to rest"))
    }

    fn records(&self) -> Vec<ServiceRecord> {
        self.cluster.services().map(|service| ServiceRecord::parse(service, None)).collect()
    }

    /// What must hold at every moment.
    fn check_no_address_twice(&self) -> Result<(), TestCaseError> {
        let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
        for record in self.records() {
            for address in &record.ingress.addresses {
                let other = holders.insert(*address, record.path());
                prop_assert_eq!(other, None, "{} is also that of {}", address, record.path());
            }
        }
        Ok(())
    }

    /// What must hold at rest: a lock for each address in use and no others, and nobody waits in vain.
    fn check_rest(&self) -> Result<(), TestCaseError> {
        let mut claimed: BTreeMap<IpAddr, String> = BTreeMap::new();
        for lease in self.cluster.leases() {
            let claim = lock::parse(lease).unwrap().claim;
            claimed.insert(claim.address, claim.services[0].uid.clone());
        }
        let mut given = BTreeMap::new();
        let mut waiting = 0;
        for record in self.records() {
            waiting += usize::from(record.request.is_some() && record.ingress.is_empty());
            prop_assert!(record.request.is_some() || record.ingress.is_empty());
            for address in &record.ingress.addresses {
                given.insert(*address, record.service.uid.clone());
            }
        }
        prop_assert_eq!(&given, &claimed);
        prop_assert!(waiting == 0 || given.len() == 3, "{} wait while an address is free", waiting);
        Ok(())
    }
}

fn name(number: u8) -> String {
    format!("s{number}")
}

fn step() -> impl Strategy<Value = Step> {
    let controller = || 0..CONTROLLERS;
    let watch = prop::sample::select(Watch::ALL.to_vec());
    prop_oneof![
        3 => (0..SERVICES).prop_map(Step::Toggle),
        2 => (0..SERVICES, any::<bool>()).prop_map(|(number, on)| Step::Retype(number, on)),
        12 => (controller(), watch).prop_map(|(which, watch)| Step::Hear(which, watch)),
        8 => controller().prop_map(Step::Decide),
        10 => (0..8usize).prop_map(Step::Perform),
        8 => (0..8usize).prop_map(Step::Answer),
        1 => controller().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_given_twice_and_all_comes_to_rest(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check_no_address_twice()?;
        }
        world.settle()?;
        world.check_rest()?;
    }
}
