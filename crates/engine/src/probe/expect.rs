//! What is tolerated in one sample: the same words in every kind of probe.

use std::fmt;

use serde_json::Value as Json;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, text_type};

/// A path into JSON, by RFC 9535.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonPath {
    text: String,
    path: serde_json_path::JsonPath,
}

impl std::str::FromStr for JsonPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = serde_json_path::JsonPath::parse(text).map_err(|e| format!("{} {}", e.message(), e.position()))?;
        Ok(Self { text: text.into(), path })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_type!(JsonPath, "a JSONPath", "$.queue.depth");

/// What an answer must be: every part that is given must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Expect {
    /// A comparison with a number, a quantity or a text.
    pub(super) value: Option<Comparison>,
    /// One of these must hold; none is no condition.
    pub(super) in_: Vec<Comparison>,
    /// An expression that must be found in it.
    pub(super) matches: Option<Pattern>,
    /// Picks what the other parts judge, out of an answer in JSON.
    pub(super) json: Option<JsonPath>,
}

/// What was found in an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// Why it is not what was expected.
    pub(super) bad: Option<String>,
    /// Its number, where one was asked for.
    pub(super) value: Option<f64>,
    /// The text that was judged, where `json` picked it.
    pub(super) picked: Option<String>,
}

impl Expect {
    /// Whether anything that answers will do.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for a number, which then is the sample's value.
    pub(super) fn reads_value(&self) -> bool {
        self.value.is_some() || self.json.is_some()
    }

    /// Judges an answer; `what` names it in words: `the body`.
    pub(super) fn judge(&self, what: &str, answer: &str) -> Found {
        let Some(json) = &self.json else {
            let text = answer.trim();
            let value = self.value.as_ref().and_then(|_| number(text));
            return Found { bad: self.refuses(what, text), value, picked: None };
        };
        let parsed: Json = match serde_json::from_str(answer) {
            Ok(parsed) => parsed,
            Err(e) => return Found::bad(format!("{what} is not JSON: {e}")),
        };
        let picked: Vec<String> = json.path.query(&parsed).iter().map(|node| text_of(node)).collect();
        let Some(first) = picked.first() else {
            return Found::bad(format!("there is nothing at {json} in {what}"));
        };
        Found {
            bad: picked.iter().find_map(|text| self.refuses(&json.text, text)),
            value: number(first),
            picked: Some(first.clone()),
        }
    }

    /// Judges a number that the probe itself has read.
    pub(super) fn judge_number(&self, what: &str, number: f64) -> Option<String> {
        self.refused(what, &number.to_string(), |c| c.holds(number))
    }

    fn refuses(&self, what: &str, text: &str) -> Option<String> {
        self.refused(what, text, |c| c.holds_text(text))
    }

    /// Why something is not what was expected.
    fn refused(&self, what: &str, text: &str, holds: impl Fn(&Comparison) -> bool) -> Option<String> {
        if let Some(value) = self.value.as_ref().filter(|value| !holds(value)) {
            return Some(format!("{what} is {}, not {value}", shown(text)));
        }
        if !self.in_.is_empty() && !self.in_.iter().any(&holds) {
            return Some(format!("{what} is {}, not one of {}", shown(text), list(&self.in_)));
        }
        let pattern = self.matches.as_ref().filter(|pattern| !pattern.0.is_match(text))?;
        Some(format!("{what} is {}, which does not match /{pattern}/", shown(text)))
    }

    /// What is tolerated, in words.
    pub(super) fn describe(&self, what: &str) -> Vec<String> {
        let what = self.json.as_ref().map_or(what, |json| &json.text);
        let mut parts = Vec::new();
        parts.extend(self.value.as_ref().map(|value| format!("{what} {value}")));
        if !self.in_.is_empty() {
            parts.push(format!("{what} one of {}", list(&self.in_)));
        }
        parts.extend(self.matches.as_ref().map(|pattern| format!("{what} matches /{pattern}/")));
        if parts.is_empty() && self.json.is_some() {
            parts.push(format!("{what} is there"));
        }
        parts
    }
}

