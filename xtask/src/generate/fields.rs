//! Fields of a manifest as a Markdown table.

use std::fmt::Write;

use toprope_model::FromNode;
use toprope_model::field::{Field, Type};
use toprope_model::target::Selector;

/// A table with a row for each field, and below an object's row one for each of its own.
pub(super) fn table(fields: &[Field]) -> String {
    if fields.is_empty() {
        return "It takes no parameters of its own.\n".to_owned();
    }
    let mut text = "| key | what | if not given | |\n| --- | --- | --- | --- |\n".to_owned();
    rows(&mut text, "", fields);
    text
}

fn rows(text: &mut String, prefix: &str, fields: &[Field]) {
    for field in fields {
        let key = format!("{prefix}{}", field.key);
        let absent = match (field.required, field.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
            (false, None) => String::new(),
        };
        let cells = [format!("`{key}`"), in_words(&field.ty), absent, field.doc.replace('\n', " ")];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a string cannot fail");
        if let Some((inner, fields)) = inside(&field.ty, &key) {
            rows(text, &inner, fields);
        }
    }
}

/// The fields of an object, or of a list's objects, and how their keys begin. Those of targets have a section of
/// their own, because every fault has a target.
fn inside<'a>(ty: &'a Type, key: &str) -> Option<(String, &'a [Field])> {
    match ty {
        Type::Object(_) if is_target(ty) => None,
        Type::Object(fields) => Some((format!("{key}."), fields)),
        Type::List(item) => inside(item, &format!("{key}[]")),
        Type::Map(value) => inside(value, &format!("{key}.*")),
        _ => None,
    }
}

fn is_target(ty: &Type) -> bool {
    *ty == Selector::ty()
}

/// A type in a user's words.
fn in_words(ty: &Type) -> String {
    match ty {
        Type::Bool => "`true` or `false`".into(),
        Type::Int { min, max } => whole_number(*min, *max),
        Type::Float => "number".into(),
        Type::Text { what, example: "" } => without_article(what).into(),
        Type::Text { what, example } => format!("{}, such as `{}`", without_article(what), example.trim_matches('"')),
        Type::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Type::List(item) => format!("list: {}", in_words(item)),
        Type::Map(value) => format!("map from names: {}", in_words(value)),
        Type::Object(_) if is_target(ty) => "[target](manifest.md#targets)".into(),
        Type::Object(_) => "map".into(),
        Type::Kind("probe") => "[probe](probes.md)".into(),
        Type::Kind("step") => "[step](manifest.md#steps) or [fault](faults.md)".into(),
        Type::Kind("guardrail") => "[guardrail](manifest.md#guardrails)".into(),
        Type::Kind(table) => (*table).into(),
    }
}

fn without_article(what: &str) -> &str {
    what.strip_prefix("a ").or_else(|| what.strip_prefix("an ")).unwrap_or(what)
}

/// A range is told only where it is one that a user could meet.
fn whole_number(min: i64, max: i64) -> String {
    let far = i64::from(i32::MAX);
    match (min <= -far, max >= far) {
        (true, true) => "whole number".into(),
        (false, true) => format!("whole number from {min}"),
        (true, false) => format!("whole number up to {max}"),
        (false, false) => format!("whole number from {min} to {max}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(key: &str, ty: Type) -> Field {
        Field { key: key.into(), doc: "Either a|b.\nOr c.".into(), ty, required: true, default: None }
    }

    #[test]
    fn nested_fields_are_rows_and_bars_are_escaped() {
        let inner = field("inner", Type::Choice(&["x", "y"]));
        let outer = field("outer", Type::List(Box::new(Type::Object(vec![inner]))));
        let table = table(&[outer]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows[0], "| `outer` | list: map | required | Either a\\|b. Or c. |");
        assert_eq!(rows[1], "| `outer[].inner` | `x`, `y` | required | Either a\\|b. Or c. |");
    }

    #[test]
    fn targets_are_told_once_elsewhere() {
        let table = table(&[field("target", Selector::ty())]);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("(manifest.md#targets)"));
    }

    #[test]
    fn a_range_is_told_where_it_limits() {
        assert_eq!(whole_number(0, 65535), "whole number from 0 to 65535");
        assert_eq!(whole_number(0, i64::MAX), "whole number from 0");
        assert_eq!(whole_number(i64::MIN, i64::MAX), "whole number");
    }
}
