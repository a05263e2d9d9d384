//! Mounts that no longer answer.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use crate::{Result, cgroup::mounts};

/// How long a file system may take to answer. One whose daemon lives but hangs answers never.
const ANSWER: Duration = Duration::from_secs(1);

/// How a file system in user space does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Its daemon is dead (ENOTCONN).
    Dead,
    /// It did not answer for a second.
    Hangs,
}

/// A mount of a file system in user space (fuse(8)) that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMount {
    /// Where.
    pub point: PathBuf,
    /// The file system's type, such as `fuse.sshfs`.
    pub kind: String,
    /// How.
    pub silence: Silence,
}

/// Every mount of this mount namespace whose file system is in user space and does not answer.
///
/// # Errors
/// The mounts cannot be listed.
pub fn dead_mounts() -> Result<Vec<DeadMount>> {
    // The control file system of FUSE is the kernel's own.
    let fuse = |kind: &str| kind != "fusectl" && (kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse."));
    let mounts = mounts()?.into_iter().filter(|m| fuse(&m.kind));
    Ok(mounts
        .filter_map(|m| Some(DeadMount { silence: silence(m.point.clone())?, point: m.point, kind: m.kind }))
        .collect())
}

fn silence(point: PathBuf) -> Option<Silence> {
    let (tell, told) = mpsc::channel();
    // Left behind where it hangs: the kernel ends it with this process.
    std::thread::spawn(move || tell.send(std::fs::metadata(point).map(drop)));
    match told.recv_timeout(ANSWER) {
        Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOTCONN) => Some(Silence::Dead),
        Ok(_) => None,
        Err(_) => Some(Silence::Hangs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_fork, is_root, skip};
    use nix::mount::{MsFlags, mount};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_mount_whose_daemon_died_is_found() {
        let test = "a_mount_whose_daemon_died_is_found";
        if !is_root(test) {
            return;
        }
        let directory = tempfile::tempdir().expect("there is room");
        let point = directory.path().to_owned();
        in_fork(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("the mounts are ours");
            let ours = || dead_mounts().expect("/proc is mounted").into_iter().filter(|m| m.point == point).collect();
            let before: Vec<DeadMount> = ours();
            assert_eq!(before, []);
            let Ok(daemon) = std::fs::File::options().read(true).write(true).open("/dev/fuse") else {
                return skip(test, "there is no /dev/fuse");
            };
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", daemon.as_raw_fd());
            mount(Some("test"), &point, Some("fuse.test"), MsFlags::empty(), Some(options.as_str())).expect("root may");
            drop(daemon); // It dies.
            let found: Vec<DeadMount> = ours();
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].kind.as_str(), found[0].silence), ("fuse.test", Silence::Dead));
        });
    }
}
