//! What people write that is not YAML, told in their words: the parser's own say what it was doing and not what to do.

/// Where a mistake is, what it is, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Byte offsets of what is shown.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
    /// What is wrong.
    pub(super) message: String,
    /// What stands beside the caret.
    pub(super) label: &'static str,
    /// What to write.
    pub(super) help: Option<String>,
}

/// Characters that mean something else where a value begins.
const RESERVED: &str = ">|*&@%!`,?";

/// What the parser says at a byte of a text, in terms of what was meant.
pub(super) fn explain(text: &str, at: usize, said: &str) -> Mistake {
    let place = Place::new(text, at);
    let here = Mistake {
        start: place.at,
        end: place.at,
        message: format!("this is not YAML: {said}"),
        label: "here",
        help: None,
    };
    place.explain(said).unwrap_or(here)
}

/// A value that begins with a character of YAML's own: it must be quoted.
pub(super) fn unquoted(text: &str, at: usize) -> Option<Mistake> {
    let place = Place::new(text, at);
    let first = place.rest().chars().next().filter(|c| RESERVED.contains(*c))?;
    let value = place.value();
    if value.len() == text.len() - place.at && value.contains('\n') {
        return None;
    }
    Some(Mistake {
        start: place.at,
        end: place.at + value.len(),
        message: format!("a value that begins with `{first}` must be quoted"),
        label: "not quoted",
        help: Some(format!("write {}", quoted(value))),
    })
}

/// A text in quotes, as it would be written.
fn quoted(text: &str) -> String {
    // A whole file can be one value.
    const LONGEST: usize = 60;
    if text.chars().count() > LONGEST {
        return "it in quotes".into();
    }
    if text.contains(['"', '\\']) { format!("'{}'", text.replace('\'', "''")) } else { format!("\"{text}\"") }
}

