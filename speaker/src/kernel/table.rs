//! Which frames are answered, and how: the tables of docs/wire.md are written from what happens here.
//!
//! Each frame is sent to a speaker over a virtual cable, and after it a question whose answer shows that the frame has
//! been dealt with. Run with `UPDATE_GENERATED=1` to write the tables.

mod arp;
mod decoded;
mod ndp;

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    fs,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use arpeggio_link::{filter::FrameFilter, packet::FrameSocket};

use super::{Speaker, namespace::Pair, next};

/// Longer than the repeats of an announcement take.
const QUIET: Duration = Duration::from_secs(6);
/// Generous: an answer takes some microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A frame that is sent to the speaker.
struct Row {
    /// What it is, for readers.
    what: &'static str,
    bytes: Vec<u8>,
    from: Side,
}

#[derive(PartialEq)]
enum Side {
    /// Another machine.
    There,
    /// The speaker's own.
    Here,
}

fn row(what: &'static str, bytes: &[u8]) -> Row {
    Row { what, bytes: bytes.to_vec(), from: Side::There }
}

/// The two ends of the cable, and how to tell what comes out.
struct Cable<'a, F> {
    speaker: &'a Speaker,
    here: FrameSocket<F>,
    there: FrameSocket<F>,
    /// A question for another address.
    last: Vec<u8>,
    /// Whether a frame is the answer to it.
    is_last: fn(&[u8]) -> bool,
    /// An answer in words.
    describe: fn(&[u8]) -> String,
}

impl<F: FrameFilter + Debug> Cable<'_, F> {
    /// Sends the frames one by one; returns the table and all answers.
    fn table(&self, rows: &[Row]) -> (String, Vec<Vec<u8>>) {
        let mut table = "| frame | answer | what becomes of it |\n|---|---|---|\n".to_owned();
        let mut answers = Vec::new();
        for row in rows {
            let before = self.ignored();
            self.speaker.sightings.try_iter().for_each(drop);
            let heard = self.exchange(row);
            let described: Vec<String> = heard.iter().map(|it| (self.describe)(it)).collect();
            let answer = if heard.is_empty() { "none".to_owned() } else { described.join("; ") };
            let outcome = self.outcome(!heard.is_empty(), &before);
            writeln!(table, "| {} | {answer} | {outcome} |", row.what).unwrap();
            answers.extend(heard);
        }
        (table, answers)
    }

    fn exchange(&self, row: &Row) -> Vec<Vec<u8>> {
        let socket = if row.from == Side::There { &self.there } else { &self.here };
        socket.send(&row.bytes).unwrap();
        self.there.send(&self.last).unwrap();
        let end = Instant::now() + PATIENCE;
        let frames = std::iter::from_fn(|| next(&self.there, end));
        let mut ended = false;
        let heard: Vec<Vec<u8>> = frames
            .take_while(|frame| {
                ended = (self.is_last)(frame);
                !ended
            })
            .collect();
        // What the speaker's own side sends comes here, too.
        let heard = heard.into_iter().filter(|frame| *frame != row.bytes).collect();
        assert!(ended, "{}: the last question was not answered", row.what);
        heard
    }

    fn outcome(&self, answered: bool, before: &BTreeMap<String, u64>) -> String {
        let after = self.ignored();
        let counted = after.iter().filter(|(reason, count)| before.get(*reason) != Some(count));
        let mut said: Vec<String> =
            counted.map(|(reason, _)| format!("counted as `{reason}`")).collect();
        if self.speaker.sightings.try_iter().count() > 0 {
            said.push("noticed as a claim by another machine".to_owned());
        }
        match (answered, said.is_empty()) {
            (true, true) => "answered".to_owned(),
            (true, false) => format!("answered, {}", said.join(", ")),
            (false, false) => said.join(", "),
            (false, true) => "does not pass the filter".to_owned(),
        }
    }

    fn ignored(&self) -> BTreeMap<String, u64> {
        self.speaker.counts("ignored_total", "reason")
    }
}

/// Everything that a client hears within some time.
fn heard_for<F: FrameFilter>(client: &FrameSocket<F>, time: Duration) -> Vec<Vec<u8>> {
    let end = Instant::now() + time;
    std::iter::from_fn(|| next(client, end)).collect()
}

/// A socket on the speaker's side that hears nothing.
fn on_this_side<F: FrameFilter + Default + Send + Sync>(pair: &Pair) -> FrameSocket<F> {
    let index = pair.here.link().0;
    let open = || FrameSocket::open(index, &F::default()).map_err(|it| it.to_string());
    pair.here.run(open).unwrap()
}

/// Both tables stand in one file.
static DOCUMENT: Mutex<()> = Mutex::new(());

/// Compares a table with what stands between its marks in docs/wire.md, or writes it there.
fn check_documented(mark: &str, table: &str) {
    let _one_at_a_time = DOCUMENT.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wire.md");
    let (begin, end) = (format!("<!-- {mark}: begin -->\n"), format!("<!-- {mark}: end -->"));
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) =
        text.split_once(&begin).unwrap_or_else(|| panic!("docs/wire.md: no {begin}"));
    let (documented, tail) =
        rest.split_once(&end).unwrap_or_else(|| panic!("docs/wire.md: no {end}"));
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, format!("{head}{begin}{table}{end}{tail}")).unwrap();
        return;
    }
    for (seen, documented) in table.lines().zip(documented.lines()) {
        assert_eq!(seen, documented, "docs/wire.md differs: run 'make generate' if this is right");
    }
    assert_eq!(table, documented, "docs/wire.md differs: run 'make generate' if this is right");
}
