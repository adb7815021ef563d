//! Hears when each of many addresses is announced.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use arpeggio_lab::Lab;
use arpeggio_wire::MacAddr;

use crate::client::Client;

/// How many addresses one socket hears. The queue of a socket holds some 250 frames, two come for each address, and one
/// that is lost would be taken for one that was late.
const PER_SOCKET: usize = 100;

/// A client that hears what is said about many addresses, from when it is opened.
pub(crate) struct Announcements<'a> {
    sockets: Vec<(Client, &'a [Ipv4Addr])>,
}

impl<'a> Announcements<'a> {
    /// Begins to hear.
    pub(crate) fn hear(lab: &Lab, addresses: &'a [Ipv4Addr]) -> anyhow::Result<Self> {
        let open = |chunk: &'a [Ipv4Addr]| Ok((Client::watching(lab, chunk)?, chunk));
        let sockets = addresses.chunks(PER_SOCKET).map(open).collect::<anyhow::Result<_>>()?;
        Ok(Self { sockets })
    }

    /// Waits until every address was announced by another machine than `known`. Returns when each first was, in order
    /// of time.
    pub(crate) fn of_all(
        &self,
        known: Option<MacAddr>,
        patience: Duration,
    ) -> anyhow::Result<Vec<Instant>> {
        let begin = Instant::now();
        let mut times = thread::scope(|scope| {
            let deadline = begin + patience;
            let threads: Vec<_> = self
                .sockets
                .iter()
                .map(|(client, addresses)| {
                    scope.spawn(move || first_of_each(client, addresses, known, deadline))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a listener has crashed"))?)
                .collect::<anyhow::Result<Vec<_>>>()
        })?
        .concat();
        times.sort_unstable();
        Ok(times)
    }
}

fn first_of_each(
    client: &Client,
    addresses: &[Ipv4Addr],
    known: Option<MacAddr>,
    deadline: Instant,
) -> anyhow::Result<Vec<Instant>> {
    let mut missing: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
    let mut times = Vec::new();
    while !missing.is_empty() {
        let left = missing.len();
        ensure!(Instant::now() < deadline, "{left} of {} were not announced", addresses.len());
        if let Some(claim) = client.next()?
            && Some(claim.mac) != known
            && missing.remove(&claim.address)
        {
            times.push(Instant::now());
        }
    }
    Ok(times)
}
