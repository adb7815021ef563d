//! `docs/setups/haproxy.md`.

use std::{fs, net::Ipv4Addr, process::Command, thread};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, network::ROUTER_WAN_V4};
use arpeggio_scenarios::{Home, HostProcess, Prometheus, eprint_line, oauth2_proxy_image, service};

use super::{LONGEST_OUTAGE, OTHER, Setup, Url};

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 3);

/// The names that the router sends to the cluster, one that only the LAN knows, and one of the other machine.
const NAMES: [&str; 4] =
    ["app1.k8s.example.com", "app2.k8s.example.com", "grafana.k8s.example.com", "nas.example.com"];

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
        let begun = page.wait_for_download();
        (begun.and_then(|()| page.outages_by_power_cut(owner, &[url])), download.join())
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

impl Setup<'_> {
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

    /// Waits until the first of what is downloaded is here: a client that begins after the power cut meets nothing.
    fn wait_for_download(&self) -> anyhow::Result<()> {
        self.home.wait_until("the download has begun", || {
            match fs::metadata(self.folder.join("download")).map_err(anyhow::Error::from)?.len() {
                0 => Err("nothing has come yet".to_owned().into()),
                _ => Ok(()),
            }
        })
    }
}
