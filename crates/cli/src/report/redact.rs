//! What of an object goes into an archive that strangers read. What is not named here does not.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::service::request::SHARING_ANNOTATIONS;
use serde_json::{Map, Value, json};

use crate::installed::PART;

/// In the place of what is left out.
const REDACTED: &str = "(redacted)";

/// The annotations whose values say what Arpeggio does. Those of other programs may hold anything: kubectl keeps whole objects in
/// one of them.
const OURS: [&str; 4] = ["arpeggio.dev/", "metallb.io/", "metallb.universe.tf/", "prometheus.io/"];

/// The containers that run Arpeggio's programs. What else somebody has put into its pods may be told anything.
const PROGRAMS: [&str; 3] = ["controller", "speaker", "forwarder"];

/// A value that is shorter is no secret, or it stands in too many words.
const SHORTEST_SECRET: usize = 6;

/// Parts of an object.
type Fields = &'static [&'static str];

const METADATA: Fields = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "finalizers",
];

/// A kind, and which parts of its objects are of use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    spec: Fields,
    status: Fields,
    /// Parts beside these two.
    rest: Fields,
}

/// Everything of a pool is Arpeggio's own.
pub(super) const POOL: Outline = Outline {
    spec: &[
        "addresses",
        "excludedAddresses",
        "autoAssign",
        "avoidBuggyIPs",
        "allocation",
        "reuseCoolDownSeconds",
        "sharing",
        "announce",
        "routed",
    ],
    status: &["conditions", "ipv4", "ipv6", "observedGeneration"],
    rest: &[],
};

pub(super) const LEASE: Outline = Outline {
    spec: &[
        "holderIdentity",
        "leaseDurationSeconds",
        "acquireTime",
        "renewTime",
        "leaseTransitions",
    ],
    status: &[],
    rest: &[],
};

pub(super) const SERVICE: Outline = Outline {
    spec: &[
        "type",
        "ports",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerIP",
        "loadBalancerClass",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "allocateLoadBalancerNodePorts",
        "healthCheckNodePort",
        "loadBalancerSourceRanges",
        "externalIPs",
        "sessionAffinity",
    ],
    status: &["loadBalancer", "conditions"],
    rest: &[],
};

pub(super) const NODE: Outline = Outline {
    spec: &["unschedulable", "taints", "podCIDRs"],
    status: &["addresses", "conditions", "nodeInfo"],
    rest: &[],
};

pub(super) const SLICE: Outline =
    Outline { spec: &[], status: &[], rest: &["addressType", "endpoints", "ports"] };

pub(super) const EVENT: Outline = Outline {
    spec: &[],
    status: &[],
    rest: &[
        "eventTime",
        "reason",
        "action",
        "note",
        "type",
        "regarding",
        "reportingController",
        "reportingInstance",
        "series",
        "deprecatedFirstTimestamp",
        "deprecatedLastTimestamp",
        "deprecatedCount",
    ],
};

pub(super) const WORKLOAD: Outline = Outline {
    spec: &["replicas", "strategy", "updateStrategy"],
    status: &[
        "replicas",
        "readyReplicas",
        "updatedReplicas",
        "availableReplicas",
        "conditions",
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "numberUnavailable",
    ],
    rest: &[],
};

pub(super) const POD: Outline = Outline {
    spec: &["nodeName", "hostNetwork", "priorityClassName", "serviceAccountName", "tolerations"],
    status: &[
        "phase",
        "conditions",
        "podIPs",
        "hostIPs",
        "startTime",
        "containerStatuses",
        "qosClass",
        "reason",
        "message",
    ],
    rest: &[],
};

/// Of a container, what says how the program runs.
const CONTAINER: Fields = &[
    "name",
    "image",
    "imagePullPolicy",
    "args",
    "command",
    "resources",
    "ports",
    "securityContext",
];

/// Of a container of somebody else's.
const STRANGER: Fields = &["name", "image"];

/// Of its state.
const STRANGERS_STATE: Fields = &["name", "image", "ready", "restartCount", "started"];

