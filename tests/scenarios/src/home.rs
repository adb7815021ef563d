//! A home network with a cluster that Arpeggio is installed in.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Lab, LabName, Machine, Options, observe::ArpWatch, plan::mac_text};
use serde_json::{Value, json};

use crate::install::{self, NAMESPACE};

/// The pool that [`Home::add_pool`] makes.
pub const POOL: &str = "home";
/// Its addresses.
pub const POOL_RANGE: &str = "192.168.0.240-192.168.0.250";

/// Generous: nothing here takes longer than a second on a machine at rest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The label that keeps load balancers off a node.
pub const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// How long a node may take to be Ready again.
const BOOT: Duration = Duration::from_secs(90);

/// The first address of [`POOL`].
pub const fn first_address() -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, 240)
}

/// A running lab with Arpeggio installed.
#[derive(Debug)]
pub struct Home {
    /// The lab itself, for everything that is not about Arpeggio.
    pub lab: Lab,
}

/// A Kubernetes event, as far as users look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesEvent {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub note: String,
    /// When, as RFC 3339 text; sorts by time.
    pub at: String,
}

impl Home {
    /// Starts a lab and installs Arpeggio. When the installation fails, evidence is collected before the lab goes.
    ///
    /// # Errors
    /// When the host lacks something, or a part does not come up.
    pub fn start(name: &str, options: Options) -> anyhow::Result<Self> {
        let home = Self::without_arpeggio(name, options)?;
        if let Err(error) = install::install(&home.lab) {
            home.collect();
            return Err(error);
        }
        Ok(home)
    }

    /// Starts a lab and installs nothing.
    ///
    /// # Errors
    /// When the host lacks something, or a part does not come up.
    pub fn without_arpeggio(name: &str, options: Options) -> anyhow::Result<Self> {
        let name: LabName = name.parse()?;
        Ok(Self { lab: Lab::start(name, options)? })
    }

