//! What a Service asks for, by its annotations and its spec.
//!
//! | what | annotation, the first one counts most | field |
//! |---|---|---|
//! | pools | `arpeggio.dev/address-pool`, `metallb.io/address-pool`, `metallb.universe.tf/address-pool` | |
//! | addresses | `arpeggio.dev/addresses`, `metallb.io/loadBalancerIPs`, `metallb.universe.tf/loadBalancerIPs` | `spec.loadBalancerIP` |
//! | sharing key | `arpeggio.dev/sharing-key`, `metallb.io/allow-shared-ip`, `metallb.universe.tf/allow-shared-ip` | |
//! | spread | `arpeggio.dev/spread` | |
//! | families | | `spec.clusterIPs`, `spec.ipFamilyPolicy` |
//! | who may share | | `spec.ports`, `spec.externalTrafficPolicy`, `spec.selector` |
//!
//! One rule holds for all annotations: of several spellings the first one with a value that is not blank counts, and the
//! others are not looked at. The field may repeat what the annotation says; if it says something else, the request is
//! refused. A value that cannot be understood is refused as a whole: half of a wish is somebody
//! else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_ipam::{
    Backend, Families, Family, PoolChoice, PoolName, Port, Protocol, Request, Requester, Sharing,
};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{RequestError, is_local};
use crate::address_pool::Spread;

/// The annotations that name pools: one, several that are tried in this order (`a,b`), or some for each family
/// (`ipv4=a,ipv6=b`).
pub const POOL_ANNOTATIONS: [&str; 3] =
    ["arpeggio.dev/address-pool", "metallb.io/address-pool", "metallb.universe.tf/address-pool"];

/// The annotations that ask for addresses: one, or one of each family (`192.168.1.240,fd00::240`).
pub const ADDRESS_ANNOTATIONS: [&str; 3] =
    ["arpeggio.dev/addresses", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs"];

/// The annotations with the key that Services must have in common to share an address.
pub const SHARING_ANNOTATIONS: [&str; 3] = [
    "arpeggio.dev/sharing-key",
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];

/// The annotation that says which nodes serve the Service's addresses: `nodes` or `none`.
pub const SPREAD_ANNOTATION: &str = "arpeggio.dev/spread";

/// More pools than this are not tried: each one costs time at each look, and whoever may create a Service may write them.
const MOST_POOLS: usize = 64;

/// The longest part of a value that a message shows, in characters; no name of Kubernetes is longer.
const LONGEST_SHOWN: usize = 253;

/// Where a requested address can stand apart from annotations.
const LOAD_BALANCER_IP: &str = "spec.loadBalancerIP";

/// What the Service asks for. The labels of its namespace are not known: they are not the Service's own.
///
/// # Errors
/// The first wish that cannot be understood, or that contradicts another one.
pub(super) fn parse(service: &Service, spec: &ServiceSpec) -> Result<Request, RequestError> {
    let annotations = Annotations(service.metadata.annotations.as_ref());
    // Nothing that is asked for of an allocator, but understood with the rest or not at all: what the Service has stays then.
    spread(service)?;
    let families = families(spec)?;
    Ok(Request {
        requester: requester(service),
        families,
        addresses: requested_addresses(annotations, spec, families)?,
        pools: annotations.first(POOL_ANNOTATIONS).map_or(Ok(PoolChoice::Any), pools)?,
        sharing: sharing(service, spec),
    })
}

/// Who asks, without the labels of its namespace.
pub(super) fn requester(service: &Service) -> Requester {
    Requester {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        labels: service.metadata.labels.clone().unwrap_or_default(),
        ..Requester::default()
    }
}

/// Which nodes are to serve its addresses; `None` when it does not say.
///
/// # Errors
/// When the value is not known.
pub(super) fn spread(service: &Service) -> Result<Option<Spread>, RequestError> {
    let annotations = Annotations(service.metadata.annotations.as_ref());
    let known = |(place, value)| {
        Spread::named(value)
            .ok_or_else(|| RequestError::UnknownSpread { place, value: shown(value) })
    };
    annotations.first([SPREAD_ANNOTATION]).map(known).transpose()
}

/// A Service's annotations.
#[derive(Clone, Copy)]
struct Annotations<'a>(Option<&'a BTreeMap<String, String>>);

