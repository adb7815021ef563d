//! A page of `docs/setups` in a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arpeggio_lab::{Machine, observe::longest_silence, web::NGINX_IMAGE};
use arpeggio_scenarios::{Home, OAUTH2_PROXY_IMAGE, TRAEFIK_IMAGE};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use serde_json::json;

use super::Url;

/// How long the pods of a Deployment may take to be ready.
const ROLLOUT: Duration = Duration::from_secs(90);

/// What the pages' pods run, and what they run here.
const IMAGES: [(&str, &str); 3] = [
    ("nginx", NGINX_IMAGE),
    ("traefik:v3.7", TRAEFIK_IMAGE),
    ("quay.io/oauth2-proxy/oauth2-proxy:v7.15.6", OAUTH2_PROXY_IMAGE),
];

/// A file of a page with an image of the lab in the place of one that it names; `None` where it names another one.
pub(crate) fn with_image(text: &str, image: &str, here: &str) -> Option<String> {
    let named = format!("image: {image}\n");
    let local = format!("image: {here}\n        imagePullPolicy: Never\n");
    text.contains(&named).then(|| text.replace(&named, &local))
}

/// A page of `docs/setups`, and a folder for what is made by hand.
pub(crate) struct Setup<'a> {
    pub(crate) home: &'a Home,
    pub(crate) page: PathBuf,
    pub(crate) folder: PathBuf,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(home: &'a Home, name: &str) -> anyhow::Result<Self> {
        let setups = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/setups");
        let folder = home.lab.folders().kubeconfig().with_file_name(name);
        fs::create_dir_all(&folder)?;
        Ok(Self { home, page: setups.join(name), folder })
    }

    /// A file that was made by hand.
    pub(super) fn text_of(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.page.join(name).to_string_lossy().into_owned()
    }

    /// Applies a file of the page, with the lab's images.
    pub(crate) fn apply(&self, name: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.page.join(name))?;
        let text = IMAGES
            .into_iter()
            .fold(text, |text, (image, here)| with_image(&text, image, here).unwrap_or(text));
        self.home.lab.apply(&text)?;
        Ok(())
    }

    /// Applies a file of the page that names this image, with one of the lab's.
    pub(crate) fn apply_with(&self, name: &str, image: &str, here: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.page.join(name))?;
        let text = with_image(&text, image, here);
        self.home.lab.apply(&text.with_context(|| format!("{name} has another image"))?)?;
        Ok(())
    }

    /// An authority that clients trust, and a certificate of its for all of these names.
    pub(crate) fn write_certificate(&self, names: &[&str]) -> anyhow::Result<()> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name = DistinguishedName::new();
        authority.distinguished_name.push(DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        fs::write(self.folder.join("ca.crt"), authority.self_signed(&authority_key)?.pem())?;
        let authority = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        fs::write(self.folder.join("tls.crt"), certificate.pem())?;
        fs::write(self.folder.join("tls.key"), key.serialize_pem())?;
        Ok(())
    }

    /// Makes a Secret of the certificate.
    pub(crate) fn create_secret(&self, name: &str) -> anyhow::Result<()> {
        let certificate = format!("--cert={}", self.text_of("tls.crt"));
        let key = format!("--key={}", self.text_of("tls.key"));
        self.home.lab.kubectl(&["create", "secret", "tls", name, &certificate, &key])?;
        Ok(())
    }

    pub(crate) fn wait_for_rollout(&self, deployment: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{deployment}");
        Ok(self.home.lab.wait_for_rollout("default", &deployment, ROLLOUT)?)
    }

    /// Lets the pods of a Deployment find a Service by its name: the lab's cluster has no DNS.
    pub(super) fn know_by_name(&self, deployment: &str, service: &str) -> anyhow::Result<()> {
        let cluster_ip = &self.home.lab.get(&["service", service])?["spec"]["clusterIP"];
        let names = [format!("{service}.default.svc.cluster.local")];
        let aliases = json!([{ "ip": cluster_ip, "hostnames": names }]);
        let patch = json!({ "spec": { "template": { "spec": { "hostAliases": aliases } } } });
        let patch = patch.to_string();
        self.home.lab.kubectl(&[
            "patch",
            "deployment",
            deployment,
            "--type=merge",
            "-p",
            &patch,
        ])?;
        Ok(())
    }

    /// What a client on the internet gets.
    pub(super) fn curl(&self, url: Url, args: &[&str]) -> anyhow::Result<String> {
        let resolved = url.resolved();
        let page = format!("{}://{}:{}/", url.scheme, url.name, url.at.port());
        let authority = self.text_of("ca.crt");
        // Shorter than the second after which a lost SYN is sent again: a request that needed that has failed.
        let common = ["--silent", "--show-error", "--max-time", "0.6", "--cacert", &authority];
        let args = [&common, args, &["--resolve", &resolved, &page]].concat();
        Ok(self.home.lab.namespace(Machine::Internet).run("curl", &args)?)
    }

    pub(crate) fn wait_for_page(&self, url: Url, words: &str) -> anyhow::Result<()> {
        self.home.wait_until(&format!("{url:?} says: {words}"), || match self.curl(url, &[])? {
            said if said.contains(words) => Ok(()),
            said => Err(said.into()),
        })
    }

    /// How long a client on the internet gets no answer at each of these when a node loses its power.
    pub(crate) fn outages_by_power_cut(
        &self,
        node: Machine,
        urls: &[Url],
    ) -> anyhow::Result<Vec<Duration>> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(8);
        let answers_at = |url| {
            let asked = std::iter::from_fn(|| (Instant::now() < end).then(|| self.curl(url, &[])));
            asked.filter_map(|answer| answer.is_ok().then(Instant::now)).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let clients = urls.iter().map(|url| scope.spawn(move || answers_at(*url)));
            let clients: Vec<_> = clients.collect();
            thread::sleep(Duration::from_secs(2));
            self.home.lab.power_off(node)?;
            let outage = |answers: Vec<Instant>| longest_silence(answers, begin, end).length();
            let joined = clients.into_iter().map(|client| client.join().map(outage).ok());
            joined.collect::<Option<_>>().context("a client has panicked")
        })
    }
}
