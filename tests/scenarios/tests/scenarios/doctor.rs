//! `arpeggio doctor`: nothing is found where all is well, and each fault is found by its own code.

use std::{collections::BTreeSet, fs, process::Command, time::Instant};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    EXCLUDE, Home, HostProcess, NotYet, POOL, eprint_line, first_address, install_definitions,
    install_release, pool, service,
};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";
const SYSTEM: [&str; 2] = ["-n", "arpeggio-system"];
const CRD: &str = "addresspools.arpeggio.dev";

/// What is wrong, and the codes for it. Other ones are no errors, when they may follow from the same fault.
struct Fault<'a> {
    what: &'a str,
    code: &'a str,
    /// Codes that follow from the same fault.
    also: &'a [&'a str],
    args: &'a [&'a str],
}

/// Where the segment need not be asked, that is quicker.
const OBJECTS: &[&str] = &["--skip", "wire,proxy,S104,S105,S107,A711"];

impl<'a> Fault<'a> {
    const fn new(what: &'a str, code: &'a str) -> Self {
        Self { what, code, also: &[], args: OBJECTS }
    }

    const fn also(self, also: &'a [&'a str]) -> Self {
        Self { also, ..self }
    }

    const fn with(self, args: &'a [&'a str]) -> Self {
        Self { args, ..self }
    }

    /// Waits until it is found, and nothing else is.
    fn is_found(&self, home: &Home) -> anyhow::Result<()> {
        let Self { what, code, also, args } = self;
        let begin = Instant::now();
        home.wait_until(&format!("{what}: {code} is found"), || {
            let report = doctor(home, args)?;
            let wrong = report.wrong();
            let is_part = |it: &&String| it != code && !also.contains(&it.as_str());
            let others: Vec<&String> = wrong.iter().filter(is_part).collect();
            if wrong.contains(*code) && others.is_empty() {
                ensure_not_yet(report.exit > 0, "the exit code does not tell")?;
                return Ok(());
            }
            Err(report.text.into())
        })?;
        eprint_line(&format!("{code} after {:.1} s: {what}", begin.elapsed().as_secs_f64()));
        Ok(())
    }
}

fn ensure_not_yet(is_so: bool, otherwise: &str) -> Result<(), NotYet> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned().into()) }
}

/// What the doctor says.
struct Report {
    exit: i32,
    findings: Vec<Value>,
    text: String,
}

impl Report {
    /// The codes of warnings and errors.
    fn wrong(&self) -> BTreeSet<String> {
        let is_wrong = |it: &&Value| it["severity"] == "warning" || it["severity"] == "error";
        let codes = self.findings.iter().filter(is_wrong).filter_map(|it| it["code"].as_str());
        codes.map(str::to_owned).collect()
    }
}

fn doctor(home: &Home, args: &[&str]) -> anyhow::Result<Report> {
    let (exit, text) = home.arpeggio_exits(&[&["doctor", "-o", "json"], args].concat())?;
    let report: Value =
        serde_json::from_str(&text).with_context(|| format!("exit code {exit}: {text}"))?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    Ok(Report { exit, findings, text })
}

/// Nothing is wrong: no false alarm.
fn is_well(home: &Home, args: &[&str]) -> anyhow::Result<()> {
    let begin = Instant::now();
    let report = doctor(home, args)?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(report.exit == 0 && report.wrong().is_empty(), "a false alarm: {}", report.text);
    eprint_line(&format!("doctor {args:?}: nothing is wrong, {took:.1} s"));
    Ok(())
}

/// Nothing is wrong in a healthy cluster of another shape, once it has come to rest.
pub(crate) fn finds_nothing(home: &Home) -> anyhow::Result<()> {
    gets_well(home, &[])?;
    is_well(home, &[])
}

/// Waits until nothing is wrong any more.
fn gets_well(home: &Home, args: &[&str]) -> anyhow::Result<()> {
    home.wait_until("nothing is wrong any more", || {
        let report = doctor(home, args)?;
        if report.exit == 0 { Ok(()) } else { Err(report.text.into()) }
    })
}

