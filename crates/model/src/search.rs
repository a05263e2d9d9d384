//! Parameters that a search varies: quantities that keep their unit.

use crate::experiment::FaultItem;
use crate::field::{Field, Type};
use crate::kind::Tables;
use crate::node::{Node, Value};
use crate::parse::resolve_plain;
use crate::units::{Dur, Percent, Rate, Size, short};

/// What a quantity counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number alone.
    Plain,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Percent.
    Percent,
}

/// A number that knows how to be written again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    /// The number, in the unit's base.
    pub number: f64,
    /// What it counts.
    pub unit: Unit,
}

/// Units of sizes, the largest first.
const BINARY: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

impl Quantity {
    /// Reads a quantity as it stands in a manifest.
    #[expect(clippy::cast_precision_loss, reason = "a searched value needs no 53 bits")]
    pub fn read(text: &str) -> Option<Self> {
        let new = |number, unit| Some(Self { number, unit });
        if let Ok(n) = text.trim().parse::<f64>() {
            return if n.is_finite() { new(n, Unit::Plain) } else { None };
        }
        if let Ok(d) = text.parse::<Dur>() {
            return new(d.0.as_nanos() as f64, Unit::Time);
        }
        if let Ok(p) = text.parse::<Percent>() {
            return new(p.0, Unit::Percent);
        }
        if let Ok(s) = text.parse::<Size>() {
            return new(s.0 as f64, Unit::Bytes);
        }
        text.parse::<Rate>().ok().and_then(|r| new(r.0, Unit::BytesPerSecond))
    }

    /// The same unit with another number, rounded to three significant digits, or to whole KiB, MiB or GiB of which it has
    /// ten or more: nobody asks for 237.118 ms.
    #[expect(clippy::cast_precision_loss, reason = "powers of two")]
    pub fn with(self, number: f64) -> Self {
        if number <= 0.0 {
            return Self { number: 0.0, ..self };
        }
        if self.unit == Unit::Bytes {
            let unit = BINARY.iter().map(|(size, _)| *size as f64).find(|size| number >= size * 10.0).unwrap_or(1.0);
            return Self { number: (number / unit).round() * unit, ..self };
        }
        let scale = 10f64.powf(2.0 - number.log10().floor());
        Self { number: (number * scale).round() / scale, ..self }
    }
}

impl std::fmt::Display for Quantity {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and within u64")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unit {
            Unit::Plain => f.write_str(&short(self.number)),
            Unit::Time => Dur(std::time::Duration::from_nanos(self.number.round() as u64)).fmt(f),
            Unit::Bytes => {
                let bytes = self.number.round() as u64;
                match BINARY.iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size)) {
                    Some((size, name)) => write!(f, "{}{name}", bytes / size),
                    None => write!(f, "{bytes}B"),
                }
            }
            Unit::BytesPerSecond => Rate(self.number).fmt(f),
            Unit::Percent => Percent(self.number).fmt(f),
        }
    }
}

/// The faults that have a parameter of this name, with the parameter's own name. `name.delay` names the fault too.
pub fn targets<'f>(faults: &[&'f FaultItem], parameter: &str, tables: &Tables) -> Vec<(&'f FaultItem, String)> {
    let (of, name) = match parameter.split_once('.') {
        Some((of, name)) => (Some(of), name),
        None => (None, parameter),
    };
    let has = |fault: &&&FaultItem| {
        of.is_none_or(|of| fault.name() == of)
            && tables.fault(&fault.kind).is_some_and(|spec| (spec.spec.fields)().iter().any(|f| f.key == name))
    };
    faults.iter().filter(has).map(|f| (*f, name.to_owned())).collect()
}

/// A parameter's value from text: a number where the field is one.
pub fn value_for(fields: &[Field], name: &str, text: &str) -> Node {
    let is_text = fields.iter().any(|f| f.key == name && matches!(f.ty, Type::Text { .. } | Type::Choice(_)));
    Node::bare(if is_text { Value::Text(text.into()) } else { resolve_plain(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_keep_their_unit() {
        for (text, shown) in
            [("200ms", "200ms"), ("10%", "10%"), ("1MiB", "1MiB"), ("1500B", "1500B"), ("1MB/s", "1MB/s"), ("3", "3")]
        {
            let q = Quantity::read(text).unwrap();
            assert_eq!(q.to_string(), shown);
            assert_eq!(Quantity::read(&q.to_string()), Some(q));
        }
        let mid = Quantity::read("50ms").unwrap().with(237_118_433.0);
        assert_eq!(mid.to_string(), "237ms");
        let size = |number: f64| Quantity::read("1MiB").unwrap().with(number).to_string();
        assert_eq!([size(58.72e6), size(1.5e9), size(5.6e6), size(999.4)], ["56MiB", "1431MiB", "5469KiB", "999B"]);
        assert_eq!(Quantity::read("fast"), None);
    }
}
