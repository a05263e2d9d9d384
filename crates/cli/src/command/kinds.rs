//! `toprope faults` and `toprope probes`

use serde_json::json;
use toprope_model::KindSpec;
use toprope_model::experiment::{FaultCommon, ProbeCommon};
use toprope_model::field::{Field, Type};
use toprope_model::kind::{FaultSpec, UndoKind};

use crate::args::KindArgs;
use crate::invocation::{Failure, tables};
use crate::show;

/// Lists or explains faults.
pub fn faults(args: &KindArgs) -> Result<u8, Failure> {
    let tables = tables();
    let specs: Vec<&KindSpec> = tables.faults.iter().map(|f| &f.spec).collect();
    let facts = |kind: &str| tables.fault(kind).map(in_words);
    let mut common = FaultCommon::fields();
    if args.kind.as_ref().is_some_and(|kind| tables.fault(kind).is_some_and(|f| !f.lasting)) {
        // What happens at one instant has no time in which these would mean anything.
        common.retain(|field| field.key == "name");
    }
    kinds(args, "fault", &specs, &common, facts)
}

/// Lists or explains probes.
pub fn probes(args: &KindArgs) -> Result<u8, Failure> {
    let tables = tables();
    // Some kinds are faults as well: what is said of those is not said here.
    kinds(args, "probe", &tables.probes, &ProbeCommon::fields(), |_| None)
}

fn kinds(
    args: &KindArgs,
    what: &str,
    specs: &[&KindSpec],
    common: &[Field],
    facts: impl Fn(&str) -> Option<String>,
) -> Result<u8, Failure> {
    let Some(kind) = &args.kind else {
        if args.json {
            let list: Vec<_> = specs.iter().map(|s| json!({"kind": s.kind, "summary": s.summary})).collect();
            show::line(&serde_json::to_string_pretty(&list).unwrap_or_default());
            return Ok(0);
        }
        let width = specs.iter().map(|s| s.kind.len()).max().unwrap_or_default();
        specs.iter().for_each(|s| show::line(&format!("{:width$}  {}", s.kind, s.summary)));
        return Ok(0);
    };
    let Some(spec) = specs.iter().find(|s| s.kind == kind) else {
        let near = toprope_model::diagnostic::nearest(kind, specs.iter().map(|s| s.kind));
        let help = near.map_or(format!("`toprope {what}s` lists them"), |n| format!("did you mean `{n}`?"));
        return Err(Failure::new(format!("there is no {what} `{kind}`")).help(help));
    };
    if args.json {
        let field = |f: &Field| json!({"key": f.key, "doc": f.doc, "type": type_name(&f.ty), "required": f.required, "default": f.default});
        let value = json!({
            "kind": spec.kind, "summary": spec.summary, "docs": spec.docs, "example": spec.example,
            "fields": (spec.fields)().iter().map(field).collect::<Vec<_>>(),
        });
        show::line(&serde_json::to_string_pretty(&value).unwrap_or_default());
        return Ok(0);
    }
    show::line(&format!("{}: {}\n", spec.kind, spec.summary));
    if let Some(facts) = facts(kind) {
        show::line(&format!("{facts}\n"));
    }
    show::line(spec.docs.trim());
    show::line("\nParameters:");
    (spec.fields)().iter().for_each(|f| print_field(f, 2));
    let names: Vec<&str> = common.iter().map(|f| f.key.as_str()).collect();
    show::line(&format!("\nAs every {what}: {}", names.join(", ")));
    show::line(&format!("\nExample:\n\n{}", spec.example.trim_end()));
    Ok(0)
}

/// What a user must know of a fault before its description.
fn in_words(fault: &FaultSpec) -> String {
    match fault.ramps {
        [] => undo_in_words(fault).to_owned(),
        ramps => format!("{} Can ramp: {}.", undo_in_words(fault), ramps.join(", ")),
    }
}

/// Who undoes a fault when everything of ours is dead.
pub fn undo_in_words(fault: &FaultSpec) -> &'static str {
    match fault.undo {
        UndoKind::KernelOwned => "Undone by the kernel when its injector dies.",
        UndoKind::Journalled => {
            "Undone by its injector or its guard; when all are dead, by `toprope undo` from the journal."
        }
        UndoKind::Irreversible => "Happens at one instant and cannot be undone.",
    }
}

fn print_field(field: &Field, indent: usize) {
    let mut about = type_name(&field.ty);
    match (field.required, field.default) {
        (true, _) => about.push_str(", required"),
        (false, Some(default)) => about.push_str(&format!(", {default} if not given")),
        (false, None) => {}
    }
    show::line(&format!("{:indent$}{} ({about})", "", field.key));
    let doc = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
    show::wrapped(&doc, indent + 4);
    if let Type::Object(inner) = &field.ty {
        inner.iter().for_each(|f| print_field(f, indent + 4));
    }
}

/// A type in a user's words.
pub fn type_name(ty: &Type) -> String {
    match ty {
        Type::Bool => "true or false".into(),
        Type::Int { .. } => "whole number".into(),
        Type::Float => "number".into(),
        Type::Text { what, .. } => what.trim_start_matches("a ").trim_start_matches("an ").into(),
        Type::Choice(words) => words.join(" | "),
        Type::List(item) => format!("list of {}", type_name(item)),
        Type::Map(value) => format!("map of names to {}", type_name(value)),
        Type::Object(_) => "map".into(),
        Type::Kind(table) => (*table).into(),
    }
}
