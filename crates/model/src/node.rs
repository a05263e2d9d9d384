//! A manifest as a tree in which every key and value knows where it was written.

use std::fmt;

/// One text that was read: a file, standard input, or values given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// How the text is named in errors, for instance the path as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// All texts that one manifest was made of; [`Span::source`] is an index into it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<Source>);

impl Sources {
    /// Adds a text and returns the number under which spans refer to it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u16 {
        self.0.push(Source { name: name.into(), text: text.into() });
        u16::try_from(self.0.len() - 1).expect("includes are limited far below 65,536 files")
    }

    /// The text that a span points into.
    pub fn get(&self, span: Span) -> Option<&Source> {
        self.0.get(usize::from(span.source))
    }

    /// File name, line and column (both from 1, the column in characters) of a span's start.
    pub fn place(&self, span: Span) -> Option<(&str, usize, usize)> {
        let source = self.get(span)?;
        let before = source.text.get(..span.start.min(source.text.len()))?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((&source.name, line, column))
    }
}

/// Where something was written: byte offsets into one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Index into [`Sources`].
    pub source: u16,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it was written; the default span for values that no text holds.
    pub span: Span,
    /// What was written.
    pub value: Value,
}

/// What a manifest can hold: JSON's values, with whole numbers apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order it was written; the parser refuses a key that is there twice.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub key_span: Span,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// A node that no text holds.
    pub fn bare(value: Value) -> Self {
        Self { span: Span::default(), value }
    }

    /// What this is, in a user's words.
    pub fn type_name(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The entries of a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// The text of a text node.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Splits a map in two: the entries whose keys are in `keys`, and the rest. Anything but a map is all rest.
    pub fn partition(&self, keys: &[&str]) -> (Node, Node) {
        let Value::Map(entries) = &self.value else {
            return (Node { span: self.span, value: Value::Map(vec![]) }, self.clone());
        };
        let (named, rest) = entries.iter().cloned().partition(|e| keys.contains(&e.key.as_str()));
        (Node { span: self.span, value: Value::Map(named) }, Node { span: self.span, value: Value::Map(rest) })
    }

    /// Sets a key of a map, replacing what is there. Does nothing to other nodes.
    pub fn set(&mut self, key: &str, node: Node) {
        if let Value::Map(entries) = &mut self.value {
            match entries.iter_mut().find(|e| e.key == key) {
                Some(entry) => entry.node = node,
                None => entries.push(Entry { key: key.into(), key_span: node.span, node }),
            }
        }
    }

    /// The same value as JSON, without places.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Float(n) => Json::from(*n),
            Value::Text(t) => Json::String(t.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect()),
        }
    }

    /// A tree without places from JSON.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        Self::bare(match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
            Json::String(s) => Value::Text(s.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(k, v)| Entry { key: k.clone(), key_span: Span::default(), node: Self::from_json(v) })
                    .collect(),
            ),
        })
    }

    /// The same value as YAML that a person would write: used to print a manifest to keep.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        write_yaml(self, 0, &mut out).expect("writing to a string cannot fail");
        out
    }
}

/// Whether a text can stand in YAML without quotes, in block and in flow style.
fn plain(text: &str) -> bool {
    let starts_well = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || "/_$.".contains(c));
    let resolves_to_text = matches!(crate::parse::resolve_plain(text), Value::Text(_));
    starts_well
        && resolves_to_text
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains(|c: char| c.is_control() || "{}[],\"'`".contains(c))
}

fn write_scalar(text: &str, out: &mut String) {
    if plain(text) {
        out.push_str(text);
    } else {
        // A JSON string is a YAML double-quoted scalar.
        out.push_str(&serde_json::Value::String(text.into()).to_string());
    }
}

/// A map or list of scalars that is short enough to read on one line.
fn flow(node: &Node) -> Option<String> {
    let scalar = |node: &Node| match &node.value {
        Value::List(_) | Value::Map(_) => flow(node),
        _ => {
            let mut text = String::new();
            write_yaml(node, 0, &mut text).ok()?;
            Some(text.trim_end().to_owned())
        }
    };
    let text = match &node.value {
        Value::List(items) => format!("[{}]", items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(", ")),
        Value::Map(entries) => {
            let parts = entries.iter().map(|e| {
                let mut key = String::new();
                write_scalar(&e.key, &mut key);
                Some(format!("{key}: {}", scalar(&e.node)?))
            });
            format!("{{{}}}", parts.collect::<Option<Vec<_>>>()?.join(", "))
        }
        _ => return None,
    };
    (text.len() <= 90).then_some(text)
}

fn write_yaml(node: &Node, indent: usize, out: &mut String) -> fmt::Result {
    use fmt::Write;
    match &node.value {
        Value::Null => writeln!(out, "null"),
        Value::Bool(b) => writeln!(out, "{b}"),
        Value::Int(n) => writeln!(out, "{n}"),
        Value::Float(n) => writeln!(out, "{n:?}"),
        Value::Text(text) => {
            write_scalar(text, out);
            writeln!(out)
        }
        Value::List(items) if items.is_empty() => writeln!(out, "[]"),
        Value::Map(entries) if entries.is_empty() => writeln!(out, "{{}}"),
        Value::List(items) => {
            for item in items {
                write!(out, "{:indent$}- ", "")?;
                write_item(item, indent + 2, out)?;
            }
            Ok(())
        }
        Value::Map(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                if i > 0 {
                    write!(out, "{:indent$}", "")?;
                }
                write_scalar(&entry.key, out);
                out.push(':');
                let nested = matches!(&entry.node.value, Value::List(v) if !v.is_empty())
                    || matches!(&entry.node.value, Value::Map(v) if !v.is_empty());
                match flow(&entry.node).filter(|_| indent > 0) {
                    Some(text) => writeln!(out, " {text}")?,
                    None if nested => {
                        out.push('\n');
                        let list = matches!(entry.node.value, Value::List(_));
                        let deeper = if list { indent } else { indent + 2 };
                        if !list {
                            write!(out, "{:deeper$}", "")?;
                        }
                        write_yaml(&entry.node, deeper, out)?;
                    }
                    None => {
                        out.push(' ');
                        write_yaml(&entry.node, indent, out)?;
                    }
                }
            }
            Ok(())
        }
    }
}

/// One item of a list: a single-key map keeps its parameters on its own line where they fit.
fn write_item(item: &Node, indent: usize, out: &mut String) -> fmt::Result {
    if let Value::List(_) = &item.value {
        out.push_str(&flow(item).unwrap_or_else(|| item.to_json().to_string()));
        out.push('\n');
        return Ok(());
    }
    write_yaml(item, indent, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_that_we_write_reads_back_as_the_same_value() {
        let json = serde_json::json!({
            "apiVersion": "toprope.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "x"},
            "spec": {"hypothesis": "it holds: yes #1", "probes": [{"http": {"get": "http://127.0.0.1:1/", "status": 200}}],
                "method": [{"wait": {"for": "1s"}}, {"parallel": [{"command": {"apply": ["a", "b c", "true", "1e3", ""]}}]}],
                "nothing": null, "list": [], "map": {}, "number": 1.5, "nested": [[1, 2], [3]]}
        });
        let yaml = Node::from_json(&json).to_yaml();
        let mut sources = Sources::default();
        let read = crate::parse(&mut sources, "x.yaml", &yaml).unwrap_or_else(|e| panic!("{e:?}\n{yaml}"));
        assert_eq!(read.to_json(), json, "{yaml}");
    }
}
