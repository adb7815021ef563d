//! Other people in the cluster: tenants, rivals, quotas and policies, and speakers' tokens in wrong hands.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, service};
use serde::Serialize;
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";
const SYSTEM: &str = "arpeggio-system";

/// Tenant b wants onto the address of tenant a, and knows the key, or guesses.
pub(crate) fn tenants_learn_nothing_of_each_other(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let tenant = |namespace: &str, name: &str, key: &str, port: u16| {
        let mut service = service(name, "arpeggio.dev/addresses", "192.168.0.240");
        service["metadata"]["namespace"] = json!(namespace);
        service["metadata"]["annotations"]["arpeggio.dev/sharing-key"] = json!(key);
        service["spec"]["ports"][0]["port"] = json!(port);
        service
    };
    for namespace in ["tenant-a", "tenant-b"] {
        home.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        }))?;
    }
    home.apply(&tenant("tenant-a", "secret", "hunter2", 443))?;
    let said = |namespace: &str, name: &str| -> anyhow::Result<String> {
        let service = home.lab.get(&["service", name, "-n", namespace])?;
        Ok(service["status"].to_string())
    };
    home.wait_until("a has the address", || match said("tenant-a", "secret")? {
        status if status.contains("192.168.0.240 assigned") => Ok(()),
        status => Err(status.into()),
    })?;
    for (name, key) in [("knows", "hunter2"), ("guesses", "x")] {
        home.apply(&tenant("tenant-b", name, key, 80))?;
        let status = home.wait_until("b is refused", || match said("tenant-b", name)? {
            status if status.contains("another namespace") => Ok(status),
            status => Err(status.into()),
        })?;
        let about = format!("regarding.name={name}");
        let events = home.lab.get(&[
            "events.events.k8s.io",
            "-n",
            "tenant-b",
            "--field-selector",
            &about,
        ])?;
        let notes: Vec<&str> = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|event| event["note"].as_str())
            .collect();
        for told in [status, notes.join("\n")] {
            for secret in ["hunter2", "secret", "tenant-a", "443"] {
                ensure!(!told.contains(secret), "{secret:?} is told: {told}");
            }
        }
    }
    home.lab.kubectl(&["delete", "namespace", "tenant-a", "tenant-b"])?;
    Ok(())
}

/// Cilium's operator clears the status of every Service that none of its own pools selects.
pub(crate) fn a_rival_is_named_and_costs_little(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    let before = status_writes(home)?;
    let clear = json!({ "status": { "loadBalancer": null, "conditions": [{
        "type": "cilium.io/IPAMRequestSatisfied", "status": "False", "reason": "no_pool",
        // A Go program that leaves the time out writes this.
        "message": "", "lastTransitionTime": null,
    }] } });
    for _ in 0..50 {
        home.lab.kubectl(&[
            "patch",
            "service",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            &clear.to_string(),
            "--field-manager=cilium-operator",
        ])?;
        std::thread::sleep(Duration::from_millis(150));
    }
    let writes = status_writes(home)? - before;
    ensure!(writes <= 8, "{writes} status writes against 50 of the rival");
    let told = home.wait_for_event("web", "RivalWriter")?;
    for part in ["cilium-operator", "spec.loadBalancerClass", "enable-lb-ipam"] {
        ensure!(told.note.contains(part), "{part}: {told:?}");
    }
    home.wait_for_address("web")?;
    let conditions = home.conditions("web")?;
    let is_it = |it: &&String| it.starts_with("StatusContested=True: ");
    let contested = conditions.iter().find(is_it).with_context(|| format!("{conditions:?}"))?;
    ensure!(contested.contains("cilium-operator"), "{contested}");
    let events = home.events("web")?;
    let count = |reason: &str| events.iter().filter(|it| it.reason == reason).count();
    ensure!((count("RivalWriter"), count("IPAllocated")) == (1, 1), "{events:?}");
    Ok(())
}

