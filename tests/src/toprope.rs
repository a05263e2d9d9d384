//! A Toprope of a test's own, and its runs.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use toprope_engine::log::{FILE, Log};
use toprope_engine::run::RUNNING;
use toprope_model::event::{Event, Record};
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo, Signal, processes};

use crate::{PATIENCE, binary, eventually};

/// A Toprope with a home of its own, and under a file name of its own: so its processes can be told from those of other
/// tests, by a test as by `toprope residue`.
#[derive(Debug)]
pub struct Toprope {
    directory: TempDir,
    binary: PathBuf,
    started: Cell<u32>,
}

impl Default for Toprope {
    fn default() -> Self {
        Self::new()
    }
}

impl Toprope {
    /// Makes one, with nothing in its home.
    ///
    /// # Panics
    /// The binary cannot be built, or the disk is full.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("toprope-test-").tempdir().expect("a directory can be made");
        // Servers and runs of other users look into it.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("the directory is ours");
        let binary = directory.path().join("toprope");
        if std::fs::hard_link(binary::path(), &binary).is_err() {
            std::fs::copy(binary::path(), &binary).expect("the binary can be copied");
        }
        Self { directory, binary, started: Cell::new(0) }
    }

    /// Where manifests are written and commands run.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of a file in [`Toprope::directory`].
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// What `TOPROPE_HOME` says.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// This binary's own path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Writes a file into [`Toprope::directory`].
    ///
    /// # Panics
    /// The disk is full.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the directory can be written");
        path
    }

    /// Writes an experiment from the inside of its `spec`, with a short steady state and recovery where that says
    /// nothing of them. Its name is the file's.
    pub fn experiment(&self, name: &str, spec: &str) -> PathBuf {
        let mut text =
            format!("apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n");
        for (key, value) in
            [("hypothesis", "it stands"), ("steady-state", "{for: 300ms}"), ("recovery", "{within: 5s}")]
        {
            if !spec.lines().any(|line| line.trim_start().starts_with(&format!("{key}:"))) {
                text.push_str(&format!("  {key}: {value}\n"));
            }
        }
        let indent = spec.lines().find(|l| !l.trim().is_empty()).map_or(0, |l| l.len() - l.trim_start().len());
        for line in spec.lines() {
            text.push_str(&format!("  {}\n", line.get(indent..).unwrap_or_default()));
        }
        self.write(&format!("{name}.yaml"), text)
    }

    /// A probe that keeps the faults of its run in force until [`Toprope::let_go`], so that a test can look at them as
    /// long as its machine takes.
    pub fn watcher(&self) -> String {
        let done = self.path("done");
        let wait = format!("until test -e {}; do sleep 0.05; done", done.display());
        format!("- command: {{name: watcher, run: [sh, -c, '{wait}'], when: at, samples: 1, timeout: 60s}}")
    }

    /// The test has seen what it wanted to see: the faults end.
    pub fn let_go(&self) {
        self.write("done", "");
    }

    /// A command of this Toprope, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// A command of this Toprope that another program starts: `setpriv …`, `sh -c '"$@" | head -1' sh`.
    pub fn wrapped(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut command = match wrapper.split_first() {
            Some((program, more)) => {
                let mut command = Command::new(program);
                command.args(more).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.args(args).current_dir(self.directory()).env("TOPROPE_HOME", self.home()).env("NO_COLOR", "1");
        // What the tests' own caller was given must not change what they see.
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "RUST_BACKTRACE", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// It does not end within [`PATIENCE`].
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Done {
        self.start(args).wait()
    }

    /// Starts a command.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running<'_> {
        self.spawn(self.command(args))
    }

    /// Starts a command that was prepared by [`Toprope::command`] or [`Toprope::wrapped`].
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn spawn(&self, mut command: Command) -> Running<'_> {
        let number = self.started.get();
        self.started.set(number + 1);
        // Files and no pipes: nobody has to read while it runs, and nobody holds it up.
        let (stdout, stderr) = (self.path(&format!("stdout-{number}")), self.path(&format!("stderr-{number}")));
        let file = |path: &Path| File::create(path).expect("the directory can be written");
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        self.wait_for_the_machine(&command);
        let child = command.spawn().expect("toprope can be started");
        Running { toprope: self, child, stdout, stderr, started: Instant::now(), log: None }
    }

    /// Waits until no other test loads this machine's cores or memory, if this command does or plans to: two at once are
    /// refused, whatever their TOPROPE_HOME. The turn lasts until this process ends.
    fn wait_for_the_machine(&self, command: &Command) {
        static TURN: std::sync::OnceLock<File> = std::sync::OnceLock::new();
        let loads = |text: &str| text.contains("cpu-stress") || text.contains("memory-stress");
        // What is no manifest may have no end.
        let is_file = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20);
        let file_loads = |path: &Path| is_file(path) && std::fs::read_to_string(path).is_ok_and(|text| loads(&text));
        let of_argument = |argument: &std::ffi::OsStr| {
            let path = self.directory().join(argument);
            let inside = std::fs::read_dir(&path).into_iter().flatten().flatten();
            argument.to_str().is_some_and(loads)
                || file_loads(&path)
                || inside.into_iter().any(|e| file_loads(&e.path()))
        };
        if command.get_args().any(of_argument) {
            TURN.get_or_init(|| {
                let path = std::env::temp_dir().join("toprope-tests-that-load-the-machine");
                // Another user's can be locked, too.
                let file = File::options().create(true).append(true).open(&path).or_else(|_| File::open(&path));
                let file = file.expect("a temporary file can be made");
                file.lock().expect("a file can be locked");
                file
            });
        }
    }

    /// The directories of all runs, the oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home().join("runs")).into_iter().flatten().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        runs.sort();
        runs
    }

    /// The log of the only run, or of the last.
    ///
    /// # Panics
    /// There is none, or its chain is broken.
    #[track_caller]
    pub fn log(&self) -> Log {
        let run = self.runs().pop().expect("there was a run");
        toprope_engine::log::read(&run.join(FILE)).expect("a log that can be read")
    }

    /// The events of the last run.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        self.log().records.into_iter().map(|record| record.event).collect()
    }

    /// Injectors, guards and runs of this Toprope that live, by their role: `injector`, `guard`, or a command's name.
    pub fn processes(&self, role: &str) -> Vec<ProcessInfo> {
        let mine = |process: &ProcessInfo| {
            process.exe.as_deref() == Some(self.binary()) && process.cmdline.get(1).is_some_and(|word| word == role)
        };
        processes().unwrap_or_default().into_iter().filter(mine).collect()
    }

    /// Every process of this Toprope.
    pub fn all_processes(&self) -> Vec<ProcessInfo> {
        let all = processes().unwrap_or_default();
        all.into_iter().filter(|p| p.exe.as_deref() == Some(self.binary()) && p.id.is_alive()).collect()
    }

    /// Waits until no process of this Toprope is left, and asks `toprope residue` whether the host is clean.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn assert_clean(&self) {
        eventually("no process of this Toprope is left", || self.all_processes().is_empty());
        let residue = self.run(&["residue", "--own", "--json"]);
        self.assert_nothing_own(&residue);
    }
}

