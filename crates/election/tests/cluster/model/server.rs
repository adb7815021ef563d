//! The API server: what becomes of writes, and who is told.

use std::rc::Rc;

use arpeggio_election::{Event, Outcome, Target, Write};

use super::world::{Request, Speaker, Step, World};

impl World {
    pub(crate) fn record(&self, request: &Request) -> Target {
        let home = self.speakers[request.from].home;
        match request.write.target() {
            Target::OwnSession => Target::Session(self.hosts[home].name.clone()),
            other => other,
        }
    }

    /// Serves the request at `place`, then each that nothing else competes with.
    pub(crate) fn serve_from(&mut self, place: usize) {
        let request = self.requests.remove(place);
        self.serve(request);
        while let [Step::Serve(next)] = self.proceeding()[..] {
            let request = self.requests.remove(next);
            self.serve(request);
        }
    }

    fn serve(&mut self, request: Request) {
        let Request { from, write, answer_lost, .. } = request;
        let me = self.hosts[self.speakers[from].home].name.clone();
        let before = self.store.clone();
        let (by, performed) = self.mutation.of_write(&me, &write, self);
        let (record, outcome) = self.store.perform(&by, &performed);
        let record = record.map(|record| self.mutation.of_record(record));
        if outcome == Outcome::Done {
            self.witness.wrote(&me, &performed, &before, &self.store, &self.faults);
            self.broadcast(record.as_ref());
        }
        self.answer(from, write, record, outcome, answer_lost);
    }

    fn answer(
        &mut self,
        from: usize,
        write: Write,
        record: Option<Event>,
        outcome: Outcome,
        lost: bool,
    ) {
        let speaker = self.speaker(from);
        let Some(place) = speaker.awaited.iter().position(|(_, awaited)| *awaited == write) else {
            return;
        };
        if !lost && speaker.api {
            speaker.awaited.remove(place);
            speaker.inbox.extend(record);
            speaker.inbox.push(Event::Wrote { write, outcome });
        }
    }

    pub(super) fn broadcast(&mut self, record: Option<&Event>) {
        let told = self.speakers.iter_mut().filter(|speaker| speaker.running && speaker.api);
        for speaker in told.map(Rc::make_mut) {
            record.cloned().into_iter().for_each(|record| speaker.will_see(record));
        }
    }
}

impl Speaker {
    /// What waits is taken in at once, so only the last word about each record matters; a list stays as it is.
    fn will_see(&mut self, record: Event) {
        let list_end = self.watch.iter().position(|waiting| *waiting == Event::Synced);
        let mut news = self.watch.split_off(list_end.map_or(0, |end| end + 1));
        news.retain(|waiting| about(waiting) != about(&record));
        self.watch.extend(news.into_iter().chain([record]));
    }
}

/// The record that an event of the watch is about.
fn about(event: &Event) -> Option<Target> {
    match event {
        Event::Session(session) => Some(Target::Session(session.node.clone())),
        Event::Lock(lock) => Some(Target::Lock(lock.address)),
        _ => None,
    }
}
