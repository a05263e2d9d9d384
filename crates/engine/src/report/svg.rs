//! A small writer of SVG. Colours are classes: the page's style sheet knows light and dark.

use std::fmt::Write;

use super::text::{clean, escape};

/// A drawing.
#[derive(Debug, Clone)]
pub(super) struct Svg {
    out: String,
}

/// About how wide a character of the labels is.
pub(super) const CHARACTER: f64 = 6.4;

/// A number with one decimal at most.
fn push(out: &mut String, n: f64) {
    let tenths = (n * 10.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "places on a picture")]
    let whole = tenths as i64;
    if whole % 10 == 0 { write!(out, "{}", whole / 10) } else { write!(out, "{:.1}", tenths / 10.0) }
        .expect("writing to a string cannot fail");
}

impl Svg {
    /// An empty drawing of a size, with a text for those who cannot see it.
    pub(super) fn new(class: &str, width: f64, height: f64, label: &str) -> Self {
        let mut out = String::with_capacity(4096);
        out.push_str("<svg class=\"");
        out.push_str(class);
        out.push_str("\" viewBox=\"0 0 ");
        push(&mut out, width);
        out.push(' ');
        push(&mut out, height);
        out.push_str("\" role=\"img\" aria-label=\"");
        escape(&clean(label, 300), &mut out);
        out.push_str("\">");
        Self { out }
    }

    fn open(&mut self, element: &str, class: &str, numbers: &[(&str, f64)]) {
        self.out.push('<');
        self.out.push_str(element);
        self.out.push_str(" class=\"");
        self.out.push_str(class);
        self.out.push('"');
        for (name, value) in numbers {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            push(&mut self.out, *value);
            self.out.push('"');
        }
    }

    /// A rectangle; what it shows appears when it is pointed at.
    pub(super) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64, title: &str) {
        self.open("rect", class, &[("x", x), ("y", y), ("width", width.max(0.0)), ("height", height.max(0.0))]);
        if title.is_empty() {
            self.out.push_str("/>");
        } else {
            self.out.push_str("><title>");
            escape(&clean(title, 500), &mut self.out);
            self.out.push_str("</title></rect>");
        }
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.open("line", class, &[("x1", from.0), ("y1", from.1), ("x2", to.0), ("y2", to.1)]);
        self.out.push_str("/>");
    }

    pub(super) fn circle(&mut self, class: &str, x: f64, y: f64, r: f64, title: &str) {
        self.open("circle", class, &[("cx", x), ("cy", y), ("r", r)]);
        self.out.push_str("><title>");
        escape(&clean(title, 500), &mut self.out);
        self.out.push_str("</title></circle>");
    }

    /// A text; `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        self.open("text", class, &[("x", x), ("y", y)]);
        self.out.push_str(" text-anchor=\"");
        self.out.push_str(anchor);
        self.out.push_str("\">");
        escape(text, &mut self.out);
        self.out.push_str("</text>");
    }

    pub(super) fn path(&mut self, class: &str, path: &Path) {
        if path.0.is_empty() {
            return;
        }
        self.open("path", class, &[]);
        self.out.push_str(" d=\"");
        self.out.push_str(&path.0);
        self.out.push_str("\"/>");
    }

    /// The finished drawing.
    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

/// A path.
#[derive(Debug, Clone, Default)]
pub(super) struct Path(String);

impl Path {
    fn point(&mut self, command: char, x: f64, y: f64) {
        self.0.push(command);
        push(&mut self.0, x);
        self.0.push(' ');
        push(&mut self.0, y);
    }

    pub(super) fn start(&mut self, x: f64, y: f64) {
        self.point('M', x, y);
    }

    pub(super) fn line(&mut self, x: f64, y: f64) {
        self.point('L', x, y);
    }

    pub(super) fn close(&mut self) {
        self.0.push('Z');
    }
}

/// A text cut to a width.
pub(super) fn fit(text: &str, width: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of characters")]
    let most = (width / CHARACTER).max(0.0).floor() as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    if most < 4 {
        return String::new();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_foreign_is_escaped() {
        let mut svg = Svg::new("chart", 10.0, 10.0, "\"><script>");
        svg.text("t", 1.25, 2.0, "start", "</text><script>alert(1)</script>");
        svg.rect("r", 0.0, 0.0, -1.0, 3.0, "a & b");
        let svg = svg.finish();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("x=\"1.3\" y=\"2\"") && svg.contains("width=\"0\""), "{svg}");
    }

    #[test]
    fn texts_fit() {
        assert_eq!(fit("network-latency", 1000.0), "network-latency");
        assert_eq!(fit("network-latency", 6.4 * 8.0), "network…");
        assert_eq!(fit("network-latency", 5.0), "");
    }
}
