//! Commands that stand in sentences and tables, where no test types them: they must at least be ones that there are.

use std::collections::BTreeSet;

use crate::Page;

/// What `kubectl` can be told, as far as the pages say so.
const KUBECTL: [&str; 23] = [
    "annotate", "apply", "arpeggio", "auth", "cordon", "create", "delete", "describe", "drain",
    "edit", "exec", "explain", "get", "krew", "label", "logs", "patch", "replace", "rollout",
    "scale", "taint", "uncordon", "wait",
];

/// The commands of `kubectl` that a kind of object follows.
const OF_KINDS: [&str; 9] =
    ["annotate", "create", "delete", "describe", "edit", "explain", "get", "label", "patch"];

/// Kinds of objects, as people name them.
const KINDS: [&str; 21] = [
    "addresspool",
    "clusterrole",
    "configmap",
    "crd",
    "daemonset",
    "deployment",
    "endpointslice",
    "event",
    "flowschema",
    "gateway",
    "ingress",
    "lease",
    "namespace",
    "networkpolicy",
    "node",
    "pod",
    "resourcequota",
    "secret",
    "service",
    "statefulset",
    "svc",
];

const HELM: [&str; 10] = [
    "get",
    "history",
    "install",
    "list",
    "repo",
    "rollback",
    "show",
    "template",
    "uninstall",
    "upgrade",
];
const MINIKUBE: [&str; 8] =
    ["addons", "delete", "image", "ip", "service", "ssh", "start", "tunnel"];
const KIND: [&str; 4] = ["create", "delete", "get", "load"];
const K3S: [&str; 5] = ["agent", "check-config", "ctr", "kubectl", "server"];

/// The flags of `kubectl` and others whose value is a word of its own.
const WITH_VALUE: [&str; 5] = ["-n", "-f", "-k", "-o", "-c"];

impl Page {
    /// The words of each command of this program in its sentences and tables.
    pub fn commands_of<'a>(&'a self, program: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
        self.codes.iter().filter_map(move |code| {
            let rest = code.strip_prefix(program)?.strip_prefix(' ')?;
            Some(rest.split_whitespace().collect())
        })
    }
}

/// What is wrong with the commands of others' programs on a page.
pub fn unknown_commands(page: &Page) -> Vec<String> {
    let programs: [(&str, &[&str]); 5] = [
        ("kubectl", &KUBECTL),
        ("helm", &HELM),
        ("minikube", &MINIKUBE),
        ("kind", &KIND),
        ("k3s", &K3S),
    ];
    let mut wrong = Vec::new();
    for (program, known) in programs {
        for words in page.commands_of(program) {
            if !subject(&words).is_some_and(|(first, _)| known.contains(&first)) {
                wrong.push(format!("`{program} {}`: no such command", words.join(" ")));
            }
        }
    }
    wrong.extend(page.commands_of("kubectl").filter_map(|words| unknown_kind(&words)));
    wrong
}

/// The first word that is no flag, nor the value of one, and what follows.
fn subject<'a>(words: &[&'a str]) -> Option<(&'a str, Vec<&'a str>)> {
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        if WITH_VALUE.contains(&word) {
            rest.next();
        } else if !word.starts_with('-') {
            return Some((word, rest.collect()));
        }
    }
    None
}

fn unknown_kind(words: &[&str]) -> Option<String> {
    let (command, rest) = subject(words)?;
    let (kind, _) = subject(&rest)?;
    let kind = kind.split('/').next()?;
    // With its group, since others have kinds of the same name.
    let kind = kind.strip_suffix(".arpeggio.dev").unwrap_or(kind);
    let is_known = ["", "s", "es"]
        .iter()
        .any(|plural| kind.strip_suffix(plural).is_some_and(|one| KINDS.contains(&one)));
    let is_wrong = OF_KINDS.contains(&command) && !is_known;
    is_wrong.then(|| format!("`kubectl {}`: no such kind of object", words.join(" ")))
}

/// What is wrong with the commands of `make` on a page, given the text of the Makefile.
pub fn unknown_targets(page: &Page, makefile: &str) -> Vec<String> {
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', ' ']))
        .filter_map(|line| line.split_once(':').filter(|(_, rest)| !rest.starts_with('=')))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    let is_known = |word: &str| match word.split_once('=') {
        Some((variable, _)) => makefile.contains(variable),
        None => targets.contains(word),
    };
    let mut wrong = Vec::new();
    for words in page.commands_of("make") {
        let unknown = words.iter().filter(|word| !is_known(word));
        wrong.extend(unknown.map(|word| format!("`make {}`: {word} is unknown", words.join(" "))));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_there_are_not_are_found() {
        let page = Page::parse(
            "`kubectl -n x get pods`, `kubectl scale statefulset/kafka`, `kubectl get ingresses`, `kubectl get addresspools.arpeggio.dev`, `kubectl`\n\n\
             | `kubectl fetch pods` |\n|---|\n| `kubectl get -n x polls` |\n| `helm instal x` |",
        );
        let wrong = [
            "`kubectl fetch pods`: no such command",
            "`helm instal x`: no such command",
            "`kubectl get -n x polls`: no such kind of object",
        ];
        assert_eq!(unknown_commands(&page), wrong);
    }

    #[test]
    fn targets_that_there_are_not_are_found() {
        let makefile = "HOURS ?= 8\nNAME := a\ndemo: setup ## Run\n\tthing: x\n";
        let page =
            Page::parse("`make demo`, `make demo HOURS=2`, `make thing`, `make demo DAYS=1`");
        let wrong = ["`make thing`: thing is unknown", "`make demo DAYS=1`: DAYS=1 is unknown"];
        assert_eq!(unknown_targets(&page, makefile), wrong);
    }
}