impl Toprope {
    /// Asserts that an answer of `toprope residue --json` tells of nothing that this Toprope left. What others have in force
    /// on this machine, and journals that are not for this user to see, are not the test's.
    ///
    /// # Panics
    /// It does.
    #[track_caller]
    pub fn assert_nothing_own(&self, residue: &Done) {
        assert!(matches!(residue.code, Some(0 | 3 | 4)), "{residue}");
        let told: serde_json::Value = serde_json::from_str(&residue.stdout).unwrap_or_default();
        assert!(told["findings"].is_array() && told["unseen"].is_array(), "{residue}");
        let mine = self.directory().to_string_lossy();
        assert!(!told.to_string().contains(&*mine), "{residue}");
        assert!(residue.code != Some(0) || told["clean"] == true, "{residue}");
    }
}

impl Drop for Toprope {
    /// Whatever a test that failed left behind ends with it.
    fn drop(&mut self) {
        for process in self.all_processes() {
            kill(&process.id);
        }
    }
}

/// Kills a process as the OOM killer does. One that is gone already is no error.
pub(crate) fn kill(id: &ProcessId) {
    if let Ok(process) = Pidfd::open(id) {
        // It may end at this moment by itself.
        let _ = process.signal(Signal::KILL);
    }
}

/// A command of Toprope that runs.
#[derive(Debug)]
pub struct Running<'t> {
    toprope: &'t Toprope,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
    /// Its run's log, once known.
    log: Option<PathBuf>,
}

