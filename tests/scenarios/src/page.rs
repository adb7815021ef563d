//! A page behind an address: real web servers, and clients who fetch it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use arpeggio_lab::{
    Machine,
    observe::{RequestLoop, RequestPlan, answers, get, longest_silence},
    web,
};
use serde_json::json;

use crate::home::{Home, PATIENCE, POOL, first_address, service};

/// Shorter than the second after which a lost SYN is sent again: a request that needed that has failed.
const REQUEST_PATIENCE: Duration = Duration::from_millis(900);

/// So many requests in a row meet every backend.
const STEADY: usize = 24;

/// How a client fetches the page at [`first_address`]: a new connection every 5 ms.
pub fn page() -> RequestPlan {
    RequestPlan {
        server: SocketAddr::new(first_address().into(), 80),
        interval: Duration::from_millis(5),
        patience: REQUEST_PATIENCE,
    }
}

impl Home {
    /// A Service with two web servers behind it, which every node can reach by its address. Returns the node that
    /// announces it.
    ///
    /// # Errors
    /// When it is not so in time.
    pub fn serve_page(&self) -> anyhow::Result<Machine> {
        self.add_pool()?;
        self.start_web(2)?;
        self.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
        self.wait_for_address("web")?;
        // kube-proxy of a node may come to a new address a second after that of another, and until then drops what comes.
        for node in self.lab.options().node_machines() {
            self.wait_for_page(node)?;
        }
        self.wait_for_owner(first_address())
    }

    /// The same for a Service with `externalTrafficPolicy: Local`, whose address goes where its pods are.
    ///
    /// # Errors
    /// When it is not so in time.
    pub fn serve_local_page(&self) -> anyhow::Result<Machine> {
        self.add_pool()?;
        self.start_web(2)?;
        let mut web = service("web", "arpeggio.dev/address-pool", POOL);
        web["spec"]["externalTrafficPolicy"] = json!("Local");
        self.apply(&web)?;
        self.wait_for_address("web")?;
        let owner = self.wait_for_owner(first_address())?;
        self.wait_for_page(Machine::Client)?;
        Ok(owner)
    }

    /// Waits until a machine gets the page at [`first_address`].
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_page(&self, from: Machine) -> anyhow::Result<()> {
        self.wait_for_page_at(from, page().server)
    }

    /// Waits until a machine gets the page at another address.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_page_at(&self, from: Machine, server: SocketAddr) -> anyhow::Result<()> {
        let page = RequestPlan { server, ..page() };
        self.wait_until(&format!("{from} gets the page at {server}"), || {
            let asked = self.lab.namespace(from).enter(|| get(&page));
            let asked = asked.map_err(anyhow::Error::from)?;
            if asked.is_answered() { Ok(()) } else { Err(format!("{asked:?}").into()) }
        })
    }

    /// Starts `replicas` real nginx pods, the backends of [`service`], and waits until they are ready.
    ///
    /// # Errors
    /// When they do not become ready.
    pub fn start_web(&self, replicas: u32) -> anyhow::Result<()> {
        self.lab.apply(&web::manifest(replicas))?;
        Ok(self.lab.wait_for_rollout("default", "deployment/web", PATIENCE)?)
    }

    /// Moves a Deployment's pods off a node: Kubernetes takes many seconds to notice that pods are lost, and requests
    /// that it sends to them meanwhile say nothing about the address.
    ///
    /// # Errors
    /// When they do not get ready elsewhere.
    pub fn keep_pods_off(&self, deployment: &str, node: Machine) -> anyhow::Result<()> {
        let elsewhere = json!({ "spec": { "template": { "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{
                "matchExpressions": [{
                    "key": "kubernetes.io/hostname",
                    "operator": "NotIn",
                    "values": [node.to_string()],
                }],
            }] },
        } } } } } });
        let patch = elsewhere.to_string();
        self.lab.kubectl(&["patch", "deployment", deployment, "--type=merge", "-p", &patch])?;
        let workload = format!("deployment/{deployment}");
        self.lab.wait_for_rollout("default", &workload, PATIENCE)?;
        // A rollout is done before the old pods are gone, and those still get requests.
        let label = format!("-lapp={deployment}");
        self.wait_until(&format!("old pods of {deployment} are gone"), || {
            let pods = self.lab.get(&["pods", &label]).map_err(anyhow::Error::from)?;
            let pods = pods["items"].as_array().into_iter().flatten();
            let leaving = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_string());
            match leaving.count() {
                0 => Ok(()),
                count => Err(format!("{count} pods").into()),
            }
        })
    }

    /// Waits until no node's kube-proxy sends anybody to a pod that is gone: it may learn of that a second later.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_steady_page(&self) -> anyhow::Result<()> {
        for node in self.lab.options().node_machines() {
            self.wait_until(&format!("every request of {node} gets the page"), || {
                let ask = || (0..STEADY).map(|_| get(&page())).find(|asked| !asked.is_answered());
                match self.lab.namespace(node).enter(ask).map_err(anyhow::Error::from)? {
                    None => Ok(()),
                    Some(lost) => Err(format!("{lost:?}").into()),
                }
            })?;
        }
        Ok(())
    }

    /// Cuts a node's power while `client` asks for the pages at `servers`, a new connection to each every 20 ms. Returns
    /// the longest time without an answer from each, of two seconds before the cut and six after it.
    ///
    /// # Errors
    /// When the client's namespace cannot be entered or the power not cut.
    pub fn outages_by_power_cut<const N: usize>(
        &self,
        client: Machine,
        servers: [SocketAddr; N],
        node: Machine,
    ) -> anyhow::Result<[Duration; N]> {
        let client = self.lab.namespace(client);
        let loops = servers.map(|server| RequestLoop::start(&client, RequestPlan::new(server)));
        let begin = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        self.lab.power_off(node)?;
        std::thread::sleep(Duration::from_secs(6));
        let end = Instant::now();
        let mut outages = [Duration::ZERO; N];
        for (outage, requests) in outages.iter_mut().zip(loops) {
            *outage = longest_silence(answers(&requests?.stop()?), begin, end).length();
        }
        Ok(outages)
    }
}
