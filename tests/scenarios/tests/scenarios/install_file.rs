//! Installing and removing Arpeggio as `docs/install.md` says it.

use std::net::SocketAddr;

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, install_release, remove_release, service};

const NAMESPACE: &str = "arpeggio-system";

pub(crate) fn one_file_installs_removes_and_installs_again(home: &Home) -> anyhow::Result<()> {
    install_release(&home.lab)?;
    home.add_pool()?;
    home.start_web(2)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;
    let owner = home.wait_for_owner(first_address())?;
    home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;
    programs_tell_what_they_are(home, owner)?;

    let pools = home.lab.kubectl(&["get", "addresspools", "-o", "yaml"])?;
    remove_release(&home.lab)?;
    for kind in ["leases", "pods"] {
        let left = home.lab.get(&[kind, "-n", NAMESPACE])?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    }
    for kind in ["crds", "clusterroles", "clusterrolebindings", "flowschemas"] {
        let left = home.lab.get(&[kind, "-l", "app.kubernetes.io/part-of=arpeggio"])?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    }
    ensure!(home.who_answers(first_address())?.is_empty(), "{address} is still announced");
    ensure!(home.addresses("web")? == [address], "the Service keeps what was written on it");

    install_release(&home.lab)?;
    home.lab.apply(&pools)?;
    home.wait_for_owner(first_address())?;
    ensure!(home.addresses("web")? == [address], "it has the same address again");
    home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;

    released_services_have_nothing_of_ours(home)?;
    let pools = home.lab.get(&["addresspools"])?;
    ensure!(pools["items"].as_array().is_some_and(|all| all.len() == 1), "pools stay: {pools}");
    let said = home.arpeggio(&["uninstall", "--delete-pools"])?;
    ensure!(said.contains("deleted AddressPools home"), "{said}");
    let pools = home.lab.get(&["addresspools"])?;
    ensure!(pools["items"].as_array().is_some_and(Vec::is_empty), "they go when asked: {pools}");
    let said = home.arpeggio(&["uninstall", "--dry-run"])?;
    ensure!(said.contains("nothing that it wrote is left"), "{said}");
    Ok(())
}

/// As the command is used that does it all.
fn released_services_have_nothing_of_ours(home: &Home) -> anyhow::Result<()> {
    let said = home.arpeggio(&["uninstall"])?;
    ensure!(said.contains("released Service default/web (192.168.0.240)"), "{said}");
    ensure!(said.contains("The AddressPools (1) stay"), "{said}");
    ensure!(home.addresses("web")?.is_empty(), "nobody answers there any more");
    ensure!(home.conditions("web")?.is_empty(), "{:?}", home.conditions("web"));
    ensure!(home.who_answers(first_address())?.is_empty(), "it is still announced");
    let left = home.lab.get(&["leases", "-n", NAMESPACE])?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}

/// The same version and commit by `--version`, as a metric and in the log.
fn programs_tell_what_they_are(home: &Home, node: Machine) -> anyhow::Result<()> {
    let pod = home.speaker_on(node)?;
    let say = |program: &str| {
        home.lab.kubectl(&["exec", "-n", NAMESPACE, &pod, "--", program, "--version"])
    };
    let version = env!("CARGO_PKG_VERSION");
    let told = say("/arpeggio-speaker")?;
    let Some(revision) = told.split(['(', ')']).nth(1) else {
        anyhow::bail!("no revision in {told}")
    };
    ensure!(told.trim() == format!("arpeggio-speaker {version} ({revision})"), "{told}");
    ensure!(say("/arpeggio")?.trim() == format!("arpeggio {version} ({revision})"));
    let page = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:7474/proxy/metrics");
    let metrics = home.lab.kubectl(&["get", "--raw", &page])?;
    let expected =
        format!("arpeggio_build_info{{revision=\"{revision}\",version=\"{version}\"}} 1");
    ensure!(metrics.contains(&expected), "{expected} is not in the metrics");
    let log = home.lab.kubectl(&["logs", "-n", NAMESPACE, &pod, "-c", "speaker"])?;
    let started = log.lines().find(|line| line.contains("speaker started")).unwrap_or_default();
    ensure!(started.contains(version) && started.contains(revision), "{started:?} in {log}");
    Ok(())
}
