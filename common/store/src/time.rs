//! The two clocks of the records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the machine started, suspends included: it never jumps, and run.db never outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime {
    /// Milliseconds since boot.
    pub millis: i64,
}

impl BootTime {
    /// The time now (`CLOCK_BOOTTIME`).
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self { millis: time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000) }
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, age: Duration) -> Self {
        let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Self { millis: self.millis.saturating_sub(millis) }
    }
}

/// Wall-clock time, milliseconds since 1970, for people to read; nothing is decided by it.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
