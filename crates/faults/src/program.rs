//! Programs that a manifest names: run without a shell, as the user who wrote it, within bounds of time and output.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use toprope_engine::fault::FaultError;
use toprope_engine::host::Host;
use toprope_model::{FromNode, Node, Problems, Type};
use toprope_os::process::{Pidfd, Signal, descendants};
use toprope_os::spawn::{Child, Spawn};
use toprope_os::user::{Identity, User};

/// How much of a program's output is kept: its end, where errors stand.
const KEPT_OUTPUT: usize = 2048;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argv(Vec<String>);

impl Argv {
    /// Words that are no manifest's.
    pub(crate) fn of<const N: usize>(words: [&str; N]) -> Self {
        const { assert!(N > 0) };
        Self(words.map(str::to_owned).to_vec())
    }
}

impl FromNode for Argv {
    fn ty() -> Type {
        Vec::<String>::ty()
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let words = Vec::<String>::from_node(node, problems)?;
        if words.first().is_none_or(String::is_empty) {
            problems
                .add(node.span, "a program is missing", "names nothing to run")
                .help("for instance [systemctl, stop, redis]; for a shell's syntax [sh, -c, \"...\"]");
            return None;
        }
        if words.iter().any(|w| w.contains('\0')) {
            problems.add(node.span, "no program can be given a NUL byte", "holds a NUL byte");
            return None;
        }
        Some(Self(words))
    }
}

/// As one would type it, to be read and not to be run.
impl std::fmt::Display for Argv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || "-_./:=,+@%".contains(c));
        let words = self.0.iter().map(|w| match plain(w) {
            true => w.clone(),
            false => format!("'{}'", shown(&w.replace('\'', "'\\''"))),
        });
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

/// Where and as whom programs run. Durable, because the undo may run in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    directory: PathBuf,
    uid: u32,
    timeout_ms: u64,
}

impl Setting {
    /// The user who wrote the manifest, in the directory where the run was started.
    pub(crate) fn of(host: &Host, timeout: Duration) -> Result<Self, FaultError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { directory: host.directory.clone(), uid: host.invoking_user.map_or_else(my_uid, Ok)?, timeout_ms })
    }

    /// With the rights that we have, for programs that the fault names and not the manifest.
    pub(crate) fn with_our_rights(host: &Host, timeout: Duration) -> Result<Self, FaultError> {
        Ok(Self { uid: my_uid()?, ..Self::of(host, timeout)? })
    }

    /// Where programs run.
    pub(crate) fn directory(&self) -> String {
        shown(&self.directory.display().to_string()).to_string()
    }

    /// How long a program may run.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

fn my_uid() -> Result<u32, FaultError> {
    Identity::current().map(|i| i.uid).map_err(|e| FaultError::because("cannot tell who we are", e))
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it ended with exit code 0.
    pub(crate) success: bool,
    /// How it ended, and the end of what it printed, in one line.
    pub(crate) says: String,
}

/// What a program and this process have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// It ends with us, and its output is ours, so that an error can show it. What it leaves running lives on; its
    /// output is taken for as long as this process lives.
    Ours,
    /// It outlives us, because to cut it short would do harm; its output is ours.
    Spared,
    /// It outlives us, and so does what it leaves running: its output goes nowhere, lest our end hurt them.
    Free,
}

impl Argv {
    /// The program alone.
    fn program(&self) -> &str {
        self.0.first().expect("a program is required when it is read")
    }

    /// Refuses a program that is not there, before anything depends on it.
    pub(crate) fn must_exist(&self, setting: &Setting) -> Result<(), FaultError> {
        let program = self.program();
        let found = if program.contains('/') {
            // Where we may not look, the user who runs it may.
            let missing = |e: std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
            !std::fs::metadata(setting.directory.join(program)).is_err_and(missing)
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        };
        match found {
            true => Ok(()),
            false => Err(FaultError::new(format!("the program `{}` of `{self}` is not there", shown(program)))
                .help("install it, or write its path; relative paths are from where the run was started")),
        }
    }

