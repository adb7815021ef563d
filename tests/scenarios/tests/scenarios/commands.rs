//! The command in the speaker's pod, where a user gets without a login on the node.

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, service};

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

/// Every link of the lab is a wire, and answers at once.
pub(crate) fn status_says_how_nodes_are_asked(home: &Home) -> anyhow::Result<()> {
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
