//! Whole set-ups, as their pages in `docs/setups` describe them, with the programs that people have there.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    network::{INTERNET_V4, ROUTER_WAN_V4},
    observe::longest_silence,
    web::NGINX_IMAGE,
};
use arpeggio_scenarios::{
    Home, HostProcess, OAUTH2_PROXY_IMAGE, Prometheus, TRAEFIK_IMAGE, eprint_line, first_address,
    oauth2_proxy_image, service,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};

/// A busy test machine may take longer than the eighth of a second; a session lasts ten.
pub(crate) const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

/// How long the pods of a Deployment may take to be ready.
const ROLLOUT: Duration = Duration::from_secs(90);

/// What the pages' pods run, and what they run here.
const IMAGES: [(&str, &str); 3] = [
    ("nginx", NGINX_IMAGE),
    ("traefik:v3.7", TRAEFIK_IMAGE),
    ("quay.io/oauth2-proxy/oauth2-proxy:v7.15.6", OAUTH2_PROXY_IMAGE),
];

/// The other machine on the LAN that serves something.
pub(crate) const OTHER: Machine = Machine::Host(1);

/// The address of the host on the internet.
const INTERNET_V6: &str = "2001:db8::2";

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 3);

/// The names that the router sends to the cluster, one that only the LAN knows, and one of the other machine.
const NAMES: [&str; 4] =
    ["app1.k8s.example.com", "app2.k8s.example.com", "grafana.k8s.example.com", "nas.example.com"];

/// The name behind the port forward.
const APP: &str = "app.home.example.com";

/// Who says it, in the pages of `docs/setups/haproxy`.
const CLUSTER: &str = "the cluster";
const OTHERS: &str = "the other machine";

/// What a machine that is no node answers.
const NAS: &str = "
daemon off;
error_log stderr;
pid FOLDER/nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen 80;
    listen 443 ssl;
    ssl_certificate FOLDER/tls.crt;
    ssl_certificate_key FOLDER/tls.key;
    location / { return 200 \"the other machine says: $ssl_server_name\\n\"; }
  }
}
";

/// `docs/setups/haproxy.md`.
pub(crate) fn haproxy_sends_the_clusters_names_to_one_address(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "haproxy")?;
    page.write_certificate(&NAMES)?;
    home.lab.import(&[oauth2_proxy_image()?])?;
    page.apply("pools.yaml")?;
    page.create_secret("ingress")?;
    let authority = format!("--from-file={}", page.text_of("ca.crt"));
    home.lab.kubectl(&["create", "configmap", "authority", &authority])?;
    page.create_users()?;
    page.apply("oauth2-proxy.yaml")?;
    page.apply("ingress.yaml")?;
    page.know_by_name("ingress", "oauth2-proxy")?;
    page.apply("services.yaml")?;
    ensure!(home.wait_for_address("external")? == EXTERNAL, "the address of pool external");
    ensure!(home.wait_for_address("internal")?.to_string() == "192.168.0.5", "of pool internal");
    for deployment in ["oauth2-proxy", "ingress"] {
        page.wait_for_rollout(deployment)?;
    }
    let _programs = page.start_router_and_neighbour()?;
    let prometheus = Prometheus::start(home)?;

    let [app1, app2, grafana, nas] = NAMES;
    for (name, who) in [(app1, CLUSTER), (app2, CLUSTER), (grafana, OTHERS), (nas, OTHERS)] {
        page.wait_for(Place::Internet, name, &format!("{who} says: {name}"))?;
    }
    for name in [app1, app2, grafana] {
        page.wait_for(Place::Lan, name, &format!("{CLUSTER} says: {name}"))?;
    }

    page.signs_in(app1, app2)?;
    page.a_pod_has_asked_the_router_for(app2)?;

    wait_for_alerts(home, &prometheus, &[])?;
    home.apply(&service("third", "metallb.universe.tf/address-pool", "external"))?;
    let refusal = home.wait_for_event("third", "AllocationFailed")?;
    ensure!(refusal.note.contains("external"), "the full pool is named: {refusal:?}");
    let why = home.arpeggio(&["explain", "service", "third"])?;
    ensure!(why.contains("external"), "{why}");
    wait_for_alerts(home, &prometheus, &["ArpeggioServiceWithoutAddress"])?;
    home.lab.kubectl(&["delete", "service", "third"])?;

    let owner = home.wait_for_owner(EXTERNAL)?;
    home.keep_pods_off("ingress", owner)?;
    page.wait_for(Place::Internet, app1, CLUSTER)?;
    let url = Url::https(app1, ROUTER_WAN_V4.parse()?);
    let (outage, download) = thread::scope(|scope| {
        let download = scope.spawn(|| page.download(url));
        (page.outages_by_power_cut(owner, &[url]), download.join())
    });
    let outage = outage?[0];
    let breaks = download.ok().context("the download has panicked")??;
    eprint_line(&format!(
        "a-haproxy: the client on the internet was without an answer for {outage:?}, and a download broke {breaks} times"
    ));
    ensure!(breaks > 0, "the download has not met the power cut");
    ensure!(outage < LONGEST_OUTAGE, "the client was without an answer for {outage:?}");
    ensure!(home.wait_for_owner(EXTERNAL)? != owner, "{owner} has no power");
    Ok(())
}

