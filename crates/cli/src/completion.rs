//! `arpeggio completion`: what a shell needs to complete command lines.

mod plugin;

use clap::Command;
use clap_complete::Shell;

pub(crate) use self::plugin::answer;

/// Arguments of `arpeggio completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    shell: CompletedShell,
}

/// The shells that people use with kubectl.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CompletedShell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

impl From<CompletedShell> for Shell {
    fn from(shell: CompletedShell) -> Self {
        match shell {
            CompletedShell::Bash => Self::Bash,
            CompletedShell::Zsh => Self::Zsh,
            CompletedShell::Fish => Self::Fish,
            CompletedShell::Powershell => Self::PowerShell,
        }
    }
}

/// The script for a shell.
pub(crate) fn script(mut command: Command, args: &CompletionArgs) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(Shell::from(args.shell), &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::*;
    use crate::Args;

    #[test]
    fn every_script_knows_every_command() {
        for shell in CompletedShell::value_variants() {
            let script = script(Args::command(), &CompletionArgs { shell: *shell });
            for command in Args::command().get_subcommands().filter(|it| !it.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
            }
        }
    }

    /// As docs/user-guide.md has it loaded.
    #[test]
    fn a_real_bash_loads_it() {
        let script = script(Args::command(), &CompletionArgs { shell: CompletedShell::Bash });
        let folder = std::env::temp_dir().join(format!("arpeggio-bash-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("completion"), script).unwrap();
        let words = "source completion && complete -p arpeggio && COMP_WORDS=(arpeggio dril) COMP_CWORD=1 \
                     && _arpeggio arpeggio dril arpeggio && echo \"offered: ${COMPREPLY[*]}\"";
        let mut bash = std::process::Command::new("bash");
        let output = bash.args(["--norc", "-c", words]).current_dir(&folder).output().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
        assert!(
            said.contains("-F _arpeggio arpeggio") && said.contains("offered: drill"),
            "{said}"
        );
    }
}
