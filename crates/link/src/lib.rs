//! Raw sockets, packet filters and netlink.
