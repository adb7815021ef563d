//! The arpeggio command, also a kubectl plugin.

fn main() {}
