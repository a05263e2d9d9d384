//! Disks: how full they are, and filling them with what vanishes with us.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat, statvfs},
    io::Errno,
};

use crate::{Result, error::Context};

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What is unused, and can be used by whoever has CAP_SYS_RESOURCE.
    pub free: u64,
    /// What of it everybody can use.
    pub available: u64,
}

impl Space {
    /// What is kept for root.
    pub fn reserved(&self) -> u64 {
        self.free.saturating_sub(self.available)
    }
}

/// The space of the file system that a path lies on.
pub fn space(path: &Path) -> Result<Space> {
    let found = statvfs(path).cannot(|| format!("ask how full the file system of {} is", path.display()))?;
    Ok(Space {
        total: found.f_blocks * found.f_frsize,
        free: found.f_bfree * found.f_frsize,
        available: found.f_bavail * found.f_frsize,
    })
}

/// A file without a name, which takes space for as long as it is open: the kernel gives it back when this is dropped or
/// this process ends in whatever way.
///
/// Its calls block while the file system works, for long where it has to write (see [`Filler::grow_to`]).
#[derive(Debug)]
#[must_use = "the space is given back when this is dropped"]
pub struct Filler {
    file: File,
    directory: PathBuf,
    writes: bool,
}

impl Filler {
    /// Makes an empty file on the file system of a directory.
    ///
    /// # Errors
    /// Without the right to write there.
    pub fn create(directory: &Path) -> Result<Self> {
        let action = || format!("make a file in {}", directory.display());
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::LARGEFILE;
        let file = match openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => File::from(fd),
            // File systems that cannot (overlay on some, NFS, FUSE), and kernels that take it for a directory.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_for_a_moment(directory).cannot(action)?,
            Err(e) => return Err(e).cannot_without("write access", action),
        };
        Ok(Self { file, directory: directory.to_owned(), writes: false })
    }

    /// Makes the file take that much space in all, or as much as there is; returns how much it takes then. Where the
    /// file system cannot reserve space (fallocate(2)), so much is written.
    ///
    /// # Errors
    /// Errors other than a full disk or quota.
    pub fn grow_to(&mut self, bytes: u64) -> Result<u64> {
        let action = |directory: &Path| format!("fill the file system of {}", directory.display());
        // In steps, because a step that does not fit takes nothing; ever smaller ones, to take the last bit as well.
        const LARGEST: u64 = 1 << 30;
        const SMALLEST: u64 = 4096;
        let mut step = LARGEST;
        loop {
            let length = self.file.metadata().cannot(|| action(&self.directory))?.len();
            let wanted = bytes.saturating_sub(length).min(step);
            if wanted == 0 {
                break;
            }
            match self.take(length, wanted) {
                Ok(()) => {}
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) if step > SMALLEST => step /= 4,
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => break,
                Err(e) => return Err(e).cannot(|| action(&self.directory)),
            }
        }
        self.taken()
    }

    /// Gives space back, down to that much.
    pub fn shrink_to(&mut self, bytes: u64) -> Result<u64> {
        let length = self.file.metadata().and_then(|m| self.file.set_len(bytes.min(m.len())));
        length.cannot(|| format!("give back space of the file system of {}", self.directory.display()))?;
        self.taken()
    }

    /// The space that the file takes.
    pub fn taken(&self) -> Result<u64> {
        const BLOCK: u64 = 512; // of st_blocks, whatever the file system's own
        let metadata = self.file.metadata();
        Ok(metadata.cannot(|| format!("look at our file in {}", self.directory.display()))?.blocks() * BLOCK)
    }

    fn take(&mut self, from: u64, length: u64) -> Result<(), Errno> {
        if !self.writes {
            match fallocate(&self.file, FallocateFlags::empty(), from, length) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.writes = true,
                Err(Errno::INTR) => return Ok(()), // the caller looks how far it is
                other => return other,
            }
        }
        self.write(from, length).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
    }

    fn write(&mut self, from: u64, length: u64) -> std::io::Result<()> {
        let mut noise = Noise(from | 1);
        let mut block = vec![0; 1 << 16];
        self.file.seek(SeekFrom::Start(from))?;
        let mut left = length;
        while left > 0 {
            noise.fill(&mut block);
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.file.write_all(&block[..part])?;
            left -= part as u64;
        }
        // Only what has reached the disk is known to fit.
        self.file.sync_data()
    }
}