impl<'a> Annotations<'a> {
    /// The first of `keys` whose value is not blank, and that value without surrounding spaces.
    fn first<const N: usize>(self, keys: [&'static str; N]) -> Option<(&'static str, &'a str)> {
        let value = |key| self.0?.get(key).map(|value| (key, value.trim()));
        keys.into_iter().filter_map(value).find(|(_, value)| !value.is_empty())
    }
}

/// The items of a list that is separated by commas, without surrounding spaces.
fn items(place: &'static str, value: &str) -> Result<Vec<String>, RequestError> {
    let items: Vec<String> = value.split(',').map(|item| item.trim().to_owned()).collect();
    match items.iter().position(String::is_empty) {
        Some(at) => Err(RequestError::EmptyItem { place, value: shown(value), position: at + 1 }),
        None => Ok(items),
    }
}

/// As much of a value as a message shows.
fn shown(value: &str) -> String {
    let mut rest = value.chars();
    let begin: String = rest.by_ref().take(LONGEST_SHOWN).collect();
    if rest.next().is_some() { begin + "..." } else { begin }
}

fn pools((place, value): (&'static str, &str)) -> Result<PoolChoice, RequestError> {
    let count = value.split(',').count();
    if count > MOST_POOLS {
        return Err(RequestError::TooManyPools { place, count, most: MOST_POOLS });
    }
    let items = items(place, value)?;
    let with_family: Vec<_> = items.iter().filter_map(|item| item.split_once('=')).collect();
    if with_family.is_empty() {
        return Ok(PoolChoice::Named(items.into_iter().map(PoolName::from).collect()));
    }
    if with_family.len() < items.len() {
        return Err(RequestError::MixedPools { place, value: shown(value) });
    }
    let mut choice: BTreeMap<Family, Vec<PoolName>> = BTreeMap::new();
    for (position, (family, pool)) in with_family.into_iter().enumerate() {
        let (family, pool) = (family.trim(), pool.trim());
        if pool.is_empty() {
            let value = shown(value);
            return Err(RequestError::EmptyItem { place, value, position: position + 1 });
        }
        let known = family_named(family)
            .ok_or_else(|| RequestError::UnknownFamily { place, family: shown(family) })?;
        choice.entry(known).or_default().push(pool.into());
    }
    Ok(PoolChoice::PerFamily(choice))
}

fn family_named(text: &str) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.to_string().eq_ignore_ascii_case(text))
}

/// One cluster address means one address, whatever the policy says.
fn families(spec: &ServiceSpec) -> Result<Families, RequestError> {
    let served = served_families(spec);
    let first = served.first().copied().unwrap_or(Family::V4);
    match (spec.ip_family_policy.as_deref(), served.len()) {
        (Some("RequireDualStack"), 2) => Ok(Families::Both(first)),
        (Some("RequireDualStack"), have) => Err(RequestError::TooFewClusterAddresses { have }),
        (_, 2) => Ok(Families::Prefer(first)),
        _ => Ok(Families::One(first)),
    }
}

/// The families that the cluster serves the Service at, the primary one first: those of its cluster addresses, or what
/// it wishes as long as it has none.
fn served_families(spec: &ServiceSpec) -> Vec<Family> {
    let addresses = spec.cluster_ips.iter().flatten();
    let given: Vec<Family> =
        addresses.filter_map(|text| text.parse().ok()).map(Family::of).collect();
    if given.is_empty() {
        spec.ip_families.iter().flatten().filter_map(|name| family_named(name)).collect()
    } else {
        given
    }
}

fn requested_addresses(
    annotations: Annotations<'_>,
    spec: &ServiceSpec,
    families: Families,
) -> Result<Vec<IpAddr>, RequestError> {
    let annotated = annotations.first(ADDRESS_ANNOTATIONS);
    let field = spec.load_balancer_ip.as_deref().map(str::trim).filter(|it| !it.is_empty());
    let Some((place, value)) = annotated.or(field.map(|value| (LOAD_BALANCER_IP, value))) else {
        return Ok(Vec::new());
    };
    let addresses = parse_addresses(place, value)?;
    if let Some(field) = field {
        // What is asked for twice is one request, as long as both are the same.
        let again = parse_addresses(LOAD_BALANCER_IP, field)?;
        if !again.iter().all(|address| addresses.contains(address)) {
            return Err(RequestError::AddressesTwice { annotation: place });
        }
    }
    check_families(place, &addresses, families)?;
    Ok(addresses)
}

fn parse_addresses(place: &'static str, value: &str) -> Result<Vec<IpAddr>, RequestError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for item in items(place, value)? {
        let address = parse_address(place, &item)?;
        let family = Family::of(address);
        if addresses.contains(&address) {
            continue;
        }
        if addresses.iter().any(|other| Family::of(*other) == family) {
            return Err(RequestError::TwoOfOneFamily { place, value: shown(value), family });
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn parse_address(place: &'static str, text: &str) -> Result<IpAddr, RequestError> {
    if text.contains('%') {
        return Err(RequestError::Zone { place, text: shown(text) });
    }
    match text.parse() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(plain) => Err(RequestError::MappedIpv4 { place, text: shown(text), plain }),
            None => Ok(v6.into()),
        },
        Ok(address) => Ok(address),
        Err(_) => Err(RequestError::NotAnAddress { place, text: shown(text) }),
    }
}

