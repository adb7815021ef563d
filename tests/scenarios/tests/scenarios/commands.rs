//! The command in the speaker's pod, where a user gets without a login on the node.

use std::{process::Output, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, observe::Capture, plan::mac_text};
use arpeggio_scenarios::{Home, POOL, eprint_line, first_address, service};
use serde_json::json;

pub(crate) fn the_speakers_pod_answers_a_users_questions(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.start_web(1)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    home.wait_for_address("web")?;
    let address = first_address().to_string();
    let owner = home.wait_for_owner(first_address())?;

    let nodes = home.lab.options().node_machines();
    let other = nodes.into_iter().find(|node| *node != owner).context("there are three nodes")?;
    let told = in_pod(home, other, &["who-has", &address])?;
    ensure!(told.contains(&format!("{owner}, holds the lock")), "on {other}: {told}");
    ensure!(told.contains("for default/web (pool home)"), "on {other}: {told}");

    let told = in_pod(home, owner, &["interfaces", &address])?;
    let expected = format!(
        "{address} is announced on {}: pool {POOL} names no interfaces, and the subnet",
        owner.interface()
    );
    ensure!(told.starts_with(&expected), "on {owner}: {told}");
    Ok(())
}

/// What the command prints in the speaker's pod of a node.
fn in_pod(home: &Home, node: Machine, args: &[&str]) -> anyhow::Result<String> {
    let pod = home.speaker_on(node)?;
    let exec = ["exec", "-n", "arpeggio-system", &pod, "--", "/arpeggio"];
    Ok(home.lab.kubectl(&[&exec[..], args].concat())?)
}

/// It stands where somebody may have put a secret, and must not be in the archive.
const SECRET: &str = "hunter2-of-the-shop";

pub(crate) fn a_report_holds_no_secrets(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let mut web = service("web", "arpeggio.dev/address-pool", POOL);
    let annotations = &mut web["metadata"]["annotations"];
    annotations["example.com/token"] = json!(SECRET);
    annotations["arpeggio.dev/sharing-key"] = json!(SECRET);
    annotations["kubectl.kubernetes.io/last-applied-configuration"] =
        json!(format!("{{\"password\":\"{SECRET}\"}}"));
    home.apply(&web)?;
    home.wait_for_address("web")?;
    home.wait_for_owner(first_address())?;
    let container = json!({
        "name": "pause", "image": "arpeggio/none", "imagePullPolicy": "Never",
        "env": [{ "name": "PASSWORD", "value": SECRET }], "args": [format!("--token={SECRET}")],
    });
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "planted", "namespace": "arpeggio-system" },
        "spec": { "containers": [container] },
    }))?;
    let outcome = what_a_report_holds(home);
    home.lab.kubectl(&["delete", "pod", "planted", "-n", "arpeggio-system", "--now"])?;
    let (everything, names) = outcome?;

    ensure!(!everything.contains(SECRET), "the secret is in it");
    ensure!(everything.contains("name: PASSWORD"), "the variable is named");
    ensure!(everything.contains("arpeggio.dev/address-pool: "), "our annotations are there");
    ensure!(everything.contains("arpeggio_speaker_announced_addresses"), "metrics are there");
    ensure!(everything.contains("speaker started"), "logs are there");
    let is_frame = |line: &str| line.contains(" eth0 in  arp ") && line.contains(" who has ");
    ensure!(everything.lines().any(is_frame), "frames are there");
    ensure!(names.contains("/frames/arpeggio-speaker-"), "{names}");
    for name in ["README.txt", "status.json", "versions.txt", "objects/leases.yaml"] {
        ensure!(names.lines().any(|line| line.ends_with(name)), "{name}: {names}");
    }
    somebody_who_may_read_little_gets_a_report(home)
}

/// All texts in it, one after the other, and the names of its files.
fn what_a_report_holds(home: &Home) -> anyhow::Result<(String, String)> {
    let file = home.lab.folders().logs().join("report.tar.gz");
    let file = file.to_string_lossy().into_owned();
    home.arpeggio(&["report", "--file", &file])?;
    let control = home.lab.namespace(Machine::Control);
    Ok((control.run("tar", &["-xzOf", &file])?, control.run("tar", &["-tzf", &file])?))
}

