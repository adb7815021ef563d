//! What the pages say to type of this command can be typed: also in sentences and tables, where no test types it.

use std::path::Path;

use clap::{Arg, CommandFactory as _};

use crate::Args;

/// What is wrong with the words behind `arpeggio`.
fn fault(words: &[&str]) -> Option<String> {
    let mut root = Args::command();
    root.build();
    let mut command = &root;
    for word in words.iter().take_while(|word| !is_of_the_shell(word)) {
        match command.find_subcommand(word) {
            Some(inner) => command = inner,
            None if word.starts_with('-') => {
                let known = command.get_arguments().any(|arg| is_flag(arg, word));
                if !known {
                    return Some(format!("{} has no {word}", command.get_name()));
                }
            }
            None if command.has_subcommands() => return Some(format!("there is no {word}")),
            None => {}
        }
    }
    None
}

/// What is not for the command: pipes and files.
fn is_of_the_shell(word: &str) -> bool {
    word.starts_with(['|', '>', '\\'])
}

fn is_flag(arg: &Arg, word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    let long = arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
    let short = arg.get_short().and_then(|short| name.strip_prefix('-')?.strip_prefix(short));
    long || short.is_some()
}

#[test]
fn what_there_is_not_is_found() {
    let fault = |line: &str| fault(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(fault("status --watch -o json"), None);
    assert_eq!(fault("explain service -n NAMESPACE NAME"), None);
    assert_eq!(fault("completion fish >~/.config/x"), None);
    assert_eq!(fault("statsu").as_deref(), Some("there is no statsu"));
    assert_eq!(fault("status --wach").as_deref(), Some("status has no --wach"));
    assert_eq!(fault("status -q").as_deref(), Some("status has no -q"));
}

#[test]
fn what_pages_say_to_type_can_be_typed() {
    let for_users = |path: &Path| {
        let tops = ["README.md", "CONTRIBUTING.md", "docs", "manifests"];
        tops.iter().any(|top| path.starts_with(top))
    };
    let mut wrong = Vec::new();
    for (path, page) in arpeggio_documents::pages().unwrap() {
        if !for_users(&path) {
            continue;
        }
        let of_kubectl = page.commands_of("kubectl arpeggio");
        let commands = page.commands_of("arpeggio").chain(of_kubectl);
        let faults = commands.filter_map(|words| fault(&words));
        wrong.extend(faults.map(|why| format!("{}: {why}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
