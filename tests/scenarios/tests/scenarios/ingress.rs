//! Ingresses and Gateways, as `docs/setups/gateway.md` has them, by a real Traefik.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use arpeggio_lab::network::ROUTER_WAN_V4;
use arpeggio_scenarios::{Home, eprint_line, gateway_api_definitions, traefik_image};
use serde_json::Value;

use crate::setups::{LONGEST_OUTAGE, Setup, Url};

/// How long the API server may take for a definition.
const DEFINITIONS: Duration = Duration::from_secs(30);

/// What both Services of Traefik ask for.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 242);

/// What the router forwards.
const PORTS: [u16; 3] = [80, 443, DATABASE];
const DATABASE: u16 = 5432;

const SHOP: &str = "shop.home.example.com";
const BANK: &str = "bank.home.example.com";
const BLOG: &str = "blog.home.example.com";
const DB: &str = "db.home.example.com";

pub(crate) fn gateways_are_behind_the_address_that_was_asked_for(
    home: &Home,
) -> anyhow::Result<()> {
    let page = Setup::new(home, "gateway")?;
    home.lab.import(&[traefik_image()?])?;
    install_gateway_api(home)?;
    page.write_certificate(&[SHOP, BANK])?;
    for secret in ["shop", "app"] {
        page.create_secret(secret)?;
    }
    let files = ["pool", "app", "traefik", "services", "gateways", "routes"];
    for file in files {
        page.apply(&format!("{file}.yaml"))?;
    }
    for deployment in ["app", "traefik"] {
        page.wait_for_rollout(deployment)?;
    }
    for service in ["web", "database"] {
        ensure!(home.wait_for_address(service)? == ADDRESS, "the address that {service} wants");
    }
    for what in ["gateway/web", "gateway/database", "ingress/blog"] {
        wait_until_it_shows_the_address(home, what)?;
    }

    for port in PORTS {
        home.lab.network().forward_port(port, SocketAddr::new(ADDRESS.into(), port))?;
    }
    let router: IpAddr = ROUTER_WAN_V4.parse()?;
    let shop = Url::https(SHOP, router);
    let database = Url::http_on_port(DATABASE, DB, router);
    for (url, words) in [
        (Url::http(SHOP, router), "a page of shop.home.example.com, asked for by http\n"),
        (shop, "a page of shop.home.example.com, asked for by https\n"),
        (Url::https(BANK, router), "bank.home.example.com with TLS up to the pod\n"),
        (Url::http(BLOG, router), "a page of blog.home.example.com, asked for by http\n"),
        (database, "bytes, forwarded by ''\n"),
    ] {
        page.wait_for_page(url, words)?;
    }

    let owner = home.wait_for_owner(ADDRESS)?;
    for deployment in ["app", "traefik"] {
        home.keep_pods_off(deployment, owner)?;
    }
    for url in [shop, database] {
        page.wait_for_page(url, "")?;
    }
    let outages = page.outages_by_power_cut(owner, &[shop, database])?;
    eprint_line(&format!("c-gateway: without an answer by HTTPS and TCP for {outages:?}"));
    let short = outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
    ensure!(short, "clients were without an answer for {outages:?}");
    home.wait_for_another_owner(ADDRESS, owner)?;
    Ok(())
}

fn install_gateway_api(home: &Home) -> anyhow::Result<()> {
    let definitions = gateway_api_definitions()?;
    // Too large for what `kubectl apply` writes down on an object.
    home.lab.kubectl(&["create", "-f", &definitions.to_string_lossy()])?;
    for kind in ["gatewayclasses", "gateways", "httproutes", "tlsroutes", "tcproutes"] {
        let definition = format!("crd/{kind}.gateway.networking.k8s.io");
        home.lab.wait_for(&[&definition], "condition=Established", DEFINITIONS)?;
    }
    Ok(())
}

/// An Ingress's status, or a Gateway's, has what the Service got.
fn wait_until_it_shows_the_address(home: &Home, what: &str) -> anyhow::Result<()> {
    home.wait_until(&format!("{what} shows {ADDRESS}"), || {
        let status = home.lab.get(&[what]).map_err(anyhow::Error::from)?["status"].take();
        let gateways = status["addresses"][0]["value"].as_str();
        let ingress = status["loadBalancer"]["ingress"][0]["ip"].as_str();
        if gateways.or(ingress) == Some(&ADDRESS.to_string()) && is_programmed(&status) {
            return Ok(());
        }
        Err(status.to_string().into())
    })
}

/// An Ingress has no conditions.
fn is_programmed(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().all(|condition| condition["status"] == "True")
}