fn somebody_who_may_read_little_gets_a_report(home: &Home) -> anyhow::Result<()> {
    let file = home.lab.folders().logs().join("small-report.tar.gz");
    let report = ["report", "--file", &file.to_string_lossy()];
    let told = ended_in_failure(&home.arpeggio_as_ends("nobody", &report)?)?;
    ensure!(told.contains("no object was found that could be read"), "{told}");
    ensure!(told.contains("leases (API group \"coordination.k8s.io\""), "{told}");
    ensure!(!file.exists(), "a report without anything in it was written");
    let told = ended_in_failure(&home.arpeggio_as_ends("nobody", &["status"])?)?;
    ensure!(told.contains("you need the permission to \"list\" them"), "{told}");

    let (role, binding) = (["role", "reader"], ["rolebinding", "reader"]);
    let of_pods = [&role[..], &["--verb=list", "--resource=pods"]].concat();
    let to_nobody = [&binding[..], &["--role=reader", "--user=nobody"]].concat();
    let kubectl =
        |verb, args: &[&str]| home.lab.kubectl(&[&[verb, "-n", "arpeggio-system"], args].concat());
    kubectl("create", &of_pods)?;
    kubectl("create", &to_nobody)?;
    let told = home.wait_until("the Role is known", || Ok(home.arpeggio_as("nobody", &report)?));
    kubectl("delete", &binding)?;
    kubectl("delete", &role)?;
    let told = told?;
    ensure!(told.contains("leases (API group \"coordination.k8s.io\""), "{told}");
    ensure!(file.exists(), "{told}");
    Ok(())
}

/// What the command printed that has to have failed.
fn ended_in_failure(end: &Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&end.stdout).into_owned();
    ensure!(end.status.code() == Some(1), "{end:?}");
    Ok(said)
}

/// Every link of the lab is a wire, and answers at once.
pub(crate) fn status_says_how_nodes_are_asked(home: &Home) -> anyhow::Result<()> {
    // A speaker remembers for a long time that a node was silent and lived, as one is in a machine that stands still for a moment,
    // while others use this cluster.
    home.replace_speakers()?;
    home.wait_until("every node is asked fast", || {
        let status = home.arpeggio(&["status"])?;
        let nodes = status.lines().filter(|line| line.starts_with("node-"));
        let fast = nodes.filter(|line| line.trim_end().ends_with(" fast")).count();
        if fast == 3 { Ok(()) } else { Err(status.into()) }
    })?;
    for node in home.lab.options().node_machines() {
        let name = "would_have_accused_total{profile=\"patient\"}";
        let wrong = home.speaker_metric(node, name)?;
        ensure!(wrong == ["0"], "{node}: {wrong:?}");
    }
    Ok(())
}

/// What one node says by ARP while all is well, with the default and for switches that limit ARP (to 15 frames a second and
/// port, unless told otherwise).
pub(crate) fn nodes_at_rest_say_little(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    home.wait_for_address("web")?;
    let owner = home.wait_for_owner(first_address())?;
    for (args, most) in [(&["--probe-profile=sparse"][..], 15.0), (&[], 110.0)] {
        home.set_speaker_args(args)?;
        home.wait_for_owner_to_be(first_address(), owner)?;
        std::thread::sleep(SETTLED);
        let frames = arp_frames_per_second(home, owner)?;
        eprint_line(&format!(
            "ARP frames a second from a node that owns an address, with {args:?}: {frames:.1}"
        ));
        ensure!(frames <= most, "{frames} frames a second with {args:?}");
    }
    Ok(())
}

/// After so long a gained address is announced no more, and every way to a node is known.
const SETTLED: Duration = Duration::from_secs(12);

const COUNTED: Duration = Duration::from_secs(10);

fn arp_frames_per_second(home: &Home, node: Machine) -> anyhow::Result<f64> {
    let mac = mac_text(node.mac().context("a node has a MAC address")?);
    let capture = Capture::start(&home.lab, node, &format!("arp and ether src {mac}"))?;
    std::thread::sleep(COUNTED);
    let file = capture.stop()?.to_string_lossy().into_owned();
    let frames = home.lab.namespace(node).run("tcpdump", &["-n", "-r", &file])?.lines().count();
    Ok(f64::from(u32::try_from(frames)?) / COUNTED.as_secs_f64())
}
