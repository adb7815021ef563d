//! The ports of a Service.

use std::collections::BTreeMap;

use arpeggio_forwarding::{Port, Protocol};
use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::QUIC;
use crate::service;

/// The values of `appProtocol` by which a UDP port says that it speaks QUIC: `https` of IANA, and what people write.
const QUIC_PROTOCOLS: [&str; 4] = ["https", "quic", "h3", "http3"];

/// What matters of a Service of type `LoadBalancer`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServicePorts {
    /// Traffic must not leave the node that it comes to.
    pub(super) is_local: bool,
    /// All connections of a client go to the same node.
    pub(super) affinity: bool,
    pub(super) ports: BTreeMap<Port, NamedPort>,
}

/// What matters of one of its ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPort {
    /// As slices call it; empty where there is only one.
    pub(super) name: String,
    pub(super) quic: bool,
}

impl ServicePorts {
    pub(super) fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref().filter(|_| service::is_load_balancer(service))?;
        Some(Self {
            is_local: service::is_local(spec),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
        })
    }
}

fn port(port: &ServicePort) -> Option<(Port, NamedPort)> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let number = Port { protocol, number: u16::try_from(port.port).ok()? };
    let says = port.app_protocol.as_deref().unwrap_or_default();
    let says_quic = QUIC_PROTOCOLS.iter().any(|it| says.eq_ignore_ascii_case(it));
    let quic = protocol == Protocol::Udp && (number == QUIC || says_quic);
    Some((number, NamedPort { name: port.name.clone().unwrap_or_default(), quic }))
}
