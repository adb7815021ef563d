//! Services, with what users write on them.

use arpeggio_api::service::ServiceRecord;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::object::Fields;

/// Any Service is read, and a wish that is not understood is refused with words.
pub fn check(bytes: &[u8]) {
    let record = ServiceRecord::parse(&service(&Fields::of(bytes)), None);
    if let Some(Err(error)) = &record.request {
        assert!(!error.to_string().is_empty());
    }
    assert!(record.renounced.len() <= bytes.len());
}

fn service(fields: &Fields) -> Service {
    let list = |name: &str| fields.get(name).map(|it| it.split(',').map(str::to_owned).collect());
    let spec = ServiceSpec {
        type_: Some("LoadBalancer".to_owned()),
        load_balancer_ip: fields.get("loadBalancerIP"),
        cluster_ips: list("clusterIPs"),
        ip_families: list("ipFamilies"),
        ip_family_policy: fields.get("ipFamilyPolicy"),
        external_traffic_policy: fields.get("externalTrafficPolicy"),
        ..ServiceSpec::default()
    };
    Service { metadata: fields.metadata(), spec: Some(spec), ..Service::default() }
}
