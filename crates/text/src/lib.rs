//! Text that somebody else wrote, as people may read it: in logs, events, conditions and on terminals.
//!
//! It must not look like anything but a part of the line that it stands in: it begins no line, moves no cursor, turns no
//! writing direction round, and has nothing in it that is not seen.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{borrow::Cow, string::String};
use core::fmt::Write as _;

/// Whether people would not see the character, or something else than what is there: control characters, line and
/// paragraph separators, marks of direction, characters without width, and blanks that are not the usual one.
pub fn is_hidden(character: char) -> bool {
    !matches!(character, '"' | '\'' | '\\') && character.escape_debug().len() > 1
}

/// The text with what is hidden escaped, as Rust writes it in strings.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The text with the characters escaped for which this holds.
pub fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    replaced(text, escapes, |shown, character| shown.extend(character.escape_debug()))
}

/// The JSON text with what is hidden in its strings escaped as JSON has it: it says the same.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    // Between strings there is nothing but ASCII.
    let hides = |character| is_hidden(character) && !matches!(character, '\n' | '\r' | '\t');
    replaced(json, hides, |shown, character| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    })
}

/// The JSON text as YAML, which it is, with what is hidden in its strings escaped as YAML has it: it says the same.
pub fn printable_yaml(json: &str) -> Cow<'_, str> {
    // Between strings there is nothing but ASCII.
    let hides = |character| is_hidden(character) && !matches!(character, '\n' | '\r' | '\t');
    replaced(json, hides, |shown, character| {
        // Writing to a string cannot fail.
        let _ = write!(shown, "\\U{:08x}", u32::from(character));
    })
}

/// The text with `instead` of what `is_replaced`.
fn replaced(
    text: &str,
    is_replaced: impl Fn(char) -> bool,
    instead: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_replaced(character) {
            instead(&mut shown, character);
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_escaped() {
        let hidden = [
            '\n',
            '\r',
            '\t',
            '\0',
            '\u{7}',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{a0}',
            '\u{3000}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{e000}',
        ];
        for character in hidden {
            let text = alloc::format!("a{character}b");
            let shown = printable(&text);
            assert!(!shown.contains(character) && shown.starts_with("a\\"), "{shown}");
            assert!(shown.is_ascii(), "{shown}");
        }
    }

    #[test]
    fn json_stays_json() {
        let json = "{\n  \"a\": \"b\u{202e}\u{e0041}\u{7f}é\"\n}";
        assert_eq!(printable_json(json), "{\n  \"a\": \"b\\u202e\\udb40\\udc41\\u007fé\"\n}");
        assert!(matches!(printable_json("{ \"a\": 1 }"), Cow::Borrowed(_)));
    }

    #[test]
    fn yaml_stays_yaml() {
        let json = "{\n  \"a\": \"b\u{202e}\u{e0041}\u{7f}é\"\n}";
        assert_eq!(printable_yaml(json), "{\n  \"a\": \"b\\U0000202e\\U000e0041\\U0000007fé\"\n}");
    }

    #[test]
    fn what_is_seen_stays() {
        for text in ["", "pool \"home\" isn't \\ full", "café → 東京 ✓ Ωß ÷"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(printable("\"a\nb\""), "\"a\\nb\"");
    }
}