/// How often the controllers have written the status of a Service, by their own count.
pub(crate) fn status_writes(home: &Home) -> anyhow::Result<u64> {
    let pods =
        home.lab.get(&["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=controller"])?;
    let mut sum = 0;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:7473/proxy/metrics");
        let metrics = home.lab.kubectl(&["get", "--raw", &path])?;
        let ours = |line: &&str| {
            line.starts_with("arpeggio_api_requests_total")
                && line.contains("kind=\"Service\"")
                && line.contains("verb=\"patch\"")
        };
        let values = metrics.lines().filter(ours).filter_map(|it| it.rsplit(' ').next());
        sum += values.filter_map(|value| value.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

/// `kubectl replace --force` deletes the Service and creates it again. A router forwards to its address.
pub(crate) fn a_replaced_service_keeps_its_address(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("first", KEY, POOL))?;
    home.wait_for_address("first")?;
    let web = service("web", KEY, POOL);
    home.apply(&web)?;
    let address = home.wait_for_address("web")?;
    // A lower address is free from now on.
    home.lab.kubectl(&["delete", "service", "first"])?;
    home.wait_until("the first address is free", || match home.lock(first_address().into())? {
        None => Ok(()),
        Some(lock) => Err(lock.to_string().into()),
    })?;
    for _ in 0..5 {
        home.lab.kubectl_with_input(&["replace", "--force", "-f", "-"], &web.to_string())?;
        let again = home.wait_for_address("web")?;
        ensure!(again == address, "{again} instead of {address}");
    }
    // As a backup is restored: nobody has seen the one Service go and the other one come.
    home.without_controllers(|| {
        home.lab.kubectl(&["delete", "service", "web"])?;
        home.apply(&web)
    })?;
    let again = home.wait_for_address("web")?;
    ensure!(again == address, "{again} instead of {address}, which nobody saw leave");
    Ok(())
}

/// A Service with a finalizer that nobody removes.
pub(crate) fn a_service_that_cannot_go_keeps_its_address(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let mut stuck = service("stuck", KEY, POOL);
    stuck["metadata"]["finalizers"] = json!(["example.org/never"]);
    home.apply(&stuck)?;
    let address = home.wait_for_address("stuck")?;
    home.lab.kubectl(&["delete", "service", "stuck", "--wait=false"])?;
    home.apply(&service("asks", "arpeggio.dev/addresses", &address.to_string()))?;
    let told = home.wait_for_event("asks", "AllocationFailed")?;
    for part in ["is being deleted since", "example.org/never"] {
        ensure!(told.note.contains(part), "{told:?}");
    }
    ensure!(home.addresses("stuck")? == [address], "it keeps what it has");
    let release = json!({ "metadata": { "finalizers": null } }).to_string();
    home.lab.kubectl(&["patch", "service", "stuck", "--type=merge", "-p", &release])?;
    ensure!(home.wait_for_address("asks")? == address, "it is served in the end");
    Ok(())
}

/// A quota on Leases, and a policy on the status of Services: each says so where the Service's owner looks.
pub(crate) fn what_the_api_server_refuses_is_told(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": "no-leases", "namespace": SYSTEM },
        "spec": { "hard": { "count/leases.coordination.k8s.io": "1" } },
    }))?;
    home.wait_until("the quota counts", || {
        let quota = home.lab.get(&["resourcequota", "no-leases", "-n", SYSTEM]);
        let used = &quota.map_err(anyhow::Error::from)?["status"]["used"];
        if used.is_object() { Ok(()) } else { Err("not yet".to_owned().into()) }
    })?;
    home.apply(&service("web", KEY, POOL))?;
    let told = home.wait_for_event("web", "ApiRefused")?;
    for part in ["create Lease address-192.168.0.240", "a ResourceQuota there is used up"] {
        ensure!(told.note.contains(part), "{told:?}");
    }
    ensure!(!told.note.contains("no-leases"), "what there is in our namespace: {told:?}");
    let status = home.lab.get(&["service", "web"])?["status"].to_string();
    ensure!(status.contains("ApiRefused"), "the condition says so, too: {status}");
    home.lab.kubectl(&["delete", "resourcequota", "no-leases", "-n", SYSTEM])?;
    // A user's mend is looked at at once.
    home.lab.kubectl(&["annotate", "service", "web", "team=blue"])?;
    home.wait_for_address("web")?;

    for object in policy() {
        home.apply(&object)?;
    }
    let denied = service("denied", KEY, POOL);
    let told = home.wait_until("the policy is in force and told", || {
        // The first Service may be faster than the policy.
        home.lab
            .kubectl_with_input(&["replace", "--force", "-f", "-"], &denied.to_string())
            .map_err(anyhow::Error::from)?;
        std::thread::sleep(Duration::from_secs(2));
        let events = home.events("denied")?;
        let found = events.into_iter().find(|event| event.reason == "ApiRefused");
        found.ok_or_else(|| "no event".to_owned().into())
    })?;
    ensure!(told.note.contains("no status for denied"), "{told:?}");
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        home.lab.kubectl(&["delete", kind, "no-status"])?;
    }
    home.wait_until("it is served in the end", || {
        // The policy may be in force for a moment longer than it exists.
        let touch = ["label", "service", "denied", "team=blue", "--overwrite"];
        home.lab.kubectl(&touch).map_err(anyhow::Error::from)?;
        home.lab.kubectl(&["label", "service", "denied", "team-"]).map_err(anyhow::Error::from)?;
        let addresses = home.addresses("denied")?;
        if addresses.len() == 1 { Ok(()) } else { Err("no address".to_owned().into()) }
    })
}

