//! Sessions, locks and placement: who announces which address, without I/O.
