//! Every link in every page of this repository leads somewhere, the site has every page, and everything that a page says to type is
//! done by a test or said not to be. Two tests type it word for word; what others do by calls of their own has the same effect, and
//! who changes such a page has to look there.

// As in unit tests: what is not there is a failure.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use arpeggio_documents::{Page, Typed, unknown_commands, unknown_targets};

const SUMMARY: &str = "docs/SUMMARY.md";

fn top() -> PathBuf {
    arpeggio_documents::top().unwrap()
}

/// All pages by their path from the top folder.
fn pages() -> BTreeMap<PathBuf, Page> {
    let pages = arpeggio_documents::pages().unwrap();
    assert!(pages.len() > 20, "the pages are not where they were: {pages:?}");
    pages
}

/// The names of all scenarios.
fn scenarios() -> BTreeSet<String> {
    let table = fs::read_to_string(top().join("tests/scenarios/tests/scenarios/main.rs")).unwrap();
    let quoted = table.split('"').skip(1).step_by(2);
    let is_name = |it: &&str| it.chars().all(|it| it.is_ascii_alphanumeric() || it == '-');
    quoted.filter(is_name).map(str::to_owned).collect()
}

/// The tests that type what pages say word for word, and where they do.
const TYPED: [(&str, &str); 2] = [("newcomer", "newcomer.rs"), ("helm", "chart.rs")];

/// A test that types takes all blocks of a page that name it, so it has to know each page.
#[test]
fn who_types_word_for_word_types_every_page_that_says_so() {
    let mut wrong = Vec::new();
    for (test, file) in TYPED {
        let folder = top().join("tests/scenarios/tests/scenarios");
        let source = fs::read_to_string(folder.join(file)).unwrap();
        for (page, content) in pages() {
            let by = Some(Typed::By(test.to_owned()));
            let names = content.blocks.iter().any(|block| block.typed() == by);
            let page = page.display();
            if names && !source.contains(&format!("blocks(\"{page}\"")) {
                wrong.push(format!("{page}: the test {test} does not type it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All languages that blocks are written in: `text` is what is printed or drawn.
const LANGUAGES: [&str; 3] = ["sh", "yaml", "text"];

#[test]
fn what_a_page_says_to_type_is_tried_or_said_not_to_be() {
    let scenarios = scenarios();
    let mut wrong = Vec::new();
    for (page, content) in pages() {
        for block in &content.blocks {
            let says = |words: &str| block.section.to_lowercase().contains(words);
            let why = match (block.language(), block.typed()) {
                ("sh", Some(Typed::By(test))) if !scenarios.contains(&test) => {
                    format!("there is no test {test}")
                }
                ("sh", Some(Typed::NotTried)) if !says("not tried") => {
                    "tell readers as well: its section says nowhere \"not tried\"".to_owned()
                }
                ("sh", Some(Typed::ByHand)) if !says("by hand") => {
                    "tell readers as well: its section says nowhere \"by hand\"".to_owned()
                }
                ("sh", None) => {
                    "say who types it: sh tried=TEST, sh by-hand or sh not-tried".to_owned()
                }
                (language, _) if !LANGUAGES.contains(&language) => {
                    format!("say what it is: one of {}", LANGUAGES.join(", "))
                }
                _ => continue,
            };
            let line = block.text.lines().next().unwrap_or_default();
            wrong.push(format!("{}: {line:?}: {why}", page.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The images of all processors have the same name: a node that is given all archives keeps those that came last.
#[test]
fn a_node_is_given_the_images_for_its_own_processor_only() {
    let mut wrong = Vec::new();
    let mut right = 0;
    for (page, content) in pages() {
        let lines = content.blocks.iter().flat_map(|block| block.text.lines());
        for line in lines.filter(|it| it.contains(" target/images/") && !it.starts_with("make ")) {
            if line.contains(" target/images/$(uname -m)/*.tar") {
                right += 1;
            } else {
                wrong.push(format!("{}: {line}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty() && right > 3, "{}", wrong.join("\n"));
}

#[test]
fn commands_in_sentences_and_tables_are_ones_that_there_are() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let mut wrong = Vec::new();
    for (page, content) in pages() {
        let unknown = unknown_commands(&content).into_iter();
        let unknown = unknown.chain(unknown_targets(&content, &makefile));
        wrong.extend(unknown.map(|why| format!("{}: {why}", page.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_elsewhere(link: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|start| link.starts_with(start))
}

/// The file or folder that a link in `page` leads to, and the heading.
fn target(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (link, None),
    };
    if path.is_empty() {
        return (page.to_owned(), anchor);
    }
    let mut joined = PathBuf::new();
    for part in page.parent().unwrap().join(path).components() {
        match part {
            Component::ParentDir => {
                assert!(joined.pop(), "{}: {link} leaves the repository", page.display());
            }
            Component::CurDir => {}
            part => joined.push(part),
        }
    }
    (joined, anchor)
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    for (page, content) in &pages {
        for link in content.links.iter().filter(|link| !is_elsewhere(link)) {
            let (path, anchor) = target(page, link);
            let found = match (pages.get(&path), anchor) {
                (Some(there), Some(anchor)) => there.anchors.contains(&anchor),
                (None, Some(_)) => false,
                (_, None) => top().join(&path).exists(),
            };
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "these links lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn the_site_has_every_page_of_docs_and_links_to_no_file_outside() {
    let pages = pages();
    let listed: Vec<PathBuf> = pages[Path::new(SUMMARY)]
        .links
        .iter()
        .map(|link| target(Path::new(SUMMARY), link).0)
        .collect();
    for (page, content) in pages.iter().filter(|(page, _)| page.starts_with("docs")) {
        let page_name = page.display();
        assert!(
            page == Path::new(SUMMARY) || listed.contains(page),
            "add {page_name} to {SUMMARY}"
        );
        for link in content.links.iter().filter(|link| !is_elsewhere(link)) {
            let (path, _) = target(page, link);
            assert!(
                path.starts_with("docs"),
                "{page_name}: {link} is not on the site: name the file as `code` instead"
            );
        }
    }
}
