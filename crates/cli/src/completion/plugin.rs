//! Completion of `kubectl arpeggio ...`. kubectl asks a program `kubectl_complete-arpeggio` for what may come next, with the
//! words so far, and expects a candidate a line and then a colon with what it is to do with them.

use clap::{Arg, Command};

/// kubectl is not to add names of files (cobra's `ShellCompDirectiveNoFileComp`).
const NO_FILES: &str = ":4";

/// What may come next, as kubectl expects it. The last of `words` is the one that is being written.
pub(crate) fn answer(mut command: Command, words: &[String]) -> String {
    command.build();
    let lines = candidates(&command, words).into_iter().map(|(word, help)| match help.as_str() {
        "" => format!("{word}\n"),
        help => format!("{word}\t{help}\n"),
    });
    lines.chain([format!("{NO_FILES}\n")]).collect()
}

/// Each with a line of help.
fn candidates(root: &Command, words: &[String]) -> Vec<(String, String)> {
    let (written, before) =
        words.split_last().map_or(("", words), |(it, rest)| (it.as_str(), rest));
    let (command, open) = walk(root, before);
    let offered = match open {
        Some(option) => values(option),
        None if written.starts_with('-') => flags(command),
        None => subcommands(command),
    };
    offered.into_iter().filter(|(word, _)| word.starts_with(written)).collect()
}

/// The command that the words lead to, and the option whose value comes next.
fn walk<'a>(root: &'a Command, words: &[String]) -> (&'a Command, Option<&'a Arg>) {
    let (mut command, mut open) = (root, None);
    for word in words {
        if open.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            open = command.get_arguments().find(|arg| is_open(arg, word));
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    (command, open)
}

/// Whether `word` is this option, and its value is another word.
fn is_open(arg: &Arg, word: &str) -> bool {
    let is_named = arg.get_long().is_some_and(|long| word == format!("--{long}"))
        || arg.get_short().is_some_and(|short| word == format!("-{short}"));
    is_named && arg.get_action().takes_values()
}

fn values(arg: &Arg) -> Vec<(String, String)> {
    let values = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
    let with_help = |value: clap::builder::PossibleValue| {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        (value.get_name().to_owned(), help)
    };
    values.map(with_help).collect()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let flag = |arg: &Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some((format!("--{}", arg.get_long()?), help))
    };
    shown.filter_map(flag).collect()
}

/// Subcommands, and the values of arguments that are words of a list.
fn subcommands(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    let subcommand = |it: &Command| {
        let help = it.get_about().map(ToString::to_string).unwrap_or_default();
        (it.get_name().to_owned(), help)
    };
    shown.map(subcommand).chain(command.get_positionals().flat_map(values)).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Args;

    fn offered(line: &[&str]) -> Vec<String> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let answer = answer(Args::command(), &words);
        let (lines, directive) = answer.trim_end().rsplit_once('\n').unwrap_or(("", &answer));
        assert_eq!(directive.trim_end(), NO_FILES);
        lines.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
    }

    #[test]
    fn what_may_come_next_is_offered() {
        assert!(offered(&["sta"]) == ["status"]);
        assert!(offered(&[""]).contains(&"explain".to_owned()));
        assert!(!offered(&[""]).contains(&"__complete".to_owned()), "it is not for people");
        assert_eq!(
            offered(&["explain", ""]),
            ["help", "service"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
        );
        assert_eq!(offered(&["status", "-o", "j"]), ["json"]);
        assert_eq!(offered(&["-n", "status", "status", "--prob"]), ["--problems"]);
        assert_eq!(offered(&["status", "--system"]), ["--system-namespace"]);
        assert_eq!(offered(&["completion", "ba"]), ["bash"]);
        assert!(offered(&["status", "-n", ""]).is_empty());
    }
}
