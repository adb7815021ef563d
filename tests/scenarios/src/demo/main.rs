//! The demo: an address outlives its node, on a real cluster, before your eyes.

// A program for people: what it prints is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod announcements;
mod api;
mod api_bench;
mod client;
mod controller_bench;
mod failover_bench;
mod failures;
mod hearing;
mod lines;
mod locks;
mod metallb;
mod narrator;
mod observation;
mod quantile;
mod report;
mod results;
mod server;
mod story;
mod timeline;
mod wire_bench;

use std::process::ExitCode;

use arpeggio_lab::{LabName, Options, guard};
use arpeggio_scenarios::Home;
use clap::{Parser, Subcommand};

use crate::{failover_bench::Plan, wire_bench::Part};

/// Shows Arpeggio at work on a real Kubernetes cluster in network namespaces of this machine. Needs root.
#[derive(Debug, Parser)]
#[command(name = "arpeggio-demo", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// The lab's name.
    #[arg(long, global = true, env = "ARPEGGIO_LAB", default_value = "arpeggio-demo")]
    name: LabName,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole story: install, reach a page, cut the owner's power, watch, clean up.
    Run {
        /// Leave the cluster running at the end.
        #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new())]
        keep: bool,
    },
    /// Measure answers on the wire beside the kernel's and MetalLB's, in one run.
    BenchWire {
        /// Which parts, separated by commas; all of them by default.
        #[arg(long, env = "PARTS", value_enum, value_delimiter = ',', hide_env_values = true)]
        parts: Vec<Part>,
    },
    /// Measure how long an address is gone when its owner dies, beside keepalived and MetalLB, in one run.
    BenchFailover {
        #[command(flatten)]
        plan: Plan,
    },
    /// Measure the controller beside MetalLB's: many Services, created as fast as the API server takes them.
    BenchController {
        /// How many Services.
        #[arg(long, env = "COUNT", default_value_t = 10_000)]
        count: usize,
    },
    /// Measure what speakers at rest cost the API server: few and many addresses, few and many nodes.
    BenchApi {
        /// How many nodes are many, 4 to 200.
        #[arg(long, env = "MANY_NODES", default_value_t = 200, value_parser = clap::value_parser!(u8).range(4..=200))]
        nodes: u8,
    },
    /// Write docs/failures.md from what the failure tests have seen.
    Failures,
    /// Start a cluster with Arpeggio, a pool and a page, and leave it running.
    Lab {
        /// How many nodes, 1 to 9.
        #[arg(long, env = "NODES", default_value_t = 3)]
        nodes: u8,
    },
}

fn main() -> ExitCode {
    guard::run_if_asked();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arpeggio-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run { keep } => {
            let home = Home::start(args.name.as_str(), Options::default())?;
            story::tell(&home).inspect_err(|_| home.collect())?;
            end(home, keep, args)
        }
        Command::BenchWire { ref parts } => wire_bench::run(&args.name, parts),
        Command::BenchFailover { ref plan } => failover_bench::run(&args.name, plan),
        Command::BenchController { count } => controller_bench::run(&args.name, count),
        Command::BenchApi { nodes } => api_bench::run(&args.name, nodes),
        Command::Failures => failures::write(),
        Command::Lab { nodes } => {
            let options = Options { nodes, ..Options::default() };
            let home = Home::start(args.name.as_str(), options)?;
            story::furnish(&home).inspect_err(|_| home.collect())?;
            end(home, true, args)
        }
    }
}

fn end(home: Home, keep: bool, args: &Args) -> anyhow::Result<()> {
    if keep {
        println!("{}", narrator::farewell(&args.name));
        return Ok(home.lab.keep()?);
    }
    home.lab.stop()?;
    narrator::say("The cluster is gone; nothing is left on this machine.");
    Ok(())
}
