//! Puts decisions on the wire: which address is announced on which interface, and when the segment is told of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use arpeggio_election::{self as election, Families, Pattern, Purpose, Reach, Timestamp};
use arpeggio_link::interfaces::{Interface, Links};
use arpeggio_wire::MacAddr;

use crate::{
    gratuitous::{Announcement, Due, Schedule},
    neighbours::{Neighbours, Probe},
    segment::Wiring,
    segments::{Segments, Wanted},
};

/// What has been decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand<'a> {
    /// The addresses to announce. There may be thousands, and hardly ever are they others than before.
    pub(crate) announced: Cow<'a, BTreeSet<IpAddr>>,
    /// The addresses to ask for before their first use.
    pub(crate) asked: BTreeSet<IpAddr>,
    /// The addresses that fellows are asked for.
    pub(crate) awaited: BTreeSet<IpAddr>,
}

impl Demand<'_> {
    fn into_owned(self) -> Demand<'static> {
        let Self { announced, asked, awaited } = self;
        Demand { announced: Cow::Owned(announced.into_owned()), asked, awaited }
    }
}

/// What this node has on the wire.
#[derive(Debug)]
pub(crate) struct Announcer {
    links: Arc<Links>,
    reach: Reach,
    /// The names of interfaces that rules name.
    named: Vec<Pattern>,
    /// The interfaces that others are not told of, since there are too many.
    left_out: Vec<String>,
    /// The interfaces that could not be opened when `reach` was worked out, and for which addresses.
    unopened: BTreeMap<u32, Families>,
    /// The interfaces that are dead behind their carriers.
    dead: BTreeSet<u32>,
    segments: Segments,
    schedule: Schedule,
    /// What was put into force last.
    demand: Demand<'static>,
    /// What the addresses' places depend on has changed, or could not be put into force.
    stale: bool,
}

impl Announcer {
    /// Opens the interfaces; announces nothing yet.
    pub(crate) fn new(links: Arc<Links>, wiring: Wiring) -> Self {
        let mut announcer = Self {
            reach: Reach::default(),
            named: Vec::new(),
            left_out: Vec::new(),
            unopened: BTreeMap::new(),
            dead: BTreeSet::new(),
            segments: Segments::new(wiring),
            schedule: Schedule::default(),
            demand: Demand::default(),
            stale: true,
            links: Arc::default(),
        };
        announcer.follow(links);
        announcer
    }

    /// The interfaces as they were last seen.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Those of them that can announce.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The interfaces have changed.
    pub(crate) fn follow(&mut self, links: Arc<Links>) {
        self.segments.follow(&links);
        self.schedule.keep(|index| links.interface(index).is_some());
        self.links = links;
        self.work_out_reach();
        self.stale = true;
    }

    /// Rules name these interfaces, which counts where an interface might be a pod's. Returns whether that is news.
    pub(crate) fn name(&mut self, named: Vec<Pattern>) -> bool {
        let is_news = self.named != named;
        if is_news {
            self.named = named;
            self.work_out_reach();
            self.stale = true;
        }
        is_news
    }

    /// What the kernel says counts only where this process can hear and answer.
    fn work_out_reach(&mut self) {
        self.unopened = self.segments.unopened();
        self.reach = self.links.reach(&self.named);
        self.tell_of_left_out();
        let unopened = self.unopened.iter().map(|(index, families)| (*index, *families));
        let dead = self.dead.iter().map(|index| (*index, Families::ALL));
        for (index, families) in unopened.chain(dead) {
            let Some(useless) = self.links.interface(index) else { continue };
            for interface in &mut self.reach.interfaces {
                if interface.name == useless.name {
                    interface.cut_off = interface.cut_off | families;
                }
            }
        }
    }

    fn tell_of_left_out(&mut self) {
        let left_out = self.links.left_out(&self.named);
        if self.left_out != left_out && !left_out.is_empty() {
            tracing::warn!(
                interfaces = left_out.join(", "),
                "too many interfaces or subnets: some subnets of these are left out, and no address outside of the others is \
                 announced"
            );
        }
        self.left_out = left_out;
    }

