//! Two controllers at once, with any delay anywhere, dying at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::{
    address_pool::{
        AddressItem, AddressPool, AddressPoolSpec, AnnounceRule, InterfacePattern, Spread,
    },
    lock::{self, LockRecord},
    service::{ADDRESS_ALLOCATED, ServiceRecord},
    session,
};
use arpeggio_ipam::{Allocator, Grace, Held, Owner, Reservation, SharingTerms};
use proptest::prelude::*;

use super::{
    super::known_lock::owner_of,
    cluster::{self, Cluster, Controller, Watch},
    editions::Edition,
};
use crate::effect::{Effect, Observed, Release, Subject, Task, TaskReport};
use crate::{Index, Periods};

/// What the pool may be. Each has fewer addresses than there are Services, so that they contend.
const POOLS: [&str; 3] = ["10.0.0.1-10.0.0.3", "10.0.0.1-10.0.0.2", "10.0.0.3-10.0.0.4"];
/// What it cannot be.
const BROKEN: &str = "10.0.0.4-10.0.0.1";
/// What the API server may refuse.
const REFUSED: [&str; 4] = ["create Lease", "patch Lease", "services/status", "delete Lease"];
pub(super) const SERVICES: u8 = 6;
pub(super) const CONTROLLERS: usize = 2;
/// For so many rounds both decide when all is to come to rest.
const BOTH_DECIDE: usize = 60;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The user creates the Service, or deletes it when it exists.
    Toggle(u8),
    /// The user makes the Service a load balancer, or none.
    Retype(u8, bool),
    /// The user requests this address, or any.
    Request(u8, Option<u8>),
    /// The user edits the pool, or removes it.
    Edit(Option<usize>),
    /// The user makes a mistake in it.
    Break,
    /// So many minutes pass.
    Wait(u64),
    /// A speaker finds a stranger at this address, or announces it.
    Speak(u8, bool),
    /// Another program empties the status of the Service.
    Rob(u8),
    /// The API server refuses requests with these words from now on, or none.
    Refuse(Option<&'static str>),
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
    edition: Edition,
    subject: Subject,
    request: Request,
}

enum Request {
    Task(Effect),
    /// A release that has read the Service and found that it may go on.
    Delete(Release),
}

pub(super) struct World {
    pub(super) cluster: Cluster,
    controllers: Vec<Controller>,
    /// Of which releases they are.
    pub(super) editions: [Edition; CONTROLLERS],
    lives: Vec<u32>,
    requests: Vec<Sent>,
    answers: Vec<((usize, u32), TaskReport)>,
    pub(super) time: Duration,
    periods: Periods,
    /// How many requests have changed something.
    pub(super) writes: u64,
    /// What controllers have done to Leases that they do not understand.
    pub(super) trespasses: Vec<String>,
}

impl World {
    /// One in which Services have no time to come back.
    fn new() -> Self {
        Self::with(cluster::PERIODS)
    }

    fn with(periods: Periods) -> Self {
        let mut world = Self::of(Default::default(), periods);
        world.settle().unwrap();
        world
    }

