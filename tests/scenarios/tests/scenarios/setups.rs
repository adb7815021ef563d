//! Whole set-ups, as their pages in `docs/setups` describe them, with the programs that people have there.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, network::ROUTER_WAN_V4, observe::longest_silence, web::NGINX_IMAGE};
use arpeggio_scenarios::{Home, HostProcess, eprint_line, first_address, service};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// A busy test machine may take longer than the eighth of a second; a session lasts ten.
const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

/// The other machine on the LAN that serves something.
const OTHER: Machine = Machine::Host(1);

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 3);

const NAMES: [&str; 4] =
    ["app1.k8s.example.com", "app2.k8s.example.com", "grafana.k8s.example.com", "nas.example.com"];

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
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| page.text_of(name));
    let pair = [format!("--cert={certificate}"), format!("--key={key}")];
    home.lab.kubectl(&["create", "secret", "tls", "ingress", &pair[0], &pair[1]])?;
    page.apply("ingress.yaml")?;
    page.apply("services.yaml")?;
    ensure!(home.wait_for_address("external")? == EXTERNAL, "the address of pool external");
    ensure!(home.wait_for_address("internal")?.to_string() == "192.168.0.5", "of pool internal");
    let rollout = ["rollout", "status", "deployment/ingress", "--timeout=90s"];
    home.lab.kubectl(&rollout)?;
    let _programs = page.start_router_and_neighbour()?;

    page.wait_for(Place::Internet, NAMES[0], "the cluster says: app1.k8s.example.com")?;
    page.wait_for(Place::Internet, NAMES[1], "the cluster says: app2.k8s.example.com")?;
    page.wait_for(Place::Internet, NAMES[2], "the other machine says: grafana.k8s.example.com")?;
    page.wait_for(Place::Internet, NAMES[3], "the other machine says: nas.example.com")?;
    for name in &NAMES[..3] {
        page.wait_for(Place::Lan, name, &format!("the cluster says: {name}"))?;
    }

    home.apply(&service("third", "metallb.universe.tf/address-pool", "external"))?;
    let refusal = home.wait_for_event("third", "AllocationFailed")?;
    ensure!(refusal.note.contains("external"), "the full pool is named: {refusal:?}");
    let why = home.arpeggio(&["explain", "service", "third"])?;
    ensure!(why.contains("external"), "{why}");
    home.lab.kubectl(&["delete", "service", "third"])?;

    let owner = home.wait_for_owner(EXTERNAL)?;
    home.keep_pods_off("ingress", owner)?;
    page.wait_for(Place::Internet, NAMES[0], "the cluster says")?;
    let outage = page.outage_by_power_cut(owner)?;
    eprint_line(&format!(
        "a-haproxy: the client on the internet was without an answer for {outage:?}"
    ));
    ensure!(outage < LONGEST_OUTAGE, "the client was without an answer for {outage:?}");
    ensure!(home.wait_for_owner(EXTERNAL)? != owner, "{owner} has no power");
    Ok(())
}

/// `docs/setups/client-addresses.md`.
pub(crate) fn pods_see_whom_the_policy_says(home: &Home) -> anyhow::Result<()> {
    let page = Setup::new(home, "client-addresses")?;
    home.add_pool()?;
    home.lab.network().add_hosts(1..=1)?;
    page.apply("web.yaml")?;
    page.apply("service.yaml")?;
    let rollout = ["rollout", "status", "deployment/whoami", "--timeout=90s"];
    home.lab.kubectl(&rollout)?;
    ensure!(home.wait_for_address("whoami")? == first_address(), "the first address");

    let client = Machine::Client.lan_v4().context("the client has an address")?.to_string();
    let answer = page.wait_for_answer(Machine::Client, "a page", |_, _| true)?;
    ensure!(answer.1 != client, "the policy Cluster hides the client: {answer:?}");
    let pods = page.pods_that_answer()?;
    ensure!(pods.len() == 2, "both pods answer, not {pods:?}");

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
    fn fetch(&self, from: Place, name: &str) -> anyhow::Result<String> {
        let authority = self.text_of("tls.crt");
        let url = format!("https://{name}/");
        let curl = ["curl", "--silent", "--show-error", "--max-time", "1", "--cacert", &authority];
        let outside = format!("{name}:443:{ROUTER_WAN_V4}");
        let resolved = ["--resolve", &outside];
        // curl asks the system, and the system what this file names.
        let system = format!("mount --bind {} /etc/resolv.conf", self.text_of("resolv.conf"));
        let inside = format!("{system} && exec {} {url}", curl.join(" "));
        let (machine, words) = match from {
            Place::Internet => {
                (Machine::Internet, [&curl[..], &resolved, &[url.as_str()]].concat())
            }
            Place::Lan => (Machine::Client, vec!["unshare", "--mount", "sh", "-c", &inside]),
        };
        let (program, args) = words.split_first().context("no program")?;
        Ok(self.home.lab.namespace(machine).run(program, args)?)
    }

    fn wait_for(&self, from: Place, name: &str, words: &str) -> anyhow::Result<()> {
        let what = format!("{name} from {from:?} says: {words}");
        self.home.wait_until(&what, || match self.fetch(from, name)? {
            said if said.contains(words) => Ok(()),
            said => Err(said.into()),
        })
    }

    /// How long a client on the internet gets no answer when a node loses its power.
    fn outage_by_power_cut(&self, node: Machine) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(8);
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut answers = Vec::new();
                while Instant::now() < end {
                    if self.fetch(Place::Internet, NAMES[0]).is_ok() {
                        answers.push(Instant::now());
                    }
                }
                answers
            });
            thread::sleep(Duration::from_secs(2));
            self.home.lab.power_off(node)?;
            let answers = client.join().ok().context("the client has panicked")?;
            Ok(longest_silence(answers, begin, end).length())
        })
    }
}
