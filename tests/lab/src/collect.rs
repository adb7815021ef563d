//! Evidence for who looks into a failure: everything that would be gone with the lab.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Doing, LabError, Result};
use crate::folders::{create_folder, write_file};
use crate::lab::Lab;
use crate::plan::Machine;

/// Objects that tell what happened, each into a file of its own.
const OBJECTS: [&str; 9] = [
    "nodes",
    "pods",
    "services",
    "endpointslices",
    "leases",
    "events",
    "configmaps",
    "deployments",
    "daemonsets",
];
/// What each namespace is asked.
const QUESTIONS: [(&str, &[&str]); 4] = [
    ("neighbours", &["ip", "neighbour", "show"]),
    ("addresses", &["ip", "address", "show"]),
    ("routes", &["ip", "route", "show", "table", "all"]),
    ("packet-filter", &["nft", "list", "ruleset"]),
];

impl Lab {
    /// Writes logs of all programs and containers, Kubernetes objects, the namespaces' network
    /// state and packet captures to a new folder `target/lab/<lab>/<time>`, prints its path and
    /// returns it.
    ///
    /// # Errors
    /// [`LabError::Evidence`] when a part is missing; the rest is written.
    #[expect(clippy::disallowed_methods, reason = "a folder's name, for people")]
    pub fn collect(&self) -> Result<PathBuf> {
        let time = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        let folder = target_folder().join("lab").join(self.name.as_str()).join(time);
        create_folder(&folder)?;
        let folder = folder.canonicalize().doing(format!("find {}", folder.display()))?;
        let missing: Vec<String> = self
            .write_all(&folder)
            .into_iter()
            .filter_map(Result::err)
            .map(|e| e.to_string())
            .collect();
        self.progress.note(&format!("evidence is in {}", folder.display()));
        if missing.is_empty() {
            return Ok(folder);
        }
        Err(LabError::Evidence { folder, detail: missing.join("; ") })
    }

    fn write_all(&self, folder: &Path) -> Vec<Result<()>> {
        let mut outcomes = vec![
            copy_folder(&self.folders.logs(), &folder.join("logs")),
            copy_folder(&self.folders.captures(), &folder.join("captures")),
        ];
        for machine in self.options.computers() {
            let pods = self.folders.disk(machine).join("log/pods");
            outcomes.push(copy_folder(&pods, &folder.join("pods").join(machine.to_string())));
        }
        for kind in OBJECTS {
            outcomes.push(self.write_objects(kind, folder));
            // The API server may be what has failed; it need not be asked nine times.
            if outcomes.last().is_some_and(Result::is_err) {
                break;
            }
        }
        for machine in self.machines() {
            outcomes.extend(QUESTIONS.iter().map(|question| self.ask(machine, question, folder)));
        }
        outcomes
    }

    fn write_objects(&self, kind: &str, folder: &Path) -> Result<()> {
        let yaml = self.kubectl(&["get", kind, "-A", "-o", "yaml", "--request-timeout=5s"])?;
        write_file(&folder.join(format!("{kind}.yaml")), yaml)
    }

    fn ask(&self, machine: Machine, question: &(&str, &[&str]), folder: &Path) -> Result<()> {
        let (name, words) = question;
        let Some((program, args)) = words.split_first() else {
            return Ok(());
        };
        let answer = self.namespace(machine).run(program, args)?;
        write_file(&folder.join(format!("{machine}-{name}.txt")), answer)
    }

    /// All machines that a user may look into.
    pub fn machines(&self) -> Vec<Machine> {
        let fixed = [Machine::Router, Machine::Internet, Machine::Client, Machine::Switch];
        fixed.into_iter().chain(self.options.computers()).collect()
    }
}

/// The build's own folder, which `git` ignores and `make clean` removes.
fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
}

/// Copies files and folders; symbolic links, sockets and what is not there are left out.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(format!("read {}", from.display()))?,
    };
    create_folder(to)?;
    for entry in entries.filter_map(io::Result::ok) {
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().doing(format!("look at {}", source.display()))?;
        if kind.is_dir() {
            copy_folder(&source, &copy)?;
        } else if kind.is_file() {
            fs::copy(&source, &copy).doing(format!("copy {}", source.display()))?;
        }
    }
    Ok(())
}
