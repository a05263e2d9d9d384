//! The thread that keeps the shop's processes: it starts them, notices when they end, starts them again, ends them.
//!
//! One thread does all of it, and lives as long as the shop, because the kernel's "end with your parent" means the
//! parent's *thread* that started the process: started from a thread of a pool, a service would end with that thread.

use std::fs::File;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::shop::log_path;
use crate::{Addresses, Error, Launch, Output, Service};

/// How often processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a supervised service stays ended.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// How long a process may take to end when it is asked to; its own drain is shorter.
const GRACE: Duration = Duration::from_millis(1500);

/// What became of a service's process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// It runs, with this process id.
    Running(u32),
    /// It has ended.
    Ended(ExitStatus),
}

/// The order to end a process and start it again.
struct Restart {
    service: Service,
    done: SyncSender<Result<(), Error>>,
}

type States = Arc<Mutex<[State; 5]>>;

/// The handle of the thread. Dropping it ends the processes and waits for that.
#[derive(Debug)]
pub(crate) struct Keeper {
    states: States,
    supervised: Arc<AtomicBool>,
    /// Taken when the keeper is dropped: its end is the order to end.
    restarts: Option<SyncSender<Restart>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread and, from it, all five processes.
    pub(crate) fn start(launch: Launch, addresses: Addresses) -> Result<Self, Error> {
        let supervised = Arc::new(AtomicBool::new(false));
        let (restarts, orders) = mpsc::sync_channel(0);
        let (started, outcome) = mpsc::sync_channel(0);
        let thread = thread::Builder::new()
            .name("shop-keeper".into())
            .spawn({
                let supervised = supervised.clone();
                move || match Kept::start(launch, addresses) {
                    // A send fails when nobody waits for it any more; then the processes end with `Kept`.
                    Ok(kept) => {
                        if started.send(Ok(kept.states.clone())).is_ok() {
                            kept.keep(&orders, &supervised);
                        }
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(|source| Error::Os { what: "start a thread", source })?;
        let states = outcome.recv().map_err(|_| Error::KeeperGone)??;
        Ok(Self { states, supervised, restarts: Some(restarts), thread: Some(thread) })
    }

    pub(crate) fn state(&self, service: Service) -> State {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)[service as usize]
    }

    pub(crate) fn supervise(&self, on: bool) {
        self.supervised.store(on, Ordering::Relaxed);
    }

    pub(crate) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::Relaxed)
    }

    /// Ends a process and starts it again; returns when it is started.
    pub(crate) fn restart(&self, service: Service) -> Result<(), Error> {
        let (done, outcome) = mpsc::sync_channel(1);
        let restarts = self.restarts.as_ref().ok_or(Error::KeeperGone)?;
        restarts.send(Restart { service, done }).map_err(|_| Error::KeeperGone)?;
        outcome.recv().map_err(|_| Error::KeeperGone)?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.restarts = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, the kernel ended the processes with it.
            let _ = thread.join();
        }
    }
}

/// The thread's own: the processes, which end with it.
struct Kept {
    launch: Launch,
    addresses: Addresses,
    children: Vec<(Service, Child)>,
    states: States,
    ended_at: [Option<Instant>; 5],
}

impl Kept {
    fn start(launch: Launch, addresses: Addresses) -> Result<Self, Error> {
        let mut started = Started(Vec::new());
        for service in Service::ALL {
            started.0.push((service, spawn(&launch, &addresses, service)?));
        }
        let children = std::mem::take(&mut started.0);
        let states = std::array::from_fn(|n| State::Running(children[n].1.id()));
        Ok(Self { launch, addresses, children, states: Arc::new(Mutex::new(states)), ended_at: [None; 5] })
    }

    fn keep(mut self, orders: &Receiver<Restart>, supervised: &AtomicBool) {
        loop {
            match orders.recv_timeout(LOOK_EVERY) {
                Ok(Restart { service, done }) => {
                    end(&mut [&mut self.children[service as usize].1]);
                    // Whoever ordered it may have gone.
                    let _ = done.send(self.respawn(service));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look(supervised.load(Ordering::Relaxed));
        }
    }

    /// Notes who has ended, and starts again whom it is time to.
    fn look(&mut self, supervised: bool) {
        for service in Service::ALL {
            let n = service as usize;
            // A child that cannot be waited for is one that is not ours any more; there is nothing to note.
            let Ok(Some(status)) = self.children[n].1.try_wait() else { continue };
            let ended_at = *self.ended_at[n].get_or_insert_with(Instant::now);
            self.set_state(service, State::Ended(status));
            if supervised
                && ended_at.elapsed() >= RESTART_AFTER
                && let Err(error) = self.respawn(service)
            {
                crate::serve::say(service, format_args!("not started again: {error}"));
                self.ended_at[n] = None;
            }
        }
    }

    fn respawn(&mut self, service: Service) -> Result<(), Error> {
        let child = spawn(&self.launch, &self.addresses, service)?;
        self.set_state(service, State::Running(child.id()));
        self.ended_at[service as usize] = None;
        self.children[service as usize].1 = child;
        Ok(())
    }

    fn set_state(&self, service: Service, state: State) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)[service as usize] = state;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        end(&mut self.children.iter_mut().map(|(_, child)| child).collect::<Vec<_>>());
    }
}

/// Processes of a shop that is not whole yet; they end when it never becomes so.
struct Started(Vec<(Service, Child)>);

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.0.iter_mut().map(|(_, child)| child).collect::<Vec<_>>());
    }
}

fn spawn(launch: &Launch, addresses: &Addresses, service: Service) -> Result<Child, Error> {
    let mut command = Command::new(&launch.exe);
    command
        .args(&launch.args_prefix)
        .args([service.name(), "--listen", &addresses.of(service).to_string()])
        .arg("--data")
        .arg(&launch.data_dir)
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null());
    if launch.fixed {
        command.arg("--fixed");
    }
    if service == Service::Gateway {
        for (upstream, address) in &launch.via {
            command.args([format!("--{upstream}"), address.to_string()]);
        }
    }
    // Ctrl-C is for whoever holds the shop, who then ends it; the services must not end by themselves before.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let spawned = (|| -> io::Result<Child> {
        if launch.output == Output::Logs {
            let log = File::options().create(true).append(true).open(log_path(&launch.data_dir, service))?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        command.spawn()
    })();
    spawned.map_err(|source| Error::Spawn { service, exe: launch.exe.clone(), source })
}

/// Ends processes: SIGTERM, and after a while SIGKILL, which also ends a process that is stopped.
fn end(children: &mut [&mut Child]) {
    for child in children.iter_mut() {
        // Not waited for yet, so the pid is still its own.
        if let Ok(None) = child.try_wait()
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            // It fails when it has just ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let deadline = Instant::now() + GRACE;
    for child in children {
        while let Ok(None) = child.try_wait() {
            if Instant::now() >= deadline {
                // As above; and `wait` returns for certain after it.
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