/// What a file system that compresses cannot make smaller (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes());
        }
    }
}

/// A file that loses its name at once. Should this process end in between, an empty file is left.
fn named_for_a_moment(directory: &Path) -> std::io::Result<File> {
    for attempt in 0.. {
        let path = directory.join(format!(".toprope-{}-{attempt}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(e) => return Err(e),
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
        }
    }
    unreachable!("the loop ends by a file or an error")
}

#[cfg(test)]
mod tests {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;
    use crate::testing::{fork, in_fork, is_root};

    const MIB: u64 = 1 << 20;

    /// Runs a test in a process that alone sees a file system of 16 MiB.
    fn on_small_disk(test: &str, run: impl FnOnce(&Path)) {
        if !is_root(test) {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        in_fork(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("root");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root");
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=16m")).expect("root");
            run(dir.path());
        });
    }

    #[test]
    fn space_is_taken_and_given_back() {
        on_small_disk("space_is_taken_and_given_back", |dir| {
            let before = space(dir).expect("mounted");
            assert_eq!((before.total, before.reserved()), (16 * MIB, 0));
            let mut filler = Filler::create(dir).expect("writable");
            assert_eq!(filler.grow_to(4 * MIB).expect("fits"), 4 * MIB);
            assert_eq!(space(dir).expect("mounted").free, before.free - 4 * MIB);
            assert_eq!(filler.grow_to(3 * MIB).expect("larger already"), 4 * MIB);
            assert_eq!(filler.shrink_to(MIB).expect("ours"), MIB);
            assert_eq!(filler.shrink_to(2 * MIB).expect("smaller already"), MIB);
            assert_eq!(std::fs::read_dir(dir).expect("mounted").count(), 0, "no name is seen");
            drop(filler);
            assert_eq!(space(dir).expect("mounted"), before);
        });
    }

    #[test]
    fn a_disk_is_filled_to_its_last_block_and_no_error_said() {
        on_small_disk("a_disk_is_filled_to_its_last_block_and_no_error_said", |dir| {
            let mut filler = Filler::create(dir).expect("writable");
            let taken = filler.grow_to(1 << 40).expect("a full disk is no error");
            let left = space(dir).expect("mounted").free;
            assert!(taken > 15 * MIB && left < 8192, "{taken} taken, {left} left");
            let full = std::fs::write(dir.join("other"), vec![1; 1 << 14]).expect_err("full");
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
            drop(filler);
            std::fs::write(dir.join("other"), vec![1; 1 << 14]).expect("empty again");
        });
    }

    #[test]
    fn writing_takes_as_much_as_reserving() {
        on_small_disk("writing_takes_as_much_as_reserving", |dir| {
            let file = named_for_a_moment(dir).expect("writable");
            assert_eq!(std::fs::read_dir(dir).expect("mounted").count(), 0);
            let mut filler = Filler { file, directory: dir.to_owned(), writes: true };
            assert_eq!(filler.grow_to(3 * MIB + 5).expect("fits"), 3 * MIB + 4096);
            assert!(filler.grow_to(1 << 40).expect("a full disk is no error") > 15 * MIB);
        });
    }

    #[test]
    fn sigkill_gives_the_space_back() {
        on_small_disk("sigkill_gives_the_space_back", |dir| {
            let before = space(dir).expect("mounted").free;
            let (mut ready, mut tell) = std::io::pipe().expect("a pipe");
            let at = dir.to_owned();
            let holder = fork(move || {
                let mut filler = Filler::create(&at).expect("writable");
                filler.grow_to(8 * MIB).expect("fits");
                tell.write_all(b"x").expect("a pipe");
                std::thread::sleep(crate::testing::PATIENCE);
            });
            std::io::Read::read_exact(&mut ready, &mut [0]).expect("it has filled");
            assert_eq!(space(dir).expect("mounted").free, before - 8 * MIB);
            drop(holder); // which kills it
            assert_eq!(space(dir).expect("mounted").free, before);
        });
    }

    #[test]
    fn the_disk_of_this_machine_can_be_filled_by_a_bit() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut filler = Filler::create(dir.path()).expect("writable");
        let taken = filler.grow_to(MIB).expect("fits");
        assert!((MIB..2 * MIB).contains(&taken), "{taken}");
        let found = space(dir.path()).expect("there");
        assert!(found.available <= found.free && found.free <= found.total);
        assert!(Filler::create(&dir.path().join("none")).is_err());
    }
}