impl Found {
    fn bad(why: String) -> Self {
        Self { bad: Some(why), ..Self::default() }
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// A JSON value as the text that is compared: a string without its quotes.
pub(super) fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number that a chart can show.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

/// How much of an answer is shown in a message.
const SHOWN: usize = 80;

/// A text that somebody else wrote, as it may stand in a message: on one line, escaped, and short.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "empty".into();
    }
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|c| {
            // Quotes and backslashes stay as they are, so that JSON can be read.
            let escape = c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let escaped: Vec<char> = if escape { c.escape_default().collect() } else { vec![c] };
            escaped
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    format!("`{out}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(value: &str, in_: &[&str], matches: &str, json: &str) -> Expect {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Expect {
            value: some(value).map(|t| t.parse().unwrap()),
            in_: in_.iter().map(|t| t.parse().unwrap()).collect(),
            matches: some(matches).map(|t| t.parse().unwrap()),
            json: some(json).map(|t| t.parse().unwrap()),
        }
    }

    #[test]
    fn a_text_is_judged_by_every_part() {
        assert_eq!(expect("< 5", &[], "", "").judge("it", " 4 \n"), Found { value: Some(4.0), ..Found::default() });
        assert_eq!(expect("< 5", &[], "", "").judge("it", "6").bad.unwrap(), "it is `6`, not < 5");
        assert_eq!(expect("< 5", &[], "", "").judge("it", "many").value, None);
        assert_eq!(expect("5..10", &[], "", "").judge("it", "10").bad, None);
        assert_eq!(expect("", &["up", "5"], "", "").judge("it", "5.0").bad, None);
        assert_eq!(expect("", &["up", "5"], "", "").judge("it", "down").bad.unwrap(), "it is `down`, not one of up, 5");
        assert_eq!(expect("", &[], "^o.$", "").judge("it", "ok\n").bad, None);
        assert!(expect("", &[], "^o.$", "").judge("it", "no").bad.unwrap().contains("does not match /^o.$/"));
        assert!(expect("ok", &[], "x", "").judge("it", "ok").bad.is_some(), "every part must hold");
        assert_eq!(expect("", &["1"], "", "").judge("it", "1").value, None, "only `value` and `json` ask for a number");
    }

    #[test]
    fn a_path_picks_what_is_judged() {
        let body = r#"{"queue": {"depth": 7, "state": "ok"}, "nodes": [{"up": true}, {"up": false}]}"#;
        let found = expect("< 10", &[], "", "$.queue.depth").judge("the body", body);
        assert_eq!((found.bad, found.value, found.picked.as_deref()), (None, Some(7.0), Some("7")));
        assert_eq!(expect("", &["ok"], "", "$.queue.state").judge("the body", body).bad, None);
        assert_eq!(expect("true", &[], "", "$.nodes[0].up").judge("the body", body).bad, None);
        let found = expect("true", &[], "", "$.nodes[*].up").judge("the body", body);
        assert_eq!(found.bad.unwrap(), "$.nodes[*].up is `false`, not true", "each of several is judged");
        assert!(expect("", &[], "", "$.x").judge("the body", body).bad.unwrap().contains("nothing at $.x"));
        assert!(expect("", &[], "", "$.x").judge("the body", "<html>").bad.unwrap().contains("is not JSON"));
        assert!("$.[".parse::<JsonPath>().is_err());
    }

    #[test]
    fn it_says_what_it_tolerates() {
        assert_eq!(
            expect("< 5", &["1", "2"], "x", "").describe("body"),
            ["body < 5", "body one of 1, 2", "body matches /x/"]
        );
        assert_eq!(expect("", &[], "", "$.a").describe("body"), ["$.a is there"]);
        assert!(Expect::default().describe("body").is_empty() && Expect::default().is_empty());
    }

    #[test]
    fn what_others_wrote_is_short_and_harmless() {
        assert_eq!(shown("a\x1b[31m\nb\u{202e}"), "`a\\u{1b}[31m\\nb\\u{202e}`");
        assert_eq!(shown(&"ä".repeat(1000)).chars().count(), SHOWN + 3);
        assert_eq!(shown("  "), "empty");
    }
}
