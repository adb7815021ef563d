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
use arpeggio_scenarios::{Home, HostProcess, eprint_line, first_address, service};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// A busy test machine may take longer than the eighth of a second; a session lasts ten.
const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

/// How long the pods of a Deployment may take to be ready.
const ROLLOUT: Duration = Duration::from_secs(90);

/// The other machine on the LAN that serves something.
const OTHER: Machine = Machine::Host(1);

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 3);

/// All names of the certificate.
const NAMES: [&str; 5] = [
    "app1.k8s.example.com",
    "app2.k8s.example.com",
    "grafana.k8s.example.com",
    "nas.example.com",
    APP,
];

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
    page.write_certificate()?;
    page.apply("pools.yaml")?;
    page.create_secret("ingress")?;
    page.apply("ingress.yaml")?;
    page.apply("services.yaml")?;
    ensure!(home.wait_for_address("external")? == EXTERNAL, "the address of pool external");
    ensure!(home.wait_for_address("internal")?.to_string() == "192.168.0.5", "of pool internal");
    page.wait_for_rollout("ingress")?;
    let _programs = page.start_router_and_neighbour()?;

    let [app1, app2, grafana, nas, _] = NAMES;
    for (name, who) in [(app1, CLUSTER), (app2, CLUSTER), (grafana, OTHERS), (nas, OTHERS)] {
        page.wait_for(Place::Internet, name, &format!("{who} says: {name}"))?;
    }
    for name in [app1, app2, grafana] {
        page.wait_for(Place::Lan, name, &format!("{CLUSTER} says: {name}"))?;
    }

    home.apply(&service("third", "metallb.universe.tf/address-pool", "external"))?;
    let refusal = home.wait_for_event("third", "AllocationFailed")?;
    ensure!(refusal.note.contains("external"), "the full pool is named: {refusal:?}");
    let why = home.arpeggio(&["explain", "service", "third"])?;
    ensure!(why.contains("external"), "{why}");
    home.lab.kubectl(&["delete", "service", "third"])?;

    let owner = home.wait_for_owner(EXTERNAL)?;
    home.keep_pods_off("ingress", owner)?;
    page.wait_for(Place::Internet, app1, CLUSTER)?;
    let url = Url { scheme: "https", name: app1, at: ROUTER_WAN_V4.parse()? };
    let [outage] = page.outages_by_power_cut(owner, [url])?;
    eprint_line(&format!(
        "a-haproxy: the client on the internet was without an answer for {outage:?}"
    ));
    ensure!(outage < LONGEST_OUTAGE, "the client was without an answer for {outage:?}");
    ensure!(home.wait_for_owner(EXTERNAL)? != owner, "{owner} has no power");
    Ok(())
}

