//! Asks DHCP servers for addresses, and hears what they would give. Nothing is ever requested of what they offer, so that no
//! server has more work with it than with a machine that was switched off again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use arpeggio_doctor::survey::{Offer, Wanted};
use arpeggio_link::{
    filter::DhcpFilter,
    interfaces::{Interface, Links},
    packet::{FrameSocket, SocketError},
};
use arpeggio_wire::{DhcpDiscover, DhcpOffer, MacAddr};

use super::segment::interface;

/// Who has not answered by then is asked once more.
const AGAIN: Duration = Duration::from_millis(1_200);
/// Servers look for some seconds whether an address is in use before they offer it.
const FIRST: Duration = Duration::from_millis(4_500);
/// How long all of them have, where there is a server at all.
const PATIENCE: Duration = Duration::from_millis(7_500);
/// How long a second server has, once the first one has answered everything.
const OTHERS: Duration = Duration::from_millis(300);
/// More than any offer has.
const BUFFER: usize = 1_600;

/// What was offered, and why nobody was asked.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) offers: Vec<Offer>,
    pub(super) unasked: Vec<String>,
}

/// Asks on the interfaces on which the addresses are, on all at once.
pub(super) fn ask(wanted: &[Ipv4Addr], links: &Links) -> Offers {
    let mut all = Offers::default();
    let mut places: BTreeMap<u32, (&Interface, Vec<Ipv4Addr>)> = BTreeMap::new();
    for address in wanted {
        let place = Wanted { address: (*address).into(), mac: None, interface: None };
        match interface(&place, links) {
            Ok(interface) => {
                places.entry(interface.index).or_insert((interface, vec![])).1.push(*address);
            }
            Err(why) => all.unasked.push(why),
        }
    }
    thread::scope(|scope| {
        let asked = places.values().map(|(it, wanted)| (it, scope.spawn(|| ask_on(it, wanted))));
        let asked: Vec<_> = asked.collect();
        for (interface, asked) in asked {
            match asked.join() {
                Ok(Ok(offers)) => all.offers.extend(offers),
                Ok(Err(error)) => all.unasked.push(format!("{}: {error}", interface.name)),
                Err(_) => all.unasked.push(format!("{}: it was given up", interface.name)),
            }
        }
    });
    all
}

fn ask_on(interface: &Interface, wanted: &[Ipv4Addr]) -> Result<Vec<Offer>, SocketError> {
    let Some(source) = interface.mac() else { return Ok(Vec::new()) };
    let client = client(source);
    let socket = FrameSocket::open(interface.index, &DhcpFilter { client })?;
    let mut asking = Asking { wanted, offers: Vec::new() };
    let begin = Instant::now();
    let (mut again, mut end) = (Some(begin + AGAIN), begin + FIRST);
    asking.send(&socket, source, client)?;
    let mut buffer = [0; BUFFER];
    while Instant::now() < end {
        let length = socket.recv(&mut buffer)?;
        let offer = length.and_then(|length| DhcpOffer::parse(buffer.get(..length)?));
        if offer.is_some_and(|it| it.client == client && asking.hear(it)) {
            let patience =
                if asking.open().is_empty() { Instant::now() + OTHERS } else { begin + PATIENCE };
            end = patience.min(begin + PATIENCE);
        }
        if again.is_some_and(|at| at <= Instant::now()) {
            again = None;
            asking.send(&socket, source, client)?;
        }
    }
    Ok(asking.offers)
}

/// A machine that does not exist, and the same one each time: servers would offer the node the address that it has, and keep
/// what they offer for the one that has asked.
fn client(node: MacAddr) -> MacAddr {
    /// Assigned by nobody, to one machine.
    const MADE_UP: u8 = 0x0e;
    let mut octets = node.octets();
    octets[0] = MADE_UP;
    octets.into()
}

/// What is asked for, and what came of it.
struct Asking<'a> {
    wanted: &'a [Ipv4Addr],
    offers: Vec<Offer>,
}

impl Asking<'_> {
    /// What nobody has answered yet.
    fn open(&self) -> Vec<Ipv4Addr> {
        let answered: BTreeSet<Ipv4Addr> = self.offers.iter().map(|it| it.wanted).collect();
        self.wanted.iter().copied().filter(|it| !answered.contains(it)).collect()
    }

    fn send(
        &self,
        socket: &FrameSocket<DhcpFilter>,
        source: MacAddr,
        client: MacAddr,
    ) -> Result<(), SocketError> {
        for address in self.open() {
            let (transaction, wanted) = (address.to_bits(), Some(address));
            socket.send(&DhcpDiscover { source, client, transaction, wanted }.to_bytes())?;
        }
        Ok(())
    }

    /// Notes an answer to one of our questions; whether it is one.
    fn hear(&mut self, heard: DhcpOffer) -> bool {
        let wanted = Ipv4Addr::from_bits(heard.transaction);
        if !self.wanted.contains(&wanted) {
            return false;
        }
        let offer = Offer { wanted, address: heard.address, server: heard.server };
        if !self.offers.contains(&offer) {
            self.offers.push(offer);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_not_asked_again() {
        let [one, other] = [241, 250].map(|last| Ipv4Addr::new(192, 168, 0, last));
        let server = Ipv4Addr::new(192, 168, 0, 1);
        let mut asking = Asking { wanted: &[one, other], offers: vec![] };
        let offer = |wanted: Ipv4Addr, address| DhcpOffer {
            transaction: wanted.to_bits(),
            client: MacAddr::zero(),
            address,
            server,
        };
        assert!(asking.hear(offer(one, one)));
        assert!(asking.hear(offer(one, one)));
        assert!(!asking.hear(offer(server, one)), "nobody has asked for that");
        assert_eq!(asking.offers, [Offer { wanted: one, address: one, server }]);
        assert_eq!(asking.open(), [other]);
        assert!(asking.hear(offer(other, one)));
        assert!(asking.open().is_empty());
    }

    #[test]
    fn the_client_is_no_machine_that_exists() {
        let node = MacAddr(2, 0, 0xc0, 0xa8, 0, 0x0b);
        assert_eq!(client(node), MacAddr(0x0e, 0, 0xc0, 0xa8, 0, 0x0b));
        assert!(client(node).is_local() && client(node).is_unicast());
    }
}
