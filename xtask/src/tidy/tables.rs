//! One thing, one file: the tables of faults and probes against the folders that they come from.

use std::collections::BTreeMap;

use toprope_engine::probe::PROBES;
use toprope_faults::FAULTS;

use super::File;

/// Faults that are not where they belong.
pub(super) fn faults(files: &[File]) -> Vec<String> {
    let kinds: Vec<&str> = FAULTS.specs().iter().map(|spec| spec.spec.kind).collect();
    differences(files, "crates/faults/src/", &kinds)
}

/// Probes that are not where they belong.
pub(super) fn probes(files: &[File]) -> Vec<String> {
    let kinds: Vec<&str> = PROBES.iter().map(|probe| probe.spec().kind).collect();
    differences(files, "crates/engine/src/probe/", &kinds)
}

/// Compares the kinds that the files of a folder declare with those of a table.
fn differences(files: &[File], folder: &str, table: &[&str]) -> Vec<String> {
    let mut declared = BTreeMap::new();
    for file in files {
        let Some(stem) = file.path.strip_prefix(folder).and_then(|name| name.strip_suffix(".rs")) else { continue };
        // What a file of tests or a folder within declares is for tests.
        if stem.contains('/') || stem.starts_with("test") {
            continue;
        }
        for kind in kinds(&file.text) {
            declared.insert(kind.to_owned(), (stem.replace('_', "-"), file.path.as_str()));
        }
    }
    let mut broken = Vec::new();
    for (kind, (name, path)) in &declared {
        if kind != name {
            broken.push(format!("{path}: declares the kind {kind}, which belongs into a file of its own name"));
        }
        if !table.contains(&kind.as_str()) {
            broken.push(format!("{path}: the kind {kind} is not in the table"));
        }
    }
    let homeless = table.iter().filter(|kind| !declared.contains_key(**kind));
    broken.extend(homeless.map(|kind| format!("{folder}: no file declares the kind {kind} of the table")));
    broken
}

/// The kinds that a source declares, before its tests.
fn kinds(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter_map(|line| line.trim().strip_prefix("kind: \"")?.strip_suffix("\","))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn table_and_folder_must_agree() {
        let pause =
            file("f/process_pause.rs", "    kind: \"process-pause\",\n\n#[cfg(test)]\nmod tests {\n kind: \"x\",\n");
        let shared = file("f/targeted.rs", "//! What several share.");
        let tests = file("f/testing.rs", "    kind: \"fake\",\n");
        let files = [pause, shared, tests];
        assert!(differences(&files, "f/", &["process-pause"]).is_empty());
        assert!(differences(&files, "f/", &[])[0].contains("not in the table"));
        assert!(differences(&files, "f/", &["process-pause", "clock-skew"])[0].contains("no file declares"));
        let wrong = [file("f/pause.rs", "    kind: \"process-pause\",\n")];
        assert!(differences(&wrong, "f/", &["process-pause"])[0].contains("file of its own name"));
    }
}
