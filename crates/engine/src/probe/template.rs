//! Texts with placeholders: what a probe writes differs from sample to sample, so that each write can be found again.

use std::borrow::Cow;
use std::fmt;

use toprope_model::text_type;

/// What stands for the placeholders in one sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill<'a> {
    /// For `{run}`: the run's id.
    pub(super) run: &'a str,
    /// For `{n}`: the sample's number, or the name of the write that is looked for.
    pub(super) n: &'a str,
}

/// A text in which `{n}` stands for the number of the sample, `{run}` for the id of the run and, in what looks for a
/// write, `{id}` for what the write returned. All other braces stand for themselves, as do `${n}` and `${run}`, which
/// mean something to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number,
    Run,
    Id,
}

const PLACEHOLDERS: [(&str, Piece); 3] = [("{n}", Piece::Number), ("{run}", Piece::Run), ("{id}", Piece::Id)];

impl From<&str> for Template {
    fn from(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let found = PLACEHOLDERS.iter().find(|(sign, _)| rest.starts_with(sign) && !literal.ends_with('$'));
            match found {
                Some((sign, piece)) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(piece.clone());
                    rest = &rest[sign.len()..];
                }
                None => {
                    literal.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self { text: text.into(), pieces }
    }
}

impl Template {
    /// The text with its placeholders filled.
    pub(super) fn fill(&self, fill: Fill<'_>) -> Cow<'_, str> {
        match self.pieces.as_slice() {
            [] => Cow::Borrowed(""),
            [Piece::Text(text)] => Cow::Borrowed(text),
            pieces => Cow::Owned(
                pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => text,
                        Piece::Number | Piece::Id => fill.n,
                        Piece::Run => fill.run,
                    })
                    .collect(),
            ),
        }
    }

    /// Whether it is the same in every sample.
    pub(super) fn is_constant(&self) -> bool {
        !self.names_write() && !self.pieces.contains(&Piece::Run)
    }

    /// Whether `{n}` or `{id}` is in it: without one, all writes are the same.
    pub(super) fn names_write(&self) -> bool {
        self.pieces.contains(&Piece::Number) || self.takes_id()
    }

    /// Whether `{id}` is in it.
    pub(super) fn takes_id(&self) -> bool {
        self.pieces.contains(&Piece::Id)
    }
}

impl std::str::FromStr for Template {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(text))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_type!(Template, "text", "order-{n}");

#[cfg(test)]
mod tests {
    use super::*;

    const FILL: Fill<'static> = Fill { run: "r1", n: "7" };

    #[test]
    fn placeholders_are_filled_and_all_else_stays() {
        for (text, filled) in [
            ("/orders/{n}?run={run}", "/orders/7?run=r1"),
            (r#"{"id": {n}, "x": {}}"#, r#"{"id": 7, "x": {}}"#),
            ("{n}{n}", "77"),
            ("echo ${n} {n} ${run}", "echo ${n} 7 ${run}"),
            ("ä{n}ö {nn} {", "ä7ö {nn} {"),
            ("", ""),
        ] {
            assert_eq!(Template::from(text).fill(FILL), filled);
        }
        assert!(Template::from("a {b}").is_constant() && !Template::from("{run}").is_constant());
        assert!(Template::from("{id}").names_write() && !Template::from("{run}").names_write());
    }

    proptest::proptest! {
        #[test]
        fn a_text_without_placeholders_is_itself(text in "[a-m{}$ ]{0,40}") {
            let template = Template::from(text.as_str());
            proptest::prop_assert_eq!(template.fill(FILL), text.as_str());
        }
    }
}
