//! A client on the LAN that asks by ARP, and knows when the answer came.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Lab, Machine};
use arpeggio_link::{
    filter::ArpFilter,
    packet::{ArpSocket, Inbox, RECEIVE_TIMEOUT},
};
use arpeggio_wire::{ArpFrame, Asker, Claim, MacAddr, Question};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{MsgFlags, recv},
};

/// More than any ARP frame has.
const BUFFER: usize = 128;

/// A raw socket in the client's network. It hears what concerns some addresses only: what else is said costs it nothing.
pub(crate) struct Client {
    socket: ArpSocket,
    asker: Asker<Ipv4Addr>,
}

impl Client {
    /// A client that hears replies about these addresses.
    pub(crate) fn asking_for(lab: &Lab, addresses: &[Ipv4Addr]) -> anyhow::Result<Self> {
        let peers = addresses.iter().copied().collect();
        Self::open(lab, &ArpFilter { peers, ..ArpFilter::default() })
    }

    /// A client that hears everything about these addresses, also what nobody has asked for.
    pub(crate) fn watching(lab: &Lab, addresses: &[Ipv4Addr]) -> anyhow::Result<Self> {
        let ours: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
        Self::open(lab, &ArpFilter { ours, ..ArpFilter::default() })
    }

    fn open(lab: &Lab, filter: &ArpFilter) -> anyhow::Result<Self> {
        let me = Machine::Client;
        let mac = mac(me)?;
        let socket = lab.namespace(me).enter(|| {
            let index = if_nametoindex(me.interface()).context("the client has no LAN")?;
            anyhow::Ok(ArpSocket::open(index, filter)?)
        })??;
        Ok(Self { socket, asker: Asker { mac, address: me.lan_v4() } })
    }

    /// Asks everybody once; whether an answer came.
    pub(crate) fn ask(&self, address: Ipv4Addr) -> anyhow::Result<bool> {
        self.socket.send(&self.question(address).broadcast().to_bytes())?;
        while let Some(claim) = self.next()? {
            if claim.address == address {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks everybody once; how long the answer took, or `None` if none came.
    ///
    /// It does not sleep meanwhile: to be woken up takes about as long as to be answered, and is none of the answerer's
    /// doing. After each look it offers its core to others: an answerer that was woken up there need not wait for it.
    pub(crate) fn time(&self, address: Ipv4Addr) -> anyhow::Result<Option<Duration>> {
        let question = self.question(address).broadcast().to_bytes();
        let begin = Instant::now();
        self.socket.send(&question)?;
        while begin.elapsed() < RECEIVE_TIMEOUT {
            if self.heard()?.is_some_and(|claim| claim.address == address) {
                return Ok(Some(begin.elapsed()));
            }
            std::thread::yield_now();
        }
        Ok(None)
    }

    /// The next word about an address that this client listens for, or `None` after a quarter of a second.
    pub(crate) fn next(&self) -> anyhow::Result<Option<Claim<Ipv4Addr>>> {
        let mut buffer = [0; BUFFER];
        while let Some(length) = self.socket.recv(&mut buffer)? {
            if let Some(claim) = ArpFrame::parse(&buffer[..length])?.claim() {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// What has been said already about an address that this client listens for.
    fn heard(&self) -> anyhow::Result<Option<Claim<Ipv4Addr>>> {
        let mut buffer = [0; BUFFER];
        match recv(self.socket.as_fd().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(ArpFrame::parse(&buffer[..length])?.claim()),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How many words about them come together next; 0 after a quarter of a second without any.
    pub(crate) fn count(&self, inbox: &mut Inbox) -> anyhow::Result<usize> {
        self.socket.recv_batch(inbox, || {})?;
        let is_claim = |bytes: &&[u8]| ArpFrame::parse(bytes).is_ok_and(|it| it.claim().is_some());
        Ok(inbox.frames().filter(is_claim).count())
    }

    /// Sends bytes as they are; `false` when the kernel has no room for them now.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        self.socket.send(frame).is_ok()
    }

    /// This client's question for an address.
    pub(crate) fn question(&self, address: Ipv4Addr) -> Question<Ipv4Addr> {
        Question { address, asker: self.asker }
    }
}

/// Where a machine is found on the LAN.
pub(crate) fn mac(machine: Machine) -> anyhow::Result<MacAddr> {
    machine.mac().map(MacAddr::from).with_context(|| format!("{machine} is not on the LAN"))
}

/// Waits until somebody answers for every address, the last one first.
pub(crate) fn wait_for_answers(
    lab: &Lab,
    addresses: &[Ipv4Addr],
    patience: Duration,
) -> anyhow::Result<()> {
    let client = Client::asking_for(lab, addresses)?;
    let begin = Instant::now();
    for address in addresses.iter().rev() {
        while !client.ask(*address)? {
            ensure!(begin.elapsed() < patience, "nobody answers for {address} after {patience:?}");
        }
    }
    Ok(())
}
