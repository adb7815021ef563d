//! How packets get from this node to others.

use core::net::IpAddr;

use arpeggio_election::{Interface, Node, own_address};
use ipnet::IpNet;

use crate::{
    known::{Address, Fellow, Mac},
    plan::Hop,
    serving::{is_segment, places},
};

/// The way from one node to another for packets to `address`: rather between the interfaces on which they announce it, since each side
/// expects its clients there. `None`: they share no segment that both have told of.
pub(crate) fn hop(
    address: IpAddr,
    about: &Address,
    from: &Fellow,
    (node, to): (&Node, &Fellow),
) -> Option<Hop> {
    for out in in_order(address, about, from) {
        for into in in_order(address, about, to) {
            let Some((own_mac, (next_hop, mac))) = link(address, (from, out), (to, into)) else {
                continue;
            };
            let (node, interface) = (node.clone(), out.name.clone());
            let knows_mark = to.knows_mark();
            return Some(Hop { node, interface, next_hop, mac, own_mac, knows_mark });
        }
    }
    None
}

fn in_order<'a>(
    address: IpAddr,
    about: &Address,
    fellow: &'a Fellow,
) -> impl Iterator<Item = &'a Interface> {
    let first = places(address, about, fellow);
    let usable = fellow.reach.interfaces.iter().filter(|it| !it.cut_off.contain(address));
    let others: alloc::vec::Vec<&Interface> = usable.filter(|it| !first.contains(it)).collect();
    first.into_iter().chain(others)
}

type Link = (Mac, (IpAddr, Mac));

fn link(
    address: IpAddr,
    (from, out): (&Fellow, &Interface),
    (to, into): (&Fellow, &Interface),
) -> Option<Link> {
    let usable = |net: &&IpNet| is_segment(net, address);
    let theirs = into.subnets.iter().filter(usable);
    let mut pairs =
        theirs.flat_map(|net| out.subnets.iter().filter(usable).map(move |own| (own, net)));
    pairs.find_map(|(own, net)| {
        let is_shared = own.trunc() == net.trunc() && own.addr() != net.addr();
        let (own_mac, mac) = (mac_of(from, out)?, mac_of(to, into)?);
        let next_hop = own_address(net).filter(|_| is_shared)?;
        Some((own_mac, (next_hop, mac)))
    })
}

fn mac_of(fellow: &Fellow, interface: &Interface) -> Option<Mac> {
    interface.subnets.iter().find_map(|net| fellow.macs.get(&net.addr()).copied())
}
