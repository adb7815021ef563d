//! Whole speakers in virtual time: engines, what they put on the wire, and what they write.
//!
//! Each machine runs the engine with its announcer, its listeners and its feeds. Frames are the bytes that leave, Leases
//! the objects and patches that are written; a client asks for every address as any client does, and all that is judged
//! is what it is told. Only sockets, connections and clocks are simulated.

mod api;
mod changes;
mod chaos;
mod cluster;
mod deaths;
mod floods;
mod headroom;
mod interfaces;
mod machine;
mod names;
mod networks;
mod odd_frames;
mod one_way;
mod proxy;
#[path = "../../crates/election/tests/cluster/random.rs"]
mod random;
mod segment;
mod starts;
#[path = "../../crates/election/tests/cluster/work.rs"]
mod work;
