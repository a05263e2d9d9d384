//! A host of a round's own, made of namespaces: whatever a fault or a bug does, it does it in here.
//!
//! Three processes make it. The *wall* takes itself into new namespaces and control groups, and mounts what is private
//! to them. Its child, the *agent*, is process 1 of the first pid namespace and plays the round; with it everything
//! ends. Within, the *inside* is a second pid namespace, whose process 1 only reaps: there Toprope and its targets run,
//! so that its death can be one of the deaths of a round, seen by an agent that survives it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal};
use toprope_os::process::{Pidfd, ProcessInfo};

use super::snapshot::Place;

/// Where the sandbox's own things are, within it.
pub(crate) const ROOT: &str = "/run/proof";
/// Toprope's state.
pub(crate) const HOME: &str = "/run/proof/home";
/// Where runs are started, and where targets keep what they have.
pub(crate) const WORK: &str = "/run/proof/work";
/// What the harness and its targets say, which does not count.
pub(crate) const OUT: &str = "/run/proof/out";
/// A file system that may be filled.
pub(crate) const DISK: &str = "/run/proof/disk";
/// This program.
pub(crate) const XTASK: &str = "/run/proof/bin/xtask";
/// The control group that a run is started in, where it may be killed as a whole.
pub(crate) const GROUP: &str = "/sys/fs/cgroup/unified/job";
/// A control group of the first version for a target.
const FREEZER: &str = "/sys/fs/cgroup/freezer/service";
/// The processes of the whole machine.
const ALL_PROCESSES: &str = "/run/proof/host-proc";
/// How large the file system is that may be filled.
const DISK_SIZE: &str = "size=192m";

/// The hierarchies of control groups that the sandbox has a part of, by the names of their directories; `unified` is
/// the second version's.
const HIERARCHIES: [&str; 7] = ["unified", "freezer", "memory", "cpu", "cpuacct", "blkio", "pids"];

/// Enters the sandbox and plays the agent in it; returns how that ended. To be called by a process with one thread,
/// whose name in control groups is `group`. With `host_pids`, no pid namespace is made.
///
/// # Errors
/// What this machine lacks for it.
pub(crate) fn wall(group: &str, toprope: &Path, agent: &[String], host_pids: bool) -> io::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let hierarchies = join_groups(group);
    let pids = if host_pids { CloneFlags::empty() } else { CloneFlags::CLONE_NEWPID };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all | pids)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // Held before anything is mounted over the directories that they may be in, and as files of this namespace's mounts.
    let (toprope, xtask) = (File::open(toprope)?, File::open(fs::read_link("/proc/self/exe")?)?);
    for directory in ["/run", "/tmp", "/var/tmp", "/dev/shm"] {
        mount_new("tmpfs", "proof", Path::new(directory), "mode=1777")?;
    }
    for directory in ["bin", "etc", "home", "work", "disk", "host-proc", "out"] {
        fs::create_dir_all(Path::new(ROOT).join(directory))?;
    }
    // Where a host is halted. Toprope makes it once, when root first runs it, and it stays like the directory of its runs.
    let halt = Path::new("/run/toprope/halt");
    fs::create_dir_all(halt)?;
    fs::set_permissions(halt, fs::Permissions::from_mode(0o1777))?;
    mount_new("tmpfs", "proof", Path::new(HOME), "mode=0700")?;
    mount_new("tmpfs", "proof", Path::new(DISK), DISK_SIZE)?;
    bind(Path::new("/proc"), Path::new(ALL_PROCESSES))?;
    let binary = toprope_inside()?;
    binary.parent().map_or(Ok(()), fs::create_dir_all)?;
    bind_file(&toprope, &binary)?;
    bind_file(&xtask, Path::new(XTASK))?;
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        own_copy(Path::new(file))?;
    }
    mount_new("sysfs", "sysfs", Path::new("/sys"), "")?;
    mount_groups(&hierarchies)?;
    toprope_os::namespace::loopback_up().map_err(io::Error::other)?;
    // Whoever loses its parent comes here, where there is no process 1 of its own.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let agent = Command::new(XTASK).args(agent).stdin(Stdio::null()).spawn()?;
    let agent = i32::try_from(agent.id()).map_err(io::Error::other)?;
    loop {
        match rustix::process::wait(WaitOptions::empty())? {
            Some((pid, status)) if pid.as_raw_nonzero().get() == agent => {
                return Ok(if status.exit_status() == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            _ => {}
        }
    }
}

/// The binary under test, as the sandbox knows it. Toprope tells its own processes by the path of their program, which in
/// no two sandboxes is the same.
///
/// # Errors
/// `/proc` is not mounted.
pub(crate) fn toprope_inside() -> io::Result<PathBuf> {
    let namespace = fs::read_link("/proc/self/ns/cgroup")?;
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(Path::new(ROOT).join("bin").join(number).join("toprope"))
}

/// Makes the agent's view of processes its own, and what is mounted inside seen here.
///
/// # Errors
/// As of mount(2).
pub(crate) fn enter_as_agent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if std::process::id() == 1 {
        mount_new("proc", "proc", Path::new("/proc"), "")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)?;
        mount(None::<&str>, "/proc", None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    }
    for group in [GROUP, FREEZER] {
        // A machine without this version has no such directory.
        if Path::new(group).parent().is_some_and(Path::is_dir) {
            fs::create_dir_all(group)?;
        }
    }
    Ok(())
}

