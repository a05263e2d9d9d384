//! Numbers as a reader wants them.

use toprope_model::Size;
use toprope_model::units::short;

/// A time in milliseconds: `0.4ms`, `212ms`, `1.24s`, `2m05s`.
pub(crate) fn millis(ms: f64) -> String {
    let ms = ms.max(0.0);
    let digits = |value: f64| {
        let decimals = match value {
            v if v < 10.0 => 2,
            v if v < 100.0 => 1,
            _ => 0,
        };
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    if ms < 999.5 {
        format!("{}ms", digits(ms))
    } else if ms < 59_950.0 {
        format!("{}s", digits(ms / 1e3))
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a run takes less than u64 seconds"
        )]
        let seconds = (ms / 1e3).round() as u64;
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 { format!("{hours}h{minutes:02}m{seconds:02}s") } else { format!("{minutes}m{seconds:02}s") }
    }
}

/// Nanoseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
pub(crate) fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// A value with its unit.
pub(crate) fn value(value: f64, unit: &str) -> String {
    match unit {
        "ms" if value >= 0.0 => millis(value),
        "s" if value >= 0.0 => millis(value * 1e3),
        "%" => format!("{}%", short(value)),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 0 and 2^63")]
        "B" if (0.0..9e18).contains(&value) => Size(value.round() as u64).to_string(),
        "" => short(value),
        other => {
            // A unit comes from a probe, and a probe's from who wrote it.
            let other: String = cut(other).chars().take(16).collect();
            format!("{}{}{other}", short(value), if other.starts_with('/') { "" } else { " " })
        }
    }
}

/// A share as a percentage that never rounds up to 100 % or down to 0 %.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    for decimals in 0..6 {
        let text = format!("{percent:.decimals$}");
        let shown: f64 = text.parse().unwrap_or(percent);
        let lies = (shown >= 100.0 && share < 1.0) || (shown <= 0.0 && share > 0.0);
        if !lies && (decimals > 0 || (percent - shown).abs() < 0.05) {
            return format!("{text}%");
        }
    }
    if share < 0.5 { "less than 0.00001%".into() } else { "more than 99.99999%".into() }
}

/// Evidence to three digits, and no more than anybody wants to read: `0.41`, `7.1`, `1,200`, `more than 1,000,000`.
pub(crate) fn evidence(evidence: f64) -> String {
    if evidence >= 1e6 {
        "more than 1,000,000".into()
    } else if evidence >= 99.95 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be below a million")]
        let whole = evidence.round() as u64;
        number(if whole >= 1000 { whole / 10 * 10 } else { whole })
    } else if evidence < 0.005 {
        "0".into()
    } else {
        short((evidence * 100.0).round() / 100.0)
    }
}

/// `1 sample`, `2 samples`.
pub(crate) fn samples(n: u64) -> String {
    count(n, "sample")
}

/// `1 more sample is`, `12 more samples are`.
pub(crate) fn more(n: u64) -> String {
    format!("{} {}", count(n, "more sample"), if n == 1 { "is" } else { "are" })
}

/// `1 trial`, `2 trials`, `12,345 trials`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A whole number with commas between thousands.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A text that came from outside, cut to what a sentence can take, on one line. Backticks in it become apostrophes:
/// those in our sentences are ours, and mark names.
pub(crate) fn cut(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "'");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A sentence out of a clause: its first letter large (but for `p99`), a full stop at its end.
pub(crate) fn sentence(clause: &str) -> String {
    let clause = clause.trim_end_matches('.');
    let named = clause.split(' ').next().is_some_and(|word| word.contains(|c: char| c.is_ascii_digit() || c == '`'));
    let mut chars = clause.chars();
    let end = if clause.ends_with('…') { "" } else { "." };
    match chars.next() {
        Some(_) if named => format!("{clause}{end}"),
        Some(first) => format!("{}{}{end}", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}

/// A sentence to stand behind a colon: its first letter small, unless it is a name.
pub(crate) fn behind_colon(sentence: &str) -> String {
    let mut chars = sentence.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), chars.as_str())
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_digits_that_count() {
        for (ms, text) in [
            (0.0, "0ms"),
            (0.412, "0.41ms"),
            (2.3, "2.3ms"),
            (212.4, "212ms"),
            (999.7, "1s"),
            (1240.0, "1.24s"),
            (34_500.0, "34.5s"),
            (59_990.0, "1m00s"),
            (125_000.0, "2m05s"),
            (3_725_000.0, "1h02m05s"),
        ] {
            assert_eq!(millis(ms), text);
        }
    }

    #[test]
    fn values_carry_their_unit() {
        assert_eq!(value(1500.0, "ms"), "1.5s");
        assert_eq!(value(99.5, "%"), "99.5%");
        assert_eq!(value(1_048_576.0, "B"), "1MiB");
        assert_eq!(value(-3.0, "ms"), "-3 ms");
        assert_eq!(value(5.0, ""), "5");
        assert_eq!(value(5.0, "/s"), "5/s");
    }

    #[test]
    fn shares_never_round_to_certainty() {
        for (s, text) in [
            (1.0, "100%"),
            (0.0, "0%"),
            (0.96, "96%"),
            (0.9667, "96.7%"),
            (0.9999, "99.99%"),
            (0.99996, "99.996%"),
            (0.0001, "0.01%"),
            (0.999_999_999_9, "more than 99.99999%"),
            (1.0 / 3.0, "33.3%"),
        ] {
            assert_eq!(share(s), text);
        }
    }

    #[test]
    fn evidence_has_few_digits() {
        for (e, text) in [
            (0.0, "0"),
            (0.4142, "0.41"),
            (7.1, "7.1"),
            (100.0, "100"),
            (1234.0, "1,230"),
            (1e9, "more than 1,000,000"),
            (f64::INFINITY, "more than 1,000,000"),
        ] {
            assert_eq!(evidence(e), text);
        }
    }

    #[test]
    fn foreign_text_is_cut_and_put_on_one_line() {
        assert_eq!(cut("a\n\t b `c`"), "a b 'c'");
        assert_eq!(cut(&"é".repeat(500)).chars().count(), 201);
    }

    #[test]
    fn counts_and_sentences() {
        assert_eq!(samples(1), "1 sample");
        assert_eq!((more(1), more(2)), ("1 more sample is".into(), "2 more samples are".into()));
        assert_eq!(count(1_234_567, "event"), "1,234,567 events");
        assert_eq!(sentence("it held"), "It held.");
        assert_eq!(sentence("p99 is late"), "p99 is late.");
        assert_eq!(sentence(""), "");
        assert_eq!(behind_colon("It held."), "it held.");
        assert_eq!(behind_colon("HTTP is late."), "HTTP is late.");
    }
}
