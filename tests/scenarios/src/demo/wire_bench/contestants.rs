//! Who is measured: the kernel, our speaker with few addresses or with many, MetalLB's speaker.

use std::{net::Ipv4Addr, ops::Range, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::HostProcess;
use arpeggio_wire::MacAddr;

use crate::{
    client::{mac, wait_for_answers},
    locks::{self, Lock},
    metallb::{self, Fellows},
    narrator::say,
};

/// The node without a speaker.
const KERNEL: Machine = Machine::Node(4);
/// How long a speaker may take to start and to announce a few addresses.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many addresses each has at first.
pub(super) const FEW: u32 = 10;
/// MetalLB's addresses, and the first that is used.
const METALLB_RANGE: &str = "10.20.0.0/16";
const METALLB_FIRST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// Somebody who answers for an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contestant {
    /// For people and machines.
    pub(super) name: &'static str,
    /// The address to ask for.
    pub(super) address: Ipv4Addr,
    /// Where it is.
    pub(super) mac: MacAddr,
}

impl Contestant {
    /// The node that answers for its own address.
    pub(super) fn kernel() -> anyhow::Result<Self> {
        let address = KERNEL.lan_v4().context("a node has an address")?;
        Ok(Self { name: "kernel", address, mac: mac(KERNEL)? })
    }
}

/// All of them, at work in one lab.
pub(super) struct World<'a> {
    pub(super) lab: &'a Lab,
    pub(super) few: Ours<'a>,
    pub(super) metallb: MetalLb<'a>,
    /// Not before it is needed.
    pub(super) many: Option<Ours<'a>>,
}

impl<'a> World<'a> {
    /// Starts our speaker and MetalLB's with [`FEW`] addresses each.
    pub(super) fn start(lab: &'a Lab) -> anyhow::Result<Self> {
        let mut few = Ours::start(lab, Machine::Node(1), "few", Ipv4Addr::new(10, 10, 0, 1))?;
        few.give(FEW, PATIENCE)?;
        say("our speaker answers");
        let mut metallb = MetalLb::start(lab, Machine::Node(2))?;
        metallb.give(FEW, PATIENCE)?;
        say("MetalLB's speaker answers");
        Ok(Self { lab, few, metallb, many: None })
    }

    /// The kernel's own answer, ours and MetalLB's.
    pub(super) fn contestants(&self) -> anyhow::Result<[Contestant; 3]> {
        Ok([Contestant::kernel()?, self.few.contestant("arpeggio")?, self.metallb.contestant()?])
    }
}

/// A speaker of ours whose Leases are in a namespace of its own, so that it knows of no other.
pub(super) struct Ours<'a> {
    lab: &'a Lab,
    node: Machine,
    namespace: &'static str,
    first: Ipv4Addr,
    epoch: i64,
    /// How many addresses it has.
    held: u32,
    pub(super) process: HostProcess,
}

impl<'a> Ours<'a> {
    /// Starts one without addresses and waits for its session.
    pub(super) fn start(
        lab: &'a Lab,
        node: Machine,
        namespace: &'static str,
        first: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        lab.kubectl(&["create", "namespace", namespace])?;
        let process = HostProcess::speaker(lab, node, namespace)?;
        let epoch = locks::epoch(lab, namespace, node)?;
        Ok(Self { lab, node, namespace, first, epoch, held: 0, process })
    }

    /// Starts it again after it was killed; it goes on with its session.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = HostProcess::speaker(self.lab, self.node, self.namespace)?;
        Ok(())
    }

    /// Its addresses of these numbers.
    pub(super) fn addresses(&self, numbers: Range<u32>) -> Vec<Ipv4Addr> {
        locks::addresses(self.first, numbers)
    }

    /// Gives it `count` addresses in all and waits until it answers for each.
    pub(super) fn give(&mut self, count: u32, patience: Duration) -> anyhow::Result<()> {
        self.lock(count)?;
        wait_for_answers(self.lab, &self.addresses(0..count), patience)
    }

    /// Creates locks that it holds already, until there are `count` of them.
    pub(super) fn lock(&mut self, count: u32) -> anyhow::Result<()> {
        let (holder, epoch) = (self.node, self.epoch);
        let addresses = self.addresses(self.held..count).into_iter();
        let locks = addresses.map(|address| Lock { address, holder, epoch });
        locks::create(self.lab, self.namespace, locks)?;
        self.held = count;
        Ok(())
    }

    /// Its first address.
    pub(super) fn contestant(&self, name: &'static str) -> anyhow::Result<Contestant> {
        Ok(Contestant { name, address: self.first, mac: mac(self.node)? })
    }
}

/// MetalLB's speaker, which alone may announce.
pub(super) struct MetalLb<'a> {
    lab: &'a Lab,
    node: Machine,
    /// How many addresses it has.
    held: u32,
    pub(super) process: HostProcess,
}

impl<'a> MetalLb<'a> {
    fn start(lab: &'a Lab, node: Machine) -> anyhow::Result<Self> {
        metallb::install(lab, METALLB_RANGE)?;
        metallb::advertise(lab, &[node])?;
        metallb::add_speaker_pod(lab, node)?;
        // It is started again with the first addresses.
        let process = metallb::speaker(lab, node, Fellows::Ignored)?;
        metallb::wait_for_state(lab, node)?;
        Ok(Self { lab, node, held: 0, process })
    }

    /// Its addresses of these numbers.
    pub(super) fn addresses(numbers: Range<u32>) -> Vec<Ipv4Addr> {
        numbers.map(|number| Ipv4Addr::from_bits(METALLB_FIRST.to_bits() + number)).collect()
    }

    /// Gives it `count` addresses in all and waits until it answers for each. It is stopped before and started after
    /// that: at work it would take the larger part of the machine from whoever creates its Services.
    pub(super) fn give(&mut self, count: u32, patience: Duration) -> anyhow::Result<()> {
        self.process.kill()?;
        metallb::serve(self.lab, &Self::addresses(self.held..count))?;
        self.held = count;
        self.process = metallb::speaker(self.lab, self.node, Fellows::Ignored)?;
        wait_for_answers(self.lab, &Self::addresses(0..count), patience)
    }

    fn contestant(&self) -> anyhow::Result<Contestant> {
        Ok(Contestant { name: "metallb", address: METALLB_FIRST, mac: mac(self.node)? })
    }
}