pub(crate) fn each_fault_of_the_installation_has_its_code(home: &Home) -> anyhow::Result<()> {
    before_it_is_installed(home)?;
    install_release(&home.lab)?;
    home.serve_page()?;
    finds_nothing(home)?;
    let text = home.arpeggio(&["doctor"])?;
    ensure!(text.ends_with("nothing is wrong; not checked: 1\n"), "{text}");
    ensure!(text.contains("no DHCP server has answered a node"), "{text}");
    permissions_and_definitions(home)?;
    pools(home)?;
    pools_of_metallb(home)?;
    services(home)?;
    other_services(home)?;
    nodes_and_leases(home)?;
    controllers(home)?;
    without_the_definition(home)
}

fn before_it_is_installed(home: &Home) -> anyhow::Result<()> {
    const PRE: &[&str] = &["--pre"];
    // As kubeadm has the controller manager do it.
    let pods = json!({ "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] } });
    home.lab.kubectl(&["patch", "node", "node-1", "-p", &pods.to_string()])?;
    is_well(home, PRE)?;
    is_well(home, &["--pre", "--addresses", "192.168.0.240-192.168.0.250"])?;
    let missing = Fault::new("nothing is installed", "A301").also(&["A102", "A201", "A202"]);
    missing.is_found(home)?;
    for (range, code) in
        [("192.168.0.11", "A706"), ("10.244.1.0/28", "A704"), ("10.96.0.0/24", "A705")]
    {
        let what = format!("{range} is to be a pool");
        Fault::new(&what, code).with(&["--pre", "--addresses", range]).is_found(home)?;
    }

    let ipvs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        "data": { "config.conf": "mode: ipvs\nipvs:\n  strictARP: false\n" },
    });
    home.apply(&ipvs)?;
    Fault::new("IPVS without strict ARP", "A501").with(PRE).is_found(home)?;
    home.lab.kubectl(&["delete", "configmap", "kube-proxy", "-n", "kube-system"])?;

    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}=")])?;
    Fault::new("all nodes are excluded", "A601").with(PRE).is_found(home)?;
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}-")])?;

    home.apply(&rival())?;
    Fault::new("MetalLB is there", "A401").with(PRE).is_found(home)?;
    home.lab.kubectl(&["delete", "deployment", "rival"])?;
    is_well(home, PRE)
}

/// It runs nowhere: that it is to run is enough.
fn rival() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "rival", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "rival" } },
            "template": {
                "metadata": { "labels": { "app": "rival" } },
                "spec": {
                    "nodeSelector": { "nowhere": "true" },
                    "containers": [{ "name": "speaker", "image": "quay.io/metallb/speaker:v0.16.1" }],
                },
            },
        },
    })
}

fn permissions_and_definitions(home: &Home) -> anyhow::Result<()> {
    let remove = |what: &[&str], path: &str| {
        let patch = json!([{ "op": "remove", "path": path }]).to_string();
        home.lab.kubectl(&[&["patch"], what, &["--type=json", "-p", &patch]].concat())
    };
    remove(&["clusterrole", "arpeggio-speaker"], "/rules/1")?;
    Fault::new("speakers may not read nodes", "A202").is_found(home)?;
    remove(&["role", "arpeggio-controller", "-n", "arpeggio-system"], "/rules/1")?;
    let both = Fault::new("controllers may not read their ConfigMap", "A201").also(&["A202"]);
    both.is_found(home)?;
    home.apply_manifests("base")?;

    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/routed";
    remove(&["crd", CRD], field)?;
    Fault::new("the definition lacks a field", "A103").is_found(home)?;
    install_definitions(&home.lab)?;
    gets_well(home, OBJECTS)
}

fn pools(home: &Home) -> anyhow::Result<()> {
    let table: &[(&str, &str, &str, &[&str])] = &[
        ("a pool has addresses of pods", "10.244.1.128/28", "A704", &["A709"]),
        ("a pool has cluster addresses", "10.96.7.0/28", "A705", &["A709"]),
        ("a pool has a node's address", "192.168.0.12/32", "A706", &[]),
        ("a pool has the router's address", "192.168.0.1/32", "A707", &[]),
        ("a pool is on no segment", "172.16.0.0/28", "A709", &[]),
        ("two pools have an address in common", "192.168.0.250-192.168.0.252", "A703", &["A702"]),
    ];
    for (what, range, code, also) in table {
        home.apply(&pool("bad", &[range]))?;
        Fault::new(what, code).also(also).is_found(home)?;
        home.lab.kubectl(&["delete", "addresspool", "bad"])?;
    }
    pools_with_rules(home)?;
    gets_well(home, OBJECTS)
}

