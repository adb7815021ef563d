//! `docs/setups/client-addresses.md`.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, first_address};
use serde_json::{Value, json};

use super::{OTHER, Setup, patch};

pub(crate) fn pods_see_whom_the_policy_says(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "client-addresses")?;
    home.add_pool()?;
    home.lab.network().add_hosts(1..=1)?;
    page.apply("web.yaml")?;
    page.apply("service.yaml")?;
    page.wait_for_rollout("whoami")?;
    ensure!(home.wait_for_address("whoami")? == first_address(), "the first address");

    let client = Machine::Client.lan_v4().context("the client has an address")?.to_string();
    let answer = page.wait_for_answer(Machine::Client, "a page", |_, _| true)?;
    ensure!(answer.1 != client, "the policy Cluster hides the client: {answer:?}");
    home.wait_until("both pods answer", || match page.pods_that_answer()? {
        pods if pods.len() == 2 => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })?;

    patch(page.home, "whoami", &json!({ "sessionAffinity": "ClientIP" }))?;
    home.wait_until("one pod answers", || match page.pods_that_answer()? {
        pods if pods.len() == 1 => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })?;
    patch(page.home, "whoami", &json!({ "sessionAffinity": "None" }))?;

    home.lab.kubectl(&["scale", "deployment/whoami", "--replicas=1"])?;
    patch(page.home, "whoami", &json!({ "externalTrafficPolicy": "Local" }))?;
    page.wait_for_answer(Machine::Client, "the client is seen", |_, seen| seen == client)?;
    page.health_says_where_the_pod_is()?;

    patch(page.home, "whoami", &json!({ "loadBalancerSourceRanges": [format!("{client}/32")] }))?;
    home.wait_until("another machine gets no answer", || match page.answer_to(OTHER) {
        Ok(answer) => Err(format!("{answer:?}").into()),
        Err(_) => Ok(()),
    })?;
    page.wait_for_answer(Machine::Client, "the client is let in", |_, seen| seen == client)?;
    patch(page.home, "whoami", &json!({ "loadBalancerSourceRanges": null }))?;
    page.wait_for_answer(OTHER, "everybody is let in", |_, _| true)?;
    Ok(())
}

impl Setup<'_> {
    /// The pod that answers a machine, and whom it sees.
    fn answer_to(&self, machine: Machine) -> anyhow::Result<(String, String)> {
        let url = format!("http://{}/", first_address());
        let args = ["--silent", "--show-error", "--max-time", "1", &url];
        let said = self.home.lab.namespace(machine).run("curl", &args)?;
        let (pod, seen) = said.trim_end().split_once(" sees ").context("another page")?;
        Ok((pod.to_owned(), seen.to_owned()))
    }

    fn wait_for_answer(
        &self,
        machine: Machine,
        what: &str,
        is_it: impl Fn(&str, &str) -> bool,
    ) -> anyhow::Result<(String, String)> {
        self.home.wait_until(what, || match self.answer_to(machine)? {
            (pod, seen) if is_it(&pod, &seen) => Ok((pod, seen)),
            other => Err(format!("{other:?}").into()),
        })
    }

    /// Those that answer the client in a row; of two, one is missed once in a million times.
    fn pods_that_answer(&self) -> anyhow::Result<BTreeSet<String>> {
        (0..20).map(|_| Ok(self.answer_to(Machine::Client)?.0)).collect()
    }

    /// Asks kube-proxy on each node, as a load balancer before the nodes would.
    fn health_says_where_the_pod_is(&self) -> anyhow::Result<()> {
        let service = self.home.lab.get(&["service", "whoami"])?;
        let port = service["spec"]["healthCheckNodePort"].as_u64().context("no health port")?;
        let pods = self.home.lab.get(&["pods", "-lapp=whoami"])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let lives = |pod: &&Value| !pod["metadata"]["deletionTimestamp"].is_string();
        let node = pods.filter(lives).find_map(|pod| pod["spec"]["nodeName"].as_str());
        let node = node.context("no pod runs")?.to_owned();
        for machine in self.home.lab.options().node_machines() {
            let address = machine.lan_v4().context("a node has an address")?;
            let url = format!("http://{address}:{port}/healthz");
            let args = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
            let expected = if machine.to_string() == node { "200" } else { "503" };
            self.home.wait_until(&format!("{machine} says {expected}"), || {
                let client = self.home.lab.namespace(Machine::Client);
                match client.run("curl", &args).map_err(anyhow::Error::from)? {
                    code if code == expected => Ok(()),
                    code => Err(code.into()),
                }
            })?;
        }
        Ok(())
    }
}
