//! What each component changes, and that another namespace is followed everywhere.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    objects::Objects,
    rendered::{kustomized, manifests, overlay},
};

const CONTROLLER: &str = "Deployment/arpeggio-controller";
const SPEAKER: &str = "DaemonSet/arpeggio-speaker";
const DEFINITION: &str = "CustomResourceDefinition/addresspools.arpeggio.dev";

/// The namespace that Arpeggio is installed in here.
const ELSEWHERE: &str = "lb";

fn base() -> Objects {
    Objects::parse(&kustomized(&manifests().join("base")))
}

fn with(component: &str) -> Objects {
    overlay(component, ELSEWHERE, &[component])
}

fn all_components() -> Vec<String> {
    let entries = std::fs::read_dir(manifests().join("components")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn another_namespace_is_followed_everywhere() {
    let components = all_components();
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    let objects = overlay("elsewhere", ELSEWHERE, &components);
    for (name, object) in &objects.0 {
        let text = object.to_string();
        assert!(!text.contains("arpeggio-system"), "{name}: {text}");
        let namespace = object["metadata"]["namespace"].as_str();
        match name.as_str() {
            // MetalLB's, which stays where it is.
            "Role/arpeggio-metallb" | "RoleBinding/arpeggio-metallb" => {
                assert_eq!(namespace, Some("metallb-system"), "{name}");
            }
            _ => assert!(namespace.is_none_or(|it| it == ELSEWHERE), "{name}: {namespace:?}"),
        }
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], ELSEWHERE, "{name}");
        }
    }
    assert!(objects.has("Namespace/lb"));
    let subjects = &objects.get("FlowSchema/arpeggio-leases")["spec"]["rules"][0]["subjects"];
    for subject in subjects.as_array().unwrap() {
        assert_eq!(subject["serviceAccount"]["namespace"], ELSEWHERE);
    }
    for name in ["PodMonitor/arpeggio-forwarder", "PrometheusRule/arpeggio"] {
        assert_eq!(objects.get(name)["metadata"]["namespace"], ELSEWHERE, "{name}");
    }
}

/// `arpeggio uninstall` names the commands that delete by this label.
#[test]
fn every_object_says_what_it_is_part_of() {
    let components = all_components();
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    for (name, object) in &overlay("labels", ELSEWHERE, &components).0 {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "arpeggio", "{name}");
    }
}

#[test]
fn objects_and_images_have_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let components = all_components();
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    let objects = overlay("versions", ELSEWHERE, &components);
    for (name, object) in base().0.iter().chain(&objects.0) {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/version"], version, "{name}");
        let containers = object.pointer("/spec/template/spec/containers");
        for container in containers.and_then(Value::as_array).into_iter().flatten() {
            let image = container["image"].as_str().unwrap();
            assert!(image.ends_with(&format!(":{version}")), "{image}");
        }
    }
}

#[test]
fn without_definitions_nothing_else_is_missing() {
    let objects = with("configmap-only");
    assert!(base().has(DEFINITION));
    assert!(!objects.has(DEFINITION));
    assert_eq!(objects.0.len() + 1, base().0.len());
}

#[test]
fn flags_are_given_by_the_environment_and_go_together() {
    let fast = with("fast");
    assert_eq!(fast.environment(SPEAKER).get("ARPEGGIO_PROBE_PROFILE"), Some(&"fast"));
    let single = with("single-node");
    let environment = single.environment(SPEAKER);
    assert_eq!(environment.get("ARPEGGIO_IGNORE_EXCLUSION_LABEL"), Some(&"true"));
    assert_eq!(single.get(CONTROLLER)["spec"]["replicas"], 1);
    let both = overlay("both", ELSEWHERE, &["fast", "single-node"]);
    let environment = both.environment(SPEAKER);
    for name in
        ["ARPEGGIO_PROBE_PROFILE", "ARPEGGIO_IGNORE_EXCLUSION_LABEL", "ARPEGGIO_ADMIN_SOCKET"]
    {
        assert!(environment.contains_key(name), "{name}");
    }
}

