//! Other nodes that ask the segment who has the address, by programs in their speakers' pods.
//!
//! A connection from a node would show nothing: its own service proxy takes it, and it never leaves the node. A question on the
//! segment is what a client asks that does not know yet where the address is.

use std::time::Duration;

use anyhow::{Context as _, bail};
use arpeggio_api::session::{LinkAddress, SessionRecord};
use arpeggio_election::Node;
use arpeggio_link::interfaces::Links;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::{Instant, timeout};

use super::{
    act::Act,
    plan::Plan,
    probe::{Series, Try},
};
use crate::{asking::Heard, in_pod::InPod};

/// How long a pod may take to start a program, and to say what it has heard.
const PATIENCE: Duration = Duration::from_secs(8);

/// What such attempts are called, before the node's name.
pub(super) const WHO_HAS: &str = "who-has";

/// Whether a machine with these interfaces is a node with one of these sessions. Many machines have the address of Docker's bridge,
/// so an address of an interface goes with its MAC address.
pub(super) fn is_one(links: &Links, sessions: &[SessionRecord]) -> bool {
    let has_link = |LinkAddress { address, mac }: &LinkAddress| {
        let mut its =
            links.interfaces.iter().filter(|it| it.mac().is_some_and(|it| it.octets() == *mac));
        its.any(|it| it.usable_addresses().any(|it| it.net.addr() == *address))
    };
    let own = links.own_addresses();
    sessions.iter().any(|session| {
        let named = session.own.as_ref().is_some_and(|named| !named.is_disjoint(&own));
        named || session.links.iter().any(has_link)
    })
}

/// A node that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) node: Node,
    /// The pod of its speaker.
    pub(super) pod: String,
}

/// Nodes that are asking.
pub(super) struct Asking {
    started: Vec<(Asker, InPod)>,
    /// When they were told to begin, after the beginning of all.
    began: Duration,
}

impl Asking {
    /// Has them ask from now on, until they are told to stop or `time` is over.
    pub(super) async fn start(
        act: &Act,
        plan: &Plan,
        askers: &[Asker],
        time: Duration,
        began: Instant,
    ) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(act.client.clone(), &act.system);
        let (address, seconds) = (plan.address.to_string(), time.as_secs().to_string());
        let args = ["asking", &address, "--seconds", &seconds];
        let start = |asker: &Asker| {
            let (pods, args, asker) = (pods.clone(), args, asker.clone());
            async move {
                let started = timeout(PATIENCE, InPod::start(&pods, &asker.pod, &args)).await;
                match started.context("its pod starts no program in time")? {
                    Ok(started) => Ok((asker, started)),
                    Err(why) => bail!("{} cannot ask for the address: {why}", asker.node),
                }
            }
        };
        let mut started = try_join_all(askers.iter().map(start)).await?;
        for (_, program) in &mut started {
            program.go_on().await.map_err(anyhow::Error::msg)?;
        }
        Ok(Self { started, began: began.elapsed() })
    }

    /// What they have heard. `taken`: when one of them had the address itself, whose questions nobody answers any more.
    pub(super) async fn stop(
        self,
        taken: Option<&(Duration, String)>,
    ) -> anyhow::Result<Vec<Series>> {
        let mut heard = Vec::new();
        for (Asker { node, .. }, mut program) in self.started {
            let told = async {
                program.go_on().await?;
                program.answer().await
            };
            let told = timeout(PATIENCE, told).await.context("no answer in time")?;
            let told = told
                .map_err(|why| anyhow::anyhow!("{node} does not say what it has heard: {why}"))?;
            let told =
                serde_json::from_str(&told).context("what a node has heard is not understood")?;
            let own = taken.filter(|(_, to)| node.as_str() == to).map(|(at, _)| *at);
            heard.push(series(&node, &told, self.began, own));
        }
        Ok(heard)
    }
}

/// `own`: when it had the address itself.
fn series(node: &Node, heard: &Heard, began: Duration, own: Option<Duration>) -> Series {
    let tries = heard
        .questions
        .iter()
        .map(|(at, answered)| Try { at: began + Duration::from_micros(*at), answered: *answered });
    let tries = tries.filter(|it| own.is_none_or(|own| it.at <= own));
    Series { name: format!("{WHO_HAS} {node}"), tries: tries.collect() }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use arpeggio_election::{Epoch, Session, Version};
    use arpeggio_link::interfaces::{Address, AddressState, Interface, Medium};

    use super::*;

    #[test]
    fn a_node_is_known_by_its_addresses() {
        let address = |last: u8| IpAddr::from([192, 168, 0, last]);
        let with = |last: u8, mac: [u8; 6]| {
            let mut interface = Interface::new(2, "eth0", Medium::Ethernet(mac.into()));
            let net = format!("{}/24", address(last)).parse().unwrap();
            interface.addresses =
                vec![Address { net, state: AddressState::Preferred, metric: None }];
            Links { interfaces: vec![interface], default_routes: Vec::new() }
        };
        let session = SessionRecord {
            session: Session::live("node-1".into(), Epoch(1), Version(1)),
            newer: None,
            instance: String::new(),
            links: vec![LinkAddress { address: address(11), mac: [2, 0, 0, 0, 0, 11] }],
            own: Some([address(12)].into()),
            paths: std::collections::BTreeMap::new(),
            heard_on: arpeggio_api::session::HeardOn::default(),
            silence: None,
        };
        let is = |links: &Links| is_one(links, std::slice::from_ref(&session));
        assert!(is(&with(11, [2, 0, 0, 0, 0, 11])));
        assert!(!is(&with(11, [2, 0, 0, 0, 0, 99])), "every bridge of Docker's has that address");
        assert!(!is(&with(13, [2, 0, 0, 0, 0, 11])));
        assert!(is(&with(12, [2, 0, 0, 0, 0, 99])), "one without a card of its own");
        assert!(!is(&Links::default()));
    }

    #[test]
    fn times_are_those_of_the_drill() {
        let heard = Heard { questions: vec![(0, true), (20_500, false)] };
        let of = |own| series(&"node-2".into(), &heard, Duration::from_millis(100), own);
        let series = of(None);
        assert_eq!(series.name, "who-has node-2");
        let at = |micros| Duration::from_micros(micros);
        let expected =
            [Try { at: at(100_000), answered: true }, Try { at: at(120_500), answered: false }];
        assert_eq!(series.tries, expected);
        let own = of(Some(at(110_000)));
        assert_eq!(own.tries, expected[..1], "nobody answers the owner");
    }
}