/// What of the sandbox is looked at.
pub(crate) fn place() -> Place {
    let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
    Place {
        files: paths(&["/run", "/tmp", "/var/tmp", "/dev/shm", "/etc/hosts", "/etc/resolv.conf", "/sys/fs/bpf"]),
        // Toprope's own state is looked at by itself: what is still to be undone counts, logs do not.
        except: paths(&[
            "/run/proof/bin",
            "/run/proof/host-proc",
            HOME,
            "/run/proof/work/run.yaml",
            "/run/proof/work/again.yaml",
            OUT,
        ]),
        filesystems: paths(&[DISK, "/tmp", "/var/tmp", "/dev/shm"]),
        inside: None,
        all_processes: ALL_PROCESSES.into(),
        own: [Some(std::process::id()), Some(std::os::unix::process::parent_id())].into_iter().flatten().collect(),
    }
}

/// Takes this process into control groups of its own; returns in which hierarchies there is one.
fn join_groups(name: &str) -> Vec<&'static str> {
    let join = |hierarchy: &&str| {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(name);
        let joined = fs::create_dir(&group).and_then(|()| fs::write(group.join("cgroup.procs"), "0"));
        // What is not mounted here, or is somebody else's, is not part of the sandbox.
        joined.is_ok()
    };
    HIERARCHIES.into_iter().filter(join).collect()
}

/// Ends what is left of a sandbox, and removes its control groups.
pub(crate) fn remove_groups(name: &str) {
    // No error: a machine without this version has none, and then the pid namespace ended them.
    let _ = fs::write(format!("/sys/fs/cgroup/unified/{name}/cgroup.kill"), "1");
    fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            }
        }
        let until = Instant::now() + Duration::from_secs(2);
        // The last process may still be on its way out.
        while fs::remove_dir(group).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for hierarchy in HIERARCHIES {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(name);
        if group.is_dir() {
            remove(&group);
        }
    }
}

fn mount_groups(hierarchies: &[&str]) -> io::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    mount_new("tmpfs", "proof", root, "mode=0755")?;
    for hierarchy in hierarchies {
        let directory = root.join(hierarchy);
        fs::create_dir(&directory)?;
        let (kind, options) = if *hierarchy == "unified" { ("cgroup2", "") } else { ("cgroup", *hierarchy) };
        mount_new(kind, "proof", &directory, options)?;
    }
    mount_new("bpf", "bpf", Path::new("/sys/fs/bpf"), "")
}

fn mount_new(kind: &str, source: &str, at: &Path, options: &str) -> io::Result<()> {
    mount(Some(source), at, Some(kind), MsFlags::empty(), Some(options))
        .map_err(|e| io::Error::other(format!("cannot mount {kind} on {}: {e}", at.display())))
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| io::Error::other(format!("cannot mount {} on {}: {e}", from.display(), to.display())))
}

fn bind_file(file: &File, to: &Path) -> io::Result<()> {
    File::create(to)?;
    bind(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), to)
}