impl Running<'_> {
    /// Its process.
    ///
    /// # Panics
    /// It was waited for.
    pub fn id(&self) -> ProcessId {
        ProcessId::of(self.child.id()).expect("a child that nobody waited for is in /proc")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        Pidfd::open(&self.id()).and_then(|process| process.signal(signal)).expect("it still runs");
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// The log of its run, as far as it is written.
    pub fn records(&mut self) -> Vec<Record> {
        let Some(log) = self.find_log() else { return vec![] };
        toprope_engine::log::read(&log).map(|log| log.records).unwrap_or_default()
    }

    fn find_log(&mut self) -> Option<PathBuf> {
        if self.log.is_none() {
            let pid = u64::from(self.child.id());
            let mine = |run: &PathBuf| {
                let owner = std::fs::read(run.join(RUNNING)).unwrap_or_default();
                let owner: serde_json::Value = serde_json::from_slice(&owner).unwrap_or_default();
                owner["pid"] == pid
            };
            self.log = self.toprope.runs().into_iter().find(mine).map(|run| run.join(FILE));
        }
        self.log.clone()
    }

    /// Waits until its log holds an event.
    ///
    /// # Panics
    /// It ends before that, or the event does not come.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.records().iter().any(|record| wanted(&record.event)) {
            let ended = self.child.try_wait().expect("our own child");
            // It may have written that just before it ended.
            if let Some(ended) = ended
                && !self.records().iter().any(|record| wanted(&record.event))
            {
                panic!("it ended before {what}: {}", self.done(ended));
            }
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}; so far: {}", self.stdout());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a fault of its run is in force.
    #[track_caller]
    pub fn until_in_force(&mut self) {
        self.until("a fault is in force", |event| matches!(event, Event::Injected { .. }));
    }

    /// Waits until the probe of this index has so many samples that were asked while the run's faults were in force.
    #[track_caller]
    pub fn until_sampled(&mut self, probe: u32, count: usize) {
        eventually("a probe is asked while the fault is in force", || {
            let records = self.records();
            let Some(last) = records.iter().rposition(|r| matches!(r.event, Event::Injected { .. })) else {
                return false;
            };
            let since = records[last].at;
            let asked = |r: &&Record| matches!(&r.event, Event::Sample(s) if s.probe == probe && s.started >= since);
            records[last..].iter().filter(asked).count() >= count
        });
    }

    /// Its injectors that live.
    pub fn injectors(&self) -> Vec<ProcessId> {
        let mine = |p: &ProcessInfo| p.ppid == self.child.id();
        self.toprope.processes("injector").into_iter().filter(mine).map(|p| p.id).collect()
    }

    /// The guards of its injectors that live.
    pub fn guards(&self) -> Vec<ProcessId> {
        let injectors = self.injectors();
        let mine = |p: &ProcessInfo| injectors.iter().any(|injector| injector.pid() == p.ppid);
        self.toprope.processes("guard").into_iter().filter(mine).map(|p| p.id).collect()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// It does not, within [`PATIENCE`].
    #[track_caller]
    pub fn wait(self) -> Done {
        self.wait_for(PATIENCE)
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// It does not in this time.
    #[track_caller]
    pub fn wait_for(mut self, time: Duration) -> Done {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return self.done(status);
            }
            if Instant::now() > deadline {
                let so_far = self.done(ExitStatus::from_raw(0));
                panic!("it did not end within {time:?}: {so_far}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn done(&self, status: ExitStatus) -> Done {
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Done {
            code: status.code(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Asserts how it ended.
    ///
    /// # Panics
    /// It ended otherwise, or panicked.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit {:?} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.took, self.stdout, self.stderr
        )
    }
}
