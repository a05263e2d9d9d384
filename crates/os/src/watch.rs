//! Directories whose files come and go, by inotify(7).

use std::{os::fd::OwnedFd, path::Path};

use rustix::{fs::inotify, io::Errno};

use crate::{Result, error::Context, readiness::readable};

/// Watches directories for files that come, change or go.
#[derive(Debug)]
pub struct DirectoryWatch {
    fd: OwnedFd,
}

impl DirectoryWatch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// This user watches too much already (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).cannot(|| "watch directories (see fs.inotify.max_user_instances)")?;
        Ok(Self { fd })
    }

    /// Watches a directory, too; nothing changes when it is watched already. Says whether it is there.
    ///
    /// # Errors
    /// It cannot be read, or this user watches too much already (`fs.inotify.max_user_watches`).
    pub fn add(&self, directory: &Path) -> Result<bool> {
        use inotify::WatchFlags as Flags;
        let flags = Flags::CREATE | Flags::CLOSE_WRITE | Flags::MOVED_TO | Flags::DELETE | Flags::ONLYDIR;
        match inotify::add_watch(&self.fd, directory, flags) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e).cannot(|| format!("watch {}", directory.display())),
        }
    }

    /// Returns when something has changed since the last time.
    ///
    /// # Errors
    /// Outside a tokio runtime with I/O enabled, or when no descriptor is left.
    pub async fn changed(&self) -> Result<()> {
        let action = || "wait for a change of a directory";
        readable(self.fd.try_clone().cannot(action)?).await.cannot(action)?;
        // Only that something happened is of interest; who waits looks for itself.
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(n) if n > 0 => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e).cannot(action),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::PATIENCE;
    use std::time::Duration;

    #[tokio::test]
    async fn files_that_come_and_go_are_noticed_and_a_missing_directory_is_told() {
        let directory = tempfile::tempdir().expect("there is room");
        let watch = DirectoryWatch::new().expect("there is room");
        assert!(!watch.add(&directory.path().join("none")).expect("it is only missing"));
        assert!(watch.add(directory.path()).expect("it is ours"));
        let quiet = tokio::time::timeout(Duration::from_millis(30), watch.changed()).await;
        assert!(quiet.is_err(), "nothing happened yet");
        let file = directory.path().join("file");
        for change in [true, false] {
            if change {
                std::fs::write(&file, "x").expect("ours")
            } else {
                std::fs::remove_file(&file).expect("ours")
            }
            tokio::time::timeout(PATIENCE, watch.changed()).await.expect("it is noticed").expect("readable");
        }
    }
}