/// `docs/setups/fritzbox.md`.
pub(crate) fn one_port_forward_leads_to_everything(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "fritzbox")?;
    page.write_certificate()?;
    page.apply("pool.yaml")?;
    page.create_secret("proxy")?;
    page.apply("app.yaml")?;
    page.apply("proxy.yaml")?;
    page.know_by_name("proxy", "app")?;
    page.apply("service.yaml")?;
    for deployment in ["app", "proxy"] {
        page.wait_for_rollout(deployment)?;
    }
    let addresses =
        home.wait_until("an address of each family", || match home.addresses("proxy")?[..] {
            [v4 @ IpAddr::V4(_), v6 @ IpAddr::V6(_)] => Ok([v4, v6]),
            ref other => Err(format!("{other:?}").into()),
        })?;
    let router: IpAddr = ROUTER_WAN_V4.parse()?;
    for port in [80, 443] {
        home.lab.network().forward_port(port, SocketAddr::new(addresses[0], port))?;
    }

    let by_ipv4 = Url { scheme: "https", name: APP, at: router };
    let by_ipv6 = Url { at: addresses[1], ..by_ipv4 };
    page.wait_for_page(by_ipv4, &format!("{INTERNET_V4} asked for https://{APP}"))?;
    page.wait_for_page(by_ipv6, &format!("2001:db8::2 asked for https://{APP}"))?;
    page.wait_for_page(Url { scheme: "http", ..by_ipv4 }, "301 Moved Permanently")?;
    let answers: Vec<String> = (0..60).map(|_| page.status(by_ipv4)).collect();
    ensure!(answers.contains(&"503".to_owned()), "nobody was limited: {answers:?}");

    let owner = home.wait_for_owner(first_address())?;
    let outages = page.outages_by_power_cut(owner, [by_ipv4, by_ipv6])?;
    eprint_line(&format!("b-fritzbox: without an answer by IPv4 and IPv6 for {outages:?}"));
    let short = outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
    ensure!(short, "clients were without an answer for {outages:?}");
    ensure!(home.wait_for_owner(first_address())? != owner, "{owner} has no power");
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

    page.patch(&json!({ "sessionAffinity": "ClientIP" }))?;
    home.wait_until("one pod answers", || match page.pods_that_answer()? {
        pods if pods.len() == 1 => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })?;
    page.patch(&json!({ "sessionAffinity": "None" }))?;

    home.lab.kubectl(&["scale", "deployment/whoami", "--replicas=1"])?;
    page.patch(&json!({ "externalTrafficPolicy": "Local" }))?;
    page.wait_for_answer(Machine::Client, "the client is seen", |_, seen| seen == client)?;
    page.health_says_where_the_pod_is()?;

    page.patch(&json!({ "loadBalancerSourceRanges": [format!("{client}/32")] }))?;
    home.wait_until("another machine gets no answer", || match page.answer_to(OTHER) {
        Ok(answer) => Err(format!("{answer:?}").into()),
        Err(_) => Ok(()),
    })?;
    page.wait_for_answer(Machine::Client, "the client is let in", |_, seen| seen == client)?;
    page.patch(&json!({ "loadBalancerSourceRanges": null }))?;
    page.wait_for_answer(OTHER, "everybody is let in", |_, _| true)?;
    Ok(())
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
struct Url {
    scheme: &'static str,
    name: &'static str,
    at: IpAddr,
}

/// A page of `docs/setups`, and a folder for what is made by hand.
struct Setup<'a> {
    home: &'a Home,
    page: PathBuf,
    folder: PathBuf,
}

impl<'a> Setup<'a> {
    fn new(home: &'a Home, name: &str) -> anyhow::Result<Self> {
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

    /// Applies a file of the page, with the lab's nginx.
    fn apply(&self, name: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.page.join(name))?;
        let local = format!("image: {NGINX_IMAGE}\n        imagePullPolicy: Never\n");
        self.home.lab.apply(&text.replace("image: nginx\n", &local))?;
        Ok(())
    }

