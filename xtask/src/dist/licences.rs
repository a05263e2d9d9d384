//! The licences of everything that is linked into the binary: most ask that their text goes along with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, OnFile};
use crate::workspace::{Workspace, output};

/// How files that hold a licence or a notice begin, in lower case.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];

/// Every crate in the binary with its licence, and every text that they bring, each once.
pub(super) fn texts(workspace: &Workspace, target: &str) -> Result<String, Failure> {
    let mut crates = BTreeMap::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let linked = linked(workspace, target)?;
    for package in packages(workspace, target)? {
        let name = format!("{} {}", package.name, package.version);
        if !linked.contains(&name) {
            continue;
        }
        let found = in_directory(&package.directory)?;
        if found.is_empty() {
            return Err(Failure::Found(format!("{name} brings no text of its licence ({})", package.licence)));
        }
        for text in found {
            texts.entry(text).or_default().insert(name.clone());
        }
        crates.insert(name, package.licence);
    }
    let mut all = String::from("What is linked into toprope beside its own code, and under which licence.\n\n");
    for (name, licence) in &crates {
        let _ = writeln!(all, "{name}: {licence}");
    }
    all.push_str(
        "\nThe GNU C Library: LGPL-2.1-or-later, as packaged by the system that this was built on. Toprope's own source is \
         public, so it can be linked anew with another one.\nThe Rust standard library: Apache-2.0 OR MIT.\n",
    );
    for (text, names) in &texts {
        let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = write!(all, "\n{:=<100}\n{names}\n{:=<100}\n\n{}\n", "", "", text.trim_end());
    }
    Ok(all)
}

struct Package {
    name: String,
    version: String,
    licence: String,
    directory: PathBuf,
}

/// Every package that cargo knows of here, those of the workspace left out.
fn packages(workspace: &Workspace, target: &str) -> Result<Vec<Package>, Failure> {
    let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
    let text = output(workspace.cargo().args(arguments))?;
    let unreadable = |why: String| Failure::Failed { command: "cargo metadata".into(), why };
    let metadata: serde_json::Value = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let list = metadata["packages"].as_array().ok_or_else(|| unreadable("it lists no packages".into()))?;
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let from_outside = list.iter().filter(|package| package["source"].is_string());
    Ok(from_outside
        .map(|package| Package {
            name: text(package, "name"),
            version: text(package, "version"),
            licence: text(package, "license"),
            directory: Path::new(&text(package, "manifest_path")).parent().unwrap_or(Path::new("")).to_owned(),
        })
        .collect())
}

/// `NAME VERSION` of every crate that goes into the binary; what only builds or tests it does not.
fn linked(workspace: &Workspace, target: &str) -> Result<BTreeSet<String>, Failure> {
    let arguments =
        ["tree", "--locked", "--package", "toprope-cli", "--edges", "normal", "--prefix", "none", "--target", target];
    let text = output(workspace.cargo().args(arguments))?;
    let name = |line: &str| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?.trim_start_matches('v')))
    };
    Ok(text.lines().filter_map(name).collect())
}

/// The texts that a crate brings: beside its manifest, or in a directory for them, as <https://reuse.software> has it.
fn in_directory(directory: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).on("read", directory)? {
        let path = entry.on("read", directory)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if !NAMES.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let paths = match path.is_dir() {
            true => std::fs::read_dir(&path).on("read", &path)?.flatten().map(|entry| entry.path()).collect(),
            false => vec![path],
        };
        for path in paths.iter().filter(|path| path.is_file()) {
            found.push(String::from_utf8_lossy(&std::fs::read(path).on("read", path)?).into_owned());
        }
    }
    found.sort();
    Ok(found)
}
