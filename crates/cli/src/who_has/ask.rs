//! Asks the segment for an address and listens for whoever answers.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_link::packet::{FrameSocket, SocketError};
use arpeggio_wire::{Asker, MacAddr, Question};

use crate::survey::speech::Speech;

/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(240);
/// More than any answer has.
const BUFFER: usize = 512;

/// A machine that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where it says the address is.
    pub(super) mac: MacAddr,
    /// From the question to its first answer.
    pub(super) took: Duration,
    /// To how many questions it has answered.
    pub(super) count: u32,
}

/// All that was heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// How often it was asked.
    pub(super) asked: u32,
    /// Each machine once, in the order of their first answers.
    pub(super) machines: Vec<Answer>,
    /// Who has answered the latest question.
    pub(super) latest: Vec<MacAddr>,
}

/// From where and for how long is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The interface's index.
    pub(super) interface: u32,
    /// The interface's MAC address.
    pub(super) mac: MacAddr,
    /// Whom the answerers shall believe to ask. `None`: a probe, which tells nothing about this machine.
    pub(super) source: Option<IpAddr>,
    /// How long answers are awaited.
    pub(super) timeout: Duration,
}

/// Asks everybody on the segment for `address`, several times, until the time is over.
///
/// # Errors
/// When the process may not open packet sockets, or the interface goes away meanwhile.
pub(super) fn ask(address: IpAddr, plan: Plan) -> Result<Answers, SocketError> {
    match address {
        IpAddr::V4(address) => ask_for(address, plan),
        IpAddr::V6(address) => ask_for(address, plan),
    }
}

fn ask_for<A: Speech>(address: A, plan: Plan) -> Result<Answers, SocketError> {
    let filter = A::filter(BTreeSet::new(), BTreeSet::from([address]));
    let socket = FrameSocket::open(plan.interface, &filter)?;
    let asker = Asker { mac: plan.mac, address: plan.source.and_then(A::of) };
    let question = A::to_everybody(Question { address, asker });
    let mut answers = Answers::default();
    let end = Instant::now() + plan.timeout;
    let mut sent_at = Instant::now();
    let mut buffer = [0; BUFFER];
    while Instant::now() < end {
        if answers.asked == 0 || sent_at.elapsed() >= ASK_EVERY {
            // Before, since an answer may be there by the time that the call is back.
            sent_at = Instant::now();
            socket.send(&question)?;
            answers.ask();
        }
        // Comes back without a frame after a while, in time for the next question.
        if let Some(length) = socket.recv(&mut buffer)?
            && let Some(claim) = A::claim(&buffer[..length])
            && claim.address == address
        {
            answers.hear(claim.mac, sent_at.elapsed());
        }
    }
    Ok(answers)
}

impl Answers {
    fn ask(&mut self) {
        self.asked += 1;
        self.latest.clear();
    }

    /// A machine may say the same thing twice; that is one answer.
    fn hear(&mut self, mac: MacAddr, took: Duration) {
        if self.latest.contains(&mac) {
            return;
        }
        self.latest.push(mac);
        match self.machines.iter_mut().find(|it| it.mac == mac) {
            Some(known) => known.count += 1,
            None => self.machines.push(Answer { mac, took, count: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_counted_once_for_each_question() {
        let [one, other] = [1, 2].map(|last| MacAddr(2, 0, 0, 0, 0, last));
        let millis = Duration::from_millis;
        let mut answers = Answers::default();
        answers.ask();
        answers.hear(one, millis(1));
        answers.hear(other, millis(2));
        answers.hear(one, millis(3));
        answers.ask();
        answers.hear(one, millis(4));
        let expected = [
            Answer { mac: one, took: millis(1), count: 2 },
            Answer { mac: other, took: millis(2), count: 1 },
        ];
        assert_eq!((answers.asked, &answers.machines[..]), (2, &expected[..]));
    }
}
