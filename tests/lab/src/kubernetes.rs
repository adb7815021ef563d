//! Asking and telling the API server, as a user does: with kubectl, from the client's place on the
//! LAN.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::components::{BIN, CONTAINERD_SOCKET};
use crate::error::{Doing, LabError, Result};
use crate::image::Image;
use crate::lab::{Lab, each_at_once};
use crate::namespace::check;
use crate::plan::{API_PORT, Machine};
use crate::programs::CLUSTER;

impl Lab {
    /// kubectl with the administrator's access, ready to be started in the client's namespace.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let programs = self.computer(self.options.control_machine()).on_host(BIN);
        let mut command = Command::new(programs.join(CLUSTER));
        command.arg("kubectl").arg("--kubeconfig").arg(self.folders.kubeconfig()).args(args);
        // kubectl would keep what it learns about the API in the user's home.
        command.env("KUBECACHEDIR", self.folders.kube_cache());
        command
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command(args);
        let output = self.namespace(Machine::Client).output(&mut command)?;
        check(&command, &output)
    }

    /// Runs kubectl with something to read from its standard input.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace(Machine::Client).spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).doing("write to kubectl")?;
        }
        let output = child.wait_with_output().doing("wait for kubectl")?;
        check(&command, &output)
    }

    /// Creates or changes the objects of a manifest.
    ///
    /// # Errors
    /// When the API server refuses one of them.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], manifest)
    }

    /// Creates or changes the objects of a kustomization folder.
    ///
    /// # Errors
    /// When the API server refuses one of them.
    pub fn apply_folder(&self, folder: &Path) -> Result<String> {
        self.kubectl(&["apply", "-k", &folder.to_string_lossy()])
    }

    /// Gets an object, or a list, as JSON: `&["pods", "-A"]`.
    ///
    /// # Errors
    /// When it does not exist, or the API server does not answer.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat())?;
        serde_json::from_str(&text).map_err(|error| LabError::Unexpected {
            what: format!("kubectl get {}", what.join(" ")),
            detail: error.to_string(),
        })
    }

    /// Waits until the API server answers that it is ready.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn wait_for_api(&self, patience: Duration) -> Result<()> {
        let control = self.options.control_machine();
        let addresses = self.options.families.addresses_of(control);
        let Some(server) = addresses.first().copied() else { return Ok(()) };
        // A connection costs nothing; kubectl is started only when there is somebody to talk to.
        let listening = || {
            TcpStream::connect_timeout(&(server, API_PORT).into(), Duration::from_millis(500))
                .doing("connect to kube-apiserver")
        };
        self.wait_until("kube-apiserver", patience, || {
            self.namespace(Machine::Client).enter(listening)??;
            self.kubectl(&["get", "--raw", "/readyz"])
        })
        .map(drop)
    }

    /// Waits until all nodes are Ready.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the nodes as they were last.
    pub fn wait_for_nodes(&self, patience: Duration) -> Result<()> {
        let nodes = self.options.node_machines();
        let names: Vec<String> = nodes.iter().map(|node| format!("node/{node}")).collect();
        // kubectl waits for the creation of one object only.
        names.iter().try_for_each(|name| self.wait_for(&[name], "create", patience))?;
        self.wait_for(&names, "condition=Ready", patience)
    }

    /// Waits with `kubectl wait`: `lab.wait_for(&["pod/a"], "condition=Ready", ...)`. Further
    /// arguments, as `-n name`, may stand among the objects.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the pods and nodes as they were last.
    pub fn wait_for(
        &self,
        objects: &[impl AsRef<str>],
        condition: &str,
        patience: Duration,
    ) -> Result<()> {
        let wait = format!("--for={condition}");
        let timeout = format!("--timeout={}s", patience.as_secs());
        let mut args = vec!["wait", &wait, &timeout];
        args.extend(objects.iter().map(AsRef::as_ref));
        self.kubectl(&args)
            .map(drop)
            .map_err(|error| self.timed_out(&args.join(" "), patience, &error))
    }

    /// Waits until a rollout is done: `lab.wait_for_rollout("arpeggio-system",
    /// "daemonset/arpeggio-speaker", ...)`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the pods and nodes as they were last.
    pub fn wait_for_rollout(
        &self,
        namespace: &str,
        workload: &str,
        patience: Duration,
    ) -> Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        let args = ["rollout", "status", "-n", namespace, workload, &timeout];
        self.kubectl(&args)
            .map(drop)
            .map_err(|error| self.timed_out(&args.join(" "), patience, &error))
    }

    fn timed_out(&self, what: &str, patience: Duration, error: &LabError) -> LabError {
        let state = self.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"]);
        let state = state.unwrap_or_else(|error| error.to_string());
        LabError::Timeout {
            what: what.to_owned(),
            patience,
            last_seen: format!("{error}\n{state}"),
        }
    }

    /// Builds images and gives them to all nodes.
    ///
    /// # Errors
    /// When one cannot be built or imported.
    pub fn import(&self, images: &[Image]) -> Result<()> {
        for image in images {
            let archive = self.archive_of(image.name());
            write_image(image, &archive)?;
            self.import_archives(&[archive])?;
        }
        Ok(())
    }

    /// Gives images that are archives already to all nodes, as `ctr images import` does.
    ///
    /// # Errors
    /// When one cannot be imported.
    pub fn import_archives(&self, archives: &[PathBuf]) -> Result<()> {
        archives.iter().try_for_each(|archive| {
            each_at_once(self.options.node_machines(), |node| {
                self.import_archive(node, archive).map(drop)
            })
        })
    }

    pub(crate) fn archive_of(&self, image: &str) -> PathBuf {
        self.folders.images().join(format!("{}.tar", image.replace(['/', ':'], "_")))
    }

    pub(crate) fn import_archive(&self, node: Machine, archive: &Path) -> Result<String> {
        let args = ["-a", CONTAINERD_SOCKET, "-n", "k8s.io", "images", "import", "-"];
        self.computer(node).run_with_input("ctr", &args, archive)
    }
}

pub(crate) fn write_image(image: &Image, archive: &Path) -> Result<()> {
    let what = || format!("write image {} to {}", image.name(), archive.display());
    image.write(archive).doing(what())
}
