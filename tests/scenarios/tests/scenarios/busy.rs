//! An API server that has too much to do.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, NotYet, POOL, service};
use serde_json::{Value, json};

const NO_TURNS: &str = "no-turns";
const HOLDER: &str = "holds-turns";

/// How long the Service's owner has to wait for a word: a minute, and a pause between two tries.
const TOLD_WITHIN: Duration = Duration::from_mins(2);

/// The API server has no turn for new Leases of the controller. The Service's owner is told, the API server is asked seldom,
/// and the Service is served once there are turns again.
pub(crate) fn a_busy_api_server_is_told_and_asked_seldom(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    for object in no_turns() {
        home.apply(&object)?;
    }
    let holders = Holders::start(home)?;
    let begin = Instant::now();
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let told = home.lab.wait_until("the Service says so", TOLD_WITHIN, || {
        let told = home.events("web")?.into_iter().find(|event| event.reason == "ApiRefused");
        told.map(|event| event.note).ok_or_else(|| NotYet::from("no event".to_owned()))
    })?;
    for part in ["fails to create Lease address-192.168.0.240", "it has too much to do"] {
        ensure!(told.contains(part), "{told:?}");
    }
    let status = home.lab.get(&["service", "web"])?["status"].to_string();
    ensure!(status.contains("ApiRefused"), "the condition says so, too: {status}");
    let asked = rejected(home, NO_TURNS)?;
    let within = begin.elapsed();
    ensure!((2..=20).contains(&asked), "the API server was asked {asked} times in {within:?}");

    drop(holders);
    home.lab.kubectl(&["delete", "flowschema", NO_TURNS, HOLDER])?;
    home.lab.kubectl(&["delete", "prioritylevelconfiguration", NO_TURNS])?;
    home.lab.kubectl(&["delete", "role,rolebinding,serviceaccount", HOLDER])?;
    home.lab.kubectl(&["annotate", "service", "web", "team=blue"])?;
    home.wait_for_address("web").map(drop)
}

/// Requests that hold the only turn there is. A level without a seat still serves one request when it serves no other, and
/// these do not end: what they are to create never comes. The API server gives each up after a minute, and the next one has
/// the turn before anybody else asks for it.
struct Holders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Holders {
    fn start(home: &Home) -> anyhow::Result<Self> {
        let token = home.lab.kubectl(&["create", "token", HOLDER])?;
        let server = home.lab.kubectl(&[
            "config",
            "view",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ])?;
        let url =
            format!("{server}/apis/coordination.k8s.io/v1/namespaces/default/leases?dryRun=All");
        let mut holders = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for _ in 0..2 {
            let (stop, url) = (holders.stop.clone(), url.clone());
            let header = format!("Authorization: Bearer {}", token.trim());
            let hold = move || {
                while !stop.load(Ordering::Relaxed) {
                    hold(&stop, &url, &header);
                    thread::sleep(Duration::from_millis(50));
                }
            };
            holders.threads.push(home.lab.namespace(Machine::Client).start_thread(hold)?);
        }
        home.wait_until("one has the turn, and the other has none", || {
            if rejected(home, HOLDER)? > 0 { Ok(()) } else { Err("both or none".to_owned().into()) }
        })?;
        Ok(holders)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Holds a turn until the API server ends the request. Returns at once without a turn.
fn hold(stop: &AtomicBool, url: &str, header: &str) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--insecure", "--header", header]);
    // What comes from the standard input, without waiting for it: an answer is seen before it.
    command.args(["--header", "Content-Type: application/json", "--request", "POST"]);
    command.args(["--upload-file", ".", url]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // The test waits for the turn, and says so if there is none.
    let Ok(mut request) = command.spawn() else { return };
    while !stop.load(Ordering::Relaxed) && matches!(request.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(20));
    }
    request.kill().ok();
    request.wait().ok();
}

/// A priority level without a seat, the requests that go to it, and who may hold its turn.
fn no_turns() -> [Value; 6] {
    let account = |name: &str, namespace: &str| {
        json!({
            "kind": "ServiceAccount", "serviceAccount": { "name": name, "namespace": namespace },
        })
    };
    let limited = json!({
        "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0,
        "limitResponse": { "type": "Reject" },
    });
    let metadata = json!({ "name": HOLDER, "namespace": "default" });
    let group = "rbac.authorization.k8s.io";
    let api = format!("{group}/v1");
    [
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
            "metadata": { "name": NO_TURNS }, "spec": { "type": "Limited", "limited": limited },
        }),
        flow(NO_TURNS, &account("arpeggio-controller", "arpeggio-system")),
        flow(HOLDER, &account(HOLDER, "default")),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        json!({
            "apiVersion": api, "kind": "Role", "metadata": metadata,
            "rules": [{
                "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"],
            }],
        }),
        json!({
            "apiVersion": api, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": HOLDER },
            "subjects": [{ "kind": "ServiceAccount", "name": HOLDER, "namespace": "default" }],
        }),
    ]
}

/// Sends new Leases of somebody to the level without a seat.
fn flow(name: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": { "name": name },
        "spec": {
            "priorityLevelConfiguration": { "name": NO_TURNS },
            "matchingPrecedence": 2,
            "rules": [{
                "subjects": [subject],
                "resourceRules": [{
                    "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                    "namespaces": ["*"], "verbs": ["create"],
                }],
            }],
        },
    })
}

/// How many requests of a flow had no turn, by the API server's own count.
fn rejected(home: &Home, flow: &str) -> anyhow::Result<u64> {
    let metrics = home.lab.kubectl(&["get", "--raw", "/metrics"])?;
    let flow = format!("flow_schema=\"{flow}\"");
    let ours = |line: &&str| {
        line.starts_with("apiserver_flowcontrol_rejected_requests_total{") && line.contains(&flow)
    };
    let counts = metrics.lines().filter(ours).filter_map(|line| line.rsplit(' ').next());
    Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
}
