//! How much space a file system has, and space that is taken and kept.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, FallocateFlags, OFlags, accessat, fallocate, fstatfs, fstatvfs},
    io::Errno,
    process::{Resource, getrlimit},
};

use crate::{Error, Result, error::Context, time::monotonic};

/// A file system's space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The device's major and minor number, by which two paths are seen to be on the same file system.
    pub device: (u32, u32),
    /// All of it.
    pub total: u64,
    /// What holds no data, the blocks reserved for root included.
    pub free: u64,
    /// What every user may still take.
    pub available: u64,
    /// The least that a file can take.
    pub block: u64,
    /// Whether it lives in memory (tmpfs), so that what is written takes memory.
    pub in_memory: bool,
}

/// `f_type` of tmpfs and ramfs, from the kernel's `magic.h`.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

impl Space {
    /// The space of the file system on which a directory is.
    ///
    /// # Errors
    /// [`Error::System`] when the directory cannot be opened; [`Error::Invalid`] where the file system has no size.
    pub fn of(directory: &Path) -> Result<Self> {
        let flags = (OFlags::PATH | OFlags::DIRECTORY).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags as i32).open(directory);
        let opened = opened.cannot(|| format!("look at the directory {}", directory.display()))?;
        Self::of_open(&opened, directory)
    }

    fn of_open(file: &File, path: &Path) -> Result<Self> {
        let what = || format!("read how full the file system of {} is", path.display());
        let space = fstatvfs(file).cannot(what)?;
        let kind = fstatfs(file).cannot(what)?.f_type as u64;
        let device = file.metadata().cannot(what)?.dev();
        if space.f_blocks == 0 {
            let what = format!("the file system of {}", path.display());
            return Err(Error::invalid(what, "has no size that it could reach"));
        }
        Ok(Self {
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            total: space.f_blocks * space.f_frsize,
            free: space.f_bfree * space.f_frsize,
            available: space.f_bavail * space.f_frsize,
            block: space.f_frsize,
            in_memory: [TMPFS, RAMFS].contains(&kind),
        })
    }

    /// What holds data.
    pub fn used(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// What is free for root alone.
    pub fn reserved(&self) -> u64 {
        self.free.saturating_sub(self.available)
    }

    /// The share that is used, from 0 to 1, of what every user could use: at 1 all but root are refused. This is what
    /// `df` shows.
    pub fn used_share(&self) -> f64 {
        self.used() as f64 / (self.used() + self.available) as f64
    }
}

/// A file without a name that takes space. The kernel gives the space back when it is dropped or this process ends.
#[derive(Debug)]
pub struct Filler {
    directory: PathBuf,
    file: File,
    len: u64,
    way: Way,
}

/// How space is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// fallocate(2): the file system sets blocks aside, without writing to them.
    Allocate,
    /// Noise is written, where the file system can set nothing aside.
    Write,
}

impl Filler {
    /// Makes the file, empty, on the file system of a directory (`O_TMPFILE`; where the file system does not have
    /// that, a file whose name is removed at once).
    ///
    /// # Errors
    /// [`Error::System`] when this user may not make files there.
    pub fn create(directory: &Path) -> Result<Self> {
        let file = unnamed(directory).cannot_without("write access, or CAP_DAC_OVERRIDE", || {
            format!("make a file in {}", directory.display())
        })?;
        Ok(Self { directory: directory.to_owned(), file, len: 0, way: Way::Allocate })
    }

    /// How space is taken, as far as was seen.
    pub fn way(&self) -> Way {
        self.way
    }

    /// How much the file takes, as the file system counts it.
    pub fn taken(&self) -> Result<u64> {
        let what = || format!("read how much the file in {} takes", self.directory.display());
        // st_blocks is in units of 512 bytes whatever the file system's block (inode(7)).
        Ok(self.file.metadata().cannot(what)?.blocks() * 512)
    }

    /// The space of its file system.
    pub fn space(&self) -> Result<Space> {
        Space::of_open(&self.file, &self.directory)
    }