/// `docs/setups/fritzbox.md`.
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

/// `docs/setups/client-addresses.md`.
pub(crate) fn pods_see_whom_the_policy_says(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "client-addresses")?;
    home.add_pool()?;
    home.lab.network().add_hosts(1..=1)?;
    page.apply("web.yaml")?;
    page.apply("service.yaml")?;
    page.wait_for_rollout("whoami")?;
    ensure!(home.wait_for_address("whoami")? == first_address(), "the first address");

    let client = Machine::Client.lan_v4().context("the client has an address")?.to_string();
    let answer = page.wait_for_answer(Machine::Client, "a page", |_, _| true)?;
    ensure!(answer.1 != client, "the policy Cluster hides the client: {answer:?}");
    home.wait_until("both pods answer", || match page.pods_that_answer()? {
        pods if pods.len() == 2 => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })?;

    patch(page.home, "whoami", &json!({ "sessionAffinity": "ClientIP" }))?;
    home.wait_until("one pod answers", || match page.pods_that_answer()? {
        pods if pods.len() == 1 => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })?;
    patch(page.home, "whoami", &json!({ "sessionAffinity": "None" }))?;

    home.lab.kubectl(&["scale", "deployment/whoami", "--replicas=1"])?;
    patch(page.home, "whoami", &json!({ "externalTrafficPolicy": "Local" }))?;
    page.wait_for_answer(Machine::Client, "the client is seen", |_, seen| seen == client)?;
    page.health_says_where_the_pod_is()?;

    patch(page.home, "whoami", &json!({ "loadBalancerSourceRanges": [format!("{client}/32")] }))?;
    home.wait_until("another machine gets no answer", || match page.answer_to(OTHER) {
        Ok(answer) => Err(format!("{answer:?}").into()),
        Err(_) => Ok(()),
    })?;
    page.wait_for_answer(Machine::Client, "the client is let in", |_, seen| seen == client)?;
    patch(page.home, "whoami", &json!({ "loadBalancerSourceRanges": null }))?;
    page.wait_for_answer(OTHER, "everybody is let in", |_, _| true)?;
    Ok(())
}

/// Waits until everything of Arpeggio is scraped, and exactly these alerts fire.
fn wait_for_alerts(
    home: &Home,
    prometheus: &Prometheus<'_>,
    expected: &[&str],
) -> anyhow::Result<()> {
    home.wait_until(&format!("Prometheus scrapes two of each, and says {expected:?}"), || {
        let up = prometheus.query("sum by (job) (up)")?;
        let firing = prometheus.firing()?;
        let scraped = up.len() == 2 && up.iter().all(|sample| sample.value >= 2.0);
        let right = scraped && firing == expected;
        if right { Ok(()) } else { Err(format!("{up:?}, {firing:?}").into()) }
    })
}

