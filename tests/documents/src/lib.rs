//! Pages in Markdown: what they link to, and what they can be linked by.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A page, as far as links are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where its links and images lead, as written.
    pub links: Vec<String>,
    /// The names of its headings: what stands behind `#` in a link to one.
    pub anchors: BTreeSet<String>,
}

impl Page {
    /// Reads a page.
    pub fn parse(markdown: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut seen = BTreeMap::new();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    page.anchors.insert(numbered(anchor, &mut seen));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
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