fn check_families(
    place: &'static str,
    addresses: &[IpAddr],
    families: Families,
) -> Result<(), RequestError> {
    if let Some(address) = addresses.iter().find(|it| !families.want(Family::of(**it))) {
        let (address, family) = (*address, Family::of(*address));
        return Err(RequestError::FamilyNotServed { place, address, family });
    }
    let missing = |family: &Family| !addresses.iter().any(|it| Family::of(*it) == *family);
    match (families, Family::ALL.into_iter().find(missing)) {
        (Families::Both(_), Some(missing)) => Err(RequestError::OneOfTwo { place, missing }),
        _ => Ok(()),
    }
}

/// On which terms it shares its addresses, if it has a sharing key.
pub(super) fn sharing(service: &Service, spec: &ServiceSpec) -> Option<Sharing> {
    let annotations = Annotations(service.metadata.annotations.as_ref());
    let (_, key) = annotations.first(SHARING_ANNOTATIONS)?;
    let backend = if is_local(spec) {
        Backend::Local(spec.selector.clone().unwrap_or_default())
    } else {
        Backend::Anywhere
    };
    let ports: BTreeSet<Port> = spec.ports.iter().flatten().filter_map(port).collect();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    Some(Sharing { namespace, key: key.into(), backend, ports })
}

