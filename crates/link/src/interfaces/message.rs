//! What the kernel says by rtnetlink, as far as it matters here.
//!
//! The kernel says much more of an interface than is needed: some hundred attributes, more with each release, among them
//! names that are any bytes. What nobody asks for must not be able to hide an interface, so it is left out before the
//! rest is read.

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;

/// A message from the kernel or to it; `None` when it could not be read.
#[derive(Debug)]
pub(super) struct Message(pub(super) Option<RouteNetlinkMessage>);

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let needed = needed(header.message_type, payload);
        Ok(Self(RouteNetlinkMessage::deserialize(header, &needed).ok()))
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.0.as_ref().map_or(0, NetlinkSerializable::message_type)
    }

    fn buffer_len(&self) -> usize {
        self.0.as_ref().map_or(0, NetlinkSerializable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(message) = &self.0 {
            message.serialize(buffer);
        }
    }
}

/// What becomes of an attribute.
#[derive(Clone, Copy)]
enum Need {
    /// It is read as it is.
    Whole,
    /// It is a name; bytes that are no text are replaced.
    Text,
    /// It has attributes in it, of which some are needed.
    Parts(&'static [(u16, Need)]),
}

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const INFO: &[(u16, Need)] = &[(IFLA_INFO_KIND, Need::Text), (IFLA_INFO_SLAVE_KIND, Need::Text)];

const LINK: &[(u16, Need)] = &[
    (libc::IFLA_ADDRESS, Need::Whole),
    (libc::IFLA_IFNAME, Need::Text),
    (libc::IFLA_LINK, Need::Whole),
    (libc::IFLA_MASTER, Need::Whole),
    (libc::IFLA_LINKINFO, Need::Parts(INFO)),
    (IFLA_LINK_NETNSID, Need::Whole),
    (IFLA_CARRIER_UP_COUNT, Need::Whole),
];
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_CARRIER_UP_COUNT: u16 = 47;

const ADDRESS: &[(u16, Need)] =
    &[(libc::IFA_ADDRESS, Need::Whole), (libc::IFA_LOCAL, Need::Whole), (IFA_FLAGS, Need::Whole)];
const IFA_FLAGS: u16 = 8;

const ROUTE: &[(u16, Need)] = &[
    (libc::RTA_DST, Need::Whole),
    (libc::RTA_OIF, Need::Whole),
    (libc::RTA_GATEWAY, Need::Whole),
    (libc::RTA_PRIORITY, Need::Whole),
    (libc::RTA_MULTIPATH, Need::Whole),
    (RTA_VIA, Need::Whole),
    (RTA_PREF, Need::Whole),
    (RTA_ENCAP_TYPE, Need::Whole),
];
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP_TYPE: u16 = 21;

/// The lengths of `ifinfomsg`, `ifaddrmsg` and `rtmsg`, which stand before the attributes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

/// A message without the attributes that nobody reads.
fn needed(message_type: u16, payload: &[u8]) -> Vec<u8> {
    let (header, needs) = match message_type {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => (LINK_HEADER, LINK),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => (ADDRESS_HEADER, ADDRESS),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => (ROUTE_HEADER, ROUTE),
        _ => return payload.to_vec(),
    };
    let Some((header, attributes)) = payload.split_at_checked(header) else {
        return payload.to_vec();
    };
    let mut found = header.to_vec();
    keep(attributes, needs, &mut found);
    found
}

/// Length and type.
const ATTRIBUTE_HEADER: usize = 4;
/// Marks beside the type.
const MARKS: u16 = 0xc000;

/// Appends to `found` what is needed of these attributes. What stands behind one with an impossible length is lost.
fn keep(mut attributes: &[u8], needs: &[(u16, Need)], found: &mut Vec<u8>) {
    while let Some((marked, value, rest)) = first(attributes) {
        let need = needs.iter().find(|(kind, _)| *kind == marked & !MARKS);
        match need.map(|(_, need)| need) {
            Some(Need::Whole) => append(marked, value, found),
            Some(Need::Text) => {
                append(marked, String::from_utf8_lossy(value).as_bytes(), found);
            }
            Some(Need::Parts(needs)) => {
                let mut parts = Vec::new();
                keep(value, needs, &mut parts);
                if !parts.is_empty() {
                    append(marked, &parts, found);
                }
            }
            None => {}
        }
        attributes = rest;
    }
}

/// The type and value of the first attribute, and what follows it.
fn first(attributes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, _) = attributes.split_first_chunk::<ATTRIBUTE_HEADER>()?;
    let [length, kind] = [[header[0], header[1]], [header[2], header[3]]].map(u16::from_ne_bytes);
    let length = usize::from(length);
    let value = attributes.get(ATTRIBUTE_HEADER..length)?;
    let rest = attributes.get(length.next_multiple_of(ATTRIBUTE_HEADER)..).unwrap_or_default();
    Some((kind, value, rest))
}

