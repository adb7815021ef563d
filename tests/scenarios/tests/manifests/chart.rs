//! The chart: what it takes from other files, and that it renders what the manifests do.

use std::{fs, path::Path, process::Command};

use arpeggio_scenarios::helm_program;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    objects::Objects,
    rendered::{is_up_to_date, kustomized, manifests, output, overlay, text},
};

const NAMESPACE: &str = "arpeggio-system";

/// What the chart renders with these values.
fn rendered(namespace: &str, values: &Value) -> Objects {
    let mut helm = Command::new(helm_program("helm").unwrap());
    helm.args(["template", "arpeggio", "--namespace", namespace, "--values", "-"]);
    helm.arg(manifests().join("chart"));
    Objects::parse(&with_input(&mut helm, &values.to_string()).unwrap())
}

/// What a program prints, or its complaint.
fn with_input(command: &mut Command, input: &str) -> Result<String, String> {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{:?}", std::thread::current().id()));
    fs::write(&file, input).unwrap();
    let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    fs::remove_file(&file).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Without what only Helm writes, what kustomize does to a kind that it does not know, and the order of variables.
fn comparable(mut objects: Objects) -> Objects {
    for object in objects.0.values_mut() {
        let metadata = object["metadata"].as_object_mut().unwrap();
        let labels = metadata["labels"].as_object_mut().unwrap();
        labels.remove("helm.sh/chart");
        labels.remove("app.kubernetes.io/managed-by");
        // By these, components of kustomize know one another.
        labels.retain(|name, _| !name.starts_with("arpeggio.dev/component-"));
        if ["FlowSchema", "SecurityContextConstraints"].contains(&object["kind"].as_str().unwrap())
        {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        let containers = object.pointer_mut("/spec/template/spec/containers");
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(Value::Array(variables)) = container.get_mut("env") {
                variables.sort_by_key(|variable| variable["name"].to_string());
            }
        }
    }
    objects
}

fn assert_same(chart: Objects, mut manifests: Objects) {
    // Helm makes the namespace, and installs what is in crds/.
    manifests
        .0
        .retain(|name, _| !name.starts_with("Namespace/") && !name.starts_with("CustomResource"));
    let (chart, manifests) = (comparable(chart), comparable(manifests));
    assert_eq!(chart.0.keys().collect::<Vec<_>>(), manifests.0.keys().collect::<Vec<_>>());
    for (name, object) in &manifests.0 {
        assert_eq!(chart.get(name), object, "{name}");
    }
}

#[test]
fn with_default_values_the_chart_is_the_base() {
    let base = Objects::parse(&kustomized(&manifests().join("base")));
    assert_same(rendered(NAMESPACE, &json!({})), base);
}

#[test]
fn values_do_what_the_components_do() {
    let values = json!({
        "admission": true,
        "metallb": { "namespace": "metallb-system" },
        "networkPolicy": { "apiServerPorts": [443, 6443] },
        "controller": { "replicas": 1 },
        "speaker": { "ignoreExclusionLabel": true },
        "forwarder": { "enabled": true },
    });
    let components = ["admission", "metallb", "egress", "single-node", "forwarder"];
    assert_same(rendered("lb", &values), overlay("chart-one", "lb", &components));
    let values = json!({
        "openshift": true,
        "monitoring": { "enabled": true },
        "speaker": { "probeProfile": "fast" },
    });
    let components = ["openshift", "monitoring", "fast"];
    assert_same(rendered("lb", &values), overlay("chart-two", "lb", &components));
    let values = json!({ "openshift": true, "forwarder": { "enabled": true } });
    let components = ["openshift", "forwarder"];
    assert_same(rendered("lb", &values), overlay("chart-three", "lb", &components));
}

#[test]
fn pools_are_values_and_the_runbooks_have_an_address() {
    let spec = json!({ "addresses": ["192.168.0.240-192.168.0.250"], "autoAssign": false });
    let objects = rendered(
        "lb",
        &json!({
            "pools": [{ "name": "home", "spec": spec }],
            "configMapPools": "address-pools: []\n",
            "monitoring": { "enabled": true, "dashboard": true, "runbooks": "https://example.com/" },
        }),
    );
    assert_eq!(objects.get("AddressPool/home")["spec"], spec);
    assert_eq!(objects.get("ConfigMap/arpeggio")["data"]["config"], "address-pools: []");
    let rule = &objects.get("PrometheusRule/arpeggio")["spec"]["groups"][0]["rules"][0];
    let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
    assert!(runbook.starts_with("https://example.com/docs/monitoring.md#"), "{runbook}");
    let dashboard = &objects.get("ConfigMap/arpeggio-dashboard")["data"]["arpeggio.json"];
    let dashboard: Value = serde_json::from_str(dashboard.as_str().unwrap()).unwrap();
    assert_eq!(dashboard["title"], "Arpeggio");
}

/// Helm takes every number of a file for a fraction.
#[test]
fn large_numbers_stay_what_they_are() {
    let values =
        json!({ "controller": { "gracePeriod": 4_294_967_295_u32, "quarantine": 1_000_000 } });
    let objects = rendered("lb", &values);
    let environment = objects.environment("Deployment/arpeggio-controller");
    assert_eq!(environment.get("ARPEGGIO_GRACE_PERIOD"), Some(&"4294967295"));
    assert_eq!(environment.get("ARPEGGIO_QUARANTINE"), Some(&"1000000"));
    let at_once = rendered("lb", &json!({ "controller": { "gracePeriod": 0 } }));
    let environment = at_once.environment("Deployment/arpeggio-controller");
    assert_eq!(environment.get("ARPEGGIO_GRACE_PERIOD"), Some(&"0"));
}

#[test]
fn values_are_taken_as_the_programs_take_them() {
    let addresses =
        ["192.168.0.240 - 192.168.0.250", "fd00::10-fd00::20", "10.0.0.0/28", "FD00::1"];
    let objects = rendered(
        "lb",
        &json!({
            "pools": [{ "name": "home", "spec": { "addresses": addresses } }],
            "forwarder": { "enabled": true, "keepConnections": 0 },
        }),
    );
    assert_eq!(objects.get("AddressPool/home")["spec"]["addresses"], json!(addresses));
    let containers =
        &objects.get("DaemonSet/arpeggio-speaker")["spec"]["template"]["spec"]["containers"];
    let variables = containers[1]["env"].as_array().unwrap();
    let keep = variables.iter().find(|it| it["name"] == "ARPEGGIO_KEEP_CONNECTIONS").unwrap();
    assert_eq!(keep["value"], "0");
    for keep in ["24h", "23h59m60s", "1440m", "90s", "1h30m"] {
        rendered("lb", &forwarder(keep));
    }
    for log in
        ["", "info", "DEBUG", "off", "info,arpeggio_election=debug", "warn,[turn{node=a,b}]=trace"]
    {
        rendered("lb", &json!({ "speaker": { "log": log } }));
    }
    // As a chart of charts says it of one of them (`condition: arpeggio.enabled`).
    rendered("lb", &json!({ "enabled": true }));
}

#[test]
fn names_and_texts_that_yaml_takes_for_something_else_stay_what_they_are() {
    for name in ["7", "true", "1e3", "null", "0x10"] {
        let objects = rendered(
            name,
            &json!({
                "pools": [{ "name": name, "spec": { "addresses": ["10.0.0.1"] } }],
                "configMapPools": "    # pools\n    address-pools: []\n",
                "metallb": { "namespace": name },
                "imagePullSecrets": [name],
                "loadBalancerClass": name,
            }),
        );
        assert_eq!(objects.get(&format!("AddressPool/{name}"))["metadata"]["name"], name);
        for object in objects.0.values() {
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == name, "{object}");
        }
        let text = &objects.get("ConfigMap/arpeggio")["data"]["config"];
        assert_eq!(text, "    # pools\n    address-pools: []");
        let pod = &objects.get("Deployment/arpeggio-controller")["spec"]["template"]["spec"];
        assert_eq!(pod["imagePullSecrets"][0]["name"], name);
        let environment = objects.environment("Deployment/arpeggio-controller");
        assert_eq!(environment.get("ARPEGGIO_LOAD_BALANCER_CLASS"), Some(&name));
        assert_eq!(environment.get("ARPEGGIO_METALLB_NAMESPACE"), Some(&name));
    }
}

