//! Pages in Markdown: what they link to, what they can be linked by, and what they say to type.

#![forbid(unsafe_code)]

mod commands;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

pub use commands::{unknown_commands, unknown_targets};

/// Folders with what is not ours, or was built.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// The folder that holds the repository.
///
/// # Errors
/// When it is not there any more.
pub fn top() -> io::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()
}

/// All pages of the repository by their path from the top folder.
///
/// # Errors
/// When one cannot be read.
pub fn pages() -> io::Result<BTreeMap<PathBuf, Page>> {
    let top = top()?;
    let (mut pages, mut folders) = (BTreeMap::new(), vec![top.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() && !LEFT_OUT.contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let page = Page::parse(&fs::read_to_string(&path)?);
                pages.insert(path.strip_prefix(&top).unwrap_or(&path).to_owned(), page);
            }
        }
    }
    Ok(pages)
}

/// A page, as far as links and blocks of code are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where its links and images lead, as written.
    pub links: Vec<String>,
    /// The names of its headings: what stands behind `#` in a link to one.
    pub anchors: BTreeSet<String>,
    /// Its blocks of code.
    pub blocks: Vec<Block>,
    /// What stands as code in its sentences, tables and headings.
    pub codes: Vec<String>,
}

/// A block of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence: the language, and then marks.
    pub info: String,
    /// Its text.
    pub text: String,
    /// The text of the section in which it stands, without code.
    pub section: String,
}

/// Who does what a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The test of this name: `sh tried=NAME`. Word for word, or by calls of its own that do the same.
    By(String),
    /// A person, now and then: `sh by-hand`.
    ByHand,
    /// Nobody has: `sh not-tried`.
    NotTried,
}

impl Block {
    /// The language.
    #[must_use]
    pub fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or_default()
    }

    /// Who types it. `None`: it does not say, or nobody is to.
    #[must_use]
    pub fn typed(&self) -> Option<Typed> {
        match self.info.split_whitespace().collect::<Vec<_>>()[..] {
            ["sh", "by-hand"] => Some(Typed::ByHand),
            ["sh", "not-tried"] => Some(Typed::NotTried),
            ["sh", mark] => mark.strip_prefix("tried=").map(|name| Typed::By(name.to_owned())),
            _ => None,
        }
    }

    /// Its commands, of which each may take several lines.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        joined.lines().map(str::to_owned).filter(|it| !it.trim().is_empty()).collect()
    }
}

impl Page {
    /// Reads a page.
    pub fn parse(markdown: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut seen = BTreeMap::new();
        let mut section = Section::default();
        let mut is_code = false;
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            let is_code_in_text = matches!(event, Event::Code(_));
            match event {
                Event::Start(Tag::Heading { .. }) => {
                    heading = Some(String::new());
                    page.blocks.append(&mut std::mem::take(&mut section).finish());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    is_code = true;
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    section.blocks.push(Block { info, ..Block::default() });
                }
                Event::End(TagEnd::CodeBlock) => is_code = false,
                Event::Text(text) if is_code => {
                    if let Some(block) = section.blocks.last_mut() {
                        block.text.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    page.anchors.insert(numbered(anchor, &mut seen));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Text(text) | Event::Code(text) => {
                    if is_code_in_text {
                        page.codes.push(text.to_string());
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                    section.text.push_str(&text);
                }
                Event::SoftBreak => section.text.push(' '),
                _ => {}
            }
        }
        page.blocks.append(&mut section.finish());
        page
    }
}

/// What stands between two headings.
#[derive(Default)]
struct Section {
    text: String,
    blocks: Vec<Block>,
}

impl Section {
    fn finish(self) -> Vec<Block> {
        let Self { text, blocks } = self;
        blocks.into_iter().map(|block| Block { section: text.clone(), ..block }).collect()
    }
}

/// What GitHub and mdBook make of a heading: small letters, no punctuation, a hyphen for each blank.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// The second heading of the same name is `name-1`.
fn numbered(anchor: String, seen: &mut BTreeMap<String, usize>) -> String {
    let before = seen.entry(anchor.clone()).or_default();
    *before += 1;
    match *before - 1 {
        0 => anchor,
        times => format!("{anchor}-{times}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_tables_and_not_in_code() {
        let page = Page::parse(
            "| [a](a.md#x) |\n|---|\n| `[b](b.md)` |\n\n```\n[c](c.md)\n```\n![d](d.png)",
        );
        assert_eq!(page.links, ["a.md#x", "d.png"]);
        assert_eq!(page.codes, ["[b](b.md)"]);
    }

    #[test]
    fn blocks_say_who_types_them() {
        let page = Page::parse(
            "# A\n```sh tried=helm\na \\\n  b\n\nc\n```\n# B\nThis was not\ntried.\n```sh not-tried\nd\n```\n```text\ne\n```",
        );
        let typed: Vec<Option<Typed>> = page.blocks.iter().map(Block::typed).collect();
        assert_eq!(typed, [Some(Typed::By("helm".to_owned())), Some(Typed::NotTried), None]);
        assert_eq!(page.blocks[0].commands(), ["a    b", "c"]);
        assert_eq!(page.blocks[1].section, "BThis was not tried.");
        assert_eq!(page.blocks[2].language(), "text");
    }

    #[test]
    fn headings_are_named_as_github_names_them() {
        let page = Page::parse(
            "# FRITZ!Box\n## What a speaker's `token` is, *good* for\n## Events\n## Events",
        );
        let anchors = ["events", "events-1", "fritzbox", "what-a-speakers-token-is-good-for"];
        assert_eq!(page.anchors, anchors.map(str::to_owned).into());
    }
}
