//! The rules in the kernel that do what a [`Plan`] says.
//!
//! There is one table for each family of which the plan has addresses, and one for the devices at which spread addresses come in.
//! Ports of which the same is so have their maps from buckets together. All go with [`Rules`], and with the process, however it
//! ends. Their names differ from those of every other process in the network namespace: two forwarders may be there at once.
//!
//! ```text
//! ip arpeggio-N                                       netdev arpeggio-N
//!   prerouting (-150)                                   ingress DEVICE, or a port of it that is a bridge
//!     daddr: address ADDRESS                              daddr: address ADDRESS
//!   address ADDRESS                                     address ADDRESS
//!     conntrack knows it: accept                          from a fellow: accept
//!     invalid TCP: mark it                                a fragment: fragments ADDRESS
//!     other, a spread port: port ADDRESS PORT             protocol, port: port ADDRESS PORT
//!     other: pass ADDRESS
//!   pass ADDRESS                                        port ADDRESS PORT
//!     from a fellow: dup to it, drop; else: reset ADDRESS first, bucket: to ADDRESS MAC DEVICE
//!     dup to it, drop; else: reset ADDRESS                others, bucket: to ADDRESS MAC DEVICE
//!   port ADDRESS PORT                                   to ADDRESS MAC DEVICE
//!     from a fellow: below ADDRESS PORT                   MAC addresses, fwd
//!     others, bucket: dup to it, drop
//!     below, bucket: dup to it, drop
//!     reset ADDRESS
//!   reset ADDRESS (only where the plan says so)
//!     TCP: reset
//! ```
//!
//! Before each `dup` is a rule that drops what has come to the end of its hop limit; before each rule that ends the search, one that drops
//! what is marked, as before each `dup` to a node that does not know the mark.

mod compile;
mod counting;
mod here;
mod ingress;
mod prerouting;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arpeggio_forwarding::Plan;
use arpeggio_netfilter::{Batch, Error, Feature, Netfilter, Table, Tables};
use here::Here;

pub use counting::{Counter, Counters, Counting};

/// The rules of one process.
#[derive(Debug)]
pub struct Rules {
    netfilter: Netfilter,
    /// What the kernel has of us.
    tables: Tables,
    /// The node for which they were made.
    here: Here,
    /// What the named counters count.
    counting: Arc<BTreeMap<String, Counting>>,
    /// The kernel keeps something that it was to remove.
    stuck: bool,
}

/// What of a plan could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The devices that the plan names and that are not there: packets that would come in or leave by them stay.
    pub missing: BTreeSet<String>,
}

impl Rules {
    /// Opens what they are made by; no rule is made.
    ///
    /// # Errors
    ///
    /// When the kernel lacks what rules need, or the process may not make them.
    pub fn new() -> Result<Self, Error> {
        let mut netfilter = Netfilter::open()?;
        netfilter.require(&Feature::ALL)?;
        Ok(Self {
            netfilter,
            tables: Tables::new(),
            here: Here::default(),
            counting: Arc::default(),
            stuck: false,
        })
    }

    /// Brings the kernel to what a plan says, in one transaction that names only what differs. The node is looked at each time:
    /// when a device has come or was made anew, the same plan can give other rules ([`Self::are_outdated`]).
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Then the tables that it refuses are not there, unless [`Self::are_of_an_earlier_plan`], and the others are as
    /// the plan says.
    pub fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        let entrances = compile::entrances(plan).map(str::to_owned).collect();
        let here = Here::look(compile::device_names(plan), entrances);
        let name = format!("arpeggio-{}", self.netfilter.port());
        let compiled = compile::compile(plan, &here, &name);
        self.here = here;
        self.counting = Arc::new(compiled.counting);
        self.bring(compiled.tables)?;
        Ok(Applied { missing: self.here.missing.clone() })
    }

    /// Whether the plan that was applied last would give other rules now.
    pub fn are_outdated(&self) -> bool {
        self.here.again() != self.here
    }

    /// Whether the kernel has refused even to remove a table that it refused to change. It removes all when [`Rules`] are dropped.
    pub fn are_of_an_earlier_plan(&self) -> bool {
        self.stuck
    }

    fn bring(&mut self, tables: Tables) -> Result<(), Error> {
        self.stuck = false;
        let brought = change(&mut self.netfilter, &self.tables, &tables);
        match brought {
            Ok(()) => self.tables = tables,
            Err(_) => self.bring_each(tables),
        }
        brought
    }

    /// One table after the other. One that the kernel refuses goes: what it says of an earlier plan may give packets to a node that is
    /// dead by now, and whoever gets no answer waits, whereas a reset is an answer.
    fn bring_each(&mut self, tables: Tables) {
        let mut present = std::mem::take(&mut self.tables);
        let names: BTreeSet<Table> = present.keys().chain(tables.keys()).cloned().collect();
        let mut wanted = tables;
        for name in names {
            let [old, new] = [present.remove_entry(&name), wanted.remove_entry(&name)];
            let [old, new] = [old, new].map(|it| it.into_iter().collect::<Tables>());
            if change(&mut self.netfilter, &old, &new).is_ok() {
                self.tables.extend(new);
            } else if change(&mut self.netfilter, &old, &Tables::new()).is_err() {
                self.stuck = true;
                self.tables.extend(old);
            }
        }
    }

    /// What was counted, by address and kind, since the rules of that kind were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its counters.
    pub fn read_counters(&mut self) -> Result<Vec<Counter>, Error> {
        self.counters().read(&mut self.netfilter)
    }

    /// The counters of these rules, which can be read by another socket while the rules change.
    pub fn counters(&self) -> Counters {
        Counters { tables: self.tables.keys().cloned().collect(), counting: self.counting.clone() }
    }
}

/// The kernel removes a device's chain with the device, so that a change of it may be refused. Then all is made anew.
fn change(netfilter: &mut Netfilter, old: &Tables, new: &Tables) -> Result<(), Error> {
    match netfilter.commit(&Batch::between(old, new)) {
        Err(Error::Refused { .. }) if !old.is_empty() => netfilter.commit(&Batch::anew(old, new)),
        other => other,
    }
}
