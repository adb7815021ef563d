//! The result as CI systems read it: one test case in the form of junit.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::paint;

/// What stands in the file until there is a result: whatever ends the command, the file can be read.
const UNFINISHED: &str = "it was ended before there was a result";

/// How it went.
pub(super) enum Verdict<'a> {
    /// It was carried out, and within the budget, if there is one.
    Good,
    /// It was over the budget: in words.
    Failure(&'a str),
    /// It was not carried out: why.
    Error(&'a str),
}

/// A test case.
pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    /// When it began, where it did.
    pub(super) started: Option<String>,
    pub(super) seconds: f64,
    pub(super) verdict: Verdict<'a>,
    /// All that was printed.
    pub(super) output: &'a str,
}

impl Case<'_> {
    /// A suite of this case only.
    pub(super) fn to_xml(&self) -> String {
        let Self { name, started, seconds, verdict, output } = self;
        let (failures, errors, said) = match verdict {
            Verdict::Good => (0, 0, String::new()),
            Verdict::Failure(why) => (1, 0, element("failure", why)),
            Verdict::Error(why) => (0, 1, element("error", why)),
        };
        let timestamp = started.as_ref().map(|it| format!(" timestamp=\"{}\"", escaped(it)));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"arpeggio drill\" tests=\"1\" failures=\"{failures}\" errors=\"{errors}\"{}>\n\
             <testcase classname=\"arpeggio.drill\" name=\"{}\" time=\"{seconds:.3}\">{said}\
             <system-out>{}</system-out></testcase>\n</testsuite>\n",
            timestamp.unwrap_or_default(),
            escaped(name),
            escaped(output),
        )
    }
}

fn element(name: &str, message: &str) -> String {
    format!("<{name} message=\"{}\"/>", escaped(message.trim_end()))
}

/// As XML may hold it. Of characters below the space it knows line breaks and tabs only.
fn escaped(text: &str) -> String {
    let plain = paint::plain(text);
    let text: String =
        plain.chars().filter(|it| !it.is_control() || matches!(it, '\n' | '\t')).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The file of `--junit`.
pub(super) struct JunitFile<'a> {
    path: &'a Path,
    name: String,
}

impl<'a> JunitFile<'a> {
    /// Makes the file, with a case that was not carried out: who cannot write it learns that before anything is done.
    pub(super) fn create(path: &'a Path, name: String) -> io::Result<Self> {
        let junit = Self { path, name };
        // A pipe takes one text only.
        if File::create(path)?.metadata()?.is_file() {
            junit.write_error(UNFINISHED)?;
        }
        Ok(junit)
    }

    /// That it was not carried out, and why.
    pub(super) fn write_error(&self, why: &str) -> io::Result<()> {
        let verdict = Verdict::Error(why);
        let case = Case { name: &self.name, started: None, seconds: 0.0, verdict, output: "" };
        self.write(&case.to_xml())
    }

    /// In the place of what is in it.
    pub(super) fn write(&self, xml: &str) -> io::Result<()> {
        fs::write(self.path, xml)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_carried_out_can_be_read_too() {
        let path = std::env::temp_dir().join(format!("arpeggio-junit-{}.xml", std::process::id()));
        let file = JunitFile::create(&path, "handover of shop/web".to_owned()).unwrap();
        let read = || fs::read_to_string(&path).unwrap();
        let error = format!(
            "name=\"handover of shop/web\" time=\"0.000\"><error message=\"{UNFINISHED}\"/>"
        );
        assert!(read().contains(&error), "{}", read());
        file.write_error("no").unwrap();
        assert!(read().contains("failures=\"0\" errors=\"1\">"), "{}", read());
        assert!(read().ends_with(
            "<error message=\"no\"/><system-out></system-out></testcase>\n</testsuite>\n"
        ));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_xml_cannot_hold_is_not_in_it() {
        assert_eq!(escaped("<a & \"b\">\u{1b}[1m\u{7}c"), "&lt;a &amp; &quot;b&quot;&gt;c");
    }
}
