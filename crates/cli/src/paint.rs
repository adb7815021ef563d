//! Colours by what they mean. What is printed through `anstream` loses them where nobody wants them.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use arpeggio_text::printable;

/// Somebody should act.
pub(crate) fn bad(text: &str) -> String {
    painted(AnsiColor::Red.on_default(), text)
}

/// Not as it should be, or not for long.
pub(crate) fn warn(text: &str) -> String {
    painted(AnsiColor::Yellow.on_default(), text)
}

/// As it should be.
pub(crate) fn good(text: &str) -> String {
    painted(AnsiColor::Green.on_default(), text)
}

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// What the functions above write around a text.
const COLOURS: [&str; 4] = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"];

/// A text with colours as a terminal may have it: whatever others wrote into it, it only shows something. Its lines stay.
pub(crate) fn shown(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => one_line(line) + "\n",
            None => one_line(line),
        })
        .collect()
}

/// As [`shown`], for a part of a line: what others wrote begins no line.
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(escape) = rest.find('\u{1b}') {
        let (before, from) = rest.split_at(escape);
        shown.push_str(&printable(before));
        let colour = COLOURS.iter().find(|colour| from.starts_with(**colour)).copied();
        let (escape, after) = from.split_at(colour.map_or(1, str::len));
        shown.push_str(&colour.map_or_else(|| printable(escape), Cow::Borrowed));
        rest = after;
    }
    shown + &printable(rest)
}

/// How many columns a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    plain(text).chars().count()
}

/// The text without colours.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_takes_no_room() {
        assert_eq!(bad("gone"), "\u{1b}[31mgone\u{1b}[0m");
        assert_eq!(plain(&bad("gone")), "gone");
        assert_eq!(width(&bad("gone")), 4);
    }

    #[test]
    fn our_colours_are_the_only_thing_that_a_terminal_obeys() {
        for paint in [bad, warn, good] {
            assert_eq!(shown(&paint("gone")), paint("gone"));
        }
        let rude = "a\u{1b}[2Jb\u{1b}]0;title\u{7}\u{9b}1A\u{202e}\r\nb";
        let harmless = "a\\u{1b}[2Jb\\u{1b}]0;title\\u{7}\\u{9b}1A\\u{202e}\\r\nb";
        assert_eq!(shown(rude), harmless);
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }
}