/// Which nodes may serve is not to be seen in two ways on one node.
#[test]
fn the_forwarder_ignores_the_exclusion_label_where_the_speaker_does() {
    let name = "ARPEGGIO_IGNORE_EXCLUSION_LABEL";
    for (folder, components, expected) in [
        ("forwarder-first", &["forwarder", "single-node"][..], Some(&"true")),
        ("forwarder-last", &["single-node", "fast", "forwarder"], Some(&"true")),
        ("forwarder-alone", &["forwarder"], None),
    ] {
        let objects = overlay(folder, ELSEWHERE, components);
        for container in [0, 1] {
            let environment = objects.environment_of(SPEAKER, container);
            assert_eq!(environment.get(name), expected, "{folder}, container {container}");
        }
        let containers = &objects.get(SPEAKER)["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers.as_array().map(Vec::len), Some(2), "{folder}");
    }
    let alone = with("single-node");
    let containers = &alone.get(SPEAKER)["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
}

/// Its tolerations let it go everywhere.
#[test]
fn the_speaker_runs_on_no_node_that_is_no_machine() {
    let pod = base().get(SPEAKER)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
    let terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"]
        .as_array()
        .unwrap();
    // A node need fit one of them only.
    let [term] = &terms[..] else { panic!("{terms:?}") };
    for (key, value) in [("type", "virtual-kubelet"), ("eks.amazonaws.com/compute-type", "fargate")]
    {
        let excluded = json!({ "key": key, "operator": "NotIn", "values": [value] });
        assert!(term["matchExpressions"].as_array().unwrap().contains(&excluded), "{key}");
    }
}

#[test]
fn a_budget_never_keeps_the_last_controller_on_a_node() {
    let budget = &base().get("PodDisruptionBudget/arpeggio-controller")["spec"].clone();
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["minAvailable"], Value::Null);
}

#[test]
fn the_egress_component_adds_to_what_may_come_in() {
    let policy = with("egress").get("NetworkPolicy/arpeggio-controller")["spec"].clone();
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let rules = policy["egress"].as_array().unwrap().iter();
    let ports = rules.flat_map(|rule| rule["ports"].as_array().unwrap());
    let ports: Vec<_> = ports.map(|it| (&it["port"], &it["protocol"])).collect();
    // The API server's address may be a name in KUBERNETES_SERVICE_HOST.
    for expected in [(6443, "TCP"), (443, "TCP"), (53, "UDP"), (53, "TCP")] {
        assert!(ports.contains(&(&json!(expected.0), &json!(expected.1))), "{expected:?}");
    }
    assert_eq!(policy["ingress"], json!([{ "ports": [{ "port": "metrics", "protocol": "TCP" }] }]));
}

#[test]
fn on_openshift_the_speakers_pod_may_have_what_it_asks_for_and_no_more() {
    for (folder, components) in
        [("scc-alone", &["openshift"][..]), ("scc-forwarder", &["openshift", "forwarder"])]
    {
        let objects = overlay(folder, ELSEWHERE, components);
        let constraints = objects.get("SecurityContextConstraints/arpeggio-speaker");
        let pod = objects.get(SPEAKER)["spec"]["template"]["spec"].clone();
        assert_eq!(constraints["allowHostNetwork"], pod["hostNetwork"]);
        let containers = pod["containers"].as_array().unwrap();
        let added = containers.iter().map(|it| &it["securityContext"]["capabilities"]["add"]);
        let added: Vec<&Value> = added.filter_map(Value::as_array).flatten().collect();
        assert_eq!(constraints["allowedCapabilities"], json!(added), "{folder}");
        assert_eq!(constraints["allowPrivilegedContainer"], false);
        assert_eq!(constraints["allowPrivilegeEscalation"], false);
        let role = objects.get("ClusterRole/arpeggio-scc-speaker");
        assert_eq!(role["rules"][0]["resourceNames"], json!(["arpeggio-speaker"]));
        let namespace = &objects.get(&format!("Namespace/{ELSEWHERE}"))["metadata"];
        assert_eq!(namespace["annotations"], json!({ "openshift.io/node-selector": "" }));
    }
}

/// Whether one of the rules of this role allows it.
fn allows(role: &Value, group: &str, resource: &str, verb: &str) -> bool {
    let has = |rule: &Value, key: &str, it: &str| {
        rule[key].as_array().is_some_and(|all| all.contains(&json!(it)))
    };
    role["rules"].as_array().unwrap().iter().any(|rule| {
        has(rule, "apiGroups", group)
            && has(rule, "resources", resource)
            && has(rule, "verbs", verb)
    })
}

#[test]
fn operators_may_read_what_explains_a_service() {
    let base = base();
    let role = base.get("ClusterRole/arpeggio-operator");
    for (group, resource, verb) in [
        ("", "services", "get"),
        ("", "services", "list"),
        ("", "namespaces", "list"),
        ("", "nodes", "list"),
        ("arpeggio.dev", "addresspools", "list"),
        ("discovery.k8s.io", "endpointslices", "list"),
        ("events.k8s.io", "events", "list"),
        ("metallb.io", "addresspools", "list"),
        ("metallb.io", "ipaddresspools", "list"),
        ("metallb.io", "l2advertisements", "list"),
        ("networking.k8s.io", "servicecidrs", "list"),
    ] {
        assert!(allows(role, group, resource, verb), "{verb} {resource} of group {group:?}");
    }
    assert!(!allows(role, "", "configmaps", "list"), "they may have secrets");
    let inside = base.get("Role/arpeggio-operator");
    for (group, resource) in [("coordination.k8s.io", "leases"), ("", "configmaps")] {
        assert!(allows(inside, group, resource, "list"), "{resource}");
    }
}

/// Fields of pods and budgets that came after the oldest version that there is to be, or were off there: its API server drops them
/// without a word, or refuses the object.
const NEWER_FIELDS: [&str; 11] = [
    "appArmorProfile",
    "hostUsers",
    "mismatchLabelKeys",
    "procMount",
    "recursiveReadOnly",
    "resizePolicy",
    "resourceClaims",
    "schedulingGates",
    "sleep",
    "supplementalGroupsPolicy",
    "trafficDistribution",
];

/// The names of all fields in it, apart from those of labels and the like.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, value) in fields_of {
                into.insert(name.clone());
                if !["annotations", "labels", "matchLabels", "data"].contains(&name.as_str()) {
                    fields(value, into);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        _ => {}
    }
}