fn forwarder(keep: &str) -> Value {
    json!({ "forwarder": { "enabled": true, "keepConnections": keep } })
}

fn pool(name: &str) -> Value {
    json!({ "name": name, "spec": { "addresses": ["10.0.0.1"] } })
}

/// The pool with one field more.
fn with(mut pool: Value, field: &str, value: Value) -> Value {
    pool["spec"][field] = value;
    pool
}

/// What the definition of pools says of types and names, and that there are no others: the API server drops what it does not know.
fn closed(schema: &Value) -> Value {
    const KEPT: [&str; 10] = [
        "additionalProperties",
        "enum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "required",
    ];
    let mut closed = serde_json::Map::new();
    let kept = KEPT.iter().filter_map(|key| Some(((*key).to_owned(), schema.get(key)?.clone())));
    closed.extend(kept);
    let kind = if schema["nullable"] == true {
        json!([schema["type"], "null"])
    } else {
        schema["type"].clone()
    };
    closed.insert("type".to_owned(), kind);
    if let Some(items) = schema.get("items") {
        closed.insert("items".to_owned(), self::closed(items));
    }
    if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
        let fields = fields.iter().map(|(name, it)| (name.clone(), self::closed(it))).collect();
        closed.insert("properties".to_owned(), Value::Object(fields));
        closed.insert("additionalProperties".to_owned(), json!(false));
    }
    closed.into()
}

