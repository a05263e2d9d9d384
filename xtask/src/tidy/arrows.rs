//! Which crate may use which: the map of the house, checked against the manifests.

use std::collections::BTreeMap;

use crate::failure::Failure;
use crate::workspace::{Workspace, output};

/// What each crate may depend on, from the ground up. A new crate gets a line here, and with it a place in the house.
const MAY_USE: &[(&str, &[&str])] = &[
    ("toprope-stats", &[]),
    // How many samples a claim takes is part of what a manifest may say.
    ("toprope-model", &["toprope-stats"]),
    ("toprope-os", &[]),
    ("toprope-proxy", &["toprope-os"]),
    // Never on the faults: their table is handed to it.
    ("toprope-engine", &["toprope-model", "toprope-stats", "toprope-os", "toprope-proxy"]),
    ("toprope-faults", &["toprope-model", "toprope-os", "toprope-proxy", "toprope-engine"]),
    // A system under test like any other: it knows nothing of what tests it.
    ("toprope-shop", &[]),
    (
        "toprope-cli",
        &[
            "toprope-model",
            "toprope-stats",
            "toprope-os",
            "toprope-proxy",
            "toprope-engine",
            "toprope-faults",
            "toprope-shop",
        ],
    ),
    // Tells what the binary did by reading its logs and the kernel; the faults it meets from outside only.
    ("toprope-tests", &["toprope-model", "toprope-os", "toprope-engine"]),
    ("xtask", &["toprope-model", "toprope-stats", "toprope-os", "toprope-engine", "toprope-faults"]),
];

/// Every package of the workspace with those of the workspace that it builds with.
pub(super) type Packages = BTreeMap<String, Vec<String>>;

/// Asks cargo.
pub(super) fn packages(workspace: &Workspace) -> Result<Packages, Failure> {
    let text = output(workspace.cargo().args(["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    let unreadable = |why: String| Failure::Failed { command: "cargo metadata".into(), why };
    let metadata: serde_json::Value = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let list = metadata["packages"].as_array().ok_or_else(|| unreadable("it lists no packages".into()))?;
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let uses = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|d| d["path"].is_string() && d["kind"] != "dev").map(name).collect()
    };
    Ok(list.iter().map(|package| (name(package), uses(package))).collect())
}

/// Every arrow that is not in the map.
pub(super) fn upwards(packages: &Packages) -> Vec<String> {
    let mut broken = Vec::new();
    for (package, uses) in packages {
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| name == package) else {
            broken.push(format!("{package} has no place in the house: give it one in xtask/src/tidy/arrows.rs"));
            continue;
        };
        let wrong = uses.iter().filter(|used| !may.contains(&used.as_str()));
        broken.extend(wrong.map(|used| format!("{package} depends on {used}, and may not")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_points_up_is_found() {
        let packages = |name: &str, uses: &[&str]| {
            Packages::from([(name.to_owned(), uses.iter().map(|u| (*u).to_owned()).collect())])
        };
        assert!(upwards(&packages("toprope-faults", &["toprope-engine"])).is_empty());
        assert_eq!(upwards(&packages("toprope-engine", &["toprope-faults"])).len(), 1);
        assert!(upwards(&packages("toprope-new", &[]))[0].contains("no place"));
    }
}
