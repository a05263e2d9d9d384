//! Namespaces (namespaces(7)): a user's own root and a network of its own, for faults that touch nothing else.

use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use crate::{Result, error::Context, process::ProcessId};

/// What a namespace separates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Users and capabilities.
    User,
    /// Mounts.
    Mount,
    /// Interfaces, addresses, routes, packet filter, ports.
    Net,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Net => "net",
        }
    }

    pub(crate) fn clone_flag(self) -> libc::c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Net => libc::CLONE_NEWNET,
        }
    }
}

/// A namespace, held: it lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    kind: Kind,
    file: File,
}

impl Namespace {
    /// The namespace that a process is in.
    pub fn of(id: &ProcessId, kind: Kind) -> Result<Self> {
        let path = format!("/proc/{}/ns/{}", id.pid(), kind.file());
        let namespace = Self::open(kind, &path)?;
        id.stat()?; // what was opened belongs to the process that is named only if that still has the number
        Ok(namespace)
    }

    /// The namespace that the calling thread is in.
    pub fn current(kind: Kind) -> Result<Self> {
        Self::open(kind, &format!("/proc/thread-self/ns/{}", kind.file()))
    }

    fn open(kind: Kind, path: &str) -> Result<Self> {
        let file = File::open(path).cannot_without("CAP_SYS_PTRACE", || format!("open {path}"))?;
        Ok(Self { kind, file })
    }

    /// What it separates.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The namespace's number, as `readlink /proc/PID/ns/net` shows it: equal numbers are the same namespace.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata().cannot(|| "look at a namespace")?.ino())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
