//! Who holds which address, on which terms.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    names::{Owner, SharingKey},
    range::{AddressRange, Family, to_number},
    sharing::{Backend, Clash, Disagreement, Port, Sharing, SharingScope, SharingTerms},
};

/// Who holds which address, from both sides, and where sharers may join.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holders {
    by_address: BTreeMap<IpAddr, BTreeMap<Owner, Holder>>,
    by_owner: BTreeMap<Owner, BTreeSet<IpAddr>>,
    groups: BTreeMap<GroupId, Group>,
}

/// How somebody holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    terms: SharingTerms,
    /// How they clash with those of somebody who has been there before, and stays.
    parting: Option<Clash>,
}

/// What all sharers of an address have in common; the namespace, if they have it in common.
type GroupId = (SharingKey, Backend, Family, Option<String>);

/// The addresses of one family, by number, that Services with the same key and backend hold.
#[derive(Debug, Clone, Default)]
struct Group {
    members: BTreeSet<u128>,
    /// For each port that is in use at some member: the members where it is not.
    open: BTreeMap<Port, BTreeSet<u128>>,
}

impl Holders {
    /// Records that `owner` holds `address` on these terms, also when it did so on others before; whether that is new.
    ///
    /// # Errors
    /// When the terms clash with those of another holder, and that is not tolerated; nothing is changed then.
    pub(crate) fn claim(
        &mut self,
        owner: &Owner,
        address: IpAddr,
        terms: SharingTerms,
        scope: SharingScope,
        tolerated: fn(&Disagreement) -> bool,
    ) -> Result<bool, Clash> {
        match self.clash(owner, address, &terms, scope) {
            Some(clash) if !tolerated(&clash.why) => return Err(clash),
            _ => {}
        }
        if self.terms(owner, address) == Some(&terms) {
            return Ok(false);
        }
        self.leave_group(address);
        let holder = Holder { terms, parting: None };
        self.by_address.entry(address).or_default().insert(owner.clone(), holder);
        self.by_owner.entry(owner.clone()).or_default().insert(address);
        self.join_group(address);
        Ok(true)
    }

    /// Records that these hold `address`, in this order and on these terms, whatever theirs were before; whether that is any
    /// news. Those come first whose terms are as they were and clashed with nobody's: who changes is the one to leave. So is
    /// who shares with nobody any more. Of two others whose terms clash the later one is parting.
    pub(crate) fn recall_all(
        &mut self,
        address: IpAddr,
        in_order: impl IntoIterator<Item = (Owner, SharingTerms)>,
        scope: SharingScope,
    ) -> bool {
        let before = self.by_address.get(&address).cloned().unwrap_or_default();
        let after = recalled(&before, in_order, scope);
        let is_news = before != after;
        if is_news {
            self.replace(address, &before, after);
        }
        is_news
    }

    /// Those `before` do not hold `address` any more, and those after do.
    fn replace(
        &mut self,
        address: IpAddr,
        before: &BTreeMap<Owner, Holder>,
        after: BTreeMap<Owner, Holder>,
    ) {
        self.leave_group(address);
        for owner in before.keys().filter(|owner| !after.contains_key(*owner)) {
            remove_from(&mut self.by_owner, owner, |held| {
                held.remove(&address);
                held.is_empty()
            });
        }
        for owner in after.keys() {
            self.by_owner.entry(owner.clone()).or_default().insert(address);
        }
        if after.is_empty() {
            self.by_address.remove(&address);
        } else {
            self.by_address.insert(address, after);
        }
        self.join_group(address);
    }

    /// How the terms of `owner`, as they are recorded, clash with those of somebody who has held `address` before it.
    pub(crate) fn parting(&self, owner: &Owner, address: IpAddr) -> Option<&Clash> {
        self.by_address.get(&address)?.get(owner)?.parting.as_ref()
    }

    fn terms(&self, owner: &Owner, address: IpAddr) -> Option<&SharingTerms> {
        Some(&self.by_address.get(&address)?.get(owner)?.terms)
    }

    /// Takes `address` from `owner`; false if it did not hold it.
    pub(crate) fn release(&mut self, owner: &Owner, address: IpAddr) -> bool {
        if !self.holds(owner, address) {
            return false;
        }
        self.leave_group(address);
        remove_from(&mut self.by_address, &address, |holders| {
            holders.remove(owner);
            holders.is_empty()
        });
        remove_from(&mut self.by_owner, owner, |held| {
            held.remove(&address);
            held.is_empty()
        });
        self.join_group(address);
        true
    }

    /// How `terms` of `owner` clash with those of another holder of `address`, in the worst way that there is.
    pub(crate) fn clash(
        &self,
        owner: &Owner,
        address: IpAddr,
        terms: &SharingTerms,
        scope: SharingScope,
    ) -> Option<Clash> {
        let others = self.by_address.get(&address)?.iter().filter(|(other, _)| *other != owner);
        let clashes = others.filter_map(|(other, theirs)| {
            let why = terms.disagreement(&theirs.terms, scope)?;
            Some(Clash::between(owner, other, why))
        });
        clashes.min_by_key(|clash| match clash.why {
            Disagreement::Namespace => 2,
            Disagreement::Unknown => 1,
            _ => 0,
        })
    }

    /// As [`Self::clash`], for somebody who is there already. Who is recorded on these terms need not leave because of them:
    /// those clash with nobody's, or it is parting.
    pub(crate) fn lasting_clash(
        &self,
        owner: &Owner,
        address: IpAddr,
        terms: &SharingTerms,
        scope: SharingScope,
    ) -> Option<Clash> {
        if self.terms(owner, address) == Some(terms) {
            return None;
        }
        let clash = self.clash(owner, address, terms, scope);
        clash.filter(|clash| !clash.why.bars_newcomers_only())
    }

