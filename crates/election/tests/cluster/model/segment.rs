//! The segment: who hears whom, and who answers.

use std::{net::IpAddr, rc::Rc};

use arpeggio_election::{Event, Node, Timestamp};

use super::{
    mutations::Mutation,
    world::{Host, Speaker, World},
};

impl World {
    /// The slow announcement that is repeated for ever.
    pub(crate) fn refresh(&mut self) {
        for from in 0..self.speakers.len() {
            for address in self.speakers[from].announced.clone() {
                if self.answers(from, address) {
                    self.tell_segment(from, address);
                }
            }
        }
    }

    pub(crate) fn ask_speaker(&mut self, index: usize, at: Timestamp, node: Node, address: IpAddr) {
        let home = self.speakers[index].home;
        let answers = |other: &Speaker, index: usize| match self.mutation {
            Mutation::SpeaksOnlyWithApi if !other.api => false,
            Mutation::KernelSpeaks => true,
            _ => self.answers(index, address),
        };
        let answered = self.speakers.iter().enumerate().any(|(index, other)| {
            self.hosts[other.home].name == node
                && self.connected(home, other.home)
                && answers(other, index)
        });
        if answered {
            self.speaker(index).elector.handle(at, Event::Heard { address, by: node });
        }
    }

    /// There are no strangers: only fellows answer.
    pub(crate) fn ask_segment(&mut self, index: usize, at: Timestamp, address: IpAddr) {
        let home = self.speakers[index].home;
        let others = (0..self.speakers.len()).filter(|other| self.answers(*other, address));
        let others = others.map(|other| self.speakers[other].home);
        let answer = others.into_iter().find(|there| self.connected(home, *there));
        let answer = answer.or_else(|| self.proxied(home, address));
        let speaker = Rc::make_mut(&mut self.speakers[index]);
        match answer {
            Some(there) => {
                speaker.asked.remove(&address);
                let by = self.hosts[there].name.clone();
                speaker.elector.handle(at, Event::Heard { address, by });
            }
            None => drop(speaker.asked.insert(address)),
        }
    }

    /// In whose name a proxy answers.
    fn proxied(&self, asker: usize, address: IpAddr) -> Option<usize> {
        let holder = self.store.locks.get(&address)?.holder.as_ref()?;
        let holder = self.hosts.iter().position(|host| host.name == holder.node)?;
        (self.mutation == Mutation::Proxied && holder != asker).then_some(holder)
    }

    /// Hosts answer as long as they have power and cable, whatever their speakers do.
    pub(crate) fn connected(&self, one: usize, other: usize) -> bool {
        let up = |host: &Host| host.power && !host.frozen && host.cable;
        let pair = (one.min(other), one.max(other));
        up(&self.hosts[one]) && up(&self.hosts[other]) && !self.cuts.contains(&pair)
    }

    pub(crate) fn tell_segment(&mut self, from: usize, address: IpAddr) {
        let home = self.speakers[from].home;
        match self.mutation {
            Mutation::Deaf => return,
            Mutation::SpeaksOnlyWithApi if !self.speakers[from].api => return,
            _ => {}
        }
        for other in 0..self.speakers.len() {
            let there = self.speakers[other].home;
            if there != home && self.connected(home, there) && self.speakers[other].running {
                let event = Event::Heard { address, by: self.hosts[home].name.clone() };
                let inbox = &mut self.speaker(other).inbox;
                if !inbox.contains(&event) {
                    inbox.push(event);
                }
            }
        }
    }
}
