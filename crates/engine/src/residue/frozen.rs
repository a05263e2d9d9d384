//! Control groups whose processes the kernel has frozen.

use toprope_os::cgroup::frozen_groups;

use super::{Class, Finding, Scene, Survey, Unseen};

pub(super) const CLASS: Class = Class { name: "frozen-cgroup", own: false, look };

fn look(_: &Scene, survey: &mut Survey) {
    let groups = match frozen_groups() {
        Ok(groups) => groups,
        Err(error) => {
            let help = "look at cgroup.freeze and freezer.state below /sys/fs/cgroup".to_owned();
            return survey.unseen.push(Unseen { class: CLASS.name, own: false, what: error.to_string(), help });
        }
    };
    for group in groups {
        let (file, word) = &group.thaw;
        let count = group.pids.len();
        survey.findings.push(Finding {
            class: CLASS.name,
            own: false,
            what: format!("the control group {} is frozen", group.directory.display()),
            evidence: format!("{} says so; {count} processes in it: {:?}", file.display(), group.pids),
            since: None,
            undo: format!("echo {word} > {}", file.display()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{about, is_root, look};
    use super::*;
    use std::path::PathBuf;

    /// Both versions, where this host has them: the file that freezes, and the word for it.
    fn hierarchies() -> Vec<(PathBuf, &'static str, &'static str)> {
        let v2 = toprope_os::cgroup::V2::find().ok().map(|v2| v2.root().to_owned());
        let v1 = PathBuf::from("/sys/fs/cgroup/freezer");
        let v1 = v1.join("cgroup.procs").exists().then_some((v1, "freezer.state", "FROZEN"));
        v2.map(|root| (root, "cgroup.freeze", "1")).into_iter().chain(v1).collect()
    }

    #[test]
    fn a_frozen_group_of_either_version_is_found_until_it_is_thawed() {
        if !is_root("a_frozen_group_of_either_version_is_found_until_it_is_thawed") {
            return;
        }
        for (root, file, word) in hierarchies() {
            let directory = root.join(format!("toprope-test-frozen-{}", std::process::id()));
            if let Err(error) = std::fs::create_dir(&directory) {
                eprintln!("SKIPPED {}: {error}", root.display());
                continue;
            }
            let path = directory.to_str().unwrap().to_owned();
            let before = about(&look(CLASS), &path);
            let frozen = std::fs::write(directory.join(file), word);
            let found = about(&look(CLASS), &path);
            let thaw = found.first().map(|f| f.undo.clone()).unwrap_or_default();
            let thawed = std::process::Command::new("sh").args(["-c", &thaw]).status();
            let after = about(&look(CLASS), &path);
            std::fs::remove_dir(&directory).unwrap();
            frozen.unwrap();
            assert!(thawed.unwrap().success(), "{thaw}");
            assert_eq!((before.len(), found.len(), after.len()), (0, 1, 0), "{path}");
        }
    }
}
