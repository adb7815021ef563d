//! What tcpdump says of our frames.

use std::{fs, process::Command};

/// Words by which tcpdump complains.
const COMPLAINTS: [&str; 8] =
    ["bad", "wrong", "truncated", "[|", "incorrect", "invalid", "unknown", "malformed"];

/// Has tcpdump decode frames, in all detail, and fails if it finds fault with one.
pub(super) fn check_decoded(frames: &[Vec<u8>]) {
    assert!(!frames.is_empty());
    let name = format!("arpeggio-{}-{}.pcap", std::process::id(), frames[0][12]);
    let file = std::env::temp_dir().join(name);
    fs::write(&file, capture(frames)).unwrap();
    let tcpdump = Command::new("tcpdump").args(["-nn", "-e", "-vvv", "-r"]).arg(&file).output();
    fs::remove_file(&file).unwrap();
    let tcpdump = tcpdump.expect("install tcpdump");
    let said = String::from_utf8(tcpdump.stdout).unwrap();
    assert!(tcpdump.status.success(), "{}", String::from_utf8_lossy(&tcpdump.stderr));
    let packets = said.lines().filter(|line| line.contains("ethertype")).count();
    assert_eq!(packets, frames.len(), "{said}");
    for line in said.lines() {
        let complaint = COMPLAINTS.iter().find(|it| line.to_lowercase().contains(**it));
        assert_eq!(complaint, None, "{line}");
    }
    println!("tcpdump decodes {packets} frames without complaint");
}

/// A capture file (pcap 2.4, Ethernet).
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let mut bytes: Vec<u8> = header.iter().flat_map(|it| it.to_le_bytes()).collect();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        let record: [u32; 4] = [0, 0, length, length];
        bytes.extend(record.iter().flat_map(|it| it.to_le_bytes()));
        bytes.extend(frame);
    }
    bytes
}
