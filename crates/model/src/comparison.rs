//! `< 300ms`, `>= 99%`, `== ready`, `5..10`: what a value is held against.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text_type;
use crate::units::{Dur, Percent, Size};

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `a..b`, both included.
    Within,
}

/// A comparison as it is written in a tolerance.
///
/// Quantities are compared as numbers: durations in milliseconds, sizes in bytes, percentages in percent. What is not
/// a number is compared as text, and only for being equal or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    text: String,
    op: Op,
    operand: Operand,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Number(f64),
    Range(f64, f64),
    Text(String),
}

/// Reads a quantity as the number it is compared by, and its unit's family.
fn quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(n) = text.parse::<f64>() {
        return n.is_finite().then_some(n);
    }
    if let Ok(dur) = text.parse::<Dur>() {
        return Some(dur.0.as_secs_f64() * 1e3);
    }
    if let Ok(percent) = text.parse::<Percent>() {
        return Some(percent.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a size beyond 2^53 bytes is not compared to the byte")]
    text.parse::<Size>().ok().map(|s| s.0 as f64)
}

impl FromStr for Comparison {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        if let Some((low, high)) = trimmed.split_once("..") {
            let (Some(low), Some(high)) = (quantity(low), quantity(high.trim_start_matches('='))) else {
                return Err("a range has a quantity on both sides, as in 5..10".into());
            };
            if low > high {
                return Err("the range is empty: its first value is the larger one".into());
            }
            return Ok(Self { text: trimmed.into(), op: Op::Within, operand: Operand::Range(low, high) });
        }
        let ops = [
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("==", Op::Equal),
            ("!=", Op::NotEqual),
            ("<", Op::Less),
            (">", Op::More),
            ("=", Op::Equal),
        ];
        let (op, rest) = ops
            .iter()
            .find_map(|(sign, op)| trimmed.strip_prefix(sign).map(|rest| (*op, rest.trim())))
            .unwrap_or((Op::Equal, trimmed));
        if rest.is_empty() {
            return Err("there is nothing to compare with".into());
        }
        let operand = match quantity(rest) {
            Some(n) => Operand::Number(n),
            None if matches!(op, Op::Equal | Op::NotEqual) => Operand::Text(rest.into()),
            None => return Err(format!("`{rest}` is not a quantity, and text is only equal or not")),
        };
        Ok(Self { text: trimmed.into(), op, operand })
    }
}

impl Comparison {
    /// How it compares.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The number compared with; for a range its upper end; `None` for text.
    pub fn bound(&self) -> Option<f64> {
        match self.operand {
            Operand::Number(n) | Operand::Range(_, n) => Some(n),
            Operand::Text(_) => None,
        }
    }

    /// Whether a number passes. A number never equals text, and NaN passes nothing but `!=`.
    pub fn holds(&self, value: f64) -> bool {
        match (&self.operand, self.op) {
            (Operand::Range(low, high), _) => (*low..=*high).contains(&value),
            (Operand::Number(n), Op::Less) => value < *n,
            (Operand::Number(n), Op::AtMost) => value <= *n,
            (Operand::Number(n), Op::More) => value > *n,
            (Operand::Number(n), Op::AtLeast) => value >= *n,
            (Operand::Number(n), Op::Equal) => (value - n).abs() <= f64::EPSILON * n.abs().max(1.0),
            (Operand::Number(n), Op::NotEqual) => (value - n).abs() > f64::EPSILON * n.abs().max(1.0) || value.is_nan(),
            (Operand::Number(_), Op::Within) => false,
            (Operand::Text(_), op) => op == Op::NotEqual,
        }
    }

    /// Whether a text passes: as a quantity where it is one and a quantity is asked for, else as text.
    pub fn holds_text(&self, value: &str) -> bool {
        match &self.operand {
            Operand::Text(text) => (value.trim() == text) == (self.op == Op::Equal),
            _ => match quantity(value) {
                Some(n) => self.holds(n),
                None => self.op == Op::NotEqual,
            },
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Comparison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Comparison {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

text_type!(Comparison, "a comparison", "\"< 300ms\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> Comparison {
        text.parse().unwrap()
    }

    #[test]
    fn quantities_compare_in_their_units() {
        assert!(c("< 300ms").holds(299.0) && !c("< 300ms").holds(300.0));
        assert!(c("<= 1s").holds(1000.0));
        assert!(c(">= 99%").holds(99.0));
        assert!(c("5..10").holds(10.0) && !c("5..10").holds(10.1));
        assert!(c("42").holds(42.0) && c("!= 0").holds(1.0));
        assert!(c("< 1MiB").holds(1_048_575.0));
        assert!(!c("< 1").holds(f64::NAN) && !c(">= 0").holds(f64::NAN) && !c("0..1").holds(f64::NAN));
    }

    #[test]
    fn text_is_equal_or_not() {
        assert!(c("ready").holds_text(" ready\n") && c("!= ready").holds_text("no"));
        assert!(c("> 5").holds_text("7") && !c("> 5").holds_text("many"));
        assert!("< abc".parse::<Comparison>().is_err());
        assert!("10..5".parse::<Comparison>().is_err());
        assert!("<".parse::<Comparison>().is_err());
    }
}
