//! Kafka's own clients, outside of the cluster, and what they see.

use std::{fs, path::PathBuf, process::Command};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    HostProcess,
    kafka::{Record, acknowledged, consumed, partitions},
};

use super::{Kafka, STEADY};

/// What the clients' records go through.
const TOPIC: &str = "orders";

impl Kafka<'_> {
    /// A program on the client's machine, whose DNS server is that of the page.
    fn client_command(&self, program: &str, args: &[&str]) -> Command {
        let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let resolver = self.folder.join("resolv.conf");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount]).arg(resolver).arg(program).args(args);
        command
    }

    pub(super) fn run_as_client(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.client_command(program, args);
        let output = self.home.lab.namespace(Machine::Client).output(&mut command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "{program} {args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// One of Kafka's own tools.
    fn tool(&self, class: &str, args: &[&str]) -> Vec<String> {
        let libraries = format!("{}/*", self.libraries.display());
        let java = ["-Xmx128m", "-XX:+UseSerialGC", "-Dsun.net.inetaddr.ttl=5", "-cp", &libraries];
        let log = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
        let class = format!("org.apache.kafka.tools.{class}");
        let words = java.iter().chain(&log).copied().chain([class.as_str()]);
        words.chain(args.iter().copied()).map(str::to_owned).collect()
    }

    pub(super) fn run_tool(&self, class: &str, args: &[&str]) -> anyhow::Result<String> {
        let words = self.tool(class, args);
        self.run_as_client("java", &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn start_tool(&self, name: &str, class: &str, args: &[&str]) -> anyhow::Result<HostProcess> {
        let words = self.tool(class, args);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.client_command("java", &words);
        HostProcess::start_on(&self.home.lab, Machine::Client, name, &mut command)
    }

    pub(super) fn start_clients(&self, bootstrap: &str) -> anyhow::Result<Clients> {
        self.make_topic(bootstrap)?;
        let config = |name: &str| self.page.join(name).to_string_lossy().into_owned();
        let common = ["--bootstrap-server", bootstrap, "--topic", TOPIC, "--command-config"];
        let producer = config("producer.properties");
        let producer = [&common[..], &[&producer, "--throughput=100", "--repeating-keys=100"]];
        let producer = self.start_tool("producer", "VerifiableProducer", &producer.concat())?;
        let consumer = config("consumer.properties");
        let consumer = [&common[..], &[&consumer, "--group-id=test", "--verbose"]];
        let consumer = self.start_tool("consumer", "VerifiableConsumer", &consumer.concat())?;
        let logs = self.home.lab.folders().logs();
        let clients = Clients { logs, producer, consumer };
        self.wait_until_steady(&clients)?;
        Ok(clients)
    }

    /// Makes the topic, and waits until each of its partitions has a leader. A producer that writes to one while it comes into being
    /// may have its first records refused until it gives them up (`OUT_OF_ORDER_SEQUENCE_NUMBER`): seen once here.
    fn make_topic(&self, bootstrap: &str) -> anyhow::Result<()> {
        let topic = ["--bootstrap-server", bootstrap, "--topic", TOPIC];
        let tool = |act: &[&str]| self.run_tool("TopicCommand", &[&topic[..], act].concat());
        tool(&["--create", "--if-not-exists"])?;
        self.home.lab.wait_until("each partition has a leader", STEADY, || {
            let described = tool(&["--describe"])?;
            let led =
                described.matches("Leader: ").count() - described.matches("Leader: none").count();
            ensure!(led == 6, "{described}");
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until records go through every partition, and those that are sent from now on are consumed.
    pub(super) fn wait_until_steady(&self, clients: &Clients) -> anyhow::Result<()> {
        let (sent, got) = (clients.acknowledged()?.len(), clients.consumed()?.len());
        self.home.lab.wait_until("records go through all partitions", STEADY, || {
            let sent = partitions(clients.acknowledged()?.get(sent..).unwrap_or_default());
            let got = partitions(clients.consumed()?.get(got..).unwrap_or_default());
            ensure!(sent.len() == 6 && got.len() == 6, "sent to {sent:?}, got from {got:?}");
            Ok(())
        })?;
        Ok(())
    }
}

/// Kafka's own clients, outside of the cluster.
pub(super) struct Clients {
    /// What they print is here.
    logs: PathBuf,
    pub(super) producer: HostProcess,
    pub(super) consumer: HostProcess,
}

impl Clients {
    pub(super) fn printed(&self, name: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.logs.join(format!("{name}.log")))?)
    }

    pub(super) fn acknowledged(&self) -> anyhow::Result<Vec<Record>> {
        Ok(acknowledged(&self.printed("producer")?))
    }

    pub(super) fn consumed(&self) -> anyhow::Result<Vec<Record>> {
        Ok(consumed(&self.printed("consumer")?))
    }
}
