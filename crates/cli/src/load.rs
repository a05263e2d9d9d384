//! From a file to a manifest that nothing is missing from: includes, values, environment and files are resolved here
//! and nowhere else.
//!
//! - `include: [FILE…]` beside `spec`: the file's `spec` and `values` are merged under this one's; lists are joined,
//!   what is included first.
//! - `values: {name: value}` beside `spec` gives defaults, `--set name=value` overrides them, `${name}` uses them.
//! - `${env:NAME}` and `${file:PATH}` take the value from there; `${name:-default}` and `${env:NAME:-default}` have a
//!   default; `$${` is a literal `${`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toprope_model::node::Entry;
use toprope_model::policy::Policy;
use toprope_model::topology::Topology;
use toprope_model::{Experiment, Node, Problems, Sources, Tables, Value};

use crate::invocation::Failure;

/// Includes within includes end here.
const MAX_DEPTH: usize = 8;
/// A file that is taken into a value is not longer.
const MAX_FILE: u64 = 64 << 10;

/// An experiment with all that it names.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    /// The topology that it names.
    pub topology: Option<Topology>,
    /// The texts, for errors that are found later.
    pub sources: Sources,
}

/// Reads an experiment from a file; `-` is standard input.
pub fn experiment(file: &Path, set: &[String], tables: &Tables) -> Result<Loaded, Failure> {
    let mut sources = Sources::default();
    match read(file, set, &mut sources) {
        Ok(node) => with_topology(&node, file, sources, tables),
        Err(Unread::Failure(failure)) => Err(failure),
        Err(Unread::Problems(problems)) => Err(Failure::manifest(sources, problems)),
    }
}

/// Makes an experiment from a manifest that names no probe: it injects and undoes, and can show nothing.
pub fn unwatched(json: &Json, tables: &Tables) -> Result<Loaded, Failure> {
    let mut sources = Sources::default();
    let yaml = Node::from_json(json).to_yaml();
    let read = toprope_model::parse(&mut sources, "(manifest)", &yaml)
        .and_then(|node| Experiment::read_unwatched(&node, tables));
    match read {
        Ok(experiment) => Ok(Loaded { experiment, topology: None, sources }),
        Err(problems) => Err(Failure::manifest(sources, problems)),
    }
}

/// Makes an experiment from a manifest without a file; `topology` is the one that it names.
pub fn from_json(json: &Json, topology: Option<&Json>, tables: &Tables) -> Result<Loaded, Failure> {
    let mut sources = Sources::default();
    let yaml = Node::from_json(json).to_yaml();
    let read = toprope_model::parse(&mut sources, "(manifest)", &yaml).and_then(|node| Experiment::read(&node, tables));
    match (read, topology.map(|json| Topology::read(&Node::from_json(json))).transpose()) {
        (Ok(experiment), Ok(topology)) => Ok(Loaded { experiment, topology, sources }),
        (Err(problems), _) | (_, Err(problems)) => Err(Failure::manifest(sources, problems)),
    }
}

/// Reads the topology that an experiment names, from beside the experiment's file.
fn with_topology(node: &Node, file: &Path, mut sources: Sources, tables: &Tables) -> Result<Loaded, Failure> {
    let experiment = match Experiment::read(node, tables) {
        Ok(experiment) => experiment,
        Err(problems) => return Err(Failure::manifest(sources, problems)),
    };
    let Some(path) = &experiment.spec.topology else { return Ok(Loaded { experiment, topology: None, sources }) };
    let path = file.parent().unwrap_or(Path::new("")).join(path);
    if !path.is_file() {
        let span = node.get("spec").and_then(|spec| spec.get("topology")).map_or(node.span, |n| n.span);
        let mut problems = Problems::default();
        problems
            .add(span, format!("there is no file {}", path.display()), "named here")
            .help("paths are from the manifest's directory");
        return Err(Failure::manifest(sources, problems));
    }
    let read = read(&path, &[], &mut sources).and_then(|node| Topology::read(&node).map_err(Unread::Problems));
    match read {
        Ok(topology) => Ok(Loaded { experiment, topology: Some(topology), sources }),
        Err(Unread::Failure(failure)) => Err(failure),
        Err(Unread::Problems(problems)) => Err(Failure::manifest(sources, problems)),
    }
}

