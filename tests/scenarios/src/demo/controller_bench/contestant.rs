//! Who is measured, and how it is started.

use arpeggio_lab::Lab;
use arpeggio_scenarios::{Cost, HostProcess, install_definitions, pool};

use super::load::Giver;
use crate::metallb;

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
            Self::MetalLb => {
                metallb::install(lab, RANGE)?;
                metallb::add_controller_pod(lab)?;
            }
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
            Contestant::MetalLb => Some(metallb::controller(self.lab)?),
        };
        Ok(())
    }
}
