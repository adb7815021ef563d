//! Speakers on bare hosts, and addresses for them.

use std::{net::Ipv4Addr, thread::sleep, time::Duration};

use anyhow::ensure;
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::HostProcess;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use crate::{api, locks, narrator::say};

/// The namespace of the Leases.
const NAMESPACE: &str = "bench";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The wire is not what is measured here: nodes ask for one another less often than by default, to leave the processors to
/// the rest.
const QUIET: [&str; 2] = ["--probe-interval=1000", "--probe-timeout=500"];
/// Between two looks at whether a speaker has its session.
const LOOK: Duration = Duration::from_millis(100);
/// How long a session, or all takes, may take.
const PATIENCE: Duration = Duration::from_mins(4);

/// All speakers.
pub(super) struct Fleet<'a> {
    lab: &'a Lab,
    pub(super) speakers: Vec<HostProcess>,
    addresses: u32,
}

impl<'a> Fleet<'a> {
    /// None yet.
    pub(super) fn new(lab: &'a Lab) -> anyhow::Result<Self> {
        lab.kubectl(&["create", "namespace", NAMESPACE])?;
        Ok(Self { lab, speakers: Vec::new(), addresses: 0 })
    }

    /// How many addresses there are.
    pub(super) fn addresses(&self) -> u32 {
        self.addresses
    }

    /// Starts speakers until there are `count`, each when the one before has its session: all others look at each that comes,
    /// and on a small machine they would be late for one another.
    pub(super) fn grow_to(&mut self, count: u8) -> anyhow::Result<()> {
        let first = u8::try_from(self.speakers.len())? + 1;
        self.lab.network().add_hosts(first..=count)?;
        let hosts: Vec<Machine> = (first..=count).map(Machine::Host).collect();
        api::run(self.lab, async |client| {
            api::create_all::<Node>(&Api::all(client), hosts.iter().map(|host| node(*host))).await
        })?;
        for host in hosts {
            self.speakers.push(HostProcess::speaker_with(self.lab, host, NAMESPACE, &QUIET)?);
            self.wait_for_session(host)?;
        }
        self.wait_for("session", usize::from(count))?;
        say(format!("{count} speakers have their sessions"));
        Ok(())
    }

    /// Adds locks until there are `count`, and waits until each has a holder.
    pub(super) fn give(&mut self, count: u32) -> anyhow::Result<()> {
        let address = |number| Ipv4Addr::from_bits(FIRST.to_bits() + number);
        locks::create_free(self.lab, NAMESPACE, (self.addresses..count).map(address))?;
        self.addresses = count;
        self.wait_for("address", usize::try_from(count)?)?;
        say(format!("{count} addresses have their holders"));
        Ok(())
    }

    fn wait_for_session(&self, host: Machine) -> anyhow::Result<()> {
        let name = format!("session-{host}");
        let held = || {
            sleep(LOOK);
            let lease = api::run(self.lab, async |client| {
                let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
                Ok(leases.get_opt(&name).await?)
            })?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            ensure!(holder.is_some_and(|it| !it.is_empty()), "{name} has no holder");
            Ok::<_, anyhow::Error>(())
        };
        self.lab.wait_until(&format!("the session of {host}"), PATIENCE, held)?;
        Ok(())
    }

    /// Waits until so many Leases of a kind have holders.
    fn wait_for(&self, kind: &str, count: usize) -> anyhow::Result<()> {
        let label = format!("arpeggio.dev/lease={kind}");
        let found = self.lab.wait_until(&format!("{count} held Leases"), PATIENCE, || {
            let held = self.held(&label)?;
            ensure!(held >= count, "{held} are held");
            Ok::<_, anyhow::Error>(held)
        })?;
        ensure!(found == count, "{found} instead of {count} Leases");
        Ok(())
    }

    fn held(&self, label: &str) -> anyhow::Result<usize> {
        sleep(Duration::from_millis(500));
        api::run(self.lab, async |client| {
            let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
            let leases = leases.list(&ListParams::default().labels(label)).await?;
            let holder = |lease: &Lease| lease.spec.as_ref()?.holder_identity.clone();
            let held = leases.items.iter().filter_map(holder).filter(|it| !it.is_empty());
            Ok(held.count())
        })
    }
}

fn node(host: Machine) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": host.to_string() } })
}