/// In one line of the values' schema.
#[test]
fn the_schema_of_pools_is_the_definitions_and_up_to_date() {
    const LINE: &str = "    \"poolSpec\": ";
    const ADDRESS: &str = r"^([0-9a-fA-F.:]+(/[0-9]+)?|\s*[0-9a-fA-F.:]+\s*-\s*[0-9a-fA-F.:]+\s*)$";
    let definition: Value =
        serde_saphyr::from_str(&text("manifests/crds/addresspools.yaml")).unwrap();
    let version = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut spec = closed(&version["properties"]["spec"]);
    for field in ["addresses", "excludedAddresses"] {
        spec["properties"][field]["items"]["pattern"] = json!(ADDRESS);
    }
    let schema = text("manifests/chart/values.schema.json");
    let lines = schema.lines().map(|line| match line.strip_prefix(LINE) {
        Some(_) => format!("{LINE}{spec},\n"),
        None => format!("{line}\n"),
    });
    is_up_to_date(&manifests().join("chart/values.schema.json"), &lines.collect::<String>());
}

#[test]
fn bad_values_are_refused_by_name() {
    let table = [
        (json!({ "pool": [] }), "pool"),
        (json!({ "pools": [{ "name": "home" }] }), "spec"),
        (json!({ "pools": [{ "name": "Home", "spec": { "addresses": ["10.0.0.1"] } }] }), "name"),
        (json!({ "pools": [{ "name": "a", "spec": { "addresses": ["some"] } }] }), "addresses"),
        (
            json!({ "pools": [{ "name": "a", "spec": { "addresses": ["10.0.0.1 /28"] } }] }),
            "addresses",
        ),
        (json!({ "speaker": { "probeProfile": "quick" } }), "probeProfile"),
        (json!({ "controller": { "quarantine": 5 } }), "quarantine"),
        (json!({ "controller": { "quarantine": 4_294_967_296_u64 } }), "quarantine"),
        (json!({ "controller": { "gracePeriod": 4_294_967_296_u64 } }), "gracePeriod"),
        (json!({ "enabled": "no" }), "enabled"),
        (json!({ "enabled": false }), "condition: arpeggio.enabled"),
        (json!({ "forwarder": { "keepConnections": 300 } }), "keepConnections"),
        (json!({ "forwarder": { "keepConnections": "5 minutes" } }), "keepConnections"),
        (json!({ "forwarder": { "keepConnections": "30s5m" } }), "keepConnections"),
        (forwarder("25h"), "keepConnections"),
        (forwarder("23h59m61s"), "keepConnections"),
        (forwarder("86401s"), "keepConnections"),
        (json!({ "controller": { "log": "warning" } }), "log"),
        (json!({ "speaker": { "log": "info,arpeggio_election=verbose" } }), "log"),
        (json!({ "forwarder": { "log": "debug arpeggio_election" } }), "log"),
        (json!({ "controller": { "replicas": "2" } }), "replicas"),
        (json!({ "monitoring": { "runbooks": "wiki" } }), "runbooks"),
        (json!({ "pools": [pool("a"), pool("a")] }), "named a"),
        (json!({ "pools": [with(pool("a"), "autoAsign", json!(true))] }), "autoAsign"),
        (
            json!({ "pools": [with(pool("a"), "announce", json!([{ "interface": [] }]))] }),
            "interface",
        ),
        (json!({ "pools": [with(pool("a"), "autoAssign", json!("no"))] }), "autoAssign"),
        (json!({ "controller": { "env": [{ "name": "A", "valeu": "b" }] } }), "valeu"),
        (json!({ "controller": { "env": [{ "name": "A", "value": 5 }] } }), "value"),
        (json!({ "speaker": { "resources": { "limit": {} } } }), "limit"),
        (json!({ "speaker": { "resources": { "limits": { "memory": "lots" } } } }), "memory"),
        (json!({ "speaker": { "tolerations": [{ "operator": "Exits" }] } }), "operator"),
        (json!({ "controller": { "affinity": { "nodeAfinity": {} } } }), "nodeAfinity"),
        (
            json!({ "controller": { "podLabels": { "app.kubernetes.io/name": "x" } } }),
            "kubernetes.io/name",
        ),
        (json!({ "controller": { "image": { "tag": "v1 2" } } }), "tag"),
        (json!({ "loadBalancerClass": "two words" }), "loadBalancerClass"),
        (json!({ "metallb": { "namespace": "MetalLB" } }), "namespace"),
        (json!({ "speaker": { "promiscuousInterfaces": ["eth0 eth1"] } }), "promiscuousInterfaces"),
    ];
    for (values, named) in table {
        let mut helm = Command::new(helm_program("helm").unwrap());
        helm.args(["template", "arpeggio", "--values", "-"]).arg(manifests().join("chart"));
        let refusal = with_input(&mut helm, &values.to_string()).expect_err("it was taken");
        assert!(refusal.contains(named), "{values}: {refusal}");
    }
}

