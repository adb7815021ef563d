//! Which interfaces are radios.

use std::path::Path;

/// Whether the interface with this name is wireless, as far as the kernel says (`phy80211` of
/// `/sys/class/net`, `wireless` of older drivers).
///
/// The chips of many of them let in only what they think that this machine wants, and are wrong:
/// broadcasts get lost while they save power, and questions for an address that the machine does not
/// have itself are filtered (Raspberry Pi). See
/// [`FrameSocket::hear_everything`](crate::packet::FrameSocket::hear_everything).
pub(super) fn is_wireless(name: &str) -> bool {
    is_wireless_below(Path::new("/sys/class/net"), name)
}

fn is_wireless_below(root: &Path, name: &str) -> bool {
    ["phy80211", "wireless"].iter().any(|mark| root.join(name).join(mark).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No radio is at hand; this is what its folder looks like.
    #[test]
    fn a_radio_has_a_phy() {
        let root = std::env::temp_dir().join(format!("arpeggio-radio-{}", std::process::id()));
        for folder in ["wlan0/phy80211", "wlan1/wireless", "eth0/queues"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let found = ["wlan0", "wlan1", "eth0", "eth1"].map(|it| is_wireless_below(&root, it));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [true, true, false, false]);
    }
}