/// Reads a topology from a file.
pub fn topology(file: &Path, set: &[String]) -> Result<Topology, Failure> {
    let mut sources = Sources::default();
    let read = read(file, set, &mut sources).and_then(|node| Topology::read(&node).map_err(Unread::Problems));
    read.map_err(|unread| match unread {
        Unread::Failure(failure) => failure,
        Unread::Problems(problems) => Failure::manifest(sources, problems),
    })
}

/// Reads a policy from a file, which is all that a launcher looks at: there are no includes and no values.
pub fn policy(file: &Path, tables: &Tables) -> Result<Policy, Failure> {
    let mut sources = Sources::default();
    let parsed = toprope_model::parse(&mut sources, &file.display().to_string(), &text_of(file)?);
    parsed.and_then(|node| Policy::read(&node, tables)).map_err(|problems| Failure::manifest(sources, problems))
}

enum Unread {
    Failure(Failure),
    Problems(Problems),
}

impl From<Problems> for Unread {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

/// The kind of manifest that a file holds, if it can be told.
pub fn kind_of(file: &Path) -> Option<String> {
    let text = text_of(file).ok()?;
    let node = toprope_model::parse(&mut Sources::default(), "", &text).ok()?;
    node.get("kind")?.text().map(str::to_owned)
}

fn read(file: &Path, set: &[String], sources: &mut Sources) -> Result<Node, Unread> {
    let mut node = read_included(file, sources, &mut Vec::new())?;
    let mut values: BTreeMap<String, Node> = BTreeMap::new();
    if let Some(given) = node.get("values") {
        let Some(entries) = given.entries() else {
            let mut problems = Problems::default();
            problems.add(given.span, "`values` is a map from names to values", "not a map");
            return Err(problems.into());
        };
        values.extend(entries.iter().map(|e| (e.key.clone(), e.node.clone())));
    }
    for pair in set {
        let Some((name, text)) = pair.split_once('=') else {
            return Err(Unread::Failure(Failure::new(format!("--set {pair}: write NAME=VALUE"))));
        };
        values.insert(name.into(), plain(text));
    }
    remove(&mut node, "values");
    let mut problems = Problems::default();
    let mut used = Vec::new();
    let base = file.parent().unwrap_or(Path::new("")).to_owned();
    substitute(&mut node, &values, &base, &mut used, &mut problems);
    problems.into_result()?;
    for pair in set {
        let name = pair.split('=').next().unwrap_or_default();
        if !used.iter().any(|u| u == name) {
            let near =
                toprope_model::diagnostic::nearest(name, values.keys().map(String::as_str).filter(|k| *k != name));
            let failure = Failure::new(format!("--set {name}: the manifest uses no ${{{name}}}"));
            return Err(Unread::Failure(match near {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure,
            }));
        }
    }
    Ok(node)
}

/// A value from the command line as YAML would take it.
pub fn plain(text: &str) -> Node {
    let quoted = || Node::bare(Value::Text(text.to_owned()));
    match toprope_model::parse(&mut Sources::default(), "", text) {
        Ok(node) if !matches!(node.value, Value::Map(_) | Value::Null) => Node::from_json(&node.to_json()),
        _ => quoted(),
    }
}

fn remove(node: &mut Node, key: &str) {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|e| e.key != key);
    }
}

/// A file's text, or as much of it as is too much for a manifest: what has no end is not read to its end.
fn text_of(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let (name, most) = (file.display(), toprope_model::MAX_BYTES as u64 + 1);
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|e| match file == Path::new("-") {
        true => Failure::new(format!("cannot read standard input: {e}")),
        false => Failure::new(format!("cannot read {name}: {e}")),
    })?;
    let length = bytes.len() as u64;
    String::from_utf8(bytes).or_else(|e| {
        let valid = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned();
        if length == most && e.utf8_error().error_len().is_none() {
            return Ok(before + "?"); // Only the cut through a character is wrong with it.
        }
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Err(Failure::new(format!("{name}:{line}:{column} is not text: byte {valid} is not UTF-8")))
    })
}

