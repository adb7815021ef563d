//! What one process has on its segments: who listens there, and the frames that it has sent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arpeggio_election::Families;
use arpeggio_link::{
    filter::{ArpFilter, NdpFilter},
    groups::GroupError,
    interfaces::{Family, Interface},
    packet::SocketError,
};
use arpeggio_wire::{ArpFrame, ArpOperation, NdpFrame, NdpMessage};

use crate::{
    listener::{Answers, Listener},
    protocol::{Arp, Ndp, Protocol},
    wire::{Ear, Wire},
};

/// So many frames wait for a process that does not read them, as in a socket's buffer. More are lost.
const UNREAD: usize = 400;

/// One process's ways to its segments. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    arp: Vec<OpenEar<Arp>>,
    ndp: Vec<OpenEar<Ndp>>,
    sent: Vec<(u32, Vec<u8>)>,
    unread: VecDeque<(u32, Vec<u8>)>,
    opened: u64,
    /// The interfaces whose listeners are stuck.
    stuck: BTreeSet<u32>,
    /// The interfaces on which the kernel hands over no frames.
    deaf: BTreeSet<u32>,
    /// The interfaces on which the kernel takes no filter.
    refused: BTreeSet<u32>,
    /// The interfaces on which the kernel takes no frame of these families.
    full: BTreeMap<u32, Families>,
}

struct OpenEar<P: Protocol> {
    number: u64,
    listener: Listener<P>,
    filter: P::Filter,
}

impl<P: Protocol> fmt::Debug for OpenEar<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenEar").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What a simulated kernel does for a protocol.
trait Simulated: Protocol {
    fn ears(open: &mut Open) -> &mut Vec<OpenEar<Self>>;
    /// Whether a frame passes, as `arpeggio_link::filter` says.
    fn passes(filter: &Self::Filter, bytes: &[u8]) -> bool;
}

impl Simulated for Arp {
    fn ears(open: &mut Open) -> &mut Vec<OpenEar<Self>> {
        &mut open.arp
    }

    fn passes(filter: &ArpFilter, bytes: &[u8]) -> bool {
        ArpFrame::parse(bytes).is_ok_and(|it| {
            let [sender, target] = [it.sender_protocol, it.target_protocol];
            filter.ours.contains(&target)
                || filter.ours.contains(&sender)
                || it.operation == ArpOperation::Reply && filter.peers.contains(&sender)
        })
    }
}

impl Simulated for Ndp {
    fn ears(open: &mut Open) -> &mut Vec<OpenEar<Self>> {
        &mut open.ndp
    }

    fn passes(filter: &NdpFilter, bytes: &[u8]) -> bool {
        NdpFrame::parse(bytes).is_ok_and(|it| {
            let is_told = it.message != NdpMessage::Solicitation;
            filter.ours.contains(&it.target) || is_told && filter.peers.contains(&it.target)
        })
    }
}

impl Ways {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap()
    }

    /// Nobody reads the questions that come in by an interface any more. Answers have a socket of their own.
    pub(super) fn stop_listening(&self, interface: u32) {
        self.open().stuck.insert(interface);
    }

    /// From now on, or not any more, the kernel hands over no frames of an interface.
    pub(super) fn hand_over_nothing(&self, interface: u32, is_so: bool) {
        set(&mut self.open().deaf, interface, is_so);
    }

    /// From now on, or not any more, the kernel takes no filter for an interface.
    pub(super) fn refuse_filters(&self, interface: u32, is_so: bool) {
        set(&mut self.open().refused, interface, is_so);
    }

    /// From now on, or not any more, the kernel takes no frame that is to leave by an interface.
    pub(super) fn take_no_frames(&self, interface: u32, is_so: bool) {
        let families = if is_so { Families::ALL } else { Families::NONE };
        self.take_no_frames_of(interface, families);
    }

    /// From now on the kernel takes no frame of these families, and of no other, that is to leave by an interface.
    pub(super) fn take_no_frames_of(&self, interface: u32, families: Families) {
        self.open().full.insert(interface, families);
    }

    /// A frame comes in by an interface.
    pub(super) fn hear(&self, interface: u32, bytes: &[u8]) {
        let mut open = self.open();
        let is_lost = open.stuck.contains(&interface) && is_question(bytes);
        if is_lost || open.deaf.contains(&interface) {
            return;
        }
        open.hear::<Arp>(interface, bytes);
        open.hear::<Ndp>(interface, bytes);
    }

    /// A frame comes in that the process is not there to read.
    pub(super) fn keep(&self, interface: u32, bytes: &[u8]) {
        let mut open = self.open();
        if open.unread.len() < UNREAD {
            open.unread.push_back((interface, bytes.to_vec()));
        }
    }

    /// The process reads what has been kept.
    pub(super) fn hear_kept(&self) {
        let kept = std::mem::take(&mut self.open().unread);
        kept.iter().for_each(|(interface, bytes)| self.hear(*interface, bytes));
    }

    /// Whether something was heard that the engine has not taken in.
    pub(super) fn have_news(&self) -> bool {
        let open = self.open();
        open.arp.iter().any(|it| !it.listener.sightings.is_empty())
            || open.ndp.iter().any(|it| !it.listener.sightings.is_empty())
    }

    /// The frames that have left since this was last called, by the index of the interface.
    pub(super) fn sent(&self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.open().sent)
    }

    fn listen<P: Simulated>(&self, listener: Listener<P>) -> Box<dyn Ear<P>> {
        let mut open = self.open();
        open.opened += 1;
        let (number, interface) = (open.opened, listener.index);
        P::ears(&mut open).push(OpenEar { number, listener, filter: P::Filter::default() });
        Box::new(OneEar::<P> {
            ways: self.clone(),
            number,
            interface,
            close: forget::<P>,
            protocol: std::marker::PhantomData,
        })
    }
}

