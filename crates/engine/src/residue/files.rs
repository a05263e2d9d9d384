//! Big files that take room on a disk and have no name, and those that disk-filling tools leave.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toprope_os::process::ProcessInfo;

use super::{Class, Finding, Scene, Survey, Unseen, at, named, started};

pub(super) const CLASS: Class = Class { name: "file", own: false, look };

/// From this size on a file without a name is told, in bytes: 100 MiB.
const BIG: u64 = 100 << 20;

/// Files that disk-filling tools leave at the root of a file system or in a directory for temporary files.
const LEFT: [&str; 3] = ["chaos_filldisk.log.dat", "chaos_burnio.read", "chaos_burnio.write"];

fn look(scene: &Scene, survey: &mut Survey) {
    let mut unseen = 0;
    for process in scene.processes.iter().filter(|p| !p.kernel_thread && p.exe != scene.executable) {
        match nameless(process, BIG) {
            Some(found) => survey.findings.extend(found),
            None => unseen += 1,
        }
    }
    if unseen > 0 {
        survey.unseen.push(Unseen {
            class: CLASS.name,
            own: false,
            what: format!("the open files of {unseen} processes of other users"),
            help: "ask `sudo toprope residue`".to_owned(),
        });
    }
    for directory in ["/", "/tmp", "/var/tmp"] {
        survey.findings.extend(LEFT.iter().filter_map(|name| left(&Path::new(directory).join(name))));
    }
}

/// The big files without a name that a process holds open; `None` where they cannot be seen.
fn nameless(process: &ProcessInfo, big: u64) -> Option<Vec<Finding>> {
    let pid = process.id.pid();
    let entries = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(vec![]), // It has ended.
    };
    let mut found: Vec<(u64, Finding)> = Vec::new();
    for entry in entries.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let Some(path) = target.to_string_lossy().strip_suffix(" (deleted)").map(str::to_owned) else { continue };
        // Memory and not a disk: shared memory of programs, mostly.
        if ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero", "/i915", "/drm"].iter().any(|p| path.starts_with(p)) {
            continue;
        }
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        let bytes = meta.blocks() * 512;
        // One file may be open more than once.
        if !meta.is_file() || bytes < big || found.iter().any(|(inode, _)| *inode == meta.ino()) {
            continue;
        }
        let finding = Finding {
            class: CLASS.name,
            own: false,
            what: format!("{} holds {} MiB in a file without a name", named(process), bytes >> 20),
            evidence: format!("{} is {path}, which has no name any more", entry.path().display()),
            since: u64::try_from(meta.mtime()).ok().map(|s| format!("written last {}", at(s))).or(started(process)),
            undo: format!("end process {pid}, and its room is free again"),
        };
        found.push((meta.ino(), finding));
    }
    Some(found.into_iter().map(|(_, finding)| finding).collect())
}

fn left(path: &Path) -> Option<Finding> {
    let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(Finding {
        class: CLASS.name,
        own: false,
        what: format!("{} takes {} MiB", path.display(), (meta.blocks() * 512) >> 20),
        evidence: "its name, which ChaosBlade gives to what it fills disks with".to_owned(),
        since: u64::try_from(meta.mtime()).ok().map(|s| format!("written last {}", at(s))),
        undo: format!("rm {}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_big_file_without_a_name_is_found_and_one_with_a_name_is_not() {
        let me = || ProcessInfo::of(std::process::id()).unwrap();
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&vec![1; 3 << 20]).unwrap();
        file.sync_all().unwrap();
        let found = || -> Vec<Finding> {
            let all = nameless(&me(), 2 << 20).unwrap();
            all.into_iter().filter(|f| f.evidence.contains("filler")).collect()
        };
        assert_eq!(found(), []);
        std::fs::remove_file(&path).unwrap();
        let told = found();
        assert_eq!(told.len(), 1);
        assert!(told[0].what.contains("MiB in a file without a name"), "{told:?}");
        assert_eq!(nameless(&me(), 64 << 20).unwrap().iter().filter(|f| f.evidence.contains("filler")).count(), 0);
        drop(file);
        assert_eq!(found(), []);
    }

    #[test]
    fn what_chaosblade_leaves_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LEFT[0]);
        assert_eq!(left(&path), None);
        std::fs::write(&path, "x").unwrap();
        assert_eq!(left(&path).unwrap().undo, format!("rm {}", path.display()));
    }
}
