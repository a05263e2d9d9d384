//! What every command shares: tables, state, who asks, and how a failure is told.

use std::path::PathBuf;
use std::sync::OnceLock;

use toprope_engine::halt::Levers;
use toprope_engine::injector::Launch;
use toprope_engine::journal::Journal;
use toprope_engine::probe::PROBES;
use toprope_engine::run::RunError;
use toprope_engine::state::State;
use toprope_faults::FAULTS;
use toprope_model::{Problems, Sources, Tables};

use toprope_os::privilege::become_user;
use toprope_os::user::{Identity, User};

use crate::args::LauncherArgs;
use crate::{process, render};

/// A command that did not do what it was asked, with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code: 2 invalid input, 3 inconclusive, 4 not undone.
    pub exit: u8,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text { message: String, help: Option<String> },
    Manifest { sources: Sources, problems: Problems },
}

impl Failure {
    /// Invalid input or a host on which it cannot be done.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: 2, kind: Kind::Text { message: message.into(), help: None } }
    }

    /// A manifest with problems.
    pub fn manifest(sources: Sources, problems: Problems) -> Self {
        Self { exit: 2, kind: Kind::Manifest { sources, problems } }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        if let Kind::Text { help, .. } = &mut self.kind {
            *help = Some(text.into());
        }
        self
    }

    /// Ends with another exit code.
    #[must_use]
    pub fn exit(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// Tells it on standard error.
    pub fn print(&self) {
        match &self.kind {
            Kind::Text { message, help } => render::error(message, help.as_deref()),
            Kind::Manifest { sources, problems } => render::problems(sources, problems),
        }
    }
}

/// The exit code for a run that was refused: 4 where something of an earlier one is still to be undone, 5 where runs are
/// halted.
pub fn exit_of(error: &RunError) -> u8 {
    match error {
        RunError::Halted(_) => 5,
        error if error.is_dirty() => 4,
        _ => 2,
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = exit_of(&error);
        let failure = Self::new(error.to_string()).exit(exit);
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

macro_rules! failure_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.to_string())
            }
        }
    )*};
}
failure_from!(
    toprope_engine::state::StateError,
    toprope_engine::journal::JournalError,
    toprope_engine::halt::HaltError,
    toprope_engine::log::LogError,
    toprope_engine::signature::SignatureError,
    std::io::Error
);

/// All kinds of this build.
pub fn tables() -> Tables {
    Tables { faults: FAULTS.specs(), probes: PROBES.iter().map(|p| p.spec()).collect() }
}

/// The state of the user who runs this, as it was when first asked: in a user namespace everybody looks like root.
pub fn state() -> Result<State, Failure> {
    static STATE: OnceLock<State> = OnceLock::new();
    match STATE.get() {
        Some(state) => Ok(state.clone()),
        None => {
            let state = State::of_this_user()?;
            Ok(STATE.get_or_init(|| state).clone())
        }
    }
}

/// The directory that relative paths are from.
pub fn directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// The name of the user who asks: under sudo the one who called it.
pub fn user() -> String {
    let current = || {
        let uid = toprope_os::user::Identity::current().ok()?.uid;
        toprope_os::user::User::by_uid(uid).ok().flatten().map(|u| u.name)
    };
    std::env::var("SUDO_USER").ok().filter(|u| !u.is_empty()).or_else(current).unwrap_or_else(|| "unknown".into())
}

/// How injectors are started, and the journal that they write. Under sudo, this process keeps none of root's rights
/// from here on: a launcher does, which starts injectors and nothing else.
///
/// Call it before anything is read or written for the user. What it did at first holds for the whole process.
pub fn launch() -> Result<(Launch, Journal), Failure> {
    if let Some(done) = LAUNCH.get() {
        return Ok(done.clone());
    }
    let launch = give_up_sudo()?;
    Ok(LAUNCH.get_or_init(|| launch).clone())
}

/// Has injectors started by the host's launcher, if the command line asks for that. Call it before [`launch`].
pub fn through(launcher: &LauncherArgs) -> Result<(), Failure> {
    let Some(socket) = &launcher.socket else { return Ok(()) };
    let launch = Launch::connect(socket).map_err(|error| {
        Failure::new(format!("the launcher does not answer at {}: {error}", socket.display())).help(
            "root starts it with `toprope launcher`, or for good with `toprope install-guard --launcher`; without \
             `--launcher` injectors have your own rights",
        )
    })?;
    // The launcher's injectors keep root's journal, whatever is said here.
    LAUNCH.get_or_init(|| (launch, State::of_root().journal()));
    Ok(())
}

/// Starts a launcher with the rights that this process has now, and which it then gives up by itself.
pub fn keep_launcher() -> Result<(), Failure> {
    let launch = Launch::launcher(&process::executable())?;
    let journal = authority()?.journal();
    // Nobody has asked for another before this process entered a network of its own.
    LAUNCH.get_or_init(|| (launch, journal));
    Ok(())
}

static LAUNCH: OnceLock<(Launch, Journal)> = OnceLock::new();

/// The user who called this by sudo, for as long as it still has root's rights.
fn called_by_sudo() -> Option<u32> {
    let is_root = Identity::current().is_ok_and(|i| i.uid == 0);
    std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|uid| *uid != 0 && is_root)
}

/// The state of the user whose rights inject, where the journal is: under sudo that is root's, whatever `TOPROPE_HOME`
/// says, because a directory of the user's is no place for what root shall undo. Every command asks here.
pub fn authority() -> Result<State, Failure> {
    static AUTHORITY: OnceLock<State> = OnceLock::new();
    match AUTHORITY.get() {
        Some(state) => Ok(state.clone()),
        None => {
            let state = if called_by_sudo().is_some() { State::of_root() } else { state()? };
            Ok(AUTHORITY.get_or_init(|| state).clone())
        }
    }
}

/// The files that stop runs. Root makes the place for them that every user may write.
pub fn levers() -> Result<Levers, Failure> {
    open_levers();
    Ok(Levers::of(&state()?))
}

fn open_levers() {
    if Identity::current().is_ok_and(|i| i.uid == 0) {
        // Where it cannot be made, each user's own place is left, and `halt` says so.
        let _ = toprope_engine::halt::open_host();
    }
}

fn give_up_sudo() -> Result<(Launch, Journal), Failure> {
    open_levers();
    let journal = authority()?.journal();
    let Some(uid) = called_by_sudo() else {
        return Ok((Launch::Direct(process::executable()), journal));
    };
    let gone = || Failure::new(format!("SUDO_UID is {uid}, and there is no such user"));
    let user = User::by_uid(uid).ok().flatten().ok_or_else(gone)?;
    let identity = user.identity().map_err(|e| Failure::new(e.to_string()))?;
    let launch = Launch::launcher(&process::executable())?;
    become_user(&identity).map_err(|e| Failure::new(e.to_string()))?;
    Ok((launch, journal))
}

/// A runtime for a command that does several things at a time.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}
