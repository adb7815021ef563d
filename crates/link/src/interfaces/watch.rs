//! Keeps a snapshot current: the kernel says that something changed, and we read everything again.
//!
//! Reading everything costs some hundred microseconds on a usual node, and makes lost events
//! harmless: when the kernel reports an overrun, that too is just a reason to read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;
use rtnetlink::proto::{Connection, ConnectionHandle, new_connection_with_socket};
use tokio::sync::watch;
use tokio::time;
use tracing::warn;

use super::layers::Layers;
use super::message::Message;
use super::wireless::is_wireless;
use super::{Links, decode};

/// How long further events are awaited before reading, since one cause makes several of them.
const SETTLE: Duration = Duration::from_millis(20);
/// How long the kernel has for an answer; beyond that the connection is taken to have lost it.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// So often lists are read again that have changed meanwhile. On a machine on which something changes at each moment the next list, which
/// need not be whole, is better than none.
const TRIES: usize = 10;
/// The pause after a failed reading.
const RETRY: Duration = Duration::from_millis(500);

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Why interfaces cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel gives no netlink socket.
    #[error("cannot open an rtnetlink socket: allow AF_NETLINK to this process")]
    Open(#[from] io::Error),
    /// The kernel refused a list.
    #[error("cannot list interfaces, addresses and routes over rtnetlink")]
    Read(#[source] io::Error),
    /// Something changed while the kernel made a list: what is there may be missing in it (`NLM_F_DUMP_INTR`).
    #[error("interfaces, addresses or routes changed while the kernel listed them")]
    Interrupted,
    /// The connection is no more.
    #[error("the rtnetlink connection is closed")]
    Closed,
    /// The kernel did not answer in time.
    #[error("rtnetlink did not answer within {READ_TIMEOUT:?}")]
    Timeout(#[from] time::error::Elapsed),
}

impl NetlinkError {
    /// Whether the connection is closed, so that trying again cannot help.
    fn is_final(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

type Events = UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>;
type Handle = ConnectionHandle<Message>;

/// Reads the interfaces of the calling thread's network namespace and keeps the snapshot current.
///
/// The receiver holds the first snapshot at once, and gets a new one only when it differs, some
/// 20 ms after the kernel reports the change. The kernel reports lost carriers at most once a second
/// for all interfaces of the machine together, so one that closely follows another carrier change
/// can be up to a second late; everything else it reports at once.
/// When a later reading fails, the last good snapshot stays in force and reading is tried again.
///
/// The work is done by a task on the current tokio runtime, which ends when the last receiver is
/// dropped. If the kernel closes a connection, the task ends first, and
/// [`changed`](watch::Receiver::changed) says so: call this function again.
///
/// # Errors
/// When the socket cannot be opened or the first reading fails.
pub async fn watch() -> Result<watch::Receiver<Arc<Links>>, NetlinkError> {
    // First listen, then read: what changes in between is read twice rather than missed.
    let (mut connection, _, events) = connect()?;
    let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (*group as u32 - 1));
    connection.socket_mut().socket_mut().bind(&SocketAddr::new(0, groups))?;
    tokio::spawn(connection);
    // Lists have a connection of their own, so that a flood of events cannot break them.
    let (mut connection, handle, _) = connect()?;
    // Before Linux 4.20 the kernel checks no request strictly, and lists the routes of all tables:
    // more to read, with the same result.
    let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
    // That a list is not whole may stand on its last message only.
    connection.set_forward_done(true);
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(Arc::new(read(&handle).await?));
    tokio::spawn(follow(events, handle, sender));
    Ok(receiver)
}

fn connect() -> io::Result<(Connection<Message, TokioSocket>, Handle, Events)> {
    new_connection_with_socket(NETLINK_ROUTE)
}

async fn follow(mut events: Events, handle: Handle, sender: watch::Sender<Arc<Links>>) {
    loop {
        tokio::select! {
            () = sender.closed() => return,
            change = next_change(&mut events) => if change.is_none() { return },
        }
        let mut is_told = false;
        while let Err(error) = refresh(&handle, &sender).await {
            if !std::mem::replace(&mut is_told, true) {
                warn!(%error, "interfaces not read, keeping what was known until they are");
            }
            if sender.is_closed() || error.is_final() {
                return;
            }
            time::sleep(RETRY).await;
        }
    }
}

/// Waits for a change and for the others that come with it; `None` when the connection is closed.
async fn next_change(events: &mut Events) -> Option<()> {
    while !concerns_snapshot(&events.next().await?.0) {}
    time::sleep(SETTLE).await;
    while events.try_recv().is_ok() {}
    Some(())
}

fn concerns_snapshot(message: &NetlinkMessage<Message>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(Message(Some(event))) => decode::concerns_snapshot(event),
        // Events were lost: `Overrun`; anything else is rare and as good a reason.
        _ => true,
    }
}

async fn refresh(handle: &Handle, sender: &watch::Sender<Arc<Links>>) -> Result<(), NetlinkError> {
    let links = read(handle).await?;
    sender.send_if_modified(|current| {
        let differs = **current != links;
        if differs {
            *current = Arc::new(links);
        }
        differs
    });
    Ok(())
}

async fn read(handle: &Handle) -> Result<Links, NetlinkError> {
    time::timeout(READ_TIMEOUT, read_whole(handle)).await?
}

/// An interface that a list leaves out would be taken for one that is gone, and its addresses would move.
async fn read_whole(handle: &Handle) -> Result<Links, NetlinkError> {
    for _ in 0..TRIES {
        match read_lists(handle, Parts::All).await {
            Err(NetlinkError::Interrupted) => {}
            other => return other,
        }
    }
    read_lists(handle, Parts::Some).await
}

/// Which lists count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// Those in which nothing is missing.
    All,
    /// Others as well.
    Some,
}

async fn read_lists(handle: &Handle, parts: Parts) -> Result<Links, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links = list(handle, request, parts, |it| match it {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    let links = links.await?;
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses = list(handle, request, parts, |it| match it {
        RouteNetlinkMessage::NewAddress(address) => Some(address),
        _ => None,
    });
    let addresses = addresses.await?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        routes.extend(main_table(handle, family, parts).await?);
    }
    let mut snapshot = decode::snapshot(&links, &addresses, &routes);
    // The kernel does not say it by this protocol. Only cards are radios.
    let cards = snapshot.interfaces.iter_mut().filter(|it| it.kind.is_none());
    cards.for_each(|it| it.wireless = is_wireless(&it.name));
    Layers::new(&links, &snapshot.interfaces).settle(&mut snapshot);
    Ok(snapshot)
}

/// The routes of the main table; other tables are for some packets only.
async fn main_table(
    handle: &Handle,
    family: AddressFamily,
    parts: Parts,
) -> Result<Vec<RouteMessage>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    let routes = list(handle, RouteNetlinkMessage::GetRoute(request), parts, |it| match it {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    match routes.await {
        // The table is made together with its first route.
        Err(NetlinkError::Read(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

/// Everything that the kernel has of what `request` asks for, but for what cannot be read.
async fn list<T>(
    handle: &Handle,
    request: RouteNetlinkMessage,
    parts: Parts,
    wanted: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let mut request =
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(Message(Some(request))));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let kernel = SocketAddr::new(0, 0);
    let answers = handle.request(request, kernel).map_err(|_| NetlinkError::Closed)?;
    collected(answers, parts, wanted).await
}

async fn collected<T>(
    mut answers: impl Stream<Item = NetlinkMessage<Message>> + Unpin,
    parts: Parts,
    wanted: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let (mut found, mut is_whole) = (Vec::new(), true);
    while let Some(answer) = answers.next().await {
        is_whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(Message(message)) => {
                found.extend(message.and_then(&wanted));
            }
            NetlinkPayload::Error(error) => return Err(NetlinkError::Read(error.to_io())),
            NetlinkPayload::Overrun(_) => is_whole = false,
            _ => {}
        }
    }
    if is_whole || parts == Parts::Some { Ok(found) } else { Err(NetlinkError::Interrupted) }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DoneMessage;

    use super::*;

    #[tokio::test]
    async fn a_list_that_changed_while_the_kernel_made_it_does_not_count() {
        let link = || Message(Some(RouteNetlinkMessage::NewLink(LinkMessage::default())));
        let part = |payload, flags| {
            let mut part = NetlinkMessage::new(NetlinkHeader::default(), payload);
            part.header.flags = flags;
            part
        };
        let of = |flags: [u16; 2], parts| async move {
            let done = NetlinkPayload::Done(DoneMessage::default());
            let answers =
                [part(NetlinkPayload::InnerMessage(link()), flags[0]), part(done, flags[1])];
            let wanted = |_| Some(());
            collected(futures::stream::iter(answers), parts, wanted).await.map(|it| it.len())
        };
        assert!(matches!(of([0, 0], Parts::All).await, Ok(1)));
        for flags in [[NLM_F_DUMP_INTR, 0], [0, NLM_F_DUMP_INTR]] {
            let outcome = of(flags, Parts::All).await;
            assert!(matches!(outcome, Err(NetlinkError::Interrupted)), "{outcome:?}");
            assert!(matches!(of(flags, Parts::Some).await, Ok(1)));
        }
    }

    /// What Linux 4.18 does as well.
    #[tokio::test]
    async fn the_kernel_says_the_same_when_it_checks_nothing_strictly() {
        let (mut strict, strict_handle, _) = connect().unwrap();
        strict.socket_mut().socket_mut().set_netlink_get_strict_chk(true).unwrap();
        let (lenient, lenient_handle, _) = connect().unwrap();
        tokio::spawn(strict);
        tokio::spawn(lenient);
        // Something may change in between.
        for _ in 0..10 {
            let found = read(&lenient_handle).await.unwrap();
            assert!(!found.interfaces.is_empty());
            if read(&strict_handle).await.unwrap() == found {
                return;
            }
        }
        panic!("never the same");
    }
}