/// A byte of a text, and what is around it.
struct Place<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Place<'t> {
    fn new(text: &'t str, at: usize) -> Self {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        Self { text, at }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Where this line begins.
    fn line_start(&self) -> usize {
        self.text[..self.at].rfind('\n').map_or(0, |i| i + 1)
    }

    /// This line, whole.
    fn line(&self) -> &'t str {
        self.text[self.line_start()..].lines().next().unwrap_or_default()
    }

    /// The last line before this one that is not empty and no comment.
    fn line_before(&self) -> Option<&'t str> {
        let before = self.text[..self.line_start()].lines().rev();
        before.map(str::trim_end).find(|l| !l.is_empty() && !l.trim_start().starts_with('#'))
    }

    /// What was meant as the value that begins here: up to the end of the line or, in brackets, of the item.
    fn value(&self) -> &'t str {
        let line = self.rest().lines().next().unwrap_or_default();
        let line = line.find(" #").map_or(line, |i| &line[..i]);
        let mut depth = 0_usize;
        let within = innermost(&self.text[..self.at]).is_some();
        for (i, c) in line.char_indices().filter(|_| within) {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' if depth > 0 => depth -= 1,
                '}' | ']' => return line[..i].trim_end(),
                ',' if depth == 0 && i > 0 => return line[..i].trim_end(),
                _ => {}
            }
        }
        line.trim_end()
    }

    fn mistake(&self, message: impl Into<String>, label: &'static str, help: impl Into<String>) -> Mistake {
        let width = self.rest().chars().next().map_or(0, char::len_utf8);
        Mistake { start: self.at, end: self.at + width, message: message.into(), label, help: Some(help.into()) }
    }

    fn explain(&self, said: &str) -> Option<Mistake> {
        let has = |part: &str| said.contains(part);
        if has("block scalar, did not find expected comment")
            || has("anchor")
            || has("unexpected character")
            || has("a tag")
            || has("did not find expected node content")
            || has("mapping keys are not allowed")
            || has("directive")
        {
            return unquoted(self.text, self.at);
        }
        if has("tab") && self.line()[..self.at - self.line_start()].trim_end_matches('\t').trim().is_empty() {
            let line = self.line();
            let start = self.line_start() + line.find('\t').unwrap_or(0);
            let tab = Place { text: self.text, at: start };
            return Some(tab.mistake("a tab indents this line", "a tab", "indent with spaces"));
        }
        if has("unknown escape") {
            let help = "use single quotes, in which a backslash is one, or write it twice";
            return Some(self.mistake("in double quotes a backslash begins an escape", "in this text", help));
        }
        if has("trailing content after") {
            let help = "quote the whole value; within single quotes, double ones are plain text";
            return Some(self.mistake("something follows the closing quote", "this is outside", help));
        }
        if has("quoted scalar") {
            return Some(self.mistake("this quote is not closed", "opened here", "close it, and indent what goes on"));
        }
        if has("misplaced bracket") {
            return Some(self.mistake("this bracket closes nothing", "one too many", "remove it, or quote the value"));
        }
        if has("block sequence entries are not allowed") {
            let help = "begin the list on a line of its own, or write it as [a, b]";
            return Some(self.mistake("a list cannot begin here", "on the line of its key", help));
        }
        if has("flow mapping") || has("flow sequence") || has("':' indicator") || has("flow construct") {
            return self.in_brackets();
        }
        if has("mapping values are not allowed") || has("did not find expected key") || has("simple key") {
            return self.in_lines();
        }
        None
    }

    /// Within `{…}` or `[…]`.
    fn in_brackets(&self) -> Option<Mistake> {
        if let Some(mistake) = self.colon_in_value() {
            return Some(mistake);
        }
        if self.rest().starts_with('{') {
            let start = self.text[..self.at].rfind([' ', ',', '{', '[']).map_or(0, |i| i + 1);
            let begun = Place { text: self.text, at: start };
            let message = "within brackets a value with `{` must be quoted";
            return Some(Mistake {
                start,
                end: start + begun.value().len(),
                ..self.mistake(message, "not quoted", format!("write {}", quoted(begun.value())))
            });
        }
        let open = innermost(&self.text[..self.at])?;
        let bracket = &self.text[open..=open];
        let close = if bracket == "{" { "}" } else { "]" };
        let place = Place { text: self.text, at: open };
        Some(place.mistake(
            format!("this `{bracket}` is not closed"),
            "opened here",
            format!("add `{close}` where it ends"),
        ))
    }

    /// Between lines: a colon in a value, or indentation.
    fn in_lines(&self) -> Option<Mistake> {
        if let Some(open) = innermost(&self.text[..self.at]) {
            return Place { text: self.text, at: open }.in_brackets();
        }
        if let Some(mistake) = self.colon_in_value() {
            return Some(mistake);
        }
        let before = self.line_before()?;
        let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
        let start = self.line_start() + indent(self.line());
        let this = |message: &str, help: String| Mistake {
            start,
            end: start + self.line().trim().trim_start_matches("- ").len(),
            message: message.into(),
            label: "here",
            help: Some(help),
        };
        let key = before.trim_start_matches([' ', '-']);
        if key.split_once(':').is_some_and(|(key, value)| !value.is_empty() && !value.starts_with(' ') && is_key(key)) {
            let help = format!("above: write `{}`", key.replacen(':', ": ", 1));
            return Some(this("the line above is no key, because a space is missing after its colon", help));
        }
        let message = if indent(self.line()) > indent(before) && !before.ends_with(':') {
            "this line is indented more than the one it belongs to"
        } else {
            "this line's indentation is that of no line above"
        };
        Some(this(message, "begin keys of one map in the same column".into()))
    }

    /// `key: a: b`: the second colon makes a map, where text was meant.
    fn colon_in_value(&self) -> Option<Mistake> {
        if !self.rest().starts_with(':') {
            return None;
        }
        let line = &self.text[self.line_start()..self.at];
        // The value begins behind the colon before this one.
        let begins = line.rfind(": ")? + 2;
        let start = self.line_start() + begins + (line[begins..].len() - line[begins..].trim_start().len());
        if line[begins..].contains([',', '{', '[']) {
            return None;
        }
        let value = Place { text: self.text, at: start }.value();
        Some(Mistake {
            start,
            end: start + value.len(),
            ..self.mistake(
                "a value with a colon and a space must be quoted",
                "not quoted",
                format!("write {}", quoted(value)),
            )
        })
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// The last bracket that is open at the end of a text; what stands in quotes and comments is none.
fn innermost(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut quote: Option<char> = None;
    let mut comment = false;
    let mut before = ' ';
    for (i, c) in text.char_indices() {
        // A quote or a bracket within a word is a part of it.
        let begins = before.is_whitespace() || "{[,:(".contains(before);
        match (quote, c) {
            _ if comment => comment = c != '\n',
            (Some('"'), '"') if before == '\\' => {}
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if begins => quote = Some(c),
            (None, '#') if before.is_whitespace() => comment = true,
            (None, '{' | '[') if begins || !open.is_empty() => open.push(i),
            (None, '}' | ']') => {
                open.pop();
            }
            _ => {}
        }
        before = c;
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use crate::{Sources, parse};

    /// What is said of a text: the place, what is shown, the message and the help.
    fn told(text: &str) -> String {
        let mut sources = Sources::default();
        let problems = parse(&mut sources, "f.yaml", text).expect_err(text);
        let d = &problems.0[0];
        let span = d.span.expect("a place");
        let (_, line, column) = sources.place(span).expect("in the text");
        let shown = &text[span.start..span.end];
        format!("{line}:{column} ‹{shown}› {}; {}", d.message, d.help.as_deref().unwrap_or("-"))
    }

    #[test]
    fn what_must_be_quoted_is_shown_and_written_quoted() {
        let long = format!("a: > {}", "x".repeat(100));
        let table = [
            ("a:\n  p99: > 300ms\n", "2:8 ‹> 300ms› a value that begins with `>` must be quoted; write \"> 300ms\""),
            ("p99: >300ms # so", "1:6 ‹>300ms› a value that begins with `>` must be quoted; write \">300ms\""),
            ("p99: | 3", "1:6 ‹| 3› a value that begins with `|` must be quoted; write \"| 3\""),
            ("a: *", "1:4 ‹*› a value that begins with `*` must be quoted; write \"*\""),
            (
                "a: *.example.org",
                "1:4 ‹*.example.org› a value that begins with `*` must be quoted; write \"*.example.org\"",
            ),
            ("a: {b: *, c: 1}", "1:8 ‹*› a value that begins with `*` must be quoted; write \"*\""),
            ("a: & 300", "1:4 ‹& 300› a value that begins with `&` must be quoted; write \"& 300\""),
            ("a: &foo", "1:4 ‹&foo› a value that begins with `&` must be quoted; write \"&foo\""),
            ("a: &foo bar", "1:4 ‹&foo bar› a value that begins with `&` must be quoted; write \"&foo bar\""),
            ("a: &foo [bar]", "1:4 ‹&foo [bar]› a value that begins with `&` must be quoted; write \"&foo [bar]\""),
            ("ä: [@foo, 2]", "1:5 ‹@foo› a value that begins with `@` must be quoted; write \"@foo\""),
            ("a: %a\"b", "1:4 ‹%a\"b› a value that begins with `%` must be quoted; write '%a\"b'"),
            ("a: !foo", "1:4 ‹!foo› a value that begins with `!` must be quoted; write \"!foo\""),
            ("a: ! 5", "1:4 ‹! 5› a value that begins with `!` must be quoted; write \"! 5\""),
            ("a: != 5", "1:4 ‹!= 5› a value that begins with `!` must be quoted; write \"!= 5\""),
            ("a: `b`", "1:4 ‹`b`› a value that begins with ``` must be quoted; write \"`b`\""),
            ("a: , b", "1:4 ‹, b› a value that begins with `,` must be quoted; write \", b\""),
            ("a: ? b", "1:4 ‹? b› a value that begins with `?` must be quoted; write \"? b\""),
            ("a: {b: c: d}", "1:8 ‹c: d› a value with a colon and a space must be quoted; write \"c: d\""),
            (
                "a: fast: or not",
                "1:4 ‹fast: or not› a value with a colon and a space must be quoted; write \"fast: or not\"",
            ),
            ("- a: b: c", "1:6 ‹b: c› a value with a colon and a space must be quoted; write \"b: c\""),
            (
                "a: {b: http://h/${p}, c: 1}",
                "1:8 ‹http://h/${p}› within brackets a value with `{` must be quoted; write \"http://h/${p}\"",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), expected, "{text}");
        }
        assert!(told(&long).ends_with("write it in quotes"));
    }

    #[test]
    fn brackets_quotes_and_indentation_are_told_at_their_place() {
        let table = [
            ("a:\n- {b: {c: 1}, d: 2\n- e: 1\n", "2:3 ‹{› this `{` is not closed; add `}` where it ends"),
            ("a: [1, '[', 2\n", "1:4 ‹[› this `[` is not closed; add `]` where it ends"),
            ("a: [1\nb: 2\n", "1:4 ‹[› this `[` is not closed; add `]` where it ends"),
            ("a: {b: 1}}", "1:10 ‹}› this bracket closes nothing; remove it, or quote the value"),
            ("a: 'b\nc: 1\n", "1:4 ‹'› this quote is not closed; close it, and indent what goes on"),
            (
                "a: \"b\" c",
                "1:8 ‹c› something follows the closing quote; quote the whole value; within single quotes, double ones are plain text",
            ),
            (
                "a: \"\\d\"",
                "1:4 ‹\"› in double quotes a backslash begins an escape; use single quotes, in which a backslash is one, or write it twice",
            ),
            ("a: - b", "1:4 ‹-› a list cannot begin here; begin the list on a line of its own, or write it as [a, b]"),
            ("a:\n\tb: 1\n", "2:1 ‹\t› a tab indents this line; indent with spaces"),
            (
                "a: 1\n b: 2\n",
                "2:2 ‹b: 2› this line is indented more than the one it belongs to; begin keys of one map in the same column",
            ),
            (
                "a:\n  b: 1\n c: 2\n",
                "3:2 ‹c: 2› this line's indentation is that of no line above; begin keys of one map in the same column",
            ),
            (
                "a:\n  b:c\n  d: 1\n",
                "3:3 ‹d: 1› the line above is no key, because a space is missing after its colon; above: write `b: c`",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn text_over_lines_needs_no_quotes() {
        for text in
            ["a: >\n  b c\n  d", "a: |-\n  b: c", "a: '> 1'", "a: < 1", "a: [\"*\", '@x']", "a: b:c", "a: b #> c"]
        {
            assert!(parse(&mut Sources::default(), "f.yaml", text).is_ok(), "{text}");
        }
    }
}
