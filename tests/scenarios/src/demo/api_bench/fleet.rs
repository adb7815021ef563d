//! Speakers on bare hosts, and addresses for them.

use std::{net::Ipv4Addr, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::HostProcess;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{api, narrator::say};

/// The namespace of the Leases.
const NAMESPACE: &str = "bench";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The wire is not what is measured here: nodes ask for one another less often than by default, to leave the processors to
/// the rest.
const QUIET: [&str; 2] = ["--probe-interval=1000", "--probe-timeout=500"];
/// How many creates are under way at once.
const CONNECTIONS: usize = 16;
/// Between the starts of two speakers, so that all fit on a small machine.
const STAGGER: Duration = Duration::from_millis(250);
/// How long all sessions or takes may take.
const PATIENCE: Duration = Duration::from_secs(90);

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

    /// Starts speakers until there are `count`, and waits for their sessions.
    pub(super) fn grow_to(&mut self, count: u8) -> anyhow::Result<()> {
        let first = u8::try_from(self.speakers.len())? + 1;
        self.lab.network().add_hosts(first..=count)?;
        let hosts: Vec<Machine> = (first..=count).map(Machine::Host).collect();
        self.create::<Node>(None, hosts.iter().map(|host| node(*host)))?;
        for host in hosts {
            self.speakers.push(HostProcess::speaker_with(self.lab, host, NAMESPACE, &QUIET)?);
            sleep(STAGGER);
        }
        self.wait_for("session", usize::from(count))?;
        say(format!("{count} speakers have their sessions"));
        Ok(())
    }

    /// Adds locks until there are `count`, and waits until each has a holder.
    pub(super) fn give(&mut self, count: u32) -> anyhow::Result<()> {
        let locks = (self.addresses..count).map(lock);
        self.create::<Lease>(Some(NAMESPACE), locks)?;
        self.addresses = count;
        self.wait_for("address", usize::try_from(count)?)?;
        say(format!("{count} addresses have their holders"));
        Ok(())
    }

    fn create<K>(
        &self,
        namespace: Option<&str>,
        objects: impl Iterator<Item = Value>,
    ) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send,
        K: serde::Serialize + serde::de::DeserializeOwned,
    {
        let resource = kube::core::ApiResource::erase::<K>(&());
        let objects: Vec<Value> = objects.collect();
        api::run(self.lab, async |client| {
            let api: Api<kube::core::DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            stream::iter(objects)
                .map(async |object| {
                    let object = serde_json::from_value(object)?;
                    api.create(&PostParams::default(), &object).await.context("not created")?;
                    anyhow::Ok(())
                })
                .buffer_unordered(CONNECTIONS)
                .try_collect::<()>()
                .await
        })
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

fn lock(number: u32) -> Value {
    let address = Ipv4Addr::from_bits(FIRST.to_bits() + number);
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": format!("address-{address}"),
            "labels": { "app.kubernetes.io/managed-by": "arpeggio", "arpeggio.dev/lease": "address" },
            "annotations": {
                "arpeggio.dev/pool": "bench",
                "arpeggio.dev/services": format!("default/bench/{address}"),
                "arpeggio.dev/announce": r#"{"probing":false}"#,
            },
        },
        "spec": {},
    })
}
