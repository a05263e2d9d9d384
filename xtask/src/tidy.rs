//! The rules of the house that no compiler knows. Each rule is a function from the tree to what breaks it.

mod arrows;
mod sources;
mod tables;
mod texts;

use crate::failure::Failure;
use crate::workspace::Workspace;

/// A file of the tree.
struct File {
    /// Relative to the workspace.
    path: String,
    text: String,
}

/// What breaks a rule, each with its place.
type Check = fn(&[File]) -> Vec<String>;

/// The rules over the files of the tree, by name.
const RULES: [(&str, Check); 8] = [
    ("every source file says in its first line what it is", sources::undocumented),
    ("a module holds one idea", sources::too_long),
    ("a module is named after what it holds", sources::misnamed),
    ("only crates/os may hold unsafe code", sources::unsafe_elsewhere),
    ("a fault is one file, and one line in the table", tables::faults),
    ("a probe is one file, and one line in the table", tables::probes),
    ("no path of somebody's machine", texts::machine_paths),
    ("the changelog says what is not released yet", texts::changelog),
];

/// Checks every rule, and tells of all that is broken.
pub(crate) fn tidy(workspace: &Workspace) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in workspace.files()? {
        // What is no text has no rules.
        if let Ok(text) = std::fs::read_to_string(workspace.path(&path)) {
            files.push(File { path, text });
        }
    }
    let mut broken = Vec::new();
    for (rule, check) in RULES {
        broken.extend(check(&files).into_iter().map(|what| format!("{what}\n  rule: {rule}")));
    }
    let arrows = arrows::upwards(&arrows::packages(workspace)?);
    broken.extend(arrows.into_iter().map(|what| format!("{what}\n  rule: arrows between crates point down")));
    if broken.is_empty() {
        println!("tidy: {} rules hold in {} files", RULES.len() + 1, files.len());
        return Ok(());
    }
    Err(Failure::Found(format!("{} rules are broken\n\n{}", broken.len(), broken.join("\n"))))
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}
