//! ARP and NDP as one: asking for addresses, and what is heard.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use arpeggio_link::filter::{ArpFilter, FrameFilter, NdpFilter};
use arpeggio_wire::{ArpFrame, ArpOperation, Claim, MacAddr, NdpFrame, NdpMessage, Question};

/// What a frame means to a surveyor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sound<A> {
    /// Somebody answers us.
    Answer(Claim<A>),
    /// Somebody asks for an address.
    Question {
        /// Which.
        address: A,
        /// Who asks.
        asker: A,
        /// Whether everybody was asked.
        broadcast: bool,
    },
}

/// A family of addresses that can be asked for on a segment.
pub(crate) trait Speech: Copy + Ord + Into<IpAddr> + Send + Sync {
    /// What lets frames in.
    type Filter: FrameFilter + Send + Sync;

    /// The address, if it is of this family.
    fn of(address: IpAddr) -> Option<Self>;
    /// Lets in answers for `wanted` and questions for `own`.
    fn filter(own: BTreeSet<Self>, wanted: BTreeSet<Self>) -> Self::Filter;
    /// The question to everybody.
    fn to_everybody(question: Question<Self>) -> Vec<u8>;
    /// The question to one machine.
    fn to_one(question: Question<Self>, mac: MacAddr) -> Vec<u8>;
    /// What a frame says to whoever hears it.
    fn claim(bytes: &[u8]) -> Option<Claim<Self>>;
    /// What a frame means to the machine at `me`.
    fn sound(bytes: &[u8], me: MacAddr) -> Option<Sound<Self>>;
}

impl Speech for Ipv4Addr {
    type Filter = ArpFilter;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn filter(own: BTreeSet<Self>, wanted: BTreeSet<Self>) -> ArpFilter {
        ArpFilter { ours: own, peers: wanted }
    }

    fn to_everybody(question: Question<Self>) -> Vec<u8> {
        question.broadcast().to_bytes().to_vec()
    }

    fn to_one(question: Question<Self>, mac: MacAddr) -> Vec<u8> {
        question.unicast(mac).to_bytes().to_vec()
    }

    fn claim(bytes: &[u8]) -> Option<Claim<Self>> {
        ArpFrame::parse(bytes).ok()?.claim()
    }

    fn sound(bytes: &[u8], me: MacAddr) -> Option<Sound<Self>> {
        let frame = ArpFrame::parse(bytes).ok()?;
        match frame.operation {
            ArpOperation::Reply => {
                frame.claim().filter(|_| frame.destination == me).map(Sound::Answer)
            }
            ArpOperation::Request => asked(frame.question()?, frame.destination, me),
        }
    }
}

impl Speech for Ipv6Addr {
    type Filter = NdpFilter;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn filter(own: BTreeSet<Self>, wanted: BTreeSet<Self>) -> NdpFilter {
        NdpFilter { ours: own, peers: wanted }
    }

    fn to_everybody(question: Question<Self>) -> Vec<u8> {
        question.multicast().to_bytes().to_vec()
    }

    fn to_one(question: Question<Self>, mac: MacAddr) -> Vec<u8> {
        question.unicast(mac).to_bytes().to_vec()
    }

    fn claim(bytes: &[u8]) -> Option<Claim<Self>> {
        NdpFrame::parse(bytes).ok()?.claim()
    }

    fn sound(bytes: &[u8], me: MacAddr) -> Option<Sound<Self>> {
        let frame = NdpFrame::parse(bytes).ok()?;
        match frame.message {
            NdpMessage::Advertisement { .. } => {
                frame.claim().filter(|_| frame.destination == me).map(Sound::Answer)
            }
            NdpMessage::Solicitation => asked(frame.question()?, frame.destination, me),
        }
    }
}

fn asked<A>(question: Question<A>, destination: MacAddr, me: MacAddr) -> Option<Sound<A>> {
    let asker = question.asker.address?;
    Some(Sound::Question { address: question.address, asker, broadcast: destination != me })
}

#[cfg(test)]
mod tests {
    use arpeggio_wire::Asker;

    use super::*;

    const ME: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);

    #[test]
    fn answers_and_questions_are_told_apart() {
        let (address, asker): (Ipv4Addr, Ipv4Addr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let question = Question { address, asker: Asker { mac: OTHER, address: Some(asker) } };
        let sound = |bytes: &[u8]| Ipv4Addr::sound(bytes, ME);
        let heard = |broadcast| Some(Sound::Question { address, asker, broadcast });
        assert_eq!(sound(&Ipv4Addr::to_everybody(question)), heard(true));
        assert_eq!(sound(&Ipv4Addr::to_one(question, ME)), heard(false));
        let ours = Question { address: asker, asker: Asker { mac: ME, address: Some(address) } };
        let answer = ours.answer(OTHER).to_bytes();
        let claim = Claim { address: asker, mac: OTHER };
        assert_eq!(sound(&answer), Some(Sound::Answer(claim)));
        assert_eq!(Ipv4Addr::sound(&answer, OTHER), None, "it is for somebody else");
    }

    #[test]
    fn ndp_means_the_same() {
        let (address, asker): (Ipv6Addr, Ipv6Addr) =
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let question = Question { address, asker: Asker { mac: OTHER, address: Some(asker) } };
        let heard = |broadcast| Some(Sound::Question { address, asker, broadcast });
        assert_eq!(Ipv6Addr::sound(&Ipv6Addr::to_everybody(question), ME), heard(true));
        assert_eq!(Ipv6Addr::sound(&Ipv6Addr::to_one(question, ME), ME), heard(false));
        let ours = Question { address: asker, asker: Asker { mac: ME, address: Some(address) } };
        let answer = ours.answer(OTHER).to_bytes();
        let claim = Claim { address: asker, mac: OTHER };
        assert_eq!(Ipv6Addr::sound(&answer, ME), Some(Sound::Answer(claim)));
    }
}
