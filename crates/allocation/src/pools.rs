//! Pools: what there is to give.

use std::collections::BTreeSet;

use arpeggio_api::{
    address_pool::AddressPool,
    declaration::{Declaration, Origin},
};
use arpeggio_ipam::{Family, PoolName, PoolState, Usage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, api::ObjectMeta};

use super::{Index, Watched, name, version};
use crate::effect::{Effect, PoolWrite, Subject, Task};

impl Watched<AddressPool> for Index {
    fn apply(&mut self, pool: AddressPool) {
        if self.pool_applied(pool) {
            self.pools_changed();
        }
    }

    fn gone(&mut self, pool: &ObjectMeta) {
        if self.pools.remove(name(pool)).is_some() {
            self.forget_setbacks(&Subject::Pool(name(pool).to_owned()));
            self.pools_changed();
        }
    }

    fn reset(&mut self, pools: Vec<AddressPool>) {
        let present: BTreeSet<String> = pools.iter().map(ResourceExt::name_any).collect();
        let gone: Vec<String> =
            self.pools.keys().filter(|it| !present.contains(*it)).cloned().collect();
        for name in gone {
            self.pools.remove(&name);
            self.forget_setbacks(&Subject::Pool(name));
        }
        for pool in pools {
            self.pool_applied(pool);
        }
        self.pools_changed();
        self.listed.pools = true;
    }
}

impl Index {
    /// A pool as a write of its status left it.
    pub(super) fn pool_written(&mut self, pool: AddressPool) {
        let known = self.pools.get(&pool.name_any());
        if known.is_some_and(|known| version(known) <= version(&pool)) {
            self.apply(pool);
        }
    }

    /// Whether the change is one that allocation cares about.
    fn pool_applied(&mut self, pool: AddressPool) -> bool {
        self.pools_dirty = true;
        // A pool that was made anew has no past, and one that is being deleted no future.
        let essence = |pool: &AddressPool| {
            let AddressPool { metadata, spec, .. } = pool;
            let times = [&metadata.creation_timestamp, &metadata.deletion_timestamp];
            (metadata.uid.clone(), times.map(Clone::clone), spec.clone())
        };
        let after = essence(&pool);
        let before = self.pools.insert(pool.name_any(), pool);
        before.is_none_or(|before| essence(&before) != after)
    }

    /// Pools of whatever format have changed.
    pub(super) fn pools_changed(&mut self) {
        self.declarations.arrange(self.pools.values().map(Declaration::from));
        self.allocator.set_pools_or_earlier(self.declarations.pools());
        self.declarations.settle(&self.allocator);
        self.allocator.set_incomplete(self.declarations.are_incomplete());
        self.pools_dirty = true;
        // Some may get an address now, others hold one that no pool allows any more, or that is to be announced elsewhere.
        self.dirty.extend(self.services.keys().cloned());
        self.suspects.extend(self.locks.keys());
    }

    /// The pools' statuses that have to be written. Called now and then rather than at each change, since each
    /// allocation changes them.
    pub fn decide_pools(&mut self, now: &Time) -> Vec<Task> {
        self.note_time(now);
        if !self.is_complete() || !std::mem::take(&mut self.pools_dirty) {
            return Vec::new();
        }
        let states = self.declarations.iter().zip(self.allocator.pools());
        let writes: Vec<PoolWrite> = states
            .zip(self.allocator.usages())
            .filter(|((pool, _), _)| matches!(pool.origin, Origin::AddressPool { .. }))
            .filter_map(|((pool, (_, state)), usage)| self.pool_write(pool, state, usage, now))
            .collect();
        writes.into_iter().filter_map(|write| self.write_pool(write)).collect()
    }

    fn pool_write(
        &self,
        declaration: &Declaration,
        state: PoolState<'_>,
        usage: impl Fn(Family) -> Usage,
        now: &Time,
    ) -> Option<PoolWrite> {
        let name = declaration.name();
        let pool = self.pools.get(name.as_str())?;
        let in_force = self.declarations.generation_in_force(declaration);
        let status = pool.status_with(state, in_force, usage, &self.declarations.cluster, now);
        let changed = pool.status.as_ref() != Some(&status);
        changed.then(|| PoolWrite { name: name.as_str().to_owned(), status })
    }

    fn write_pool(&mut self, write: PoolWrite) -> Option<Task> {
        let subject = Subject::Pool(write.name.clone());
        self.task(subject, Effect::WritePool(Box::new(write)))
    }

    fn usage(&self, pool: &PoolName, family: Family) -> Usage {
        self.allocator.usage(pool, family).unwrap_or_default()
    }

    /// How full every pool is.
    pub fn usages(&self) -> impl Iterator<Item = (&PoolName, Family, Usage)> {
        let of_pool = |name| Family::ALL.map(|family| (name, family, self.usage(name, family)));
        self.allocator.pools().flat_map(move |(name, _)| of_pool(name))
    }
}