    /// Runs it to its end, and waits for that no longer than the setting's timeout.
    ///
    /// # Errors
    /// It could not be started, or did not end in time. That it failed is no error here.
    pub(crate) async fn run(&self, setting: &Setting, tie: Tie) -> Result<Ended, FaultError> {
        let failed = |e: &dyn std::fmt::Display| FaultError::because(format!("`{self}` could not be run"), e);
        let (reader, writer) = std::io::pipe().map_err(|e| failed(&e))?;
        let mut spawn = self.spawn(setting, tie).map_err(|e| failed(&e))?;
        if tie != Tie::Free {
            spawn = spawn.stdout(writer.try_clone().map_err(|e| failed(&e))?).stderr(writer);
        } else {
            drop(writer);
        }
        let mut pipe = Receiver::from_owned_fd(reader.into()).map_err(|e| failed(&e))?;
        // After the pipe, so that it goes before it: the end of the pipe would end the program before its children are
        // known.
        let mut running = Running { child: spawn.start().map_err(|e| failed(&e))?, tie };
        let mut tail = Tail::default();
        let whole = async {
            tokio::select! {
                status = running.child.wait() => status,
                () = tail.read(&mut pipe) => running.child.wait().await,
            }
        };
        let Ok(status) = tokio::time::timeout(setting.timeout(), whole).await else {
            let last = tail.text();
            let more = if last.is_empty() { String::new() } else { format!("; it printed last: {last}") };
            return Err(FaultError::new(format!(
                "`{self}` did not end within {:?} and was killed{more}",
                setting.timeout()
            ))
            .help("raise `timeout`, or see what it waits for"));
        };
        tail.take_rest(&pipe);
        if tie == Tie::Ours {
            // What it left running may go on printing: with nobody to read, that would end it.
            tokio::spawn(async move { Tail::default().read(&mut pipe).await });
        }
        Ok(ended(status.map_err(|e| failed(&e))?, &tail.text()))
    }

    fn spawn(&self, setting: &Setting, tie: Tie) -> toprope_os::Result<Spawn> {
        let mut spawn = Spawn::new(self.program()).args(self.0.iter().skip(1)).directory(&setting.directory).session();
        if tie == Tie::Ours {
            spawn = spawn.death_signal(Signal::KILL);
        }
        if Identity::current()?.uid != setting.uid {
            let user = User::by_uid(setting.uid)?.ok_or(toprope_os::Error::Invalid {
                what: format!("user {}", setting.uid),
                why: "is not known on this host, so its groups are not either; add it to /etc/passwd".into(),
            })?;
            spawn = spawn.variable("USER", &user.name).variable("LOGNAME", &user.name).identity(user.identity()?);
        }
        Ok(spawn)
    }
}

fn ended(status: ExitStatus, output: &str) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    Ended { success: status.success(), says: if output.is_empty() { how } else { format!("{how}: {output}") } }
}

/// A program that is killed with all that it started, unless it was waited for, or is to outlive us.
struct Running {
    child: Child,
    tie: Tie,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.tie != Tie::Ours || self.child.pidfd().has_exited().unwrap_or(true) {
            return;
        }
        let children = descendants(self.child.id().pid()).unwrap_or_default();
        drop(self.child.signal(Signal::KILL));
        for child in children.iter().filter_map(|id| Pidfd::open(id).ok()) {
            drop(child.signal(Signal::KILL));
        }
        // A killed process ends soon; it is reaped here, so that none is left behind.
        drop(self.child.wait_timeout(Duration::from_secs(1)));
    }
}

/// The end of an output without end.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads until the output ends; safe to cancel.
    async fn read(&mut self, pipe: &mut Receiver) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            self.keep(&buffer[..n]);
        }
    }

    /// Reads what is there, at most what a pipe holds.
    fn take_rest(&mut self, pipe: &Receiver) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            match pipe.try_read(&mut buffer) {
                Ok(n @ 1..) => self.keep(&buffer[..n]),
                _ => return,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(KEPT_OUTPUT);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        shown(String::from_utf8_lossy(&self.0).trim())
    }
}

/// Text that others wrote, in one line and without what a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ");
    lines.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
