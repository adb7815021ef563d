//! How scenarios are run: which of them, on which cluster, and beside which others.

use std::{
    any::Any,
    env,
    fmt::Write as _,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arpeggio_lab::{Families, Options, ProxyMode};
use arpeggio_scenarios::{Home, eprint_line};
use libtest_mimic::{Arguments, Conclusion, Failed};

pub(crate) type Scenario = fn(&Home) -> anyhow::Result<()>;

/// How many nodes a cluster has where nothing else is said.
pub(crate) const NODES: u8 = 3;

/// So many run at a time where nothing is timed: mostly they wait.
const SIDE_BY_SIDE: usize = 2;

/// Which scenarios are run: `quick`, `rest`, or all of them where it is not set.
const SELECTION: &str = "ARPEGGIO_SCENARIOS";

/// How often a scenario is tried that fails, at most; once where it is not set. CI sets 2: on a small machine with other things
/// to do a time may be missed. What failed at first stands in the table at the end, and its evidence is kept.
const TRIES: &str = "ARPEGGIO_SCENARIO_TRIES";

/// A scenario, and what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) cluster: Cluster,
    pub(crate) run: Scenario,
    /// It belongs to those that `make test` runs.
    pub(crate) is_quick: bool,
    /// It judges by time: nothing else may run meanwhile.
    pub(crate) is_timed: bool,
}

/// Where a scenario runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cluster {
    /// One of the usual shape that others have used and swept.
    Shared,
    /// One that is made for it.
    Own(Shape),
}

/// What a cluster looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// This many nodes, and a machine for the control plane.
    Nodes(u8),
    /// As many nodes as usual, and the control plane on one of them.
    ControlOnNode,
    /// As many nodes as usual, with these kinds of addresses.
    Families(Families),
    /// As many nodes as usual, with kube-proxy in this mode.
    Proxy(ProxyMode),
    /// As usual, but Arpeggio is not installed.
    WithoutArpeggio,
    /// Only the API server of the oldest Kubernetes that we support, and Arpeggio is not installed.
    OldestApi,
}

impl Shape {
    fn options(self) -> Options {
        match self {
            Self::Nodes(nodes) => Options { nodes, ..Options::default() },
            Self::ControlOnNode => {
                Options { nodes: NODES, control_on_node: true, ..Options::default() }
            }
            Self::Families(families) => Options { nodes: NODES, families, ..Options::default() },
            Self::Proxy(proxy) => Options { nodes: NODES, proxy, ..Options::default() },
            Self::WithoutArpeggio => Self::Nodes(NODES).options(),
            Self::OldestApi => Options::oldest_api(),
        }
    }

    fn start(self, name: &str) -> anyhow::Result<Home> {
        match self {
            Self::WithoutArpeggio | Self::OldestApi => Home::without_arpeggio(name, self.options()),
            _ => Home::start(name, self.options()),
        }
    }
}

/// Runs those that were asked for, and says how long each took.
pub(crate) fn run(trials: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    let chosen = chosen(trials, env::var(SELECTION).ok().as_deref());
    let (timed, others): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|it| it.is_timed);
    let conclusions = [run_all(others, SIDE_BY_SIDE, &arguments), run_all(timed, 1, &arguments)];
    if !arguments.list {
        eprint_line(&table());
    }
    let has_failed = conclusions.iter().any(Conclusion::has_failed);
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn chosen(trials: Vec<Trial>, selection: Option<&str>) -> Vec<Trial> {
    let is_chosen = |trial: &Trial| match selection {
        Some("quick") => trial.is_quick,
        Some("rest") => !trial.is_quick,
        _ => true,
    };
    trials.into_iter().filter(is_chosen).collect()
}

fn run_all(trials: Vec<Trial>, at_once: usize, arguments: &Arguments) -> Conclusion {
    let mut arguments = arguments.clone();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    let trials = trials
        .into_iter()
        .map(|trial| libtest_mimic::Trial::test(trial.name, move || tried(&trial)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Removed now, not by the guard after this process.
    idle().clear();
    conclusion
}

/// Says at once what has failed, beside what led to it, and not only half an hour later.
fn tried(trial: &Trial) -> Result<(), Failed> {
    let tries = env::var(TRIES).ok().and_then(|tries| tries.parse().ok()).unwrap_or(1);
    let mut failures = 0;
    loop {
        let failure = match panic::catch_unwind(AssertUnwindSafe(|| timed(trial, failures))) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic_text(&*panic),
        };
        eprint_line(&failure);
        failures += 1;
        if failures >= tries {
            return Err(failure.into());
        }
        eprint_line(&format!("{} has FAILED and is tried again", trial.name));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// How long each has taken, and how often it had failed before.
static DURATIONS: Mutex<Vec<(&str, Duration, u32)>> = Mutex::new(Vec::new());

fn timed(trial: &Trial, failures: u32) -> anyhow::Result<()> {
    let begin = Instant::now();
    let outcome = match trial.cluster {
        Cluster::Shared => run_sharing(trial.run),
        Cluster::Own(shape) => run_alone(trial.name, shape, trial.run),
    };
    let mut durations = DURATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    durations.push((trial.name, begin.elapsed(), failures));
    outcome
}

/// The longest first.
fn table() -> String {
    let mut durations = DURATIONS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    durations.sort_by_key(|(_, duration, _)| std::cmp::Reverse(*duration));
    let mut table = "seconds  scenario, with its cluster".to_owned();
    for (name, duration, failures) in durations {
        let before = if failures > 0 { " (FAILED before)" } else { "" };
        let _ = write!(table, "\n{:>7.1}  {name}{before}", duration.as_secs_f64());
    }
    table
}

/// The clusters of the usual shape that are swept and wait for the next scenario.
static IDLE: Mutex<Vec<Home>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Home>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster in which a scenario has failed is not used again.
fn run_sharing(scenario: Scenario) -> anyhow::Result<()> {
    static STARTED: AtomicU32 = AtomicU32::new(1);
    let swept = idle().pop();
    let home = if let Some(home) = swept {
        home
    } else {
        let name = format!("test-shared-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        Home::start(&name, Shape::Nodes(NODES).options())?
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(&home)));
    let swept = matches!(outcome, Ok(Ok(()))).then(|| home.sweep());
    match swept {
        Some(Ok(())) => idle().push(home),
        Some(Err(error)) => {
            home.collect();
            return Err(error.context("the cluster cannot be used again"));
        }
        None => home.collect(),
    }
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn run_alone(name: &str, shape: Shape, scenario: Scenario) -> anyhow::Result<()> {
    // Nobody needs them any more: they would only be busy beside this one.
    idle().clear();
    let home = shape.start(&format!("test-{name}"))?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(&home)));
    if !matches!(outcome, Ok(Ok(()))) {
        home.collect();
    }
    home.lab.stop()?;
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}