fn forget<P: Simulated>(ways: &Ways, number: u64) {
    P::ears(&mut ways.open()).retain(|it| it.number != number);
}

impl Open {
    fn is_full<P: Protocol>(&self, interface: u32) -> bool {
        let full = self.full.get(&interface).copied().unwrap_or_default();
        if P::FAMILY == Family::V4 { full.ipv4 } else { full.ipv6 }
    }

    fn hear<P: Simulated>(&mut self, interface: u32, bytes: &[u8]) {
        let mut sent = Vec::new();
        let is_full = self.is_full::<P>(interface);
        for ear in P::ears(self).iter().filter(|it| it.listener.index == interface) {
            if P::passes(&ear.filter, bytes) {
                ear.listener.hear([bytes].into_iter(), &mut Answers::new(), |frames| {
                    if is_full {
                        return 0;
                    }
                    sent.extend(frames.iter().map(|it| (interface, it.to_vec())));
                    frames.len()
                });
            }
        }
        self.sent.extend(sent);
    }
}

fn set(interfaces: &mut BTreeSet<u32>, interface: u32, is_in: bool) {
    if is_in {
        interfaces.insert(interface);
    } else {
        interfaces.remove(&interface);
    }
}

fn is_question(bytes: &[u8]) -> bool {
    ArpFrame::parse(bytes).is_ok_and(|it| it.question().is_some())
        || NdpFrame::parse(bytes).is_ok_and(|it| it.question().is_some())
}

impl Wire for Ways {
    fn arp(&self, _: &Interface, it: Listener<Arp>) -> Result<Box<dyn Ear<Arp>>, SocketError> {
        Ok(self.listen(it))
    }

    fn ndp(&self, _: &Interface, it: Listener<Ndp>) -> Result<Box<dyn Ear<Ndp>>, SocketError> {
        Ok(self.listen(it))
    }
}

#[derive(Debug)]
struct OneEar<P: Protocol> {
    ways: Ways,
    number: u64,
    interface: u32,
    close: fn(&Ways, u64),
    protocol: std::marker::PhantomData<fn() -> P>,
}

impl<P: Simulated> Ear<P> for OneEar<P> {
    fn let_in(&self, filter: &P::Filter) -> Result<(), SocketError> {
        let mut open = self.ways.open();
        if open.refused.contains(&self.interface) {
            return Err(SocketError::FilterTooBig);
        }
        let ear = P::ears(&mut open).iter_mut().find(|it| it.number == self.number);
        ear.unwrap().filter = filter.clone();
        Ok(())
    }

    fn join(&mut self, _: &BTreeSet<P::Address>, _: Duration) -> Result<bool, GroupError> {
        Ok(true)
    }

    fn leave_all_but(&mut self, _: &BTreeSet<P::Address>) {}

    fn send(&self, frame: &[u8]) -> Result<(), SocketError> {
        let mut open = self.ways.open();
        if open.is_full::<P>(self.interface) {
            return Err(SocketError::Full);
        }
        open.sent.push((self.interface, frame.to_vec()));
        Ok(())
    }

    fn has_backlog(&self) -> bool {
        !self.ways.open().unread.is_empty()
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn is_deaf(&self) -> bool {
        self.ways.open().deaf.contains(&self.interface)
    }
}

impl<P: Protocol> Drop for OneEar<P> {
    fn drop(&mut self) {
        (self.close)(&self.ways, self.number);
    }
}
