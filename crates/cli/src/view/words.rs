//! How times, values and foreign text are written on a terminal.

use ratatui::text::Span;
use toprope_model::Size;
use toprope_model::step::{Effect, Measure};
use toprope_model::units::short;

/// The longest piece of foreign text on one line, in characters.
const LONGEST: usize = 400;

/// Three digits that count, without trailing zeros.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A time in milliseconds: `0.41ms`, `212ms`, `1.24s`, `2m05s`, `1h02m05s`.
pub fn millis(ms: f64) -> String {
    let ms = ms.max(0.0);
    if ms < 999.5 {
        return format!("{}ms", digits(ms));
    }
    if ms < 59_950.0 {
        return format!("{}s", digits(ms / 1e3));
    }
    clock_of(ms)
}

/// A time in nanoseconds, written as [`millis`].
pub fn nanos(ns: u64) -> String {
    millis(ms(ns))
}

/// Nanoseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn clock_of(ms: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and within u64")]
    let seconds = (ms / 1e3).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}h{minutes:02}m{seconds:02}s") } else { format!("{minutes}m{seconds:02}s") }
}

/// A time that counts up or down before the reader's eyes, so it keeps its width: `7.3s`, `31.0s`, `2m05s`.
pub fn running(ns: u64) -> String {
    let ms = ms(ns);
    if ms < 59_950.0 { format!("{:.1}s", ms / 1e3) } else { clock_of(ms) }
}

/// Since the run began, to a tenth of a second: `+12.3s`.
pub fn offset(ns: u64) -> String {
    format!("+{:.1}s", ms(ns) / 1e3)
}

/// A value with its unit: `212ms`, `1.24s`, `99.5%`, `1.05MB/s`, `5`.
pub fn value(value: f64, unit: &str) -> String {
    let scaled = |unit: &str| {
        let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
        match steps.into_iter().find(|(size, _)| value.abs() >= *size) {
            Some((size, prefix)) => format!("{}{prefix}{unit}", digits(value / size)),
            None => format!("{}{unit}", digits(value)),
        }
    };
    match unit {
        "ms" if value >= 0.0 => millis(value),
        "s" if value >= 0.0 => millis(value * 1e3),
        "%" => format!("{}%", digits(value)),
        "B" | "B/s" => scaled(unit),
        "" if value.abs() >= 1e6 => scaled(""),
        "" => short(value),
        other => format!("{}{}{}", short(value), if other.starts_with('/') { "" } else { " " }, clean(other)),
    }
}

/// A share of a count as a percentage that never rounds up to 100 % or down to 0 %.
#[expect(clippy::cast_precision_loss, reason = "a count of samples")]
pub fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    match percent {
        p if part == whole || part == 0 => format!("{p:.0}%"),
        p if p >= 99.5 => format!("{:.1}%", p.min(99.9)),
        p if p < 0.5 => format!("{:.1}%", p.max(0.1)),
        p => format!("{p:.0}%"),
    }
}

