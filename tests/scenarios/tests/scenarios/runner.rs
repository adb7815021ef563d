//! How scenarios are run: which of them, on which cluster, and beside which others.

use std::{
    any::Any,
    collections::BTreeMap,
    env,
    fmt::Write as _,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    str::FromStr,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arpeggio_lab::{Families, Options, ProxyMode};
use arpeggio_scenarios::{AsNew, Home, eprint_line};
use libtest_mimic::{Arguments, Completion, Conclusion, Failed};

pub(crate) type Scenario = fn(&Home) -> anyhow::Result<()>;

/// How many nodes a cluster has where nothing else is said.
pub(crate) const NODES: u8 = 3;

/// So many run at a time where nothing is timed: mostly they wait.
const SIDE_BY_SIDE: usize = 3;

/// So many of those that judge by time. Their limits leave room for one other; figures for people are taken one at a time.
const TIMED_SIDE_BY_SIDE: usize = 2;

/// Which scenarios are run: `quick`, `rest`, or all of them where it is not set.
const SELECTION: &str = "ARPEGGIO_SCENARIOS";

/// How often a scenario is tried that fails, at most; once where it is not set. CI sets 2: on a small machine with other things
/// to do a time may be missed, so nothing runs beside the second try. What failed at first stands in the table at the end, and
/// its evidence is kept.
const TRIES: &str = "ARPEGGIO_SCENARIO_TRIES";

/// Until when scenarios are begun, in seconds since 1970. Those that are not are named at the end, and are no failures: CI has
/// so much time and no more, on machines of any speed.
const UNTIL: &str = "ARPEGGIO_SCENARIOS_UNTIL";

/// At which of the timed scenarios to begin, as any number. CI sets another one for each commit: where the time is short, it
/// is not always the same ones that are left out.
const FIRST: &str = "ARPEGGIO_SCENARIOS_FIRST";

/// For how many hours all that were chosen are run again and again, to find what fails now and then.
const SOAK: &str = "ARPEGGIO_SOAK_HOURS";

/// A scenario, and what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) cluster: Cluster,
    pub(crate) run: Scenario,
    /// It belongs to those that `make test` runs.
    pub(crate) is_quick: bool,
    /// It judges by time: only few others may run meanwhile.
    pub(crate) is_timed: bool,
    /// It keeps the machine busy: none of those that judge by time may run meanwhile.
    pub(crate) is_loud: bool,
}

/// Where a scenario runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cluster {
    /// One of the usual shape that others have used. [`Home::sweep`] takes away what the scenario leaves.
    Shared,
    /// The same, for one that changes more than that: [`Home::renew`] puts the machines right and begins Arpeggio anew.
    Renewed,
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
    let soak: Option<f64> = number(SOAK);
    let has_failed = match soak {
        Some(hours) => soaked(&chosen, Duration::from_secs_f64(hours * 3600.0), &arguments),
        None => round(&chosen, &arguments),
    };
    if !arguments.list {
        eprint_line(&if soak.is_some() { failures_table() } else { table() });
        for name in left_out().iter() {
            eprint_line(&format!("NOT RUN, since the time was over ({UNTIL}): {name}"));
        }
    }
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs each once. Whether one has failed.
fn round(trials: &[Trial], arguments: &Arguments) -> bool {
    let (mut timed, others): (Vec<&Trial>, Vec<&Trial>) = trials.iter().partition(|it| it.is_timed);
    let first = number::<usize>(FIRST).and_then(|first| first.checked_rem(timed.len()));
    timed.rotate_left(first.unwrap_or(0));
    let (loud, timed): (Vec<_>, Vec<_>) = timed.into_iter().partition(|it| it.is_loud);
    let others = run_all(others, SIDE_BY_SIDE, arguments);
    // More would only be busy beside those that are used.
    idle().truncate(TIMED_SIDE_BY_SIDE);
    let loud = run_all(loud, 1, arguments);
    let timed = run_all(timed, TIMED_SIDE_BY_SIDE, arguments);
    // Removed now, not by the guard after this process.
    idle().clear();
    others.has_failed() || loud.has_failed() || timed.has_failed()
}

/// Runs all of them again and again, and goes on when one fails; the round that is running at the end is finished.
fn soaked(trials: &[Trial], time: Duration, arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let mut has_failed = false;
    while begin.elapsed() < time {
        has_failed |= round(trials, arguments);
        eprint_line(&failures_table());
    }
    has_failed
}

fn chosen(trials: Vec<Trial>, selection: Option<&str>) -> Vec<Trial> {
    let is_chosen = |trial: &Trial| match selection {
        Some("quick") => trial.is_quick,
        Some("rest") => !trial.is_quick,
        _ => true,
    };
    trials.into_iter().filter(is_chosen).collect()
}

fn run_all(trials: Vec<&Trial>, at_once: usize, arguments: &Arguments) -> Conclusion {
    let mut arguments = arguments.clone();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    let trials = trials
        .into_iter()
        .copied()
        .map(|trial| libtest_mimic::Trial::ignorable_test(trial.name, move || in_time(&trial)));
    libtest_mimic::run(&arguments, trials.collect())
}

