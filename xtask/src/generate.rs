//! Writes what is derived from the code, or checks that it is as it would be written.

mod command_line;
mod fields;
mod kinds;
mod manifest;

use std::path::{Path, PathBuf};

use toprope_engine::probe::PROBES;
use toprope_faults::FAULTS;
use toprope_model::{Tables, schema};

use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// Directories in which every file is written by this task.
const DIRECTORIES: [&str; 2] = ["docs/reference", "schema"];

/// What stands at the top of every page.
const NOTICE: &str = "<!-- Written by `cargo xtask generate` from the code. Change the code, not this page. -->";

/// A file by its path in the workspace, and its text.
type Page = (&'static str, String);

/// Writes the pages and schemas; with `check`, fails if that would change anything.
pub(crate) fn generate(workspace: &Workspace, check: bool, toprope: Option<PathBuf>) -> Result<(), Failure> {
    let toprope = toprope.map_or_else(|| workspace.build_toprope("dev"), Ok)?;
    let pages = pages(&toprope)?;
    if check {
        return compare(workspace, &pages);
    }
    for (path, text) in &pages {
        workspace::write(&workspace.path(path), text)?;
    }
    println!("wrote {}", names(&pages).join(", "));
    Ok(())
}

fn pages(toprope: &Path) -> Result<Vec<Page>, Failure> {
    let tables = Tables { faults: FAULTS.specs(), probes: PROBES.iter().map(|p| p.spec()).collect() };
    let json = |schema| format!("{schema:#}\n");
    Ok(vec![
        ("docs/reference/manifest.md", manifest::page()),
        ("docs/reference/faults.md", kinds::faults(&tables)),
        ("docs/reference/probes.md", kinds::probes(&tables)),
        ("docs/reference/cli.md", command_line::page(toprope)?),
        ("schema/experiment.json", json(schema::file::experiment(&tables))),
        ("schema/policy.json", json(schema::policy())),
        ("schema/topology.json", json(schema::file::topology(&tables))),
    ])
}

fn names(pages: &[Page]) -> Vec<&'static str> {
    pages.iter().map(|page| page.0).collect()
}

fn compare(workspace: &Workspace, pages: &[Page]) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (path, text) in pages {
        match std::fs::read_to_string(workspace.path(path)) {
            Ok(found) if found == *text => {}
            Ok(found) => {
                wrong.push(format!("{path}: line {} is not what the code says", first_difference(&found, text)))
            }
            Err(error) => wrong.push(format!("{path}: {error}")),
        }
    }
    let known = names(pages);
    let files = workspace.files()?;
    let generated = |file: &&String| DIRECTORIES.iter().any(|d| Path::new(file.as_str()).starts_with(d));
    let left_over = files.iter().filter(generated).filter(|file| !known.contains(&file.as_str()));
    wrong.extend(left_over.map(|file| format!("{file}: is written by nothing any more")));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Found(format!("generated files are not current; run `make generate`\n{}", wrong.join("\n"))))
}

/// The first line, from 1, that is not the same in both.
fn first_difference(found: &str, wanted: &str) -> usize {
    let same = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    same + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(first_difference("a\nb\nc", "a\nB\nc"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
        assert_eq!(first_difference("", "a"), 1);
    }
}
