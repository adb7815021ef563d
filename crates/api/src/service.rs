//! What a `Service` asks for, what it has, and what the controller writes about it.
//!
//! | where | meaning |
//! |---|---|
//! | `spec.type`, `spec.loadBalancerClass` | whether the Service is ours at all |
//! | annotations, `spec.clusterIPs`, `spec.ipFamilyPolicy`, ... | what it asks for, see [`mod@request`] |
//! | `status.loadBalancer.ingress` | the addresses that the Service has |
//! | `status.conditions`, type `arpeggio.dev/AddressAllocated` | whether it has what it asks for, and why not |
//! | `status.conditions`, type `arpeggio.dev/AddressExpiring` | which of its addresses no pool allows any more, and since when |
//! | `status.conditions`, type `arpeggio.dev/AddressReleasing` | which addresses, claimed for it, it is not going to get |
//! | `status.conditions`, type `arpeggio.dev/AddressConflict` | at which of its addresses a stranger answers |
//! | `status.conditions`, type `arpeggio.dev/StatusContested` | that another program writes the same status, and which one |
//! | `status.conditions`, type `arpeggio.dev/NotSpread` | which of its addresses one node serves though all nodes are to, and why |
//! | `status.conditions`, type `arpeggio.dev/ConnectionsLeft` | which nodes still have connections of its addresses that have moved away from them |
//! | annotation `arpeggio.dev/releasing` | the addresses that `AddressReleasing` is about, for the controller: written with the status, and only there |
//! | annotation `arpeggio.dev/take-over` | `"true"`: a status that another load balancer has left may be replaced |
//! | `status.conditions`, type `arpeggio.dev/AddressNotAnnounced` | which of its addresses no rule of their pools has announced |

pub mod request;
mod request_error;

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use arpeggio_ipam::{Request, Requester, Sharing};
use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, ObjectReference, Service, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry, ObjectMeta, Time},
};
use kube::Resource;
use serde_json::{Value, json};

pub use self::request_error::RequestError;
use crate::{address_pool::Spread, cluster::one_address, condition, lock::ServiceRef};

/// The field manager of all that the controller writes (`managedFields[].manager`).
pub const FIELD_MANAGER: &str = "arpeggio-controller";

/// The type of the condition that says whether a Service has its addresses.
pub const ADDRESS_ALLOCATED: &str = "arpeggio.dev/AddressAllocated";

/// The type of the condition that says which addresses no pool allows any more. Its message begins with them.
pub const ADDRESS_EXPIRING: &str = "arpeggio.dev/AddressExpiring";

/// The type of the condition that says which addresses are claimed for the Service and about to be given back. Its
/// message begins with them. None of them is written in the Service's status as long as it stands.
pub const ADDRESS_RELEASING: &str = "arpeggio.dev/AddressReleasing";

/// The type of the condition that says at which addresses of the Service somebody else answers, so that nobody announces
/// them. Its message begins with them.
pub const ADDRESS_CONFLICT: &str = "arpeggio.dev/AddressConflict";

/// The type of the condition that says which addresses of the Service nobody announces, since no announce rule of their
/// pools is for it. Its message begins with them.
pub const ADDRESS_NOT_ANNOUNCED: &str = "arpeggio.dev/AddressNotAnnounced";

/// The type of the condition that says that another program writes the Service's status, too.
pub const STATUS_CONTESTED: &str = "arpeggio.dev/StatusContested";

/// The annotation by which the owner of a Service lets us replace a status that another load balancer has left.
pub const TAKE_OVER: &str = "arpeggio.dev/take-over";

/// The annotation with the addresses that are claimed for the Service and about to be given back, separated by commas.
const RELEASING: &str = "arpeggio.dev/releasing";

/// The type of the condition that says which nodes announce the Service's addresses.
pub const ANNOUNCED: &str = "arpeggio.dev/Announced";

/// The reason of that condition when no node announces an address on purpose: its pool says that a router has a route to it.
pub const ROUTED: &str = "Routed";

/// The type of the condition that says which nodes still have connections of the Service's addresses, which others announce
/// now.
pub const CONNECTIONS_LEFT: &str = "arpeggio.dev/ConnectionsLeft";

/// The type of the condition that says which of the Service's addresses one node serves, though all nodes are to, and why.
pub const NOT_SPREAD: &str = "arpeggio.dev/NotSpread";

