//! Bob Jenkins' hash (lookup3, 2006), as `linux/jhash.h` and so `nf_tables` compute it.

use core::net::IpAddr;

use alloc::vec::Vec;

use crate::packet::{BUCKETS, SpreadBy};

const INITIAL: u32 = 0xdead_beef;

/// The hash of `key`, as on the little-endian machines that Kubernetes runs on: the kernel takes words in its own order.
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    // The kernel counts in 32 bits, too.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let start = INITIAL.wrapping_add(length).wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest = key;
    while rest.len() > 12 {
        let (block, after) = rest.split_at(12);
        add(&mut state, block);
        mix(&mut state);
        rest = after;
    }
    if !rest.is_empty() {
        add(&mut state, rest);
        finish(&mut state);
    }
    state[2]
}

/// The bucket of a client: what `nf_tables` computes for `jhash KEY mod 1024 seed SEED`.
pub fn bucket(by: SpreadBy, seed: u32, client: IpAddr, port: u16) -> u16 {
    let hash = u64::from(jhash(&key(by, client, port), seed));
    // `reciprocal_scale` of `linux/kernel.h`. Always less than 1024.
    u16::try_from((hash * u64::from(BUCKETS)) >> 32).unwrap_or_default()
}

fn key(by: SpreadBy, client: IpAddr, port: u16) -> Vec<u8> {
    let mut key = match client {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if by == SpreadBy::ClientAndPort {
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
    }
    key
}

/// Adds up to twelve bytes. What is missing counts as zero.
fn add(state: &mut [u32; 3], bytes: &[u8]) {
    for (word, chunk) in state.iter_mut().zip(bytes.chunks(4)) {
        let mut whole = [0; 4];
        whole.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        *word = word.wrapping_add(u32::from_le_bytes(whole));
    }
}

/// `__jhash_mix`.
fn mix([a, b, c]: &mut [u32; 3]) {
    turn(a, c, *b, 4);
    turn(b, a, *c, 6);
    turn(c, b, *a, 8);
    turn(a, c, *b, 16);
    turn(b, a, *c, 19);
    turn(c, b, *a, 4);
}

fn turn(x: &mut u32, y: &mut u32, z: u32, by: u32) {
    *x = x.wrapping_sub(*y) ^ y.rotate_left(by);
    *y = y.wrapping_add(z);
}

/// `__jhash_final`.
fn finish([a, b, c]: &mut [u32; 3]) {
    fold(c, *b, 14);
    fold(a, *c, 11);
    fold(b, *a, 25);
    fold(c, *b, 16);
    fold(a, *c, 4);
    fold(b, *a, 14);
    fold(c, *b, 24);
}

fn fold(x: &mut u32, y: u32, by: u32) {
    *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    /// Those that Jenkins gives with lookup3.c (`driver5`), of `hashlittle`, which `linux/jhash.h` is.
    #[test]
    fn it_is_lookup3() {
        let speech = b"Four score and seven years ago";
        let table: [(&[u8], u32, u32); 5] = [
            (b"", 0, 0xdead_beef),
            (b"", 0xdead_beef, 0xbd5b_7dde),
            (speech, 0, 0x1777_0551),
            (speech, 1, 0xcd62_8161),
            (b"", 1, 0xdead_bef0),
        ];
        for (key, seed, expected) in table {
            assert_eq!(jhash(key, seed), expected, "{key:?} {seed:x}");
        }
    }

    /// `linux/jhash.h` line by line: bytes one by one, in the order of its `switch`.
    fn written_out(key: &[u8], seed: u32) -> u32 {
        let word = |at: usize| {
            (0..4).map(|n| u32::from(key[at + n]) << (8 * n)).fold(0u32, u32::wrapping_add)
        };
        let length = u32::try_from(key.len()).unwrap();
        let (mut a, mut b, mut c) = (0, 0, 0);
        for it in [&mut a, &mut b, &mut c] {
            *it = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
        }
        let mut at = 0;
        while key.len() - at > 12 {
            a = a.wrapping_add(word(at));
            b = b.wrapping_add(word(at + 4));
            c = c.wrapping_add(word(at + 8));
            a = a.wrapping_sub(c);
            a ^= c.rotate_left(4);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a);
            b ^= a.rotate_left(6);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b);
            c ^= b.rotate_left(8);
            b = b.wrapping_add(a);
            a = a.wrapping_sub(c);
            a ^= c.rotate_left(16);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a);
            b ^= a.rotate_left(19);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b);
            c ^= b.rotate_left(4);
            b = b.wrapping_add(a);
            at += 12;
        }
        let left = key.len() - at;
        if left == 0 {
            return c;
        }
        for n in (0..left).rev() {
            let byte = u32::from(key[at + n]) << (8 * (n % 4));
            let to = [&mut a, &mut b, &mut c].into_iter().nth(n / 4).unwrap();
            *to = to.wrapping_add(byte);
        }
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        (c ^ b).wrapping_sub(b.rotate_left(24))
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_the_kernels_source_says(key: [u8; 40], length in 0usize..=40, seed: u32) {
            let key = &key[..length];
            proptest::prop_assert_eq!(jhash(key, seed), written_out(key, seed));
        }
    }

    #[test]
    fn a_key_is_what_stands_in_the_registers() {
        let v4 = IpAddr::from([10, 1, 2, 3]);
        assert_eq!(key(SpreadBy::Client, v4, 40000), [10, 1, 2, 3]);
        assert_eq!(key(SpreadBy::ClientAndPort, v4, 40000), [10, 1, 2, 3, 0x9c, 0x40, 0, 0]);
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let mut expected = vec![0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(key(SpreadBy::Client, v6, 1), expected);
        expected.extend([0, 1, 0, 0]);
        assert_eq!(key(SpreadBy::ClientAndPort, v6, 1), expected);
    }

    #[test]
    fn clients_fall_evenly_into_buckets() {
        let mut counts = vec![0u32; usize::from(BUCKETS)];
        for port in 1024..=u16::MAX {
            let client = IpAddr::from([10, 1, 2, 3]);
            counts[usize::from(bucket(SpreadBy::ClientAndPort, 7, client, port))] += 1;
        }
        assert!(counts.iter().all(|count| (25..110).contains(count)), "{counts:?}");
    }
}
