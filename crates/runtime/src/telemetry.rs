//! Logs and metrics.

use std::{error::Error, fmt, io};

use arpeggio_text::{printable, printable_json};
use prometheus::{
    IntCounter, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
};

use crate::{
    ending,
    version::{REVISION, VERSION},
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The client's own lines say what ours beside them say, once more and without what it means.
const DEFAULT_FILTER: &str = "info,kube_client=off,kube_runtime=off";

/// Logging arguments, for `#[command(flatten)]`.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as `info,arpeggio_election=debug`.
    #[arg(long = "log", env = "ARPEGGIO_LOG", default_value = DEFAULT_FILTER, value_name = "FILTER")]
    pub filter: String,
    /// How log lines look.
    #[arg(long = "log-format", env = "ARPEGGIO_LOG_FORMAT", default_value = "text")]
    pub format: LogFormat,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of [`LogArgs`] has a mistake.
    #[error(
        "--log {filter}: use a level (error, warn, info, debug, trace) or target=level, comma-separated"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The filter has a word for a level that is none. It would be taken for the name of a part of the program, and nothing else would
    /// be logged.
    #[error(
        "--log {filter}: {word} is no level: use error, warn, info, debug or trace, or target=level"
    )]
    Level {
        /// What was given.
        filter: String,
        /// The word.
        word: String,
    },
    /// A metric was registered twice or has a bad name.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Lines that wait to be written. More are lost: no log line may hold up a thread that decides or answers, whatever the
/// disk behind standard error does.
const WAITING_LINES: usize = 16_384;

/// The logging of a process. What waits is written when it is dropped.
#[must_use = "without it nothing is logged"]
#[derive(Debug)]
pub struct Logging {
    _writer: WorkerGuard,
    lost: ErrorCounter,
}

impl Logging {
    /// Shows in the metrics how many lines were lost.
    ///
    /// # Errors
    /// When that is shown already.
    pub fn count_lost(&self, registry: &Registry) -> Result<(), TelemetryError> {
        let name = "arpeggio_log_lines_lost_total";
        let counter = IntCounter::new(name, "Log lines that could not be written in time.")?;
        registry.register(Box::new(LostLines { counter, lost: self.lost.clone() }))?;
        Ok(())
    }
}

/// Asks the writer when somebody asks.
struct LostLines {
    counter: IntCounter,
    lost: ErrorCounter,
}

impl Collector for LostLines {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let lost = u64::try_from(self.lost.dropped_lines()).unwrap_or(u64::MAX);
        self.counter.inc_by(lost.saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

/// Starts logging to standard error, by a thread of its own. From now on a panic, on whichever thread, ends the process within
/// half a second.
///
/// # Errors
/// When the filter cannot be parsed, or has a word without a level that is none itself.
pub fn init(args: &LogArgs) -> Result<Logging, TelemetryError> {
    let filter = filter(&args.filter)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(io::stderr());
    let (lost, format) = (writer.error_counter(), args.format);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || OneLine { writer: writer.clone(), format })
        .with_ansi(false);
    match args.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    ending::on_panic();
    Ok(Logging { _writer: guard, lost })
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = || text.to_owned();
    let parsed = EnvFilter::try_new(text)
        .map_err(|source| TelemetryError::Filter { filter: filter(), source })?;
    let is_bare = |word: &&str| !word.is_empty() && !word.contains(['=', '[', ']', '{', '}']);
    let mut bare = text.split(',').filter(is_bare);
    match bare.find(|word| word.parse::<LevelFilter>().is_err()) {
        Some(word) => Err(TelemetryError::Level { filter: filter(), word: word.to_owned() }),
        None => Ok(parsed),
    }
}

/// Writes each log line as one line, whatever is in it: a line break in somebody's text must not begin another one.
struct OneLine<W> {
    writer: W,
    format: LogFormat,
}

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        // In one piece: what is written one by one may be lost one by one.
        let text = match self.format {
            LogFormat::Text => printable(text),
            LogFormat::Json => printable_json(text),
        };
        self.writer.write_all(format!("{text}{end}").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The metrics registry of one process: build information and process metrics are in it. There is no global one, so
/// that a test sees only what it made.
///
/// # Errors
/// Never in practice; the metric names are constants.
pub fn registry() -> Result<Registry, TelemetryError> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build = IntGaugeVec::new(
        Opts::new("arpeggio_build_info", "What is running; the value is always 1."),
        &["version", "revision"],
    )?;
    build.with_label_values(&[VERSION, REVISION]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// An error with all its causes on one line, for logs: `what failed: because: of this`.
pub fn causes(error: &dyn Error) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        write!(f, "{error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let args = LogArgs { filter: "=x=".into(), format: LogFormat::Text };
        let error = init(&args).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert_eq!(causes(&error).to_string(), format!("{error}: {source}"));
    }

    #[test]
    fn a_bad_filter_names_itself_and_the_remedy() {
        let args = LogArgs { filter: "info,=x=".into(), format: LogFormat::Text };
        let error = init(&args).unwrap_err().to_string();
        assert!(error.contains("info,=x=") && error.contains("use a level"), "{error}");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_instead_of_logging_nothing() {
        for (text, wrong) in [("warning", "warning"), ("info,verbose", "verbose")] {
            let error = filter(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong} is no level")), "{error}");
        }
        for text in ["", "WARN", "off", "3", DEFAULT_FILTER, "warn,[turn{node=a}]=trace"] {
            filter(text).unwrap();
        }
    }

    #[test]
    fn a_line_break_begins_no_line_of_the_log() {
        let mut written = Vec::new();
        let line = "INFO \"a\nERROR all is lost\" \u{1b}[31m\u{2028}\u{202e}\n";
        let mut log = OneLine { writer: &mut written, format: LogFormat::Text };
        io::Write::write_all(&mut log, line.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written, "INFO \"a\\nERROR all is lost\" \\u{1b}[31m\\u{2028}\\u{202e}\n");
    }

    #[test]
    fn a_log_for_programs_stays_json() {
        let mut written = Vec::new();
        let mut log = OneLine { writer: &mut written, format: LogFormat::Json };
        io::Write::write_all(&mut log, "{\"note\":\"a\\n\u{7f}\u{202e}\"}\n".as_bytes()).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(read["note"], "a\n\u{7f}\u{202e}");
        assert!(written.is_ascii());
    }

    #[test]
    fn the_registry_tells_version_and_revision() {
        let families = registry().unwrap().gather();
        let build = families.iter().find(|family| family.name() == "arpeggio_build_info").unwrap();
        let labels = build.get_metric()[0].get_label().iter();
        let labels: Vec<_> = labels.map(|label| (label.name(), label.value())).collect();
        assert_eq!(labels, [("revision", REVISION), ("version", VERSION)]);
    }
}
