//! Reaching services on the host's loopback from a network namespace.
//!
//! A command under `toprope exec` has a network of its own, so that faults hit it alone and need no privileges on the
//! host. What it must reach on the host's loopback gets a listener at the same address inside; this process, which
//! stayed outside, is handed those listeners and carries their connections on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use toprope_os::fdpass;
use toprope_proxy::{Config, Proxy};

use crate::process;

/// The most addresses that one command reaches; each costs a descriptor that crosses the socket.
const MOST: usize = 64;

/// The process outside, while there is no listener yet.
pub struct Outside(UnixStream);

impl Outside {
    /// Starts it. Call it before this process enters another network.
    pub fn start() -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // It ends when our end of the socket closes, and is init's to reap.
        let _child = Command::new(process::executable())
            .arg0("toprope")
            .arg("reach")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self(ours))
    }

    /// Makes listeners in this process's network and hands them over. Connections are carried while the result lives.
    pub fn reach(mut self, addresses: &[SocketAddr]) -> std::io::Result<UnixStream> {
        let addresses = &addresses[..addresses.len().min(MOST)];
        let listeners: Vec<TcpListener> = addresses.iter().map(TcpListener::bind).collect::<Result<_, _>>()?;
        let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        let text = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        fdpass::send(&self.0, text.as_bytes(), &descriptors)?;
        let mut answer = [0u8];
        self.0.read_exact(&mut answer)?;
        Ok(self.0)
    }
}

/// The process outside: carries connections until the other end of the socket closes.
pub fn serve(mut inside: UnixStream) -> std::io::Result<()> {
    let mut text = vec![0u8; MOST * 64];
    let (read, descriptors) = fdpass::receive(&inside, &mut text)?;
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    let addresses: Vec<SocketAddr> = text.split_whitespace().filter_map(|a| a.parse().ok()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _runtime = runtime.enter();
    let mut proxies = Vec::new();
    for (address, descriptor) in addresses.into_iter().zip(descriptors) {
        let proxy = Proxy::start(Config::new(TcpListener::from(descriptor), address)).map_err(std::io::Error::other)?;
        proxies.push(proxy);
    }
    inside.write_all(b"r")?;
    // Nothing more is said; the end of the socket is the end of the command.
    let _ = inside.read(&mut [0u8]);
    drop(proxies);
    Ok(())
}
