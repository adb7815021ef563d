//! What breaks, and how it is mended.

use arpeggio_election::{Event, Families};

use super::{mutations::Mutation, world::World};

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A host loses power.
    PowerOff(usize),
    /// A host stands still with all that runs on it: a paused virtual machine.
    Freeze(usize),
    /// A host's cable is pulled.
    Unplug(usize),
    /// Two hosts do not reach one another.
    Cut(usize, usize),
    /// A process dies.
    Kill(usize),
    /// A process is stopped, and later goes on.
    Pause(usize),
    /// A process is asked to end.
    Stop(usize),
    /// A second process is started on a host.
    Second(usize),
    /// A process does not reach the API server.
    ApiCut(usize),
    /// Nobody reaches the API server.
    ApiDown,
    /// A process's watch tells nothing for a while, then everything in order.
    Lag(usize),
    /// The write at this place is done later, after its sender has given up.
    Hold(usize),
    /// The answer to the write at this place is lost.
    LoseAnswer(usize),
    /// The write at this place is lost.
    LoseWrite(usize),
}

/// What kind of thing a fault concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The path to the API server.
    Api,
    /// The API server, for everybody.
    ApiDown,
    /// The path between two hosts.
    Pair,
    /// A process or a host.
    Other,
}

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Anywhere.
    Any,
    /// Hosts and what joins them.
    Wire,
    /// The power of hosts.
    Power,
    /// The API server, and what is said to it.
    Api,
    /// The speakers' processes.
    Process,
}

impl Fault {
    pub(crate) fn is_at(self, place: Place) -> bool {
        if place == Place::Power {
            return matches!(self, Self::PowerOff(_));
        }
        let at = match self {
            Self::PowerOff(_) | Self::Freeze(_) | Self::Unplug(_) | Self::Cut(..) => Place::Wire,
            Self::Kill(_) | Self::Pause(_) | Self::Stop(_) | Self::Second(_) => Place::Process,
            _ => Place::Api,
        };
        place == Place::Any || place == at
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::ApiDown => Kind::ApiDown,
            Self::ApiCut(_)
            | Self::Lag(_)
            | Self::Hold(_)
            | Self::LoseAnswer(_)
            | Self::LoseWrite(_) => Kind::Api,
            Self::Cut(..) => Kind::Pair,
            _ => Kind::Other,
        }
    }
}

