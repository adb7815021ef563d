//! The lab's certificates: one authority, one certificate per component, and the kubeconfig files
//! that use them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::error::Result;
use crate::folders::write_file;
use crate::plan::{API_PORT, API_SERVICES, Families, Machine};

/// What a component is called by the API server (certificate's common name and organisation), and
/// what it serves as.
#[derive(Debug)]
struct Identity {
    user: String,
    group: Option<&'static str>,
    serves: Vec<SanType>,
}

/// The lab's certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// Where clients reach the API server.
    server: String,
}

impl Authority {
    /// Makes a new one for an API server on `control`.
    pub(crate) fn new(control: Machine, families: Families) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("arpeggio-lab", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let address = families.addresses_of(control).first().copied();
        let address = SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), API_PORT);
        let server = format!("https://{address}");
        Ok(Self { issuer: Issuer::new(params, key), certificate, server })
    }

    /// Writes `kube-apiserver`'s own files into `folder`.
    pub(crate) fn write_server_files(&self, folder: &Path, control: Machine) -> Result<()> {
        write_file(&folder.join("ca.crt"), &self.certificate)?;
        self.write_pair(folder, "server", &server_identity(control)?)?;
        self.write_pair(folder, "kubelet-client", &user("kube-apiserver", Some("system:masters")))?;
        let accounts = KeyPair::generate()?;
        write_file(&folder.join("accounts.key"), accounts.serialize_pem())?;
        write_file(&folder.join("accounts.pub"), accounts.public_key_pem())
    }

    /// Writes `kubelet.crt` and `kubelet.key` for serving, and the authority's certificate, into
    /// `folder`.
    pub(crate) fn write_node_files(&self, folder: &Path, node: Machine) -> Result<()> {
        write_file(&folder.join("ca.crt"), &self.certificate)?;
        let serves = [node.lan_v4().map(IpAddr::from), node.lan_v6().map(IpAddr::from)];
        let identity = Identity {
            serves: serves.into_iter().flatten().map(SanType::IpAddress).collect(),
            ..user(&node.to_string(), None)
        };
        self.write_pair(folder, "kubelet", &identity)
    }

    /// Writes a kubeconfig that has its credentials inside.
    pub(crate) fn write_kubeconfig(
        &self,
        path: &Path,
        name: &str,
        group: Option<&'static str>,
    ) -> Result<()> {
        let (certificate, key) = self.issue(&user(name, group))?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": self.server,
                "certificate-authority-data": BASE64.encode(&self.certificate),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": BASE64.encode(&certificate),
                "client-key-data": BASE64.encode(&key),
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        });
        write_file(path, config.to_string())
    }

    fn write_pair(&self, folder: &Path, file: &str, identity: &Identity) -> Result<()> {
        let (certificate, key) = self.issue(identity)?;
        write_file(&folder.join(format!("{file}.crt")), certificate)?;
        write_file(&folder.join(format!("{file}.key")), key)
    }

    /// A certificate and its key, as PEM.
    fn issue(&self, identity: &Identity) -> Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&identity.user, identity.group);
        params.subject_alt_names.clone_from(&identity.serves);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn user(name: &str, group: Option<&'static str>) -> Identity {
    Identity { user: name.to_owned(), group, serves: Vec::new() }
}

/// The API server is called by its LAN addresses, by its Service, and from beside it.
fn server_identity(control: Machine) -> Result<Identity> {
    let beside = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let addresses = Families::default().addresses_of(control).into_iter();
    let addresses = addresses.chain(API_SERVICES).chain(beside);
    let mut serves: Vec<SanType> = addresses.map(SanType::IpAddress).collect();
    for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        serves.push(SanType::DnsName(name.try_into()?));
    }
    Ok(Identity { serves, ..user("kube-apiserver", None) })
}

fn name(common: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_answers_to_its_service_address() {
        let identity = server_identity(Machine::Control).unwrap();
        for service in API_SERVICES {
            assert!(identity.serves.contains(&SanType::IpAddress(service)));
        }
        assert!(identity.serves.contains(&SanType::IpAddress("192.168.0.10".parse().unwrap())));
    }
}