/// Nobody would announce what is in them, and that is told before somebody waits for it.
fn pools_with_rules(home: &Home) -> anyhow::Result<()> {
    let nowhere = json!({ "nodeSelectors": [{ "matchLabels": { "rack": "nowhere" } }] });
    let table = [
        ("a pool's rules select no node", "A713", nowhere),
        ("a pool names an interface that no node has", "A715", json!({ "interfaces": ["ens192"] })),
    ];
    for (what, code, rule) in table {
        let mut bad = pool("bad", &["192.168.0.200/32"]);
        bad["spec"]["announce"] = json!([rule]);
        home.apply(&bad)?;
        Fault::new(what, code).is_found(home)?;
        home.lab.kubectl(&["delete", "addresspool", "bad"])?;
    }
    let mut external = service("external", KEY, POOL);
    external["spec"]["type"] = json!("ClusterIP");
    external["spec"]["externalIPs"] = json!(["192.168.0.249"]);
    home.apply(&external)?;
    Fault::new("a Service has an address of a pool by externalIPs", "A716").is_found(home)?;
    home.lab.kubectl(&["delete", "service", "external"])?;
    Ok(())
}

/// They count where the controller reads them.
fn pools_of_metallb(home: &Home) -> anyhow::Result<()> {
    home.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "config", "namespace": "default" },
        "data": { "config": "address-pools: [{name: old, protocol: layer2, addresses: [192.168.0.12/32]}]" },
    }))?;
    gets_well(home, OBJECTS)?;
    let variable = |value: &str| {
        let variable = format!("ARPEGGIO_METALLB_NAMESPACE={value}");
        let set = ["set", "env", "deployment/arpeggio-controller", &variable];
        home.lab.kubectl(&[&set[..], &SYSTEM].concat())
    };
    // It may not read there, which is of no matter here: what it would read is judged.
    variable("default")?;
    let fault = Fault::new("a pool of MetalLB's has a node's address", "A706");
    fault.also(&["A302", "A303", "A305"]).is_found(home)?;
    variable("")?;
    home.lab.kubectl(&["delete", "configmap", "config"])?;
    gets_well(home, OBJECTS)
}

/// Where the nodes' word is not enough: pods, UDP, and who is let in.
fn other_services(home: &Home) -> anyhow::Result<()> {
    const SERVICES: &[&str] = &["--only", "services,W110"];
    let mut other = service("other", KEY, POOL);
    other["spec"]["ports"] = json!([
        { "name": "web", "port": 80 },
        { "name": "udp", "port": 53, "protocol": "UDP", "targetPort": 5353 },
    ]);
    home.apply(&other)?;
    home.wait_for_address("other")?;
    Fault::new("no program listens at a UDP port", "S104").with(SERVICES).is_found(home)?;

    other["spec"]["ports"] = json!([{ "port": 80 }]);
    other["spec"]["loadBalancerSourceRanges"] = json!(["192.168.0.0/24"]);
    home.apply(&other)?;
    gets_well(home, SERVICES)?;
    other["spec"]["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    home.apply(&other)?;
    gets_well(home, SERVICES)?;
    let text = home.arpeggio(&[&["doctor"], SERVICES].concat())?;
    ensure!(text.contains("loadBalancerSourceRanges that let no node in"), "{text}");
    home.lab.kubectl(&["delete", "service", "other"])?;

    pods_are_cut_off(home, SERVICES)?;
    home.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "quiet", "namespace": "arpeggio-system" },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] },
    }))?;
    let text = home.arpeggio(&[&["doctor"], SERVICES].concat())?;
    ensure!(text.contains("a NetworkPolicy says where"), "{text}");
    home.lab.kubectl(&[&["delete", "networkpolicy", "quiet"], &SYSTEM[..]].concat())?;
    gets_well(home, SERVICES)
}