fn read_included(file: &Path, sources: &mut Sources, within: &mut Vec<PathBuf>) -> Result<Node, Unread> {
    let text = text_of(file).map_err(Unread::Failure)?;
    let mut node = toprope_model::parse(sources, &file.display().to_string(), &text)?;
    let Some(include) = node.get("include").cloned() else { return Ok(node) };
    let mut problems = Problems::default();
    let Value::List(files) = &include.value else {
        problems.add(include.span, "`include` is a list of files", "not a list");
        return Err(problems.into());
    };
    remove(&mut node, "include");
    within.push(file.to_owned());
    let mut merged: Option<Node> = None;
    for item in files {
        let Some(path) = item.text() else {
            problems.add(item.span, "a file's path was expected", "not a path");
            return Err(problems.into());
        };
        let path = file.parent().unwrap_or(Path::new("")).join(path);
        if within.len() >= MAX_DEPTH || within.contains(&path) {
            problems.add(item.span, format!("{} includes itself, or too deep", path.display()), "included here");
            return Err(problems.into());
        }
        if !path.is_file() {
            problems.add(item.span, format!("there is no file {}", path.display()), "included here");
            return Err(problems.into());
        }
        let mut part = read_included(&path, sources, within)?;
        for key in ["apiVersion", "kind", "metadata"] {
            remove(&mut part, key);
        }
        merged = Some(match merged {
            None => part,
            Some(before) => merge(before, part),
        });
    }
    within.pop();
    Ok(match merged {
        Some(under) => merge(under, node),
        None => node,
    })
}

/// `over` on top of `under`: maps are merged, lists joined, anything else replaced.
fn merge(under: Node, over: Node) -> Node {
    let span = over.span;
    match (under.value, over.value) {
        (Value::Map(mut below), Value::Map(above)) => {
            for entry in above {
                match below.iter().position(|e| e.key == entry.key) {
                    Some(i) => {
                        let old = below.remove(i);
                        below.insert(i, Entry { node: merge(old.node, entry.node), ..entry });
                    }
                    None => below.push(entry),
                }
            }
            Node { span, value: Value::Map(below) }
        }
        (Value::List(mut below), Value::List(above)) => {
            below.extend(above);
            Node { span, value: Value::List(below) }
        }
        (_, above) => Node { span, value: above },
    }
}

/// Replaces every `${…}` in the texts of a tree.
fn substitute(
    node: &mut Node,
    values: &BTreeMap<String, Node>,
    base: &Path,
    used: &mut Vec<String>,
    problems: &mut Problems,
) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| substitute(n, values, base, used, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|e| substitute(&mut e.node, values, base, used, problems)),
        Value::Text(text) if text.contains("${") => {
            let mut out = String::new();
            let mut whole: Option<Value> = None;
            let mut rest = text.as_str();
            while let Some(at) = rest.find("${") {
                if rest[..at].ends_with('$') {
                    out.push_str(&rest[..at]);
                    out.push('{');
                    rest = &rest[at + 2..];
                    continue;
                }
                out.push_str(&rest[..at]);
                let Some(end) = rest[at..].find('}') else {
                    problems.add(node.span, "a `${` without its `}`", "not closed").help("write $${ for a literal ${");
                    return;
                };
                let name = &rest[at + 2..at + end];
                match lookup(name, values, base, used) {
                    Ok(found) => {
                        match &found.value {
                            Value::Text(text) => out.push_str(text),
                            _ => out.push_str(&found.to_json().to_string()),
                        }
                        if at == 0 && end + 1 == rest.len() && rest.len() == text.len() {
                            whole = Some(found.value);
                        }
                    }
                    Err((message, help)) => {
                        problems.add(node.span, message, "used here").help(help);
                        return;
                    }
                }
                rest = &rest[at + end + 1..];
            }
            out.push_str(rest);
            // A value that stands alone keeps its type: `port: ${port}` is a number.
            node.value = whole.unwrap_or(Value::Text(out));
        }
        _ => {}
    }
}

/// The text of a file that is taken into a value. Nothing is opened that may have no end, or wait for a writer.
fn text_of_value(path: &Path) -> Result<String, (String, String)> {
    use std::io::Read;
    let name = path.display();
    let cannot = |e| (format!("cannot read {name}: {e}"), "paths are from the manifest's directory".to_owned());
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err((format!("{name} is not a regular file"), "name a file that holds the value".into()));
    }
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    // What is cut off in the middle of a character is too long, and not without text.
    let too_long = std::fs::metadata(path).is_ok_and(|m| m.len() > MAX_FILE) || text.len() as u64 > MAX_FILE;
    match read {
        _ if too_long => Err((format!("{name} is longer than {MAX_FILE} bytes"), "use a smaller file".into())),
        Ok(_) => Ok(text),
        Err(e) => Err(cannot(e)),
    }
}

