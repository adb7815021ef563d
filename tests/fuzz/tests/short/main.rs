//! A short run of every target: first the kept seeds as they are, then mutations of them.
//!
//! `FUZZ_SECONDS` says for how long each target is fed, `FUZZ_SEED` which mutations come. Without
//! it they differ from run to run, so that the runs add up; the seed is printed, and the same seed
//! makes the same inputs in the same order.

mod mutation;

use std::cell::RefCell;
use std::fs;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arpeggio_fuzz::{TARGETS, Target};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// How long each target is fed when nobody says.
const SECONDS: u64 = 2;
/// Inputs between two looks at the clock.
const BATCH: u32 = 500;
/// Attempts to make a failing input smaller.
const SHRINK: u32 = 20_000;

/// What to run with.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    time: Duration,
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() {
    let arguments = Arguments::from_args();
    let plan = match Plan::from_environment() {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("{problem}");
            std::process::exit(2);
        }
    };
    println!("FUZZ_SEED={} FUZZ_SECONDS={}", plan.seed, plan.time.as_secs());
    // A panic is a finding here: it is kept for the report instead of printed for each attempt.
    panic::set_hook(Box::new(keep));
    let trials = TARGETS.map(|target| Trial::test(target.name, move || run(target, plan)));
    libtest_mimic::run(&arguments, trials.into()).exit();
}

fn keep(panic: &PanicHookInfo) {
    LAST_PANIC.set(panic.to_string());
}

impl Plan {
    #[expect(clippy::disallowed_methods, reason = "any number will do")]
    fn from_environment() -> Result<Self, String> {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Few enough digits to be typed.
        let seed = number("FUZZ_SEED")?.unwrap_or(u64::from(clock.subsec_nanos()));
        Ok(Self { seed, time: Duration::from_secs(number("FUZZ_SECONDS")?.unwrap_or(SECONDS)) })
    }
}

fn number(variable: &str) -> Result<Option<u64>, String> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{variable} must be a whole number, not {text:?}"))
}

/// Feeds the seeds, then mutations of them until the time is over.
fn run(target: Target, plan: Plan) -> Result<(), Failed> {
    let seeds = seeds_of(target)?;
    for (path, bytes) in &seeds {
        attempt(target, bytes).map_err(|panic| format!("{}: {panic}", path.display()))?;
    }
    let inputs = mutation::inputs(seeds.into_iter().map(|(_, bytes)| bytes).collect());
    let begin = Instant::now();
    let mut batches = 0;
    while batches == 0 || begin.elapsed() < plan.time {
        let rng_seed = RngSeed::Fixed(plan.seed.wrapping_add(batches));
        let mut runner = TestRunner::new(Config {
            cases: BATCH,
            max_shrink_iters: SHRINK,
            failure_persistence: None,
            rng_seed,
            ..Config::default()
        });
        runner
            .run(&inputs, |bytes| attempt(target, &bytes).map_err(TestCaseError::fail))
            .map_err(|error| finding(target, plan, &error))?;
        batches += 1;
    }
    Ok(())
}

/// The kept inputs of a target.
fn seeds_of(target: Target) -> Result<Vec<(PathBuf, Vec<u8>)>, Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
    let mut seeds = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        seeds.push((path, bytes));
    }
    // A folder has no order of its own, and the same seed must make the same inputs.
    seeds.sort();
    if seeds.is_empty() { Err(format!("{} is empty", folder.display()).into()) } else { Ok(seeds) }
}

/// Runs the check; the error says where and why it panicked.
fn attempt(target: Target, bytes: &[u8]) -> Result<(), String> {
    panic::catch_unwind(|| (target.check)(bytes)).map_err(|_| LAST_PANIC.take())
}

/// Writes the smallest failing input down, and says what to do with it.
fn finding(target: Target, plan: Plan, error: &TestError<Vec<u8>>) -> Failed {
    let TestError::Fail(reason, bytes) = error else { return error.to_string().into() };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{}-{}", target.name, plan.seed));
    let kept = match fs::write(&path, bytes) {
        Ok(()) => format!("the input is in {}", path.display()),
        Err(error) => format!("the input could not be written: {error}"),
    };
    format!(
        "{reason}\ninput: {}\n{kept}: mend the fault, then keep it in tests/fuzz/seeds/{}",
        bytes.escape_ascii(),
        target.name,
    )
    .into()
}
