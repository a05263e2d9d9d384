//! What Toprope needs of Linux, and the only crate with unsafe code.
//!
//! Every module is one idea and usable alone. What changes the machine is a guard: dropping it gives back what it
//! took, and wherever the kernel offers a mechanism whose lifetime it ties to this process, that one is used, so that
//! even `kill -9` undoes it.
//!
//! Nothing here knows of experiments, faults or runs.

pub mod address;
pub mod bpf;
pub mod caps;
pub mod cgroup;
pub mod cpu;
pub mod disk;
mod error;
pub mod fdpass;
pub mod lookup;
pub mod memory;
pub mod mount;
pub mod namespace;
mod netlink;
pub mod nft;
pub mod privilege;
pub mod process;
pub mod ptrace;
mod readiness;
pub mod route;
pub mod seccomp;
pub mod sockets;
pub mod spawn;
pub mod time;
pub mod user;
pub mod watch;

#[cfg(test)]
mod testing;

pub use error::{Error, Result, Unsupported};

/// The running kernel's major and minor version, as uname(2) tells; zeroes where its text is unusual.
pub(crate) fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