fn lookup(
    name: &str,
    values: &BTreeMap<String, Node>,
    base: &Path,
    used: &mut Vec<String>,
) -> Result<Node, (String, String)> {
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name.trim(), Some(default)),
        None => (name.trim(), None),
    };
    if let Some(variable) = name.strip_prefix("env:") {
        return match (std::env::var(variable), default) {
            (Ok(value), _) => Ok(plain(&value)),
            (Err(_), Some(default)) => Ok(plain(default)),
            (Err(_), None) => {
                let help = format!("set it, or give a default: ${{env:{variable}:-value}}");
                Err((format!("the environment has no {variable}"), help))
            }
        };
    }
    if let Some(path) = name.strip_prefix("file:") {
        let path = base.join(path);
        return match (text_of_value(&path), default) {
            (Ok(text), _) => Ok(Node::bare(Value::Text(text.trim_end_matches('\n').to_owned()))),
            (Err(_), Some(default)) => Ok(plain(default)),
            (Err(refused), None) => Err(refused),
        };
    }
    used.push(name.to_owned());
    match (values.get(name), default) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(default)) => Ok(plain(default)),
        (None, None) => {
            let near = toprope_model::diagnostic::nearest(name, values.keys().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("give it with --set {name}=VALUE, or under `values:` in the manifest"),
            };
            Err((format!("there is no value `{name}`"), help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)], set: &[&str]) -> Result<serde_json::Value, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let mut sources = Sources::default();
        match read(&dir.path().join(files[0].0), &set, &mut sources) {
            Ok(node) => Ok(node.to_json()),
            Err(Unread::Problems(p)) => Err(p.0.iter().map(|d| format!("{} {:?}", d.message, d.help)).collect()),
            Err(Unread::Failure(f)) => Err(format!("{f:?}")),
        }
    }

    #[test]
    fn values_keep_their_types_and_are_overridden() {
        let text = "values: {port: 80, host: h}\nspec: {a: '${port}', b: 'http://${host}:${port}/', c: '$${x}', d: '${e:-5s}'}";
        let json = load(&[("f", text)], &["port=81"]).unwrap();
        assert_eq!(json, serde_json::json!({"spec": {"a": 81, "b": "http://h:81/", "c": "${x}", "d": "5s"}}));
    }

    #[test]
    fn what_is_missing_is_named_with_the_nearest() {
        assert!(load(&[("f", "values: {port: 80}\na: '${prt}'")], &[]).unwrap_err().contains("did you mean `port`"));
        assert!(load(&[("f", "a: '${env:TOPROPE_NO_SUCH}'")], &[]).unwrap_err().contains("TOPROPE_NO_SUCH"));
        assert!(load(&[("f", "values: {port: 80}\na: '${port}'")], &["prot=1"]).unwrap_err().contains("did you mean"));
        assert!(load(&[("f", "a: '${port'")], &[]).unwrap_err().contains("without its"));
        assert!(load(&[("f", "a: '${file:nope}'")], &[]).unwrap_err().contains("nope"));
        assert!(load(&[("f", "a: '${file:/dev/zero}'")], &[]).unwrap_err().contains("not a regular file"));
        let long = "x".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
        assert!(load(&[("f", "a: '${file:long}'"), ("long", &long)], &[]).unwrap_err().contains("longer than"));
    }

    #[test]
    fn includes_are_merged_under_the_file_that_includes_them() {
        let over = "include: [b]\nspec: {x: 1, list: [2], map: {k: 1}}";
        let json =
            load(&[("f", over), ("b", "kind: Part\nspec: {x: 0, y: 0, list: [1], map: {j: 0, k: 0}}")], &[]).unwrap();
        assert_eq!(json, serde_json::json!({"spec": {"x": 1, "y": 0, "list": [1, 2], "map": {"j": 0, "k": 1}}}));
        assert!(load(&[("f", "include: [f]")], &[]).unwrap_err().contains("includes itself"));
        assert!(load(&[("f", "include: [no]")], &[]).unwrap_err().contains("no file"));
    }
}