impl Outline {
    /// What of an object goes into the archive.
    pub(super) fn of(self, object: &Value) -> Value {
        let mut kept = picked(object, self.rest);
        let mut metadata = picked(&object["metadata"], METADATA);
        let annotations = annotations(&object["metadata"]["annotations"]);
        if !annotations.is_empty() {
            metadata.insert("annotations".to_owned(), Value::Object(annotations));
        }
        kept.insert("metadata".to_owned(), Value::Object(metadata));
        for (part, fields) in [("spec", self.spec), ("status", self.status)] {
            let picked = picked(&object[part], fields);
            if !picked.is_empty() {
                kept.insert(part.to_owned(), Value::Object(picked));
            }
        }
        Value::Object(kept)
    }
}

/// Whether this container of a pod of Arpeggio's runs one of its programs.
pub(super) fn is_program(container: &str) -> bool {
    PROGRAMS.contains(&container)
}

/// A pod, with its containers; of the environment only the names. Other programs have containers of such names, too.
pub(super) fn pod(object: &Value) -> Value {
    let (key, value) = PART;
    let is_part = object["metadata"]["labels"][key] == value;
    let is_ours = |it: &Value| is_part && it["name"].as_str().is_some_and(is_program);
    let mut kept = POD.of(object);
    let containers = object["spec"]["containers"].as_array().into_iter().flatten();
    kept["spec"]["containers"] = containers.map(|it| container(it, is_ours(it))).collect();
    let statuses = kept.pointer_mut("/status/containerStatuses").and_then(Value::as_array_mut);
    for status in statuses.into_iter().flatten().filter(|it| !is_ours(it)) {
        *status = picked(status, STRANGERS_STATE).into();
    }
    kept
}

fn container(object: &Value, is_ours: bool) -> Value {
    let mut kept = picked(object, if is_ours { CONTAINER } else { STRANGER });
    let env = object["env"].as_array().into_iter().flatten();
    let names: Vec<Value> =
        env.map(|it| json!({ "name": it["name"], "value": REDACTED })).collect();
    if !names.is_empty() {
        kept.insert("env".to_owned(), names.into());
    }
    Value::Object(kept)
}

fn picked(object: &Value, fields: Fields) -> Map<String, Value> {
    let present = fields.iter().filter_map(|field| Some((*field, object.get(field)?)));
    present.map(|(field, value)| (field.to_owned(), value.clone())).collect()
}

fn annotations(all: &Value) -> Map<String, Value> {
    let all = all.as_object().into_iter().flatten();
    all.map(|(key, value)| {
        let value = if is_shown(key) { value.clone() } else { json!(REDACTED) };
        (key.clone(), value)
    })
    .collect()
}

fn is_shown(key: &str) -> bool {
    OURS.iter().any(|prefix| key.starts_with(prefix)) && !SHARING_ANNOTATIONS.contains(&key)
}

/// What must not be in the archive wherever it comes from: logs and events may repeat what somebody wrote in an object.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    hidden: BTreeSet<String>,
    /// What everybody sees anyway, as names: Helm writes its release's and its namespace's to annotations.
    shown: BTreeSet<String>,
}

impl Secrets {
    /// Adds the annotations of an object that are not shown, and the environment of its containers.
    pub(super) fn learn(&mut self, object: &Value) {
        let annotations = object["metadata"]["annotations"].as_object().into_iter().flatten();
        let hidden = annotations.filter(|(key, _)| !is_shown(key)).map(|(_, value)| value);
        hidden.for_each(|value| self.add(value));
        let containers = ["containers", "initContainers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|kind| object["spec"][kind].as_array().into_iter().flatten());
        let env = containers.flat_map(|it| it["env"].as_array().into_iter().flatten());
        // Arpeggio's own settings are no secrets.
        let foreign =
            env.filter(|it| !it["name"].as_str().unwrap_or_default().starts_with("ARPEGGIO_"));
        foreign.for_each(|it| self.add(&it["value"]));
    }

    /// That everybody may know the names and labels of an object.
    pub(super) fn show(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let values = labels.map(|(_, value)| value);
        let shown = [&metadata["name"], &metadata["namespace"]].into_iter().chain(values);
        self.shown.extend(shown.filter_map(|it| it.as_str().map(str::to_owned)));
    }

    fn add(&mut self, value: &Value) {
        let text = value.as_str().map(str::trim).unwrap_or_default();
        for secret in [Some(text), password(text)].into_iter().flatten() {
            if secret.len() >= SHORTEST_SECRET && secret.parse::<IpAddr>().is_err() {
                self.hidden.insert(secret.to_owned());
            }
        }
    }

    /// The text without them.
    pub(super) fn scrub(&self, text: &str) -> String {
        // The longest first: one may be a part of another.
        let mut secrets: Vec<&String> = self.hidden.difference(&self.shown).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text.to_owned(), |text, secret| without(text, secret))
    }
}