    /// Makes the cluster as it was when Arpeggio had been installed: without Services, pools and web servers, and
    /// without what the client has left; every node for every pod.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn sweep(&self) -> anyhow::Result<()> {
        self.unmark_nodes()?;
        self.remove_services()?;
        self.lab.kubectl(&["delete", "addresspools", "--all"])?;
        self.wait_until("all locks are gone", || match self.locks()?.len() {
            0 => Ok(()),
            left => Err(format!("{left} locks").into()),
        })?;
        self.forget_the_past()
    }

    /// Every node is for every pod and every address.
    pub(crate) fn unmark_nodes(&self) -> anyhow::Result<()> {
        let nodes = self.lab.options().node_machines();
        let nodes: Vec<String> = nodes.iter().map(Machine::to_string).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.lab.kubectl(&[&["uncordon"], &nodes[..]].concat())?;
        self.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}-")])?;
        Ok(())
    }

    /// Neither Services stay nor what is behind them.
    pub(crate) fn remove_services(&self) -> anyhow::Result<()> {
        // Those of the cluster itself stay.
        let users = "--field-selector=metadata.name!=kubernetes,metadata.name!=kube-root-ca.crt";
        let all = "services,deployments,configmaps";
        self.lab.kubectl(&["delete", all, users, "--cascade=foreground"])?;
        Ok(())
    }

    /// Neither the events nor what nodes remember of the client stay.
    pub(crate) fn forget_the_past(&self) -> anyhow::Result<()> {
        // All at once: there may be hundreds, and `--all` asks for each.
        let events = "/apis/events.k8s.io/v1/namespaces/default/events";
        self.lab.kubectl(&["delete", "--raw", events])?;
        for machine in self.lab.options().node_machines() {
            self.lab.network().forget_clients(machine)?;
        }
        Ok(())
    }

    /// Removes Arpeggio from the cluster, with everything that it has written there.
    ///
    /// # Errors
    /// When it is not gone in time.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        install::uninstall(&self.lab)
    }

    /// Applies a folder of `manifests`, and waits for nothing.
    ///
    /// # Errors
    /// When the API server refuses one of its objects.
    pub fn apply_manifests(&self, folder: &str) -> anyhow::Result<()> {
        self.lab.apply_folder(&install::root().join("manifests").join(folder))?;
        Ok(())
    }

    /// Installs our definitions, and waits until the API server knows them.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn install_definitions(&self) -> anyhow::Result<()> {
        install::install_definitions(&self.lab)
    }

    /// Writes what is known about a failure below `target/lab`.
    pub fn collect(&self) {
        collect(&self.lab);
    }

    /// Makes the pool [`POOL`] with [`POOL_RANGE`].
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn add_pool(&self) -> anyhow::Result<()> {
        self.apply(&pool(POOL, &[POOL_RANGE]))
    }

    /// Applies an object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, object: &Value) -> anyhow::Result<()> {
        self.lab.apply(&object.to_string())?;
        Ok(())
    }

    /// The addresses in a Service's status.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn addresses(&self, service: &str) -> anyhow::Result<Vec<IpAddr>> {
        let service = self.lab.get(&["service", service])?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        let ips = ingress.into_iter().flatten().filter_map(|entry| entry["ip"].as_str());
        ips.map(|ip| Ok(ip.parse()?)).collect()
    }

    /// Waits until a Service has an address.
    ///
    /// # Errors
    /// When it does not get one in time; the error has its events.
    pub fn wait_for_address(&self, service: &str) -> anyhow::Result<IpAddr> {
        self.wait_until(&format!("Service {service} has an address"), || {
            let address = self.addresses(service)?.first().copied();
            address.ok_or_else(|| format!("{:?}", self.events(service)).into())
        })
    }

    /// The events about a Service, oldest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn events(&self, service: &str) -> anyhow::Result<Vec<KubernetesEvent>> {
        let selector = format!("--field-selector=regarding.kind=Service,regarding.name={service}");
        let list = self.lab.get(&["events.events.k8s.io", &selector])?;
        let items = list["items"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut events: Vec<KubernetesEvent> = items
            .map(|item| KubernetesEvent {
                kind: text(&item["type"]),
                reason: text(&item["reason"]),
                note: text(&item["note"]),
                at: text(&item["eventTime"]),
            })
            .collect();
        events.sort_by(|one, other| one.at.cmp(&other.at));
        Ok(events)
    }

    /// The conditions in a Service's status, as a user reads them: `Announced=True: 192.168.0.240 from node-1 ...`.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn conditions(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let service = self.lab.get(&["service", service])?;
        let conditions = service["status"]["conditions"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |it: &Value| {
            let name = text(&it["type"]).replace("arpeggio.dev/", "");
            format!("{name}={}: {}", text(&it["status"]), text(&it["message"]))
        };
        Ok(conditions.map(line).collect())
    }

    /// Waits for an event about a Service.
    ///
    /// # Errors
    /// When there is none in time; the error has those that there are.
    pub fn wait_for_event(&self, service: &str, reason: &str) -> anyhow::Result<KubernetesEvent> {
        let what = format!("event {reason} on Service {service}");
        self.wait_for_event_that(&what, service, |event| event.reason == reason)
    }

    /// Waits for an event about a Service whose note has these words in it.
    ///
    /// # Errors
    /// When there is none in time; the error has those that there are.
    pub fn wait_for_note(&self, service: &str, words: &str) -> anyhow::Result<KubernetesEvent> {
        let what = format!("event on Service {service} that says: {words}");
        self.wait_for_event_that(&what, service, |event| event.note.contains(words))
    }

    fn wait_for_event_that(
        &self,
        what: &str,
        service: &str,
        is_it: impl Fn(&KubernetesEvent) -> bool,
    ) -> anyhow::Result<KubernetesEvent> {
        self.wait_until(what, || {
            let events = self.events(service)?;
            let found = events.iter().find(|event| is_it(event)).cloned();
            found.ok_or_else(|| format!("{events:?}").into())
        })
    }

    /// The locks of all addresses.
    ///
    /// # Errors
    /// When the Leases cannot be listed.
    pub fn locks(&self) -> anyhow::Result<Vec<Value>> {
        let locks = ["leases", "-n", NAMESPACE, "-larpeggio.dev/lease=address"];
        let mut locks = self.lab.get(&locks)?;
        serde_json::from_value(locks["items"].take()).context("a list")
    }

    /// The lock of an address, if there is one.
    ///
    /// # Errors
    /// When the Leases cannot be listed.
    pub fn lock(&self, address: IpAddr) -> anyhow::Result<Option<Value>> {
        let leases = self.lab.get(&["leases", "-n", NAMESPACE])?;
        let mut items = leases["items"].as_array().into_iter().flatten();
        let name = lock_name(address);
        Ok(items.find(|lease| lease["metadata"]["name"] == name.as_str()).cloned())
    }

    /// The node whose lock that of an address is, if it is anybody's.
    ///
    /// # Errors
    /// When the Leases cannot be listed, or it is held by what is no node.
    pub fn holder(&self, address: IpAddr) -> anyhow::Result<Option<Machine>> {
        let lock = self.lock(address)?;
        let holder = lock.as_ref().and_then(|lock| lock["spec"]["holderIdentity"].as_str());
        Ok(holder.map(str::parse).transpose()?)
    }

    /// Who answers for an address within half a second, as a client on the LAN sees it: each machine once.
    ///
    /// # Errors
    /// When the client's raw socket is refused.
    pub fn who_answers(&self, address: Ipv4Addr) -> anyhow::Result<Vec<Machine>> {
        let every = Duration::from_millis(50);
        let watch = ArpWatch::start(&self.lab, Machine::Client, address, every)?;
        std::thread::sleep(Duration::from_millis(500));
        let mut machines: Vec<Machine> = Vec::new();
        for reply in watch.stop()?.replies {
            let machine = self.machine_at(reply.mac)?;
            if !machines.contains(&machine) {
                machines.push(machine);
            }
        }
        Ok(machines)
    }

    /// Waits until exactly one node answers for an address.
    ///
    /// # Errors
    /// When none or several do until the end.
    pub fn wait_for_owner(&self, address: Ipv4Addr) -> anyhow::Result<Machine> {
        self.wait_for_owner_that(address, "one node", |_| true)
    }

    /// Waits until one node answers for an address, and it is `owner`.
    ///
    /// # Errors
    /// When it is not so until the end.
    pub fn wait_for_owner_to_be(&self, address: Ipv4Addr, owner: Machine) -> anyhow::Result<()> {
        self.wait_for_owner_that(address, &format!("{owner}"), |now| now == owner).map(drop)
    }

    /// Waits until one node answers for an address, and it is another one than `owner`.
    ///
    /// # Errors
    /// When it is not so until the end.
    pub fn wait_for_another_owner(
        &self,
        address: Ipv4Addr,
        owner: Machine,
    ) -> anyhow::Result<Machine> {
        self.wait_for_owner_that(address, &format!("not {owner}"), |now| now != owner)
    }

    fn wait_for_owner_that(
        &self,
        address: Ipv4Addr,
        who: &str,
        is_it: impl Fn(Machine) -> bool,
    ) -> anyhow::Result<Machine> {
        self.wait_until(&format!("{who} answers for {address}"), || {
            match self.who_answers(address)?[..] {
                [owner] if is_it(owner) => Ok(owner),
                ref others => Err(format!("{others:?} answer").into()),
            }
        })
    }

    /// The node that has a MAC address.
    ///
    /// # Errors
    /// When it is nobody's.
    pub fn machine_at(&self, mac: [u8; 6]) -> anyhow::Result<Machine> {
        let nodes = self.lab.options().node_machines();
        let machine = nodes.into_iter().find(|node| node.mac() == Some(mac));
        machine.with_context(|| format!("{} is the MAC address of no node", mac_text(mac)))
    }

    /// How often an address has moved to another node.
    ///
    /// # Errors
    /// When it has no lock.
    pub fn moves(&self, address: IpAddr) -> anyhow::Result<u64> {
        let lock = self.lock(address)?.with_context(|| format!("{address} has no lock"))?;
        Ok(lock["spec"]["leaseTransitions"].as_u64().unwrap_or_default())
    }

    /// Which session of a node this is, counted from 1.
    ///
    /// # Errors
    /// When it has none.
    pub fn epoch(&self, node: Machine) -> anyhow::Result<u64> {
        let session = self.lab.get(&["lease", "-n", NAMESPACE, &format!("session-{node}")])?;
        session["spec"]["leaseTransitions"].as_u64().context("the session has no epoch")
    }

    /// Waits until a node has a session that counts.
    ///
    /// # Errors
    /// When it does not get one in time.
    pub fn wait_for_session(&self, node: Machine) -> anyhow::Result<()> {
        self.wait_until(&format!("{node} has a session"), || {
            let name = format!("session-{node}");
            let session =
                self.lab.get(&["lease", "-n", NAMESPACE, &name]).map_err(anyhow::Error::from)?;
            let holder = session["spec"]["holderIdentity"].as_str().unwrap_or_default();
            if holder.is_empty() { Err(session.to_string().into()) } else { Ok(()) }
        })
    }

    /// Switches a node on again and waits until Kubernetes calls it Ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn switch_on(&self, node: Machine) -> anyhow::Result<()> {
        self.lab.power_on(node)?;
        Ok(self.lab.wait_for_boot(node, BOOT)?)
    }

    /// What the command `arpeggio` prints, run on the control plane: `&["status"]`.
    ///
    /// # Errors
    /// When it fails.
    pub fn arpeggio(&self, args: &[&str]) -> anyhow::Result<String> {
        self.arpeggio_with(&self.lab.folders().kubeconfig(), args)
    }

    /// The same for somebody with other permissions: the user `user` of Kubernetes.
    ///
    /// # Errors
    /// When it fails.
    pub fn arpeggio_as(&self, user: &str, args: &[&str]) -> anyhow::Result<String> {
        self.arpeggio_with(&self.kubeconfig_of(user)?, args)
    }

    /// How the command ends for somebody with other permissions, also when it fails.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn arpeggio_as_ends(&self, user: &str, args: &[&str]) -> anyhow::Result<Output> {
        self.end_of_arpeggio(&self.kubeconfig_of(user)?, args)
    }

    /// The access of the user `user` of Kubernetes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, user: &str) -> anyhow::Result<PathBuf> {
        let admin = self.lab.folders().kubeconfig();
        let mut config: Value = serde_json::from_slice(&std::fs::read(&admin)?)?;
        config["users"][0]["user"]["as"] = json!(user);
        // A colon is between two files in KUBECONFIG.
        let file = admin.with_file_name(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// How the command `arpeggio` ends, also when it fails.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn arpeggio_ends(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.end_of_arpeggio(&self.lab.folders().kubeconfig(), args)
    }

    fn end_of_arpeggio(&self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(install::program("arpeggio")?);
        command.args(args).env("KUBECONFIG", kubeconfig);
        Ok(self.lab.namespace(Machine::Control).output(&mut command)?)
    }

    /// The same for a command whose exit code tells something: the code, and what it prints.
    ///
    /// # Errors
    /// When it cannot be run, or a signal ends it.
    pub fn arpeggio_exits(&self, args: &[&str]) -> anyhow::Result<(i32, String)> {
        let output = self.arpeggio_ends(args)?;
        let code = output.status.code().context("a signal has ended arpeggio")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        Ok((code, String::from_utf8_lossy(&output.stdout).into_owned() + &errors))
    }

    fn arpeggio_with(&self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<String> {
        let output = self.end_of_arpeggio(kubeconfig, args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "arpeggio {args:?} failed: {errors}{said}");
        Ok(said)
    }

    /// Looks until what is awaited is there.
    ///
    /// # Errors
    /// After half a minute, with what was seen last.
    pub fn wait_until<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Result<T, NotYet>,
    ) -> anyhow::Result<T> {
        Ok(self.lab.wait_until(what, PATIENCE, look)?)
    }
}

