//! How much of something limited to take: an amount, or up to a percentage of it being used.

use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_model::step::Measure;
use toprope_model::{Node, Percent, Problems, Size};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Extent {
    /// So many bytes.
    Amount(Size),
    /// What is missing until so much is used.
    Percent(Percent),
}

/// Something limited, in bytes, as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stock {
    /// What it is, in words: `memory`.
    pub(crate) name: &'static str,
    /// What can be used in all.
    pub(crate) total: u64,
    /// What is used, by the fault too.
    pub(crate) used: u64,
    /// What can still be taken.
    pub(crate) available: u64,
    /// What must stay available.
    pub(crate) reserve: Size,
    /// What the fault has taken so far.
    pub(crate) held: u64,
}

/// What the fault has to hold in the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Goal {
    /// In bytes.
    pub(crate) bytes: u64,
    /// Why that is not all that was asked for.
    pub(crate) warning: Option<String>,
}

impl Extent {
    /// What two parameters ask for; `None` unless exactly one is given.
    pub(crate) fn of(amount: Option<Size>, percent: Option<Percent>) -> Option<Self> {
        match (amount, percent) {
            (Some(amount), None) => Some(Self::Amount(amount)),
            (None, Some(percent)) => Some(Self::Percent(percent)),
            _ => None,
        }
    }

    /// The percentage, if that was asked for.
    pub(crate) fn percent(self) -> Option<Percent> {
        match self {
            Self::Amount(_) => None,
            Self::Percent(percent) => Some(percent),
        }
    }

    /// How much was taken of how much, measured in units of the family in which it was asked for.
    pub(crate) fn measure(self, name: &str, goal: u64, taken: u64) -> Measure {
        let (unit, bytes) = match self {
            Self::Amount(asked) if asked.is_decimal() => ("MB", 1e6),
            _ => ("B", 1.0),
        };
        let (asked, measured) = (Some(goal as f64 / bytes), taken as f64 / bytes);
        Measure { name: name.into(), unit: unit.into(), asked, measured, samples: 1, spread: None }
    }

    /// How many bytes that is now. An amount that is not there is refused; a percentage stops at the reserve.
    pub(crate) fn goal(self, stock: Stock) -> Result<Goal, FaultError> {
        let Stock { name, total, used, available, reserve, held } = stock;
        let room = (held + available).saturating_sub(reserve.0);
        match self {
            Self::Amount(amount) if amount.0 <= room => Ok(Goal { bytes: amount.0, warning: None }),
            Self::Amount(amount) => Err(FaultError::new(format!(
                "{amount} of {name} cannot be taken: {} can be had, of which {reserve} must stay",
                Size(held + available)
            ))
            .help(match room {
                0 => "lower `reserve`, or free some first".to_owned(),
                _ => format!("take {} at most, or lower `reserve`", Size(room)),
            })),
            Self::Percent(percent) => {
                let by_others = used.saturating_sub(held);
                let wanted = ((total as f64 * percent.share()) as u64).saturating_sub(by_others);
                let already = Percent(by_others as f64 / total as f64 * 100.0);
                let warning = if wanted == 0 {
                    Some(format!("{already} of {name} is used by others already, so nothing is taken for {percent}"))
                } else if wanted > room {
                    let reached = (by_others + room) as f64 / total as f64 * 100.0;
                    Some(format!("{percent} of {name} is not reached but {}: {reserve} must stay", Percent(reached)))
                } else {
                    None
                };
                Ok(Goal { bytes: wanted.min(room), warning })
            }
        }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amount(amount) => amount.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

const NEITHER_OR_BOTH: &str = "one of `amount` and `percent` must be given";

/// Notes that not exactly one of both was given.
pub(crate) fn check_one(extent: Option<Extent>, node: &Node, problems: &mut Problems) {
    if extent.is_none() {
        let label = if node.get("amount").is_some() { "both are given" } else { "neither is given" };
        problems.add(node.span, NEITHER_OR_BOTH, label).help("for instance `amount: 512MiB`");
    }
}

/// The same where no manifest is at hand.
pub(crate) fn exactly_one(extent: Option<Extent>) -> Result<Extent, FaultError> {
    extent.ok_or_else(|| FaultError::new(NEITHER_OR_BOTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: Stock = Stock { name: "memory", total: 1000, used: 300, available: 700, reserve: Size(100), held: 0 };

    fn goal(extent: &str, stock: Stock) -> Result<Goal, FaultError> {
        match extent.ends_with('%') {
            true => Extent::Percent(extent.parse().expect("a percentage")).goal(stock),
            false => Extent::Amount(extent.parse().expect("a size")).goal(stock),
        }
    }

    #[test]
    fn an_amount_is_taken_whole_or_refused() {
        assert_eq!(goal("600B", STOCK), Ok(Goal { bytes: 600, warning: None }));
        let e = goal("601B", STOCK).expect_err("the reserve must stay");
        assert_eq!(e.message, "601B of memory cannot be taken: 700B can be had, of which 100B must stay");
        assert_eq!(e.help.as_deref(), Some("take 600B at most, or lower `reserve`"));
        // What it holds already, it can keep.
        assert_eq!(goal("600B", Stock { used: 800, available: 200, held: 500, ..STOCK }).map(|g| g.bytes), Ok(600));
        assert!(goal("1B", Stock { available: 50, ..STOCK }).is_err_and(|e| e.help.is_some()));
    }

    #[test]
    fn a_percentage_is_what_is_missing_and_stops_at_the_reserve() {
        assert_eq!(goal("80%", STOCK), Ok(Goal { bytes: 500, warning: None }));
        assert_eq!(goal("80%", Stock { used: 800, available: 200, held: 500, ..STOCK }).map(|g| g.bytes), Ok(500));
        assert_eq!(goal("50%", Stock { used: 800, available: 200, held: 500, ..STOCK }).map(|g| g.bytes), Ok(200));
        let all = goal("100%", STOCK).expect("as far as it goes");
        assert_eq!(all.bytes, 600);
        assert!(all.warning.is_some_and(|w| w.contains("not reached but 90%: 100B must stay")));
        let low = goal("20%", STOCK).expect("the foot of a ramp");
        assert_eq!(low.bytes, 0);
        assert!(low.warning.is_some_and(|w| w.contains("30% of memory is used by others already")));
    }

    #[test]
    fn what_was_taken_is_measured_in_the_units_of_what_was_asked() {
        let measured = |extent: Extent, bytes: u64| {
            let measure = extent.measure("memory", bytes, bytes / 2);
            (measure.unit, measure.asked, measure.measured)
        };
        let amount = |text: &str| Extent::Amount(text.parse().expect("a size"));
        assert_eq!(measured(amount("100MB"), 100_000_000), ("MB".into(), Some(100.0), 50.0));
        assert_eq!(measured(amount("2MiB"), 2 << 20), ("B".into(), Some(2_097_152.0), 1_048_576.0));
        assert_eq!(measured(Extent::Percent(Percent(80.0)), 4_000_000), ("B".into(), Some(4e6), 2e6));
    }

    #[test]
    fn exactly_one_must_be_given() {
        let (amount, percent) = (Size(1), Percent(1.0));
        assert!(Extent::of(None, None).is_none() && Extent::of(Some(amount), Some(percent)).is_none());
        assert_eq!(Extent::of(Some(amount), None), Some(Extent::Amount(amount)));
        assert_eq!(Extent::of(None, Some(percent)).and_then(Extent::percent), Some(percent));
        let mut problems = Problems::default();
        check_one(None, &Node::from_json(&serde_json::json!({})), &mut problems);
        assert_eq!(problems.0.len(), 1);
    }
}
