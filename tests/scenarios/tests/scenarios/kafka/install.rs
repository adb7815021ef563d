//! The set-up of `docs/setups/d-kafka.md` in the lab: its files, with what the lab has in the place of images, disks and DNS.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Image, Machine};
use arpeggio_scenarios::{Home, HostProcess, built, eprint_line};
use serde_json::{Value, json};

use super::Kafka;
use crate::setups::{Setup, with_image};

/// What the page's pods run.
const KAFKA: &str = "apache/kafka:4.3.1";
const EXTERNAL_DNS: &str = "registry.k8s.io/external-dns/external-dns:v0.21.0";

/// The image that stands for Kafka's own. Java and Kafka are the host's, which its nodes see, too.
const KAFKA_IMAGE: &str = "lab.local/kafka:lab";

const EXTERNAL_DNS_IMAGE: &str = "lab.local/external-dns:lab";

/// Folders of the host that a broker's pod sees, and where.
const HOST_FOLDERS: [(&str, &str); 5] = [
    ("/usr", "/usr"),
    ("/usr/bin", "/bin"),
    ("/usr/lib", "/lib"),
    ("/usr/lib64", "/lib64"),
    ("/etc/alternatives", "/etc/alternatives"),
];

/// The cluster has no DNS: by these cluster addresses brokers find each other. The last number is the broker's.
const BROKERS_AMONG_THEMSELVES: [u8; 3] = [10, 96, 77];

impl<'a> Kafka<'a> {
    pub(super) fn install(home: &'a Home, services: &str) -> anyhow::Result<Self> {
        let libraries = built("kafka")?.join("libs");
        let external_dns = built("external-dns")?.join("external-dns");
        let Setup { page, folder, .. } = Setup::new(home, "d-kafka")?;
        let named = start_named(home, &page, &folder)?;
        let disks = Disks::make(home.lab.name().as_str())?;
        let kafka = Self { home, page, folder, libraries, disks, _named: named };
        kafka.say_versions(&external_dns)?;
        let external_dns = Image::of_static_program(EXTERNAL_DNS_IMAGE, &external_dns);
        home.lab.import(&[kafka_image(), external_dns])?;
        kafka.make_disks_known()?;
        kafka.let_brokers_find_each_other()?;
        for file in ["pool.yaml", services, "kafka.yaml", "external-dns.yaml"] {
            kafka.apply(file)?;
        }
        kafka.wait_for_brokers()?;
        Ok(kafka)
    }

    fn say_versions(&self, external_dns: &Path) -> anyhow::Result<()> {
        let java = Command::new("java").arg("-version").output()?;
        let named = Command::new("named").arg("-v").output()?;
        let external_dns = Command::new(external_dns).arg("--version").output()?;
        let jars = fs::read_dir(&self.libraries)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let kafka = jars.filter(|jar| jar.starts_with("kafka_")).collect::<String>();
        let first = |text: &[u8]| {
            String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned()
        };
        eprint_line(&format!(
            "d-kafka: {kafka}; {}; {}; external-dns {}{}",
            first(&java.stderr),
            first(&named.stdout),
            first(&external_dns.stdout),
            first(&external_dns.stderr),
        ));
        Ok(())
    }

