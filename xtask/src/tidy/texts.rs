//! Rules for every text in the tree.

use super::File;

/// How paths begin that exist on somebody's machine only.
const MACHINES: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("C:\\Us", "ers"),
];

/// Whose home may stand in an example.
const NOBODY: [&str; 3] = ["you/", "user/", "me/"];

/// Lines with a path of somebody's machine.
pub(super) fn machine_paths(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            for start in MACHINES {
                if found(line, start) {
                    broken.push(format!("{}:{}: holds a path below {start}", file.path, number + 1));
                }
            }
        }
    }
    broken
}

/// Whether a path in this line begins so, and does not merely contain it further on.
fn found(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + start.len()..];
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && !"._-}/$".contains(c));
        begins && !NOBODY.iter().any(|nobody| after.starts_with(nobody))
    })
}

/// A changelog without a place for what comes next.
pub(super) fn changelog(files: &[File]) -> Vec<String> {
    let found = files.iter().find(|file| file.path == "CHANGELOG.md");
    match found {
        None => vec!["CHANGELOG.md: is missing".into()],
        Some(file) if !file.text.lines().any(|line| line == "## [Unreleased]") => {
            vec!["CHANGELOG.md: has no section `## [Unreleased]`".into()]
        }
        Some(_) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn paths_of_a_machine_are_found_and_others_are_not() {
        let lines = |text: &str| machine_paths(&[file("a", text)]).len();
        assert_eq!(lines(&format!("cd {}ann/src", MACHINES[0])), 1);
        assert_eq!(lines(&format!("\"{}x\"", MACHINES[3])), 1);
        assert_eq!(lines(&format!("cd {}you/src", MACHINES[0])), 0);
        assert_eq!(lines(&format!("https://example.org{}x and $BASE{}x", MACHINES[3], MACHINES[3])), 0);
    }

    #[test]
    fn the_changelog_has_a_place_for_what_comes_next() {
        assert!(changelog(&[file("CHANGELOG.md", "# C\n\n## [Unreleased]\n")]).is_empty());
        assert_eq!(changelog(&[file("CHANGELOG.md", "# C\n")]).len(), 1);
        assert_eq!(changelog(&[]).len(), 1);
    }
}