impl World {
    /// What can break now.
    pub(crate) fn possible_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            if host.power && !host.frozen {
                faults.extend([Fault::PowerOff(index), Fault::Freeze(index)]);
                if host.cable {
                    faults.push(Fault::Unplug(index));
                }
                if self.speakers.iter().filter(|it| it.home == index && it.running).count() == 1 {
                    faults.push(Fault::Second(index));
                }
            }
            let pairs = (index + 1..self.hosts.len()).map(|other| (index, other));
            let whole = pairs.filter(|pair| !self.cuts.contains(pair));
            faults.extend(whole.map(|(one, other)| Fault::Cut(one, other)));
        }
        for (index, speaker) in self.speakers.iter().enumerate() {
            if !self.is_awake(speaker) {
                continue;
            }
            faults.extend([Fault::Kill(index), Fault::Pause(index)]);
            if !speaker.stopping {
                faults.push(Fault::Stop(index));
            }
            if speaker.api {
                faults.push(Fault::ApiCut(index));
            }
            if !speaker.lags {
                faults.push(Fault::Lag(index));
            }
        }
        if self.speakers.iter().any(|speaker| speaker.api) {
            faults.push(Fault::ApiDown);
        }
        for (place, request) in self.requests.iter().enumerate() {
            if !request.held {
                faults.extend([
                    Fault::Hold(place),
                    Fault::LoseAnswer(place),
                    Fault::LoseWrite(place),
                ]);
            }
        }
        faults
    }

    /// What can be mended now.
    pub(crate) fn present_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let none = !self.speakers.iter().any(|it| it.home == index && it.running);
            if !host.power || none {
                faults.push(Fault::PowerOff(index));
            }
            if host.frozen {
                faults.push(Fault::Freeze(index));
            }
            if !host.cable {
                faults.push(Fault::Unplug(index));
            }
        }
        faults.extend(self.cuts.iter().map(|(one, other)| Fault::Cut(*one, *other)));
        let down = self.speakers.iter().all(|speaker| !speaker.api || !speaker.running);
        if down {
            faults.push(Fault::ApiDown);
        }
        for (index, speaker) in self.speakers.iter().enumerate().filter(|(_, it)| it.running) {
            if speaker.paused {
                faults.push(Fault::Pause(index));
            }
            if !speaker.api && !down {
                faults.push(Fault::ApiCut(index));
            }
            if speaker.lags {
                faults.push(Fault::Lag(index));
            }
        }
        let held = self.requests.iter().enumerate().filter(|(_, request)| request.held);
        faults.extend(held.map(|(place, _)| Fault::Hold(place)));
        faults
    }

    pub(crate) fn break_(&mut self, fault: Fault) {
        self.witness.begin_anew();
        match fault {
            Fault::PowerOff(host) => {
                self.hosts[host].power = false;
                (0..self.speakers.len())
                    .filter(|index| self.speakers[*index].home == host)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|index| self.end(index));
            }
            Fault::Freeze(host) => self.hosts[host].frozen = true,
            Fault::Unplug(host) => self.hosts[host].cable = false,
            Fault::Cut(one, other) => drop(self.cuts.insert((one, other))),
            Fault::Kill(index) => self.end(index),
            Fault::Pause(index) => self.speaker(index).paused = true,
            Fault::Stop(index) => self.stop(index),
            Fault::Second(host) => self.start(host),
            Fault::ApiCut(index) => self.api_cut(index),
            Fault::ApiDown => (0..self.speakers.len()).for_each(|index| self.api_cut(index)),
            Fault::Lag(index) => self.speaker(index).lags = true,
            Fault::Hold(place) => self.requests[place].held = true,
            Fault::LoseAnswer(place) => self.requests[place].answer_lost = true,
            Fault::LoseWrite(place) => drop(self.requests.remove(place)),
        }
    }

    pub(crate) fn mend(&mut self, fault: Fault) {
        self.witness.begin_anew();
        match fault {
            Fault::PowerOff(host) => {
                self.hosts[host].power = true;
                self.start(host);
            }
            Fault::Freeze(host) => self.hosts[host].frozen = false,
            Fault::Unplug(host) => self.plug_in(host),
            Fault::Cut(one, other) => drop(self.cuts.remove(&(one, other))),
            Fault::Pause(index) => self.speaker(index).paused = false,
            Fault::ApiCut(index) => self.api_back(index),
            Fault::ApiDown => (0..self.speakers.len()).for_each(|index| self.api_back(index)),
            Fault::Lag(index) => self.speaker(index).lags = false,
            Fault::Hold(place) => self.requests[place].held = false,
            Fault::Kill(_)
            | Fault::Stop(_)
            | Fault::Second(_)
            | Fault::LoseAnswer(_)
            | Fault::LoseWrite(_) => {}
        }
    }

    /// Mends everything, until nothing is left to be mended, and ends upgrades.
    pub(crate) fn mend_all(&mut self) {
        self.plan.clear();
        while let Some(fault) = self.present_faults().first() {
            self.mend(*fault);
        }
        for index in 0..self.hosts.len() {
            let running: Vec<usize> = (0..self.speakers.len())
                .filter(|it| self.speakers[*it].home == index && self.speakers[*it].running)
                .collect();
            if let [first, _] = running[..] {
                self.stop(first);
            }
        }
    }

    fn end(&mut self, index: usize) {
        let speaker = self.speaker(index);
        speaker.running = false;
        speaker.announced.clear();
        speaker.inbox.clear();
        speaker.watch.clear();
        speaker.awaited.clear();
    }

    /// While the carrier was gone there was no socket to answer on; now there is one again, and its table is empty.
    fn plug_in(&mut self, host: usize) {
        self.hosts[host].cable = true;
        let told = self.mutation != Mutation::CarrierUnseen;
        for index in 0..self.speakers.len() {
            if self.speakers[index].home == host && self.speakers[index].running {
                let speaker = self.speaker(index);
                speaker.announced.clear();
                speaker.forget_proofs();
                if told {
                    speaker.inbox.push(Event::CarrierReturned("eth0".to_owned(), Families::ALL));
                }
            }
        }
    }

    /// Steps aside for a second process; else hands over.
    fn stop(&mut self, index: usize) {
        let home = self.speakers[index].home;
        let of_home = self.speakers.iter().filter(|it| it.home == home && it.running);
        if of_home.count() > 1 {
            return self.end(index);
        }
        self.speaker(index).stopping = true;
        self.speaker(index).inbox.push(Event::Stopping);
    }

    fn api_cut(&mut self, index: usize) {
        self.speaker(index).api = false;
        self.requests.retain(|request| request.from != index || request.held);
    }

    fn api_back(&mut self, index: usize) {
        if !self.speakers[index].api && self.speakers[index].running {
            self.speaker(index).api = true;
            let all: Vec<Event> = self.store.list().collect();
            self.speaker(index).watch = all;
        }
    }
}
