//! What is shown of a text around a label: a manifest's line may be a megabyte long, a terminal's is not.

use std::sync::Arc;

use super::foreign::harmless;
use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// So many bytes of a line are shown before and behind the label's beginning.
const BESIDE: usize = 90;

/// A named text, of whose long lines only what is near the label is shown.
#[derive(Clone)]
pub(super) struct Excerpt {
    name: String,
    text: Arc<str>,
}

impl Excerpt {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: harmless(text).into() }
    }

    /// How much of a label can be shown: to the end of its line or of what is shown of that, and never nothing.
    pub(super) fn label_length(&self, start: usize, end: usize) -> usize {
        let rest = &self.text[self.boundary(start)..];
        let line = rest.find('\n').unwrap_or(rest.len());
        end.saturating_sub(start).min(line).clamp(1, BESIDE - 1)
    }

    /// The nearest beginning of a character at or before a byte.
    fn boundary(&self, mut byte: usize) -> usize {
        byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let at = self.boundary(span.offset());
        let line_begin = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let mut begin = self.boundary(at.saturating_sub(BESIDE)).max(line_begin);
        if lines_before == 0 {
            begin = at; // This is how the handler asks where the label is.
        } else if begin == line_begin && begin > 0 {
            let previous = self.text[..begin - 1].rfind('\n').map_or(0, |newline| newline + 1);
            if begin - previous <= 2 * BESIDE {
                begin = previous;
            }
        }
        let line_end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline);
        let mut end = self.boundary(at + BESIDE).min(line_end);
        if lines_after > 0 && end == line_end && end < self.text.len() {
            let next = self.text[end + 1..].find('\n').map_or(self.text.len(), |newline| end + 1 + newline);
            end = if next - end <= 2 * BESIDE { next } else { end };
        }
        let line = self.text[..begin].matches('\n').count();
        let before = self.text[..begin].rfind('\n').map_or(0, |newline| newline + 1);
        let column = self.text[before..begin].chars().count();
        let shown = (begin, end - begin).into();
        let data = &self.text.as_bytes()[begin..end];
        let count = self.text[begin..end].lines().count();
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), data, shown, line, column, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: usize, context: usize) -> (String, usize, usize) {
        let excerpt = Excerpt::new("f.yaml", text);
        let contents = excerpt.read_span(&(at, 1).into(), context, context).unwrap();
        let data = String::from_utf8(contents.data().to_vec()).unwrap();
        (data, contents.line(), contents.column())
    }

    #[test]
    fn short_lines_are_shown_whole_with_those_beside_them() {
        let text = "one\ntwo\nthree\nfour\nfive";
        assert_eq!(shown(text, 10, 1), ("two\nthree\nfour".into(), 1, 0));
        assert_eq!(shown(text, 10, 0), ("ree".into(), 2, 2));
        assert_eq!(shown(text, 0, 1), ("one\ntwo".into(), 0, 0));
        assert_eq!(shown(text, text.len(), 1), ("four\nfive".into(), 3, 0));
        assert_eq!(shown("", 0, 1), (String::new(), 0, 0));
    }

    #[test]
    fn of_a_long_line_only_what_is_near_is_shown_at_its_own_place() {
        let text = format!("a: 1\n{}\nb: 2", "ö".repeat(500_000));
        let (data, line, column) = shown(&text, 5 + 2 * 300_000, 1);
        assert!(data.len() <= 2 * BESIDE && data.chars().all(|c| c == 'ö'), "{data}");
        assert_eq!((line, column), (1, 300_000 - BESIDE / 2));
        assert_eq!(shown(&text, 5 + 2 * 300_000, 0).2, 300_000);
        // A long line beside a short one is left out.
        assert_eq!(shown(&text, text.len() - 1, 1).0, "b: 2");
    }

    #[test]
    fn a_label_ends_with_what_is_shown() {
        let excerpt = Excerpt::new("f.yaml", &format!("a: b\n{}", "x".repeat(1000)));
        assert_eq!(excerpt.label_length(3, 4), 1);
        assert_eq!(excerpt.label_length(3, 900), 1);
        assert_eq!(excerpt.label_length(4, 4), 1);
        assert_eq!(excerpt.label_length(5, 900), BESIDE - 1);
    }
}