/// `None` only for what the API server accepts nowhere.
fn port(port: &ServicePort) -> Option<Port> {
    let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    Some(Port { protocol, number: u16::try_from(port.port).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A dual-stack Service with these annotations, where `spec` overrides its fields.
    fn asked(annotations: &Value, spec: &Value) -> Result<Request, RequestError> {
        let mut service = json!({
            "metadata": { "namespace": "shop", "name": "web", "labels": { "app": "web" } },
            "spec": {
                "type": "LoadBalancer",
                "clusterIPs": ["10.96.0.1", "fd00:96::1"],
                "ipFamilyPolicy": "PreferDualStack",
            },
        });
        service["metadata"]["annotations"] = annotations.clone();
        for (field, value) in spec.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        let service: Service = serde_json::from_value(service).unwrap();
        parse(&service, service.spec.as_ref().unwrap())
    }

    fn refusal(annotations: &Value, spec: &Value) -> String {
        asked(annotations, spec).unwrap_err().to_string()
    }

    fn named(pools: &[&str]) -> PoolChoice {
        PoolChoice::Named(pools.iter().map(|name| PoolName::from(*name)).collect())
    }

    #[test]
    fn our_spelling_counts_most_and_blank_counts_as_absent() {
        let [ours, stable, deprecated] = POOL_ANNOTATIONS;
        let table = [
            (json!({}), PoolChoice::Any),
            (json!({ ours: "a", stable: "b", deprecated: "c" }), named(&["a"])),
            (json!({ stable: "b", deprecated: "c" }), named(&["b"])),
            (json!({ deprecated: " c " }), named(&["c"])),
            (json!({ ours: " ", stable: "", deprecated: "c" }), named(&["c"])),
            (json!({ ours: " " }), PoolChoice::Any),
        ];
        for (annotations, pools) in table {
            assert_eq!(asked(&annotations, &json!({})).unwrap().pools, pools, "{annotations}");
        }
    }

    #[test]
    fn spread_is_known_or_refused_with_the_remedy() {
        let said = |value: &str| {
            let annotations = [(SPREAD_ANNOTATION.to_owned(), value.to_owned())].into();
            let mut service = Service::default();
            service.metadata.annotations = Some(annotations);
            spread(&service)
        };
        assert_eq!(spread(&Service::default()), Ok(None));
        let table = [
            ("", None),
            (" ", None),
            ("nodes", Some(Spread::Nodes)),
            (" nodes\n", Some(Spread::Nodes)),
            ("none", Some(Spread::None)),
        ];
        for (value, expected) in table {
            assert_eq!(said(value), Ok(expected), "{value:?}");
        }
        for value in ["Nodes", "true", "nodes,none", "zones"] {
            let error = said(value).unwrap_err();
            let begin = format!("arpeggio.dev/spread: {value:?} is not known: write nodes (");
            assert!(error.to_string().starts_with(&begin), "{error}");
            assert_eq!(error.reason(), "MalformedSpread");
        }
    }

    #[test]
    fn pools_in_a_list_and_by_family() {
        let pools = |value: &str| asked(&json!({ POOL_ANNOTATIONS[0]: value }), &json!({}));
        assert_eq!(pools("a , b").unwrap().pools, named(&["a", "b"]));
        let by_family = BTreeMap::from([
            (Family::V4, vec!["a".into(), "c".into()]),
            (Family::V6, vec!["b".into()]),
        ]);
        let choice = pools("ipv4=a, IPv6 = b,ipv4=c").unwrap().pools;
        assert_eq!(choice, PoolChoice::PerFamily(by_family));
        let table = [
            ("a,,b", "item 2 of \"a,,b\" is empty"),
            ("a,", "item 2 of \"a,\" is empty"),
            ("ipv4=", "item 1 of \"ipv4=\" is empty"),
            ("a,ipv6=b", "write either a,b or ipv4=a,ipv6=b"),
            ("ipv5=a", "\"ipv5\" is no family: write ipv4=POOL or ipv6=POOL"),
        ];
        for (value, message) in table {
            let error = pools(value).unwrap_err();
            assert!(error.to_string().contains(message), "{value}: {error}");
            assert_eq!(error.reason(), "MalformedPools");
        }
    }

    #[test]
    fn what_is_endless_is_refused_in_few_words() {
        let pools = |count: usize| {
            let value = vec!["home"; count].join(",");
            asked(&json!({ POOL_ANNOTATIONS[0]: value }), &json!({})).map(drop)
        };
        assert_eq!(pools(64), Ok(()));
        let error = pools(100_000).unwrap_err().to_string();
        assert!(error.contains("it names 100000 pools"), "{error}");
        let long = "x".repeat(200_000);
        let table = [
            (POOL_ANNOTATIONS[0], format!("ipv4={long},")),
            (POOL_ANNOTATIONS[0], format!("{long},ipv4=a")),
            (POOL_ANNOTATIONS[0], format!("{long}=a")),
            (SPREAD_ANNOTATION, long.clone()),
            (ADDRESS_ANNOTATIONS[0], long.clone()),
            (ADDRESS_ANNOTATIONS[0], format!("{long}%0")),
            (ADDRESS_ANNOTATIONS[0], format!("10.0.0.1,{}10.0.0.2", " ".repeat(200_000))),
        ];
        for (key, value) in table {
            let error = refusal(&json!({ key: value }), &json!({}));
            assert!(error.len() < 500, "{key}: {} bytes", error.len());
        }
    }

    #[test]
    fn addresses_by_annotation_and_by_field() {
        let four: IpAddr = "192.168.1.240".parse().unwrap();
        let six: IpAddr = "fd00::240".parse().unwrap();
        let [ours, stable, deprecated] = ADDRESS_ANNOTATIONS;
        let table = [
            (json!({}), json!({}), vec![]),
            (json!({ ours: " 192.168.1.240 , fd00::240 " }), json!({}), vec![four, six]),
            (json!({ stable: "fd00:0:0::240", deprecated: "x" }), json!({}), vec![six]),
            (json!({ deprecated: "192.168.1.240" }), json!({}), vec![four]),
            (json!({ ours: "192.168.1.240,192.168.1.240" }), json!({}), vec![four]),
            (json!({ ours: "fd00::240,192.168.1.240,FD00:0::240" }), json!({}), vec![six, four]),
            (
                json!({ ours: "fd00::240,192.168.1.240" }),
                json!({ "loadBalancerIP": "192.168.1.240" }),
                vec![six, four],
            ),
            (json!({}), json!({ "loadBalancerIP": "192.168.1.240" }), vec![four]),
            (json!({ ours: "fd00::240" }), json!({ "loadBalancerIP": "" }), vec![six]),
            (json!({ ours: "fd00::240" }), json!({ "loadBalancerIP": "fd00:0::240" }), vec![six]),
        ];
        for (annotations, spec, addresses) in table {
            assert_eq!(asked(&annotations, &spec).unwrap().addresses, addresses, "{annotations}");
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused_with_the_remedy() {
        let table = [
            ("192.168.1.256", "\"192.168.1.256\" is not an address"),
            ("10.0.0.1 10.0.0.2", "a comma between two"),
            ("010.0.0.1", "\"010.0.0.1\" is not an address"),
            ("10.1", "\"10.1\" is not an address"),
            ("0x0a000001", "\"0x0a000001\" is not an address"),
            ("[fd00::1]", "\"[fd00::1]\" is not an address"),
            ("10.0.0.1/32", "\"10.0.0.1/32\" is not an address"),
            ("10.0.0.1:80", "\"10.0.0.1:80\" is not an address"),
            ("10.0.0.1\u{200b}", "\"10.0.0.1\\u{200b}\" is not an address"),
            ("10.0.0.1\n10.0.0.2", "\"10.0.0.1\\n10.0.0.2\" is not an address"),
            ("web.example.org", "\"web.example.org\" is not an address"),
            ("::FFFF:a00:1", "written as IPv6: write 10.0.0.1"),
            ("10.0.0.0/24", "\"10.0.0.0/24\" is not an address"),
            ("10.0.0.1,", "item 2 of \"10.0.0.1,\" is empty"),
            ("fe80::1%eth0", "\"fe80::1%eth0\" has a zone: leave out the part from % on"),
            ("::ffff:10.0.0.1", "written as IPv6: write 10.0.0.1"),
            ("10.0.0.1,10.0.0.2", "has two IPv4 addresses"),
            ("10.0.0.1,fd00::1,fd00::2", "has two IPv6 addresses"),
        ];
        for (value, message) in table {
            let error = refusal(&json!({ ADDRESS_ANNOTATIONS[0]: value }), &json!({}));
            assert!(error.starts_with("arpeggio.dev/addresses: "), "{error}");
            assert!(error.contains(message), "{value}: {error}");
            let error = refusal(&json!({}), &json!({ "loadBalancerIP": value }));
            assert!(error.starts_with("spec.loadBalancerIP: "), "{error}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let [ours, stable, _] = ADDRESS_ANNOTATIONS;
        let single = json!({ "clusterIPs": ["10.96.0.1"] });
        let required = json!({ "ipFamilyPolicy": "RequireDualStack" });
        let table = [
            (
                json!({ stable: "10.0.0.1" }),
                json!({ "loadBalancerIP": "10.0.0.2" }),
                "metallb.io/loadBalancerIPs and spec.loadBalancerIP ask for different addresses",
            ),
            (json!({ ours: "fd00::1" }), single, "the Service has no IPv6 cluster address"),
            (json!({ ours: "10.0.0.1" }), required, "add an IPv6 address or set PreferDualStack"),
        ];
        for (annotations, spec, message) in table {
            let error = refusal(&annotations, &spec);
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn families_follow_the_cluster_addresses() {
        let families = |spec: &Value| asked(&json!({}), spec).map(|request| request.families);
        let table = [
            (json!({}), Families::Prefer(Family::V4)),
            (json!({ "clusterIPs": ["fd00::1", "10.96.0.1"] }), Families::Prefer(Family::V6)),
            (json!({ "clusterIPs": ["fd00::1"] }), Families::One(Family::V6)),
            (json!({ "ipFamilyPolicy": "RequireDualStack" }), Families::Both(Family::V4)),
            (json!({ "clusterIPs": null, "ipFamilies": ["IPv6"] }), Families::One(Family::V6)),
            (json!({ "clusterIPs": null }), Families::One(Family::V4)),
        ];
        for (spec, expected) in table {
            assert_eq!(families(&spec), Ok(expected), "{spec}");
        }
        let one = json!({ "clusterIPs": ["10.96.0.1"], "ipFamilyPolicy": "RequireDualStack" });
        assert_eq!(families(&one), Err(RequestError::TooFewClusterAddresses { have: 1 }));
    }

    #[test]
    fn who_may_share() {
        let shared = |spec: &Value| {
            asked(&json!({ SHARING_ANNOTATIONS[2]: " key " }), spec).unwrap().sharing.unwrap()
        };
        let ports = json!([{ "port": 53, "protocol": "UDP" }, { "port": 80 }]);
        let anywhere = shared(&json!({ "ports": ports, "selector": { "app": "web" } }));
        assert_eq!((anywhere.key.as_str(), &anywhere.backend), ("key", &Backend::Anywhere));
        let listed: Vec<String> = anywhere.ports.iter().map(ToString::to_string).collect();
        assert_eq!(listed, ["TCP/80", "UDP/53"]);
        let local = json!({ "externalTrafficPolicy": "Local", "selector": { "app": "web" } });
        let selector = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        assert_eq!(shared(&local).backend, Backend::Local(selector));
        assert_eq!(
            asked(&json!({ SHARING_ANNOTATIONS[0]: "" }), &json!({})).unwrap().sharing,
            None
        );
    }

    #[test]
    fn the_requester_has_the_labels_of_the_service() {
        let requester = asked(&json!({}), &json!({})).unwrap().requester;
        assert_eq!(requester.namespace, "shop");
        assert_eq!(requester.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(requester.namespace_labels, None);
    }
}
