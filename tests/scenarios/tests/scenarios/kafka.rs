//! Real Kafka behind addresses, as `docs/setups/d-kafka.md` describes it: brokers in pods, clients outside of the cluster.

mod clients;
mod install;

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::{
    Home, HostProcess, eprint_line,
    kafka::{acknowledged, given_up, longest_gap, partitions, problems},
};
use serde_json::Value;

use self::{clients::Clients, install::Disks};

/// A broker starts within some seconds on a machine that has nothing else to do.
const ROLLOUT: Duration = Duration::from_mins(4);

/// How long clients may take to get through to all brokers again. Kafka itself takes ten seconds to miss a broker.
const STEADY: Duration = Duration::from_secs(90);

/// So many Services more, as for thirty brokers.
const MORE: u8 = 27;

/// The first addresses of the pool in `pool.yaml` are those of the first four Services.
const FIRST_OF_MORE: u8 = 225;

/// New addresses answer within a second on a machine that has nothing else to do.
const NEW_ADDRESSES: Duration = Duration::from_secs(8);

/// Has the clients run for longer: so many minutes of planned moves.
const MINUTES: &str = "KAFKA_MINUTES";

const ZONE: &str = "kafka.example.com";

/// One address to begin at and one for each broker; names that follow them; more brokers; then things happen.
pub(crate) fn each_broker_has_an_address(home: &Home) -> anyhow::Result<()> {
    let kafka = Kafka::install(home, "own-addresses.yaml")?;
    let names = ["bootstrap", "broker-0", "broker-1", "broker-2"];
    let names = names.map(|name| format!("{name}.{ZONE}"));
    for (service, name) in ["kafka", "broker-0", "broker-1", "broker-2"].iter().zip(&names) {
        kafka.wait_for_name(name, service)?;
    }
    let clients = kafka.start_clients(&format!("bootstrap.{ZONE}:9092"))?;
    kafka.look_on(&clients, "27 more Services", || kafka.add_services())?;
    kafka.planned_moves(&clients, "broker-0")?;
    let cordoned = kafka.cordoned()?;
    kafka.look_on(&clients, &format!("{cordoned} is drained"), || kafka.drain(&cordoned))?;
    kafka.look_on(&clients, "a fourth broker", || kafka.add_broker())?;
    kafka.look_on(&clients, "broker-1 gets another address", || kafka.give_another_address())?;
    kafka.new_client_reaches_brokers_1_and_3()?;
    kafka.cut_power(&clients, "broker-2")?;
    kafka.end(clients)
}

/// One address, and a port for each broker.
pub(crate) fn all_brokers_share_an_address(home: &Home) -> anyhow::Result<()> {
    let kafka = Kafka::install(home, "one-address.yaml")?;
    kafka.wait_for_name(ZONE, "kafka")?;
    let address = home.wait_for_address("kafka")?;
    for broker in ["broker-0", "broker-1", "broker-2"] {
        ensure!(home.wait_for_address(broker)? == address, "{broker} shares {address}");
    }
    let clients = kafka.start_clients(&format!("{ZONE}:9092"))?;
    kafka.planned_moves(&clients, "kafka")?;
    home.lab.kubectl(&["uncordon", &kafka.cordoned()?])?;
    kafka.cut_power(&clients, "kafka")?;
    kafka.end(clients)
}

/// The set-up of the page.
struct Kafka<'a> {
    home: &'a Home,
    page: PathBuf,
    /// What is made by hand, and what the clients print.
    folder: PathBuf,
    /// Kafka's own programs.
    libraries: PathBuf,
    /// In the place of a disk in the network, which any node can mount.
    disks: Disks,
    _named: HostProcess,
}

