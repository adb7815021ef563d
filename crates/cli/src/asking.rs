//! `arpeggio asking`: asks the segment for an address again and again, for `arpeggio drill`, which starts it on nodes.
//!
//! It says `ready` when somebody answers, begins when a line comes from standard input, and ends with the next one, or when its
//! time is over. Then it writes what it has heard, as JSON.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use arpeggio_link::{interfaces::Interface, packet::FrameSocket};
use arpeggio_wire::{Asker, MacAddr, Question};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::{
    in_pod::READY,
    interfaces,
    outcome::Outcome,
    survey::speech::{Sound, Speech},
};

/// A question is sent this often.
pub(crate) const EVERY: Duration = Duration::from_millis(20);

/// Who does not answer for so long before all begins does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// More than any answer has.
const BUFFER: usize = 512;

/// Arguments of `arpeggio asking`.
#[derive(Debug, clap::Args)]
pub(crate) struct AskingArgs {
    /// The address.
    address: IpAddr,
    /// When it ends by itself, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) seconds: u16,
}

/// What was heard.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heard {
    /// When each question was sent, in microseconds after the beginning, and whether somebody has answered it.
    pub(crate) questions: Vec<(u64, bool)>,
}

/// Asks.
pub(crate) async fn run(args: &AskingArgs) -> anyhow::Result<Outcome> {
    let links = interfaces::read().await?;
    let (address, time) = (args.address, Duration::from_secs(args.seconds.into()));
    let heard = spawn_blocking(move || {
        let interface = links.announcing(address)?;
        match address {
            IpAddr::V4(address) => asked::<Ipv4Addr>(address, interface, time),
            IpAddr::V6(address) => asked::<Ipv6Addr>(address, interface, time),
        }
    });
    Ok(Outcome::from(serde_json::to_string(&heard.await??)? + "\n"))
}

fn asked<A: Speech>(address: A, interface: &Interface, time: Duration) -> anyhow::Result<Heard> {
    let asking = Asking::open(address, interface)?;
    if !asking.is_answered(Instant::now() + PATIENCE)? {
        bail!("nobody answers for {}", address.into());
    }
    writeln!(io::stdout(), "{READY}").context("nobody listens")?;
    io::stdout().flush()?;
    // Its end is as good as a word.
    io::stdin().read_line(&mut String::new())?;
    let stop = AtomicBool::new(false);
    let (begin, stop) = (Instant::now(), &stop);
    thread::scope(|scope| {
        let questions = scope.spawn(|| asking.questions(begin, begin + time, stop));
        let answers = scope.spawn(|| asking.answers(begin, stop));
        wait_for_word(begin + time);
        stop.store(true, Ordering::Relaxed);
        let questions = questions.join().unwrap_or_default();
        let answers = answers.join().unwrap_or_default();
        Ok(Heard { questions: matched(&questions, &answers) })
    })
}

/// Until somebody says that it is enough, or the time is over.
fn wait_for_word(end: Instant) {
    let (said, says) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_line(&mut String::new());
        let _ = said.send(()); // Fails only when nobody waits any more.
    });
    let _ = says.recv_timeout(end.saturating_duration_since(Instant::now()));
}

struct Asking<A: Speech> {
    socket: FrameSocket<A::Filter>,
    mac: MacAddr,
    address: A,
    question: Vec<u8>,
}

impl<A: Speech> Asking<A> {
    fn open(address: A, interface: &Interface) -> anyhow::Result<Self> {
        let mac = interface.mac().context("the interface has no MAC address")?;
        let filter = A::filter([].into(), [address].into());
        let socket = FrameSocket::open(interface.index, &filter)?;
        let source = interface.source_for(address.into()).and_then(A::of);
        let question = Question { address, asker: Asker { mac, address: source } };
        Ok(Self { socket, mac, address, question: A::to_everybody(question) })
    }

    /// Whether somebody answers before `end`.
    fn is_answered(&self, end: Instant) -> anyhow::Result<bool> {
        while Instant::now() < end {
            self.socket.send(&self.question)?;
            if self.hears_answer() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for a frame, for a quarter of a second at most.
    fn hears_answer(&self) -> bool {
        let mut buffer = [0; BUFFER];
        let length = self.socket.recv(&mut buffer).ok().flatten();
        let sound = length.and_then(|length| A::sound(buffer.get(..length)?, self.mac));
        matches!(sound, Some(Sound::Answer(claim)) if claim.address == self.address)
    }

    /// Sends questions; when each was sent, after `begin`.
    fn questions(&self, begin: Instant, end: Instant, stop: &AtomicBool) -> Vec<Duration> {
        let mut sent = Vec::new();
        let mut due = begin;
        while !stop.load(Ordering::Relaxed) && due < end {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.push(begin.elapsed());
            // What could not be sent is not answered, and that shows.
            let _ = self.socket.send(&self.question);
            // Who was kept from sending does not catch up.
            due = (due + EVERY).max(Instant::now());
        }
        sent
    }

    /// When answers came.
    fn answers(&self, begin: Instant, stop: &AtomicBool) -> Vec<Duration> {
        let mut heard = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if self.hears_answer() {
                heard.push(begin.elapsed());
            }
        }
        heard
    }
}

/// Which questions were answered: an answer is to the latest question before it. Both are in the order of time.
fn matched(questions: &[Duration], answers: &[Duration]) -> Vec<(u64, bool)> {
    let micros = |at: Duration| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
    let next = |number: usize| questions.get(number + 1).copied().unwrap_or(Duration::MAX);
    let is_answered = |number: usize, at: Duration| {
        let later = answers.partition_point(|answer| *answer < at);
        answers.get(later).is_some_and(|answer| *answer < next(number))
    };
    let matched = questions.iter().enumerate();
    matched.map(|(number, at)| (micros(*at), is_answered(number, *at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_to_the_latest_question() {
        let at =
            |list: &[u64]| list.iter().map(|it| Duration::from_millis(*it)).collect::<Vec<_>>();
        let answered = |answers: &[u64]| {
            let matched = matched(&at(&[0, 20, 40, 60]), &at(answers));
            matched.into_iter().map(|(_, answered)| answered).collect::<Vec<_>>()
        };
        assert_eq!(answered(&[1, 21, 41, 61]), [true; 4]);
        assert_eq!(answered(&[1, 61]), [true, false, false, true]);
        assert_eq!(answered(&[1, 2, 300]), [true, false, false, true]);
        assert_eq!(answered(&[]), [false; 4]);
    }
}