#[test]
fn nothing_is_newer_than_the_oldest_kubernetes() {
    for component in all_components().iter().filter(|it| *it != "admission") {
        for (name, object) in &with(component).0 {
            let mut used = BTreeSet::new();
            fields(object, &mut used);
            if !name.starts_with("CustomResourceDefinition/") {
                let newer: Vec<_> = NEWER_FIELDS.iter().filter(|it| used.contains(**it)).collect();
                assert!(newer.is_empty(), "{component}, {name}: {newer:?}");
            }
            let version = object["apiVersion"].as_str().unwrap();
            let known = ["v1", "apps/v1", "policy/v1", "apiextensions.k8s.io/v1"];
            let known_groups = [
                "rbac.authorization.k8s.io/v1",
                "networking.k8s.io/v1",
                "flowcontrol.apiserver.k8s.io/v1",
                "monitoring.coreos.com/v1",
                "security.openshift.io/v1",
                "arpeggio.dev/v1alpha1",
            ];
            assert!(
                known.contains(&version) || known_groups.contains(&version),
                "{component}, {name}: {version}"
            );
        }
    }
}

/// With a quota on them pods without requests are refused, and a default limit on the processor would slow them down.
#[test]
fn every_container_asks_for_what_it_needs() {
    for component in all_components() {
        for (name, object) in &with(&component).0 {
            let containers = object["spec"]["template"]["spec"]["containers"].as_array();
            for container in containers.into_iter().flatten() {
                let resources = &container["resources"];
                for what in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                    assert!(resources.pointer(what).is_some(), "{component}, {name}: {what}");
                }
                assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{component}, {name}");
            }
        }
    }
}

/// A container without ports is found at every endpoint of its pod, each under its own name: nobody is to be counted twice. Each has
/// a monitor of its own, since alerts tell by the job who does not answer.
#[test]
fn each_container_is_scraped_once_and_where_it_serves_metrics() {
    let objects = overlay("scraped", ELSEWHERE, &["monitoring", "forwarder"]);
    let containers = objects.get(SPEAKER)["spec"]["template"]["spec"]["containers"].clone();
    let names = containers.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["speaker", "forwarder"]);
    for (container, port) in [("speaker", "7474"), ("forwarder", "7475")] {
        let monitor = objects.get(&format!("PodMonitor/arpeggio-{container}"));
        let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().unwrap();
        let [endpoint] = &endpoints[..] else { panic!("{container}: {endpoints:?}") };
        let rules = endpoint["relabelings"].as_array().unwrap();
        let keeps = rules.iter().find(|rule| rule["action"] == "keep").unwrap();
        assert_eq!(keeps["sourceLabels"], json!(["__meta_kubernetes_pod_container_name"]));
        assert_eq!(keeps["regex"], container);
        let places = rules.iter().filter(|rule| rule["targetLabel"] == "__address__");
        let ports = places.filter_map(|rule| rule["replacement"].as_str()?.rsplit(':').next());
        assert_eq!(ports.collect::<Vec<_>>(), [port, port], "{container}");
    }
}

#[test]
fn pods_are_scraped_where_they_serve_metrics() {
    let objects = with("monitoring");
    for component in ["controller", "speaker", "forwarder"] {
        let monitor = objects.get(&format!("PodMonitor/arpeggio-{component}"));
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let workload = if component == "controller" { CONTROLLER } else { SPEAKER };
        let labels = &objects.get(workload)["spec"]["template"]["metadata"]["labels"];
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&labels[key], value, "{component}: {key}");
        }
    }
}
