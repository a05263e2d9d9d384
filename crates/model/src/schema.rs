//! JSON Schema (draft 2020-12) of the manifests, from the tables: as the ground of the CRD and, of a [`file`], for editors.

pub mod file;

use serde_json::{Map, Value as Json, json};

use crate::experiment::{
    FaultCommon, GUARDRAIL_KINDS, GuardrailItem, Metadata, ProbeCommon, Repeat, STEP_KINDS, Spec, Wait,
};
use crate::field::{Field, FromNode, Type};
use crate::kind::{KindSpec, Tables};
use crate::policy::PolicySpec;
use crate::topology::TopologySpec;

/// The schema of `kind: Experiment`.
pub fn experiment(tables: &Tables) -> Json {
    manifest("Experiment", Type::Object(Spec::fields()), tables)
}

/// The schema of `kind: Topology`.
pub fn topology(tables: &Tables) -> Json {
    manifest("Topology", TopologySpec::ty(), tables)
}

/// The schema of `kind: Policy`, which is written as it is read: there are no values and includes.
pub fn policy() -> Json {
    let mut schema = manifest("Policy", PolicySpec::ty(), &Tables::default());
    schema["$defs"] = json!({});
    schema
}

fn manifest(kind: &str, spec: Type, tables: &Tables) -> Json {
    let mut defs = Map::new();
    defs.insert("probe".into(), probes(tables));
    defs.insert("step".into(), steps(tables));
    defs.insert("guardrail".into(), guardrails());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Toprope {kind}"),
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [crate::API_VERSION]},
            "kind": {"type": "string", "enum": [kind]},
            "metadata": of_type(&Metadata::ty()),
            "spec": of_type(&spec),
        },
        "$defs": defs,
    })
}

fn of_type(ty: &Type) -> Json {
    match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Type::Float => json!({"type": "number"}),
        Type::Text { example: "", .. } => json!({"type": "string"}),
        Type::Text { what, example } => {
            json!({"type": "string", "description": what, "examples": [example.trim_matches('"')]})
        }
        Type::Choice(words) => json!({"type": "string", "enum": words}),
        Type::List(item) => json!({"type": "array", "items": of_type(item)}),
        Type::Map(value) => json!({"type": "object", "additionalProperties": of_type(value)}),
        Type::Object(fields) => object(fields),
        Type::Kind(table) => json!({"$ref": format!("#/$defs/{table}")}),
    }
}

fn object(fields: &[Field]) -> Json {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = of_type(&field.ty);
        if let Json::Object(map) = &mut schema {
            map.insert("description".into(), field.doc.clone().into());
            if let Some(default) = field.default {
                map.insert("default".into(), crate::search::value_for(fields, &field.key, default).to_json());
            }
        }
        properties.insert(field.key.clone(), schema);
    }
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.key.as_str()).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A map with exactly one key, which is a kind.
fn one_of(kinds: impl IntoIterator<Item = (String, Json)>) -> Json {
    let properties: Map<String, Json> = kinds.into_iter().collect();
    json!({
        "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": properties
    })
}

/// A kind's own fields and the common ones.
fn kind(spec: &KindSpec, mut common: Vec<Field>, needs_duration: bool) -> (String, Json) {
    if needs_duration {
        common.iter_mut().filter(|f| f.key == "for").for_each(|f| f.required = true);
    }
    let mut fields = (spec.fields)();
    fields.extend(common);
    let mut schema = object(&fields);
    schema["description"] = spec.summary.into();
    (spec.kind.into(), schema)
}

fn probes(tables: &Tables) -> Json {
    one_of(tables.probes.iter().map(|spec| kind(spec, ProbeCommon::fields(), false)))
}

fn steps(tables: &Tables) -> Json {
    let about = |kind: &str, mut schema: Json| {
        let doc = STEP_KINDS.iter().find(|k| k.0 == kind).map_or("", |k| k.1);
        schema["description"] = doc.into();
        (kind.to_owned(), schema)
    };
    let list = json!({"type": "array", "items": {"$ref": "#/$defs/step"}});
    let control = [
        about("wait", of_type(&Wait::ty())),
        about("serial", list.clone()),
        about("parallel", list),
        about("repeat", of_type(&Repeat::ty())),
    ];
    let faults = tables.faults.iter().map(|f| kind(&f.spec, FaultCommon::fields(), f.lasting));
    one_of(control.into_iter().chain(faults))
}

fn guardrails() -> Json {
    one_of(GUARDRAIL_KINDS.iter().zip(GuardrailItem::fields()).map(|((kind, doc), fields)| {
        let mut schema = of_type(&Type::Object(fields));
        schema["description"] = (*doc).into();
        ((*kind).to_owned(), schema)
    }))
}
