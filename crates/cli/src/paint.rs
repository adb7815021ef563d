//! Colours by what they mean. What is printed through `anstream` loses them where nobody wants them.

use anstyle::{AnsiColor, Style};

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
}