#[test]
fn helm_has_nothing_to_say_against_the_chart() {
    let mut helm = Command::new(helm_program("helm").unwrap());
    let said = output(helm.args(["lint", "--strict"]).arg(manifests().join("chart")));
    assert!(said.contains("0 chart(s) failed"), "{said}");
}

#[test]
fn the_chart_has_the_version_of_the_programs() {
    let chart: Value = serde_saphyr::from_str(&text("manifests/chart/Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}

/// A chart can read its own folder only.
#[test]
fn what_the_chart_takes_from_elsewhere_is_up_to_date() {
    let files = manifests().join("chart/files");
    let rules = text("manifests/monitoring/rules.yaml");
    is_up_to_date(&files.join("rules.yaml"), &rules[rules.find("groups:").unwrap()..]);
    for (file, from) in [
        ("dashboard.json", "monitoring/dashboard.json"),
        ("pod-monitors.yaml", "components/monitoring/pod-monitors.yaml"),
        ("admission.yaml", "components/admission/policy.yaml"),
        ("openshift.yaml", "components/openshift/scc.yaml"),
    ] {
        is_up_to_date(&files.join(file), &text(&format!("manifests/{from}")));
    }
}

/// The chart's copy says which one it is, so that it can be told from another one in a cluster.
#[test]
fn the_charts_definition_is_ours_and_up_to_date() {
    let definition = text("manifests/crds/addresspools.yaml");
    let digest = format!("{:x}", Sha256::digest(&definition));
    let mark = &digest[..12];
    let chart = manifests().join("chart");
    is_up_to_date(&chart.join("files/definition"), &format!("{mark}\n"));
    let marked = definition.replacen(
        "metadata:\n",
        &format!("metadata:\n  annotations:\n    arpeggio.dev/definition: \"{mark}\"\n  labels:\n    app.kubernetes.io/name: arpeggio\n    app.kubernetes.io/part-of: arpeggio\n"),
        1,
    );
    is_up_to_date(&chart.join("crds/addresspools.yaml"), &marked);
}

#[test]
fn the_table_of_values_is_up_to_date() {
    let mut docs = Command::new(helm_program("helm-docs").unwrap());
    docs.args(["--dry-run", "--sort-values-order=file", "--chart-search-root"]);
    let page = output(docs.arg(manifests().join("chart")));
    let page = page.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    is_up_to_date(&manifests().join("chart/README.md"), &format!("{}\n", page.trim()));
}
