//! Rules for the Rust sources.

use std::path::Path;

use super::File;

/// The most lines of a source file.
const LINES: usize = 600;

/// Files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[(
    "crates/model/src/experiment.rs",
    "the manifest's fields, whose doc comments are the users' reference: one page, one file",
)];

/// Names that say nothing of what a module holds.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

fn sources(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

fn stem(file: &File) -> &str {
    Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// Files without a `//!` at their beginning. A module's `tests` are told of by the module.
pub(super) fn undocumented(files: &[File]) -> Vec<String> {
    let says = |file: &File| {
        let mut lines = file.text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        lines.next().is_some_and(|line| line.starts_with("//!"))
    };
    sources(files)
        .filter(|file| stem(file) != "tests" && !says(file))
        .map(|file| format!("{}: does not begin with `//!` and what it is", file.path))
        .collect()
}

/// Files that are too long, and exceptions that are no longer needed.
pub(super) fn too_long(files: &[File]) -> Vec<String> {
    let excepted = |path: &str| LONGER.iter().any(|(longer, _)| *longer == path);
    let mut broken: Vec<String> = sources(files)
        .map(|file| (&file.path, file.text.lines().count()))
        .filter(|(path, lines)| *lines > LINES && !excepted(path))
        .map(|(path, lines)| format!("{path}: has {lines} lines; {LINES} are the most, so split it by what it says"))
        .collect();
    for (path, _) in LONGER {
        if !sources(files).any(|file| file.path == *path && file.text.lines().count() > LINES) {
            broken.push(format!("{path}: needs no exception any more in xtask/src/tidy/sources.rs"));
        }
    }
    broken
}

/// Modules whose name says nothing; `x/mod.rs`, which is `x.rs` here, beside `x/`.
pub(super) fn misnamed(files: &[File]) -> Vec<String> {
    let empty = |file: &File| EMPTY_NAMES.contains(&stem(file)).then(|| format!("{}: names no idea", file.path));
    let beside = |file: &File| {
        let directory = file.path.strip_suffix("/mod.rs")?;
        Some(format!("{}: is {directory}.rs in this house", file.path))
    };
    sources(files).filter_map(|file| empty(file).or_else(|| beside(file))).collect()
}

/// Lints on unsafe code that are switched off.
pub(super) fn unsafe_elsewhere(files: &[File]) -> Vec<String> {
    let off = [concat!("allow(unsafe", "_code"), concat!("expect(unsafe", "_code")];
    sources(files)
        .filter(|file| !file.path.starts_with("crates/os/") && off.iter().any(|lint| file.text.contains(lint)))
        .map(|file| format!("{}: what needs unsafe code belongs to crates/os", file.path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_file_must_say_what_it_is() {
        let said =
            [file("a.rs", "#![cfg(test)]\n\n//! What.\n"), file("x/tests.rs", "use super::*;"), file("b.md", "#")];
        assert!(undocumented(&said).is_empty());
        assert_eq!(undocumented(&[file("a.rs", "use std::fs;\n//! Late.")]).len(), 1);
        assert_eq!(undocumented(&[file("a.rs", "")]).len(), 1);
    }

    #[test]
    fn long_files_and_needless_exceptions_are_found() {
        let long = "//\n".repeat(LINES + 1);
        let excepted = file(LONGER[0].0, &long);
        assert!(too_long(&[excepted, file("a.rs", &"//\n".repeat(LINES))]).is_empty());
        let broken = too_long(&[file("a.rs", &long), file(LONGER[0].0, "//")]);
        assert!(broken[0].starts_with("a.rs: has 601 lines"), "{broken:?}");
        assert!(broken[1].contains("no exception"), "{broken:?}");
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        let files =
            [file("src/utils.rs", ""), file("src/x/mod.rs", ""), file("src/model.rs", ""), file("util/x.py", "")];
        assert_eq!(misnamed(&files).len(), 2);
    }

    #[test]
    fn unsafe_code_stays_where_it_belongs() {
        let text = concat!("#[expect(unsafe", "_code, reason = \"\")]");
        assert!(unsafe_elsewhere(&[file("crates/os/src/a.rs", text)]).is_empty());
        assert_eq!(unsafe_elsewhere(&[file("crates/proxy/src/a.rs", text)]).len(), 1);
    }
}