/// The types of all conditions that we write.
pub const CONDITIONS: [&str; 9] = [
    ADDRESS_ALLOCATED,
    ADDRESS_EXPIRING,
    ADDRESS_RELEASING,
    ADDRESS_CONFLICT,
    ADDRESS_NOT_ANNOUNCED,
    STATUS_CONTESTED,
    ANNOUNCED,
    CONNECTIONS_LEFT,
    NOT_SPREAD,
];

/// How packets for an address arrive (`ingress[].ipMode`): with the address as destination, for kube-proxy to handle.
/// The API server writes the same where nothing is said.
const IP_MODE: &str = "VIP";

/// A Service, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRecord {
    /// Which Service it is.
    pub service: ServiceRef,
    /// `metadata.resourceVersion`, as the number that it is; 0 when it is none.
    pub version: u64,
    /// Whether it is of type `LoadBalancer`, for us or for somebody else.
    pub is_load_balancer: bool,
    /// Whether traffic must not leave the node that it comes to (`spec.externalTrafficPolicy: Local`).
    pub is_local: bool,
    /// Which nodes are to serve its addresses, if it says so, or why that cannot be understood.
    pub spread: Result<Option<Spread>, RequestError>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Time>,
    /// Since when it is being deleted (`metadata.deletionTimestamp`).
    pub deleting_since: Option<Time>,
    /// What keeps it from being gone (`metadata.finalizers`).
    pub finalizers: Vec<String>,
    /// Whether a status that another load balancer has left may be replaced.
    pub takes_over: bool,
    /// The addresses that are claimed for it and that it is not going to get. None of them is written in its status as
    /// long as it renounces them.
    pub renounced: Vec<IpAddr>,
    /// The field manager other than we that wrote so: only a value of ours can take its place.
    foreign_renouncer: Option<String>,
    /// The field manager other than we that has changed it last, as far as the API server knows (`metadata.managedFields`).
    pub last_writer: Option<String>,
    /// Who asks, without the labels of its namespace: what the rules of pools look at, whatever it asks for.
    pub requester: Requester,
    /// On which terms it shares its addresses, whatever it asks for; `None`: with nobody.
    pub sharing: Option<Sharing>,
    /// What it asks us for, or why that cannot be understood; `None` when it is not for us.
    pub request: Option<Result<Request, RequestError>>,
    /// What it has.
    pub ingress: Ingress,
    /// The conditions that we have written so far.
    pub conditions: Vec<Condition>,
    /// The types of those of ours that another field manager has written, too: what we leave out of them stays.
    pub held_conditions: Vec<&'static str>,
}

/// What `status.loadBalancer.ingress` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether there are entries that are not addresses, which we never write.
    pub has_others: bool,
    /// Whether an address has an `ipMode` or a form that we never write, or is listed twice.
    pub is_written_otherwise: bool,
    /// The field managers of the list. It is of one piece: the last one to change it is alone.
    pub managers: Vec<String>,
    /// The field managers other than we that have written anything of the status, the last one first.
    pub other_writers: Vec<String>,
}

impl ServiceRecord {
    /// Reads a Service. It is for us when it is of type `LoadBalancer` and its `loadBalancerClass` is `class`; without
    /// a `class`, when it has none.
    pub fn parse(service: &Service, class: Option<&str>) -> Self {
        let metadata = &service.metadata;
        let version = metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
        let status = service.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        Self {
            service: reference(service),
            version: version.unwrap_or_default(),
            is_load_balancer: is_load_balancer(service),
            is_local: service.spec.as_ref().is_some_and(is_local),
            spread: request::spread(service),
            created: metadata.creation_timestamp.clone(),
            deleting_since: metadata.deletion_timestamp.clone(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            takes_over: annotation(service, TAKE_OVER)
                .is_some_and(|it| it.trim().eq_ignore_ascii_case("true")),
            renounced: addresses(annotation(service, RELEASING).unwrap_or_default()),
            foreign_renouncer: managers(fields(service), RELEASING_FIELD)
                .into_iter()
                .find(|manager| manager != FIELD_MANAGER),
            last_writer: other_writers(service, |_| true).into_iter().next(),
            requester: request::requester(service),
            sharing: service.spec.as_ref().and_then(|spec| request::sharing(service, spec)),
            request: request(service, class),
            ingress: Ingress::parse(service),
            conditions: CONDITIONS
                .iter()
                .filter_map(|type_| condition::of_type(conditions.unwrap_or_default(), type_))
                .cloned()
                .collect(),
            held_conditions: CONDITIONS
                .into_iter()
                .filter(|type_| is_held(fields(service), type_))
                .collect(),
        }
    }

    /// `NAMESPACE/NAME`, for people.
    pub fn path(&self) -> String {
        format!("{}/{}", self.service.namespace, self.service.name)
    }

    /// What its condition of this type says so far.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition::of_type(&self.conditions, type_)
    }

