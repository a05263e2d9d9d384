//! Bytes and file descriptors over a Unix stream socket (SCM_RIGHTS, unix(7)), and who is at its other end.
//!
//! A pair of sockets comes from [`std::os::unix::net::UnixStream::pair`]. All calls give the plain [`io::Result`], so
//! that they fit `tokio::net::UnixStream::async_io` for a socket that does not block.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The most descriptors that one message carries here; the kernel's own limit is 253.
pub const MAX_DESCRIPTORS: usize = 16;

/// Sends bytes, with copies of descriptors attached to the first of them, and returns how many bytes went. Only the
/// bytes can go in part; the descriptors went when any byte did.
///
/// # Errors
/// `InvalidInput` for no bytes (a stream carries descriptors only on bytes) or too many descriptors; `WouldBlock`;
/// `BrokenPipe` when the other end is closed (no SIGPIPE).
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if bytes.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
        let why = format!("{} bytes with {} descriptors cannot be sent", bytes.len(), descriptors.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptors do not fit their buffer"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// Receives bytes into `buffer` and the descriptors attached to them, which are closed at exec. No bytes means that
/// the other end is closed.
///
/// # Errors
/// `WouldBlock`; `InvalidData` when descriptors were lost, because there were too many or our own table is full.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for attached in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = attached {
            descriptors.extend(fds);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost on the way"));
    }
    Ok((message.bytes, descriptors))
}

/// Who made the other end of a Unix socket, as the kernel saw it then (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process's number.
    pub pid: u32,
    /// Its effective user's number.
    pub uid: u32,
    /// Its effective group's number.
    pub gid: u32,
}

/// Tells who made the other end: of a pair, whoever made the pair; of a connection, whoever listens or connected.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let found = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: found.pid.as_raw_nonzero().get().unsigned_abs(), uid: found.uid.as_raw(), gid: found.gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_is_closed_at_exec() {
        let (a, b) = UnixStream::pair().expect("a pair");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"content").expect("written");
        assert_eq!(send(&a, b"take this", &[file.as_fd()]).expect("sent"), 9);
        let mut buffer = [0; 64];
        let (n, mut fds) = receive(&b, &mut buffer).expect("received");
        assert_eq!((&buffer[..n], fds.len()), (&b"take this"[..], 1));
        let flags = rustix::io::fcntl_getfd(&fds[0]).expect("open");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut copy = File::from(fds.remove(0));
        copy.rewind().expect("a file");
        let mut text = String::new();
        copy.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "content");
    }

    #[test]
    fn many_descriptors_fit_and_too_many_are_refused() {
        let (a, b) = UnixStream::pair().expect("a pair");
        send(&a, b"x", &[a.as_fd(); MAX_DESCRIPTORS]).expect("fits");
        assert_eq!(receive(&b, &mut [0; 8]).expect("received").1.len(), MAX_DESCRIPTORS);
        let e = send(&a, b"x", &[a.as_fd(); MAX_DESCRIPTORS + 1]).expect_err("too many");
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(&a, b"", &[a.as_fd()]).expect_err("no bytes").kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_closed_end_is_no_bytes_to_read_and_a_broken_pipe_to_write() {
        let (a, b) = UnixStream::pair().expect("a pair");
        drop(b);
        assert_eq!(receive(&a, &mut [0; 8]).expect("end of stream").0, 0);
        assert_eq!(send(&a, b"x", &[]).expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_socket_that_does_not_block_says_so() {
        let (a, _b) = UnixStream::pair().expect("a pair");
        a.set_nonblocking(true).expect("a socket");
        assert_eq!(receive(&a, &mut [0; 8]).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_peer_of_our_own_pair_is_us() {
        let (a, _b) = UnixStream::pair().expect("a pair");
        let peer = peer(&a).expect("a Unix socket");
        assert_eq!((peer.pid, peer.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
    }
}
