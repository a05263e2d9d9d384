//! Quantities with their units: durations, sizes, rates, percentages. A number without its unit is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text_type;

/// What is wrong with a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing, or no number at its start.
    #[error("it must start with a number")]
    NoNumber,
    /// A number alone.
    #[error("its unit is missing ({0})")]
    NoUnit(&'static str),
    /// A unit that is not known.
    #[error("the unit `{0}` is not known ({1})")]
    UnknownUnit(String, &'static str),
    /// Out of range.
    #[error("{0}")]
    Range(&'static str),
}

fn split_number(text: &str) -> Result<(f64, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| UnitError::NoNumber)?;
    Ok((number, unit.trim()))
}

/// A duration: `200ms`, `1.5s`, `1m30s`, `2h`. Units: ns, us, ms, s, m, h, d.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(pub Duration);

const DURATION_UNITS: &str = "ns, us, ms, s, m, h or d";

impl FromStr for Dur {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut nanos = 0f64;
        if rest.is_empty() {
            return Err(UnitError::NoNumber);
        }
        while !rest.is_empty() {
            let (number, after) = split_number(rest)?;
            let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            nanos += number
                * match unit {
                    "ns" => 1.0,
                    "us" | "µs" => 1e3,
                    "ms" => 1e6,
                    "s" => 1e9,
                    "m" => 60e9,
                    "h" => 3600e9,
                    "d" => 86_400e9,
                    "" if number == 0.0 && next.is_empty() => 0.0,
                    "" => return Err(UnitError::NoUnit(DURATION_UNITS)),
                    other => return Err(UnitError::UnknownUnit(other.into(), DURATION_UNITS)),
                };
            rest = next.trim_start();
        }
        const MAX_NANOS: f64 = 365.0 * 86_400e9;
        if nanos > MAX_NANOS {
            return Err(UnitError::Range("a year is the longest"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be within 0 and a year"
        )]
        let nanos = nanos.round() as u64;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let units: [(u128, &str); 5] =
            [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (i, (size, unit)) in units.into_iter().enumerate() {
            if nanos.is_multiple_of(size) {
                return write!(f, "{}{unit}", nanos / size);
            }
            // 90 s reads better as 1m30s than as 90s; 1.5 s stays 1500ms.
            if i < 2 && nanos > size && nanos.is_multiple_of(1_000_000_000) {
                let rest = Self(Duration::from_nanos(u64::try_from(nanos % size).unwrap_or(u64::MAX)));
                return write!(f, "{}{unit}{rest}", nanos / size);
            }
        }
        write!(f, "{nanos}ns")
    }
}

text_type!(Dur, "a duration", "200ms");

/// An amount of bytes: `512MiB`, `10MB`, `4096B`. Units: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SIZE_UNITS: &str = "B, kB, MB, GB, TB, KiB, MiB, GiB or TiB";

fn size_factor(unit: &str) -> Option<f64> {
    Some(match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    })
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text)?;
        if unit.is_empty() && number != 0.0 {
            return Err(UnitError::NoUnit(SIZE_UNITS));
        }
        let factor = if unit.is_empty() {
            1.0
        } else {
            size_factor(unit).ok_or_else(|| UnitError::UnknownUnit(unit.into(), SIZE_UNITS))?
        };
        let bytes = number * factor;
        if bytes >= 9e18 {
            return Err(UnitError::Range("it is more than any machine has"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 0 and 9e18")]
        let bytes = bytes.round() as u64;
        Ok(Self(bytes))
    }
}

impl Size {
    /// Whether it is an amount as one writes it with powers of 1000: a whole number of MB and not of MiB.
    pub fn is_decimal(self) -> bool {
        const MB: u64 = 1_000_000;
        self.0 >= MB && self.0.is_multiple_of(MB) && !self.0.is_multiple_of(1 << 20)
    }

    /// In units of the family in which another amount is written: what is measured beside what was asked for.
    pub fn beside(self, asked: Self) -> String {
        if asked.is_decimal() { self.decimal() } else { self.to_string() }
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
    fn decimal(self) -> String {
        let bytes = self.0 as f64;
        for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
            if bytes >= unit {
                return format!("{}{name}", short(bytes / unit));
            }
        }
        format!("{}B", self.0)
    }
}

impl fmt::Display for Size {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_decimal() {
            let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB")];
            let (unit, name) = units.into_iter().find(|u| self.0.is_multiple_of(u.0)).unwrap_or((1, "B"));
            return write!(f, "{}{name}", self.0 / unit);
        }
        for (unit, name) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= unit {
                return if self.0.is_multiple_of(unit) {
                    write!(f, "{}{name}", self.0 / unit)
                } else {
                    write!(f, "{:.2}{name}", self.0 as f64 / unit as f64)
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

text_type!(Size, "an amount of bytes", "512MiB");

/// A data rate in bytes per second: `1MB/s`, `500KiB/s`, or in bits: `10Mbit/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(pub f64);

const RATE_UNITS: &str = "kB/s, MB/s, GB/s, KiB/s, MiB/s, kbit/s, Mbit/s or Gbit/s";

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text)?;
        let factor = match unit {
            "" => return Err(UnitError::NoUnit(RATE_UNITS)),
            "bit/s" => 0.125,
            "kbit/s" => 125.0,
            "Mbit/s" => 125_000.0,
            "Gbit/s" => 125_000_000.0,
            _ => unit
                .strip_suffix("/s")
                .and_then(size_factor)
                .ok_or_else(|| UnitError::UnknownUnit(unit.into(), RATE_UNITS))?,
        };
        if number <= 0.0 {
            return Err(UnitError::Range("a rate of nothing is a partition: use network-partition"));
        }
        Ok(Self(number * factor))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")] {
            if self.0 >= unit {
                return write!(f, "{}{name}", crate::units::short(self.0 / unit));
            }
        }
        write!(f, "{}B/s", short(self.0))
    }
}

text_type!(Rate, "a data rate", "1MB/s");

/// A percentage from 0 to 100: `50%`, `99.9%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// The share that a percentage stands for, from 0 to 1.
pub type Share = f64;

impl Percent {
    /// As a share from 0 to 1.
    pub fn share(self) -> Share {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text)?;
        match unit {
            "%" if number <= 100.0 => Ok(Self(number)),
            "%" => Err(UnitError::Range("it is more than 100%")),
            "" => Err(UnitError::NoUnit("write 50%")),
            other => Err(UnitError::UnknownUnit(other.into(), "write 50%")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", short(self.0))
    }
}

text_type!(Percent, "a percentage", "50%");

/// A number with as many digits as a reader needs: up to three decimals, no trailing zeros.
pub fn short(number: f64) -> String {
    let decimals = if number.abs() >= 100.0 {
        1
    } else if number.abs() >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

macro_rules! serde_as_text {
    ($($ty:ty),*) => {$(
        impl Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Dur, Size, Rate, Percent);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis, shown) in [
            ("200ms", 200, "200ms"),
            ("1.5s", 1500, "1500ms"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("2h", 7_200_000, "2h"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("0", 0, "0s"),
        ] {
            let dur: Dur = text.parse().unwrap();
            assert_eq!(dur.0.as_millis(), millis, "{text}");
            assert_eq!(dur.to_string(), shown, "{text}");
            assert_eq!(dur.to_string().parse::<Dur>().unwrap(), dur);
        }
        assert_eq!("5".parse::<Dur>().unwrap_err().to_string(), "its unit is missing (ns, us, ms, s, m, h or d)");
        assert!("-5s".parse::<Dur>().is_err());
        assert!("5 sec".parse::<Dur>().unwrap_err().to_string().contains("`sec`"));
        assert!("".parse::<Dur>().is_err());
        assert!("9999999d".parse::<Dur>().is_err());
    }

    #[test]
    fn sizes_rates_and_percentages_read_and_print() {
        assert_eq!("512MiB".parse::<Size>().unwrap().0, 512 << 20);
        assert_eq!("10MB".parse::<Size>().unwrap().0, 10_000_000);
        assert!("10".parse::<Size>().is_err());
        for (text, shown) in
            [("100MiB", "100MiB"), ("100MB", "100MB"), ("1GB", "1GB"), ("16.5GB", "16500MB"), ("1.5GiB", "1.50GiB")]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string(), shown);
            assert_eq!(shown.parse::<Size>().unwrap(), size);
        }
        assert_eq!(Size(99_500_000).beside("100MB".parse().unwrap()), "99.5MB");
        assert_eq!(Size(99 << 20).beside("100MiB".parse().unwrap()), "99MiB");
        assert!((("10Mbit/s".parse::<Rate>().unwrap().0) - 1_250_000.0).abs() < 1e-6);
        assert_eq!("1MB/s".parse::<Rate>().unwrap().to_string(), "1MB/s");
        assert_eq!("99.9%".parse::<Percent>().unwrap().to_string(), "99.9%");
        assert!("101%".parse::<Percent>().is_err());
        assert!("50".parse::<Percent>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn every_duration_survives_its_text(nanos in 0u64..86_400_000_000_000) {
            let dur = Dur(Duration::from_nanos(nanos));
            let read: Dur = dur.to_string().parse().unwrap();
            // Above 2^53 ns a float would round; a day is below.
            proptest::prop_assert_eq!(read, dur);
        }
    }
}
