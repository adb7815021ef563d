//! `MetalLB`'s pools and advertisements, which only together say what is announced.

use std::collections::BTreeMap;

use arpeggio_api::{
    declaration::Remark,
    metallb::{Advertisement, IPAddressPool, L2Advertisement},
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _};

use crate::{Declared, Declarer, Index, Watched};

/// All of them, by name.
#[derive(Debug, Default)]
pub struct MetalLb {
    pools: BTreeMap<String, IPAddressPool>,
    advertisements: BTreeMap<String, L2Advertisement>,
    changed: bool,
}

impl MetalLb {
    /// Tells the index, if there is something new.
    pub fn tell(&mut self, index: &mut Index) {
        if std::mem::take(&mut self.changed) {
            index.set_declared(Declarer::MetalLb, self.declared());
        }
    }

    fn declared(&self) -> Declared {
        let mut declared = Declared::default();
        let advertisements = self.advertisements(&mut declared.remarks);
        for pool in self.pools.values() {
            let (declaration, remarks) = pool.declare(&advertisements);
            let object = pool.object_ref(&());
            declared.remarks.extend(remarks.into_iter().map(|it| (object.clone(), it)));
            declared.pools.push(declaration);
        }
        declared
    }

    fn advertisements(&self, remarks: &mut Vec<(ObjectReference, Remark)>) -> Vec<Advertisement> {
        let mut usable = Vec::new();
        for object in self.advertisements.values() {
            match Advertisement::parse(object) {
                Ok(advertisement) => usable.push(advertisement),
                Err(error) => {
                    let message = format!("the advertisement is not used: {error}");
                    let remark = Remark { reason: "AdvertisementNotUsed", message };
                    remarks.push((object.object_ref(&()), remark));
                }
            }
        }
        usable
    }
}

impl Watched<IPAddressPool> for MetalLb {
    fn apply(&mut self, pool: IPAddressPool) {
        let before = self.pools.insert(pool.name_any(), pool.clone());
        // Its status changes with every allocation, while `MetalLB` runs too.
        self.changed |= before.is_none_or(|it| {
            (it.uid(), &it.spec, it.labels()) != (pool.uid(), &pool.spec, pool.labels())
        });
    }

    fn delete(&mut self, pool: IPAddressPool) {
        self.changed |= self.pools.remove(&pool.name_any()).is_some();
    }

    fn reset(&mut self, pools: Vec<IPAddressPool>) {
        self.pools = pools.into_iter().map(|pool| (pool.name_any(), pool)).collect();
        self.changed = true;
    }
}

impl Watched<L2Advertisement> for MetalLb {
    fn apply(&mut self, advertisement: L2Advertisement) {
        self.advertisements.insert(advertisement.name_any(), advertisement);
        self.changed = true;
    }

    fn delete(&mut self, advertisement: L2Advertisement) {
        self.changed |= self.advertisements.remove(&advertisement.name_any()).is_some();
    }

    fn reset(&mut self, advertisements: Vec<L2Advertisement>) {
        self.advertisements = advertisements.into_iter().map(|it| (it.name_any(), it)).collect();
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arpeggio_api::{
        metallb::{IPAddressPoolSpec, L2AdvertisementSpec},
        terms::Announcement,
    };

    fn pool() -> IPAddressPool {
        let addresses = vec!["10.0.0.0/24".to_owned()];
        IPAddressPool::new("lan", IPAddressPoolSpec { addresses, ..IPAddressPoolSpec::default() })
    }

    fn reasons(declared: &Declared) -> Vec<&'static str> {
        declared.remarks.iter().map(|(_, remark)| remark.reason).collect()
    }

    #[test]
    fn a_pool_is_announced_as_soon_as_an_advertisement_selects_it() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        let declared = metallb.declared();
        assert_eq!(declared.pools[0].announcement, Announcement::Nowhere);
        assert_eq!(reasons(&declared), ["NotAdvertised"]);
        let everything = L2Advertisement::new("l2", L2AdvertisementSpec::default());
        metallb.apply(everything.clone());
        assert_ne!(metallb.declared().pools[0].announcement, Announcement::Nowhere);
        assert_eq!(reasons(&metallb.declared()), [""; 0]);
        metallb.delete(everything);
        assert_eq!(reasons(&metallb.declared()), ["NotAdvertised"]);
    }

    #[test]
    fn a_status_is_no_change() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        metallb.changed = false;
        let mut same = pool();
        same.metadata.resource_version = Some("2".to_owned());
        metallb.apply(same);
        assert!(!metallb.changed);
        let mut other = pool();
        other.spec.avoid_buggy_ips = true;
        metallb.apply(other);
        assert!(metallb.changed);
    }
}
