//! Mounts of file systems in user space whose daemon is dead: how I/O faults are made, and what they leave.

use toprope_os::mount::{Silence, dead_mounts};

use super::{Class, Finding, Scene, Survey, Unseen};

pub(super) const CLASS: Class = Class { name: "mount", own: false, look };

fn look(_: &Scene, survey: &mut Survey) {
    let mounts = match dead_mounts() {
        Ok(mounts) => mounts,
        Err(error) => {
            let help = "look at /proc/self/mountinfo".to_owned();
            return survey.unseen.push(Unseen { class: CLASS.name, own: false, what: error.to_string(), help });
        }
    };
    for mount in mounts {
        let evidence = match mount.silence {
            Silence::Dead => "Transport endpoint is not connected (ENOTCONN): its daemon is dead",
            Silence::Hangs => "it did not answer for a second: its daemon hangs, or is very slow",
        };
        survey.findings.push(Finding {
            class: CLASS.name,
            own: false,
            what: format!("{} at {} does not answer", mount.kind, mount.point.display()),
            evidence: evidence.to_owned(),
            since: None,
            undo: format!("umount -l {}", mount.point.display()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{about, is_root, look};
    use super::*;
    use nix::mount::{MsFlags, mount};
    use nix::sched::CloneFlags;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_mount_without_its_daemon_is_found() {
        let test = "a_mount_without_its_daemon_is_found";
        if !is_root(test) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().to_str().unwrap().to_owned();
        let body = || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).expect("root may");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("the mounts are ours");
            let found = || about(&look(CLASS), &point);
            assert_eq!(found(), []);
            let Ok(daemon) = std::fs::File::options().read(true).write(true).open("/dev/fuse") else {
                return eprintln!("SKIPPED {test}: there is no /dev/fuse");
            };
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", daemon.as_raw_fd());
            let (kind, flags) = (Some("fuse.test"), MsFlags::empty());
            mount(Some("test"), point.as_str(), kind, flags, Some(options.as_str())).expect("root may");
            drop(daemon); // It dies.
            let told = found();
            assert_eq!(told.len(), 1, "{told:?}");
            let words: Vec<&str> = told[0].undo.split(' ').collect();
            assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success());
            assert_eq!(found(), []);
        };
        // Namespaces are a thread's, and those of the other tests must not change.
        std::thread::scope(|scope| scope.spawn(body).join()).unwrap();
    }
}