/// What pods send to the address is lost on their nodes.
fn pods_are_cut_off(home: &Home, services: &[&str]) -> anyhow::Result<()> {
    let hook = "type filter hook prerouting priority -300;";
    let rule = format!("ip saddr 10.244.0.0/16 ip daddr {} drop", first_address());
    let rules = format!("table ip lab_cut {{\nchain pods {{\n{hook}\n{rule}\n}}\n}}");
    let nodes = home.lab.options().node_machines();
    for node in &nodes {
        home.lab.namespace(*node).run("nft", &[&rules])?;
    }
    Fault::new("pods do not reach what nodes reach", "S107").with(services).is_found(home)?;
    for node in &nodes {
        home.lab.namespace(*node).run("nft", &["delete table ip lab_cut"])?;
    }
    gets_well(home, services)
}

fn services(home: &Home) -> anyhow::Result<()> {
    let mut idle = service("idle", KEY, POOL);
    idle["spec"]["selector"] = json!({ "app": "nothing" });
    home.apply(&idle)?;
    home.wait_for_address("idle")?;
    Fault::new("no pod is behind a Service", "S102").is_found(home)?;
    home.lab.kubectl(&["delete", "service", "idle"])?;

    home.apply(&service("waits", KEY, "nowhere"))?;
    Fault::new("a Service asks for a pool that is not there", "S101").is_found(home)?;
    home.lab.kubectl(&["delete", "service", "waits"])?;

    let mut deaf = service("deaf", KEY, POOL);
    deaf["spec"]["ports"][0]["targetPort"] = json!(8123);
    home.apply(&deaf)?;
    home.wait_for_address("deaf")?;
    let deaf = Fault::new("the targetPort is wrong", "S104").with(&["--only", "services,W110"]);
    deaf.is_found(home)?;
    home.lab.kubectl(&["delete", "service", "deaf"])?;

    stranded(home)?;
    gets_well(home, OBJECTS)
}

/// Its pods are on nodes that may not announce.
fn stranded(home: &Home) -> anyhow::Result<()> {
    let mut local = service("local", KEY, POOL);
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    home.apply(&local)?;
    let address = home.wait_for_address("local")?;
    let pods = home.lab.get(&["pods", "-lapp=web"])?;
    let nodes = pods["items"].as_array().into_iter().flatten();
    let nodes: BTreeSet<&str> = nodes.filter_map(|it| it["spec"]["nodeName"].as_str()).collect();
    for node in &nodes {
        home.lab.kubectl(&["label", "node", node, &format!("{EXCLUDE}=")])?;
    }
    let fault = Fault::new("Local, and its pods are on excluded nodes", "S103");
    fault.also(&["A602", "A902"]).is_found(home)?;
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}-")])?;
    home.lab.kubectl(&["delete", "service", "local"])?;
    home.wait_until("its lock is gone", || match home.lock(address)? {
        None => Ok(()),
        Some(lock) => Err(lock.to_string().into()),
    })
}

fn nodes_and_leases(home: &Home) -> anyhow::Result<()> {
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}=")])?;
    Fault::new("all nodes are excluded", "A601").also(&["A902"]).is_found(home)?;
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}-")])?;

    no_speaker_on_a_node(home)?;
    gets_well(home, OBJECTS)?;

    home.apply(&lease("session-gone", "arpeggio-system", "2026-01-01T00:00:00.000000Z"))?;
    Fault::new("a session of a node that is gone", "A804").is_found(home)?;
    home.lab.kubectl(
        &[&["delete", "lease", "session-gone", "--ignore-not-found"], &SYSTEM[..]].concat(),
    )?;
    gets_well(home, OBJECTS)
}