/// A policy that denies one Service its status.
fn policy() -> [Value; 2] {
    let metadata = json!({ "name": "no-status" });
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services/status"],
        "operations": ["UPDATE"],
    });
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata,
            "spec": {
                "matchConstraints": { "resourceRules": [rule] },
                "validations": [{
                    "expression": "request.name != 'denied'", "message": "no status for denied",
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": { "policyName": "no-status", "validationActions": ["Deny"] },
        }),
    ]
}

/// The API server treats our Leases before tenants' requests, and a tenant's own permissions are enough for an explanation.
pub(crate) fn permissions_are_what_the_docs_say(home: &Home) -> anyhow::Result<()> {
    home.wait_until("our Leases have a priority of their own", || {
        let metrics = home.lab.kubectl(&["get", "--raw", "/metrics"]);
        let metrics = metrics.map_err(anyhow::Error::from)?;
        let ours = |line: &&str| {
            line.starts_with("apiserver_flowcontrol_dispatched_requests_total{")
                && line.contains("flow_schema=\"arpeggio-leases\"")
                && line.contains("priority_level=\"leader-election\"")
        };
        let found = metrics.lines().find(ours).map(|_| ());
        found.ok_or_else(|| "no request was classified so".to_owned().into())
    })?;
    // The Service of a tenant who may do what `edit` allows in one namespace.
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "tenant-c" },
    }))?;
    let bind =
        ["create", "rolebinding", "tess", "-n", "tenant-c", "--clusterrole=edit", "--user=tess"];
    home.lab.kubectl(&bind)?;
    let mut web = service("web", "team", "c");
    web["metadata"]["namespace"] = json!("tenant-c");
    home.apply(&web)?;
    home.wait_until("it waits", || {
        let service = home.lab.get(&["service", "web", "-n", "tenant-c"]);
        let status = service.map_err(anyhow::Error::from)?["status"].to_string();
        if status.contains("there are no pools") { Ok(()) } else { Err(status.into()) }
    })?;
    let explained = home.arpeggio_as("tess", &["explain", "service", "-n", "tenant-c", "web"])?;
    for part in ["there are no pools", "addresspools", "you need the permission"] {
        ensure!(explained.contains(part), "no {part:?}: {explained}");
    }
    home.lab.kubectl(&["delete", "namespace", "tenant-c"])?;
    Ok(())
}

/// A speaker that may not read the Nodes says so, and goes on with what it knows.
pub(crate) fn a_missing_permission_is_named(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    let owner = home.wait_for_owner(first_address())?;
    let speaker = home.speaker_on(owner)?;
    let role = home.lab.get(&["clusterrole", "arpeggio-speaker"])?;
    let all = role["rules"].as_array().context("a role without rules")?;
    let fewer = all.iter().filter(|rule| rule["resources"] != json!(["nodes"]));
    set_rules(home, &fewer.collect::<Vec<_>>())?;
    home.lab.kubectl(&["delete", "pod", "-n", SYSTEM, &speaker, "--wait=false"])?;
    home.wait_until("its successor names what it lacks", || {
        let events = home.lab.kubectl(&["get", "events", "-n", SYSTEM, "-o", "json"]);
        let events = events.map_err(anyhow::Error::from)?;
        let named = events.contains("cannot list resource") && events.contains("Readiness");
        if named { Ok(()) } else { Err("not yet".to_owned().into()) }
    })?;
    set_rules(home, all)?;
    home.wait_for_owner(first_address())?;
    home.wait_for_speakers()
}

