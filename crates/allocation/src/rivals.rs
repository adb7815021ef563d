//! Another program that clears or overwrites the status of Services that we serve.
//!
//! What it takes away is written again, at growing intervals, so that two programs that each insist cost the API server a
//! few writes a minute; the user learns which program it is.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::service::{Ingress, STATUS_CONTESTED};
use arpeggio_ipam::Owner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Index, effect::Subject, setbacks::later};

/// The pause after a status was written again for the first time; doubled each further time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// A status is written again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A rival of which nothing was seen for this long has gone.
const TRUCE: Duration = Duration::from_mins(10);

/// How often a status is written again before it is a rival's doing: once can be somebody's slip.
const SUSPICIOUS: u32 = 2;

/// A program that has overwritten a status of ours.
#[derive(Debug)]
pub(super) struct Rival {
    /// Its field manager (`managedFields[].manager`), where the API server has it.
    manager: Option<String>,
    /// How often we have written the status again.
    times: u32,
    /// When we did last.
    pub(super) last: Time,
    /// Whether users have been told.
    is_unmasked: bool,
}

/// What we have written in the status of a Service, as a number: to write the same again means that somebody has undone it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said(u64);

impl Said {
    /// Apart from times, and from what is said of rivals.
    pub(super) fn of(
        addresses: Option<&[IpAddr]>,
        conditions: &[Condition],
        releasing: &[IpAddr],
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        (addresses, releasing).hash(&mut hasher);
        for condition in conditions.iter().filter(|it| it.type_ != STATUS_CONTESTED) {
            (&condition.type_, &condition.status, &condition.reason, &condition.message)
                .hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// What is being written in the status of a Service.
#[derive(Debug)]
pub(super) struct Saying {
    pub(super) said: Said,
    pub(super) contest: Contest,
    /// What the list is then.
    pub(super) leaves: List,
}

/// What the status of a Service lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    addresses: Vec<IpAddr>,
    /// Whether there are entries that are not addresses.
    has_others: bool,
}

impl List {
    /// These addresses, or, where nothing is written there, what there is.
    pub(super) fn after(addresses: Option<&[IpAddr]>, ingress: &Ingress) -> Self {
        match addresses {
            Some(addresses) => Self { addresses: addresses.to_vec(), has_others: false },
            None => Self { addresses: ingress.addresses.clone(), has_others: ingress.has_others },
        }
    }
}

/// What it means for a contest that a status is written.
#[derive(Debug, Default)]
pub(super) struct Contest {
    /// Whether it restores what somebody else has undone.
    restores: bool,
    /// Who else has written it last, as far as is known: what we write hides that.
    manager: Option<String>,
    /// Whether to write it again is nothing to tell.
    pub(super) is_no_news: bool,
    /// The program of which users are to be told.
    pub(super) unmasks: Option<String>,
}

fn unknown() -> String {
    "an unknown program".to_owned()
}

impl Rival {
    fn pause_ends(&self) -> Time {
        let doubled = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(self.times - 1));
        later(&self.last, doubled.min(LONGEST_PAUSE))
    }

    fn truce(&self) -> Time {
        later(&self.last, TRUCE)
    }
}

impl Index {
    /// Whether somebody else has taken out of the status of `owner` what we had written, and what still is to be there.
    fn is_robbed(&self, owner: &Owner) -> bool {
        let (Some(record), Some(written)) = (self.services.get(owner), self.written.get(owner))
        else {
            return false;
        };
        let still_ours = written.iter().all(|address| self.has_lock(owner, *address));
        let robbed = record.ingress.is_empty() || record.conditions.is_empty();
        record.request.is_some() && still_ours && robbed
    }

    /// Whether somebody else has made another list in the status of `owner` than there was when we had written it last, while
    /// the Service has an address of ours.
    fn is_overruled(&self, owner: &Owner) -> bool {
        let (Some(record), Some(left)) = (self.services.get(owner), self.left.get(owner)) else {
            return false;
        };
        let ingress = &record.ingress;
        let is_other = !ingress.is_ours() && List::after(None, ingress) != *left;
        let concerns_us = ingress.is_empty() || !self.locked_by(owner).is_empty();
        record.request.is_some() && is_other && concerns_us
    }

    /// Whether to leave the status of `owner` to a rival for a while. It is looked at again in time.
    pub(super) fn yields_to_rival(&mut self, owner: &Owner, now: &Time) -> bool {
        let Some(rival) = self.rivals.get(owner) else { return false };
        let (pause, truce) = (rival.pause_ends(), rival.truce());
        if truce <= *now {
            self.rivals.remove(owner);
            return false;
        }
        let yields = (self.is_robbed(owner) || self.is_overruled(owner)) && pause > *now;
        let next = if yields { pause } else { truce };
        self.alarms.insert((next, Subject::Service(owner.clone())));
        yields
    }