    /// One with controllers of these releases, which have done nothing yet.
    pub(super) fn of(editions: [Edition; CONTROLLERS], periods: Periods) -> Self {
        let mut cluster = Cluster::default();
        cluster.set_pool("home", &POOLS[..1]);
        let controllers = editions.iter().map(|it| started(*it, periods, &cluster)).collect();
        let lives = vec![0; CONTROLLERS];
        let (requests, answers, trespasses) = (Vec::new(), Vec::new(), Vec::new());
        let (time, writes) = (Duration::ZERO, 0);
        Self {
            cluster,
            controllers,
            editions,
            lives,
            requests,
            answers,
            time,
            periods,
            writes,
            trespasses,
        }
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Toggle(number) => self.toggle(*number),
            Step::Request(number, address) => self.request(&name(*number), *address),
            Step::Edit(Some(which)) => self.edit(*which),
            Step::Break => self.cluster.set_pool("home", &[BROKEN]),
            Step::Edit(None) => self.cluster.delete_pool("home"),
            Step::Wait(minutes) => self.time += Duration::from_mins(*minutes),
            Step::Retype(number, balancer) => self.retype(&name(*number), *balancer),
            Step::Speak(last, true) => {
                self.cluster.find_stranger(&format!("10.0.0.{last}"), [2, 0, 0, 0, 0, *last]);
            }
            Step::Speak(last, false) => {
                let now = cluster::after(self.time);
                self.cluster.take_lock_at(&format!("10.0.0.{last}"), &now);
            }
            Step::Rob(number) => self.rob(&name(*number)),
            Step::Refuse(words) => self.cluster.refuses = *words,
            Step::Hear(which, watch) => {
                self.controllers[*which].hear(*watch, &self.cluster);
            }
            Step::Decide(which) => self.decide(*which),
            Step::Perform(which) => self.perform(*which),
            Step::Answer(which) => self.answer(*which),
            Step::Restart(which) => {
                self.lives[*which] += 1;
                let edition = self.editions[*which];
                self.controllers[*which] = started(edition, self.periods, &self.cluster);
            }
        }
    }

    /// Half of the Services would share, and half of these listen on the same port.
    fn toggle(&mut self, number: u8) {
        let name = name(number);
        if self.cluster.has_service(&name) {
            self.cluster.delete_service(&name);
            return;
        }
        let key = [("arpeggio.dev/sharing-key", "k")];
        let annotations: &[_] = if number.is_multiple_of(2) { &[] } else { &key };
        self.cluster.create_service_on(&name, annotations, 80 + i32::from(number / 4));
    }

    fn rob(&mut self, name: &str) {
        if self.cluster.has_service(name) {
            self.cluster.clear_status(name, "rival");
        }
    }

    fn request(&mut self, name: &str, address: Option<u8>) {
        if self.cluster.has_service(name) {
            let address = address.map(|last| format!("10.0.0.{last}")).unwrap_or_default();
            self.cluster.annotate(name, "arpeggio.dev/addresses", &address);
        }
    }

    /// With a rest of five minutes for addresses that are given back, and each time announced on another interface; spread
    /// every other time.
    fn edit(&mut self, which: usize) {
        let interfaces = vec![InterfacePattern(format!("eth{which}"))];
        let spread = if which.is_multiple_of(2) { Spread::None } else { Spread::Nodes };
        let spec = AddressPoolSpec {
            addresses: vec![AddressItem(POOLS[which].to_owned())],
            announce: vec![AnnounceRule { interfaces, spread, ..AnnounceRule::default() }],
            reuse_cool_down_seconds: 300,
            ..AddressPoolSpec::default()
        };
        self.cluster.set_pool_spec("home", spec);
    }

    fn retype(&mut self, name: &str, balancer: bool) {
        if self.cluster.has_service(name) {
            self.cluster.set_type(name, if balancer { "LoadBalancer" } else { "ClusterIP" });
        }
    }

    fn decide(&mut self, which: usize) {
        let (from, edition) = ((which, self.lives[which]), self.editions[which]);
        let now = cluster::after(self.time);
        for Task { subject, effect, .. } in self.controllers[which].decide(&now) {
            self.requests.push(Sent { from, edition, subject, request: Request::Task(effect) });
        }
    }

    fn perform(&mut self, which: usize) {
        if self.requests.is_empty() {
            return;
        }
        let sent = self.requests.remove(which % self.requests.len());
        let edition = sent.edition;
        let protected = self.cluster.all_leases().filter(|it| edition.is_older_than(it));
        let protected: Vec<_> = protected.cloned().collect();
        let before = self.cluster.version();
        self.cluster.asks = edition;
        let words = self.perform_sent(sent);
        self.writes += u64::from(self.cluster.version() > before);
        for lease in protected {
            if !self.cluster.all_leases().any(|it| *it == lease) {
                self.trespasses.push(format!("{edition:?}: {words}: {:?}", lease.metadata.name));
            }
        }
    }

    fn perform_sent(&mut self, sent: Sent) -> String {
        let Sent { from, edition, subject, request } = sent;
        let words = format!("{subject}");
        self.cluster.time = self.time;
        let result = match request {
            Request::Delete(release) => self.cluster.finish_refusable(&release),
            Request::Task(Effect::Release(release)) => {
                let Some(service) = self.cluster.needing(&release) else {
                    let request = Request::Delete(release);
                    self.requests.push(Sent { from, edition, subject, request });
                    return words;
                };
                Ok(Observed::Needed(Box::new(service)))
            }
            Request::Task(effect) => self.cluster.perform(&effect),
        };
        self.answers.push((from, TaskReport { subject, result }));
        words
    }

    fn answer(&mut self, which: usize) {
        if self.answers.is_empty() {
            return;
        }
        let ((controller, life), report) = self.answers.remove(which % self.answers.len());
        if self.lives[controller] == life {
            self.controllers[controller].finish(report, &cluster::after(self.time));
        }
    }

    /// The answer to a request that was performed is lost on its way.
    pub(super) fn lose(&mut self, which: usize) {
        if self.answers.is_empty() {
            return;
        }
        let which = which % self.answers.len();
        self.answers[which].1.result = Err(cluster::unanswered("do it", None));
        self.answer(which);
    }

    /// What is about to be done, and what is waited for.
    fn unrest(&mut self) -> String {
        let mut requests = Vec::new();
        for _ in 0..2 {
            self.controllers[0].hear_all(&self.cluster);
            self.decide(0);
            let shown = |sent: &Sent| match &sent.request {
                Request::Task(effect) => format!("{} {} {effect:?}", sent.from.0, sent.subject),
                Request::Delete(release) => format!("{} {release:?}", sent.from.0),
            };
            requests.extend(self.requests.iter().map(shown));
            while !self.requests.is_empty() {
                self.perform(0);
            }
            while !self.answers.is_empty() {
                self.answer(0);
            }
        }
        let alarms: Vec<_> = self.controllers.iter().map(|it| it.index.next_alarm()).collect();
        format!("at {:?}, alarms {alarms:?}, requests {requests:#?}", self.time)
    }

    /// Lets all that is under way arrive, and all that is waited for happen, until nothing does any more. Both controllers
    /// decide for a while. Then only one does: two remember different things of the past, and would correct each other.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.come_to_rest(|round, which| round < BOTH_DECIDE || which == 0)
    }

    /// The same, where one controller leads.
    pub(super) fn settle_under(&mut self, leader: usize) -> Result<(), TestCaseError> {
        self.come_to_rest(|_, which| which == leader)
    }

    fn come_to_rest(
        &mut self,
        decides: impl Fn(usize, usize) -> bool,
    ) -> Result<(), TestCaseError> {
        self.cluster.refuses = None;
        for round in 0..300 {
            for which in 0..CONTROLLERS {
                self.controllers[which].hear_all(&self.cluster);
                if decides(round, which) {
                    self.decide(which);
                }
            }
            if self.requests.is_empty() && self.answers.is_empty() {
                let deciding = self.controllers.iter().enumerate();
                let deciding = deciding.filter(|(which, _)| decides(round, *which));
                let alarms = deciding.filter_map(|(_, it)| it.index.next_alarm());
                let Some(next) = alarms.min().cloned() else { return Ok(()) };
                self.time = Duration::from_nanos(u64::try_from(next.0.as_nanosecond()).unwrap());
            }
            while !self.requests.is_empty() {
                self.perform(0);
                self.check_no_address_twice()?;
            }
            while !self.answers.is_empty() {
                self.answer(0);
            }
        }
        Err(TestCaseError::fail(format!("never comes to rest: {}", self.unrest())))
    }

    /// The locks, as somebody reads them who knows all formats.
    fn locks(&self) -> impl Iterator<Item = LockRecord> {
        self.cluster.leases().map(|lease| lock::parse(&Edition::After.reads(lease)).unwrap())
    }

    /// Whether there are Leases that only the release after this one understands.
    pub(super) fn has_newer(&self) -> bool {
        self.cluster.all_leases().any(|lease| Edition::of(lease) == Edition::After)
    }

    /// How many Services lack an address that they ask for by name. What they were told of whoever is in the way was right when
    /// it was written; it is not written again when somebody else is, and whoever leads next does not know that.
    pub(super) fn waiting_for_one_address(&self) -> u64 {
        let lacks = |record: &ServiceRecord| match &record.request {
            Some(Ok(request)) => {
                request.addresses.iter().any(|it| !record.ingress.addresses.contains(it))
            }
            _ => false,
        };
        self.records().iter().filter(|it| lacks(it)).count() as u64
    }

    fn records(&self) -> Vec<ServiceRecord> {
        self.cluster.services().map(|service| ServiceRecord::parse(service, None)).collect()
    }

    /// What must hold at every moment: an address has one Service, or several that share it.
    pub(super) fn check_no_address_twice(&self) -> Result<(), TestCaseError> {
        recall_statuses(&mut Allocator::default(), &self.records())
    }

    /// What is in a status was claimed, and was not given back. An owner is a name: who has not heard yet that a Service was
    /// created again may have written the lock for the one before.
    pub(super) fn check_every_address_has_a_lock(&self) -> Result<(), TestCaseError> {
        let claims: Vec<_> =
            self.cluster.leases().map(|lease| lock::parse(lease).unwrap().claim).collect();
        for record in self.records() {
            for address in &record.ingress.addresses {
                let claimed = claims.iter().any(|it| {
                    it.address == *address
                        && it.services.iter().any(|service| service.path() == record.path())
                });
                let path = record.path();
                prop_assert!(claimed, "{address} is in the status of {path} without a lock");
            }
        }
        Ok(())
    }

    /// What must hold at rest: each lock names those who have its address and nobody else, nobody waits in vain, and
    /// nobody has what they should not.
    pub(super) fn check_rest(&self) -> Result<(), TestCaseError> {
        let claims = self.locks().map(|lock| lock.claim);
        let claimed: BTreeSet<_> = claims
            .flat_map(|claim| claim.services.into_iter().map(move |it| (claim.address, it.uid)))
            .collect();
        let mut allocator = Allocator::default();
        allocator.set_pools(self.cluster.pools().map(AddressPool::to_pool));
        let mut given = BTreeSet::new();
        for record in self.records() {
            prop_assert!(record.request.is_some() || record.ingress.is_empty());
            for address in &record.ingress.addresses {
                given.insert((*address, record.service.uid.clone()));
            }
        }
        recall_statuses(&mut allocator, &self.records())?;
        prop_assert_eq!(&given, &claimed);
        for lock in self.locks().map(|lock| lock.lock) {
            if let (Some(stranger), None) = (lock.stranger, lock.holder) {
                let reason = Reservation::Quarantined(session::mac_text(stranger));
                allocator.reserve(lock.address, reason);
            }
        }
        if self.cluster.pools().any(|pool| pool.to_pool().is_err()) {
            // What it said before is known to those who have seen it, or who were left it.
            return Ok(());
        }
        for record in self.records() {
            check_plan(&allocator, &record)?;
        }
        self.check_terms()
    }

    /// Each lock says what its pool says, if there is one.
    fn check_terms(&self) -> Result<(), TestCaseError> {
        for pool in self.cluster.pools() {
            let mut rules = pool.spec.announce.clone();
            let spread = rules.iter().any(|rule| rule.spread == Spread::Nodes);
            rules.iter_mut().for_each(|rule| rule.spread = Spread::None);
            let rules = (!rules.is_empty()).then_some(rules);
            let ranges = pool.to_pool().unwrap().ranges;
            let claims = self.locks().map(|lock| lock.claim);
            for claim in claims.filter(|it| ranges.iter().any(|range| range.contains(it.address))) {
                prop_assert_eq!(claim.terms.rules, rules.clone(), "at {}", claim.address);
                prop_assert_eq!(claim.spread, spread, "at {}", claim.address);
            }
        }
        Ok(())
    }
}

