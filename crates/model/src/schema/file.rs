//! The schema of a manifest as it lies in a file: before values, environment and includes are resolved.
//!
//! A resolved manifest has one JSON type for each key. In a file any value may be a text with `${…}`, a text of a form may
//! be a number, `include` may bring what is required, and a part that others include is no whole manifest; an editor that
//! does not know that flags files that are valid.

use serde_json::{Value as Json, json};

use crate::kind::Tables;

/// The kind of a file that is a part of others.
const PART: &str = "Part";

/// The schema of a file that holds an `Experiment`, or a `Part` of one.
pub fn experiment(tables: &Tables) -> Json {
    of_file(super::experiment(tables))
}

/// The schema of a file that holds a `Topology`, or a `Part` of one.
pub fn topology(tables: &Tables) -> Json {
    of_file(super::topology(tables))
}

fn of_file(mut schema: Json) -> Json {
    let kind = schema["properties"]["kind"]["enum"][0].take();
    let required = schema["required"].take();
    let properties = &mut schema["properties"];
    properties["kind"] = json!({
        "type": "string", "enum": [kind, PART], "description": format!("`{PART}` is what other files include."),
    });
    let required_of_spec = properties["spec"]["required"].take();
    for key in ["metadata", "spec"] {
        within(&mut properties[key]);
    }
    properties["include"] = json!({
        "type": "array", "items": {"type": "string"},
        "description": "Files whose `spec` and `values` are merged under this one's, by their paths from this file. \
                        Lists are joined, what is included first.",
    });
    properties["values"] = json!({
        "type": "object",
        "description": "What `${name}` stands for in this file; `--set name=value` overrides it.",
    });
    if let Some(defs) = schema["$defs"].as_object_mut() {
        defs.values_mut().for_each(within);
    }
    let manifest = schema.as_object_mut().expect("a manifest's schema is an object");
    manifest.remove("required");
    manifest["properties"]["spec"].as_object_mut().expect("so is a spec's").remove("required");
    // What is required depends on whether the file is a whole manifest.
    manifest.insert("if".into(), json!({"properties": {"kind": {"const": PART}}, "required": ["kind"]}));
    let mut whole = json!({"required": required});
    if required_of_spec.is_array() {
        whole["if"] = json!({"not": {"required": ["include"]}});
        whole["then"] = json!({"properties": {"spec": {"required": required_of_spec}}});
    }
    manifest.insert("else".into(), whole);
    schema
}

/// Lets every value below a schema be a reference to one.
fn within(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Json::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(or_reference);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            or_reference(below);
        }
    }
}

/// Lets a value be a reference, `${name}`, too.
fn or_reference(schema: &mut Json) {
    within(schema);
    let Some(map) = schema.as_object_mut() else { return };
    match map.get("type").and_then(Json::as_str) {
        Some("string") => {
            if let Some(words) = map.remove("enum") {
                map.insert("anyOf".into(), json!([{"enum": words}, {"pattern": "\\$\\{"}]));
            } else if map.contains_key("examples") {
                // Text of a form, as `< 5`, is read from a number too: `value: 1`.
                map.insert("type".into(), json!(["string", "number"]));
            }
        }
        // A pattern limits texts, a minimum numbers: each applies to its own type.
        Some(other) => {
            let types = json!([other, "string"]);
            map.insert("type".into(), types);
            map.insert("pattern".into(), "^\\$\\{.*\\}$".into());
        }
        // A kind's map is written out: in an editor, to choose between two forms costs more than it gives.
        None => {}
    }
}
