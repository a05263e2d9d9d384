//! How injectors are started: by the run itself, or by a launcher that kept the privileges which the run gave up.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use toprope_os::fdpass;
use toprope_os::process::{Pidfd, ProcessId};

/// Asks the launcher to kill one that it started; its number follows.
const KILL: u8 = b'k';

/// What a process is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It holds a fault.
    Injector,
    /// It holds a listener for the whole run.
    PassThrough,
}

impl Role {
    const ALL: [Self; 2] = [Self::Injector, Self::PassThrough];

    /// The hidden command of this program.
    fn name(self) -> &'static str {
        match self {
            Self::Injector => "injector",
            Self::PassThrough => "pass-through",
        }
    }

    /// How a launcher is asked for it.
    fn byte(self) -> u8 {
        match self {
            Self::Injector => b'i',
            Self::PassThrough => b'p',
        }
    }
}

/// Starts injectors, and pass-throughs.
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
            .arg0(crate::PROGRAM)
            .arg("starter")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self::Launcher(Arc::new(Mutex::new(ours))))
    }

    /// The launcher of this host, which starts injectors for whoever calls, as far as its policy allows.
    ///
    /// # Errors
    /// It does not listen there.
    pub fn connect(socket: &Path) -> std::io::Result<Self> {
        Ok(Self::Launcher(Arc::new(Mutex::new(UnixStream::connect(socket)?))))
    }

    /// Starts a process and returns the socket to it, and a hold on it. A process list shows of which kind of fault it
    /// is.
    pub(crate) fn start(&self, role: Role, fault: &str) -> std::io::Result<(UnixStream, Started)> {
        let (ours, theirs) = UnixStream::pair()?;
        match self {
            Self::Direct(executable) => Ok((ours, Started::Child(start(executable, role, fault, &[], theirs.into())?))),
            Self::Launcher(launcher) => {
                let mut socket = locked(launcher)?;
                fdpass::send(&*socket, &[role.byte()], &[theirs.as_fd()])?;
                drop(theirs);
                let label = label(fault).unwrap_or_default();
                socket.write_all(&[u8::try_from(label.len()).unwrap_or_default()])?;
                socket.write_all(label.as_bytes())?;
                let mut number = [0; 4];
                socket.read_exact(&mut number)?;
                match u32::from_be_bytes(number) {
                    0 => Err(std::io::Error::other("the launcher could not start it")),
                    number => Ok((ours, Started::Launched(launcher.clone(), number))),
                }
            }
        }
    }
}

fn locked(launcher: &Mutex<UnixStream>) -> std::io::Result<std::sync::MutexGuard<'_, UnixStream>> {
    launcher.lock().map_err(|_| std::io::Error::other("the launcher is unusable"))
}

/// A process, as far as whoever had it started may touch it.
#[derive(Debug)]
pub(crate) enum Started {
    /// Our own child.
    Child(Child),
    /// The launcher's child of this number: only it may signal a process with more privileges than ours.
    Launched(Arc<Mutex<UnixStream>>, u32),
}

impl Started {
    /// Ends it with SIGKILL, in whatever state it is.
    pub(crate) fn kill(&mut self) -> std::io::Result<()> {
        match self {
            Self::Child(child) => child.kill(),
            Self::Launched(launcher, number) => {
                let mut request = vec![KILL];
                request.extend(number.to_be_bytes());
                locked(launcher)?.write_all(&request)
            }
        }
    }
}

/// A fault's kind as a process list may show it. Whoever asks a launcher has fewer rights than it: what could be more
/// than a name is no argument of a program with all of them.
pub(crate) fn label(fault: &str) -> Option<&str> {
    let is_name = !fault.is_empty() && fault.len() <= 64 && !fault.starts_with('-');
    (is_name && fault.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')).then_some(fault)
}

fn start(executable: &Path, role: Role, fault: &str, caller: &[String], socket: OwnedFd) -> std::io::Result<Child> {
    Command::new(executable)
        .arg0(crate::PROGRAM)
        .arg(role.name())
        .args(label(fault))
        .args(caller)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The launcher's process: starts an injector or a pass-through on each socket that it is handed, until the run is gone.
///
/// # Errors
/// The socket to the run cannot be used.
pub fn serve_launcher(run: UnixStream, executable: &Path) -> std::io::Result<()> {
    start_for(run, executable, &[])
}

/// Starts what a run asks for, until it is gone. `caller` is whom injectors are for, where that is somebody with fewer
/// rights than they have; then there are injectors alone, and so many of them.
pub(super) fn start_for(mut run: UnixStream, executable: &Path, caller: &[String]) -> std::io::Result<()> {
    const MOST: usize = 256;
    let mut started: Vec<Pidfd> = Vec::new();
    loop {
        let mut request = [0u8];
        let (read, descriptors) = fdpass::receive(&run, &mut request)?;
        match request {
            _ if read == 0 => return Ok(()),
            [KILL] => {
                let mut number = [0; 4];
                run.read_exact(&mut number)?;
                let injector = (u32::from_be_bytes(number) as usize).checked_sub(1).and_then(|n| started.get(n));
                // One that has ended meanwhile needs no killing.
                let _ = injector.map(|injector| injector.signal(Signal::KILL));
            }
            _ => {
                let role = Role::ALL.into_iter().find(|role| role.byte() == request[0]);
                let mut length = [0];
                run.read_exact(&mut length)?;
                let mut fault = vec![0; length[0].into()];
                run.read_exact(&mut fault)?;
                let fault = String::from_utf8_lossy(&fault);
                let asked = role.zip(descriptors.into_iter().next());
                let asked =
                    asked.filter(|(role, _)| caller.is_empty() || (*role == Role::Injector && started.len() < MOST));
                let answer =
                    match asked.and_then(|(role, socket)| launch(executable, role, &fault, caller, socket).ok()) {
                        Some(process) => {
                            started.push(process);
                            u32::try_from(started.len()).unwrap_or_default()
                        }
                        None => 0,
                    };
                run.write_all(&answer.to_be_bytes())?;
            }
        }
    }
}

fn launch(executable: &Path, role: Role, fault: &str, caller: &[String], socket: OwnedFd) -> std::io::Result<Pidfd> {
    let mut child = start(executable, role, fault, caller, socket)?;
    let held = ProcessId::of(child.id()).and_then(|id| Pidfd::open(&id)).map_err(std::io::Error::other);
    if held.is_err() {
        let _ = child.kill();
    }
    // Reaped whenever it ends; it may well outlive the run.
    std::thread::spawn(move || child.wait());
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_passes_on_names_of_faults_and_nothing_else() {
        assert_eq!(label("network-latency"), Some("network-latency"));
        let long = "x".repeat(65);
        for other in ["", "--help", "-h", "Run", "a b", "a/b", "a\0b", &long] {
            assert_eq!(label(other), None, "{other:?}");
        }
    }
}
