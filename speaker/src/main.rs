//! Announces addresses on the local segment.

fn main() {}
