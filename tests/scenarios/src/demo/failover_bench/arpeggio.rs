//! Ours, as the manifests install it.

use std::{net::Ipv4Addr, time::Duration};

use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, service};

use super::crash::Contestant;

/// A Service with an address.
pub(super) struct Arpeggio<'a> {
    home: &'a Home,
}

impl<'a> Arpeggio<'a> {
    /// Makes a pool and the Service.
    pub(super) fn start(home: &'a Home) -> anyhow::Result<Self> {
        home.add_pool()?;
        home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
        home.wait_for_address("web")?;
        Ok(Self { home })
    }

    /// Leaves the cluster to others.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        self.home.lab.kubectl(&["delete", "service", "web"])?;
        self.home.uninstall()
    }
}

impl Contestant for Arpeggio<'_> {
    fn name(&self) -> &'static str {
        "arpeggio"
    }

    fn address(&self) -> Ipv4Addr {
        first_address()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn bring_back(&mut self, node: Machine) -> anyhow::Result<()> {
        self.home.switch_on(node)?;
        self.home.wait_for_session(node)
    }
}