/// The DaemonSet keeps its pods off one, and later the node has no room for it.
fn no_speaker_on_a_node(home: &Home) -> anyhow::Result<()> {
    // Without a rollout: the running pods stay but for the one that is not to be there.
    let not_there = json!({ "spec": {
        "updateStrategy": { "type": "OnDelete", "rollingUpdate": null },
        "template": { "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{
                "matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-3"],
                }],
            }] },
        } } } },
    } });
    let with = |cpu: &str| {
        let container = json!({ "name": "speaker", "resources": { "requests": { "cpu": cpu } } });
        json!({ "affinity": null, "containers": [container] })
    };
    let too_large = json!({ "spec": { "template": { "spec": with("1000") } } });
    let again = json!({ "spec": {
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "template": { "spec": with("100m") },
    } });
    let patch = |patch: &Value| {
        let daemons = ["patch", "daemonset", "arpeggio-speaker", "-p", &patch.to_string()];
        home.lab.kubectl(&[&daemons[..], &SYSTEM].concat())
    };
    patch(&not_there)?;
    home.wait_until("a node that needs no speaker has none", || {
        let report = doctor(home, OBJECTS)?;
        let is_told = |it: &Value| it["code"] == "A304" && it["severity"] == "info";
        let is_so = report.exit == 0 && report.findings.iter().any(is_told);
        if is_so { Ok(()) } else { Err(report.text.into()) }
    })?;
    patch(&too_large)?;
    Fault::new("no speaker runs on a node", "A304").also(&["A305"]).is_found(home)?;
    patch(&again)?;
    home.wait_for_speakers()
}

fn lease(name: &str, namespace: &str, renewed: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "arpeggio", "arpeggio.dev/lease": "session",
            },
        },
        "spec": { "holderIdentity": "gone", "leaseDurationSeconds": 3600, "renewTime": renewed },
    })
}

fn controllers(home: &Home) -> anyhow::Result<()> {
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "elsewhere" },
    }))?;
    // It lasts an hour, and it is younger than ours: that it is there is enough.
    let now = home.lab.get(&["lease", "controller-leader", "-n", "arpeggio-system"])?;
    let renewed = now["spec"]["renewTime"].as_str().context("nobody leads")?;
    home.apply(&lease("controller-leader", "elsewhere", renewed))?;
    Fault::new("a second installation", "A403").is_found(home)?;
    home.lab.kubectl(&["delete", "namespace", "elsewhere"])?;

    let image = "controller=docker.io/arpeggio/controller:0.0.9";
    let deployment = "deployment/arpeggio-controller";
    home.lab.kubectl(&[&["set", "image", deployment, image], &SYSTEM[..]].concat())?;
    Fault::new("two releases", "A104").also(&["A305"]).is_found(home)?;
    home.lab.kubectl(&[&["rollout", "undo", deployment], &SYSTEM[..]].concat())?;
    gets_well(home, OBJECTS)?;

    home.scale_controllers(0)?;
    Fault::new("no controller runs", "A302").is_found(home)?;
    home.apply(&service("theirs", KEY, POOL))?;
    let status =
        json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.168.0.249" }] } } });
    let patch = ["patch", "service", "theirs", "--subresource=status", "--type=merge"];
    let manager = ["--field-manager=svclb", "-p", &status.to_string()];
    home.lab.kubectl(&[&patch[..], &manager].concat())?;
    let fault = Fault::new("another program writes a Service's status", "A402");
    fault.also(&["A302", "A903"]).is_found(home)?;
    home.lab.kubectl(&["delete", "service", "theirs"])?;
    home.scale_controllers(2)?;
    gets_well(home, OBJECTS)
}

fn without_the_definition(home: &Home) -> anyhow::Result<()> {
    home.lab.kubectl(&["delete", "crd", CRD])?;
    Fault::new("the definition is missing", "A102").also(&["A701"]).is_found(home)?;
    install_definitions(&home.lab)?;
    home.add_pool()?;
    gets_well(home, OBJECTS)
}

const WIRE: &[&str] = &["--only", "wire"];
/// A machine that is none of the cluster's.
const STRANGER: Machine = Machine::Host(1);

pub(crate) fn each_fault_of_the_segment_has_its_code(home: &Home) -> anyhow::Result<()> {
    home.serve_page()?;
    home.lab.network().add_hosts(1..=1)?;
    // Who watches whom is known some seconds after speakers have begun.
    finds_nothing(home)?;
    directions(home)?;
    strangers(home)?;
    home.lab.network().cable_out(Machine::Router)?;
    Fault::new("the router is away", "W108").with(WIRE).is_found(home)?;
    home.lab.network().cable_in(Machine::Router)?;
    gets_well(home, WIRE)?;
    dhcp(home)
}

