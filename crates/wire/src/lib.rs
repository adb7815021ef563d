//! Ethernet and ARP frames: bytes to typed messages and back, without I/O.
