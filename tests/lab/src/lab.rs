//! A lab: started, kept, found again, ended.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::components::{
    self, BIN, CNI_BIN, CONTAINERD_SOCKET, Component, ETC, PAUSE_IMAGE, ProxyMode, cni_config,
    cni_plugins, containerd_config, kubelet_config,
};
use crate::error::{LabError, Result};
use crate::folders::{Folders, create_folder, write_file, write_program};
use crate::guard::Guard;
use crate::image::Image;
use crate::kubernetes::write_image;
use crate::machine::Computer;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::pki::Authority;
use crate::plan::{Families, LabName, MOST_NODES, Machine};
use crate::programs::{self, API_SERVER, PAUSE};
use crate::progress::Progress;
use crate::teardown::remove_dead_labs;

/// How long a component may take to come up on a machine that has much else to do.
const START_PATIENCE: Duration = Duration::from_mins(1);

/// What a lab looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes, 1 to 9.
    pub nodes: u8,
    /// Whether the control plane lives on node 1, and dies with its power, instead of on a machine
    /// of its own.
    pub control_on_node: bool,
    /// Which kinds of addresses there are.
    #[serde(default)]
    pub families: Families,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
    /// How long a node may be silent before Kubernetes calls it `NotReady` (whole seconds, at least
    /// 4; Kubernetes' default is 50 s). The nodes' leases last as long.
    pub node_monitor_grace: Duration,
    /// Whether there is only an API server, that of the oldest Kubernetes that Arpeggio supports:
    /// no controllers, no scheduler and no nodes.
    #[serde(default)]
    pub oldest_api: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            control_on_node: false,
            families: Families::default(),
            proxy: ProxyMode::default(),
            node_monitor_grace: Duration::from_secs(12),
            oldest_api: false,
        }
    }
}

impl Options {
    /// Only the API server of the oldest Kubernetes that Arpeggio supports.
    pub fn oldest_api() -> Self {
        Self { nodes: 0, oldest_api: true, ..Self::default() }
    }

    /// The nodes' machines.
    pub fn node_machines(&self) -> Vec<Machine> {
        (1..=self.nodes).map(Machine::Node).collect()
    }

    /// The machine of the control plane.
    pub fn control_machine(&self) -> Machine {
        if self.control_on_node { Machine::Node(1) } else { Machine::Control }
    }

    /// The machine that is only the control plane, if there is one.
    fn extra_machine(&self) -> Option<Machine> {
        (!self.control_on_node).then_some(Machine::Control)
    }

    /// All machines that can be switched off.
    pub(crate) fn computers(&self) -> Vec<Machine> {
        self.extra_machine().into_iter().chain(self.node_machines()).collect()
    }

    /// The parts of the control plane, in the order in which they need one another.
    fn control_plane(&self) -> Vec<Component> {
        let machine = self.control_machine();
        if self.oldest_api {
            components::oldest_control_plane(machine, self.families)
        } else {
            components::control_plane(machine, self.families, self.node_monitor_grace)
        }
    }

    /// Whether there are as many nodes as such a lab can have.
    fn has_good_node_count(&self) -> bool {
        if self.oldest_api { self.nodes == 0 } else { (1..=MOST_NODES).contains(&self.nodes) }
    }

    /// What runs on a machine, in the order in which it is started.
    pub(crate) fn components_of(&self, machine: Machine) -> Vec<Component> {
        let mut all = Vec::new();
        if machine == self.control_machine() {
            all.extend(self.control_plane());
        }
        if matches!(machine, Machine::Node(_)) {
            all.extend(components::node(machine, self.families, self.proxy));
        }
        all
    }
}

/// A running lab.
///
/// Dropping it removes the lab, unless it was [kept](Self::keep) or only [attached
/// to](Self::attach). When it is dropped by a panic, as of a failed assertion, the
/// [evidence](Self::collect) is saved first.
#[derive(Debug)]
pub struct Lab {
    pub(crate) name: LabName,
    pub(crate) options: Options,
    pub(crate) folders: Folders,
    pub(crate) progress: Progress,
    guard: Option<Guard>,
}

impl Lab {
    /// Starts a lab and waits until all of its nodes are Ready. Labs whose owners have died are
    /// removed first.
    ///
    /// # Errors
    /// When the host lacks something, a lab of this name is running, or a component does not come
    /// up. What was started until then is removed.
    pub fn start(name: LabName, options: Options) -> Result<Self> {
        if !options.has_good_node_count() {
            return Err(LabError::BadNodeCount { asked: options.nodes, most: MOST_NODES });
        }
        programs::check_host()?;
        let built = programs::build_cluster()?;
        let progress = Progress::new(&name);
        for dead in remove_dead_labs()? {
            progress.note(&format!("removed what was left of lab '{dead}'"));
        }
        let started = Instant::now();
        let guard = Some(Guard::start(&name)?);
        let folders = Folders::of(&name);
        let lab = Self { name, options, folders, progress, guard };
        if let Err(error) = lab.build(&built) {
            lab.explain_failure();
            let _ = lab.collect();
            return Err(error);
        }
        lab.progress.done("cluster is up", started);
        Ok(lab)
    }

