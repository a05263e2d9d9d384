//! Starting child processes with exactly the descriptors, session, rights and namespaces that they are to have.
//!
//! `std::process` cannot enter namespaces, nor pass descriptors other than the first three, nor close all others.

mod child;
mod exec;

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
};

use rustix::process::Signal;

pub use child::Child;

use self::exec::{Failure, Plan};
use crate::{
    Error, Result,
    error::Context,
    namespace::{Kind, Namespace, UserMap},
    user::Identity,
};

/// Where one of a child's first three descriptors leads.
#[derive(Debug)]
pub enum Stdio {
    /// To `/dev/null`.
    Null,
    /// Where ours leads.
    Inherit,
    /// To this descriptor.
    Fd(OwnedFd),
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(fd: T) -> Self {
        Self::Fd(fd.into())
    }
}

/// A child process to be started. Unless told otherwise it gets our environment, directory, user and namespaces,
/// `/dev/null` as its first three descriptors and no others.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct Spawn {
    program: OsString,
    args: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    stdio: [Stdio; 3],
    descriptors: Vec<OwnedFd>,
    session: bool,
    death_signal: Option<Signal>,
    identity: Option<Identity>,
    enter: Vec<Namespace>,
    new_user: Option<UserMap>,
    new_net: bool,
}

