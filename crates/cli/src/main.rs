//! The arpeggio command, also a kubectl plugin.
//!
//! As `kubectl-arpeggio` on the PATH it is `kubectl arpeggio`.

#![forbid(unsafe_code)]
// This is a command: its output is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod status;
mod table;

use std::process::ExitCode;

use arpeggio_runtime::client::{self, Patience};
use clap::{Parser, Subcommand};

/// Looks into Arpeggio, the layer-2 load balancer.
///
/// Finds the cluster by KUBECONFIG or ~/.kube/config. Exit codes: 0 done, 1 failed, 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "arpeggio", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// The namespace that Arpeggio is installed in.
    #[arg(short, long, global = true, default_value = "arpeggio-system", value_name = "NAME")]
    namespace: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who announces which address, and which nodes take part.
    Status,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("arpeggio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<String> {
    match args.command {
        Command::Status => {
            let client = client::connect(Patience::default()).await?;
            status::show(client, &args.namespace).await
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
