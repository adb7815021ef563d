//! Several speakers, one API server and one segment in virtual time: what must hold among them.

mod chaos;
mod faults;
mod handovers;
mod sim;
