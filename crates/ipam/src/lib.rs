//! Address pools and the allocator, without I/O.
