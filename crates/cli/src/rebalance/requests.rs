//! Asks holders to move addresses, and waits until they have, or have said why not.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use anyhow::Context as _;
use arpeggio_api::lock::{self, LockRecord};
use arpeggio_election::{Node, Version, rebalance::Move};
use arpeggio_runtime::{
    failure::Failure,
    health::Health,
    watch::{Change, Haste, Watch},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::watcher::Config,
};

use crate::complaint::words;

/// How many moves are under way at once: each makes its nodes tell the whole segment.
const AT_ONCE: usize = 16;

/// The locks among Arpeggio's Leases.
const LOCKS: &str = "arpeggio.dev/lease=address";

/// The moves of one plan on their way.
pub(super) struct Requests {
    api: Api<Lease>,
    locks: Watch<Lease>,
    waiting: VecDeque<(Move, Version)>,
    /// Those that holders were asked for, with the version that the lock had last.
    asked: BTreeMap<IpAddr, (Move, Version)>,
    missed: Vec<Missed>,
    /// Whether each move is told when it is done.
    tells: bool,
}

/// A move that was not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) wanted: Move,
    pub(super) reason: String,
}

/// What a lock says about a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    NotYet,
    Done,
    No(String),
}

impl Requests {
    /// Nobody is asked yet. `moves`: each with the version of the lock that it was planned with. `tells`: whether each is
    /// told when it is done.
    pub(super) fn new(
        client: Client,
        namespace: &str,
        moves: Vec<(Move, Version)>,
        tells: bool,
    ) -> Self {
        let listed = Health::default().awaits("Leases");
        let locks = Api::namespaced(client.clone(), namespace);
        let locks = Watch::new(locks, Config::default().labels(LOCKS), Haste::Urgent, listed);
        Self {
            api: Api::namespaced(client, namespace),
            locks,
            waiting: moves.into(),
            asked: BTreeMap::new(),
            missed: Vec::new(),
            tells,
        }
    }

    /// Asks for each move, a few at a time, and tells of those that are done. After `timeout`, or Ctrl-C, what is not done
    /// is taken back.
    pub(super) async fn carry_out(mut self, timeout: Duration) -> anyhow::Result<Vec<Missed>> {
        let end = tokio::select! {
            outcome = self.follow() => outcome.map(|()| "all was answered".to_owned()),
            () = tokio::time::sleep(timeout) => {
                Ok(format!("its holder did not act within {} s", timeout.as_secs()))
            }
            _ = tokio::signal::ctrl_c() => Ok("interrupted".to_owned()),
        };
        let reason = end.as_ref().map_or_else(ToString::to_string, Clone::clone);
        self.take_back(&reason).await;
        end.map(|_| self.missed)
    }

