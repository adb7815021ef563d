//! Reads all that goes into the archive, as far as it may be read.

use std::{collections::BTreeMap, future::Future, time::Duration};

use arpeggio_api::address_pool::AddressPool;
use arpeggio_runtime::{server_clock, version};
use futures::{
    StreamExt as _,
    future::{join, join_all, join3},
    stream,
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, LogParams},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::redact::{self, Outline, Secrets};
use crate::{
    complaint::words,
    gaps::{Gap, Reading},
    global::Global,
    in_pod, installed,
    outcome::yaml,
    reader::Reader,
    status,
};

/// How long a pod's node has to answer for it. A kubelet or a speaker that stands still never does.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many pods are asked at once.
const AT_ONCE: usize = 8;

/// Where a pod says at which port its metrics are.
const METRICS_PORT: &str = "prometheus.io/port";

/// The container of a speaker's pod that has metrics of its own. The annotation has room for one port only.
const FORWARDER: &str = "forwarder";

/// Where those are.
const FORWARDER_PORT: &str = "7475";

const ABOUT: &str = "\
What `arpeggio report` has found in a cluster, for a bug report.

status.json        what `arpeggio status -o json` says
objects/           pools, Leases, Services of type LoadBalancer, EndpointSlices, Nodes, workloads, pods, events
logs/              of each program of Arpeggio's, also of those that ran before
metrics/           of Arpeggio's pods; those of forwarders in files of their own
frames/            the last ARP and NDP frames that each speaker has heard and sent, one a line
versions.txt       of the command, the API server and the images

No Secret was read. Left out, and shown as (redacted), are: values of environment variables, sharing keys, and annotations of
other programs, kubectl's copy of the object among them; wherever logs or events repeat one of these it is left out as well.
Selectors, volumes and whatever else does not concern Arpeggio are not here at all, nor are the logs of others who
run in its namespace or in its pods.

Frames are those that concern the node's addresses and its own questions; a speaker keeps the last 500 of each.
The rules that a forwarder has in the kernel are not in it: only who has CAP_NET_ADMIN on the node may read them
(nft list ruleset, as root there). What they follow from is in the Leases, its log and its metrics.
";

/// What was found.
pub(super) struct Collected {
    /// Texts by their paths in the archive.
    pub(super) files: BTreeMap<String, String>,
    /// What could not be read.
    pub(super) gaps: Vec<String>,
    /// Whether not one object was read, since none could be.
    pub(super) is_blank: bool,
}

/// The path of a file and its text, or why there is none.
type Told = Result<(String, String), String>;

/// Reads one kind after the other, and then several pods at once.
pub(super) struct Collector<'a> {
    global: &'a Global,
    client: Client,
    system: String,
    reader: Reader,
    /// Gaps that are about no kind of object.
    others: Vec<String>,
    lines: i64,
    secrets: Secrets,
    files: BTreeMap<String, String>,
    /// How many objects were read.
    objects: usize,
}

impl<'a> Collector<'a> {
    /// Nothing is read yet. `lines`: of each log.
    pub(super) async fn new(global: &'a Global, lines: i64) -> anyhow::Result<Self> {
        Ok(Self::with(global, global.connect().await?, lines))
    }

    fn with(global: &'a Global, client: Client, lines: i64) -> Self {
        Self {
            global,
            system: global.system_namespace(),
            reader: Reader::new(client.clone()),
            client,
            others: Vec::new(),
            lines,
            secrets: Secrets::default(),
            files: BTreeMap::new(),
            objects: 0,
        }
    }

    /// Everything. What is secret is known before the first text is kept that may repeat it.
    pub(super) async fn collect(mut self) -> anyhow::Result<Collected> {
        let system = self.system.clone();
        let all = ListParams::default();
        let services = self.balanced_services().await;
        let pods: Vec<Pod> = self.reader.inside(&system, &all).await;
        self.learn(&services)?;
        self.learn(&pods)?;

        let pools: Vec<AddressPool> = self.reader.all().await;
        let leases: Vec<Lease> = self.reader.inside(&system, &all).await;
        let nodes: Vec<Node> = self.reader.all().await;
        let deployments: Vec<Deployment> = self.reader.inside(&system, &all).await;
        let daemons: Vec<DaemonSet> = self.reader.inside(&system, &all).await;
        let slices = self.slices(&services).await;
        let events = self.events().await;
        self.show(&services)?;
        self.show(&pods)?;
        self.show(&pools)?;
        self.show(&nodes)?;
        self.keep("services", &services, |it| redact::SERVICE.of(it))?;
        self.keep("pods", &pods, redact::pod)?;
        self.keep_outlined("pools", &pools, redact::POOL)?;
        self.keep_outlined("leases", &leases, redact::LEASE)?;
        self.keep_outlined("nodes", &nodes, redact::NODE)?;
        self.keep_outlined("deployments", &deployments, redact::WORKLOAD)?;
        self.keep_outlined("daemonsets", &daemons, redact::WORKLOAD)?;
        self.keep_outlined("endpointslices", &slices, redact::SLICE)?;
        self.keep_outlined("events", &events, redact::EVENT)?;
        self.programs(&pods).await;
        let status = status::snapshot(self.client.clone(), self.global).await?;
        self.add("status.json", &status);
        let versions = self.versions(&pods).await;
        self.add("versions.txt", &versions);
        Ok(self.finish())
    }

