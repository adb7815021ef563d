//! The filter for answers of DHCP servers.

use arpeggio_link::filter::{DhcpFilter, FrameFilter as _, MIN_INSTRUCTIONS};
use arpeggio_wire::{DhcpDiscover, MacAddr};

use crate::{HERE, NOT_FOR_US, Received, accepts, received};

const CLIENT: MacAddr = MacAddr(6, 1, 2, 3, 4, 5);

/// An answer to this client: the question with the ports the other way round.
fn answer(client: MacAddr) -> Vec<u8> {
    let question = DhcpDiscover { source: CLIENT, client, transaction: 1, wanted: None };
    let mut bytes = question.to_bytes().to_vec();
    bytes[34..38].copy_from_slice(&[0, 67, 0, 68]);
    bytes
}

#[test]
fn only_answers_to_this_client_pass() {
    let program = DhcpFilter { client: CLIENT }.program(HERE, MIN_INSTRUCTIONS);
    assert!(program.len() <= MIN_INSTRUCTIONS);
    let passes = |frame: &Received| accepts(&program, frame);
    assert!(passes(&received(answer(CLIENT))));
    assert!(!passes(&received(answer(MacAddr(6, 1, 2, 3, 4, 6)))), "to another client");
    for at in [12, 14, 23, 35, 37, 70, 75] {
        let mut other = answer(CLIENT);
        other[at] ^= 1;
        assert!(!passes(&received(other)), "another byte {at}");
    }
    let short = answer(CLIENT)[..75].to_vec();
    assert!(!passes(&received(short)));
    assert!(!passes(&Received { interface: HERE + 1, ..received(answer(CLIENT)) }));
    let packet_type = *NOT_FOR_US.start();
    assert!(!passes(&Received { packet_type, ..received(answer(CLIENT)) }));
}