    /// Returns when nothing is left to be done.
    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            self.ask_for_more().await?;
            if self.asked.is_empty() && self.waiting.is_empty() {
                return Ok(());
            }
            let event = self.locks.next().await;
            let shown = match self.locks.pass(event) {
                Some(Change::Applied(lease)) => vec![lease],
                Some(Change::Listed(leases) | Change::ListedInPart { objects: leases, .. }) => {
                    leases
                }
                Some(Change::Deleted(_)) | None => Vec::new(),
            };
            // One that is not understood any more is not moved, and that shows at the end.
            let records = shown.iter().filter_map(|lease| lock::parse(lease).ok());
            records.for_each(|record| self.look_at(&record));
        }
    }

    async fn ask_for_more(&mut self) -> anyhow::Result<()> {
        while self.asked.len() < AT_ONCE
            && let Some((wanted, version)) = self.waiting.pop_front()
        {
            match self.mark(wanted.address, Some(&wanted.to), version).await {
                Ok(version) => _ = self.asked.insert(wanted.address, (wanted, version)),
                Err(error) if Failure::from(&error).tells_of_change() => {
                    self.miss(wanted, "its lock has changed since it was planned");
                }
                Err(error) => {
                    self.miss(wanted, "it could not be asked for");
                    return Err(error).context("cannot write on a lock");
                }
            }
        }
        Ok(())
    }

    /// Asks for a move, or takes that back; returns the lock's new version.
    async fn mark(
        &self,
        address: IpAddr,
        to: Option<&Node>,
        expected: Version,
    ) -> kube::Result<Version> {
        let patch = Patch::Merge(lock::asked_to_move(to, expected));
        let lease = self.api.patch(&lock::name(address), &PatchParams::default(), &patch).await?;
        Ok(lock::parse(&lease).map_or(expected, |record| record.lock.version))
    }

    fn look_at(&mut self, record: &LockRecord) {
        let Some((wanted, version)) = self.asked.get_mut(&record.lock.address) else { return };
        if record.lock.version <= *version {
            return;
        }
        *version = record.lock.version;
        let answer = answer(wanted, record);
        if answer == Answer::NotYet {
            return;
        }
        let Some((wanted, _)) = self.asked.remove(&record.lock.address) else { return };
        match answer {
            Answer::No(reason) => self.miss(wanted, reason),
            _ if self.tells => tell(&wanted),
            _ => {}
        }
    }

    fn miss(&mut self, wanted: Move, reason: impl Into<String>) {
        self.missed.push(Missed { wanted, reason: reason.into() });
    }

    /// Takes back what was asked for and not done, so that nothing moves behind anybody's back.
    async fn take_back(&mut self, reason: &str) {
        for (address, (wanted, version)) in std::mem::take(&mut self.asked) {
            let reason = match self.mark(address, None, version).await {
                Ok(_) => reason.to_owned(),
                Err(error) => {
                    format!("{reason}; and the request may still stand: {}", words(&error))
                }
            };
            self.miss(wanted, reason);
        }
        for (wanted, _) in std::mem::take(&mut self.waiting) {
            self.miss(wanted, "there was no time for it");
        }
    }
}

fn tell(Move { address, from, to }: &Move) {
    anstream::println!("{address} moved from {from} to {to}");
}

fn answer(wanted: &Move, record: &LockRecord) -> Answer {
    let holder = record.lock.holder.as_ref().map(|holder| &holder.node);
    match holder {
        Some(holder) if *holder == wanted.to => Answer::Done,
        Some(holder) if *holder != wanted.from => Answer::No(format!("{holder} has it meanwhile")),
        None => Answer::No("nobody holds it any more".to_owned()),
        Some(_) if record.lock.move_to.is_some() => Answer::NotYet,
        Some(holder) => Answer::No(match &record.move_refused {
            Some(refusal) => format!("{holder} refuses: {refusal}"),
            None => "the request was withdrawn".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{lock::Claim, terms::WrittenAnnounceTerms};
    use arpeggio_election::{Epoch, Holder};

    use super::*;

    fn lock(holder: &str, move_to: Option<&str>, refused: Option<&str>) -> LockRecord {
        let address = [192, 168, 0, 240].into();
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let mut lease =
            Claim { address, pool: "home".into(), services, terms, spread: false }.created();
        lease.metadata.resource_version = Some("7".into());
        let mut record = lock::parse(&lease).unwrap();
        record.lock.holder = Some(Holder { node: holder.into(), epoch: Epoch(1) });
        record.lock.move_to = move_to.map(Node::from);
        record.move_refused = refused.map(str::to_owned);
        record
    }

    #[test]
    fn a_lock_tells_what_has_become_of_a_request() {
        let address = [192, 168, 0, 240].into();
        let wanted = Move { address, from: "node-1".into(), to: "node-2".into() };
        let no = |reason: &str| Answer::No(reason.to_owned());
        let table = [
            (lock("node-1", Some("node-2"), None), Answer::NotYet),
            (lock("node-2", None, None), Answer::Done),
            (lock("node-3", None, None), no("node-3 has it meanwhile")),
            (lock("node-1", None, None), no("the request was withdrawn")),
            (lock("node-1", None, Some("to node-2: x")), no("node-1 refuses: to node-2: x")),
        ];
        for (record, expected) in table {
            assert_eq!(answer(&wanted, &record), expected, "{record:?}");
        }
    }
}
