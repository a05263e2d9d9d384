//! `toprope inject`: one fault without a file.

use serde_json::{Map, Value as Json, json};
use toprope_model::Node;
use toprope_model::experiment::FaultCommon;
use toprope_model::field::{Field, Type};

use super::run::{execute, setup};
use crate::args::InjectArgs;
use crate::invocation::{Failure, tables, through};
use crate::{load, show};

/// Makes a manifest from the command line, runs it, and prints it to keep.
pub fn inject(args: &InjectArgs) -> Result<u8, Failure> {
    through(&args.launcher)?;
    let manifest = manifest(args)?;
    let loaded = match args.probe.is_empty() {
        true => load::unwatched(&manifest, &tables())?,
        false => load::from_json(&manifest, None, &tables())?,
    };
    let to_keep = || {
        let unwatched =
            if args.probe.is_empty() { "# Add probes under `spec`: nothing else can be shown.\n" } else { "" };
        show::text(&format!("{unwatched}{}", Node::from_json(&manifest).to_yaml()));
    };
    if args.print {
        to_keep();
        return Ok(0);
    }
    let mut setup = setup(&loaded, "inject")?;
    setup.seed = args.seed;
    let exit = execute(&loaded, setup, &args.output)?;
    if !args.output.json {
        show::line("\nThe manifest, to keep:\n");
        to_keep();
    }
    Ok(exit)
}

fn manifest(args: &InjectArgs) -> Result<Json, Failure> {
    let mut step = fault_step(&args.fault, &args.params)?;
    let fault = &mut step[&args.fault];
    if let Some(time) = &args.for_ {
        if fault.get("for").is_some() {
            return Err(Failure::new("`for` is given twice").help("write it as --for or as for=, not both"));
        }
        fault["for"] = json!(time);
    }
    let probes: Vec<Json> = args.probe.iter().map(|text| probe(text)).collect::<Result<_, _>>()?;
    let hypothesis = args.hypothesis.clone().unwrap_or_else(|| match args.probe.as_slice() {
        [] => format!("nothing is claimed of the system under {}", args.fault),
        _ => {
            let kind = |p: &Json| p.as_object().and_then(|m| m.keys().next().cloned()).unwrap_or_default();
            let what = |(text, p): (&String, &Json)| if text.starts_with('{') { kind(p) } else { text.clone() };
            let watched: Vec<String> = args.probe.iter().zip(&probes).map(what).collect();
            format!("{} stays well under {}", watched.join(" and "), args.fault)
        }
    });
    let mut spec = json!({"hypothesis": hypothesis, "probes": probes, "method": [step]});
    if probes.is_empty() {
        // Nobody looks, so there is no steady state to wait for.
        spec = json!({"hypothesis": hypothesis, "steady-state": {"for": "0s"}, "method": [step]});
    }
    Ok(json!({
        "apiVersion": toprope_model::API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": format!("inject-{}", args.fault)},
        "spec": spec,
    }))
}

/// A URL, or a whole probe as it stands in a manifest.
fn probe(text: &str) -> Result<Json, Failure> {
    if text.trim_start().starts_with('{') {
        let mut sources = toprope_model::Sources::default();
        let read = toprope_model::parse(&mut sources, "--probe", text);
        return read.map(|node| node.to_json()).map_err(|problems| Failure::manifest(sources, problems));
    }
    Ok(json!({"http": {"get": text, "interval": "200ms"}}))
}

/// A map or list in YAML's flow style, or JSON.
fn flow(text: &str) -> Option<Json> {
    let node = toprope_model::parse(&mut toprope_model::Sources::default(), "", text).ok()?;
    Some(node.to_json())
}

/// `kind key=value nested.key=value` as a step of a method.
pub fn fault_step(kind: &str, params: &[String]) -> Result<Json, Failure> {
    let tables = tables();
    let Some(spec) = tables.fault(kind) else {
        let kinds = tables.faults.iter().map(|f| f.spec.kind);
        let near = toprope_model::diagnostic::nearest(kind, kinds);
        let help = near.map_or("`toprope faults` lists them".to_owned(), |n| format!("did you mean `{n}`?"));
        return Err(Failure::new(format!("there is no fault `{kind}`")).help(help));
    };
    let fields = [(spec.spec.fields)(), FaultCommon::fields()].concat();
    let mut map = Map::new();
    for param in params {
        let Some((path, text)) = param.split_once('=') else {
            return Err(Failure::new(format!("`{param}`: write KEY=VALUE")));
        };
        set(&mut map, path, typed(&fields, path, text))
            .map_err(|()| Failure::new(format!("`{path}` is given twice")))?;
    }
    Ok(json!({ kind: map }))
}

fn set(map: &mut Map<String, Json>, path: &str, value: Json) -> Result<(), ()> {
    match path.split_once('.') {
        None => {
            if map.insert(path.to_owned(), value).is_none() {
                Ok(())
            } else {
                Err(())
            }
        }
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Json::Object(Map::new()));
            set(inner.as_object_mut().ok_or(())?, rest, value)
        }
    }
}

/// A value by its field's type: text fields take text as it is, lists take words, all else what YAML says.
fn typed(fields: &[Field], path: &str, text: &str) -> Json {
    let mut fields = fields.to_vec();
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        match fields.iter().find(|f| f.key == key).map(|f| f.ty.clone()) {
            Some(Type::Object(inner)) if keys.peek().is_some() => fields = inner,
            Some(Type::Object(_) | Type::Map(_) | Type::List(_)) if text.starts_with(['{', '[']) => {
                return flow(text).unwrap_or_else(|| json!(text));
            }
            Some(Type::Text { .. } | Type::Choice(_)) => return json!(text),
            Some(Type::List(_)) => return Json::Array(text.split_whitespace().map(|w| json!(w)).collect()),
            _ => break,
        }
    }
    load::plain(text).to_json()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_faults_have_is_written_as_a_faults_own() {
        let params = ["load=5%", "ramp={parameter: load, from: 5%, to: 10%, over: 1s}"].map(str::to_owned);
        let ramp = json!({"parameter": "load", "from": "5%", "to": "10%", "over": "1s"});
        let step = fault_step("cpu-stress", &params).ok();
        assert_eq!(step, Some(json!({"cpu-stress": {"load": "5%", "ramp": ramp}})));
    }
}
