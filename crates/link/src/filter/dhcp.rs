//! The filter for answers of DHCP servers.

use arpeggio_wire::MacAddr;

use super::assembler::{Assembler, Instruction, Load};
use super::{FrameFilter, WHOLE_FRAME, if_here};

/// What a listener wants to hear that asks DHCP servers in the name of `client`: their answers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpFilter {
    /// The client's MAC address (`chaddr`).
    pub client: MacAddr,
}

/// What every wanted frame has in its fixed fields, in the order in which to look.
const HEADER: [(Load, u32); 5] = [
    (Load::half(12), 0x0800), // Ethernet type: IPv4
    (Load::byte(14), 0x45),   // version 4, no options
    (Load::byte(23), 17),     // UDP
    (Load::half(34), 67),     // from a server
    (Load::half(36), 68),     // to a client
];
/// `chaddr`, in two parts.
const CLIENT: [Load; 2] = [Load::word(70), Load::half(74)];

impl FrameFilter for DhcpFilter {
    const ETHERNET_TYPE: u16 = 0x0800;

    /// It has always the same length, which is below any limit.
    fn program(&self, interface: u32, _limit: usize) -> Vec<Instruction> {
        let octets = self.client.octets().map(u32::from);
        let half = |at: usize| octets[at] << 8 | octets[at + 1];
        let parts = [half(0) << 16 | half(2), half(4)];
        let mut code = Assembler::default();
        let drop = code.ret(0);
        let accept = code.ret(WHOLE_FRAME);
        let fields = HEADER.into_iter().chain(CLIENT.into_iter().zip(parts));
        let fields: Vec<(Load, u32)> = fields.collect();
        let wanted = fields
            .iter()
            .rev()
            .fold(accept, |next, (field, value)| code.if_equal(*field, *value, next, drop));
        if_here(&mut code, interface, wanted, drop);
        code.finish()
    }
}
