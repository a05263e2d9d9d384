//! YAML (and so JSON) text to a tree with places.
//!
//! Built on the parser's events rather than on serde, so that every key and value has its exact place, and so that
//! limits hold while reading: hostile text costs no more than its own size.

mod mistake;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as YamlSpan};

use crate::diagnostic::{Diagnostic, Problems};
use crate::node::{Entry, Node, Sources, Span, Value};

/// The largest text that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The deepest nesting that is read; far beyond what any manifest needs, far below what a stack holds.
pub(crate) const MAX_DEPTH: usize = 64;

/// Reads one document of YAML 1.2 or JSON and records the text in `sources`.
///
/// Scalars follow YAML 1.2's core schema, so `no` and `on` are text. Aliases and tags are refused: a manifest needs
/// neither, and both let a small text stand for a large one.
///
/// # Errors
/// The first place at which the text is not YAML, is over a limit, holds a key twice, or a second document.
pub fn parse(sources: &mut Sources, name: &str, text: &str) -> Result<Node, Problems> {
    if text.len() > MAX_BYTES {
        sources.add(name, "");
        let mut problems = Problems::default();
        problems.0.push(Diagnostic {
            message: format!("{name} is longer than {MAX_BYTES} bytes, and no more are read"),
            span: None,
            label: String::new(),
            help: Some("a manifest is a few kilobytes: is this the right file?".into()),
        });
        return Err(problems);
    }
    let source = sources.add(name, text);
    let offsets = Offsets::new(text, source);
    let mut reader = Reader { parser: Parser::new_from_str(text), offsets, source, text };
    reader.document()
}

/// Character indices, in which the parser counts, to byte offsets.
struct Offsets(Option<Vec<usize>>);

impl Offsets {
    fn new(text: &str, _source: u16) -> Self {
        // In ASCII text, which most manifests are, the two are the same.
        Self((!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i).chain([text.len()]).collect()))
    }

    fn byte(&self, index: usize, len: usize) -> usize {
        match &self.0 {
            None => index.min(len),
            Some(map) => map.get(index).copied().unwrap_or(len),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    offsets: Offsets,
    source: u16,
    text: &'t str,
}

fn one(span: Span, message: impl Into<String>, label: impl Into<String>, help: Option<&str>) -> Problems {
    let help = help.map(str::to_owned);
    Problems::one(Diagnostic { message: message.into(), span: Some(span), label: label.into(), help })
}

impl<'t> Reader<'t> {
    fn span(&self, span: &YamlSpan) -> Span {
        let start = self.offsets.byte(span.start.index(), self.text.len());
        let end = self.offsets.byte(span.end.index(), self.text.len());
        Span { source: self.source, start, end: end.max(start) }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problems> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let span = self.span(&span);
                Ok((event, span))
            }
            Some(Err(error)) => {
                let at = self.offsets.byte(error.marker().index(), self.text.len());
                Err(self.mistaken(mistake::explain(self.text, at, error.info())))
            }
            None => Ok((Event::StreamEnd, Span { source: self.source, start: self.text.len(), end: self.text.len() })),
        }
    }

    fn mistaken(&self, mistake: mistake::Mistake) -> Problems {
        let span = Span { source: self.source, start: mistake.start, end: mistake.end };
        one(span, mistake.message, mistake.label, mistake.help.as_deref())
    }

    fn document(&mut self) -> Result<Node, Problems> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd | Event::DocumentEnd, span) => {
                    return Err(one(span, "there is nothing in it", "a manifest was expected", None));
                }
                (event, span) => {
                    let node = self.node(event, span, 0)?;
                    return self.end(node);
                }
            }
        }
    }

    /// Nothing may follow the document.
    fn end(&mut self, node: Node) -> Result<Node, Problems> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(node),
                (Event::DocumentStart(_), span) => {
                    let help = Some("give each manifest a file of its own");
                    return Err(one(span, "a second document in one file", "starts here", help));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problems> {
        if depth > MAX_DEPTH {
            return Err(one(span, format!("nested more than {MAX_DEPTH} deep"), "too deep", None));
        }
        if let Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) =
            &event
            && (*anchor != 0 || tag.is_some())
        {
            return Err(self.adorned(span, tag.as_deref()));
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let value = match style {
                    ScalarStyle::Plain => resolve_plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                Ok(Node { span, value })
            }
            Event::Alias(_) => Err(one(span, "aliases are not read", "write the value out", None)),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => {
                            return Ok(Node { span: Span { end: end.end, ..span }, value: Value::List(items) });
                        }
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => self.map(span, depth),
            other => Err(one(span, format!("unexpected {other:?}"), "here", None)),
        }
    }

    /// A value with an anchor or a tag before it: meant as a part of its text, or not read.
    fn adorned(&self, span: Span, tag: Option<&saphyr_parser::Tag>) -> Problems {
        let before = self.text[..span.start].trim_end();
        let start = before.rfind(|c: char| c.is_whitespace() || "{[,".contains(c)).map_or(0, |i| i + 1);
        let is_mark = |at: usize| self.text[at..].starts_with(['&', '!']);
        let at = if is_mark(span.start) { span.start } else { start };
        match (mistake::unquoted(self.text, at), tag) {
            // `!!str` and `!!python/object` are no values of anything.
            (_, Some(tag)) if self.text[at..].starts_with("!!") => {
                let message = format!("the tag `{}{}` is not read", tag.handle, tag.suffix);
                one(span, message, "remove the tag", None)
            }
            (Some(mistake), _) => self.mistaken(mistake),
            (None, _) => one(span, "anchors and tags are not read", "remove what stands before the value", None),
        }
    }

    fn map(&mut self, start: Span, depth: usize) -> Result<Node, Problems> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        loop {
            let (event, key_span) = self.next()?;
            let key = match event {
                Event::MappingEnd => {
                    return Ok(Node { span: Span { end: key_span.end, ..start }, value: Value::Map(entries) });
                }
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return Err(one(key_span, "a key must be plain text", "not a key", None)),
            };
            if let Some(first) = seen.insert(key.clone(), entries.len()) {
                let first: &Entry = &entries[first];
                let before = format!("the key `{key}` is there twice");
                let help = format!("the first one has the value {}", first.node.to_json());
                return Err(one(key_span, before, "second time", Some(&help)));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            entries.push(Entry { key, key_span, node });
        }
    }
}

