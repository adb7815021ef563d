//! The options after a message's fixed part (RFC 4861 section 4.6): type, length in units of eight
//! bytes, content.

use pnet_base::MacAddr;

use super::NdpError;

/// Bytes of a link-layer address option with an Ethernet address.
pub(super) const LINK_ADDRESS_LEN: usize = 8;

/// The first link-layer address option of type `kind` (1 for a source's, 2 for a target's). Options
/// of all other types are skipped, whatever they hold, as a receiver must.
pub(super) fn link_address(options: &[u8], kind: u8) -> Result<Option<MacAddr>, NdpError> {
    let mut found = None;
    let mut rest = options;
    while !rest.is_empty() {
        let (option, others) = split_first(rest)?;
        if found.is_none() && option.first() == Some(&kind) {
            found = Some(ethernet_address(option)?);
        }
        rest = others;
    }
    Ok(found)
}

/// A link-layer address option as it goes on the wire.
pub(super) fn link_address_option(kind: u8, mac: MacAddr) -> [u8; LINK_ADDRESS_LEN] {
    let mut option = [kind, 1, 0, 0, 0, 0, 0, 0];
    option[2..].copy_from_slice(&mac.octets());
    option
}

fn split_first(options: &[u8]) -> Result<(&[u8], &[u8]), NdpError> {
    let units = *options.get(1).ok_or(NdpError::Truncated)?;
    if units == 0 {
        return Err(NdpError::OptionLength);
    }
    options.split_at_checked(usize::from(units) * 8).ok_or(NdpError::Truncated)
}

fn ethernet_address(option: &[u8]) -> Result<MacAddr, NdpError> {
    let address = <[u8; 6]>::try_from(option.get(2..).unwrap_or_default());
    address.map(MacAddr::from).map_err(|_| NdpError::LinkAddressLength)
}
