//! The pods of Arpeggio: found, counted, changed, and what happens to their processes.

use std::time::Duration;

use anyhow::Context as _;
use arpeggio_lab::Machine;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{home::Home, install::NAMESPACE};

/// The speakers.
const SPEAKERS: &str = "daemonset/arpeggio-speaker";

/// How long new pods may take to be ready on every node.
const ROLLOUT: Duration = Duration::from_mins(2);

impl Home {
    /// The name of the speaker's pod on a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn speaker_on(&self, node: Machine) -> anyhow::Result<String> {
        let field = format!("--field-selector=spec.nodeName={node}");
        let label = "-lapp.kubernetes.io/component=speaker";
        let pods = self.lab.get(&["pods", "-n", NAMESPACE, label, &field])?;
        let name = pods["items"][0]["metadata"]["name"].as_str();
        Ok(name.with_context(|| format!("no speaker runs on {node}"))?.to_owned())
    }

    /// The values of a metric `arpeggio_speaker_NAME` of the speaker on a node, one for each set of labels; or with one
    /// set only: `NAME{label="value"}`.
    ///
    /// # Errors
    /// When its metrics cannot be read.
    pub fn speaker_metric(&self, node: Machine, name: &str) -> anyhow::Result<Vec<String>> {
        let (metrics, name) = (self.speaker_metrics(node)?, format!("arpeggio_speaker_{name}"));
        let values = metrics.lines().filter_map(|line| {
            let (labelled, value) = line.rsplit_once(' ')?;
            let of_name = labelled == name || labelled.split('{').next() == Some(name.as_str());
            of_name.then(|| value.to_owned())
        });
        Ok(values.collect())
    }

    /// How much memory the speaker on a node has, in bytes.
    ///
    /// # Errors
    /// When its metrics cannot be read.
    pub fn speaker_memory(&self, node: Machine) -> anyhow::Result<u64> {
        let metrics = self.speaker_metrics(node)?;
        let mut found =
            metrics.lines().filter_map(|it| it.strip_prefix("process_resident_memory_bytes "));
        Ok(found.next().context("the speaker says how much memory it has")?.parse()?)
    }

    fn speaker_metrics(&self, node: Machine) -> anyhow::Result<String> {
        let pod = self.speaker_on(node)?;
        let page = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:7474/proxy/metrics");
        Ok(self.lab.kubectl(&["get", "--raw", &page])?)
    }

    /// How many lines the speaker on a node has logged.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn speaker_log_lines(&self, node: Machine) -> anyhow::Result<usize> {
        let pod = self.speaker_on(node)?;
        Ok(self.lab.kubectl(&["logs", "-n", NAMESPACE, &pod, "--tail=-1"])?.lines().count())
    }

    /// Has the speakers run with these arguments: a rollout, one node after the other.
    ///
    /// # Errors
    /// When they do not become ready.
    pub fn set_speaker_args(&self, args: &[&str]) -> anyhow::Result<()> {
        let field = "/spec/template/spec/containers/0/args";
        let patch = json!([{ "op": "add", "path": field, "value": args }]).to_string();
        self.lab.kubectl(&["patch", SPEAKERS, "--type=json", "-p", &patch, "-n", NAMESPACE])?;
        self.wait_for_speakers()
    }

    /// Replaces every speaker by a new one, as an upgrade does, one node after the other.
    ///
    /// # Errors
    /// When the new ones do not become ready.
    pub fn replace_speakers(&self) -> anyhow::Result<()> {
        self.lab.kubectl(&["rollout", "restart", SPEAKERS, "-n", NAMESPACE])?;
        self.wait_for_speakers()
    }

    /// Waits until every node has the speaker that it is to have, and all are ready.
    ///
    /// # Errors
    /// When it is not so in time.
    pub fn wait_for_speakers(&self) -> anyhow::Result<()> {
        Ok(self.lab.wait_for_rollout(NAMESPACE, SPEAKERS, ROLLOUT)?)
    }

    /// Kills the processes of a container of Arpeggio, as a crash does.
    ///
    /// # Errors
    /// When there are none.
    pub fn kill_container(&self, pod: &str, container: &str) -> anyhow::Result<()> {
        self.signal_container(pod, container, Signal::SIGKILL)
    }

    /// Asks the processes of a container of Arpeggio to stop, as the kubelet does.
    ///
    /// # Errors
    /// When there are none.
    pub fn stop_container(&self, pod: &str, container: &str) -> anyhow::Result<()> {
        self.signal_container(pod, container, Signal::SIGTERM)
    }

    /// Stops the processes of a container of Arpeggio where they are, as a machine without time does.
    ///
    /// # Errors
    /// When there are none.
    pub fn pause_container(&self, pod: &str, container: &str) -> anyhow::Result<()> {
        self.signal_container(pod, container, Signal::SIGSTOP)
    }

    /// Lets the processes of a container go on.
    ///
    /// # Errors
    /// When there are none.
    pub fn continue_container(&self, pod: &str, container: &str) -> anyhow::Result<()> {
        self.signal_container(pod, container, Signal::SIGCONT)
    }

    fn signal_container(&self, pod: &str, container: &str, signal: Signal) -> anyhow::Result<()> {
        for process in self.lab.container(NAMESPACE, pod, container)? {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// How often containers of a pod of Arpeggio were restarted.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn container_restarts(&self, pod: &str) -> anyhow::Result<u64> {
        let pod = self.lab.get(&["pod", "-n", NAMESPACE, pod])?;
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        Ok(containers.filter_map(|it| it["restartCount"].as_u64()).sum())
    }

    /// The pod of the controller that leads.
    ///
    /// # Errors
    /// When none does.
    pub fn leading_controller(&self) -> anyhow::Result<String> {
        let lease = self.lab.get(&["lease", "-n", NAMESPACE, "controller-leader"])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let (pod, _started) = holder.split_once('_').context("no controller leads")?;
        Ok(pod.to_owned())
    }

    /// The node that a pod of Arpeggio runs on.
    ///
    /// # Errors
    /// When there is no such pod, or it runs nowhere.
    pub fn node_of(&self, pod: &str) -> anyhow::Result<Machine> {
        let pod = self.lab.get(&["pod", "-n", NAMESPACE, pod])?;
        let node = pod["spec"]["nodeName"].as_str().context("the pod runs nowhere yet")?;
        Ok(node.parse()?)
    }

    /// Does something while no controller runs, and waits until others lead that have seen nothing of what was before.
    ///
    /// # Errors
    /// When the controllers do not stop or come back in time.
    pub fn without_controllers(
        &self,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.scale_controllers(0)?;
        act()?;
        self.scale_controllers(2)?;
        let controllers = "deployment/arpeggio-controller";
        self.lab.wait_for_rollout(NAMESPACE, controllers, Duration::from_secs(90))?;
        self.wait_until("a controller leads again", || Ok(self.leading_controller()?)).map(drop)
    }

    /// Sets how many controllers run in pods, and waits until it is so.
    ///
    /// # Errors
    /// When it is not so in time.
    pub fn scale_controllers(&self, replicas: usize) -> anyhow::Result<()> {
        let count = format!("--replicas={replicas}");
        let deployment = "deployment/arpeggio-controller";
        self.lab.kubectl(&["scale", "-n", NAMESPACE, deployment, &count])?;
        self.wait_until(&format!("{replicas} controllers run"), || {
            let label = "-lapp.kubernetes.io/component=controller";
            let pods = self.lab.get(&["pods", "-n", NAMESPACE, label]);
            let pods = pods.map_err(anyhow::Error::from)?;
            match pods["items"].as_array().map_or(0, Vec::len) {
                seen if seen == replicas => Ok(()),
                seen => Err(format!("{seen} pods").into()),
            }
        })
    }
}