impl Spawn {
    /// A program by its path, or by its name to be found on the child's `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            environment: std::env::vars_os().collect(),
            directory: None,
            stdio: [Stdio::Null, Stdio::Null, Stdio::Null],
            descriptors: Vec::new(),
            session: false,
            death_signal: None,
            identity: None,
            enter: Vec::new(),
            new_user: None,
            new_net: false,
        }
    }

    /// The very program that runs now, even when its file was replaced or removed since.
    pub fn this_program() -> Self {
        Self::new("/proc/self/exe")
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Takes every variable out of the child's environment.
    pub fn clear_environment(mut self) -> Self {
        self.environment.clear();
        self
    }

    /// Sets a variable of the child's environment.
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Starts the child in another directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets descriptor 0.
    pub fn stdin(mut self, to: impl Into<Stdio>) -> Self {
        self.stdio[0] = to.into();
        self
    }

    /// Sets descriptor 1.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.stdio[1] = to.into();
        self
    }

    /// Sets descriptor 2.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stdio[2] = to.into();
        self
    }

    /// Gives the child one more descriptor: 3 for the first, 4 for the next, and so on.
    pub fn descriptor(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.descriptors.push(fd.into());
        self
    }

    /// Gives the child a session of its own, so that neither Ctrl-C, nor a closed terminal, nor a signal to our
    /// process group reaches it.
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Has the kernel send the child a signal when this process ends, however it ends.
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = Some(signal);
        self
    }

    /// Makes the child another user. It needs CAP_SETUID and CAP_SETGID, and leaves the child without capabilities.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Has the child enter a namespace. Of several, those of users are entered first, because rights in the others may
    /// come from there; and a child that is given an identity has it before it enters one of users, which must be its
    /// own, and after it entered others.
    pub fn enter(mut self, namespace: Namespace) -> Self {
        self.enter.push(namespace);
        self.enter.sort_by_key(|n| n.kind() != Kind::User);
        self
    }

    /// Gives the child a user namespace of its own.
    pub fn new_user_namespace(mut self, map: UserMap) -> Self {
        self.new_user = Some(map);
        self
    }

    /// Gives the child a network of its own, with nothing but a loopback interface that is down.
    pub fn new_net_namespace(mut self) -> Self {
        self.new_net = true;
        self
    }

    /// Starts the child and returns once it executes the program.
    ///
    /// # Errors
    /// [`Error::System`] with the step that failed; no child is left then.
    pub fn start(self) -> Result<Child> {
        self.fork(false)
    }

    /// Does everything but execute the program, and leaves no child: whether [`Spawn::start`] would be allowed.
    pub fn dry_run(self) -> Result<()> {
        self.fork(true)?.wait_ended().map(drop)
    }

    fn fork(self, dry: bool) -> Result<Child> {
        let name = self.program.display().to_string();
        let lasting = self.death_signal.is_some();
        let (mut failure, plan) = self.plan(dry)?;
        // The kernel sends the signal when the *thread* that forked ends, so that one must last (prctl(2)).
        let pid = if lasting { on_lasting_thread(move || plan.fork())? } else { plan.fork() };
        let child = Child::adopt(pid.cannot(|| format!("start {name}: fork"))?)?;
        // The other end closes when the program is executed, or with the child.
        let mut report = [0; Failure::SIZE];
        match failure.read_exact(&mut report) {
            Ok(()) => {
                let (step, source) = Failure::decode(report);
                child.wait_ended()?;
                Err(Error::System {
                    action: format!("start {name}: {}", step.describe()),
                    needs: Some(step.needs()),
                    source,
                })
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(child),
            Err(e) => Err(e).cannot(|| format!("learn whether {name} was started")),
        }
    }

    /// Allocates all that the child will use: between fork and exec it must not.
    fn plan(self, dry: bool) -> Result<(File, Plan)> {
        let what = || format!("prepare the start of {}", self.program.display());
        let program = find(&self.program, self.environment.get(OsStr::new("PATH")))?;
        let mut args = vec![text(self.program.as_bytes())?];
        args.extend(self.args.iter().map(|a| text(a.as_bytes())).collect::<Result<Vec<_>>>()?);
        let mut environment = Vec::new();
        for (name, value) in &self.environment {
            environment.push(text([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }

        // Every source must lie above the targets, lest a target overwrite a source that is still needed.
        let first_free = 3 + i32::try_from(self.descriptors.len())
            .map_err(|_| Error::invalid("the descriptors for a child", "are too many"))?;
        let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, first_free).cannot(what);
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null").cannot(what)?.into();
        let mut descriptors = Vec::new();
        for (target, source) in (0..).zip(&self.stdio) {
            match source {
                Stdio::Inherit => {}
                Stdio::Null => descriptors.push((above(&null)?, target)),
                Stdio::Fd(fd) => descriptors.push((above(fd)?, target)),
            }
        }
        for (target, source) in (3..).zip(&self.descriptors) {
            descriptors.push((above(source)?, target));
        }
        let (failure, report) = io::pipe().cannot(what)?;
        let report = above(&report.into())?;

        let (uid, gid) = match &self.identity {
            Some(identity) => (identity.uid, identity.gid),
            None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        let maps = self.new_user.map(|map| map.texts(uid, gid));
        let new_namespaces = if self.new_user.is_some() { libc::CLONE_NEWUSER } else { 0 }
            | if self.new_net { libc::CLONE_NEWNET } else { 0 };

        let plan = Plan::new(program, args, environment)
            .directory(self.directory.as_deref().map(|d| text(d.as_os_str().as_bytes())).transpose()?)
            .descriptors(descriptors, first_free, report)
            .session(self.session)
            .enter(self.enter)
            .identity(self.identity)
            .new_namespaces(new_namespaces, maps)
            .death_signal(self.death_signal)
            .dry(dry);
        Ok((File::from(OwnedFd::from(failure)), plan))
    }
}

fn text(bytes: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(bytes).map_err(|e| {
        let text = String::from_utf8_lossy(&e.into_vec()).into_owned();
        Error::invalid(format!("{text:?}"), "holds a NUL byte, which no program can be given")
    })
}

/// The program's file: as execvp(3) searches it, but before the fork, where memory can be allocated.
fn find(program: &OsStr, path: Option<&OsString>) -> Result<CString> {
    if program.as_bytes().contains(&b'/') {
        return text(program.as_bytes());
    }
    let path = path.map_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"), |p| p.as_os_str());
    let is_program = |file: &Path| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    let found = std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| is_program(file));
    match found {
        Some(file) => text(file.into_os_string().into_vec()),
        None => Err(io::Error::from(io::ErrorKind::NotFound))
            .cannot(|| format!("start {}: it is in no directory of PATH", program.display())),
    }
}

/// Runs something on a thread that lasts as long as this process.
fn on_lasting_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    type Job = Box<dyn FnOnce() + Send>;
    /// With the process it belongs to: a forked child has this memory, but not the thread.
    static THREAD: Mutex<Option<(u32, mpsc::Sender<Job>)>> = Mutex::new(None);

    let me = std::process::id();
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let jobs = match &*thread {
        Some((owner, jobs)) if *owner == me => jobs.clone(),
        _ => {
            let (jobs, todo) = mpsc::channel::<Job>();
            std::thread::Builder::new()
                .name("spawner".into())
                .spawn(move || todo.into_iter().for_each(|job| job()))
                .cannot(|| "start the thread that starts children")?;
            *thread = Some((me, jobs.clone()));
            jobs
        }
    };
    drop(thread);
    let (result, wait) = mpsc::channel();
    let job = move || drop(result.send(run()));
    jobs.send(Box::new(job)).expect("the thread ends only with its channel, which is kept for ever");
    Ok(wait.recv().expect("a job sends its result"))
}

#[cfg(test)]
mod tests;
