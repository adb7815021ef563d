//! Who says that an address is theirs: ARP requests at a steady pace, and every answer and
//! announcement heard.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pnet_base::MacAddr;
use pnet_datalink::{DataLinkReceiver, DataLinkSender};
use pnet_packet::Packet;
use pnet_packet::arp::{ArpOperations, ArpPacket};
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};

use super::Stopper;
use super::timeline::{Silence, longest_silence};
use crate::arp::{RawSocketError, frame, open};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::plan::Machine;

/// A frame that says who has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpReply {
    /// When it was heard.
    pub at: Instant,
    /// Whose MAC it names.
    pub mac: [u8; 6],
    /// Whether nobody asked: a gratuitous ARP, as request or as reply.
    pub gratuitous: bool,
}

/// What a watch has seen.
#[derive(Clone, Debug, Default)]
pub struct ArpSightings {
    /// When each request was sent.
    pub asked: Vec<Instant>,
    /// What was heard, in order.
    pub replies: Vec<ArpReply>,
}

impl ArpSightings {
    /// From the first question to the last; `None` when nobody asked.
    pub fn span(&self) -> Option<(Instant, Instant)> {
        Some((*self.asked.first()?, *self.asked.last()?))
    }

    /// The longest time in which nobody said who has the address; `None` when nobody asked.
    pub fn longest_silence(&self) -> Option<Silence> {
        let (begin, end) = self.span()?;
        Some(longest_silence(self.replies.iter().map(|reply| reply.at), begin, end))
    }
}

/// A running watch. Dropping it ends it, without a result.
#[derive(Debug)]
pub struct ArpWatch {
    stopper: Stopper,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<Vec<ArpReply>>,
}

impl ArpWatch {
    /// Asks for `address` from a machine on the LAN by broadcast, once per `interval`.
    ///
    /// # Errors
    /// When the machine is not on the LAN or the socket is refused.
    pub fn start(lab: &Lab, from: Machine, address: Ipv4Addr, interval: Duration) -> Result<Self> {
        let stopper = Stopper::default();
        let (tell, told) = mpsc::channel();
        let (stop_sender, stop_receiver) = (stopper.flag(), stopper.flag());
        let threads =
            lab.namespace(from).enter(move || -> std::result::Result<_, RawSocketError> {
                let (mut transmit, receive) = open(from)?;
                let request = request(from, address).ok_or(RawSocketError::NotOnLan(from))?;
                let sender =
                    thread::spawn(move || ask(&mut *transmit, &request, interval, &stop_sender));
                let receiver = thread::spawn(move || hear(receive, address, &stop_receiver, &tell));
                Ok((sender, receiver))
            })?;
        let (sender, receiver) = threads.map_err(|error| LabError::Unexpected {
            what: "the ARP watch".to_owned(),
            detail: error.to_string(),
        })?;
        // The receiver has reached its loop: nothing sent from now on is missed.
        let _ = told.recv();
        Ok(Self { stopper, sender, receiver })
    }

    /// Ends the watch and returns what it saw.
    ///
    /// # Errors
    /// When one of its threads has crashed.
    pub fn stop(self) -> Result<ArpSightings> {
        let crashed = |_| LabError::Panicked("watch ARP".to_owned());
        drop(self.stopper);
        let asked = self.sender.join().map_err(crashed)?;
        let replies = self.receiver.join().map_err(crashed)?;
        Ok(ArpSightings { asked, replies })
    }
}

/// Sends a request at fixed times, and returns when each was sent.
fn ask(
    socket: &mut dyn DataLinkSender,
    request: &[u8],
    interval: Duration,
    stopped: &AtomicBool,
) -> Vec<Instant> {
    let mut asked = Vec::new();
    let mut next = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        asked.push(Instant::now());
        // A cable that is out is part of what is watched.
        let _ = socket.send_to(request, None);
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    asked
}

fn hear(
    mut socket: Box<dyn DataLinkReceiver>,
    address: Ipv4Addr,
    stopped: &AtomicBool,
    ready: &mpsc::Sender<()>,
) -> Vec<ArpReply> {
    let _ = ready.send(());
    let mut replies = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        // An error is a time-out, or a cable that is out.
        if let Ok(frame) = socket.next() {
            let at = Instant::now();
            replies.extend(reply_in(frame, address).map(|(mac, gratuitous)| ArpReply {
                at,
                mac,
                gratuitous,
            }));
        }
    }
    replies
}

/// The MAC that a frame gives for `address`, and whether nobody asked for it.
fn reply_in(frame: &[u8], address: Ipv4Addr) -> Option<([u8; 6], bool)> {
    let ethernet = EthernetPacket::new(frame)?;
    let arp = ArpPacket::new(ethernet.payload())?;
    let says_so =
        ethernet.get_ethertype() == EtherTypes::Arp && arp.get_sender_proto_addr() == address;
    let gratuitous = arp.get_target_proto_addr() == address;
    let is_statement = arp.get_operation() == ArpOperations::Reply || gratuitous;
    (says_so && is_statement).then(|| (arp.get_sender_hw_addr().octets(), gratuitous))
}

/// A broadcast request for `address` by a machine on the LAN.
fn request(from: Machine, address: Ipv4Addr) -> Option<Vec<u8>> {
    let asker = (MacAddr::from(from.mac()?), from.lan_v4()?);
    frame(ArpOperations::Request, asker, (MacAddr::zero(), address), MacAddr::broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 240);

    #[test]
    fn what_counts_as_a_statement() {
        let owner = (MacAddr::new(2, 0, 0, 0, 0, 1), ADDRESS);
        let client = (MacAddr::new(2, 0, 0, 0, 0, 2), Ipv4Addr::new(192, 168, 0, 20));
        let nobody = MacAddr::zero();
        let (ask, answer) = (ArpOperations::Request, ArpOperations::Reply);
        let mac = owner.0.octets();
        let table = [
            ("reply", frame(answer, owner, client, client.0), Some((mac, false))),
            (
                "gratuitous reply",
                frame(answer, owner, owner, MacAddr::broadcast()),
                Some((mac, true)),
            ),
            (
                "gratuitous request",
                frame(ask, owner, (nobody, ADDRESS), MacAddr::broadcast()),
                Some((mac, true)),
            ),
            ("our own request", request(Machine::Client, ADDRESS), None),
            ("the owner asks for another", frame(ask, owner, client, MacAddr::broadcast()), None),
            ("a reply for another", frame(answer, client, owner, owner.0), None),
        ];
        for (what, bytes, expected) in table {
            assert_eq!(reply_in(&bytes.unwrap(), ADDRESS), expected, "{what}");
        }
        assert_eq!(reply_in(&[0; 20], ADDRESS), None);
    }
}