    /// A handle to a lab that another process has started. Dropping the handle does nothing to the
    /// lab.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn attach(name: LabName) -> Result<Self> {
        let folders = Folders::of(&name);
        let settings =
            fs::read(folders.settings()).map_err(|_| LabError::NoSuchLab(name.to_string()))?;
        let options = serde_json::from_slice(&settings).map_err(|error| LabError::Unexpected {
            what: folders.settings().display().to_string(),
            detail: error.to_string(),
        })?;
        let progress = Progress::new(&name);
        Ok(Self { name, options, folders, progress, guard: None })
    }

    /// Has the lab outlive this process, until `arpeggio-lab down`.
    ///
    /// # Errors
    /// When its guard is gone.
    pub fn keep(mut self) -> Result<()> {
        self.guard.take().map_or(Ok(()), Guard::keep)
    }

    /// Removes the lab and waits for it.
    ///
    /// # Errors
    /// With all that could not be removed.
    pub fn stop(mut self) -> Result<()> {
        self.guard.take().map_or(Ok(()), |guard| guard.end(&self.name))
    }

    /// Its name.
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// What it looks like.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where it keeps its files.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Its cables, switch and router.
    pub fn network(&self) -> Network {
        Network::of(&self.name, self.options.families)
    }

    /// The network namespace of a machine; for threads, sockets and programs of the host.
    pub fn namespace(&self, machine: Machine) -> Namespace {
        self.network().namespace(machine)
    }

    /// A machine as its own programs see it: also its mounts and process numbers, where it has such
    /// and is on.
    pub fn inside(&self, machine: Machine) -> Namespace {
        self.computer(machine).inside().unwrap_or_else(|_| self.namespace(machine))
    }

    pub(crate) fn computer(&self, machine: Machine) -> Computer {
        Computer::new(&self.name, machine)
    }

    /// Builds everything up. Nodes come up beside the control plane.
    fn build(&self, built: &Path) -> Result<()> {
        self.folders.create()?;
        self.lay_out(built)?;
        thread::scope(|scope| {
            let nodes = scope.spawn(|| {
                each_at_once(self.options.node_machines(), |node| {
                    self.start_container_runtime(node)
                })
            });
            let control = self.start_control_plane();
            joined(nodes.join()).and(control)
        })?;
        self.start_node_agents()
    }

    /// Names the components that have ended, if any: they are the likely cause.
    fn explain_failure(&self) {
        for machine in self.options.computers() {
            let expected = self.options.components_of(machine);
            let words = self.computer(machine).last_words(&expected);
            for line in &words {
                self.progress.note(line);
            }
        }
    }

    /// Networks, disks and keys; then the machines are switched on.
    fn lay_out(&self, built: &Path) -> Result<()> {
        let started = Instant::now();
        let settings = serde_json::to_vec(&self.options).map_err(|error| LabError::Unexpected {
            what: "the lab's settings".to_owned(),
            detail: error.to_string(),
        })?;
        write_file(&self.folders.settings(), settings)?;
        self.network().create(&self.options.node_machines(), self.options.extra_machine())?;
        self.make_disks(built)?;
        for machine in self.options.computers() {
            self.computer(machine).boot()?;
        }
        let pause = Image::of_static_program(PAUSE_IMAGE, &built.join(PAUSE));
        write_image(&pause, &self.archive_of(PAUSE_IMAGE))?;
        self.progress.done("switch, router, client and machines", started);
        Ok(())
    }

    fn make_disks(&self, built: &Path) -> Result<()> {
        let control = self.options.control_machine();
        let authority = Authority::new(control, self.options.families)?;
        for machine in self.options.computers() {
            self.computer(machine).make_disk(built)?;
            if machine == control {
                self.write_control_files(&authority)?;
                self.install_oldest_api()?;
            }
            if matches!(machine, Machine::Node(_)) {
                self.write_node_files(&authority, machine)?;
            }
        }
        let admin = self.folders.kubeconfig();
        authority.write_kubeconfig(&admin, "admin", Some("system:masters"))
    }

    fn install_oldest_api(&self) -> Result<()> {
        if !self.options.oldest_api {
            return Ok(());
        }
        let bin = self.computer(self.options.control_machine()).on_host(BIN);
        programs::install(&[API_SERVER], &programs::build_oldest()?, &bin)
    }

    fn write_control_files(&self, authority: &Authority) -> Result<()> {
        let control = self.options.control_machine();
        let etc = self.computer(control).on_host(ETC);
        authority.write_server_files(&etc, control)?;
        for component in ["controller-manager", "scheduler"] {
            let file = etc.join(format!("{component}.kubeconfig"));
            authority.write_kubeconfig(&file, &format!("system:kube-{component}"), None)?;
        }
        Ok(())
    }

    fn write_node_files(&self, authority: &Authority, node: Machine) -> Result<()> {
        let etc = self.computer(node).on_host(ETC);
        let user = format!("system:node:{node}");
        authority.write_node_files(&etc, node)?;
        authority.write_kubeconfig(&etc.join("kubelet.kubeconfig"), &user, Some("system:nodes"))?;
        authority.write_kubeconfig(&etc.join("proxy.kubeconfig"), "system:kube-proxy", None)?;
        let kubelet = kubelet_config(
            &self.name,
            node,
            self.options.families,
            self.options.node_monitor_grace,
        );
        write_file(&etc.join("kubelet.json"), kubelet.to_string())?;
        write_file(&etc.join("containerd.toml"), containerd_config())?;
        let plugins = self.computer(node).on_host(CNI_BIN);
        create_folder(&plugins)?;
        for (name, script) in cni_plugins() {
            write_program(&plugins.join(name), script)?;
        }
        create_folder(&etc.join("cni"))?;
        write_file(
            &etc.join("cni/lab.conflist"),
            cni_config(node, self.options.families).to_string(),
        )
    }

    fn start_control_plane(&self) -> Result<()> {
        let started = Instant::now();
        let machine = self.options.control_machine();
        let computer = self.computer(machine);
        for component in self.options.control_plane() {
            computer.start(&component)?;
            if component.name == API_SERVER {
                self.wait_for_api(START_PATIENCE)?;
                self.progress.done("kube-apiserver ready", started);
            }
        }
        Ok(())
    }

    /// containerd, with the image that every pod needs.
    fn start_container_runtime(&self, node: Machine) -> Result<()> {
        let started = Instant::now();
        self.start_component(node, "containerd")?;
        self.wait_for_containerd(node)?;
        self.import_archive(node, &self.archive_of(PAUSE_IMAGE))?;
        self.progress.done(&format!("{node}: containerd ready"), started);
        Ok(())
    }

    pub(crate) fn wait_for_containerd(&self, node: Machine) -> Result<()> {
        let inside = self.computer(node).inside()?;
        self.wait_until(&format!("containerd on {node}"), START_PATIENCE, || {
            let args = ["--connect-timeout", "1s", "-a", CONTAINERD_SOCKET, "version"];
            inside.run("ctr", &args)
        })
        .map(drop)
    }

    fn start_node_agents(&self) -> Result<()> {
        if self.options.nodes == 0 {
            return Ok(());
        }
        let started = Instant::now();
        for component in ["kubelet", "kube-proxy"] {
            for node in self.options.node_machines() {
                self.start_component(node, component)?;
            }
        }
        self.wait_for_nodes(START_PATIENCE)?;
        self.progress.done(&format!("{} nodes Ready", self.options.nodes), started);
        Ok(())
    }

    /// Starts a component of a machine that is not running.
    ///
    /// # Errors
    /// When the machine has no such component.
    pub fn start_component(&self, machine: Machine, name: &str) -> Result<()> {
        let all = self.options.components_of(machine);
        let component = all.iter().find(|component| component.name == name);
        let unknown = || LabError::Unknown {
            lab: self.name.to_string(),
            what: format!("component {name} on {machine}"),
        };
        self.computer(machine).start(component.ok_or_else(unknown)?)
    }

    /// Looks again and again until what is awaited is there. What `look` returns instead, an error or what it saw,
    /// counts as "not yet".
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what was seen last.
    pub fn wait_until<T, E: fmt::Display>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> std::result::Result<T, E>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let last_seen = match look() {
                Ok(seen) => return Ok(seen),
                Err(instead) => instead.to_string(),
            };
            if Instant::now() > deadline {
                return Err(LabError::Timeout { what: what.to_owned(), patience, last_seen });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Does the same for several machines side by side, and returns the first error when all are done.
pub(crate) fn each_at_once(
    machines: Vec<Machine>,
    act: impl Fn(Machine) -> Result<()> + Sync,
) -> Result<()> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> =
            machines.into_iter().map(|machine| scope.spawn(move || act(machine))).collect();
        threads.into_iter().map(|thread| joined(thread.join())).fold(Ok(()), Result::and)
    })
}

/// The result of a thread; a panic in it is an error like any other.
fn joined<T>(outcome: thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|_| Err(LabError::Panicked("start a part of the lab".to_owned())))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking()
            && let Err(error) = self.collect()
        {
            self.progress.note(&error.to_string());
        }
        if let Some(guard) = self.guard.take()
            && let Err(error) = guard.end(&self.name)
        {
            self.progress.note(&error.to_string());
        }
    }
}
