//! Gathers all facts that the wanted checks need.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use arpeggio_doctor::{
    Code, Facts, Group, Selection, Stage,
    facts::{Known, Pool, Unasked},
    survey::Connect,
};
use arpeggio_ipam::AddressRange;
use arpeggio_runtime::{
    client::Patience,
    failure::{Cause, Failure},
};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::PodSpec,
    },
    apimachinery::pkg::version::Info,
};
use kube::Client;
use tokio::time::sleep;

use super::{
    DoctorArgs,
    kubernetes::{PATIENCE, each, within},
    leases::{Leases, Said},
    metrics, nodes, nothing_known, permissions, pods, pools, progress, rivals, services, surveyors,
    workloads,
};
use crate::{
    complaint::words,
    gaps::Gap,
    global::Global,
    installed::{self, Duties},
};

/// Sessions are renewed every three seconds where nothing else was said.
const RENEWAL: Duration = Duration::from_millis(3_500);

/// Who asks, and what for.
pub(super) struct Gatherer<'a> {
    client: Client,
    namespace: String,
    args: &'a DoctorArgs,
    selection: &'a Selection,
    /// The API server's release.
    kubernetes: Known<(u32, u32)>,
    /// Ours in that namespace.
    deployments: Known<Vec<Deployment>>,
    sets: Known<Vec<DaemonSet>>,
    /// What the controller is told to do.
    duties: Known<Duties>,
    /// What does not change from one look to the next.
    settled: Option<Facts>,
}

impl<'a> Gatherer<'a> {
    pub(super) async fn new(
        global: &Global,
        args: &'a DoctorArgs,
        selection: &'a Selection,
    ) -> anyhow::Result<Self> {
        let patience = Patience { retry: false, ..Patience::default() };
        let client = global.connect_with(patience).await?;
        Self::with(client, global.system_namespace(), args, selection).await
    }

    /// Fails where the API server cannot be asked at all: nothing could be checked. One that says what may not be read can.
    async fn with(
        client: Client,
        namespace: String,
        args: &'a DoctorArgs,
        selection: &'a Selection,
    ) -> anyhow::Result<Self> {
        let (version, deployments, sets) = tokio::join!(
            within(PATIENCE, client.apiserver_version()),
            within(PATIENCE, installed::deployments(&client, &namespace)),
            within(PATIENCE, installed::daemon_sets(&client, &namespace))
        );
        let is_open = [is_heard(&version), is_read(&deployments), is_read(&sets)].contains(&true);
        let version = version.and_then(|it| it.map_err(|error| words(&error)));
        if let Err(why) = &version
            && !is_open
        {
            bail!("the API server cannot be asked: {why}");
        }
        let kubernetes = version.and_then(|it| release(&it));
        let deployments = deployments.and_then(|it| it.map_err(|gap| gap.to_string()));
        let sets = sets.and_then(|it| it.map_err(|gap| gap.to_string()));
        let duties = deployments.as_deref().map(Duties::among).map_err(Clone::clone);
        let settled = None;
        Ok(Self {
            client,
            namespace,
            args,
            selection,
            kubernetes,
            deployments,
            sets,
            duties,
            settled,
        })
    }

    /// The class that is served: as said on the command line, or else as the controller's Deployment says.
    fn class(&self) -> Option<&str> {
        self.args.class().or(self.duties.as_ref().ok()?.class.as_deref())
    }

    /// The same, if it is known.
    fn known_class(&self) -> Known<Option<String>> {
        if self.args.class().is_none() {
            self.duties.as_ref().map_err(Clone::clone)?;
        }
        Ok(self.class().map(str::to_owned))
    }

    /// What the DaemonSet says of its pods.
    fn speakers(&self) -> Option<&PodSpec> {
        let set = installed::speakers(self.sets.as_deref().unwrap_or_default())?;
        set.spec.as_ref()?.template.spec.as_ref()
    }

    fn wants(&self, groups: &[Group]) -> bool {
        groups.iter().any(|group| self.selection.wants_any(*group))
    }

