//! Control groups (cgroups(7)): where they are mounted.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Result, Unsupported, error::Context, process::CgroupMembership};

/// The v2 hierarchy, wherever it is mounted: with v1 in use it is often a side mount such as `/sys/fs/cgroup/unified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V2 {
    mount: PathBuf,
}

/// A group of the v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its directory.
    pub directory: PathBuf,
    /// How far below the root it lies; 0 is the root.
    pub level: u32,
    /// The kernel's number for it.
    pub id: u64,
}

impl V2 {
    /// Looks where it is mounted.
    ///
    /// # Errors
    /// [`Unsupported`] where it is not.
    pub fn find() -> Result<Self> {
        let mounts = mounts()?;
        let found = mounts.into_iter().find(|m| m.kind == "cgroup2" && m.root == "/");
        Ok(Self {
            mount: found.map(|m| m.point).ok_or_else(|| Unsupported {
                what: "finding processes by their control group",
                why: "no cgroup v2 hierarchy is mounted".to_owned(),
                instead: "mount one, or select by process, user or port".to_owned(),
            })?,
        })
    }

    /// The root group's directory.
    pub fn root(&self) -> &Path {
        &self.mount
    }

    /// The group at a path such as `/system.slice/nginx.service`, as `/proc/PID/cgroup` gives it.
    pub fn group(&self, path: &str) -> Result<Group> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        let directory = names.iter().fold(self.mount.clone(), |dir, name| dir.join(name));
        let metadata = std::fs::metadata(&directory).cannot(|| format!("find control group {path}"))?;
        Ok(Group { directory, level: names.len() as u32, id: metadata.ino() })
    }
}

/// A group whose processes the kernel has frozen, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Its directory.
    pub directory: PathBuf,
    /// The file that says so and thaws it, and what is to be written there.
    pub thaw: (PathBuf, &'static str),
    /// The processes in it, not those in groups below.
    pub pids: Vec<u32>,
}

/// The group that freezes itself in this directory, if it does: v1 has `freezer.state`, v2 has `cgroup.freeze`. A group
/// that is frozen only because one above it is, is none.
fn frozen(directory: &Path) -> Option<Frozen> {
    let read = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let thaw = if read("freezer.self_freezing").trim() == "1" {
        (directory.join("freezer.state"), "THAWED")
    } else if read("cgroup.freeze").trim() == "1" {
        (directory.join("cgroup.freeze"), "0")
    } else {
        return None;
    };
    let pids = read("cgroup.procs").lines().filter_map(|line| line.trim().parse().ok()).collect();
    Some(Frozen { directory: directory.to_owned(), thaw, pids })
}

/// Every group of every hierarchy mounted here that freezes itself.
///
/// # Errors
/// The mounts cannot be listed.
pub fn frozen_groups() -> Result<Vec<Frozen>> {
    let freezes = |m: &Mount| m.kind == "cgroup2" || m.kind == "cgroup" && m.options.iter().any(|o| o == "freezer");
    let mut left: Vec<PathBuf> = mounts()?.into_iter().filter(freezes).map(|m| m.point).collect();
    let mut found: Vec<Frozen> = Vec::new();
    while let Some(directory) = left.pop() {
        found.extend(frozen(&directory).filter(|f| !found.contains(f)));
        let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    Ok(found)
}

/// Whether a control group keeps a process from running, one above its own included. `false` where that cannot be seen.
pub fn is_frozen(groups: &[CgroupMembership]) -> bool {
    let mounts = mounts().unwrap_or_default();
    groups.iter().any(|group| {
        let mount = mounts.iter().find(|m| match group.is_v2() {
            true => m.kind == "cgroup2",
            false => m.kind == "cgroup" && m.options.iter().any(|o| o == "freezer" && group.controllers.contains(o)),
        });
        let Some(mount) = mount else { return false };
        // What is mounted may itself be a group, as in a container.
        let path = group.path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(&group.path);
        let directory = mount.point.join(path.trim_start_matches('/'));
        let says = |file: &str, word: &str| {
            std::fs::read_to_string(directory.join(file)).is_ok_and(|text| text.lines().any(|line| line.trim() == word))
        };
        says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1")
    })
}

/// A mount, from `/proc/self/mountinfo`.
pub(crate) struct Mount {
    /// What part of the file system is mounted.
    pub(crate) root: String,
    pub(crate) point: PathBuf,
    /// The file system's type.
    pub(crate) kind: String,
    /// The file system's own options: the controllers, for a v1 hierarchy.
    pub(crate) options: Vec<String>,
}

pub(crate) fn mounts() -> Result<Vec<Mount>> {
    // Of the calling thread, which may have mounts of its own.
    const FILE: &str = "/proc/thread-self/mountinfo";
    let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
    Ok(text.lines().filter_map(mount).collect())
}

/// `36 35 98:0 ROOT POINT options fields - TYPE source OPTIONS`, see proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let mut filesystem = filesystem.split(' ');
    Some(Mount {
        root: unescape(mount.next()?),
        point: unescape(mount.next()?).into(),
        kind: filesystem.next()?.to_owned(),
        options: filesystem.nth(1)?.split(',').map(str::to_owned).collect(),
    })
}

/// Blanks and the like are written as `\040`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line = "41 24 0:27 / /sys/fs/cgroup/a\\040b rw,nosuid shared:9 - cgroup cgroup rw,memory";
        let m = mount(line).expect("parses");
        assert_eq!((m.root.as_str(), m.kind.as_str()), ("/", "cgroup"));
        assert_eq!(m.point, Path::new("/sys/fs/cgroup/a b"));
        assert_eq!(m.options, ["rw", "memory"]);
        assert!(mount("41 24").is_none());
    }

    #[test]
    fn groups_are_found_by_path() {
        let v2 = match V2::find() {
            Ok(v2) => v2,
            Err(why) => return crate::testing::skip("groups_are_found_by_path", why),
        };
        let root = v2.group("/").expect("a root");
        assert_eq!((root.level, root.directory.as_path()), (0, v2.root()));
        assert!(v2.group("/no/such/group").is_err());
    }
}
