//! One watch, as calls to whoever keeps what it shows.

use std::{fmt::Debug, time::Duration};

use arpeggio_allocation::{Unlisted, Watched};
use arpeggio_runtime::{
    guarded::Guarded,
    health::Awaited,
    watch::{Change, Complaint, Event, Haste, Watch},
};
use kube::{Api, Resource, runtime::watcher::Config};
use serde::de::DeserializeOwned;

/// One watch.
pub(crate) struct Feed<K>(Watch<K>);

impl<K> Feed<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches what `config` selects. `awaited` is told when the first list is complete.
    pub(crate) fn new(api: Api<Guarded<K>>, config: Config, awaited: Awaited) -> Self {
        Self(Watch::new(api, config, Haste::Patient, awaited))
    }

    /// Whether the first list is complete.
    pub(crate) fn is_listed(&self) -> bool {
        self.0.is_listed()
    }

    /// Whether the first list is complete, or is not waited for any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.is_settled()
    }

    /// Whether everything is listed, and was shown whenever it was asked for in so long a time.
    pub(crate) fn goes_well_for(&self, time: Duration) -> bool {
        self.0.goes_well_for(time)
    }

    /// Whether the API server does not know the kind, or does not show it: another version of it may be there.
    pub(crate) fn is_lacking(&self) -> bool {
        self.0.is_absent() || self.0.is_without()
    }

    /// Whether the API server does not know the kind.
    pub(crate) fn is_absent(&self) -> bool {
        self.0.is_absent()
    }

    /// Ends the watch.
    pub(crate) fn dismiss(self) {
        self.0.dismiss();
    }

    /// Goes on without the kind, if it has not been shown for long enough.
    pub(crate) fn go_on_without(&mut self) {
        self.0.go_on_without();
    }

    /// What the process goes on without: all objects of the kind, unless `one` says which.
    pub(crate) fn unlisted(&self, one: Option<(&str, &str)>) -> Option<Unlisted> {
        let which = || match one {
            Some((namespace, name)) => Unlisted::one::<K>(namespace, name),
            None => Unlisted::all::<K>(),
        };
        self.0.is_without().then(which)
    }

    /// Waits for the next event. There always is one, if only an error. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Event<K> {
        self.0.next().await
    }

    /// Passes an event on. What cannot be decoded of a list is not taken for gone.
    pub(crate) fn pass(&mut self, event: Event<K>, keeper: &mut impl Watched<K>) {
        match self.0.pass(event) {
            Some(Change::Applied(object)) => keeper.apply(object),
            Some(Change::Deleted(object)) => keeper.delete(object),
            Some(Change::Listed(objects)) => keeper.reset(objects),
            Some(Change::ListedInPart { objects, gone }) => {
                gone.iter().for_each(|object| keeper.gone(object));
                objects.into_iter().for_each(|object| keeper.apply(object));
            }
            None => {}
        }
    }

    /// Whether there are objects that cannot be decoded.
    pub(crate) fn is_partial(&self) -> bool {
        self.0.undecodable() > 0
    }

    /// The uids of those.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &str> {
        self.0.left_out()
    }

    /// The kind, how many of its objects cannot be decoded, and those that could not be since the last call.
    pub(crate) fn undecodable(&mut self) -> Undecodable {
        Undecodable {
            kind: K::kind(&()).into_owned(),
            count: self.0.undecodable(),
            complaints: self.0.take_complaints(),
        }
    }
}

/// What of one kind cannot be decoded.
pub(crate) struct Undecodable {
    pub(crate) kind: String,
    pub(crate) count: usize,
    pub(crate) complaints: Vec<Complaint>,
}

impl Undecodable {
    /// The sum of two watches of one kind.
    pub(crate) fn and(mut self, mut other: Self) -> Self {
        self.count += other.count;
        self.complaints.append(&mut other.complaints);
        self
    }
}
