//! How injectors are started: by the run itself, or by a launcher that kept the privileges which the run gave up.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use toprope_os::fdpass;

/// Starts injectors.
#[derive(Debug, Clone)]
pub enum Launch {
    /// From this program's file, with this process's privileges.
    Direct(PathBuf),
    /// By a launcher that was started while this process still had privileges.
    Launcher(Arc<Mutex<UnixStream>>),
}

impl Launch {
    /// Starts the launcher, which keeps this process's privileges. The caller then gives them up.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launcher(executable: &Path) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let _child = Command::new(executable)
            .arg("launcher")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self::Launcher(Arc::new(Mutex::new(ours))))
    }

    /// Starts an injector and returns the socket to it; the process itself only where it is our child.
    pub(super) fn start(&self) -> std::io::Result<(UnixStream, Option<Child>)> {
        let (ours, theirs) = UnixStream::pair()?;
        match self {
            Self::Direct(executable) => Ok((ours, Some(start(executable, theirs.into())?))),
            Self::Launcher(socket) => {
                let mut socket = socket.lock().map_err(|_| std::io::Error::other("the launcher is unusable"))?;
                fdpass::send(&*socket, b"i", &[theirs.as_fd()])?;
                drop(theirs);
                let mut answer = [0u8];
                socket.read_exact(&mut answer)?;
                match answer {
                    [b'y'] => Ok((ours, None)),
                    _ => Err(std::io::Error::other("the launcher could not start it")),
                }
            }
        }
    }
}

fn start(executable: &Path, socket: OwnedFd) -> std::io::Result<Child> {
    Command::new(executable)
        .arg("injector")
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The launcher's process: starts an injector on each socket that it is handed, until the run is gone.
///
/// # Errors
/// The socket to the run cannot be used.
pub fn serve_launcher(mut run: UnixStream, executable: &Path) -> std::io::Result<()> {
    loop {
        let mut request = [0u8];
        let (read, descriptors) = fdpass::receive(&run, &mut request)?;
        if read == 0 {
            return Ok(());
        }
        let started = descriptors.into_iter().next().map(|socket| start(executable, socket));
        let answer = match started {
            Some(Ok(mut child)) => {
                // Reaped whenever it ends; it may well outlive the run.
                std::thread::spawn(move || child.wait());
                b"y"
            }
            _ => b"n",
        };
        run.write_all(answer)?;
    }
}