    /// Changes the Service `whoami`.
    fn patch(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.home.lab.kubectl(&["patch", "service", "whoami", "--type=merge", "-p", &patch])?;
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

    /// One certificate for all names, which clients are told to trust.
    fn write_certificate(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let names = NAMES.map(str::to_owned);
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        fs::write(self.folder.join("tls.crt"), certificate.pem())?;
        fs::write(self.folder.join("tls.key"), key.serialize_pem())?;
        Ok(())
    }

    fn start_router_and_neighbour(&self) -> anyhow::Result<[HostProcess; 3]> {
        let lab = &self.home.lab;
        lab.network().add_hosts(1..=1)?;
        let folder = self.folder.to_string_lossy();
        fs::write(self.folder.join("nas.conf"), NAS.replace("FOLDER", &folder))?;
        fs::write(self.folder.join("resolv.conf"), "nameserver 192.168.0.1\n")?;
        let mut nas = Command::new("nginx");
        nas.args(["-e", "stderr", "-c", &self.text_of("nas.conf")]);
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-db", "-f", &self.file("haproxy.cfg")]);
        let mut dnsmasq = Command::new("dnsmasq");
        let config = format!("--conf-file={}", self.file("dnsmasq.conf"));
        dnsmasq.args(["--keep-in-foreground", "--user=root", "--pid-file=", "--interface=lan"]);
        dnsmasq.args(["--bind-interfaces", &config]);
        Ok([
            HostProcess::start_on(lab, OTHER, "nas", &mut nas)?,
            HostProcess::start_on(lab, Machine::Router, "haproxy", &mut haproxy)?,
            HostProcess::start_on(lab, Machine::Router, "dnsmasq", &mut dnsmasq)?,
        ])
    }

    /// What a page says, asked for by its name.
    fn fetch(&self, from: Place, name: &'static str) -> anyhow::Result<String> {
        match from {
            Place::Internet => {
                self.curl(Url { scheme: "https", name, at: ROUTER_WAN_V4.parse()? }, &[])
            }
            Place::Lan => self.fetch_by_dns(name),
        }
    }

    fn fetch_by_dns(&self, name: &str) -> anyhow::Result<String> {
        // curl asks the system, and the system what this file names.
        let system = format!("mount --bind {} /etc/resolv.conf", self.text_of("resolv.conf"));
        let curl =
            format!("curl --silent --show-error --max-time 1 --cacert {}", self.text_of("tls.crt"));
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
    fn create_secret(&self, name: &str) -> anyhow::Result<()> {
        let certificate = format!("--cert={}", self.text_of("tls.crt"));
        let key = format!("--key={}", self.text_of("tls.key"));
        self.home.lab.kubectl(&["create", "secret", "tls", name, &certificate, &key])?;
        Ok(())
    }

    fn wait_for_rollout(&self, deployment: &str) -> anyhow::Result<()> {
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
    fn curl(&self, Url { scheme, name, at }: Url, args: &[&str]) -> anyhow::Result<String> {
        let url = format!("{scheme}://{name}/");
        let resolved = format!("{name}:{}:{at}", if scheme == "https" { 443 } else { 80 });
        let authority = self.text_of("tls.crt");
        // Shorter than the second after which a lost SYN is sent again: a request that needed that has failed.
        let common = ["--silent", "--show-error", "--max-time", "0.6", "--cacert", &authority];
        let args = [&common, args, &["--resolve", &resolved, &url]].concat();
        Ok(self.home.lab.namespace(Machine::Internet).run("curl", &args)?)
    }

    /// The status that a client on the internet gets, or why it gets none.
    fn status(&self, url: Url) -> String {
        let args = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(url, &args).unwrap_or_else(|error| error.to_string())
    }

    fn wait_for_page(&self, url: Url, words: &str) -> anyhow::Result<()> {
        self.home.wait_until(&format!("{url:?} says: {words}"), || match self.curl(url, &[])? {
            said if said.contains(words) => Ok(()),
            said => Err(said.into()),
        })
    }

    /// How long a client on the internet gets no answer at each of these when a node loses its power.
    fn outages_by_power_cut<const N: usize>(
        &self,
        node: Machine,
        urls: [Url; N],
    ) -> anyhow::Result<[Duration; N]> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(8);
        let answers_at = |url| {
            let asked = std::iter::from_fn(|| (Instant::now() < end).then(|| self.curl(url, &[])));
            asked.filter_map(|answer| answer.is_ok().then(Instant::now)).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let clients = urls.map(|url| scope.spawn(move || answers_at(url)));
            thread::sleep(Duration::from_secs(2));
            self.home.lab.power_off(node)?;
            let mut outages = [Duration::ZERO; N];
            for (outage, client) in outages.iter_mut().zip(clients) {
                let answers = client.join().ok().context("a client has panicked")?;
                *outage = longest_silence(answers, begin, end).length();
            }
            Ok(outages)
        })
    }
}