/// Nothing remains to be done for this Service.
fn check_plan(allocator: &Allocator, record: &ServiceRecord) -> Result<(), TestCaseError> {
    let Some(Ok(request)) = &record.request else { return Ok(()) };
    let held = record.ingress.addresses.iter().map(|it| Held { address: *it, origin: None });
    let owner = owner_of(&record.service);
    let plan = allocator.plan(&owner, request, &held.collect::<Vec<_>>(), Grace::Lasts);
    prop_assert_eq!(&plan.add, &[], "{} waits in vain", record.path());
    prop_assert_eq!(&plan.leaving, &[], "{} should lose something", record.path());
    prop_assert_eq!(&plan.expiring, &[], "{} has had its time", record.path());
    let allocated = record.condition(ADDRESS_ALLOCATED).map(|it| it.status == "True");
    prop_assert_eq!(allocated, Some(plan.refusal.is_none()), "{} is told", record.path());
    Ok(())
}

/// Records who has which address by these, of whom none is to leave it to another one.
fn recall_statuses(
    allocator: &mut Allocator,
    records: &[ServiceRecord],
) -> Result<(), TestCaseError> {
    let mut holders: BTreeMap<IpAddr, Vec<(Owner, SharingTerms)>> = BTreeMap::new();
    for record in records {
        for address in &record.ingress.addresses {
            let holder = (owner_of(&record.service), terms(record));
            holders.entry(*address).or_default().push(holder);
        }
    }
    for (address, holders) in holders {
        let owners: Vec<Owner> = holders.iter().map(|(owner, _)| owner.clone()).collect();
        allocator.recall_all(address, holders);
        for owner in owners {
            prop_assert_eq!(
                allocator.parting(&owner, address),
                None,
                "{} has {} too",
                owner,
                address
            );
        }
    }
    Ok(())
}

