//! The clock on the wall, by its distance from the clock since the boot, which nobody can set.

use std::time::Duration;

use super::{Class, Facts, Place};

/// The class.
pub(super) struct Clock;

/// What a time service may correct meanwhile, and what passes between the two readings.
const TOLERANCE_MS: i128 = 250;

impl Class for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let boot = toprope_os::time::boottime();
        let wall = Duration::try_from(wall).map_err(|_| "the clock is before 1970".to_owned())?;
        let offset = wall.as_millis().cast_signed() - boot.as_millis().cast_signed();
        Ok(Facts::from([("wall clock minus time since boot".into(), format!("{offset} ms"))]))
    }

    fn same(&self, before: &str, after: &str) -> bool {
        let ms = |text: &str| text.trim_end_matches(" ms").parse::<i128>().ok();
        match (ms(before), ms(after)) {
            (Some(before), Some(after)) => (before - after).abs() <= TOLERANCE_MS,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_was_corrected() {
        assert!(Clock.same("1000 ms", "1100 ms") && Clock.same("1000 ms", "900 ms"));
        assert!(!Clock.same("1000 ms", "2000 ms") && !Clock.same("1000 ms", "-1000 ms"));
    }
}