    /// How events refer to it.
    pub fn object_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(self.service.namespace.clone()),
            name: Some(self.service.name.clone()),
            uid: Some(self.service.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// The server-side apply of all that we have to say in this Service's status. What an earlier one said and this one
    /// does not is removed. It is refused with 409 when the Service has changed since it was read, whatever of it has: another
    /// controller may have read what it was in between, and have given the address back.
    ///
    /// Without `addresses` the list is left to whoever else wrote it; ours is removed. With them, even if there are none,
    /// they take the place of what anybody wrote.
    ///
    /// `releasing` is what [`Self::renounced`] reads: it is an annotation, since a status has no place for it, and is
    /// written with the status, so that both hold from the same version on.
    pub fn status_patch(
        &self,
        addresses: Option<&[IpAddr]>,
        conditions: &[Condition],
        releasing: &[IpAddr],
    ) -> Value {
        let mut status = json!({});
        if let Some(addresses) = addresses {
            let ingress = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": IP_MODE }));
            status["loadBalancer"] = json!({ "ingress": ingress.collect::<Vec<_>>() });
        }
        if !conditions.is_empty() {
            status["conditions"] = json!(conditions);
        }
        let mut annotations = releasing_annotation(releasing);
        if self.foreign_renouncer.is_some() {
            annotations.entry(RELEASING.to_owned()).or_default();
        }
        json!({
            "apiVersion": Service::api_version(&()),
            "kind": Service::kind(&()),
            "metadata": {
                "name": self.service.name,
                "namespace": self.service.namespace,
                "uid": self.service.uid,
                "resourceVersion": self.version.to_string(),
                "annotations": annotations,
            },
            "status": status,
        })
    }
}

/// The annotations that say that these addresses are renounced.
pub fn releasing_annotation(releasing: &[IpAddr]) -> BTreeMap<String, String> {
    let text = releasing.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    (!text.is_empty()).then(|| (RELEASING.to_owned(), text)).into_iter().collect()
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// What is an address in a list that is separated by commas.
fn addresses(list: &str) -> Vec<IpAddr> {
    list.split(',').filter_map(|item| item.trim().parse().ok()).collect()
}

/// Which Service this is.
pub fn reference(service: &Service) -> ServiceRef {
    reference_of(&service.metadata)
}

/// Which Service this is the metadata of.
pub fn reference_of(metadata: &ObjectMeta) -> ServiceRef {
    ServiceRef {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

fn request(service: &Service, class: Option<&str>) -> Option<Result<Request, RequestError>> {
    let spec = service.spec.as_ref()?;
    let is_ours = is_load_balancer(service) && spec.load_balancer_class.as_deref() == class;
    is_ours.then(|| request::parse(service, spec))
}

/// Whether traffic must not leave the node that it comes to.
pub(crate) fn is_local(spec: &ServiceSpec) -> bool {
    spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether it is of type `LoadBalancer`, whoever serves it.
pub fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

impl Ingress {
    fn parse(service: &Service) -> Self {
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let entries = balancer.and_then(|it| it.ingress.as_deref()).unwrap_or_default();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in entries.iter().filter_map(address) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let has_others = entries.iter().any(|entry| address(entry).is_none());
        let is_written_otherwise = |it: &LoadBalancerIngress| {
            written_address(it) != address(it)
                || it.ip_mode.as_deref().is_some_and(|mode| mode != IP_MODE)
        };
        Self {
            has_others,
            is_written_otherwise: entries.iter().any(is_written_otherwise)
                || (!has_others && addresses.len() < entries.len()),
            addresses,
            managers: managers(fields(service), INGRESS_FIELD),
            other_writers: other_writers(service, of_status),
        }
    }

    /// Whether the controller wrote the list, and nobody has changed it since.
    pub fn is_ours(&self) -> bool {
        self.managers.iter().any(|manager| manager == FIELD_MANAGER)
    }

    /// Who wrote the list, for people.
    pub fn writers(&self) -> String {
        match self.managers.as_slice() {
            [] => "an unknown program".to_owned(),
            managers => managers.join(", "),
        }
    }

    /// Whether it says what we would write for these addresses.
    pub fn says(&self, addresses: &[IpAddr]) -> bool {
        self.addresses == addresses && !self.has_others && !self.is_written_otherwise
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && !self.has_others
    }
}

/// Whether it is about what was written of the status (`managedFields[].subresource`).
fn of_status(entry: &ManagedFieldsEntry) -> bool {
    entry.subresource.as_deref() == Some("status")
}

/// Who else writes that of which these `entries` are, the last one first.
fn other_writers(service: &Service, which: impl Fn(&ManagedFieldsEntry) -> bool) -> Vec<String> {
    let mut entries: Vec<_> = fields(service).iter().filter(|entry| which(entry)).collect();
    entries.sort_by_key(|entry| Reverse(entry.time.as_ref().map(|time| time.0)));
    let names = entries.into_iter().filter_map(|entry| entry.manager.clone());
    names.filter(|name| name != FIELD_MANAGER).collect()
}

fn address(entry: &LoadBalancerIngress) -> Option<IpAddr> {
    // The API server takes more than one form of an address.
    one_address(entry.ip.as_deref()?)
}

fn written_address(entry: &LoadBalancerIngress) -> Option<IpAddr> {
    entry.ip.as_deref()?.parse().ok()
}

/// `status.loadBalancer.ingress`, as server-side apply names it (`fieldsV1`).
const INGRESS_FIELD: &str = "/f:status/f:loadBalancer/f:ingress";

/// The annotation [`RELEASING`], as server-side apply names it.
const RELEASING_FIELD: &str = "/f:metadata/f:annotations/f:arpeggio.dev~1releasing";

fn fields(service: &Service) -> &[ManagedFieldsEntry] {
    service.metadata.managed_fields.as_deref().unwrap_or_default()
}

/// Who manages this field.
fn managers(entries: &[ManagedFieldsEntry], field: &str) -> Vec<String> {
    let manages = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(field).is_some())
    };
    entries.iter().filter(manages).filter_map(|entry| entry.manager.clone()).collect()
}

/// Whether another field manager than we has written of the condition of this type.
fn is_held(entries: &[ManagedFieldsEntry], type_: &str) -> bool {
    // As server-side apply names an item of a list by its key.
    let key = format!("k:{}", json!({ "type": type_ }));
    let of_others = entries.iter().filter(|it| it.manager.as_deref() != Some(FIELD_MANAGER));
    let mut conditions =
        of_others.filter_map(|it| it.fields_v1.as_ref()?.0.pointer("/f:status/f:conditions"));
    // Who has changed a field of it only does not hold the item.
    conditions.any(|it| it.get(&key).is_some_and(|item| item.get(".").is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(changes: &Value) -> Service {
        let mut service = json!({
            "metadata": {
                "namespace": "default", "name": "web", "uid": "6f0c", "resourceVersion": "7",
            },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack" },
        });
        for (pointer, value) in changes.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            service.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn parse(changes: &Value) -> ServiceRecord {
        ServiceRecord::parse(&service(changes), None)
    }

    #[test]
    fn only_load_balancers_of_our_class_are_ours() {
        let table = [
            (json!({}), None, true),
            (json!({ "/spec/type": "ClusterIP" }), None, false),
            (json!({ "/spec/loadBalancerClass": "other" }), None, false),
            (json!({ "/spec/loadBalancerClass": "home" }), Some("home"), true),
            (json!({ "/spec/loadBalancerClass": "other" }), Some("home"), false),
            (json!({}), Some("home"), false),
        ];
        for (changes, class, ours) in table {
            let record = ServiceRecord::parse(&service(&changes), class);
            assert_eq!(record.request.is_some(), ours, "{changes} with class {class:?}");
        }
    }

    #[test]
    fn the_mode_of_an_address_counts() {
        let ingress = |entry: Value| {
            parse(&json!({ "/status": { "loadBalancer": { "ingress": [entry] } } })).ingress
        };
        let address = ["10.0.0.1".parse().unwrap()];
        let table = [
            (json!({ "ip": "10.0.0.1", "ipMode": "VIP" }), true),
            (json!({ "ip": "10.0.0.1" }), true),
            (json!({ "ip": "10.0.0.1", "ipMode": "Proxy" }), false),
            (json!({ "ip": "10.0.0.2", "ipMode": "VIP" }), false),
            (json!({ "ip": "::ffff:10.0.0.1", "ipMode": "VIP" }), false),
            (json!({ "hostname": "a.example" }), false),
        ];
        for (entry, same) in table {
            assert_eq!(ingress(entry.clone()).says(&address), same, "{entry}");
        }
        for written in ["::ffff:10.0.0.1", "010.000.0.01"] {
            let ingress = ingress(json!({ "ip": written, "ipMode": "VIP" }));
            assert_eq!((ingress.addresses.as_slice(), ingress.has_others), (&address[..], false));
            assert!(ingress.is_written_otherwise, "{written}");
        }
    }

    #[test]
    fn what_others_wrote_is_told_from_what_we_wrote() {
        let fields = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
        let entry = |manager: &str| json!([{ "manager": manager, "fieldsV1": fields }]);
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } });
        let record = parse(&json!({ "/status": status, "/metadata/managedFields": entry("x") }));
        assert_eq!(record.ingress.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((record.ingress.is_ours(), record.ingress.has_others), (false, false));

        let status = json!({ "loadBalancer": { "ingress": [{ "hostname": "a.example" }] } });
        let changes = json!({ "/status": status, "/metadata/managedFields": entry(FIELD_MANAGER) });
        let record = parse(&changes);
        assert_eq!((record.ingress.is_ours(), record.ingress.has_others), (true, true));
    }

    #[test]
    fn what_is_renounced_is_written_with_the_status_and_read_back() {
        let renounced: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let patch = parse(&json!({})).status_patch(None, &[], &renounced);
        let annotations = patch["metadata"]["annotations"].clone();
        let record = parse(&json!({ "/metadata/annotations": annotations }));
        assert_eq!(record.renounced, renounced);
        assert_eq!(record.status_patch(None, &[], &[])["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn what_a_user_renounces_by_hand_is_overwritten_since_it_cannot_be_removed() {
        let fields =
            json!({ "f:metadata": { "f:annotations": { "f:arpeggio.dev/releasing": {} } } });
        let record = parse(&json!({
            "/metadata/annotations": { RELEASING: "10.0.0.1" },
            "/metadata/managedFields": [{ "manager": "kubectl-edit", "fieldsV1": fields }],
        }));
        let patch = record.status_patch(None, &[], &[]);
        assert_eq!(patch["metadata"]["annotations"], json!({ RELEASING: "" }));
    }

    #[test]
    fn who_else_writes_the_status_is_known_the_last_one_first() {
        let entry = |manager: &str, subresource: &str, time: &str| json!({ "manager": manager, "subresource": subresource, "time": time });
        let record = parse(&json!({ "/metadata/managedFields": [
            entry("kubectl", "", "2026-01-01T00:00:09Z"),
            entry("controller", "status", "2026-01-01T00:00:01Z"),
            entry(FIELD_MANAGER, "status", "2026-01-01T00:00:03Z"),
            entry("cilium-operator", "status", "2026-01-01T00:00:02Z"),
        ]}));
        assert_eq!(record.ingress.other_writers, ["cilium-operator", "controller"]);
        assert_eq!(record.last_writer.as_deref(), Some("kubectl"));
    }

    #[test]
    fn the_patch_says_what_it_is_for_and_leaves_out_what_is_not_ours() {
        let record = parse(&json!({}));
        let patch = record.status_patch(Some(&["10.0.0.1".parse().unwrap()]), &[], &[]);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let expected =
            json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "VIP" }] } });
        assert_eq!(patch["status"], expected);
        assert_eq!(record.status_patch(None, &[], &[])["status"], json!({}));
        let nobody_s = json!({ "loadBalancer": { "ingress": [] } });
        assert_eq!(record.status_patch(Some(&[]), &[], &[])["status"], nobody_s);
    }
}
