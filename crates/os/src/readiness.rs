//! Waiting for a descriptor in an async task.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Returns once the descriptor can be read; takes a copy of its own, because epoll knows a descriptor once per number.
#[expect(unsafe_code, reason = "tokio wants the descriptor to be one and the same until it is dropped")]
pub(crate) async fn readable(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: `AsRawFd` of an `OwnedFd` gives the same number until it is dropped, which closes it; nothing else owns it.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|e| e.into_parts().1)?;
    fd.readable().await?.retain_ready();
    Ok(())
}
