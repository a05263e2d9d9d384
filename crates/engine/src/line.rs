//! Messages between processes of ours: one JSON value per line, and the descriptors that came with it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use toprope_os::fdpass;

/// No message of ours is longer.
const LONGEST: usize = 4 << 20;

/// A message as it came in.
pub(crate) type Line = (Vec<u8>, Vec<OwnedFd>);

/// Collects the bytes of a line, one at a time: descriptors belong to the line in which they came.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// Waits for the next line; `None` when the other end is closed. Safe to cancel.
    pub(crate) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<Line>> {
        loop {
            let mut byte = [0u8];
            let received = stream.async_io(Interest::READABLE, || fdpass::receive(stream, &mut byte)).await?;
            match self.take(byte[0], received)? {
                Taken::More => {}
                Taken::Line(line) => return Ok(Some(line)),
                Taken::End => return Ok(None),
            }
        }
    }

    fn take(&mut self, byte: u8, (read, descriptors): (usize, Vec<OwnedFd>)) -> io::Result<Taken> {
        if read == 0 {
            return Ok(Taken::End);
        }
        self.descriptors.extend(descriptors);
        if byte == b'\n' {
            return Ok(Taken::Line((std::mem::take(&mut self.bytes), std::mem::take(&mut self.descriptors))));
        }
        self.bytes.push(byte);
        match self.bytes.len() > LONGEST {
            true => Err(io::Error::other("a message does not end")),
            false => Ok(Taken::More),
        }
    }
}

enum Taken {
    More,
    Line(Line),
    End,
}

/// Reads one line without a runtime; `None` when the other end is closed before it is whole.
pub(crate) fn receive(stream: &StdStream) -> io::Result<Option<Line>> {
    let mut incoming = Incoming::default();
    loop {
        let mut byte = [0u8];
        let received = fdpass::receive(stream, &mut byte)?;
        match incoming.take(byte[0], received)? {
            Taken::More => {}
            Taken::Line(line) => return Ok(Some(line)),
            Taken::End => return Ok(None),
        }
    }
}

/// Sends a message, with copies of descriptors.
pub(crate) async fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut sent = 0;
    while sent < line.len() {
        let attached = if sent == 0 { descriptors } else { &[] };
        sent += stream.async_io(Interest::WRITABLE, || fdpass::send(stream, &line[sent..], attached)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn descriptors_come_with_the_line_that_they_were_sent_with() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&a, &"first", &[]).await.unwrap();
        send(&a, &"second", &[file.as_fd(), file.as_fd()]).await.unwrap();
        drop(a);
        let mut incoming = Incoming::default();
        let mut next =
            async || incoming.next(&b).await.unwrap().map(|(line, fds)| (String::from_utf8(line), fds.len()));
        assert_eq!(next().await, Some((Ok("\"first\"".to_owned()), 0)));
        assert_eq!(next().await, Some((Ok("\"second\"".to_owned()), 2)));
        assert_eq!(next().await, None);
    }
}