    /// Whether what a rival has undone is not written again yet. It is looked at again in time.
    pub(super) fn is_paused(&mut self, owner: &Owner, now: &Time) -> bool {
        let Some(rival) = self.rivals.get(owner) else { return false };
        let pause = rival.pause_ends();
        let paused = pause > *now;
        if paused {
            self.alarms.insert((pause, Subject::Service(owner.clone())));
        }
        paused
    }

    /// What it means for a contest that the status of `owner` is written now: whether that restores what somebody has cleared
    /// or listed otherwise, or `repeats` what we have written last.
    pub(super) fn contest(&self, owner: &Owner, repeats: bool) -> Contest {
        let undone = repeats || self.is_robbed(owner);
        let restores = undone || self.is_overruled(owner);
        let (times, is_unmasked) =
            self.rivals.get(owner).map_or((0, false), |rival| (rival.times, rival.is_unmasked));
        let is_suspicious = times + u32::from(restores) >= SUSPICIOUS;
        Contest {
            restores,
            manager: self.other_writer(owner),
            // Other addresses are news, as long as they may be somebody's correction.
            is_no_news: restores && (undone || is_suspicious),
            unmasks: (is_suspicious && !is_unmasked).then(|| self.name_of_rival(owner)),
        }
    }

    fn name_of_rival(&self, owner: &Owner) -> String {
        let known = || self.rivals.get(owner)?.manager.clone();
        self.other_writer(owner).or_else(known).unwrap_or_else(unknown)
    }

    /// The field manager of whoever else has written the status of `owner` last.
    fn other_writer(&self, owner: &Owner) -> Option<String> {
        self.services.get(owner)?.ingress.other_writers.first().cloned()
    }

    /// The program `manager` that changes the status of `owner` now.
    fn rival_at(&mut self, owner: &Owner, manager: Option<String>, now: &Time) -> &mut Rival {
        let rival = self.rivals.entry(owner.clone()).or_insert_with(|| Rival {
            manager: None,
            times: 0,
            last: now.clone(),
            is_unmasked: false,
        });
        rival.last = now.clone();
        rival.manager = manager.or(rival.manager.take());
        rival
    }

    /// Whoever else has written a status that we would have to write all the time is a rival, however it is done.
    pub(super) fn suspect_rival(&mut self, owner: &Owner, now: &Time) {
        let ingress = self.services.get(owner).map(|record| &record.ingress);
        if ingress.is_some_and(|it| !it.is_ours() && !it.other_writers.is_empty()) {
            let rival = self.rival_at(owner, self.other_writer(owner), now);
            rival.times = rival.times.max(SUSPICIOUS);
        }
    }

    /// The program that insists on another status for `owner`, for people.
    pub(super) fn rival_of(&self, owner: &Owner) -> Option<String> {
        let rival = self.rivals.get(owner).filter(|rival| rival.times >= SUSPICIOUS)?;
        Some(rival.manager.clone().unwrap_or_else(unknown))
    }

    /// Takes note that what was to be written was. Only now has a status been restored, and has anybody been told.
    pub(super) fn note_said(&mut self, subject: &Subject, now: &Time) {
        let Subject::Service(owner) = subject else { return };
        let Some(Saying { said, contest, leaves }) = self.saying.remove(owner) else { return };
        self.said.insert(owner.clone(), said);
        self.left.insert(owner.clone(), leaves);
        if contest.restores && self.services.contains_key(owner) {
            self.rival_at(owner, contest.manager, now).times += 1;
        }
        if let Some(rival) = self.rivals.get_mut(owner) {
            rival.is_unmasked |= contest.unmasks.is_some();
        }
    }

    /// This process decides from now on, after others may have. What it has written last, and with whom it has contended, is
    /// what others know better; whose a status is that lists addresses, it says itself.
    pub(super) fn forget_contests(&mut self) {
        self.said.clear();
        self.rivals.clear();
        self.written.clear();
        self.left.clear();
        let owners: Vec<Owner> = self.services.keys().cloned().collect();
        owners.iter().for_each(|owner| self.note_written(owner));
    }

    /// Takes note that what was to be written was not.
    pub(super) fn forget_saying(&mut self, subject: &Subject) {
        if let Subject::Service(owner) = subject {
            self.saying.remove(owner);
        }
    }

    /// Takes note of what the status of `owner` says, when it is we who have written it.
    pub(super) fn note_written(&mut self, owner: &Owner) {
        let Some(record) = self.services.get(owner) else { return };
        if record.ingress.is_ours() && !record.ingress.is_empty() {
            self.written.insert(owner.clone(), record.ingress.addresses.clone());
            self.left.insert(owner.clone(), List::after(None, &record.ingress));
        }
    }

    /// That the status of `owner` lists nothing from now on is our own doing.
    pub(super) fn forget_written(&mut self, owner: &Owner) {
        self.written.remove(owner);
    }

    /// Forgets all rivalry about a Service that is gone.
    pub(super) fn forget_rival(&mut self, owner: &Owner) {
        self.rivals.remove(owner);
        self.written.remove(owner);
        self.left.remove(owner);
        self.said.remove(owner);
        // What is under way is of no interest any more, either.
        self.saying.remove(owner);
    }
}