/// What else is said than a number is a mistake that may cost a night.
fn number<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{variable} is a number, and not {text:?}");
    number
}

fn in_time(trial: &Trial) -> Result<Completion, Failed> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    if number(UNTIL).is_some_and(|until: u64| now >= until) {
        left_out().push(trial.name);
        return Ok(Completion::ignored());
    }
    tried(trial).map(|()| Completion::Completed)
}

/// Who tries a scenario for the first time shares the machine, who tries one again has it alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// Says at once what has failed, beside what led to it, and not only half an hour later.
fn tried(trial: &Trial) -> Result<(), Failed> {
    let tries = number(TRIES).unwrap_or(1);
    let mut failures = 0;
    loop {
        let (_shared, _alone) = match failures {
            0 => (Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner)), None),
            _ => (None, Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner))),
        };
        let begin = Instant::now();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| on_its_cluster(trial)));
        let has_failed = !matches!(outcome, Ok(Ok(())));
        runs().push(Run { name: trial.name, took: begin.elapsed(), failures, has_failed });
        let failure = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic_text(&*panic),
        };
        eprint_line(&failure);
        failures += 1;
        if failures >= tries {
            return Err(failure.into());
        }
        eprint_line(&format!("{} has FAILED and is tried again, alone", trial.name));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// One run of a scenario.
#[derive(Debug, Clone, Copy)]
struct Run {
    name: &'static str,
    took: Duration,
    /// How often it had failed before, in the tries of one round.
    failures: u32,
    has_failed: bool,
}

/// All that have ended.
static RUNS: Mutex<Vec<Run>> = Mutex::new(Vec::new());

fn runs() -> MutexGuard<'static, Vec<Run>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those that were not begun, since the time was over.
static LEFT_OUT: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn left_out() -> MutexGuard<'static, Vec<&'static str>> {
    LEFT_OUT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_its_cluster(trial: &Trial) -> anyhow::Result<()> {
    match trial.cluster {
        Cluster::Shared => run_sharing(trial.run, Usual::sweep),
        Cluster::Renewed => run_sharing(trial.run, |usual| {
            usual.renew();
            Ok(())
        }),
        Cluster::Own(shape) => run_alone(trial.name, shape, trial.run),
    }
}

/// The longest first.
fn table() -> String {
    let mut runs = runs().clone();
    runs.sort_by_key(|run| std::cmp::Reverse(run.took));
    let mut table = "seconds  scenario, with its cluster".to_owned();
    for run in runs {
        let before = if run.failures > 0 { " (FAILED before)" } else { "" };
        let _ = write!(table, "\n{:>7.1}  {}{before}", run.took.as_secs_f64(), run.name);
    }
    table
}

/// How often each has failed; those that did, first.
fn failures_table() -> String {
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for run in runs().iter() {
        let (failed, all) = counts.entry(run.name).or_default();
        *failed += u32::from(run.has_failed);
        *all += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, (failed, _))| std::cmp::Reverse(*failed));
    let mut table = "failed of  scenario (the evidence is below target/lab)".to_owned();
    for (name, (failed, all)) in counts {
        let _ = write!(table, "\n{failed:>6} {all:>3}  {name}");
    }
    table
}

/// The clusters of the usual shape that wait for the next scenario.
static IDLE: Mutex<Vec<Usual>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Usual>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster of the usual shape.
struct Usual {
    home: Home,
    as_new: AsNew,
}

impl Usual {
    fn start() -> anyhow::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-shared-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let home = Home::start(&name, Shape::Nodes(NODES).options())?;
        Ok(Self { as_new: home.as_new()?, home })
    }

    /// Back among those that wait. What a scenario leaves that said to leave nothing is its fault.
    fn sweep(self) -> anyhow::Result<()> {
        if let Err(error) = self.home.sweep() {
            self.home.collect();
            return Err(error.context("the cluster cannot be used again"));
        }
        idle().push(self);
        Ok(())
    }

    /// The same after faults: that one of them has left what cannot be put right is no failure. The next scenario gets a new
    /// cluster.
    fn renew(self) {
        let begin = Instant::now();
        let name = self.home.lab.name().clone();
        match self.home.renew(&self.as_new) {
            Ok(()) => {
                eprint_line(&format!("{name}: as new ({:.1} s)", begin.elapsed().as_secs_f64()));
                idle().push(self);
            }
            Err(error) => eprint_line(&format!("{name} is not used again: {error:#}")),
        }
    }
}

/// A cluster in which a scenario has failed is not used again.
fn run_sharing(
    scenario: Scenario,
    put_back: fn(Usual) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let waiting = idle().pop();
    let usual = waiting.map_or_else(Usual::start, Ok)?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(&usual.home)));
    if matches!(outcome, Ok(Ok(()))) {
        put_back(usual)?;
    } else {
        usual.home.collect();
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