    /// Looks again at which interfaces could be opened. If others are than before, returns the names of those that are now
    /// and were not, and for which addresses.
    pub(crate) fn look_at_opened(&mut self) -> Option<Vec<(String, Families)>> {
        let before = std::mem::take(&mut self.unopened);
        self.unopened = self.segments.unopened();
        if before == self.unopened {
            return None;
        }
        self.work_out_reach();
        self.stale = true;
        let is_still = |index| self.unopened.get(&index).copied().unwrap_or_default();
        let opened = before.into_iter().map(|(index, was)| (index, was.without(is_still(index))));
        Some(self.with_names(opened.filter(|(_, families)| *families != Families::NONE)))
    }

    /// These interfaces are dead behind their carriers. Returns the names of those that were and are not any more, if it is
    /// news.
    pub(crate) fn bury(&mut self, dead: BTreeSet<u32>) -> Option<Vec<(String, Families)>> {
        if self.dead == dead {
            return None;
        }
        let before = std::mem::replace(&mut self.dead, dead);
        self.work_out_reach();
        self.stale = true;
        Some(self.with_names(before.difference(&self.dead).map(|index| (*index, Families::ALL))))
    }

    fn with_names(&self, some: impl Iterator<Item = (u32, Families)>) -> Vec<(String, Families)> {
        let name = |index| self.links.interface(index).map(|it| it.name.clone());
        some.filter_map(|(index, families)| Some((name(index)?, families))).collect()
    }

    /// Something else has changed that addresses' places, or the neighbours to listen for, depend on.
    pub(crate) fn reconsider(&mut self) {
        self.stale = true;
    }

    /// Whether frames have come that nobody has told of yet.
    pub(crate) fn has_backlog(&self) -> bool {
        self.segments.have_backlog()
    }

