//! A speaker that may open so few files that it cannot do its work.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess, eprint_line, first_address};

/// With the last of these it has what it needs.
const FILES: [u32; 4] = [12, 20, 28, 64];

/// How long it tries.
const SPAN: Duration = Duration::from_secs(8);

/// So many connections that nobody uses are made to its metrics, and so many more files it may have open then.
const IDLE: usize = 80;
const TAKEN: usize = 4;

/// A connection is taken for dead sooner.
const CUT_OFF: Duration = Duration::from_secs(12);

const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// The other nodes are cordoned, so that it would get the address if it could announce it.
pub(crate) fn a_speaker_with_few_files_leaves_addresses_to_others(
    home: &Home,
) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let mut others = home.lab.options().node_machines();
    others.retain(|node| *node != owner);
    let node = others.pop().context("there are several nodes")?;
    // The DaemonSet is for nodes with this label.
    home.lab.kubectl(&["label", "node", &node.to_string(), "kubernetes.io/os-"])?;
    home.wait_until("its pod is gone", || match home.speaker_on(node) {
        Ok(pod) => Err(format!("{pod} is there").into()),
        Err(_) => Ok(()),
    })?;
    for other in others.into_iter().chain([owner]) {
        home.lab.kubectl(&["cordon", &other.to_string()])?;
    }
    let (enough, too_few) = FILES.split_last().context("there are several")?;
    for files in too_few {
        let name = format!("speaker-with-{files}-files");
        let mut speaker = HostProcess::speaker_with_files(&home.lab, node, &name, *files)?;
        thread::sleep(SPAN);
        let answering = home.who_answers(first_address())?;
        ensure!(answering == [owner], "with {files} files of {node}: {answering:?}");
        speaker.kill()?;
        let log = fs::read_to_string(home.lab.folders().logs().join(format!("{name}.log")))?;
        let said = log.lines().filter(|it| it.contains("few files") || it.contains("open files"));
        let said: Vec<&str> = said.collect();
        eprint_line(&format!("with {files} files: {said:#?}"));
        ensure!(said.iter().any(|it| it.contains("Too many open files")), "{files}: {log}");
        ensure!(log.lines().count() < 200, "{files}: {log}");
    }
    with_enough(home, node, *enough)
}

/// It serves, and strangers cannot take what it needs for that.
fn with_enough(home: &Home, node: Machine, files: u32) -> anyhow::Result<()> {
    let speaker = HostProcess::speaker_with_files(&home.lab, node, "speaker-with-enough", files)?;
    home.wait_for_owner_to_be(first_address(), node)?;
    thread::sleep(SPAN);
    let before = speaker.open_files()?;
    let address = SocketAddr::from((node.lan_v4().context("it is on the LAN")?, 7474));
    let idle = home.lab.namespace(Machine::Client).enter(|| {
        let connect = |_| TcpStream::connect_timeout(&address, CONNECTS_WITHIN).ok();
        (0..IDLE).filter_map(connect).collect::<Vec<TcpStream>>()
    })?;
    thread::sleep(SPAN);
    let after = speaker.open_files()?;
    eprint_line(&format!("{before} files are open, {after} with {} idle connections", idle.len()));
    ensure!(idle.len() > TAKEN, "{} connections", idle.len());
    ensure!(after <= before + TAKEN, "{after} files are open, {before} were");
    // Its connections to the API server die, and it can open new ones.
    home.lab.network().cut_off_api(node, home.lab.options().control_machine())?;
    thread::sleep(CUT_OFF);
    home.lab.network().heal_api(node)?;
    home.wait_for_session(node)?;
    let answering = home.who_answers(first_address())?;
    ensure!(answering == [node], "{answering:?}");
    Ok(())
}
