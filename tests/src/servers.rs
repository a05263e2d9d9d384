//! Real servers from Debian, each started by a test on ports and in directories of its own, and ended with it.

mod nginx;
mod postgres;
mod redis;

use std::ffi::OsStr;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use toprope_os::process::{Pidfd, ProcessId, ProcessInfo, Signal, descendants};

pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;

use crate::{PATIENCE, eventually, programs};

/// A port that nobody listens on. In a network of the test's own nobody else can take it, either.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// The process of a server, which ends with the test however that ends.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// What ends it and all that it started.
    end: Signal,
}

impl Server {
    /// Starts a program, as another user where one is named, that the kernel sends `end` when the test is killed.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(program: &str, args: &[&OsStr], user: Option<&str>, end: Signal, output: &Path) -> Self {
        let name = match end {
            Signal::TERM => "TERM",
            Signal::QUIT => "QUIT",
            _ => "KILL",
        };
        let mut command = Command::new(programs::program("setpriv"));
        command.args(["--pdeathsig", name]);
        if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
            command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups"]);
        }
        command.arg("--").arg(programs::program(program)).args(args).stdin(Stdio::null());
        let file = File::options().create(true).append(true).open(output).expect("the directory can be written");
        command.stdout(file.try_clone().expect("a file can be shared")).stderr(file);
        Self { child: command.spawn().expect("the program is installed"), end }
    }

    /// Its main process.
    ///
    /// # Panics
    /// It was reaped.
    pub fn id(&self) -> ProcessId {
        ProcessId::of(self.child.id()).expect("a child that nobody waited for is in /proc")
    }

    /// The main process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it started.
    pub fn workers(&self) -> Vec<ProcessInfo> {
        let all = descendants(self.pid()).unwrap_or_default();
        all.into_iter().filter_map(|id| ProcessInfo::of(id.pid()).ok()).collect()
    }

    /// Waits until it takes connections.
    ///
    /// # Panics
    /// It ends, or does not take any.
    #[track_caller]
    pub fn until_listening(&mut self, port: u16) {
        eventually("the server takes connections", || {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Whether the main process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let signal = |id: &ProcessId, signal| drop(Pidfd::open(id).and_then(|process| process.signal(signal)));
        let workers: Vec<ProcessId> = self.workers().into_iter().map(|w| w.id).collect();
        if let Ok(None) = self.child.try_wait() {
            let id = self.id();
            signal(&id, self.end);
            // A server that was left paused hears nothing but this.
            if !Pidfd::open(&id).and_then(|process| process.wait_exited(PATIENCE / 6)).unwrap_or(true) {
                signal(&id, Signal::KILL);
            }
            let _ = self.child.wait();
        }
        workers.iter().for_each(|worker| signal(worker, Signal::KILL));
    }
}

/// Runs a client to its end, and returns what it printed and whether it succeeded.
///
/// # Panics
/// It is not installed.
pub fn client(program: &str, args: &[&str]) -> (String, bool) {
    let output = Command::new(programs::program(program)).args(args).stdin(Stdio::null()).output();
    let output = output.expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}

fn directory(prefix: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().prefix(prefix).tempdir().expect("a directory can be made");
    // Servers that root starts run as somebody else.
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(directory.path(), open).expect("the directory is ours");
    directory
}
