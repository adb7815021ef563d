//! The clock that freshness is judged by.

use std::time::Duration;

/// The time since boot, suspended time included (`CLOCK_BOOTTIME`).
///
/// It never goes backwards and no one can set it, unlike the wall clock; and it goes on while the
/// machine sleeps, unlike [`std::time::Instant`] on Linux. So a process that was paused, or whose
/// machine was suspended, sees how much time has really gone by. Values of different machines have
/// nothing in common.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code)]
    // SAFETY: `time` is a valid, writable timespec for the duration of the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    // Fails only for an unknown clock or a bad pointer; every kernel since 2.6.39 has this clock.
    debug_assert_eq!(status, 0);
    // 32 bit machines keep less than 64 bit of it.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds(&time))
}

/// The kernel keeps this field below one second.
fn nanoseconds(time: &libc::timespec) -> u32 {
    u32::try_from(time.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_uptime_and_never_goes_back() {
        let first = now();
        let uptime: f64 = std::fs::read_to_string("/proc/uptime")
            .unwrap()
            .split_once(' ')
            .unwrap()
            .0
            .parse()
            .unwrap();
        // Both count from boot with suspended time; /proc/uptime has hundredths of a second.
        assert!((uptime - first.as_secs_f64()).abs() < 1.0);
        assert!(now() >= first);
    }
}