/// Changes what speakers may do apart from their own namespace.
fn set_rules(home: &Home, rules: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    let patch = json!({ "rules": rules }).to_string();
    home.lab.kubectl(&[
        "patch",
        "clusterrole",
        "arpeggio-speaker",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    Ok(())
}

/// Somebody has the token of one node's speaker.
pub(crate) fn a_speakers_token_is_good_for_its_own_node(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    let address = home.wait_for_address("web")?;
    let lock = format!("address-{address}");
    let owner = home.wait_for_owner(first_address())?;
    let nodes = [Machine::Node(1), Machine::Node(2), Machine::Node(3)];
    let mut others = nodes.into_iter().filter(|node| *node != owner);
    let (thief, victim) = (others.next().context("no other")?, others.next().context("no third")?);
    let session = |node: Machine| format!("session-{node}");
    let kept = last_good(home)?;
    let annotation =
        |key: &str, value: &str| json!({ "metadata": { "annotations": { key: value } } });
    let forbidden = [
        (session(victim), json!({ "spec": { "renewTime": "2026-01-01T00:00:00.000000Z" } })),
        (session(victim), json!({ "spec": { "holderIdentity": thief.to_string() } })),
        (session(victim), annotation("arpeggio.dev/accused-by", &owner.to_string())),
        (session(victim), annotation("arpeggio.dev/interfaces", "[]")),
        (session(victim), annotation("arpeggio.dev/hears", "")),
        (session(victim), annotation("arpeggio.dev/format", "99")),
        (session(victim), annotation("arpeggio.dev/rehearsed-silence", "1/5")),
        (session(thief), annotation("arpeggio.dev/rehearsed-silence", "1/5")),
        (lock.clone(), json!({ "spec": { "holderIdentity": victim.to_string() } })),
        (lock.clone(), annotation("arpeggio.dev/services", "")),
        (lock.clone(), annotation("arpeggio.dev/claimed-since", "2026-01-01T00:00:00Z")),
        (lock.clone(), annotation("arpeggio.dev/announce", "{\"rules\":[]}")),
        (lock.clone(), annotation("arpeggio.dev/spread", "nodes")),
        (lock.clone(), annotation("arpeggio.dev/session", "0")),
        (lock.clone(), annotation("arpeggio.dev/unannounced", "NoReadyEndpoints")),
        (lock.clone(), annotation("arpeggio.dev/disputed-by", &victim.to_string())),
        (lock.clone(), annotation("arpeggio.dev/move-to", &thief.to_string())),
        (lock.clone(), annotation("arpeggio.dev/stranger", "02:00:00:00:00:01")),
        (lock.clone(), annotation("arpeggio.dev/stranger-seen-by", &victim.to_string())),
        (lock.clone(), annotation("arpeggio.dev/format", "99")),
        (lock.clone(), json!({ "spec": { "leaseTransitions": 99 } })),
        (lock.clone(), json!({ "metadata": { "labels": { "arpeggio.dev/lease": null } } })),
        ("controller-leader".to_owned(), json!({ "spec": { "holderIdentity": "thief" } })),
        (kept.clone(), annotation("arpeggio.dev/last-good", "{}")),
    ];
    for (lease, patch) in &forbidden {
        let error = patch_as(home, thief, lease, patch).err().map(|error| error.to_string());
        let error = error.with_context(|| format!("{thief} may write {patch} on {lease}"))?;
        ensure!(error.contains("denied request"), "it is the policy that refuses: {error}");
    }
    let made = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": session(Machine::Node(9)), "namespace": SYSTEM },
    });
    let error = as_speaker(home, thief, &["create", "-f", "-"], &made.to_string()).err();
    let error = error.with_context(|| format!("{thief} may create another node's session"))?;
    ensure!(error.to_string().contains("denied request"), "the policy refuses: {error}");
    // The Role of speakers lacks that permission, too.
    for lease in [&lock, &kept, &session(victim)] {
        let deleted = as_speaker(home, thief, &["delete", "lease", lease], "");
        ensure!(deleted.is_err(), "{thief} may delete {lease}");
    }
    // What the protocol needs.
    patch_as(
        home,
        thief,
        &session(victim),
        &annotation("arpeggio.dev/accused-by", &thief.to_string()),
    )?;
    patch_as(home, thief, &lock, &annotation("arpeggio.dev/stranger-seen-by", &thief.to_string()))?;
    Ok(())
}

fn patch_as(home: &Home, node: Machine, lease: &str, patch: &Value) -> anyhow::Result<()> {
    as_speaker(home, node, &["patch", "lease", lease, "--type=merge", "-p", &patch.to_string()], "")
}

/// Runs kubectl with the rights that a speaker's token has.
fn as_speaker(home: &Home, node: Machine, args: &[&str], input: &str) -> anyhow::Result<()> {
    let user = format!("--as=system:serviceaccount:{SYSTEM}:arpeggio-speaker");
    let extra = format!("--as-user-extra=authentication.kubernetes.io/node-name={node}");
    let rest = ["-n", SYSTEM, &user, &extra];
    home.lab.kubectl_with_input(&[args, &rest].concat(), input)?;
    Ok(())
}

/// The Lease that keeps what a pool said.
fn last_good(home: &Home) -> anyhow::Result<String> {
    home.wait_until("what the pool said is kept", || {
        let label = "arpeggio.dev/record=last-good";
        let leases = home.lab.get(&["leases", "-n", SYSTEM, "-l", label]);
        let leases = leases.map_err(anyhow::Error::from)?;
        let name = leases["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
        name.ok_or_else(|| "there is none".to_owned().into())
    })
}
