//! Whole set-ups, as their pages in `docs/setups` describe them, with the programs that people have there.

mod client_addresses;
mod fritzbox;
mod haproxy;
mod setup;
mod url;

use std::time::Duration;

use arpeggio_lab::Machine;
use arpeggio_scenarios::Home;
use serde_json::{Value, json};

pub(crate) use self::{
    client_addresses::pods_see_whom_the_policy_says,
    fritzbox::one_port_forward_leads_to_everything,
    haproxy::haproxy_sends_the_clusters_names_to_one_address,
    setup::{Setup, with_image},
    url::Url,
};

/// A busy test machine may take longer than the eighth of a second; a session lasts ten.
pub(crate) const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

/// The other machine on the LAN that serves something.
pub(crate) const OTHER: Machine = Machine::Host(1);

/// Changes a Service.
pub(crate) fn patch(home: &Home, service: &str, spec: &Value) -> anyhow::Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    home.lab.kubectl(&["patch", "service", service, "--type=merge", "-p", &patch])?;
    Ok(())
}