    fn finish(mut self) -> Collected {
        let mut gaps: Vec<String> = self.reader.gaps.iter().map(ToString::to_string).collect();
        gaps.append(&mut self.others);
        gaps.sort();
        gaps.dedup();
        let mut about =
            format!("{ABOUT}\nMade at {} by the API server's clock.\n", server_clock::now());
        if !gaps.is_empty() {
            about.push_str("\nWhat could not be read:\n");
            gaps.iter().for_each(|gap| about.extend(["  ", gap, "\n"]));
        }
        self.add("README.txt", &about);
        let is_blank = self.objects == 0 && !gaps.is_empty();
        Collected { files: self.files, gaps, is_blank }
    }

    async fn balanced_services(&mut self) -> Vec<Service> {
        let mut services: Vec<Service> = self.reader.all().await;
        services.retain(|service| {
            let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
            kind == Some("LoadBalancer")
        });
        services
    }

    /// Those of the Services.
    async fn slices(&mut self, services: &[Service]) -> Vec<EndpointSlice> {
        const OF_SERVICE: &str = "kubernetes.io/service-name";
        let mut slices: Vec<EndpointSlice> = self.reader.all().await;
        slices.retain(|slice| {
            let name = slice.labels().get(OF_SERVICE);
            services.iter().any(|service| {
                service.namespace() == slice.namespace() && Some(&service.name_any()) == name
            })
        });
        slices
    }

    /// What Arpeggio has told, and what happened to its own pods.
    async fn events(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> = self.reader.all().await;
        events.retain(|event| {
            let reporter = event.reporting_controller.as_deref().unwrap_or_default();
            let regarding = event.regarding.as_ref().and_then(|it| it.name.as_deref());
            let is_of_ours = regarding.is_some_and(|it| it.starts_with("arpeggio"));
            let is_inside = event.namespace().as_deref() == Some(&self.system);
            reporter.contains("arpeggio") || (is_inside && is_of_ours)
        });
        events
    }

    fn learn(&mut self, objects: &[impl Serialize]) -> anyhow::Result<()> {
        for object in objects {
            self.secrets.learn(&serde_json::to_value(object)?);
        }
        Ok(())
    }

    fn show(&mut self, objects: &[impl Serialize]) -> anyhow::Result<()> {
        for object in objects {
            self.secrets.show(&serde_json::to_value(object)?);
        }
        Ok(())
    }

    fn keep_outlined(
        &mut self,
        name: &str,
        objects: &[impl Serialize],
        outline: Outline,
    ) -> anyhow::Result<()> {
        self.keep(name, objects, |object| outline.of(object))
    }

    fn keep(
        &mut self,
        name: &str,
        objects: &[impl Serialize],
        redacted: impl Fn(&Value) -> Value,
    ) -> anyhow::Result<()> {
        let mut kept = Vec::new();
        for object in objects {
            kept.push(redacted(&serde_json::to_value(object)?));
        }
        self.objects += kept.len();
        let text = yaml(&kept)?;
        self.add(&format!("objects/{name}.yaml"), &text);
        Ok(())
    }

