//! What is installed of Arpeggio.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_api::leader;
use arpeggio_doctor::{
    Known,
    facts::{Component, Installation, Leader, Pod},
};
use arpeggio_runtime::server_clock;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        coordination::v1::Lease,
        core::v1,
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::{
    installed::{self, NAME, container, has_ended, is, is_off, is_on, program},
    leading::{self, Leading},
};

use super::{
    kubernetes::{get, list},
    leases::seconds_from,
};

/// Who tries to create pods in vain says so this often at least.
const LATELY: Duration = Duration::from_mins(30);

/// The Deployment and the DaemonSet, which are among these, their pods and the leader.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    deployments: &Known<Vec<Deployment>>,
    sets: &Known<Vec<DaemonSet>>,
) -> Known<Installation> {
    let ours = ListParams::default().labels(NAME);
    let pods: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    // Who may not read them is told less.
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let refusals = ListParams::default().fields("reason=FailedCreate");
    let (pods, events, lease) = tokio::join!(
        list(&pods, &ours),
        list(&events, &refusals),
        leading::look(async || Ok::<_, String>(
            get(&leases, leader::NAME).await?.into_iter().collect()
        ))
    );
    let now = server_clock::now();
    let sets = sets.as_ref().map_err(Clone::clone)?;
    let deployments = deployments.as_ref().map_err(Clone::clone)?;
    let controller = deployments.iter().find(|it| is(it.labels(), Component::Controller));
    let speaker = installed::speakers(sets);
    let template = controller.and_then(|it| Some(&it.spec.as_ref()?.template));
    let of_controller = template.and_then(|it| container(it, Component::Controller));
    let template = speaker.and_then(|it| Some(&it.spec.as_ref()?.template));
    let of_speaker = template.and_then(|it| container(it, Component::Speaker));
    let names = (controller.map(ResourceExt::name_any), speaker.map(ResourceExt::name_any));
    Ok(Installation {
        controllers: controller.map(wanted),
        has_speakers: speaker.is_some(),
        obeys_exclusion: !of_speaker.is_some_and(|it| is_on(it, "ignore-exclusion-label")),
        pods: pods?.iter().filter_map(|it| pod(it, now)).collect(),
        refused: refused(&events.unwrap_or_default(), &names, now),
        leader: lease?.pop().map(led),
        elects: !of_controller.is_some_and(|it| is_off(it, "leader-election")),
    })
}

fn wanted(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    u32::try_from(replicas).unwrap_or_default()
}

fn pod(pod: &v1::Pod, now: Timestamp) -> Option<Pod> {
    if has_ended(pod) {
        return None;
    }
    let component = [Component::Controller, Component::Speaker];
    let component = component.into_iter().find(|it| is(pod.labels(), *it))?;
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let container = containers.iter().find(|it| it.name == component.as_str());
    let state = container.and_then(|it| it.state.as_ref());
    let waiting = state.and_then(|it| it.waiting.as_ref()).and_then(|it| it.reason.clone());
    let mut others = containers.iter().filter(|it| it.name != component.as_str());
    let beside = others.find_map(|it| {
        let reason = it.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
        Some((it.name.clone(), reason))
    });
    let unschedulable = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|it| it.type_ == "PodScheduled" && it.status == "False");
    let spec = pod.spec.as_ref();
    let ended = container.and_then(|it| it.last_state.as_ref()?.terminated.as_ref());
    let ended = ended.and_then(|it| {
        let code = format!("exit code {}", it.exit_code);
        let why = it.reason.as_ref().map_or(code.clone(), |reason| format!("{reason}, {code}"));
        Some((ago(it.finished_at.as_ref()?.0, now), why))
    });
    Some(Pod {
        name: pod.name_any(),
        component,
        node: spec.and_then(|it| it.node_name.clone()),
        ready: container.is_some_and(|it| it.ready),
        ending: pod.metadata.deletion_timestamp.is_some(),
        waiting: waiting.or(unschedulable.and_then(|it| it.message)),
        beside,
        restarts: container.and_then(|it| u32::try_from(it.restart_count).ok()).unwrap_or_default(),
        ended,
        age: pod.creation_timestamp().map(|it| ago(it.0, now)),
        image: spec.and_then(|it| program(it, component)?.image.clone()).unwrap_or_default(),
        addresses: if spec.and_then(|it| it.host_network) == Some(true) {
            Vec::new()
        } else {
            let ips = status.pod_ips.unwrap_or_default();
            ips.iter().filter_map(|it| it.ip.parse().ok()).collect()
        },
    })
}

