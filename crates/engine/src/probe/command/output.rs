//! A program from its start to its end: its output within bounds, and nothing of it left behind.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use toprope_os::spawn::{Child, Spawn};

/// The most that a program may print to standard output, or to standard error.
pub(super) const MAX_OUTPUT: usize = 1 << 20;
/// How long output is waited for after the program has ended: what it started may hold the other end open.
const AFTERMATH: Duration = Duration::from_millis(200);

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub(super) exit: Option<i32>,
    /// The same in words.
    pub(super) how: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why a program did not come to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It could not be started.
    NotStarted(String),
    /// It printed too much and was killed.
    Flood,
}

/// Runs a program to its end. If the future is dropped before, the program is killed. With `show`, what it prints goes
/// to our standard error as it comes, and only its last part is kept.
pub(super) async fn run(spawn: Spawn, show: bool) -> Result<Ended, Stopped> {
    let not_started = |e: &dyn std::fmt::Display| Stopped::NotStarted(e.to_string());
    let (stdout, stdout_end) = io::pipe().map_err(|e| not_started(&e))?;
    let (stderr, stderr_end) = io::pipe().map_err(|e| not_started(&e))?;
    let spawn = spawn.stdout(stdout_end).stderr(stderr_end).session().death_signal(Signal::KILL);
    #[expect(clippy::disallowed_methods, reason = "fork and exec: milliseconds")]
    let started = tokio::task::spawn_blocking(move || spawn.start().map(|child| Group(Some(child)))).await;
    let mut group = started.map_err(|e| not_started(&e))?.map_err(|e| not_started(&e))?;
    let mut stdout = pipe::Receiver::from_owned_fd(stdout.into()).map_err(|e| not_started(&e))?;
    let mut stderr = pipe::Receiver::from_owned_fd(stderr.into()).map_err(|e| not_started(&e))?;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let status = {
        let reading =
            async { tokio::try_join!(read(&mut stdout, &mut said, show), read(&mut stderr, &mut complained, show)) };
        tokio::pin!(reading);
        tokio::select! {
            // It may close its output and run on.
            read = &mut reading => match read {
                Ok(_) => group.ended().await,
                Err(Flooded) => return Err(Stopped::Flood),
            },
            status = group.exited() => {
                status.map_err(|e| not_started(&e))?;
                match tokio::time::timeout(AFTERMATH, reading).await {
                    Ok(Err(Flooded)) => return Err(Stopped::Flood),
                    Ok(Ok(_)) | Err(_) => group.ended().await,
                }
            }
        }
    };
    let status = status.map_err(|e| not_started(&e))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { exit: status.code(), how: status.to_string(), stdout: text(said), stderr: text(complained) })
}

struct Flooded;

/// Reads to the end, or as far as is allowed. An error of reading is an end.
async fn read(from: &mut pipe::Receiver, into: &mut Vec<u8>, show: bool) -> Result<(), Flooded> {
    let mut chunk = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        into.extend_from_slice(&chunk[..n]);
        if show {
            // A terminal that is gone is the run's to notice.
            let _ = io::Write::write_all(&mut io::stderr(), &chunk[..n]);
            if into.len() > MAX_OUTPUT {
                into.drain(..into.len() - MAX_OUTPUT / 2);
            }
        } else if into.len() > MAX_OUTPUT {
            return Err(Flooded);
        }
    }
    Ok(())
}

/// A program and what it started, killed together. `None` once the program was waited for: then its number may be
/// another's.
struct Group(Option<Child>);

impl Group {
    /// Returns when the program has exited; it is not yet waited for.
    async fn exited(&self) -> toprope_os::Result<()> {
        match &self.0 {
            Some(child) => child.pidfd().exited().await,
            None => Ok(()),
        }
    }

    /// Waits until the program has exited, and ends what it left behind.
    async fn ended(&mut self) -> toprope_os::Result<ExitStatus> {
        self.exited().await?;
        let child = self.0.as_mut().expect("it is waited for once, at the end");
        kill(child);
        let status = child.wait().await;
        self.0 = None;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        kill(&child);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { drop(child.wait().await) })),
            Err(_) => drop(child.wait_timeout(Duration::from_secs(1))),
        }
    }
}

/// Kills the group of a child that leads one and that was not yet waited for.
fn kill(leader: &Child) {
    if let Some(group) = i32::try_from(leader.id().pid()).ok().and_then(Pid::from_raw) {
        // That nobody is left in it is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
}