    /// Applies a file of the page, with what the lab has in the place of images, disks and DNS.
    fn apply(&self, name: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.page.join(name))?;
        let text = match name {
            "kafka.yaml" => self.brokers_in_the_lab(&text)?,
            "external-dns.yaml" => with_image(&text, EXTERNAL_DNS, EXTERNAL_DNS_IMAGE)
                .context("external-dns.yaml has another image")?,
            _ => text,
        };
        self.home.lab.apply(&text)?;
        Ok(())
    }

    fn brokers_in_the_lab(&self, text: &str) -> anyhow::Result<String> {
        let folders = self.host_folders()?;
        let volumes = folders.iter().enumerate().map(|(number, (host, _))| {
            let volume = json!({ "name": format!("host-{number}"), "hostPath": { "path": host } });
            format!("      - {volume}\n")
        });
        let mounts = folders.iter().enumerate().map(|(number, (_, inside))| {
            let name = format!("host-{number}");
            let mount = json!({ "name": name, "mountPath": inside, "readOnly": true });
            format!("        - {mount}\n")
        });
        let aliases = (0..4).map(|broker| {
            let names = [format!("kafka-{broker}.kafka-internal")];
            json!({ "ip": among_themselves(broker), "hostnames": names })
        });
        let aliases = aliases.collect::<Value>();
        let changes = [
            (
                "        volumeMounts:\n",
                format!("        volumeMounts:\n{}", mounts.collect::<String>()),
            ),
            (
                "      volumes:\n",
                format!(
                    "      hostAliases: {aliases}\n      volumes:\n{}",
                    volumes.collect::<String>()
                ),
            ),
        ];
        let text = with_image(text, KAFKA, KAFKA_IMAGE).context("kafka.yaml has another image")?;
        changes.iter().try_fold(text, |text, (from, to)| {
            ensure!(text.contains(from), "kafka.yaml has no '{from}'");
            Ok(text.replace(from, to))
        })
    }

    /// On the host, and in a pod.
    fn host_folders(&self) -> anyhow::Result<Vec<(String, String)>> {
        let of_java = fs::read_dir("/etc")?.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.starts_with("java-").then(|| format!("/etc/{name}"))
        });
        let same = of_java.map(|folder| (folder.clone(), folder));
        let fixed = HOST_FOLDERS.map(|(host, inside)| (host.to_owned(), inside.to_owned()));
        let libraries = self.libraries.to_string_lossy().into_owned();
        let kafka = [(libraries, "/opt/kafka/libs".to_owned())];
        Ok(fixed.into_iter().chain(same).chain(kafka).collect())
    }

    fn make_disks_known(&self) -> anyhow::Result<()> {
        for broker in 0..4 {
            let claim = json!({ "namespace": "default", "name": format!("data-kafka-{broker}") });
            let path = self.disks.0.join(broker.to_string());
            self.home.apply(&json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": { "name": format!("kafka-{broker}") },
                "spec": {
                    "capacity": { "storage": "10Gi" },
                    "accessModes": ["ReadWriteOnce"],
                    "claimRef": claim,
                    "hostPath": { "path": path, "type": "DirectoryOrCreate" },
                },
            }))?;
        }
        Ok(())
    }

    fn let_brokers_find_each_other(&self) -> anyhow::Result<()> {
        let services = (0..4).map(|broker| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": format!("internal-{broker}") },
                "spec": {
                    "clusterIP": among_themselves(broker),
                    "publishNotReadyAddresses": true,
                    "selector": { "statefulset.kubernetes.io/pod-name": format!("kafka-{broker}") },
                    "ports": [
                        { "name": "internal", "port": 9091 },
                        { "name": "controller", "port": 9093 },
                    ],
                },
            })
        });
        self.apply_all(services)
    }

    fn apply_all(&self, objects: impl Iterator<Item = Value>) -> anyhow::Result<()> {
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "items": objects.collect::<Value>() });
        self.home.apply(&list)
    }
}

/// A folder that all nodes see. It goes with this.
pub(super) struct Disks(PathBuf);

impl Disks {
    fn make(name: &str) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // What is left goes before the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Only the scripts that start Kafka: the rest is mounted.
fn kafka_image() -> Image {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kafka/bin");
    let script = |name: &str| (format!("/opt/kafka/bin/{name}"), scripts.join(name));
    let scripts = ["kafka-server-start.sh", "kafka-storage.sh"].map(script);
    let image = Image::new(KAFKA_IMAGE, "/bin/sh");
    scripts.into_iter().fold(image, |image, (inside, file)| image.with_file(inside, file))
}

fn among_themselves(broker: u8) -> Ipv4Addr {
    let [a, b, c] = BROKERS_AMONG_THEMSELVES;
    Ipv4Addr::new(a, b, c, broker + 1)
}

/// BIND on the router, with the page's files and a key that external-dns gets, too.
fn start_named(home: &Home, page: &Path, folder: &Path) -> anyhow::Result<HostProcess> {
    let key = Command::new("tsig-keygen").arg("external-dns").output()?;
    let key = String::from_utf8(key.stdout)?;
    fs::write(folder.join("external-dns.key"), &key)?;
    let secret = key.split('"').nth(3).context("tsig-keygen prints another form")?;
    let secret = format!("--from-literal=secret={secret}");
    home.lab.kubectl(&["create", "secret", "generic", "external-dns", &secret])?;
    let zone = "kafka.example.com.zone";
    fs::copy(page.join(zone), folder.join(zone))?;
    let config = fs::read_to_string(page.join("named.conf"))?;
    let config = config.replace("/var/lib/bind", &folder.to_string_lossy());
    fs::write(folder.join("named.conf"), config)?;
    let resolver = "nameserver 192.168.0.1\noptions timeout:1 attempts:3\n";
    fs::write(folder.join("resolv.conf"), resolver)?;
    let mut named = Command::new("named");
    named.current_dir(folder).args(["-g", "-c"]).arg(folder.join("named.conf"));
    HostProcess::start_on(&home.lab, Machine::Router, "named", &mut named)
}