/// `1 sample`, `2 samples`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Text that came from outside, as one line that a terminal can be given: no control characters (which could move the
/// cursor or set the window's title), and none that reorder what stands around them.
pub fn plain(text: &str) -> String {
    let reorders = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let seen = |c: char| match c {
        c if c.is_whitespace() => ' ',
        c if c.is_control() || reorders(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(seen).collect()
}

/// Text that came from outside, as [`plain`], and not endless.
pub fn clean(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", plain(&text[..end])),
        None => plain(text),
    }
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a text to so many columns; an ellipsis says that something is missing.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = width(c.encode_utf8(&mut [0; 4]));
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// A text brought to exactly so many columns, at their left.
pub fn left(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let pad = columns.saturating_sub(width(&text));
    format!("{text}{}", " ".repeat(pad))
}

/// A text brought to exactly so many columns, at their right.
pub fn right(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let pad = columns.saturating_sub(width(&text));
    format!("{}{text}", " ".repeat(pad))
}

/// Breaks a text into lines of at most so many columns, between words. A longer word gets a line of its own.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A measured effect in words: `delay: asked 200ms, measured 201ms (41 samples)`.
pub fn effect(effect: &Effect) -> String {
    let mut parts: Vec<String> = effect.measures.iter().map(measure).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 10000")]
    parts.extend(effect.reached.filter(|r| *r < 1.0).map(|r| {
        let part = (r.clamp(0.0, 1.0) * 1e4).floor() as u64;
        format!("reached {} of the target", share(part, 10_000))
    }));
    parts.extend(effect.note.as_deref().map(clean));
    parts.join("; ")
}

fn measure(m: &Measure) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an amount of bytes")]
    let value = |v: f64, unit: &str| match unit {
        // Amounts are asked for in powers of 1024, or are told in MB.
        "B" => Size(v.max(0.0).round() as u64).to_string(),
        _ => value(v, unit),
    };
    let measured = value(m.measured, &m.unit);
    let samples = if m.samples > 0 { format!(" ({})", count(m.samples, "sample")) } else { String::new() };
    let spread = m
        .spread
        .map(|s| format!(", p99 {}, {} to {}", value(s.p99, &m.unit), value(s.min, &m.unit), value(s.max, &m.unit)));
    let samples = spread.unwrap_or_default() + &samples;
    match m.asked {
        Some(asked) => {
            format!("{}: asked {}, measured {measured}{samples}", clean(&m.name), value(asked, &m.unit))
        }
        None => format!("{}: {measured}{samples}", clean(&m.name)),
    }
}

#[cfg(test)]
mod tests {
    use toprope_model::step::Spread;

    use super::*;

    #[test]
    fn times_and_values_have_the_digits_that_count() {
        for (ms, text) in [
            (0.0, "0ms"),
            (0.412, "0.41ms"),
            (9.996, "10ms"),
            (212.4, "212ms"),
            (1240.0, "1.24s"),
            (125_000.0, "2m05s"),
        ] {
            assert_eq!(millis(ms), text);
        }
        assert_eq!(running(7_340_000_000), "7.3s");
        assert_eq!(offset(12_340_000_000), "+12.3s");
        assert_eq!(value(1_050_000.0, "B/s"), "1.05MB/s");
        assert_eq!(value(99.5, "%"), "99.5%");
        assert_eq!(value(-3.0, "ms"), "-3 ms");
        assert_eq!(value(4381.0, ""), "4381");
    }

    #[test]
    fn shares_never_round_to_certainty() {
        assert_eq!(share(100, 100), "100%");
        assert_eq!(share(9_999, 10_000), "99.9%");
        assert_eq!(share(1, 10_000), "0.1%");
        assert_eq!(share(0, 5), "0%");
        assert_eq!(share(2, 3), "67%");
    }

    #[test]
    fn foreign_text_cannot_speak_to_the_terminal() {
        assert_eq!(clean("a\x1b]0;title\x07b\nc\u{202e}d"), "a\u{fffd}]0;title\u{fffd}b c\u{fffd}d");
        assert_eq!(clean(&"x".repeat(1000)).chars().count(), 401);
    }

    #[test]
    fn text_is_cut_by_columns_and_not_by_bytes() {
        assert_eq!(fit("checkout", 8), "checkout");
        assert_eq!(fit("checkout-api", 8), "checkou…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(left("日本", 6), "日本  ");
        assert_eq!(right("5", 3), "  5");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }

    #[test]
    fn an_effect_is_told_with_what_was_asked() {
        let told = effect(&Effect {
            took: Some(true),
            reached: Some(0.5),
            measures: vec![Measure {
                name: "delay".into(),
                unit: "ms".into(),
                asked: Some(200.0),
                measured: 201.3,
                samples: 41,
                spread: Some(Spread { min: 200.1, p50: 201.3, p99: 230.0, max: 1240.0 }),
            }],
            note: None,
        });
        let wanted =
            "delay: asked 200ms, measured 201ms, p99 230ms, 200ms to 1.24s (41 samples); reached 50% of the target";
        assert_eq!(told, wanted);
        let taken = |unit: &str, asked, measured| {
            measure(&Measure {
                name: "taken".into(),
                unit: unit.into(),
                asked: Some(asked),
                measured,
                samples: 1,
                spread: None,
            })
        };
        assert_eq!(taken("B", 104_857_600.0, 103_809_024.0), "taken: asked 100MiB, measured 99MiB (1 sample)");
        assert_eq!(taken("MB", 100.0, 99.5), "taken: asked 100 MB, measured 99.5 MB (1 sample)");
    }
}
