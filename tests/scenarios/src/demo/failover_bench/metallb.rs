//! MetalLB with its defaults: its controller, and a speaker on each node.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess};
use serde_json::json;

use super::crash::Contestant;
use crate::metallb::{self, Fellows};

/// Nobody else's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 232);

/// A speaker on each node.
pub(super) type Speakers = BTreeMap<Machine, HostProcess>;

/// Installs it with a pool, and starts its speakers.
pub(super) fn start_speakers(home: &Home, range: &str) -> anyhow::Result<Speakers> {
    let (lab, nodes) = (&home.lab, home.lab.options().node_machines());
    metallb::install(lab, range)?;
    metallb::advertise(lab, &nodes)?;
    nodes.iter().try_for_each(|node| metallb::add_speaker_pod(lab, *node))?;
    let first = speakers(home)?;
    nodes.iter().try_for_each(|node| metallb::wait_for_state(lab, *node))?;
    drop(first);
    speakers(home)
}

fn speakers(home: &Home) -> anyhow::Result<Speakers> {
    let start = |node| Ok((node, metallb::speaker(&home.lab, node, Fellows::Watched)?));
    home.lab.options().node_machines().into_iter().map(start).collect()
}

/// All of its processes.
pub(super) struct MetalLb<'a> {
    home: &'a Home,
    #[allow(dead_code, reason = "it ends when it is dropped")]
    controller: HostProcess,
    speakers: Speakers,
    /// Who announces the address when all nodes are well: it moves back to the same node each time.
    owner: Machine,
}

impl<'a> MetalLb<'a> {
    /// Starts all of it, and makes a Service with an address.
    pub(super) fn start(home: &'a Home) -> anyhow::Result<Self> {
        let speakers = start_speakers(home, &format!("{ADDRESS}/32"))?;
        metallb::add_controller_pod(&home.lab)?;
        let controller = metallb::controller(&home.lab)?;
        make_service(home)?;
        let owner = home.wait_for_owner(ADDRESS)?;
        Ok(Self { home, controller, speakers, owner })
    }
}

impl Contestant for MetalLb<'_> {
    fn name(&self) -> &'static str {
        "metallb"
    }

    fn address(&self) -> Ipv4Addr {
        ADDRESS
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(12)
    }

    fn bring_back(&mut self, node: Machine) -> anyhow::Result<()> {
        self.home.switch_on(node)?;
        let speaker = metallb::speaker(&self.home.lab, node, Fellows::Watched)?;
        self.speakers.insert(node, speaker);
        self.home.wait_for_owner_to_be(ADDRESS, self.owner)
    }
}

/// A Service with a ready endpoint, which MetalLB asks for, and no pods.
fn make_service(home: &Home) -> anyhow::Result<()> {
    home.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "bench", "labels": { "kubernetes.io/service-name": "bench" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.1.9"], "conditions": { "ready": true } }],
        "ports": [{ "port": 80 }],
    }))?;
    home.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "bench" },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
    }))?;
    home.wait_for_address("bench").map(drop)
}