    /// Takes so much more, rounded up to whole blocks, and returns how much it got: less where the file system, or
    /// the user's quota, has no more to give. It never takes what is reserved for root.
    ///
    /// # Errors
    /// [`Error::Invalid`] beyond this process's limit for files; [`Error::System`] when writing fails otherwise.
    pub fn grow(&mut self, bytes: u64) -> Result<u64> {
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        if self.len.saturating_add(bytes) > limit {
            // The kernel would end this process by SIGXFSZ.
            let why = format!("are more than this process may write to a file (RLIMIT_FSIZE is {limit}); raise it");
            return Err(Error::invalid(format!("{} bytes", self.len.saturating_add(bytes)), why));
        }
        let before = self.taken()?;
        let mut most = u64::MAX;
        loop {
            let got = self.taken()?.saturating_sub(before);
            let space = self.space()?;
            let whole = |bytes: u64| bytes / space.block * space.block;
            let wanted = bytes.saturating_sub(got).next_multiple_of(space.block).min(most).min(space.available);
            if got >= bytes || whole(wanted) == 0 {
                return Ok(got);
            }
            match self.extend(whole(wanted)) {
                Ok(()) if self.taken()?.saturating_sub(before) > got => {}
                // ZFS says yes to fallocate and sets nothing aside.
                Ok(()) if self.way == Way::Allocate => self.way = Way::Write,
                Ok(()) => return Err(self.stores_nothing()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.way == Way::Allocate => self.way = Way::Write,
                // A smaller piece may still fit: the file system's own records take space too.
                Err(e) if is_full(e) => most = wanted / 2,
                Err(e) => return Err(e).cannot(|| format!("take space in {}", self.directory.display())),
            }
        }
    }

    /// Gives back at once what is beyond so many bytes.
    ///
    /// # Errors
    /// [`Error::System`] when the file system fails.
    pub fn shrink_to(&mut self, bytes: u64) -> Result<()> {
        if bytes < self.len {
            self.file.set_len(bytes).cannot(|| format!("give back space in {}", self.directory.display()))?;
            self.len = bytes;
        }
        Ok(())
    }

    /// Gives back everything, and makes sure that the file system counts nothing for the file any more.
    ///
    /// # Errors
    /// [`Error::System`] when the file system fails, or still counts something.
    pub fn free(mut self) -> Result<()> {
        self.shrink_to(0)?;
        match self.taken()? {
            0 => Ok(()),
            left => Err(io::Error::other(format!("{left} bytes of it are still taken")))
                .cannot(|| format!("give back space in {}", self.directory.display())),
        }
    }

    fn extend(&mut self, bytes: u64) -> Result<(), Errno> {
        match self.way {
            Way::Allocate => loop {
                match fallocate(&self.file, FallocateFlags::empty(), self.len, bytes) {
                    Err(Errno::INTR) => continue,
                    other => break other?,
                }
            },
            Way::Write => return self.write(bytes),
        }
        self.len += bytes;
        Ok(())
    }

    fn write(&mut self, bytes: u64) -> Result<(), Errno> {
        let errno = |e: io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        let mut noise = Noise(self.len | 1);
        let mut buffer = vec![0; 1 << 20];
        let end = self.len + bytes;
        while self.len < end {
            noise.fill(&mut buffer);
            let piece = buffer.len().min(usize::try_from(end - self.len).unwrap_or(usize::MAX));
            match self.file.write_at(&buffer[..piece], self.len) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(n) => self.len += n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(errno(e)),
            }
        }
        // Some file systems count, and refuse, only what has gone to the disk.
        self.file.sync_data().map_err(errno)
    }

    fn stores_nothing(&self) -> Error {
        Error::malformed(
            format!("the file system of {}", self.directory.display()),
            "it takes what is written but counts no blocks for it, so it cannot be filled",
        )
    }
}

/// Makes sure that this process may make files in a directory, without making one.
///
/// # Errors
/// [`Error::System`]: no rights, or a file system that is mounted to be read only.
pub fn check_writable(directory: &Path) -> Result<()> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, directory, access, AtFlags::EACCESS)
        .cannot_without("write access, or CAP_DAC_OVERRIDE", || format!("make files in {}", directory.display()))
}

/// Whether a writer who makes a file in the directory and writes one block to it is refused for want of space. Asked
/// as this process: root may use what is reserved for it.
///
/// # Errors
/// [`Error::System`] when it is refused for another reason.
pub fn refuses_writers(directory: &Path) -> Result<bool> {
    let block = usize::try_from(Space::of(directory)?.block).expect("a block fits in memory");
    match unnamed(directory).and_then(|mut file| file.write_all(&vec![1; block])) {
        Ok(()) => Ok(false),
        Err(e) if Errno::from_io_error(&e).is_some_and(is_full) => Ok(true),
        Err(e) => Err(e).cannot(|| format!("try to write to a file in {}", directory.display())),
    }
}

/// The file system has no more, or this user's quota is used up.
fn is_full(e: Errno) -> bool {
    matches!(e, Errno::NOSPC | Errno::DQUOT)
}

fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = (OFlags::TMPFILE | OFlags::EXCL).bits();
    let mut options = OpenOptions::new();
    match options.read(true).write(true).mode(0o600).custom_flags(flags as i32).open(directory) {
        // The last is the answer of kernels, and of network file systems, that do not know the flag.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EISDIR)) => {
            named_and_removed(directory)
        }
        other => other,
    }
}

fn named_and_removed(directory: &Path) -> io::Result<File> {
    let name = format!(".toprope-fill-{}-{}", std::process::id(), monotonic().as_nanos());
    let path = directory.join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Bytes that no file system compresses: Marsaglia's xorshift64.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
