//! `arpeggio survey`: what this node sees of the segment and of Services, for `arpeggio doctor`, which starts it on all nodes at
//! once.
//!
//! It says `ready` when it listens, and begins when a line comes from standard input, or its end: so all nodes ask at the same
//! time, and each hears the others' questions. Then it writes what it has found out, as JSON.

mod dhcp;
mod neighbours;
mod paths;
mod proxy;
mod segment;
pub(crate) mod speech;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use arpeggio_doctor::survey::{Connect, Questions, Survey};
use arpeggio_link::interfaces::{Interface, Links};
use arpeggio_runtime::reach::{self, Attempt};
use ipnet::IpNet;
use tokio::task::spawn_blocking;

use self::segment::Segment;
use crate::{in_pod::READY, interfaces, outcome::Outcome};

/// How long the word to begin is awaited.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// Arguments of `arpeggio survey`.
#[derive(Debug, clap::Args)]
pub(crate) struct SurveyArgs {
    /// What to find out, as JSON.
    questions: String,
}

/// Finds out what is asked for.
pub(crate) async fn run(args: &SurveyArgs) -> anyhow::Result<Outcome> {
    let questions: Questions =
        serde_json::from_str(&args.questions).context("the questions are not understood")?;
    let links = interfaces::read().await?;
    let survey = spawn_blocking(move || survey(&questions, &links)).await??;
    Ok(Outcome::from(serde_json::to_string(&survey)? + "\n"))
}

fn survey(questions: &Questions, links: &Links) -> anyhow::Result<Survey> {
    let segment = Segment::open(&questions.ask, links);
    await_the_word()?;
    let proxy = thread::spawn(proxy::mode);
    let connects = spawned(&questions.connect, reach::connect);
    let knocks = spawned(&questions.knock, reach::knock);
    let (offers, (answers, heard)) = thread::scope(|scope| {
        let offers = scope.spawn(|| dhcp::ask(&questions.lease, links));
        let heard = segment.ask();
        (offers.join().unwrap_or_default(), heard)
    });
    Ok(Survey {
        answers,
        heard,
        connects: connects.join().unwrap_or_default(),
        knocks: knocks.join().unwrap_or_default(),
        offers: offers.offers,
        unleased: offers.unasked,
        proxy_mode: proxy.join().unwrap_or_default(),
        strict_arp: proxy::strict_arp(),
        subnets: subnets(links),
        strict_paths: paths::strict(links),
        neighbours: neighbours::tables(),
    })
}

/// Tries all of them, beside what else is done.
fn spawned(
    to: &[SocketAddr],
    attempt: fn(&[SocketAddr]) -> Vec<Attempt>,
) -> JoinHandle<Vec<Connect>> {
    let to = to.to_vec();
    let connect = |Attempt { to, error }| Connect { to, error };
    thread::spawn(move || attempt(&to).into_iter().map(connect).collect())
}

/// Others may not be ready yet. Who does not come in time is not waited for.
fn await_the_word() -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{READY}").and_then(|()| out.flush()).context("nobody listens")?;
    let (begin, begins) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line); // Its end is as good as a word.
        let _ = begin.send(()); // Fails only when nobody waits any more.
    });
    let _ = begins.recv_timeout(BEGIN_WITHIN);
    Ok(())
}

fn subnets(links: &Links) -> Vec<IpNet> {
    let able = links.interfaces.iter().filter(|it| it.flaw().is_none());
    able.flat_map(Interface::nets_with_neighbours).collect()
}