/// Where somebody asks from.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Where names mean the router.
    Internet,
    /// Where the router's DNS says what names mean.
    Lan,
}

/// A page, and where a client on the internet finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Url {
    scheme: &'static str,
    name: &'static str,
    at: SocketAddr,
}

impl Url {
    pub(crate) fn http(name: &'static str, at: IpAddr) -> Self {
        Self::http_on_port(80, name, at)
    }

    pub(crate) fn http_on_port(port: u16, name: &'static str, at: IpAddr) -> Self {
        Self { scheme: "http", name, at: SocketAddr::new(at, port) }
    }

    pub(crate) fn https(name: &'static str, at: IpAddr) -> Self {
        Self { scheme: "https", name, at: SocketAddr::new(at, 443) }
    }

    /// What curl's `--resolve` wants, to find it without DNS.
    fn resolved(self) -> String {
        format!("{}:{}:{}", self.name, self.at.port(), self.at.ip())
    }
}

/// A file of a page with an image of the lab in the place of one that it names; `None` where it names another one.
pub(crate) fn with_image(text: &str, image: &str, here: &str) -> Option<String> {
    let named = format!("image: {image}\n");
    let local = format!("image: {here}\n        imagePullPolicy: Never\n");
    text.contains(&named).then(|| text.replace(&named, &local))
}

