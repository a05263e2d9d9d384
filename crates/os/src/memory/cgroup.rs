//! The memory limits of the control groups that this process is in, from its own up to the root.

use std::path::{Path, PathBuf};

use crate::{Error, Result, cgroup::Mount, error::Context, process::CgroupMembership};

/// A control group that limits its members' memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) path: PathBuf,
    pub(super) limit: u64,
    /// What the members use, without the part of the page cache that the kernel would drop first: what `kubelet` and
    /// `docker stats` call the working set.
    pub(super) used: u64,
}

/// The files of a version of control groups (cgroup-v2.rst and cgroup-v1/memory.rst of the kernel's documentation).
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat`.
    inactive_file: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", inactive_file: "total_inactive_file" };
const V2: Files = Files { limit: "memory.max", usage: "memory.current", inactive_file: "inactive_file" };

/// The limits in force on a member of these groups.
pub(super) fn limits(mounts: &[Mount], memberships: &[CgroupMembership]) -> Result<Vec<Limit>> {
    let mut found = Vec::new();
    for (files, mount, directory) in hierarchies(mounts, memberships) {
        for group in directory.ancestors().take_while(|group| group.starts_with(&mount)) {
            found.extend(limit_of(group, &files)?);
        }
    }
    Ok(found)
}

/// Where the memory controller's hierarchy is mounted, and the member's directory in it. A machine may have both
/// versions mounted, but the controller in one only.
fn hierarchies(mounts: &[Mount], memberships: &[CgroupMembership]) -> Vec<(Files, PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for membership in memberships {
        let v2 = membership.is_v2();
        if !v2 && !membership.controllers.iter().any(|c| c == "memory") {
            continue;
        }
        let mount = mounts.iter().find(|mount| match mount.kind.as_str() {
            "cgroup2" => v2,
            "cgroup" => !v2 && mount.options.iter().any(|option| option == "memory"),
            _ => false,
        });
        let Some(mount) = mount else { continue };
        // In a container the path may be one of the host, of which the mount shows only a part; or one outside of the
        // control group namespace (`/../..`), of which nothing is to be seen but the mount's own root.
        let path = Path::new(&membership.path);
        let inside = path.strip_prefix(&mount.root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        let directory = mount.point.join(inside);
        let visible = !membership.path.contains("..") && directory.is_dir();
        let directory = if visible { directory } else { mount.point.clone() };
        found.push((if v2 { V2 } else { V1 }, mount.point.clone(), directory));
    }
    found
}

/// `None` where the group has no limit, or the controller is not on.
fn limit_of(group: &Path, files: &Files) -> Result<Option<Limit>> {
    let read = |name: &str| {
        let file = group.join(name);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).cannot(|| format!("read {}", file.display())),
        }
    };
    let number = |name: &str, text: &str| {
        let malformed = |e| Error::malformed(group.join(name).display().to_string(), format!("{text:?}: {e}"));
        text.trim().parse::<u64>().map_err(malformed)
    };
    let Some(limit) = read(files.limit)?.filter(|text| text.trim() != "max") else { return Ok(None) };
    let limit = number(files.limit, &limit)?;
    // The root of v1 and a group without a limit there say the highest whole number of pages.
    if limit >= i64::MAX as u64 - (1 << 20) {
        return Ok(None);
    }
    let usage = number(files.usage, &read(files.usage)?.unwrap_or_else(|| "0".into()))?;
    let stat = read("memory.stat")?.unwrap_or_default();
    let inactive = stat.lines().find_map(|line| line.strip_prefix(files.inactive_file)?.strip_prefix(' '));
    let inactive = inactive.map_or(Ok(0), |text| number("memory.stat", text))?;
    Ok(Some(Limit { path: group.to_owned(), limit, used: usage.saturating_sub(inactive) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(path: &str) -> Vec<CgroupMembership> {
        vec![CgroupMembership { controllers: vec![], path: path.into() }]
    }

    fn v1(controller: &str, path: &str) -> CgroupMembership {
        CgroupMembership { controllers: vec![controller.into()], path: path.into() }
    }

    fn mounted(kind: &str, options: &str, root: &str, point: &Path) -> Mount {
        let options = options.split(',').map(str::to_owned).collect();
        Mount { root: root.into(), point: point.to_owned(), kind: kind.into(), options }
    }

    fn write(directory: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(directory).expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.join(name), text).expect("written");
        }
    }

    #[test]
    fn limits_are_found_from_the_own_group_up_in_both_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let stat = "anon 5\ninactive_file 1000\nactive_file 7\n";
        write(&dir.path().join("a/b"), &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        write(&dir.path().join("a"), &[("memory.max", "8000\n"), ("memory.current", "3000\n"), ("memory.stat", stat)]);
        let mounts = [mounted("ext4", "rw", "/", Path::new("/")), mounted("cgroup2", "rw", "/", dir.path())];
        let found = limits(&mounts, &v2("/a/b")).expect("readable");
        assert_eq!(found, [Limit { path: dir.path().join("a"), limit: 8000, used: 2000 }]);

        let stat = "inactive_file 1\ntotal_inactive_file 500\n";
        let unlimited = "9223372036854771712\n";
        write(
            &dir.path().join("v1/c"),
            &[("memory.limit_in_bytes", "4000\n"), ("memory.usage_in_bytes", "900\n"), ("memory.stat", stat)],
        );
        write(&dir.path().join("v1"), &[("memory.limit_in_bytes", unlimited)]);
        let mounts = [
            mounted("cgroup", "rw,cpu", "/", Path::new("/x")),
            mounted("cgroup", "rw,memory", "/", &dir.path().join("v1")),
        ];
        let found = limits(&mounts, &[v1("cpu", "/c"), v1("memory", "/c"), v2("/").remove(0)]).expect("readable");
        assert_eq!(found, [Limit { path: dir.path().join("v1/c"), limit: 4000, used: 400 }]);
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_or_only_its_root() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &[("memory.max", "7000\n"), ("memory.current", "1\n")]);
        let expected = [Limit { path: dir.path().to_owned(), limit: 7000, used: 1 }];
        let mounts = [mounted("cgroup2", "rw", "/docker/abc", dir.path())];
        assert_eq!(limits(&mounts, &v2("/docker/abc")).expect("readable"), expected);
        let mounts = [mounted("cgroup2", "rw", "/", dir.path())];
        assert_eq!(limits(&mounts, &v2("/../../else")).expect("readable"), expected);
        assert_eq!(limits(&mounts, &v2("/gone")).expect("readable"), expected);
        assert_eq!(limits(&[], &v2("/a")).expect("nothing is mounted"), []);
    }

    #[test]
    fn a_limit_that_is_no_number_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &[("memory.max", "lots\n")]);
        let mounts = [mounted("cgroup2", "rw", "/", dir.path())];
        let e = limits(&mounts, &v2("/")).expect_err("no number");
        assert!(e.to_string().contains("memory.max"), "{e}");
    }
}
