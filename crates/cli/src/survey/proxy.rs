//! What this node's kube-proxy and its kernel say of themselves. Both can be asked from the node only.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Where kube-proxy serves its metrics and its mode, unless told otherwise (`metricsBindAddress`).
const PORT: u16 = 10_249;

const PATIENCE: Duration = Duration::from_millis(500);

/// `iptables`, `ipvs` or `nftables`, as this node's kube-proxy says.
pub(super) fn mode() -> Option<String> {
    let addresses: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()];
    addresses.into_iter().find_map(|address| word(&ask(address)?))
}

fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(4_096).read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The word in an answer's body.
fn word(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_good = head.lines().next()?.split(' ').nth(1) == Some("200");
    let word = body.trim();
    let is_word = !word.is_empty() && word.chars().all(|it| it.is_ascii_alphanumeric());
    (is_good && is_word).then(|| word.to_owned())
}

/// Whether the kernel answers ARP only for addresses of the interface that was asked on.
pub(super) fn strict_arp() -> Option<bool> {
    let value = fs::read_to_string("/proc/sys/net/ipv4/conf/all/arp_ignore").ok()?;
    Some(value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_is_a_mode() {
        let table = [
            ("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nipvs", Some("ipvs")),
            ("HTTP/1.0 404 Not Found\r\n\r\nnothing", None),
            ("HTTP/1.0 200 OK\r\n\r\n<html>", None),
            ("HTTP/1.0 200 OK\r\n\r\n", None),
            ("nonsense", None),
        ];
        for (answer, expected) in table {
            assert_eq!(word(answer).as_deref(), expected, "{answer}");
        }
    }
}
