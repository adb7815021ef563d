//! Who is measured, and how it is started.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Lab;
use arpeggio_scenarios::{Cost, HostProcess, install_definitions, pool};
use serde_json::json;

use super::load::Giver;

/// More addresses than any run needs.
const RANGE: &str = "10.10.0.1-10.10.255.254";

/// Our controller's metrics; nobody looks at them here.
const PORT: u16 = 7473;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contestant {
    /// Nobody: what creating the Services alone takes.
    Nobody,
    /// Nobody, and the client itself sends what our controller would.
    Floor,
    /// Our controller.
    Arpeggio,
    /// MetalLB's controller.
    MetalLb,
}

/// A contestant at work.
pub(super) struct Running<'a> {
    contestant: Contestant,
    lab: &'a Lab,
    process: Option<HostProcess>,
}

impl Contestant {
    /// In the order in which they are measured.
    pub(super) const ALL: [Self; 4] = [Self::Nobody, Self::Floor, Self::Arpeggio, Self::MetalLb];

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nobody => "no controller",
            Self::Floor => "no controller, and the client sends the same requests as ours",
            Self::Arpeggio => "Arpeggio's controller",
            Self::MetalLb => "MetalLB's controller",
        }
    }

    /// For machines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Floor => "floor",
            Self::Arpeggio => "arpeggio",
            Self::MetalLb => "metallb",
        }
    }

    /// Installs what it needs and starts it.
    pub(super) fn start(self, lab: &Lab) -> anyhow::Result<Running<'_>> {
        match self {
            Self::Nobody | Self::Floor => {}
            Self::Arpeggio => {
                install_definitions(lab)?;
                lab.apply(&pool("bench", &[RANGE]).to_string())?;
            }
            Self::MetalLb => install_metallb(lab)?,
        }
        let mut running = Running { contestant: self, lab, process: None };
        running.start_again()?;
        Ok(running)
    }
}

impl Running<'_> {
    /// Who gives the addresses.
    pub(super) fn giver(&self) -> Giver {
        match self.contestant {
            Contestant::Nobody => Giver::Nobody,
            Contestant::Floor => Giver::Client,
            Contestant::Arpeggio | Contestant::MetalLb => Giver::Controller,
        }
    }

    /// What it has cost so far.
    pub(super) fn cost(&self) -> anyhow::Result<Option<Cost>> {
        self.process.as_ref().map(HostProcess::cost).transpose()
    }

    /// Stops it as a rollout does.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().map_or(Ok(()), HostProcess::stop)
    }

    /// Starts it, again.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = match self.contestant {
            Contestant::Nobody | Contestant::Floor => None,
            Contestant::Arpeggio => {
                let args = ["--log=warn"];
                Some(HostProcess::controller(self.lab, "arpeggio", PORT, &args)?)
            }
            Contestant::MetalLb => Some(metallb(self.lab)?),
        };
        Ok(())
    }
}

fn install_metallb(lab: &Lab) -> anyhow::Result<()> {
    let definitions = peers()?.join("crds").to_string_lossy().into_owned();
    // Too large for what `kubectl apply` writes down on an object.
    lab.kubectl(&["create", "-f", &definitions])?;
    lab.wait_for(&["crd/ipaddresspools.metallb.io"], "condition=Established", super::PATIENCE)?;
    lab.kubectl(&["create", "namespace", "metallb-system"])?;
    // It wants to find its own Pod. Nobody runs this one, and nobody takes it for an orphan either.
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "controller", "namespace": "metallb-system" },
        "spec": {
            "schedulingGates": [{ "name": "example.com/never" }],
            "automountServiceAccountToken": false,
            "containers": [{ "name": "none", "image": "none" }],
        },
    });
    // Kubernetes makes this one too, and whoever comes second is refused; without it no Pod is taken.
    let _ = lab.kubectl(&["create", "serviceaccount", "default", "-n", "metallb-system"]);
    lab.apply(&pod.to_string())?;
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": { "name": "bench", "namespace": "metallb-system" },
        "spec": { "addresses": [RANGE] },
    });
    lab.apply(&pool.to_string())?;
    Ok(())
}

fn metallb(lab: &Lab) -> anyhow::Result<HostProcess> {
    let mut command = Command::new(peers()?.join("metallb-controller"));
    command.args([
        "--namespace=metallb-system",
        "--pod-name=controller",
        "--port=0",
        "--webhook-mode=disabled",
        "--disable-cert-rotation",
        "--log-level=warn",
    ]);
    HostProcess::start(lab, "metallb", &mut command)
}

/// The folder of the peers' programs, which are built when they are not there yet.
fn peers() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/build.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
