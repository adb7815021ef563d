//! The proxy on the way to the API server, as kubectl chooses it.
//!
//! A cluster's `proxy-url` in the kubeconfig counts always. Without one, `HTTPS_PROXY` does, unless `NO_PROXY` names the API
//! server. In a pod there is neither: what is set there is for the way out of the cluster.

use std::{env, net::IpAddr};

use axum::http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// What the environment says of proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// The proxy.
    proxy: Option<String>,
    /// Who is reached without it.
    exempt: String,
}

impl Environment {
    /// That of this process.
    pub(crate) fn present() -> Self {
        let value = |names: [&str; 2]| {
            names.into_iter().filter_map(|it| env::var(it).ok()).find(|it| !it.is_empty())
        };
        Self {
            proxy: value(["HTTPS_PROXY", "https_proxy"]),
            exempt: value(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }
}

/// The proxy for `server`, if there is to be one. `configured`: what the kubeconfig says, or else the environment; the
/// library does not tell which.
///
/// # Errors
/// A proxy of a kind that is not known.
pub(crate) fn towards(
    server: &Uri,
    configured: Option<&Uri>,
    environment: &Environment,
) -> Result<Option<Intercept>, Uri> {
    let Some(configured) = configured else { return Ok(None) };
    let of_environment = environment.proxy.as_ref().and_then(|it| it.parse::<Uri>().ok());
    if of_environment.as_ref() == Some(configured) && is_exempt(server, &environment.exempt) {
        return Ok(None);
    }
    let proxy = Matcher::builder().all(configured.to_string()).build().intercept(server);
    proxy.map(Some).ok_or_else(|| configured.clone())
}

fn is_exempt(server: &Uri, list: &str) -> bool {
    let host = server.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    if host == "localhost" || address.is_ok_and(|it| it.is_loopback()) {
        return true;
    }
    let items: Vec<&str> = list.split([',', ' ']).map(|it| it.trim_start_matches("*.")).collect();
    let exempt = Matcher::builder().all("http://proxy").no(items.join(",")).build();
    items.contains(&"*") || exempt.intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy.example:3128";

    fn chosen(server: &str, configured: Option<&str>, environment: &Environment) -> Option<String> {
        let configured = configured.map(|it| it.parse().unwrap());
        towards(&server.parse().unwrap(), configured.as_ref(), environment)
            .unwrap()
            .map(|proxy| proxy.uri().to_string())
    }

    fn exempting(list: &str) -> Environment {
        Environment { proxy: Some(PROXY.to_owned()), exempt: list.to_owned() }
    }

    #[test]
    fn whoever_is_exempt_is_reached_without_the_proxy_of_the_environment() {
        let (address, name) = ("https://192.168.1.10:6443", "https://api.home.example:6443");
        let table = [
            (address, "", true),
            (address, "10.0.0.0/8,.svc,.cluster.local", true),
            (address, "192.168.0.0/16", false),
            (address, "localhost, 192.168.1.10", false),
            (address, "*", false),
            (address, ",192.168.1.10,", false),
            (name, "192.168.0.0/16,example.org", true),
            (name, ".home.example", false),
            (name, "*.home.example", false),
            (name, "home.example", false),
            (name, "API.home.example", false),
            ("https://[fd00::10]:6443", "fd00::/64", false),
            ("https://[fd00::10]:6443", "", true),
            ("https://127.0.0.1:6443", "", false),
            ("https://localhost:6443", "", false),
            ("https://[::1]:6443", "", false),
        ];
        for (server, exempt, proxied) in table {
            let proxy = chosen(server, Some(PROXY), &exempting(exempt));
            assert_eq!(proxy.is_some(), proxied, "{server} with {exempt:?}: {proxy:?}");
        }
    }

    #[test]
    fn the_proxy_of_a_cluster_counts_always() {
        let server = "https://192.168.1.10:6443";
        let own = "socks5://127.0.0.1:1080/";
        let all = exempting("*");
        assert_eq!(chosen(server, Some(own), &all).as_deref(), Some(own));
        assert_eq!(chosen(server, Some(own), &Environment::default()).as_deref(), Some(own));
        assert_eq!(chosen(server, None, &all), None);
    }

    #[test]
    fn a_proxy_may_ask_for_a_password() {
        let configured = "http://me:a%40b@proxy.example:3128".parse().unwrap();
        let server = "https://192.168.1.10:6443".parse().unwrap();
        let proxy = towards(&server, Some(&configured), &Environment::default());
        let proxy = proxy.unwrap().unwrap();
        assert_eq!(proxy.uri(), "http://proxy.example:3128/");
        assert_eq!(proxy.basic_auth().unwrap(), "Basic bWU6YUBi");
    }
}