    fn add(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), self.secrets.scrub(text));
    }

    /// What Arpeggio's programs in these pods say. Others may share the namespace, and what they log is not ours to show.
    async fn programs(&mut self, pods: &[Pod]) {
        let ours = pods.iter().filter(|it| installed::is_part(it.labels()));
        let told: Vec<Vec<Told>> =
            stream::iter(ours).map(|pod| self.told_by(pod)).buffered(AT_ONCE).collect().await;
        for told in told.into_iter().flatten() {
            match told {
                Ok((path, text)) => self.add(&path, &text),
                Err(gap) => self.others.push(gap),
            }
        }
    }

    async fn told_by(&self, pod: &Pod) -> Vec<Told> {
        if installed::has_ended(pod) {
            // Its log may still be there, and nobody answers.
            return self.logs(pod).await;
        }
        let (logs, metrics, frames) =
            join3(self.logs(pod), self.metrics(pod), self.frames(pod)).await;
        logs.into_iter().chain(metrics).chain(frames).collect()
    }

    async fn logs(&self, pod: &Pod) -> Vec<Told> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let logs = containers.map(|it| self.logs_of(pod, &it.name));
        join_all(logs).await.into_iter().flatten().collect()
    }

    async fn logs_of(&self, pod: &Pod, container: &str) -> Vec<Told> {
        if !redact::is_program(container) {
            let name = pod.name_any();
            return vec![Err(format!(
                "log of {name}, container {container}: it is not Arpeggio's"
            ))];
        }
        let present = self.log(pod, container, false);
        if !has_run_before(pod, container) {
            return vec![present.await];
        }
        let (present, previous) = join(present, self.log(pod, container, true)).await;
        vec![present, previous]
    }

    async fn log(&self, pod: &Pod, container: &str, previous: bool) -> Told {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.system);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(self.lines),
            timestamps: true,
            ..LogParams::default()
        };
        let name = pod.name_any();
        let what = format!("log of {name}, container {container}");
        let text = self.in_time("log", &what, pods.logs(&name, &params)).await?;
        let which = if previous { "previous.log" } else { "log" };
        Ok((format!("logs/{name}/{container}.{which}"), text))
    }

    /// Through the API server, which is all that somebody outside of the cluster reaches.
    async fn metrics(&self, pod: &Pod) -> Vec<Told> {
        let pages = metrics_pages(pod).into_iter();
        join_all(pages.map(|(file, port)| self.metrics_page(pod, file, port))).await
    }

    async fn metrics_page(&self, pod: &Pod, file: String, port: String) -> Told {
        let (system, name) = (&self.system, pod.name_any());
        let page = format!("/api/v1/namespaces/{system}/pods/{name}:{port}/proxy/metrics");
        let what = format!("metrics of {file}");
        let request = http::Request::get(page).body(Vec::new());
        let request = request.map_err(|error| format!("{what}: {error}"))?;
        let text = self.in_time("proxy", &what, self.client.request_text(request)).await?;
        Ok((format!("metrics/{file}.txt"), text))
    }

    /// They are at a socket in the pod, which only a program in it reaches.
    async fn frames(&self, pod: &Pod) -> Option<Told> {
        if !is_speaker(pod) {
            return None;
        }
        let name = pod.name_any();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.system);
        Some(match in_pod::printed(&pods, &name, ["/arpeggio-speaker", "frames"]).await {
            Ok(page) => {
                let lines = page.lines().map(arpeggio_text::printable);
                let text = lines.fold(String::new(), |text, line| text + &line + "\n");
                Ok((format!("frames/{name}.txt"), text))
            }
            Err(why) => Err(format!("frames of {name}: {why}")),
        })
    }

    /// What the API server answers in time, or the gap. `part`: of pods, as a permission names it; `what`: for people.
    async fn in_time(
        &self,
        part: &str,
        what: &str,
        answer: impl Future<Output = kube::Result<String>>,
    ) -> Result<String, String> {
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.gap(part, &error)),
            Err(_) => Err(format!("{what}: no answer within {PATIENCE:?}")),
        }
    }

    fn gap(&self, part: &str, error: &kube::Error) -> String {
        let reading = Reading::of_pods(part, &self.system);
        // A pod that is gone is no kind that is missing.
        let gap = match Gap::of(reading.clone(), error) {
            Gap::UnknownKind(_) => Gap::Failed(reading, words(error)),
            gap => gap,
        };
        gap.to_string()
    }

    async fn versions(&mut self, pods: &[Pod]) -> String {
        let mut lines = vec![format!("arpeggio {}", version::long())];
        match self.client.apiserver_version().await {
            Ok(info) => lines.push(format!("API server {}", info.git_version)),
            Err(error) => {
                self.others.push(format!("the API server's version: {}", words(&error)));
            }
        }
        for pod in pods {
            let statuses = pod.status.iter().filter_map(|it| it.container_statuses.as_ref());
            for status in statuses.flatten() {
                lines.push(format!("{} {} {}", pod.name_any(), status.image, status.image_id));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// The names for the metrics of a pod, and the ports where they are.
fn metrics_pages(pod: &Pod) -> Vec<(String, String)> {
    let name = pod.name_any();
    let own = pod.annotations().get(METRICS_PORT).map(|port| (name.clone(), port.clone()));
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let has_forwarder = containers.any(|it| it.name == FORWARDER);
    let its = has_forwarder.then(|| (format!("{name}.{FORWARDER}"), FORWARDER_PORT.to_owned()));
    own.into_iter().chain(its).collect()
}

fn is_speaker(pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.any(|it| it.name == in_pod::CONTAINER)
}

fn has_run_before(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.as_ref().and_then(|it| it.container_statuses.as_ref());
    let mut statuses = statuses.into_iter().flatten();
    statuses.any(|it| it.name == container && it.restart_count > 0)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server whose kubelets and speakers hang.
    fn hanging() -> Client {
        let answer = |request: Request<Body>| async move {
            let path = request.uri().path();
            if path.ends_with("/log") || path.ends_with("/proxy/metrics") {
                pending::<()>().await;
            }
            Response::builder().status(500).body(Body::empty())
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_told_and_not_waited_for() {
        let pod = |name: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {
                    "name": name, "annotations": { METRICS_PORT: "7474" },
                    "labels": { "app.kubernetes.io/name": "arpeggio" },
                },
                "spec": { "containers": [{ "name": "controller" }] },
                "status": { "phase": phase },
            }))
            .unwrap()
        };
        let (global, client) = (Global::default(), hanging());
        let mut collector = Collector::with(&global, client, 10);
        let pods = [pod("one", "Running"), pod("two", "Pending"), pod("evicted", "Failed")];
        let asking = collector.programs(&pods);
        assert!(timeout(Duration::from_secs(11), asking).await.is_ok(), "it hangs");
        let told = [
            "log of evicted, container controller: no answer within 10s",
            "log of one, container controller: no answer within 10s",
            "log of two, container controller: no answer within 10s",
            "metrics of one: no answer within 10s",
            "metrics of two: no answer within 10s",
        ];
        let gaps = collector.finish().gaps;
        assert_eq!(gaps, told);
    }

    #[tokio::test]
    async fn of_a_cluster_that_cannot_be_asked_there_is_nothing_to_pack() {
        let global = Global::default();
        let collected = Collector::with(&global, hanging(), 10).collect().await.unwrap();
        assert!(collected.is_blank, "{:?}", collected.gaps);
        let is_blank = |objects: &[Value]| {
            let mut collector = Collector::with(&global, hanging(), 10);
            collector.keep("nodes", objects, Value::clone).unwrap();
            collector.others.push("a gap".to_owned());
            collector.finish().is_blank
        };
        assert!(!is_blank(&[json!({})]));
        assert!(is_blank(&[]));
    }

    #[test]
    fn the_metrics_of_every_program_in_a_pod_are_asked_for() {
        let pages = |port: Option<&str>, containers: &[&str]| -> Vec<String> {
            let containers: Vec<Value> =
                containers.iter().map(|it| json!({ "name": it })).collect();
            let annotations = port.map(|port| json!({ METRICS_PORT: port }));
            let pod = serde_json::from_value(json!({
                "metadata": { "name": "speaker-x7", "annotations": annotations },
                "spec": { "containers": containers },
            }));
            let pages = metrics_pages(&pod.unwrap());
            pages.into_iter().map(|(file, port)| format!("{file} {port}")).collect()
        };
        let of_speaker = "speaker-x7 7474";
        assert!(pages(None, &["speaker"]).is_empty());
        assert_eq!(pages(Some("7474"), &["speaker"]), [of_speaker]);
        let both = [of_speaker, "speaker-x7.forwarder 7475"];
        assert_eq!(pages(Some("7474"), &["speaker", "forwarder"]), both);
    }

    #[test]
    fn the_port_of_forwarders_is_the_default_of_the_program_and_the_documented_one() {
        let program = include_str!("../../../../forwarder/src/args.rs");
        assert!(
            program.contains(&format!("const DEFAULT_ADMIN: &str = \"[::]:{FORWARDER_PORT}\""))
        );
        let monitoring = include_str!("../../../../docs/monitoring.md");
        assert!(monitoring.contains(&format!("it serves its own at port {FORWARDER_PORT}")));
    }
}