impl Kafka<'_> {
    fn wait_for_brokers(&self) -> anyhow::Result<()> {
        Ok(self.home.lab.wait_for_rollout("default", "statefulset/kafka", ROLLOUT)?)
    }

    /// Waits until a client that asks the DNS server is told the Service's address.
    fn wait_for_name(&self, name: &str, service: &str) -> anyhow::Result<()> {
        let address = self.home.wait_for_address(service)?.to_string();
        self.home.wait_until(&format!("{name} is {address}"), || {
            let found = self.run_as_client("getent", &["ahostsv4", name])?;
            let is_it = found.lines().all(|line| line.starts_with(&format!("{address} ")));
            if is_it { Ok(()) } else { Err(found.into()) }
        })
    }

    /// Does something, waits until the clients have got over it, and says what they saw.
    fn look_on(
        &self,
        clients: &Clients,
        what: &str,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (sent, got) = (clients.acknowledged()?.len(), clients.consumed()?.len());
        act().with_context(|| what.to_owned())?;
        self.wait_until_steady(clients).with_context(|| format!("after this: {what}"))?;
        let sent = longest_gap(&clients.acknowledged()?, sent);
        let got = longest_gap(&clients.consumed()?, got);
        eprint_line(&format!(
            "d-kafka: {what}: a partition took no record for {sent:?} at most, and gave none for {got:?}"
        ));
        Ok(())
    }

    /// Services for brokers up to the thirtieth, all at once.
    fn add_services(&self) -> anyhow::Result<()> {
        let addresses = (0..MORE).map(|number| Ipv4Addr::new(192, 168, 0, FIRST_OF_MORE + number));
        // Each of them hears the answers to all others.
        let every = Duration::from_millis(100);
        let watches = addresses
            .map(|address| ArpWatch::start(&self.home.lab, Machine::Client, address, every))
            .collect::<Result<Vec<_>, _>>()?;
        let text = fs::read_to_string(self.page.join("own-addresses.yaml"))?;
        let (_, broker_2) = text.rsplit_once("---\n").context("no Service of a broker")?;
        let more: Vec<String> =
            (3..3 + MORE).map(|broker| broker_2.replace("-2", &format!("-{broker}"))).collect();
        self.home.lab.apply(&more.join("---\n"))?;
        let created = Instant::now();
        self.wait_until_announced(usize::from(MORE))?;
        let mut slowest = Duration::ZERO;
        for watch in watches {
            let first = watch.stop()?.replies.first().context("a new address does not answer")?.at;
            slowest = slowest.max(first.saturating_duration_since(created));
        }
        eprint_line(&format!(
            "d-kafka: {MORE} new addresses: the last one answered {slowest:?} after kubectl had created them"
        ));
        ensure!(slowest < NEW_ADDRESSES, "a new address took {slowest:?}");
        Ok(())
    }

    /// Waits until Services of so many brokers are announced, beside those that there were.
    fn wait_until_announced(&self, more: usize) -> anyhow::Result<()> {
        self.home.wait_until("all Services are announced", || {
            let services = self.home.lab.get(&["services"]).map_err(anyhow::Error::from)?;
            let services = services["items"].as_array().into_iter().flatten();
            let conditions = services.filter_map(|it| it["status"]["conditions"].as_array());
            let is_true =
                |it: &Value| it["type"] == "arpeggio.dev/Announced" && it["status"] == "True";
            match conditions.flatten().filter(|condition| is_true(condition)).count() {
                announced if announced == more + 4 => Ok(()),
                announced => Err(format!("{announced} are").into()),
            }
        })
    }

    fn add_broker(&self) -> anyhow::Result<()> {
        self.home.lab.kubectl(&["scale", "statefulset/kafka", "--replicas=4"])?;
        self.wait_for_brokers()?;
        self.wait_for_name(&format!("broker-3.{ZONE}"), "broker-3")
    }

    /// Deletes a Service and creates it with another address, as somebody does who reorders a network.
    fn give_another_address(&self) -> anyhow::Result<()> {
        self.home.lab.kubectl(&["delete", "service", "broker-1"])?;
        let text = fs::read_to_string(self.page.join("own-addresses.yaml"))?;
        let service = text.split("---\n").find(|it| it.contains("name: broker-1\n"));
        let service = service.context("no Service broker-1")?;
        let annotations = "  annotations:\n";
        let other = format!("{annotations}    arpeggio.dev/addresses: 192.168.0.254\n");
        self.home.lab.apply(&service.replace(annotations, &other))?;
        let address = self.home.wait_for_address("broker-1")?;
        ensure!(address == IpAddr::from([192, 168, 0, 254]), "broker-1 has {address}");
        self.wait_for_name(&format!("broker-1.{ZONE}"), "broker-1")
    }

    /// Somebody who knows only the first name finds the broker with the new address, and the broker that is new.
    fn new_client_reaches_brokers_1_and_3(&self) -> anyhow::Result<()> {
        let bootstrap = format!("bootstrap.{ZONE}:9092");
        let common = ["--bootstrap-server", &bootstrap, "--topic", "elsewhere"];
        let create = [&common[..], &["--create", "--replica-assignment", "1,3"]].concat();
        self.run_tool("TopicCommand", &create)?;
        let produce = [&common[..], &["--max-messages=200", "--repeating-keys=100"]].concat();
        let printed = self.run_tool("VerifiableProducer", &produce)?;
        let sent = acknowledged(&printed);
        ensure!(sent.len() == 200 && partitions(&sent).len() == 2, "{printed}");
        Ok(())
    }

    /// Has the node that announces a Service cordoned, once or for some minutes one after the other.
    fn planned_moves(&self, clients: &Clients, service: &str) -> anyhow::Result<()> {
        let address = self.address_of(service)?;
        let minutes = env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(0);
        let end = Instant::now() + Duration::from_mins(minutes);
        loop {
            let owner = self.home.wait_for_owner(address)?;
            let what = format!("{owner}, which announces {service}, is cordoned");
            self.look_on(clients, &what, || {
                self.home.lab.kubectl(&["cordon", &owner.to_string()])?;
                self.home.wait_for_another_owner(address, owner).map(drop)
            })?;
            if Instant::now() > end {
                return Ok(());
            }
            self.home.lab.kubectl(&["uncordon", &owner.to_string()])?;
        }
    }

    /// The node that was cordoned last.
    fn cordoned(&self) -> anyhow::Result<String> {
        let nodes = self.home.lab.get(&["nodes"])?;
        let mut nodes = nodes["items"].as_array().into_iter().flatten();
        let cordoned = nodes.find(|node| node["spec"]["unschedulable"] == true);
        let name = cordoned.and_then(|node| node["metadata"]["name"].as_str());
        Ok(name.context("no node is cordoned")?.to_owned())
    }

    /// The brokers that are there move to another node.
    fn drain(&self, node: &str) -> anyhow::Result<()> {
        let args = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data"];
        self.home.lab.kubectl(&args)?;
        self.wait_for_brokers()?;
        self.home.lab.kubectl(&["uncordon", node])?;
        Ok(())
    }

    /// Cuts the power of the node that announces a Service.
    fn cut_power(&self, clients: &Clients, service: &str) -> anyhow::Result<()> {
        let address = self.address_of(service)?;
        let owner = self.home.wait_for_owner(address)?;
        let on_it = format!("--field-selector=spec.nodeName={owner}");
        let pods = self.home.lab.get(&["pods", "-lapp=kafka", &on_it])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let brokers: Vec<&str> = pods.filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        let what =
            format!("{owner}, which announces {service} and runs {brokers:?}, loses its power");
        self.look_on(clients, &what, || {
            self.home.lab.power_off(owner)?;
            self.home.wait_for_another_owner(address, owner).map(drop)
        })
    }

    fn address_of(&self, service: &str) -> anyhow::Result<Ipv4Addr> {
        match self.home.wait_for_address(service)? {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(address) => anyhow::bail!("{service} has {address}"),
        }
    }

    /// Nothing that was acknowledged is lost, and everything is in order.
    fn end(&self, mut clients: Clients) -> anyhow::Result<()> {
        clients.producer.stop()?;
        let sent = clients.acknowledged()?;
        let given_up = given_up(&clients.printed("producer")?);
        self.home.lab.wait_until("what was acknowledged is consumed", STEADY, || {
            let problems = problems(&sent, &clients.consumed()?);
            ensure!(problems.is_empty(), "{problems:#?}");
            Ok(())
        })?;
        clients.consumer.stop()?;
        let got = clients.consumed()?.len();
        eprint_line(&format!(
            "d-kafka: {} records acknowledged, {got} consumed, none lost, all in order; {given_up} given up",
            sent.len()
        ));
        ensure!(given_up == 0, "the producer has given up {given_up} records");
        Ok(())
    }
}