fn terms(record: &ServiceRecord) -> SharingTerms {
    match &record.request {
        Some(Ok(request)) => request.sharing.clone().into(),
        // A Service that has just become another type, or asks for nonsense: it goes together with anybody for now.
        _ => SharingTerms::Unknown,
    }
}

fn started(edition: Edition, periods: Periods, cluster: &Cluster) -> Controller {
    Controller::of(edition, Index::new(None, periods), cluster)
}

pub(super) fn name(number: u8) -> String {
    format!("s{number}")
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let controller = || 0..CONTROLLERS;
    let watch = prop::sample::select(Watch::ALL.to_vec());
    prop_oneof![
        3 => (0..SERVICES).prop_map(Step::Toggle),
        2 => (0..SERVICES, any::<bool>()).prop_map(|(number, on)| Step::Retype(number, on)),
        1 => (0..SERVICES).prop_map(Step::Rob),
        2 => (0..SERVICES, prop::option::of(1..5u8)).prop_map(|(number, it)| Step::Request(number, it)),
        1 => prop::option::of(0..POOLS.len()).prop_map(Step::Edit),
        1 => Just(Step::Break),
        1 => (1..12u64).prop_map(Step::Wait),
        2 => (1..5u8, any::<bool>()).prop_map(|(last, stranger)| Step::Speak(last, stranger)),
        12 => (controller(), watch).prop_map(|(which, watch)| Step::Hear(which, watch)),
        8 => controller().prop_map(Step::Decide),
        10 => (0..8usize).prop_map(Step::Perform),
        8 => (0..8usize).prop_map(Step::Answer),
        1 => prop::option::of(prop::sample::select(REFUSED.to_vec())).prop_map(Step::Refuse),
        1 => controller().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_given_twice_and_all_comes_to_rest(
        steps in prop::collection::vec(step(), 1..120), patient: bool,
    ) {
        let [succession, patience] = [3, 5].map(|it| Duration::from_secs(if patient { it } else { 0 }));
        let mut world = World::with(Periods { succession, patience, ..cluster::PERIODS });
        for step in &steps {
            world.take(step);
            world.check_no_address_twice()?;
        }
        world.settle()?;
        world.check_rest()?;
    }
}

/// What controllers do, and what becomes of it. The API server may refuse.
fn step_of_controllers() -> impl Strategy<Value = Step> {
    let controller = || 0..CONTROLLERS;
    let watch = prop::sample::select(Watch::ALL.to_vec());
    prop_oneof![
        12 => (controller(), watch).prop_map(|(which, watch)| Step::Hear(which, watch)),
        8 => controller().prop_map(Step::Decide),
        10 => (0..8usize).prop_map(Step::Perform),
        8 => (0..8usize).prop_map(Step::Answer),
        1 => prop::option::of(prop::sample::select(REFUSED.to_vec())).prop_map(Step::Refuse),
        1 => controller().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Two or three, while somebody else waits for any address, and asks for one of theirs at some time.
    #[test]
    fn those_who_exchange_their_addresses_do_so_and_nobody_else_gets_one(
        three: bool, meddles in prop::option::of((0..60usize, 1..4u8)),
        steps in prop::collection::vec(step_of_controllers(), 1..100),
    ) {
        let mut world = World::new();
        for number in [0, 2, 4, 1] {
            world.take(&Step::Toggle(number));
            world.settle()?;
        }
        let asked: &[(u8, u8)] =
            if three { &[(0, 2), (2, 3), (4, 1)] } else { &[(0, 2), (2, 1)] };
        for (number, last) in asked {
            world.take(&Step::Request(*number, Some(*last)));
        }
        for (position, step) in steps.iter().enumerate() {
            if let Some((_, last)) = meddles.filter(|(at, _)| *at == position) {
                world.take(&Step::Request(1, Some(last)));
            }
            world.take(step);
            world.check_no_address_twice()?;
        }
        world.settle()?;
        world.check_rest()?;
        for (number, last) in asked {
            let record = world.records().into_iter().find(|it| it.service.name == name(*number));
            let address: IpAddr = format!("10.0.0.{last}").parse().unwrap();
            prop_assert_eq!(record.unwrap().ingress.addresses, [address], "s{}", number);
        }
    }
}

/// What happens within less than ten minutes after a backup has brought a lock, but for its Service.
fn step_after_a_restore() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => step_of_controllers(),
        1 => Just(Step::Speak(1, false)),
        1 => (1..SERVICES).prop_map(Step::Toggle),
        1 => Just(Step::Wait(1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whoever leads meanwhile, and whichever node takes the lock.
    #[test]
    fn a_lock_that_a_backup_has_brought_waits_ten_minutes_for_its_service(
        steps in prop::collection::vec(step_after_a_restore(), 1..120),
    ) {
        let mut before = World::new();
        before.take(&Step::Toggle(0));
        before.settle()?;
        let lease = before.cluster.leases().next().unwrap().clone();
        let mut world = World::new();
        world.time = Duration::from_hours(1);
        world.cluster.restore_lease(lease, cluster::after(world.time));
        let minutes = Duration::from_mins(9);
        for step in &steps {
            if !matches!(step, Step::Wait(_)) || world.time < Duration::from_hours(1) + minutes {
                world.take(step);
            }
            world.check_no_address_twice()?;
        }
        world.take(&Step::Toggle(0));
        world.settle()?;
        world.check_rest()?;
        let record = world.records().into_iter().find(|it| it.service.name == name(0)).unwrap();
        prop_assert_eq!(record.ingress.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}

/// One controller has read the Service while it was no load balancer and is about to delete its lock; meanwhile it is
/// one again, and another controller, which still knows the lock, is about to write the address in its status.
#[test]
fn a_release_and_a_grant_that_cross_do_not_both_succeed() {
    let mut world = World::new();
    let heard = [Step::Hear(1, Watch::Services), Step::Hear(1, Watch::Services)];
    let began =
        [Step::Toggle(0), Step::Hear(0, Watch::Services), Step::Decide(0), Step::Perform(0)];
    let released = [Step::Hear(1, Watch::Leases), Step::Decide(1), Step::Perform(0)];
    let returned = [Step::Retype(0, true), Step::Hear(0, Watch::Services)];
    let granting = [Step::Hear(0, Watch::Services), Step::Decide(0)];
    let steps = began.into_iter().chain([Step::Answer(0), Step::Retype(0, false)]);
    steps
        .chain(heard)
        .chain(released)
        .chain(returned)
        .chain(granting)
        .for_each(|it| world.take(&it));
    assert_eq!(world.requests.len(), 2, "one is to delete the lock, one to claim or write");
    world.take(&Step::Perform(1));
    world.take(&Step::Perform(0));
    let locked = world.cluster.leases().count();
    let listed: usize = world.records().iter().map(|it| it.ingress.addresses.len()).sum();
    assert!(listed <= locked, "{listed} addresses in a status, {locked} locks");
    world.settle().unwrap();
    world.check_rest().unwrap();
}

/// Somebody asks for another address, gets it, and asks for the first one again before that is given back. One controller
/// knows of the last wish and the other one does not, and goes on to give the address back. Without the condition that
/// renounces it, the first one would claim it for the Service as it is now and write it in its status, while the other one
/// reads the same version of the Service and finds that it does not have the address.
#[test]
fn an_address_that_is_renounced_is_not_granted_while_somebody_may_give_it_back() {
    let mut world = World::new();
    world.take(&Step::Toggle(0));
    world.settle().unwrap();
    world.take(&Step::Request(0, Some(2)));
    let hear = |which| [Step::Hear(which, Watch::Services), Step::Hear(which, Watch::Leases)];
    let done = |which| [Step::Decide(which), Step::Perform(0), Step::Answer(0)];
    // The new address is claimed and written, and the old one renounced.
    let moved = hear(0).into_iter().chain(done(0)).chain(done(0));
    // Both controllers know, and the user changes their mind: only the first one hears of it.
    let known = hear(0).into_iter().chain(hear(1)).chain(hear(1));
    let regretted = [Step::Request(0, Some(1)), Step::Hear(0, Watch::Services)];
    // The first one does what it thinks right; the second one sees the outcome, and gives the address back.
    let granted = done(0).into_iter().chain([Step::Hear(1, Watch::Leases)]);
    let released = [Step::Decide(1), Step::Perform(0), Step::Decide(0)];
    let steps = moved.chain(known).chain(regretted).chain(granted).chain(released);
    steps.for_each(|step| world.take(&step));
    let renounced: Vec<_> = world.records().into_iter().flat_map(|it| it.renounced).collect();
    assert_eq!(renounced, ["10.0.0.1".parse::<IpAddr>().unwrap()], "the test is about this state");
    while !world.requests.is_empty() {
        // What was decided last arrives first.
        world.take(&Step::Perform(world.requests.len() - 1));
        world.check_every_address_has_a_lock().unwrap();
    }
    world.settle().unwrap();
    world.check_rest().unwrap();
}
