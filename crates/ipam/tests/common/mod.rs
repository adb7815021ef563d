//! A small language for requests, and an allocator that carries out what it plans.

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part, and may fail here")]

use std::net::IpAddr;

use arpeggio_ipam::{
    Allocator, Backend, Families, Family, Grace, Held, Owner, Plan, Pool, PoolChoice, Port,
    Protocol, Request, Sharing,
};

/// A request in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) families: Families,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) request: Option<Request>,
    pub(crate) pools: PoolChoice,
    pub(crate) sharing: Option<Sharing>,
}

/// One IPv4 address.
pub(crate) const V4: Ask = Ask::new(Families::One(Family::V4));
/// One IPv6 address.
pub(crate) const V6: Ask = Ask::new(Families::One(Family::V6));
/// `PreferDualStack`, IPv4 first.
pub(crate) const PREFER: Ask = Ask::new(Families::Prefer(Family::V4));
/// `RequireDualStack`, IPv4 first.
pub(crate) const REQUIRE: Ask = Ask::new(Families::Both(Family::V4));

impl Ask {
    pub(crate) const fn new(families: Families) -> Self {
        Self {
            families,
            addresses: Vec::new(),
            request: None,
            pools: PoolChoice::Any,
            sharing: None,
        }
    }

    pub(crate) fn at(&self, addresses: &[&str]) -> Self {
        Self { addresses: addresses.iter().map(|text| ip(text)).collect(), ..self.clone() }
    }

    pub(crate) fn from(&self, pools: &[&str]) -> Self {
        let pools = PoolChoice::Named(pools.iter().map(|name| (*name).into()).collect());
        Self { pools, ..self.clone() }
    }

    pub(crate) fn each_from(&self, v4: &str, v6: &str) -> Self {
        let pools = [(Family::V4, vec![v4.into()]), (Family::V6, vec![v6.into()])];
        Self { pools: PoolChoice::PerFamily(pools.into()), ..self.clone() }
    }

    pub(crate) fn sharing(&self, key: &str, backend: Backend, ports: &[u16]) -> Self {
        let port = |number: &u16| Port { protocol: Protocol::Tcp, number: *number };
        let ports = ports.iter().map(port).collect();
        Self {
            sharing: Some(Sharing { namespace: String::new(), key: key.into(), backend, ports }),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self) -> Request {
        let built = Request {
            families: self.families,
            addresses: self.addresses.clone(),
            pools: self.pools.clone(),
            sharing: self.sharing.clone(),
            ..Request::default()
        };
        self.request.clone().unwrap_or(built)
    }
}

impl From<Families> for Ask {
    fn from(families: Families) -> Self {
        Self::new(families)
    }
}

impl From<Request> for Ask {
    fn from(request: Request) -> Self {
        let addresses = request.addresses.clone();
        Self { request: Some(request), addresses, ..V4 }
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, addresses: &[&str]) -> Pool {
    Pool::parse(name.into(), addresses).unwrap()
}

/// An allocator that carries out what it plans.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) allocator: Allocator,
}

impl Bench {
    pub(crate) fn with(pools: impl IntoIterator<Item = Pool>) -> Self {
        let mut bench = Self::default();
        bench.set_pools(pools);
        bench
    }

    pub(crate) fn set_pools(&mut self, pools: impl IntoIterator<Item = Pool>) {
        self.allocator.set_pools(pools.into_iter().map(Ok));
    }

    pub(crate) fn held(&self, owner: &str) -> Vec<String> {
        self.allocator.held_by(&Owner::from(owner)).map(|it| it.to_string()).collect()
    }

    pub(crate) fn plan(&self, owner: &str, ask: &Ask, grace: Grace) -> Plan {
        let owner = Owner::from(owner);
        let held: Vec<Held> = self
            .allocator
            .held_by(&owner)
            .map(|address| Held { address, origin: Some("home".into()) })
            .collect();
        self.allocator.plan(&owner, &ask.request(), &held, grace)
    }

    /// Carries out the plan; what the owner has afterwards.
    pub(crate) fn carry_out(&mut self, owner: &str, ask: &Ask, grace: Grace) -> Vec<String> {
        let plan = self.plan(owner, ask, grace);
        let owner_ = Owner::from(owner);
        for choice in &plan.add {
            let terms = ask.request().sharing.into();
            self.allocator.claim(&owner_, choice.address, terms).unwrap();
        }
        for leaving in &plan.leaving {
            assert!(self.allocator.release(&owner_, leaving.address));
        }
        self.held(owner)
    }

    /// What a newcomer gets, who is not refused.
    pub(crate) fn give(&mut self, owner: &str, ask: &Ask) -> Vec<String> {
        assert_eq!(self.plan(owner, ask, Grace::Lasts).refusal, None);
        self.carry_out(owner, ask, Grace::Lasts)
    }

    pub(crate) fn refusal(&self, owner: &str, ask: &Ask) -> String {
        self.plan(owner, ask, Grace::Lasts).refusal.unwrap().to_string()
    }
}
