//! What must hold for any bytes from the wire, and for any text from a user's hands.
//!
//! A [`Target`] reads its input in one way, and panics if the code under test breaks a promise. Two
//! drivers feed the targets: a short run that is part of the unit tests (`tests/short`), and
//! libFuzzer for as long as one likes (`libfuzzer/`, `make fuzz`). Both begin with the files in
//! `seeds/NAME/`; an input that has found a fault belongs there.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a check says that it has failed")]

pub mod arp;
pub mod config_map;
pub mod dhcp;
pub mod ethernet;
pub mod last_good;
pub mod lock;
pub mod ndp;
mod object;
pub mod ranges;
pub mod service;
pub mod session;

/// One way to read an input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folder of seeds.
    pub name: &'static str,
    /// Panics if the code under test does not keep its promises for these bytes.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "ethernet", check: ethernet::check },
    Target { name: "arp", check: arp::check },
    Target { name: "ndp", check: ndp::check },
    Target { name: "dhcp", check: dhcp::check },
    Target { name: "lock", check: lock::check },
    Target { name: "last-good", check: last_good::check },
    Target { name: "session", check: session::check },
    Target { name: "config-map", check: config_map::check },
    Target { name: "service", check: service::check },
    Target { name: "ranges", check: ranges::check },
];