/// Debian's dnsmasq gives out addresses on the segment.
fn dhcp(home: &Home) -> anyhow::Result<()> {
    const DHCP: &[&str] = &["--only", "A711,W110"];
    let serve = |range: &str| {
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--port=0"]);
        dnsmasq.args(["--pid-file=", "--leasefile-ro", "--interface=eth0", "--bind-interfaces"]);
        dnsmasq.args(["--log-dhcp", "--log-facility=-", &format!("--dhcp-range={range},1h")]);
        HostProcess::start_on(&home.lab, STRANGER, "dhcp", &mut dnsmasq)
    };
    let log = home.lab.folders().logs().join("dhcp.log");
    let text = home.arpeggio(&[&["doctor"], DHCP].concat())?;
    ensure!(text.contains("no DHCP server has answered a node"), "{text}");

    let mut apart = serve("192.168.0.100,192.168.0.150")?;
    home.wait_until("a DHCP server answers with addresses of no pool", || {
        let report = doctor(home, DHCP)?;
        let is_known = report.findings.iter().all(|it| it["code"] != "A711");
        if is_known && report.exit == 0 { Ok(()) } else { Err(report.text.into()) }
    })?;
    apart.kill()?;

    let mut overlapping = serve("192.168.0.200,192.168.0.245")?;
    Fault::new("a DHCP server gives out addresses of a pool", "A711").with(DHCP).is_found(home)?;
    overlapping.kill()?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("DHCPOFFER"), "it has offered something: {said}");
    ensure!(!said.contains("DHCPREQUEST"), "and nobody has taken it: {said}");
    gets_well(home, DHCP)
}

fn directions(home: &Home) -> anyhow::Result<()> {
    let (one, other) = (Machine::Node(1), Machine::Node(2));
    home.lab.network().lose_unicast(one, other)?;
    Fault::new("unicast is lost between two nodes", "W102").with(WIRE).is_found(home)?;
    home.lab.network().mend()?;

    let way = format!("iifname \"{one}\" oifname \"{other}\"");
    for (what, rule, code, about) in [
        ("one direction is dead", "drop", "W101", "node-1 to node-2"),
        (
            "broadcasts of a node do not reach another one",
            "ether type arp ether daddr ff:ff:ff:ff:ff:ff drop",
            "W103",
            "node-1 to node-2",
        ),
    ] {
        let hook = "type filter hook forward priority 0;";
        let rules =
            format!("table bridge lab_cut {{\nchain forward {{\n{hook}\n{way} {rule}\n}}\n}}");
        home.lab.namespace(Machine::Switch).run("nft", &[&rules])?;
        Fault::new(what, code).with(WIRE).is_found(home)?;
        let report = doctor(home, WIRE)?;
        let found = report.findings.iter().filter(|it| it["code"] == code);
        let hops: BTreeSet<&str> = found.filter_map(|it| it["about"].as_str()).collect();
        ensure!(hops == BTreeSet::from([about]), "the hop is named: {}", report.text);
        home.lab.network().mend()?;
    }
    gets_well(home, WIRE)
}

fn strangers(home: &Home) -> anyhow::Result<()> {
    let stranger = home.lab.namespace(STRANGER);
    let has = |address: &str| stranger.run("ip", &["address", "add", address, "dev", "eth0"]);
    let gives_up = || stranger.run("ip", &["address", "flush", "to", "192.168.0.240/28"]);
    has("192.168.0.245/32")?;
    Fault::new("a stranger has a free address", "W109").with(WIRE).is_found(home)?;
    has("192.168.0.246/32")?;
    has("192.168.0.247/32")?;
    Fault::new("a stranger has all free addresses", "W111").with(WIRE).is_found(home)?;
    gives_up()?;
    has(&format!("{}/32", first_address()))?;
    Fault::new("a stranger has an announced address", "W105").with(WIRE).is_found(home)?;
    gives_up()?;
    gets_well(home, WIRE)
}
