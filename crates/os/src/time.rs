//! The kernel's clocks that only go forward, and the name of the current boot.

use std::{fmt, str::FromStr, sync::OnceLock, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result, error::Context};

/// CLOCK_MONOTONIC: the time since an unnamed start. It stands still while the machine sleeps.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// CLOCK_BOOTTIME: the time since boot, the machine's sleep included. What a deadline is kept in, because a fault must
/// not last longer on a laptop whose lid was closed. Comparable between processes of one boot.
pub fn boottime() -> Duration {
    read(ClockId::Boottime)
}

fn read(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    // Neither clock is ever negative, and nanoseconds are below 10^9.
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// CLOCK_REALTIME, the wall clock, since 1970: a label, and what a clock's fault changes.
pub fn wall() -> Duration {
    let t = clock_gettime(ClockId::Realtime);
    // Before 1970 it is as wrong as at 1970.
    Duration::new(u64::try_from(t.tv_sec).unwrap_or_default(), t.tv_nsec as u32)
}

/// How the kernel runs its wall clock, see adjtimex(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discipline {
    /// Microseconds by which the clock goes on at each tick of 1/100 s: 10,000, except where somebody bends it.
    pub tick: i64,
    /// By how much the frequency is corrected, in parts per million.
    pub parts_per_million: i64,
}

/// Reads how the wall clock is run. Changes nothing.
#[expect(unsafe_code, reason = "adjtimex has no wrapper in rustix or nix")]
pub fn discipline() -> Result<Discipline> {
    // SAFETY: all of its fields are numbers, for which zero is a value; no modes are set, so nothing is changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a whole `timex`.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(std::io::Error::last_os_error()).cannot(|| "ask how the clock is run");
    }
    // The frequency is in parts per million with 16 bits behind the point.
    Ok(Discipline { tick: timex.tick, parts_per_million: timex.freq >> 16 })
}

/// What the machine's battery clock says, since 1970, if it has one that is kept in UTC.
pub fn battery_clock() -> Option<Duration> {
    if std::fs::read_to_string("/etc/adjtime").is_ok_and(|text| text.lines().any(|line| line.trim() == "LOCAL")) {
        return None;
    }
    let text = std::fs::read_to_string("/sys/class/rtc/rtc0/since_epoch").ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// One boot of one machine, from `/proc/sys/kernel/random/boot_id`. Reads and writes as the kernel's UUID text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(u128);

/// The current boot. Read once per process: it cannot change while we live.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn boot_id() -> Result<BootId> {
    static CURRENT: OnceLock<BootId> = OnceLock::new();
    if let Some(id) = CURRENT.get() {
        return Ok(*id);
    }
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
    let id = text.trim().parse()?;
    Ok(*CURRENT.get_or_init(|| id))
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl FromStr for BootId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::malformed("a boot id", format!("{text:?} is not a UUID")));
        }
        u128::from_str_radix(&hex, 16).map(Self).map_err(|e| Error::malformed("a boot id", format!("{text:?}: {e}")))
    }
}

impl Serialize for BootId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward_and_boottime_is_not_behind_uptime() {
        let (m, b) = (monotonic(), boottime());
        assert!(monotonic() >= m && boottime() >= b);
        let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc is mounted");
        let uptime: f64 = uptime.split(' ').next().expect("a first field").parse().expect("seconds");
        assert!((uptime - b.as_secs_f64()).abs() < 5.0, "uptime {uptime} s, boottime {b:?}");
    }

    #[test]
    fn the_boot_id_reads_back_as_the_kernel_writes_it() {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is mounted");
        let id = boot_id().expect("readable");
        assert_eq!(id.to_string(), kernel.trim());
        assert_eq!(id.to_string().parse::<BootId>().expect("own text"), id);
    }

    #[test]
    fn text_that_is_no_uuid_is_refused() {
        for text in ["", "1234", "zz61b0a2-6f0e-4a6e-9a5e-6d7f0c1b2a3d", "+161b0a2-6f0e-4a6e-9a5e-6d7f0c1b2a3d"] {
            assert!(text.parse::<BootId>().is_err(), "{text}");
        }
    }
}
