//! An intruder that says again and again that it has an address.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use pnet_base::MacAddr;
use pnet_datalink::DataLinkSender;
use pnet_packet::arp::ArpOperations;

use crate::arp::{RawSocketError, frame, open};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::plan::Machine;

/// Frames go out together once in this time.
const BURST_EVERY: Duration = Duration::from_millis(1);

/// Has `intruder` claim `address` as its own by broadcast, `burst` times a millisecond for `span`. Returns how often it did.
///
/// # Errors
/// When it is not on the LAN or its raw socket is refused.
pub fn claim(
    lab: &Lab,
    intruder: Machine,
    address: Ipv4Addr,
    burst: u32,
    span: Duration,
) -> Result<u32> {
    let sent = lab.namespace(intruder).enter(|| {
        let missing = RawSocketError::NotOnLan(intruder);
        let (mut socket, _) = open(intruder)?;
        let mac = MacAddr::from(intruder.mac().ok_or(missing)?);
        let own = (mac, address);
        let frame = frame(ArpOperations::Reply, own, own, MacAddr::broadcast())
            .ok_or(RawSocketError::NotOnLan(intruder))?;
        Ok(repeat(&mut *socket, &frame, burst, span))
    })?;
    sent.map_err(|error: RawSocketError| LabError::Unexpected {
        what: "a flood of claims".to_owned(),
        detail: error.to_string(),
    })
}

fn repeat(socket: &mut dyn DataLinkSender, frame: &[u8], burst: u32, span: Duration) -> u32 {
    let begin = Instant::now();
    let (mut next, mut sent) = (begin, 0);
    while begin.elapsed() < span {
        // What a full queue refuses is not sent.
        let taken = (0..burst).filter(|_| matches!(socket.send_to(frame, None), Some(Ok(()))));
        sent += u32::try_from(taken.count()).unwrap_or_default();
        next += BURST_EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}