/// The name of an address's lock: an IPv6 address is written in full, with dashes for colons.
fn lock_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("address-{v4}"),
        IpAddr::V6(v6) => {
            let groups = v6.segments().map(|group| format!("{group:x}"));
            format!("address-{}", groups.join("-"))
        }
    }
}

/// What was seen instead of what is waited for.
#[derive(Debug)]
pub struct NotYet(String);

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for NotYet {
    fn from(seen: String) -> Self {
        Self(seen)
    }
}

impl From<anyhow::Error> for NotYet {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// An `AddressPool`.
pub fn pool(name: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "arpeggio.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": { "name": name },
        "spec": { "addresses": addresses },
    })
}

/// A Service of type LoadBalancer for the pods of [`Home::start_web`], on port 80, that asks for a pool by the
/// annotation `key`.
pub fn service(name: &str, key: &str, pool: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default", "annotations": { key: pool } },
        "spec": {
            "type": "LoadBalancer",
            "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": 80 }],
        },
    })
}

/// Prints what was measured, or what went wrong, beside a test's result.
#[allow(clippy::print_stderr, reason = "this is where it is shown")]
pub fn eprint_line(text: &str) {
    eprintln!("{text}");
}

/// Writes what is known about a failure in a lab below `target/lab`.
pub fn collect(lab: &Lab) {
    if let Err(error) = lab.collect() {
        eprint_line(&format!("evidence is incomplete: {error}"));
    }
}
