//! How full the kernel's tables of neighbours are. A kernel has one of each family, for all of its network namespaces, and
//! shows them in the first one: where the nodes' networks are namespaces themselves, nothing is known.

use std::fs;

use arpeggio_doctor::survey::Neighbours;

/// Where each family's table is counted, and what limits it.
const TABLES: [(&str, &str); 2] = [("arp_cache", "ipv4"), ("ndisc_cache", "ipv6")];

/// The tables that can be seen.
pub(super) fn tables() -> Vec<Neighbours> {
    TABLES.into_iter().filter_map(|(table, family)| read(table, family)).collect()
}

fn read(table: &str, family: &str) -> Option<Neighbours> {
    let counted = fs::read_to_string(format!("/proc/net/stat/{table}")).ok()?;
    let limit = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3"));
    let limit = limit.ok()?.trim().parse().ok()?;
    let setting = format!("net.{family}.neigh.default.gc_thresh3");
    Some(Neighbours { setting, entries: entries(&counted)?, limit })
}

/// The first column of the first processor's line, in hexadecimal digits: it is the same in all lines.
fn entries(counted: &str) -> Option<u32> {
    let line = counted.lines().nth(1)?;
    u32::from_str_radix(line.split_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_in_hexadecimal_digits() {
        let table = [
            ("entries  allocs   destroys\n00000403 00003524 0000359b\n00000403 0 0\n", Some(1027)),
            ("entries  allocs   destroys\n", None),
            ("entries\nmany\n", None),
            ("", None),
        ];
        for (counted, expected) in table {
            assert_eq!(entries(counted), expected, "{counted:?}");
        }
    }
}
