//! Who is measured: the kernel, our speaker with few addresses or with many, MetalLB's speaker.

use std::{net::Ipv4Addr, ops::Range, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::HostProcess;
use arpeggio_wire::MacAddr;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::client::wait_for_answers;
use crate::{api, metallb, narrator::say};

/// The node without a speaker.
const KERNEL: Machine = Machine::Node(4);
/// How many creates are under way at once.
const CONNECTIONS: usize = 32;
/// MetalLB's speaker takes any number of addresses from a Service, and a Service takes the API server much longer to
/// create than a Lease. So what it takes for many addresses is less than with a Service for each.
const PER_SERVICE: usize = 10;
/// How long a speaker may take to start and to announce a few addresses.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many addresses each has at first.
pub(super) const FEW: u32 = 10;
/// MetalLB's addresses, and the first that is used.
const METALLB_RANGE: &str = "10.20.0.0/16";
const METALLB_FIRST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// Somebody who answers for an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contestant {
    /// For people and machines.
    pub(super) name: &'static str,
    /// The address to ask for.
    pub(super) address: Ipv4Addr,
    /// Where it is.
    pub(super) mac: MacAddr,
}

impl Contestant {
    /// The node that answers for its own address.
    pub(super) fn kernel() -> anyhow::Result<Self> {
        let address = KERNEL.lan_v4().context("a node has an address")?;
        Ok(Self { name: "kernel", address, mac: mac(KERNEL)? })
    }
}

/// All of them, at work in one lab.
pub(super) struct World<'a> {
    pub(super) lab: &'a Lab,
    pub(super) few: Ours<'a>,
    pub(super) metallb: MetalLb<'a>,
    /// Not before it is needed.
    pub(super) many: Option<Ours<'a>>,
}

impl<'a> World<'a> {
    /// Starts our speaker and MetalLB's with [`FEW`] addresses each.
    pub(super) fn start(lab: &'a Lab) -> anyhow::Result<Self> {
        let mut few = Ours::start(lab, Machine::Node(1), "few", Ipv4Addr::new(10, 10, 0, 1))?;
        few.give(FEW, PATIENCE)?;
        say("our speaker answers");
        let mut metallb = MetalLb::start(lab, Machine::Node(2))?;
        metallb.give(FEW, PATIENCE)?;
        say("MetalLB's speaker answers");
        Ok(Self { lab, few, metallb, many: None })
    }

    /// The kernel's own answer, ours and MetalLB's.
    pub(super) fn contestants(&self) -> anyhow::Result<[Contestant; 3]> {
        Ok([Contestant::kernel()?, self.few.contestant("arpeggio")?, self.metallb.contestant()?])
    }
}

/// A speaker of ours whose Leases are in a namespace of its own, so that it knows of no other.
pub(super) struct Ours<'a> {
    lab: &'a Lab,
    node: Machine,
    namespace: &'static str,
    first: Ipv4Addr,
    epoch: i64,
    /// How many addresses it has.
    held: u32,
    pub(super) process: HostProcess,
}

impl<'a> Ours<'a> {
    /// Starts one without addresses and waits for its session.
    pub(super) fn start(
        lab: &'a Lab,
        node: Machine,
        namespace: &'static str,
        first: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        lab.kubectl(&["create", "namespace", namespace])?;
        let process = HostProcess::speaker(lab, node, namespace)?;
        let session = format!("session-{node}");
        let epoch = lab.wait_until(&format!("session of {node}"), PATIENCE, || {
            let lease = lab.get(&["lease", "-n", namespace, &session])?;
            Ok::<_, anyhow::Error>(lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default())
        })?;
        Ok(Self { lab, node, namespace, first, epoch, held: 0, process })
    }

    /// Starts it again after it was killed; it goes on with its session.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = HostProcess::speaker(self.lab, self.node, self.namespace)?;
        Ok(())
    }

    /// Its addresses of these numbers. Not one next to the other, since a filter would have it too easy.
    pub(super) fn addresses(&self, numbers: Range<u32>) -> Vec<Ipv4Addr> {
        numbers.map(|number| Ipv4Addr::from_bits(self.first.to_bits() + 2 * number)).collect()
    }

    /// Gives it `count` addresses in all and waits until it answers for each.
    pub(super) fn give(&mut self, count: u32, patience: Duration) -> anyhow::Result<()> {
        self.lock(count)?;
        wait_for_answers(self.lab, &self.addresses(0..count), patience)
    }

    /// Creates locks that it holds already, until there are `count` of them: what it would write itself takes much
    /// longer than what is measured.
    pub(super) fn lock(&mut self, count: u32) -> anyhow::Result<()> {
        let addresses = self.addresses(self.held..count);
        api::run(self.lab, async |client| {
            let leases: Api<Lease> = Api::namespaced(client, self.namespace);
            stream::iter(addresses)
                .map(async |address| create(&leases, self.lease(address)).await)
                .buffer_unordered(CONNECTIONS)
                .try_collect::<()>()
                .await
        })?;
        self.held = count;
        Ok(())
    }

    fn lease(&self, address: Ipv4Addr) -> Value {
        json!({
            "metadata": {
                "name": format!("address-{address}"),
                "labels": { "app.kubernetes.io/managed-by": "arpeggio", "arpeggio.dev/lease": "address" },
                "annotations": {
                    "arpeggio.dev/pool": "bench",
                    "arpeggio.dev/services": format!("default/bench/{address}"),
                    "arpeggio.dev/session": self.epoch.to_string(),
                },
            },
            "spec": { "holderIdentity": self.node.to_string(), "leaseTransitions": 0 },
        })
    }

    /// Its first address.
    pub(super) fn contestant(&self, name: &'static str) -> anyhow::Result<Contestant> {
        Ok(Contestant { name, address: self.first, mac: mac(self.node)? })
    }
}