    pub(crate) fn holds(&self, owner: &Owner, address: IpAddr) -> bool {
        self.by_owner.get(owner).is_some_and(|held| held.contains(&address))
    }

    pub(crate) fn is_held(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Who holds `address`.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.by_address.get(&address).into_iter().flat_map(BTreeMap::keys)
    }

    /// What `owner` holds, in ascending order, IPv4 first.
    pub(crate) fn held_by(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_owner.get(owner).into_iter().flatten().copied()
    }

    /// The addresses in `range` that anybody holds.
    pub(crate) fn within(&self, range: &AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_address.range(range.first()..=range.last()).map(|(address, _)| *address)
    }

    /// The lowest address, by number and from `from` on, that Services hold who would share it on these terms.
    pub(crate) fn joinable(
        &self,
        sharing: &Sharing,
        family: Family,
        scope: SharingScope,
        from: u128,
    ) -> Option<u128> {
        let Sharing { namespace, key, backend, ports } = sharing;
        if backend.is_private() {
            return None;
        }
        let id = |namespace| (key.clone(), backend.clone(), family, namespace);
        if !sharing.crosses_namespaces(scope) {
            return self.groups.get(&id(Some(namespace.clone())))?.open_to(ports, from);
        }
        let alike = |(group, _): &(&GroupId, &Group)| {
            (&group.0, &group.1, group.2) == (key, backend, family)
        };
        let groups = self.groups.range(id(None)..).take_while(alike);
        groups.filter_map(|(_, group)| group.open_to(ports, from)).min()
    }

    /// The group of `address` and the ports in use there, when all who hold it agree.
    fn group_of(&self, address: IpAddr) -> Option<(GroupId, BTreeSet<Port>)> {
        let holders = self.by_address.get(&address)?;
        let first = holders.values().next()?.terms.sharing()?;
        let mut ports = BTreeSet::new();
        let mut namespace = Some(&first.namespace);
        for holder in holders.values() {
            let sharing = holder.terms.sharing()?;
            if sharing.key != first.key || sharing.backend != first.backend {
                return None;
            }
            namespace = namespace.filter(|it| **it == sharing.namespace);
            ports.extend(sharing.ports.iter().copied());
        }
        let id =
            (first.key.clone(), first.backend.clone(), Family::of(address), namespace.cloned());
        Some((id, ports))
    }

    fn join_group(&mut self, address: IpAddr) {
        if let Some((id, ports)) = self.group_of(address) {
            self.groups.entry(id).or_default().join(to_number(address), &ports);
        }
    }

    fn leave_group(&mut self, address: IpAddr) {
        if let Some((id, _)) = self.group_of(address) {
            remove_from(&mut self.groups, &id, |group| {
                group.leave(to_number(address));
                group.members.is_empty()
            });
        }
    }
}

impl Group {
    fn join(&mut self, member: u128, ports: &BTreeSet<Port>) {
        for port in ports {
            self.open.entry(*port).or_insert_with(|| self.members.clone());
        }
        for (port, open) in &mut self.open {
            if !ports.contains(port) {
                open.insert(member);
            }
        }
        self.members.insert(member);
    }

    fn leave(&mut self, member: u128) {
        self.members.remove(&member);
        for open in self.open.values_mut() {
            open.remove(&member);
        }
        self.open.retain(|_, open| open.len() < self.members.len());
    }

    /// The lowest member from `from` on where none of `ports` is in use. Each step skips to the next member where one
    /// of them is not, so a port that is in use everywhere ends the search at once.
    fn open_to(&self, ports: &BTreeSet<Port>, from: u128) -> Option<u128> {
        let mut at = *self.members.range(from..).next()?;
        loop {
            let before = at;
            for open in ports.iter().filter_map(|port| self.open.get(port)) {
                at = *open.range(at..).next()?;
            }
            if at == before {
                return Some(at);
            }
        }
    }
}

/// Who of these holds an address from now on, and how, as [`Holders::recall_all`] says.
fn recalled(
    before: &BTreeMap<Owner, Holder>,
    in_order: impl IntoIterator<Item = (Owner, SharingTerms)>,
    scope: SharingScope,
) -> BTreeMap<Owner, Holder> {
    let mut staying: Vec<(Owner, SharingTerms)> = Vec::new();
    let mut after: BTreeMap<Owner, Holder> = BTreeMap::new();
    let is_unchanged = |(owner, terms): &(Owner, SharingTerms)| {
        let known = before.get(owner);
        known.is_some_and(|known| known.terms == *terms && known.parting.is_none())
    };
    let (unchanged, mut changed): (Vec<_>, Vec<_>) = in_order.into_iter().partition(is_unchanged);
    // Who shares with nobody has changed, and not those who still share, whoever came first.
    changed.sort_by_key(|(_, terms)| matches!(terms, SharingTerms::Alone));
    for (owner, terms) in unchanged.into_iter().chain(changed) {
        let lasting = |why: &Disagreement| !why.bars_newcomers_only();
        let clash = |(with, theirs): &(Owner, SharingTerms)| {
            let why = terms.disagreement(theirs, scope).filter(lasting)?;
            Some(Clash::between(&owner, with, why))
        };
        let parting = staying.iter().find_map(clash);
        if parting.is_none() {
            staying.push((owner.clone(), terms.clone()));
        }
        after.insert(owner, Holder { terms, parting });
    }
    // Who is about to come is not on the record yet.
    for (owner, holder) in before {
        after.entry(owner.clone()).or_insert_with(|| holder.clone());
    }
    after
}

/// Changes the value of `key`, and removes it when `change` says that it is empty.
fn remove_from<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K, change: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}