/// Changes a Service.
pub(crate) fn patch(home: &Home, service: &str, spec: &Value) -> anyhow::Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    home.lab.kubectl(&["patch", "service", service, "--type=merge", "-p", &patch])?;
    Ok(())
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
    fn text_of(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn file(&self, name: &str) -> String {
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

    /// The pod that answers a machine, and whom it sees.
    fn answer_to(&self, machine: Machine) -> anyhow::Result<(String, String)> {
        let url = format!("http://{}/", first_address());
        let args = ["--silent", "--show-error", "--max-time", "1", &url];
        let said = self.home.lab.namespace(machine).run("curl", &args)?;
        let (pod, seen) = said.trim_end().split_once(" sees ").context("another page")?;
        Ok((pod.to_owned(), seen.to_owned()))
    }

    fn wait_for_answer(
        &self,
        machine: Machine,
        what: &str,
        is_it: impl Fn(&str, &str) -> bool,
    ) -> anyhow::Result<(String, String)> {
        self.home.wait_until(what, || match self.answer_to(machine)? {
            (pod, seen) if is_it(&pod, &seen) => Ok((pod, seen)),
            other => Err(format!("{other:?}").into()),
        })
    }

    /// Those that answer the client in a row; of two, one is missed once in a million times.
    fn pods_that_answer(&self) -> anyhow::Result<BTreeSet<String>> {
        (0..20).map(|_| Ok(self.answer_to(Machine::Client)?.0)).collect()
    }

    /// Asks kube-proxy on each node, as a load balancer before the nodes would.
    fn health_says_where_the_pod_is(&self) -> anyhow::Result<()> {
        let service = self.home.lab.get(&["service", "whoami"])?;
        let port = service["spec"]["healthCheckNodePort"].as_u64().context("no health port")?;
        let pods = self.home.lab.get(&["pods", "-lapp=whoami"])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let lives = |pod: &&Value| !pod["metadata"]["deletionTimestamp"].is_string();
        let node = pods.filter(lives).find_map(|pod| pod["spec"]["nodeName"].as_str());
        let node = node.context("no pod runs")?.to_owned();
        for machine in self.home.lab.options().node_machines() {
            let address = machine.lan_v4().context("a node has an address")?;
            let url = format!("http://{address}:{port}/healthz");
            let args = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
            let expected = if machine.to_string() == node { "200" } else { "503" };
            self.home.wait_until(&format!("{machine} says {expected}"), || {
                let client = self.home.lab.namespace(Machine::Client);
                match client.run("curl", &args).map_err(anyhow::Error::from)? {
                    code if code == expected => Ok(()),
                    code => Err(code.into()),
                }
            })?;
        }
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

    fn start_router_and_neighbour(&self) -> anyhow::Result<[HostProcess; 3]> {
        let lab = &self.home.lab;
        let nas = self.start_neighbour()?;
        fs::write(self.folder.join("resolv.conf"), "nameserver 192.168.0.1\n")?;
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-db", "-f", &self.file("haproxy.cfg")]);
        let mut dnsmasq = Command::new("dnsmasq");
        let config = format!("--conf-file={}", self.file("dnsmasq.conf"));
        dnsmasq.args(["--keep-in-foreground", "--user=root", "--pid-file=", "--interface=lan"]);
        dnsmasq.args(["--bind-interfaces", "--log-queries", "--log-facility=-", &config]);
        Ok([
            nas,
            HostProcess::start_on(lab, Machine::Router, "haproxy", &mut haproxy)?,
            HostProcess::start_on(lab, Machine::Router, "dnsmasq", &mut dnsmasq)?,
        ])
    }

    /// A machine on the LAN that is no node, and serves pages, too.
    pub(crate) fn start_neighbour(&self) -> anyhow::Result<HostProcess> {
        self.home.lab.network().add_hosts(1..=1)?;
        let folder = self.folder.to_string_lossy();
        fs::write(self.folder.join("nas.conf"), NAS.replace("FOLDER", &folder))?;
        let mut nas = Command::new("nginx");
        nas.args(["-e", "stderr", "-c", &self.text_of("nas.conf")]);
        HostProcess::start_on(&self.home.lab, OTHER, "nas", &mut nas)
    }

    /// Who may sign in, and what OAuth2 Proxy wants to be told.
    fn create_users(&self) -> anyhow::Result<()> {
        let users = format!("--from-file={}", self.file("htpasswd"));
        self.home.lab.kubectl(&["create", "secret", "generic", "users", &users])?;
        let settings = format!("--from-env-file={}", self.file("oauth2-proxy.env"));
        self.home.lab.kubectl(&["create", "secret", "generic", "oauth2-proxy", &settings])?;
        Ok(())
    }

    /// Somebody on the internet wants to see a private page of `app`, and comes back from `auth` with a cookie.
    fn signs_in(&self, app: &'static str, auth: &'static str) -> anyhow::Result<()> {
        let private = format!("https://{app}/private/");
        let sign_in = format!("https://{auth}/oauth2/sign_in?rd={private}");
        let head = ["--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}"];
        let led = format!("302 {sign_in}");
        self.home.wait_until("who has not signed in is led to where one does", || {
            match self.browse(app, auth, &[&head[..], &[private.as_str()]].concat())? {
                answer if answer == led => Ok(()),
                answer => Err(answer.into()),
            }
        })?;
        let rd = format!("rd={private}");
        let form = ["--data", "username=alice", "--data-urlencode", &rd, "--data"];
        let wrong = [&head[..], &form, &["password=rabbit", &sign_in]].concat();
        let answer = self.browse(app, auth, &wrong)?;
        ensure!(answer.starts_with("401"), "a wrong password: {answer}");
        let cookies = self.text_of("cookies");
        let follow = ["--location", "--cookie-jar", &cookies];
        let right = [&follow[..], &form, &["password=wonderland", &sign_in]].concat();
        let answer = self.browse(app, auth, &right)?;
        ensure!(answer == "a private page for alice\n", "after the sign-in: {answer}");
        let again = self.browse(app, auth, &["--cookie", &cookies, &private])?;
        ensure!(again == "a private page for alice\n", "with the cookie: {again}");
        Ok(())
    }

    /// By the log of the router's DNS: pods' addresses begin like this.
    fn a_pod_has_asked_the_router_for(&self, name: &str) -> anyhow::Result<()> {
        let log = fs::read_to_string(self.home.lab.folders().logs().join("dnsmasq.log"))?;
        let query = format!("query[A] {name} from 10.244.");
        ensure!(log.contains(&query), "no pod has asked for {name}: {log}");
        Ok(())
    }

    /// curl on the internet, where both names mean the router.
    fn browse(
        &self,
        app: &'static str,
        auth: &'static str,
        args: &[&str],
    ) -> anyhow::Result<String> {
        let router = ROUTER_WAN_V4.parse()?;
        let [app, auth] = [app, auth].map(|name| Url::https(name, router).resolved());
        let authority = self.text_of("ca.crt");
        let common = ["--silent", "--show-error", "--max-time", "5", "--cacert", &authority];
        let names = ["--resolve", &app, "--resolve", &auth];
        let args = [&common[..], &names, args].concat();
        Ok(self.home.lab.namespace(Machine::Internet).run("curl", &args)?)
    }

    /// What a page says, asked for by its name.
    fn fetch(&self, from: Place, name: &'static str) -> anyhow::Result<String> {
        match from {
            Place::Internet => self.curl(Url::https(name, ROUTER_WAN_V4.parse()?), &[]),
            Place::Lan => self.fetch_by_dns(name),
        }
    }

    fn fetch_by_dns(&self, name: &str) -> anyhow::Result<String> {
        // curl asks the system, and the system what this file names.
        let system = format!("mount --bind {} /etc/resolv.conf", self.text_of("resolv.conf"));
        let curl =
            format!("curl --silent --show-error --max-time 1 --cacert {}", self.text_of("ca.crt"));
        let inside = format!("{system} && exec {curl} https://{name}/");
        let client = self.home.lab.namespace(Machine::Client);
        Ok(client.run("unshare", &["--mount", "sh", "-c", &inside])?)
    }

    fn wait_for(&self, from: Place, name: &'static str, words: &str) -> anyhow::Result<()> {
        let what = format!("{name} from {from:?} says: {words}");
        self.home.wait_until(&what, || match self.fetch(from, name)? {
            said if said.contains(words) => Ok(()),
            said => Err(said.into()),
        })
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
    fn know_by_name(&self, deployment: &str, service: &str) -> anyhow::Result<()> {
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
    fn curl(&self, url: Url, args: &[&str]) -> anyhow::Result<String> {
        let resolved = url.resolved();
        let page = format!("{}://{}:{}/", url.scheme, url.name, url.at.port());
        let authority = self.text_of("ca.crt");
        // Shorter than the second after which a lost SYN is sent again: a request that needed that has failed.
        let common = ["--silent", "--show-error", "--max-time", "0.6", "--cacert", &authority];
        let args = [&common, args, &["--resolve", &resolved, &page]].concat();
        Ok(self.home.lab.namespace(Machine::Internet).run("curl", &args)?)
    }

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

    /// A client on the internet downloads a file, and goes on where it was whenever nothing comes for two seconds. Returns how
    /// often that was.
    fn download(&self, url: Url) -> anyhow::Result<u32> {
        let (file, authority) = (self.text_of("download"), self.text_of("ca.crt"));
        let curl = format!(
            "curl --silent --show-error --max-time 60 --speed-limit 1 --speed-time 2 --continue-at - \
             --output {file} --cacert {authority} --resolve {} https://{}/download",
            url.resolved(),
            url.name,
        );
        let until = format!(
            "n=0; until {curl}; do n=$((n+1)); [ $n -lt 20 ] || exit 1; sleep 0.5; done; echo $n"
        );
        let breaks = self.home.lab.namespace(Machine::Internet).run("sh", &["-c", &until])?;
        let whole = fs::read(&file)? == fs::read("/usr/sbin/nginx")?;
        ensure!(whole, "the download is another file");
        Ok(breaks.trim().parse()?)
    }

    /// The status that a client on the internet gets, or why it gets none.
    fn status(&self, url: Url) -> String {
        let args = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(url, &args).unwrap_or_else(|error| error.to_string())
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