    /// Puts a decision into force; `interfaces` chooses, out of those that can announce, where to do so for an address.
    ///
    /// Costs next to nothing when nothing has changed. A place that stays as it was is not told anew.
    pub(crate) fn attend_to(
        &mut self,
        demand: Demand<'_>,
        interfaces: impl for<'r> Fn(IpAddr, &'r Reach) -> Vec<&'r election::Interface>,
        neighbours: &Neighbours,
        now: Timestamp,
    ) {
        if self.segments.are_behind() {
            self.segments.follow(&self.links);
            self.stale = true;
        }
        if !self.stale && self.demand == demand {
            return;
        }
        let wanted = Wanted {
            announced: self.placed(&demand.announced, &interfaces),
            asked: self.placed(&demand.asked, &interfaces),
            peers: self.peers(neighbours, &demand.awaited, &interfaces),
        };
        let changes = self.segments.attend_to(&wanted, &self.links);
        changes.lost.into_iter().for_each(|it| self.schedule.stop(it));
        changes.gained.into_iter().for_each(|it| self.schedule.start(it, now));
        self.demand = demand.into_owned();
        self.stale = changes.incomplete;
    }

    fn placed(
        &self,
        addresses: &BTreeSet<IpAddr>,
        interfaces: impl for<'r> Fn(IpAddr, &'r Reach) -> Vec<&'r election::Interface>,
    ) -> BTreeSet<Announcement> {
        let indices: BTreeMap<&str, u32> =
            self.links.interfaces.iter().map(|it| (it.name.as_str(), it.index)).collect();
        let mut placed = BTreeSet::new();
        for address in addresses {
            let here = interfaces(*address, &self.reach);
            let here = here.iter().filter_map(|it| indices.get(it.name.as_str()).copied());
            placed.extend(here.map(|interface| Announcement { interface, address: *address }));
        }
        placed
    }

    /// Whose answers are awaited where. A fellow's announced address is where this node would announce it, or may be on any
    /// segment when that is nowhere.
    fn peers(
        &self,
        neighbours: &Neighbours,
        announced_there: &BTreeSet<IpAddr>,
        interfaces: impl for<'r> Fn(IpAddr, &'r Reach) -> Vec<&'r election::Interface>,
    ) -> BTreeMap<u32, BTreeSet<IpAddr>> {
        let placed = self.placed(announced_there, interfaces);
        let has_place: BTreeSet<IpAddr> = placed.iter().map(|it| it.address).collect();
        let anywhere = announced_there - &has_place;
        let awaited = |interface: &Interface| {
            let here = placed.iter().filter(|it| it.interface == interface.index);
            let here: BTreeSet<IpAddr> = here.map(|it| it.address).collect();
            &(&neighbours.awaited(interface, &self.links) | &anywhere) | &here
        };
        self.links.interfaces.iter().map(|it| (it.index, awaited(it))).collect()
    }

    /// An address was allocated, for whichever node to announce.
    pub(crate) fn allocated(&mut self, address: IpAddr) {
        self.schedule.joined(address);
    }

    /// An address that was [`allocated`](Self::allocated) is not any more.
    pub(crate) fn released(&mut self, address: IpAddr) {
        self.schedule.left(address);
    }

    /// Begins anew to tell the segment of these addresses, also where their places are as they were: another node has told of them.
    pub(crate) fn begin_anew(&mut self, addresses: &[IpAddr], now: Timestamp) {
        if addresses.is_empty() {
            return;
        }
        let addresses: BTreeSet<&IpAddr> = addresses.iter().collect();
        let places = self.segments.all_places().filter(|it| addresses.contains(&it.address));
        places.for_each(|it| self.schedule.start(it, now));
    }

    /// Tells the segment what is due. The rest stays due when the decision behind it is too old.
    pub(crate) fn tell(&mut self, now: Timestamp) {
        while self.segments.may_tell()
            && let Some(due) = self.schedule.pop(now)
        {
            if !self.segments.tell(due) {
                self.schedule.refused(due.announcement, now);
            }
        }
    }

    /// When to [`tell`](Self::tell) next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.schedule.next()
    }

    /// Tells the segment of an announced address at once, whatever the schedule says. After a pause, what was heard in
    /// the meantime is no reason to.
    pub(crate) fn insist(&self, address: IpAddr) {
        if !self.segments.may_tell() {
            return;
        }
        for announcement in self.segments.places(address) {
            self.segments.tell(Due { announcement, deferred: false });
        }
    }

    /// Asks everybody for an address. Before its first use without a name: nobody remembers an asker that has no address,
    /// so that whoever has this one loses nothing. Else by this node's own address: access points that watch such questions
    /// learn from one without a sender that the address is here. Says whether the question has left by all `interfaces`.
    pub(crate) fn ask_everybody<'r>(
        &'r self,
        interfaces: &[&'r election::Interface],
        address: IpAddr,
        purpose: Purpose,
    ) -> bool {
        let is_nameless = purpose == Purpose::FirstUse;
        let found = interfaces.iter().filter_map(|it| self.index(&it.name));
        let mut all = true;
        for interface in found.filter_map(|index| self.links.interface(index)) {
            let source = interface.source_for(address).filter(|_| !is_nameless);
            all &= self.ask(Probe { interface: interface.index, address, source, to: None });
        }
        all
    }

    /// Asks a neighbour, or everybody; says whether the question has left.
    pub(crate) fn ask(&self, probe: Probe) -> bool {
        self.segments.ask(probe)
    }

    /// The addresses that are announced, on one interface or several.
    pub(crate) fn announced(&self) -> &BTreeSet<IpAddr> {
        self.segments.announced()
    }

    /// Whether this node has an interface with a MAC address.
    pub(crate) fn has(&self, mac: MacAddr) -> bool {
        self.links.interfaces.iter().any(|it| it.mac() == Some(mac))
    }

    fn index(&self, name: &str) -> Option<u32> {
        self.links.interfaces.iter().find(|it| it.name == name).map(|it| it.index)
    }
}
