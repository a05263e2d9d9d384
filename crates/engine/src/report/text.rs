//! Foreign text made fit to be shown.

use std::fmt::Write;

/// The longest name that is shown.
pub(super) const NAME: usize = 120;
/// The longest text that is shown.
pub(super) const TEXT: usize = 4000;

/// Takes out what no reader should meet: control characters, and those that turn the direction of what follows. Cuts
/// what is longer than `longest` characters.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(longest));
    for (i, c) in text.chars().enumerate() {
        if i == longest {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' => out.push(c),
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{FEFF}' => {
                out.push('\u{FFFD}')
            }
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// [`clean`] for a name: on one line.
pub(super) fn name(text: &str) -> String {
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "), NAME)
}

/// Escapes text for HTML and SVG, between tags and inside quoted attributes.
pub(super) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// A sentence of ours as HTML: what stands between backticks becomes code.
pub(super) fn prose(sentence: &str) -> String {
    let mut out = String::with_capacity(sentence.len() + 32);
    let sentence = clean(sentence, TEXT);
    let closed = sentence.matches('`').count() / 2 * 2;
    for (i, part) in sentence.splitn(closed + 1, '`').enumerate() {
        let code = i % 2 == 1;
        out.push_str(if code { "<code>" } else { "" });
        escape(part, &mut out);
        out.push_str(if code { "</code>" } else { "" });
    }
    // A sign stays on the line of what it is about.
    out.replace("&lt; ", "&lt;&nbsp;").replace("&gt; ", "&gt;&nbsp;").replace("= ", "=&nbsp;")
}

/// A time of a run in nanoseconds, as `12.3s`.
pub(super) fn at(nanos: u64) -> String {
    use crate::verdict::words::{millis, ms};
    millis(ms(nanos))
}

/// A wall-clock label as a reader wants it: the date and the time apart, without fractions.
pub(super) fn wall(label: &str) -> String {
    let label = clean(label, NAME);
    let Some((date, time)) = label.split_once('T') else { return label };
    let (clock, zone) = time.find(['Z', '+', '-']).map_or((time, ""), |i| time.split_at(i));
    let clock = clock.split('.').next().unwrap_or(clock);
    let mut out = String::new();
    write!(out, "{date} {clock} {}", if zone == "Z" { "UTC" } else { zone }).expect("writing to a string cannot fail");
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_gets_through() {
        assert_eq!(clean("a\u{0}b\u{1b}[31m\u{202e}c\n", 100), "a\u{FFFD}b\u{FFFD}[31m\u{FFFD}c\n");
        assert_eq!(clean(&"é".repeat(10), 3), "ééé…");
        assert_eq!(name(" a \n b "), "a b");
    }

    #[test]
    fn prose_escapes_and_marks_names() {
        assert_eq!(prose("`a<b>` was & `c"), "<code>a&lt;b&gt;</code> was &amp; `c");
        assert_eq!(prose("wanted < 300ms"), "wanted &lt;&nbsp;300ms");
        assert_eq!(prose("\"x\" 'y'"), "&quot;x&quot; &#39;y&#39;");
    }

    #[test]
    fn wall_labels_are_taken_apart() {
        assert_eq!(wall("2026-03-01T12:00:00.123+01:00"), "2026-03-01 12:00:00 +01:00");
        assert_eq!(wall("2026-03-01T12:00:00Z"), "2026-03-01 12:00:00 UTC");
        assert_eq!(wall("soon"), "soon");
    }
}