    /// All that is wanted; a second time only what a moment can change.
    pub(super) async fn gather(&mut self) -> Facts {
        let (mut facts, is_first) = match self.settled.take() {
            Some(settled) => (settled, false),
            None => (Box::pin(self.settle()).await, true),
        };
        if self.args.stage() == Stage::Installed {
            Box::pin(self.observe(&mut facts, is_first)).await;
        }
        self.settled = Some(facts.clone());
        facts
    }

    /// What the API server says once.
    async fn settle(&self) -> Facts {
        progress("asking the API server");
        let mut facts = nothing_known(self.args.stage(), &self.namespace);
        let (client, namespace) = (&self.client, self.namespace.as_str());
        let installed = self.args.stage() == Stage::Installed;
        let (nodes, proxy, ranges, pools, rivals) = tokio::join!(
            nodes::read(client, self.speakers()),
            nodes::proxy(client),
            nodes::service_ranges(client),
            pools::read(client, namespace, &self.duties),
            rivals::read(client),
        );
        (facts.kubernetes, facts.nodes, facts.proxy) = (self.kubernetes.clone(), nodes, proxy);
        (facts.service_ranges, facts.rivals) = (ranges, rivals);
        facts.class = self.known_class();
        facts.pools = pools.map(|pools| pools.into_iter().chain(self.plan()).collect());
        self.services(&mut facts).await;
        if !installed {
            return facts;
        }
        let (definition, installation, elsewhere) = tokio::join!(
            pools::definition(client),
            workloads::read(client, namespace, &self.deployments, &self.sets),
            rivals::elsewhere(client, namespace),
        );
        (facts.definition, facts.installation, facts.elsewhere) =
            (definition, installation, elsewhere);
        if self.wants(&[Group::Permissions]) {
            facts.permissions = permissions::read(client, namespace).await;
        }
        facts
    }

    async fn services(&self, facts: &mut Facts) {
        let read = services::read(&self.client, self.class()).await;
        (facts.services, facts.uses) = match read {
            Ok((services, uses)) => (Ok(services), uses),
            Err(why) => (Err(why), Vec::new()),
        };
    }

    /// The addresses that are to be judged before they are in a pool.
    fn plan(&self) -> Option<Pool> {
        let ranges: Vec<AddressRange> = self.args.addresses.clone();
        let name = "(--addresses)".to_owned();
        (!ranges.is_empty()).then(|| Pool { name, ranges, is_plan: true, ..Pool::default() })
    }

    /// What changes from moment to moment: Leases, what nodes see, what speakers count. DHCP servers are asked the first time
    /// only.
    async fn observe(&self, facts: &mut Facts, is_first: bool) {
        let before = Leases::read(&self.client, &self.namespace).await;
        said(facts, before.as_ref().map(|it| it.say(None)));
        self.services(facts).await;
        let speakers = facts.installation.as_ref().map(metrics::speakers).unwrap_or_default();
        if self.wants(&[Group::Versions, Group::Sessions, Group::Addresses]) {
            facts.metrics = self.metrics(&speakers).await;
        }
        let with_leases = is_first && self.selection.wants(Code::A711);
        if self.wants_surveys() || with_leases {
            let plural = if speakers.len() == 1 { "node" } else { "nodes" };
            progress(&format!("having {} {plural} look at the segment", speakers.len()));
            let nodes: Vec<String> = speakers.iter().map(|(node, _)| node.clone()).collect();
            let (questions, unasked) = surveyors::questions(facts, &nodes, with_leases);
            let (client, namespace) = (&self.client, self.namespace.as_str());
            let (surveys, pods) = tokio::join!(
                surveyors::ask(client, namespace, &speakers, &questions),
                self.pods(facts)
            );
            let (pods, untried) = pods;
            (facts.surveys, facts.pods) = (surveys, pods);
            facts.unasked = [unasked, untried].concat();
        }
        if let Ok(before) = &before {
            self.look_again(before, facts).await;
        }
    }

    /// What pods reach matters beside what nodes reach.
    async fn pods(&self, facts: &Facts) -> (BTreeMap<String, Known<Vec<Connect>>>, Vec<Unasked>) {
        if !self.selection.wants(Code::S107) {
            return (BTreeMap::new(), Vec::new());
        }
        pods::ask(&self.client, &self.namespace, facts).await
    }