/// Of `http://user:password@host`, as a proxy has it: programs may repeat only that.
fn password(text: &str) -> Option<&str> {
    let (user, _) = text.split_once("://")?.1.rsplit_once('@')?;
    Some(user.split_once(':')?.1)
}

/// The text without this secret. What may be a word of the language is only left out as a whole one: `external` is a part of
/// `externalTrafficPolicy`.
fn without(text: String, secret: &str) -> String {
    if !text.contains(secret) {
        return text;
    }
    if !secret.bytes().all(|it| it.is_ascii_lowercase()) {
        return text.replace(secret, REDACTED);
    }
    let mut left = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(secret) {
        let (before, after) = (&rest[..at], &rest[at + secret.len()..]);
        let goes_on = before.ends_with(char::is_alphanumeric)
            || (before.is_empty() && left.ends_with(char::is_alphanumeric))
            || after.starts_with(char::is_alphanumeric);
        left.push_str(before);
        left.push_str(if goes_on { secret } else { REDACTED });
        rest = after;
    }
    left + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2-of-the-shop";

    /// Objects of several kinds, with a secret wherever somebody may have put one.
    fn planted() -> Vec<(Value, Value)> {
        let last_applied = json!({
            "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"password\":\"{SECRET}\"}}"),
            "example.com/token": SECRET,
            "arpeggio.dev/sharing-key": SECRET,
            "metallb.io/allow-shared-ip": SECRET,
            "arpeggio.dev/address-pool": "home",
        });
        let metadata = json!({
            "name": "web", "namespace": "shop", "annotations": last_applied,
            "managedFields": [{ "fieldsV1": { "f:x": SECRET } }],
        });
        let service = json!({
            "metadata": metadata,
            "spec": { "type": "LoadBalancer", "selector": { "token": SECRET } },
        });
        let pod_object = json!({
            "metadata": metadata,
            "spec": {
                "nodeName": "node-1",
                "volumes": [{ "name": SECRET }],
                "containers": [{
                    "name": "speaker", "image": "arpeggio/speaker",
                    "env": [
                        { "name": "PASSWORD", "value": SECRET },
                        { "name": "ARPEGGIO_ADMIN_SOCKET", "value": "/run/arpeggio/admin.sock" },
                    ],
                    "envFrom": [{ "secretRef": { "name": SECRET } }],
                }],
            },
        });
        let outlines = [POOL, LEASE, SERVICE, NODE, SLICE, EVENT, WORKLOAD];
        let mut all: Vec<(Value, Value)> =
            outlines.map(|it| (service.clone(), it.of(&service))).into();
        all.push((pod_object.clone(), pod(&pod_object)));
        all
    }

    #[test]
    fn a_planted_secret_is_left_out() {
        for (object, kept) in planted() {
            assert!(object.to_string().contains(SECRET));
            assert!(!kept.to_string().contains(SECRET), "{kept}");
            assert_eq!(kept["metadata"]["annotations"]["arpeggio.dev/address-pool"], "home");
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let (_, pod) = planted().pop().unwrap();
        let env = &pod["spec"]["containers"][0]["env"][0];
        assert_eq!(*env, json!({ "name": "PASSWORD", "value": REDACTED }));
        assert_eq!(pod["metadata"]["annotations"]["example.com/token"], REDACTED);
    }

    #[test]
    fn what_somebody_else_runs_in_our_pods_is_not_shown() {
        let object = json!({
            "metadata": { "name": "speaker-x", "labels": { "app.kubernetes.io/name": "arpeggio" } },
            "spec": { "containers": [
                { "name": "speaker", "args": ["--log=debug"] },
                { "name": "proxy", "image": "mesh", "args": [format!("--token={SECRET}")],
                  "command": ["sh", "-c", SECRET] },
            ] },
            "status": { "containerStatuses": [
                { "name": "speaker", "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
                { "name": "proxy", "ready": false,
                  "lastState": { "terminated": { "message": SECRET } } },
            ] },
        });
        let kept = pod(&object);
        assert!(!kept.to_string().contains(SECRET), "{kept}");
        assert_eq!(kept["spec"]["containers"][0]["args"], json!(["--log=debug"]));
        assert_eq!(kept["spec"]["containers"][1], json!({ "name": "proxy", "image": "mesh" }));
        let states = &kept["status"]["containerStatuses"];
        assert_eq!(states[0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(states[1], json!({ "name": "proxy", "ready": false }));
    }

    #[test]
    fn what_somebody_elses_pod_runs_is_not_shown() {
        let object = |labels: Value| {
            json!({
                "metadata": { "name": "theirs", "labels": labels },
                "spec": { "containers": [
                    { "name": "controller", "image": "a", "args": [format!("--token={SECRET}")] },
                ] },
                "status": { "containerStatuses": [
                    { "name": "controller", "ready": false,
                      "lastState": { "terminated": { "message": SECRET } } },
                ] },
            })
        };
        for labels in [Value::Null, json!({ "app.kubernetes.io/name": "theirs" })] {
            let kept = pod(&object(labels));
            assert!(!kept.to_string().contains(SECRET), "{kept}");
            let containers = &kept["spec"]["containers"];
            assert_eq!(*containers, json!([{ "name": "controller", "image": "a" }]));
        }
    }

    #[test]
    fn names_and_addresses_are_no_secrets() {
        let service = json!({ "metadata": {
            "name": "grafana", "namespace": "default", "labels": { "team": "billing" },
            "annotations": {
                "meta.helm.sh/release-name": "grafana",
                "meta.helm.sh/release-namespace": "default",
                "example.com/team": "billing",
                "kube-vip.io/loadbalancerIPs": "192.168.0.240",
                "example.com/scheme": "external",
                "example.com/token": SECRET,
            },
        } });
        let mut secrets = Secrets::default();
        secrets.learn(&service);
        secrets.show(&service);
        let text = "default/grafana has 192.168.0.240, externalTrafficPolicy, team billing";
        assert_eq!(secrets.scrub(text), text);
        assert_eq!(secrets.scrub("an external one"), "an (redacted) one");
        assert_eq!(secrets.scrub("externalexternal external"), "externalexternal (redacted)");
        assert_eq!(secrets.scrub(&format!("x{SECRET}x")), "x(redacted)x");
    }

    #[test]
    fn a_part_of_a_secret_is_one_too() {
        let mut secrets = Secrets::default();
        secrets.learn(&json!({ "spec": {
            "containers": [{ "env": [
                { "name": "HTTPS_PROXY", "value": format!("http://me:{SECRET}@proxy:3128/") },
            ] }],
            "initContainers": [{ "env": [{ "name": "TOKEN", "value": "an-init-token" }] }],
        } }));
        let log = format!("authority me:{SECRET}@proxy, token an-init-token");
        assert_eq!(secrets.scrub(&log), "authority me:(redacted)@proxy, token (redacted)");
    }

    #[test]
    fn a_secret_that_a_log_repeats_is_left_out() {
        let mut secrets = Secrets::default();
        planted().iter().for_each(|(object, _)| secrets.learn(object));
        let log = format!("key {SECRET} at /run/arpeggio/admin.sock on home");
        assert_eq!(secrets.scrub(&log), "key (redacted) at /run/arpeggio/admin.sock on home");
    }
}