/// A plain scalar by YAML 1.2's core schema (section 10.3.2 of the specification).
pub(crate) fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    let numeric =
        text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) && text.bytes().any(|b| b.is_ascii_digit());
    if numeric {
        if let Ok(n) = text.parse::<i64>() {
            return Value::Int(n);
        }
        if let Ok(n) = text.parse::<f64>() {
            return Value::Float(n);
        }
    }
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        let mut sources = Sources::default();
        parse(&mut sources, "f.yaml", text).map_err(|p| {
            let d = &p.0[0];
            let place = d.span.and_then(|s| sources.place(s)).map(|(_, l, c)| format!("{l}:{c} ")).unwrap_or_default();
            format!("{place}{}", d.message)
        })
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let mut sources = Sources::default();
        let node = parse(&mut sources, "f.yaml", "ä: 1\nb: {c: ö, d: 5}\n").unwrap();
        let d = &node.get("b").unwrap().entries().unwrap()[1];
        assert_eq!(sources.place(d.key_span), Some(("f.yaml", 2, 11)));
        assert_eq!(sources.place(d.node.span), Some(("f.yaml", 2, 14)));
    }

    #[test]
    fn norway_is_text_and_numbers_are_numbers() {
        let node = read("[no, 1, 1.5, 1e3, 200ms, 1.2.3, ~, 'true', true, -5]").unwrap();
        let json = serde_json::json!(["no", 1, 1.5, 1000.0, "200ms", "1.2.3", null, "true", true, -5]);
        assert_eq!(node.to_json(), json);
    }

    #[test]
    fn hostile_text_is_refused_at_its_place() {
        assert!(read("a: 1\na: 2").unwrap_err().starts_with("2:1 the key `a` is there twice"));
        assert!(read("a: &x [1]\nb: *x").unwrap_err().contains("begins with `&`"));
        let deep = read(&"[".repeat(100_000)).unwrap_err();
        assert!(deep.contains("deep") || deep.contains("recursion"), "{deep}");
        assert!(read(&"{a: ".repeat(10_000)).is_err());
        assert!(read(&"x".repeat(10 << 20)).unwrap_err().contains("longer than"));
        for value in ["x", "[x]", "{x: y}"] {
            assert!(read(&format!("a: !!python/object {value}")).unwrap_err().contains("tag"), "{value}");
        }
        assert!(read("").unwrap_err().contains("nothing"));
        assert!(read("a: 1\n---\nb: 2").unwrap_err().contains("second document"));
        assert!(read("a: [1, 2").unwrap_err().contains("not closed"));
        assert!(read("? [a]\n: 1").unwrap_err().contains("key must be plain"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn any_yaml_like_text_too(text in "[a-c:{}\\[\\],&*!|>'\"\n #~0-9-]{0,80}") {
            let _ = read(&text);
        }
    }
}