/// MetalLB's speaker, which alone may announce.
pub(super) struct MetalLb<'a> {
    lab: &'a Lab,
    node: Machine,
    /// How many addresses it has.
    held: u32,
    pub(super) process: HostProcess,
}

impl<'a> MetalLb<'a> {
    fn start(lab: &'a Lab, node: Machine) -> anyhow::Result<Self> {
        metallb::install(lab, "speaker", METALLB_RANGE)?;
        let advertisement = json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "L2Advertisement",
            "metadata": { "name": "bench", "namespace": metallb::NAMESPACE },
            "spec": { "nodeSelectors": [
                { "matchLabels": { "kubernetes.io/hostname": node.to_string() } }
            ] },
        });
        lab.apply(&advertisement.to_string())?;
        // It makes an object for its own state, and if it looks for it too early, it serves nobody from then on. Started
        // again with the first addresses, it finds it.
        let process = speaker(lab, node)?;
        let state = format!("configurationstate/speaker-{node}");
        lab.wait_until(&state, PATIENCE, || lab.get(&["-n", metallb::NAMESPACE, &state]))?;
        Ok(Self { lab, node, held: 0, process })
    }

    /// Its addresses of these numbers.
    pub(super) fn addresses(numbers: Range<u32>) -> Vec<Ipv4Addr> {
        numbers.map(|number| Ipv4Addr::from_bits(METALLB_FIRST.to_bits() + number)).collect()
    }

    /// Gives it `count` addresses in all and waits until it answers for each. It is stopped before and started after
    /// that: at work it would take the larger part of the machine from whoever creates its Services.
    pub(super) fn give(&mut self, count: u32, patience: Duration) -> anyhow::Result<()> {
        self.process.kill()?;
        let addresses = Self::addresses(self.held..count);
        api::run(self.lab, async |client| {
            let services: Api<Service> = Api::namespaced(client.clone(), "default");
            let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
            stream::iter(addresses.chunks(PER_SERVICE))
                .map(async |chunk| serve(&services, &slices, chunk).await)
                .buffer_unordered(CONNECTIONS)
                .try_collect::<()>()
                .await
        })?;
        self.held = count;
        self.process = speaker(self.lab, self.node)?;
        wait_for_answers(self.lab, &Self::addresses(0..count), patience)
    }

    fn contestant(&self) -> anyhow::Result<Contestant> {
        Ok(Contestant { name: "metallb", address: METALLB_FIRST, mac: mac(self.node)? })
    }
}

/// MetalLB's speaker, without metrics.
fn speaker(lab: &Lab, node: Machine) -> anyhow::Result<HostProcess> {
    let mut command = metallb::program("speaker")?;
    command.args([
        "--namespace=metallb-system",
        "--pod-name=speaker",
        &format!("--node-name={node}"),
        "--port=0",
        "--log-level=warn",
    ]);
    HostProcess::start_on(lab, node, "metallb-speaker", &mut command)
}

/// A Service with addresses and a ready endpoint, as its controller and Kubernetes would leave it.
async fn serve(
    services: &Api<Service>,
    slices: &Api<EndpointSlice>,
    addresses: &[Ipv4Addr],
) -> anyhow::Result<()> {
    let first = addresses.first().context("a Service has an address")?;
    let name = format!("bench-{}", first.to_string().replace('.', "-"));
    let slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.1.9"], "conditions": { "ready": true } }],
        "ports": [{ "port": 80 }],
    });
    create(slices, slice).await?;
    let service = json!({
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "port": 80 }],
        },
    });
    create(services, service).await?;
    let ingress: Vec<Value> = addresses.iter().map(|it| json!({ "ip": it.to_string() })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
    let patch = services.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    patch.with_context(|| format!("Service {name} was not told its address"))?;
    Ok(())
}

async fn create<K>(api: &Api<K>, object: Value) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await.context("an object was not created")?;
    Ok(())
}

fn mac(node: Machine) -> anyhow::Result<MacAddr> {
    node.mac().map(MacAddr::from).context("a node has a MAC address")
}