    /// Whether what nodes see themselves is wanted.
    fn wants_surveys(&self) -> bool {
        let of_nodes = [Code::A605, Code::A609, Code::S104, Code::S105, Code::S107];
        self.wants(&[Group::Wire, Group::Proxy])
            || of_nodes.into_iter().any(|code| self.selection.wants(code))
    }

    async fn metrics(
        &self,
        speakers: &[(String, String)],
    ) -> BTreeMap<String, Known<arpeggio_doctor::facts::Metrics>> {
        let read = |(node, pod): (String, String)| async move {
            (node, metrics::read(&self.client, &self.namespace, &pod).await)
        };
        each(speakers.to_vec(), read).await.into_iter().collect()
    }

    /// Whether sessions are renewed shows only in time. Nobody waits for that where all clocks agree.
    async fn look_again(&self, before: &Leases, facts: &mut Facts) {
        let is_fine = |said: &Said| {
            said.sessions.iter().filter(|it| it.is_live()).all(|it| {
                let lasts = i64::try_from(it.lasts.as_secs()).unwrap_or(i64::MAX);
                it.alive || it.renewed.is_some_and(|at| (-lasts..=2).contains(&at))
            })
        };
        let mut later = Leases::read(&self.client, &self.namespace).await;
        if later.as_ref().is_ok_and(|it| !is_fine(&before.say(Some(it)))) {
            progress("waiting whether sessions are renewed");
            sleep(RENEWAL).await;
            later = Leases::read(&self.client, &self.namespace).await;
        }
        if let Ok(later) = &later {
            // Who announces what is as it was when the nodes were asked.
            let locks = facts.locks.clone();
            said(facts, Ok(before.say(Some(later))));
            facts.locks = locks;
        }
    }
}

fn said(facts: &mut Facts, said: Result<Said, &String>) {
    match said {
        Ok(said) => {
            facts.damaged = said.damaged;
            (facts.sessions, facts.locks) = (Ok(said.sessions), Ok(said.locks));
            facts.forwarders = Ok(said.forwarders);
        }
        Err(why) => {
            (facts.sessions, facts.locks) = (Err(why.clone()), Err(why.clone()));
            facts.forwarders = Err(why.clone());
        }
    }
}

/// Whether the API server listens to whoever asks, if only to say no.
fn is_heard<T>(answer: &Known<kube::Result<T>>) -> bool {
    let is_no = |error: &kube::Error| Failure::from(error) == Failure::Refused(Cause::Forbidden);
    answer.as_ref().is_ok_and(|answer| answer.as_ref().err().is_none_or(is_no))
}

/// The same of objects.
fn is_read<T>(answer: &Known<Result<T, Gap>>) -> bool {
    let is_no = |gap: &Gap| matches!(gap, Gap::Forbidden(_) | Gap::Malformed { .. });
    answer.as_ref().is_ok_and(|answer| answer.as_ref().err().is_none_or(is_no))
}

/// Major and minor release of the API server.
fn release(version: &Info) -> Known<(u32, u32)> {
    // Some append a plus sign.
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| format!("its version {} is not understood", version.git_version))
    };
    Ok((number(&version.major)?, number(&version.minor)?))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::{client::Body, core::Status};

    use super::*;
    use crate::doctor::{is_blank, tests::args};

    /// A look at a cluster whose API server answers everything with this.
    async fn look(code: u16, reason: &str) -> anyhow::Result<Facts> {
        let status = Status::failure(reason, reason).with_code(code);
        let text = serde_json::to_vec(&status).unwrap();
        let answer = move |_: Request<Body>| {
            let body = Body::from(text.clone());
            async move { Response::builder().status(code).body(body) }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let (args, selection) = (args(&["--pre"]), Selection::default());
        Ok(Gatherer::with(client, "lb".into(), &args, &selection).await?.gather().await)
    }

    #[tokio::test]
    async fn an_api_server_that_cannot_be_asked_is_no_cluster_without_faults() {
        for (code, reason) in [(401, "Unauthorized"), (503, "no upstream")] {
            let told = look(code, reason).await.unwrap_err().to_string();
            assert_eq!(told, format!("the API server cannot be asked: {reason}"));
        }
        let facts = look(403, "Forbidden").await.unwrap();
        assert!(
            is_blank(&facts, &Selection::default()),
            "it says what may not be read, and nothing was"
        );
    }
}