fn append(kind: u16, value: &[u8], found: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(ATTRIBUTE_HEADER + value.len()) else { return };
    found.extend(length.to_ne_bytes());
    found.extend(kind.to_ne_bytes());
    found.extend(value);
    found.resize(found.len().next_multiple_of(ATTRIBUTE_HEADER), 0);
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
        route::RouteAttribute,
    };

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut found = Vec::new();
        append(kind, value, &mut found);
        found
    }

    fn read(payload: &[u8]) -> Option<LinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWLINK;
        match Message::deserialize(&header, payload).unwrap().0 {
            Some(RouteNetlinkMessage::NewLink(link)) => Some(link),
            _ => None,
        }
    }

    fn link(attributes: &[Vec<u8>]) -> Option<LinkMessage> {
        let mut payload = vec![0; LINK_HEADER];
        payload[4] = 7;
        payload.extend(attributes.concat());
        read(&payload)
    }

    fn name() -> Vec<u8> {
        attribute(libc::IFLA_IFNAME, b"eth0\0")
    }

    #[test]
    fn what_nobody_reads_hides_no_interface() {
        const IFLA_STATS64: u16 = 23;
        const IFLA_AF_SPEC: u16 = 26;
        const IFLA_PROP_LIST: u16 = 52;
        let table = [
            attribute(libc::IFLA_IFALIAS, b"K\xfcche\0"),
            attribute(libc::IFLA_QDISC, b"\xff\xfe\0"),
            attribute(libc::IFLA_MTU, &[1]),
            attribute(IFLA_STATS64, &[0; 3]),
            attribute(IFLA_AF_SPEC, &[9, 0, 1]),
            attribute(IFLA_PROP_LIST, &attribute(53, b"\xff\0")),
            attribute(999, &[1, 2, 3]),
            attribute(libc::IFLA_LINKINFO, &[attribute(2, &[7; 5]), attribute(3, &[])].concat()),
        ];
        for odd in table {
            for attributes in [[odd.clone(), name()], [name(), odd.clone()]] {
                let found = link(&attributes).unwrap_or_else(|| panic!("not read: {odd:?}"));
                assert_eq!(found.header.index, 7);
                let is_named = |it: &LinkAttribute| *it == LinkAttribute::IfName("eth0".to_owned());
                assert!(found.attributes.iter().any(is_named), "{found:?}");
            }
        }
    }

    /// What is sent into a tunnel goes to no segment.
    #[test]
    fn that_a_route_leads_into_a_tunnel_is_read() {
        const RTA_ENCAP: u16 = 22;
        const SEG6: u16 = 5;
        let mut payload = vec![0; ROUTE_HEADER];
        payload.extend(attribute(RTA_ENCAP_TYPE, &SEG6.to_ne_bytes()));
        payload.extend(attribute(RTA_ENCAP, &[0; 3]));
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWROUTE;
        let found = Message::deserialize(&header, &payload).unwrap().0;
        let Some(RouteNetlinkMessage::NewRoute(route)) = found else { panic!("{found:?}") };
        let is_told = |it: &RouteAttribute| matches!(it, RouteAttribute::EncapType(_));
        assert!(route.attributes.iter().any(is_told), "{route:?}");
    }

    #[test]
    fn names_may_be_any_bytes() {
        let found = link(&[attribute(libc::IFLA_IFNAME, b"eth\xff\0")]).unwrap();
        assert_eq!(found.attributes, [LinkAttribute::IfName("eth\u{fffd}".to_owned())]);
    }

    #[test]
    fn kinds_are_read_whatever_else_is_said_of_them() {
        let info = [
            attribute(IFLA_INFO_KIND, b"vlan\0"),
            attribute(2, &[1, 2, 3]),
            attribute(IFLA_INFO_SLAVE_KIND, b"bond\0"),
            attribute(5, &[0; 3]),
        ];
        let nested = 0x8000 | libc::IFLA_LINKINFO;
        let found = link(&[name(), attribute(nested, &info.concat())]).unwrap();
        let is_info = |it: &LinkAttribute| match it {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Vlan)),
            _ => false,
        };
        assert!(found.attributes.iter().any(is_info), "{found:?}");
    }

    #[test]
    fn damaged_lengths_end_what_is_read() {
        for odd in [vec![3, 0, 1, 0], vec![200, 0, 1, 0], vec![1]] {
            let found = link(&[name(), odd]).unwrap();
            assert_eq!(found.attributes.len(), 1);
        }
        assert!(read(&[0; 3]).is_none());
    }
}
