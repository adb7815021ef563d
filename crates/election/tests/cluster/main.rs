//! Several speakers, one API server and one segment in virtual time: what must hold among them.

mod chaos;
mod families;
mod faults;
mod handovers;
mod large;
mod model;
mod occupied;
mod random;
mod rewinds;
mod roles;
mod sim;
mod store;
mod stranded;
mod takeovers;
mod unaided;
mod witnesses;
