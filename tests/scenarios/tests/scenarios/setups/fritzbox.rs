//! `docs/setups/fritzbox.md`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::ensure;
use arpeggio_lab::{
    Machine,
    network::{INTERNET_V4, ROUTER_WAN_V4},
};
use arpeggio_scenarios::{Home, eprint_line};

use super::{LONGEST_OUTAGE, Setup, Url};

/// The address of the host on the internet.
const INTERNET_V6: &str = "2001:db8::2";

/// The name behind the port forward.
const APP: &str = "app.home.example.com";

pub(crate) fn one_port_forward_leads_to_everything(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "fritzbox")?;
    page.write_certificate(&[APP])?;
    page.apply("pool.yaml")?;
    page.create_secret("proxy")?;
    page.apply("app.yaml")?;
    page.apply("proxy.yaml")?;
    page.know_by_name("proxy", "app")?;
    page.apply("service.yaml")?;
    for deployment in ["app", "proxy"] {
        page.wait_for_rollout(deployment)?;
    }
    let families = home.lab.options().families;
    let addresses = home.wait_until("an address of each family of the cluster", || {
        let addresses = home.addresses("proxy")?;
        let kinds: Vec<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
        if kinds == families.of(true, false) {
            Ok(addresses)
        } else {
            Err(format!("{addresses:?}").into())
        }
    })?;
    let urls = addresses.iter().map(|address| page.open_to_the_internet(*address));
    let urls: Vec<Url> = urls.collect::<anyhow::Result<_>>()?;

    for url in &urls {
        let client = if url.at.is_ipv4() { INTERNET_V4 } else { INTERNET_V6 };
        page.wait_for_page(*url, &format!("{client} asked for https://{APP}"))?;
        page.wait_for_page(Url::http(APP, url.at.ip()), "301 Moved Permanently")?;
    }
    let answers: Vec<String> = (0..60).map(|_| page.status(urls[0])).collect();
    ensure!(answers.contains(&"503".to_owned()), "nobody was limited: {answers:?}");

    let owner = page.common_holder(&addresses, |_| true)?;
    // Kubernetes needs many seconds to notice that pods are lost, and the proxy asks them meanwhile.
    home.keep_pods_off("app", owner)?;
    for url in &urls {
        page.wait_for_page(*url, "")?;
    }
    let outages = page.outages_by_power_cut(owner, &urls)?;
    eprint_line(&format!("b-fritzbox, {families:?}: without an answer for {outages:?}"));
    let short = outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
    ensure!(short, "clients were without an answer for {outages:?}");
    page.common_holder(&addresses, |now| now != owner)?;
    Ok(())
}

impl Setup<'_> {
    /// Opens 80 and 443 on the router: by a port forward for IPv4, for IPv6 there is nothing to do. Says where clients find
    /// the page then.
    fn open_to_the_internet(&self, address: IpAddr) -> anyhow::Result<Url> {
        if address.is_ipv6() {
            return Ok(Url::https(APP, address));
        }
        for port in [80, 443] {
            self.home.lab.network().forward_port(port, SocketAddr::new(address, port))?;
        }
        Ok(Url::https(APP, ROUTER_WAN_V4.parse()?))
    }

    /// Waits until one node holds all of these addresses, and it is one of those that are meant.
    fn common_holder(
        &self,
        addresses: &[IpAddr],
        is_it: impl Fn(Machine) -> bool,
    ) -> anyhow::Result<Machine> {
        self.home.wait_until("one node has the addresses", || {
            let holders = addresses.iter().map(|address| self.home.holder(*address));
            let holders = holders.collect::<anyhow::Result<BTreeSet<_>>>()?;
            match holders.first() {
                Some(Some(holder)) if holders.len() == 1 && is_it(*holder) => Ok(*holder),
                _ => Err(format!("{holders:?}").into()),
            }
        })
    }

    /// The status that a client on the internet gets, or why it gets none.
    fn status(&self, url: Url) -> String {
        let args = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(url, &args).unwrap_or_else(|error| error.to_string())
    }
}
