//! Pausing as a debugger does: what is held goes on when we end, because the kernel lets go of it.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use toprope_engine::fault::{Draining, FaultError, Injection};
use toprope_model::step::Effect;
use toprope_os::Error;
use toprope_os::process::{Pidfd, State, thread_states, tracer};
use toprope_os::ptrace::Stopped;

use super::ended;
use super::watch::Watch;
use crate::targeted::{Named, not_ours};

/// How long the kernel may take to let go; measured are 3 ms.
pub(super) const LET_GO_WITHIN: Duration = Duration::from_secs(5);

/// Processes that are held.
pub(super) struct Held {
    watch: Watch,
    /// Dropping them lets them go.
    stopped: Vec<Stopped>,
}

impl Held {
    pub(super) async fn begin(targets: Vec<(Named, Pidfd)>) -> Result<Self, FaultError> {
        let names: Vec<Named> = targets.iter().map(|(named, _)| named.clone()).collect();
        let stopped = beside(move || hold(&names)).await?;
        Ok(Self { watch: Watch::begin(targets)?, stopped })
    }
}

fn hold(targets: &[Named]) -> Result<Vec<Stopped>, FaultError> {
    let mut stopped = Vec::new();
    for named in targets {
        match Stopped::seize(&named.id) {
            Ok(one) => stopped.push(one),
            Err(Error::ProcessGone(_)) => {}
            Err(e) => return Err(not_ours(named, e)),
        }
    }
    if stopped.is_empty() { Err(ended(targets)) } else { Ok(stopped) }
}

/// Runs what blocks for some milliseconds beside this task.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FaultError> + Send + 'static,
) -> Result<T, FaultError> {
    let (tell, told) = oneshot::channel();
    // Where nobody waits any more, what was held is dropped with the answer, and goes on.
    let start = std::thread::Builder::new().name("holder".into()).spawn(move || drop(tell.send(work())));
    start.map_err(|e| FaultError::because("no thread can be started", e))?;
    told.await.map_err(|_| FaultError::new("the thread that holds has failed"))?
}

impl Injection for Held {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async { self.watch.effect() }.boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        self.watch.all_ended().boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move {
            let Self { stopped, .. } = *self;
            beside(move || {
                drop(stopped);
                Ok(None)
            })
            .await
        }
        .boxed()
    }
}

/// Waits until nobody is held any more: the tracer has ended by now, and the kernel lets go.
pub(super) async fn let_go(targets: &[Named], within: Duration) -> Result<Vec<String>, FaultError> {
    let deadline = Instant::now() + within;
    let mut notes = Vec::new();
    for named in targets {
        loop {
            let held = match thread_states(&named.id) {
                Ok(states) => states.contains(&State::Traced),
                Err(Error::ProcessGone(_)) => false,
                Err(e) => return Err(not_ours(named, e)),
            };
            if !held {
                let goes_on = named.now()?.is_some();
                notes.push(format!("{named} {}", if goes_on { "goes on" } else { "has ended" }));
                break;
            }
            if Instant::now() > deadline {
                let by = match tracer(&named.id) {
                    Ok(Some(tracer)) => {
                        format!("by process {tracer}: if that is a Toprope, end it; a debugger may go on")
                    }
                    _ => "by nobody who can be seen from here".into(),
                };
                return Err(FaultError::new(format!("{named} is still held")).help(format!("it is held {by}")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(notes)
}
