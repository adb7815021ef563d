//! Command-line arguments, as all our programs take them.

use std::{
    env,
    ffi::OsStr,
    hash::{BuildHasher as _, RandomState},
};

use clap::{Command, CommandFactory, Parser, error::ErrorKind};

/// What a program that speaks for one node says where nobody has named it.
pub const NO_NODE: &str = "which node is this? Say it with --node-name or NODE_NAME";

/// The arguments of this process. It ends with exit code 2 where they are wrong.
///
/// A variable that is empty counts as not set: a manifest gives it where nobody has filled in the value.
#[must_use]
pub fn parse<A: Parser>() -> A {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let mut command = without_empty(A::command(), is_empty);
    let parsed = A::from_arg_matches_mut(&mut command.get_matches_mut());
    parsed.unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Ends this process with exit code 2, since its arguments are wrong together.
pub fn refuse<A: CommandFactory>(why: &impl std::fmt::Display) -> ! {
    A::command().error(ErrorKind::ValueValidation, why).exit()
}

fn without_empty(command: Command, is_empty: impl Fn(&OsStr) -> bool + Copy) -> Command {
    let command = command.mut_args(|arg| {
        if arg.get_env().is_some_and(is_empty) { arg.env(None::<&'static str>) } else { arg }
    });
    command.mut_subcommands(|subcommand| without_empty(subcommand, is_empty))
}

/// Which of a node's processes this is: the name of its pod, or one that it makes up. In a container each process has the number 1.
#[must_use]
pub fn instance(pod_name: Option<&str>) -> String {
    let made_up = || format!("process-{:x}", RandomState::new().hash_one(std::process::id()));
    pod_name.map_or_else(made_up, str::to_owned)
}

/// A name as objects in Kubernetes have it (RFC 1123).
///
/// # Errors
/// When no object can have it.
pub fn name(text: &str) -> Result<String, String> {
    let is_known = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-.".contains(&it);
    let has_good_ends = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    if text.is_empty() || text.len() > 253 || !text.bytes().all(is_known) || !has_good_ends {
        return Err(
            "no object in Kubernetes has such a name: write lower-case letters, digits, - and ."
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// The same, or nothing.
///
/// # Errors
/// When no object can have it.
pub fn name_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { name(text) }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        // Cargo sets it for tests.
        #[arg(long, env = "CARGO_MANIFEST_DIR", default_value = "unset")]
        folder: String,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Run {
            #[arg(long, env = "CARGO_PKG_NAME")]
            package: Option<String>,
        },
    }

    fn parsed(empty: &'static str, arguments: &[&str]) -> Args {
        let command = without_empty(Args::command(), |name| name == empty);
        let mut matches = command.get_matches_from([&["program"], arguments].concat());
        Args::from_arg_matches_mut(&mut matches).unwrap()
    }

    #[test]
    fn a_variable_that_is_empty_counts_as_not_set() {
        assert_eq!(parsed("CARGO_MANIFEST_DIR", &[]).folder, "unset");
        assert_ne!(parsed("", &[]).folder, "unset");
        assert_eq!(parsed("CARGO_MANIFEST_DIR", &["--folder=given"]).folder, "given");
        let package = |empty| match parsed(empty, &["run"]).command {
            Some(Sub::Run { package }) => package,
            None => panic!("no subcommand"),
        };
        assert_eq!(package("CARGO_PKG_NAME"), None);
        assert_eq!(package("").as_deref(), Some("arpeggio-runtime"));
    }

    #[test]
    fn names_are_those_that_objects_can_have() {
        for good in ["a", "arpeggio-system", "node-1.home.example", "1"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        let long = "a".repeat(254);
        for bad in ["", " ", "Node-1", "a b", "a\n", "-a", "a.", "a/b", "a_b", "é", long.as_str()]
        {
            assert!(name(bad).unwrap_err().contains("lower-case letters"), "{bad:?}");
        }
        assert_eq!(name_or_none("").as_deref(), Ok(""));
        assert!(name_or_none(" ").is_err());
    }
}
