//! The reference of all commands, `docs/cli.md`, as clap knows them. Run with `UPDATE_GENERATED=1` to write it.

use std::{env, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use crate::Args;

const HEAD: &str = "\
# The command `arpeggio`

<!-- `make generate` writes this from the program's own help. -->

Also `kubectl arpeggio`, when it is on the PATH as `kubectl-arpeggio`. `arpeggio completion` and `arpeggio man` write what shells and
`man` need; [installing](install.md#the-command) says where that goes.
";

fn reference() -> String {
    let mut root = Args::command();
    root.build();
    let mut text = format!("{HEAD}\n{}\n", about(&root));
    text.push_str("\n## Options of every command\n\n");
    text.push_str(&table(root.get_arguments().filter(|arg| arg.is_global_set())));
    describe_all(&root, "arpeggio", &mut text);
    text
}

fn describe_all(command: &Command, path: &str, text: &mut String) {
    for inner in command.get_subcommands().filter(|it| is_for_people(it)) {
        let path = format!("{path} {}", inner.get_name());
        if inner.get_subcommands().filter(|it| is_for_people(it)).count() == 0 {
            text.push_str(&described(inner, &path));
        }
        describe_all(inner, &path, text);
    }
}

fn is_for_people(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn described(command: &Command, path: &str) -> String {
    let own: Vec<&Arg> = command.get_arguments().filter(|arg| is_own(arg)).collect();
    let arguments: String = command
        .get_positionals()
        .map(|it| {
            if it.is_required_set() { format!(" {}", name(it)) } else { format!(" [{}]", name(it)) }
        })
        .collect();
    let options = if own.iter().any(|arg| !arg.is_positional()) { " [OPTIONS]" } else { "" };
    let own = if own.is_empty() { String::new() } else { format!("\n{}", table(own.into_iter())) };
    let about = about(command);
    format!("\n## `{path}`\n\n{about}\n\n```text\n{path}{options}{arguments}\n```\n{own}")
}

/// Neither one of every command nor clap's own.
fn is_own(arg: &Arg) -> bool {
    !arg.is_global_set()
        && !arg.is_hide_set()
        && !["help", "version"].contains(&arg.get_id().as_str())
}

fn about(command: &Command) -> String {
    let text = command.get_long_about().or_else(|| command.get_about());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let text = format!("{}.", text.trim_end_matches('.'));
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn table<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let rows =
        args.map(|arg| format!("| {} | {} | {} |\n", code(&name(arg)), default(arg), help(arg)));
    rows.fold("| | default | |\n|---|---|---|\n".to_owned(), |text, row| text + &row)
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// As somebody writes it: `-o, --output <FORMAT>`.
fn name(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| arg.get_id().as_str().to_uppercase());
    let flags: Vec<String> = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    match (flags.is_empty(), arg.get_action().takes_values()) {
        (true, _) => value,
        (false, true) => format!("{} <{value}>", flags.join(", ")),
        (false, false) => flags.join(", "),
    }
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().map(|it| code(&it.to_string_lossy()));
    if arg.get_action().takes_values() {
        values.collect::<Vec<_>>().join(", ")
    } else {
        String::new()
    }
}

fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
    let help = help.unwrap_or_default().replace("\n\n", " ").replace('\n', " ");
    let mut parts = vec![format!("{}.", help.trim_end_matches('.'))];
    let values: Vec<String> = if arg.get_action().takes_values() {
        let shown = arg.get_possible_values().into_iter().filter(|it| !it.is_hide_set());
        shown.map(|it| code(it.get_name())).collect()
    } else {
        Vec::new()
    };
    if !values.is_empty() {
        parts.push(format!("One of {}.", values.join(", ")));
    }
    if let Some(variable) = arg.get_env() {
        parts.push(format!("Variable: {}.", code(&variable.to_string_lossy())));
    }
    parts.join(" ").replace('|', "\\|")
}

#[test]
fn the_committed_reference_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let expected = reference();
    if env::var("UPDATE_GENERATED").is_ok_and(|value| value == "1") {
        fs::write(&file, expected).unwrap();
    } else {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == expected, "docs/cli.md is out of date: run 'make generate'");
    }
}
