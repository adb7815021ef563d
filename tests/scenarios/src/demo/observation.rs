//! What two observers see while the power is cut: a client on the internet and one on the LAN.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use arpeggio_lab::{
    Machine,
    observe::{
        ArpSightings, ArpWatch, Request, RequestLoop, RequestPlan, Silence, answers,
        longest_silence,
    },
};
use arpeggio_scenarios::Home;

/// How often the LAN's client asks who has the address.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long all is well before the cut.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the observers go on after it.
const AFTER: Duration = Duration::from_secs(4);

/// All that was seen.
pub(crate) struct Observation {
    /// When the observers began.
    pub(crate) begin: Instant,
    /// When the power was cut.
    pub(crate) cut: Instant,
    /// When they ended.
    pub(crate) end: Instant,
    /// What became of each request from the internet.
    pub(crate) requests: Vec<Request>,
    /// Who said on the LAN that the address is his.
    pub(crate) sightings: ArpSightings,
}

impl Observation {
    /// Watches while the owner's power is cut.
    pub(crate) fn of_a_power_cut(
        home: &Home,
        plan: &RequestPlan,
        address: Ipv4Addr,
        owner: Machine,
    ) -> anyhow::Result<Self> {
        let watch = ArpWatch::start(&home.lab, Machine::Client, address, ASK_EVERY)?;
        let requests = RequestLoop::start(&home.lab.namespace(Machine::Internet), plan.clone())?;
        let begin = Instant::now();
        std::thread::sleep(BEFORE);
        let cut = home.lab.power_off(owner)?;
        std::thread::sleep(AFTER);
        let end = Instant::now();
        Ok(Self { begin, cut, end, requests: requests.stop()?, sightings: watch.stop()? })
    }

    /// The longest time in which the client on the internet got no answer.
    pub(crate) fn outage(&self) -> Silence {
        longest_silence(answers(&self.requests), self.begin, self.end)
    }

    /// The requests that were not answered.
    pub(crate) fn failed(&self) -> usize {
        self.requests.iter().filter(|request| !request.is_answered()).count()
    }

    /// The first word of another machine than `owner` after the cut: when, and whether it was said unasked.
    pub(crate) fn first_word_after(&self, owner: Machine) -> Option<(Duration, bool)> {
        let mut replies = self.sightings.replies.iter();
        let first = replies.find(|reply| reply.at > self.cut && Some(reply.mac) != owner.mac())?;
        Some((first.at - self.cut, first.gratuitous))
    }
}