/// Why pods could not be created lately. `names`: of the Deployment and of the DaemonSet. A `ReplicaSet` has its Deployment's name, and
/// one more word.
fn refused(
    events: &[Event],
    (controller, speaker): &(Option<String>, Option<String>),
    now: Timestamp,
) -> BTreeMap<Component, String> {
    let of_controller = |name: &str| {
        let rest = controller.as_ref().and_then(|it| name.strip_prefix(it)?.strip_prefix('-'));
        rest.is_some_and(|word| !word.contains('-'))
    };
    let told = |event: &Event| {
        let series = event.series.as_ref().map(|it| it.last_observed_time.0);
        let last = event.deprecated_last_timestamp.as_ref().map(|it| it.0);
        let at = series.or(last).or(event.event_time.as_ref().map(|it| it.0))?;
        let regarding = event.regarding.as_ref()?;
        let (kind, name) = (regarding.kind.as_deref()?, regarding.name.as_deref()?);
        let component = match kind {
            "ReplicaSet" if of_controller(name) => Component::Controller,
            "DaemonSet" if speaker.as_deref() == Some(name) => Component::Speaker,
            _ => return None,
        };
        (ago(at, now) < LATELY).then(|| (at, component, event.note.clone().unwrap_or_default()))
    };
    let mut told: Vec<_> = events.iter().filter_map(told).collect();
    told.sort_by_key(|(at, _, _)| *at);
    told.into_iter().map(|(_, component, why)| (component, why)).collect()
}

fn ago(time: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(-seconds_from(time, now)).unwrap_or_default())
}

/// What the leader's Lease says.
fn led(Leading { lease, renewed }: Leading) -> Leader {
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    Leader { holder, renewed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_refusal_of_pods_is_told() {
        let event = |kind: &str, name: &str, time: &str, note: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": { "name": "x" }, "reason": "FailedCreate", "note": note,
                "eventTime": null, "deprecatedLastTimestamp": time,
                "regarding": { "kind": kind, "name": name },
            }))
            .unwrap()
        };
        let events = [
            event("DaemonSet", "lb-speaker", "2026-01-01T00:09:00Z", "violates PodSecurity"),
            event("DaemonSet", "lb-speaker", "2026-01-01T00:05:00Z", "before that"),
            event("DaemonSet", "other", "2026-01-01T00:09:00Z", "theirs"),
            event("ReplicaSet", "lb-5d", "2025-12-31T00:00:00Z", "long ago"),
            event("ReplicaSet", "lb-web-5d", "2026-01-01T00:09:00Z", "another Deployment's"),
        ];
        let names = (Some("lb".to_owned()), Some("lb-speaker".to_owned()));
        let told =
            |events: &[Event]| refused(events, &names, "2026-01-01T00:10:00Z".parse().unwrap());
        let speakers = [(Component::Speaker, "violates PodSecurity".to_owned())].into();
        assert_eq!(told(&events), speakers);
        let quota = event("ReplicaSet", "lb-5d", "2026-01-01T00:09:00Z", "exceeded quota");
        assert_eq!(told(&[quota]), [(Component::Controller, "exceeded quota".to_owned())].into());
    }

    #[test]
    fn pods_say_what_ails_them() {
        let object: v1::Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "arpeggio-speaker-x", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app.kubernetes.io/component": "speaker" },
            },
            "spec": { "nodeName": "node-1", "containers": [
                { "name": "proxy", "image": "mesh:9" }, { "name": "speaker", "image": "a/b:1" },
            ] },
            "status": { "podIPs": [{ "ip": "10.244.1.7" }], "containerStatuses": [{
                "name": "speaker", "ready": false, "restartCount": 3, "image": "a/b:1", "imageID": "",
                "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": {
                    "exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:09:00Z",
                } },
            }, {
                "name": "forwarder", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": { "waiting": { "reason": "ErrImageNeverPull" } },
            }] },
        }))
        .unwrap();
        let found = pod(&object, "2026-01-01T00:10:00Z".parse().unwrap()).unwrap();
        assert_eq!(found.addresses, ["10.244.1.7".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(found.waiting.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(found.beside, Some(("forwarder".to_owned(), "ErrImageNeverPull".to_owned())));
        assert_eq!(found.ended, Some((Duration::from_mins(1), "Error, exit code 1".to_owned())));
        assert_eq!(
            (found.ready, found.restarts, found.age),
            (false, 3, Some(Duration::from_mins(10)))
        );
        assert_eq!(found.image, "a/b:1", "a mesh may have put its own container first");
        for phase in ["Failed", "Succeeded"] {
            let mut over = object.clone();
            over.status.as_mut().unwrap().phase = Some(phase.to_owned());
            let found = pod(&over, "2026-01-01T00:10:00Z".parse().unwrap());
            assert_eq!(found, None, "another one has replaced it");
        }
        let mut other = object;
        other.metadata.labels = None;
        assert!(pod(&other, "2026-01-01T00:10:00Z".parse().unwrap()).is_none());
    }
}
