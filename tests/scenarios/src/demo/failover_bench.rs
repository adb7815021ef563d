//! Measures how long an address is gone when its owner dies: ours, keepalived's and MetalLB's, side by side in one run.
//!
//! An owner dies by a power cut: its cable is dead, and every process in it, at once. What counts is what a client on the
//! segment hears.

mod api_away;
mod arpeggio;
mod busy;
mod crash;
mod keepalived;
mod many;
mod metallb;
mod results;
mod setups;

use std::time::Duration;

use arpeggio_lab::{LabName, Options};
use arpeggio_scenarios::Home;
use clap::{Args, ValueEnum};

use self::results::{Results, head};

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// One address, with the settings that everybody has, beside keepalived and MetalLB.
    Crash,
    /// Whether anybody is accused wrongly on busy nodes, and what each profile would have done.
    Busy,
    /// Many addresses whose owner dies.
    Many,
    /// The API server is away, and then the owner dies.
    ApiAway,
    /// Two segments; six nodes of which two die at once; IPv6 only; a node on another network.
    Setups,
}

/// What to measure, and how much of it.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Which parts, separated by commas; all of them by default.
    #[arg(long, env = "PARTS", value_enum, value_delimiter = ',', hide_env_values = true)]
    parts: Vec<Part>,
    /// How often an owner of ours dies, of each part with one address.
    #[arg(long, env = "CRASHES", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    crashes: u32,
    /// How many minutes nodes are busy, and how many the API server is away.
    #[arg(long, env = "MINUTES", default_value_t = 1)]
    minutes: u64,
}

impl Plan {
    fn long(&self) -> Duration {
        Duration::from_mins(self.minutes)
    }
}

/// Runs the parts of a plan, each in a lab of its own.
pub(crate) fn run(name: &LabName, plan: &Plan) -> anyhow::Result<()> {
    let parts = if plan.parts.is_empty() { Part::value_variants() } else { &plan.parts[..] };
    let mut results = Results::create("failover.jsonl", head())?;
    for part in parts {
        let usual = Options::default();
        match part {
            Part::Crash => {
                in_a_lab(name, usual, |home| crash::measure(home, plan.crashes, &mut results))?;
            }
            Part::Busy => in_a_lab(name, usual, |home| busy::measure(home, plan, &mut results))?,
            Part::Many => in_a_lab(name, usual, |home| many::measure(home, &mut results))?,
            Part::ApiAway => {
                in_a_lab(name, usual, |home| api_away::measure(home, plan, &mut results))?;
            }
            Part::Setups => setups::measure(name, plan, &mut results)?,
        }
    }
    results.show();
    Ok(())
}

/// Measures in a lab of its own; one in which that has failed leaves evidence.
fn in_a_lab(
    name: &LabName,
    options: Options,
    measure: impl FnOnce(&Home) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let home = Home::start(name.as_str(), options)?;
    measure(&home).inspect_err(|_| home.collect())?;
    home.lab.stop()?;
    Ok(())
}