/// Puts a copy in the place of a file, so that whoever writes to it writes to the copy.
fn own_copy(file: &Path) -> io::Result<()> {
    // A link that leads to what is now under a mount of ours, or no file at all: nothing to protect.
    let Ok(text) = fs::read(file) else { return Ok(()) };
    let copy = Path::new(ROOT).join("etc").join(file.file_name().unwrap_or_default());
    fs::write(&copy, text)?;
    bind(&copy, file)
}

/// Where Toprope and its targets run: a pid namespace, or, for what works in the host's alone, no other place at all.
#[derive(Debug)]
pub(crate) struct Inside(Option<Separate>);

#[derive(Debug)]
struct Separate {
    holder: Child,
    /// Its process 1, by the agent's numbers.
    init: u32,
}

impl Inside {
    /// Makes it.
    ///
    /// # Errors
    /// unshare(1) is missing or refuses.
    pub(crate) fn start(host_pids: bool) -> io::Result<Self> {
        if host_pids {
            return Ok(Self(None));
        }
        let mut command = Command::new("unshare");
        command.args(["--pid", "--mount", "--propagation", "unchanged", "--fork", "--kill-child", "--mount-proc"]);
        let holder = command.args([XTASK, "proof", "init"]).stdin(Stdio::null()).spawn()?;
        // Once it executes this program, its /proc is mounted.
        match carried(holder.id(), |program| program.starts_with(XTASK)) {
            Some(init) => Ok(Self(Some(Separate { holder, init }))),
            None => Err(io::Error::other("the pid namespace inside does not begin")),
        }
    }

    /// Whether it is a pid namespace of its own.
    pub(crate) fn is_separate(&self) -> bool {
        self.0.is_some()
    }

    /// Its process 1.
    pub(crate) fn init(&self) -> Option<u32> {
        self.0.as_ref().map(|separate| separate.init)
    }

    /// The processes that only make it.
    pub(crate) fn makers(&self) -> Vec<u32> {
        self.0.iter().flat_map(|separate| [separate.init, separate.holder.id()]).collect()
    }

    /// A program that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = match &self.0 {
            Some(Separate { init, .. }) => {
                let mut command = Command::new("nsenter");
                command.args([
                    "--target",
                    &init.to_string(),
                    "--pid",
                    "--mount",
                    &format!("--wdns={WORK}"),
                    "--",
                    program,
                ]);
                command
            }
            None => {
                let mut command = Command::new(program);
                command.current_dir(WORK);
                command
            }
        };
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The number of a program that was started inside, by that of the process that the agent started for it.
    pub(crate) fn carried_by(&self, carrier: u32) -> Option<u32> {
        if self.is_separate() { carried(carrier, |program| program != "nsenter") } else { Some(carrier) }
    }

    /// Ends everything inside, as the end of a container does.
    pub(crate) fn kill(&mut self) {
        let Some(Separate { holder, init }) = &mut self.0 else { return };
        if let Some(pid) = i32::try_from(*init).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // nsenter(1) stops itself when its child is stopped. It must go on to reap that, or the namespace does not end.
        for carrier in toprope_os::process::descendants(std::process::id()).unwrap_or_default() {
            let is_carrier = ProcessInfo::of(carrier.pid()).is_ok_and(|process| process.name == "nsenter");
            if is_carrier && let Ok(carrier) = Pidfd::open(&carrier) {
                let _ = carrier.signal(Signal::CONT);
            }
        }
        let _ = holder.wait();
    }
}

/// The child of a process, once it executes what it is to.
fn carried(carrier: u32, is_it: impl Fn(&str) -> bool) -> Option<u32> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let children = toprope_os::process::descendants(carrier).unwrap_or_default();
        let program = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        let executes = |pid: &u32| {
            let program = program(*pid);
            !program.is_empty() && is_it(&program)
        };
        if let Some(pid) = children.iter().map(|id| id.pid()).find(executes) {
            return Some(pid);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Process 1 inside: reaps, and nothing else.
pub(crate) fn init() -> ExitCode {
    loop {
        // Without children there is nothing to wait for yet.
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A process's number inside, by the agent's number: the last field of `NSpid`.
///
/// # Errors
/// It has ended.
pub(crate) fn number_inside(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = line.and_then(|line| line.split_whitespace().last()).and_then(|pid| pid.parse().ok());
    last.ok_or_else(|| io::Error::other(format!("process {pid} has no number inside")))
}
