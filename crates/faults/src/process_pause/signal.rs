//! Pausing by SIGSTOP, which lasts until SIGCONT, whatever becomes of us: so it is undone from the journal.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Draining, FaultError, Injection};
use toprope_model::step::Effect;
use toprope_os::Error;
use toprope_os::process::{Pidfd, Signal, State, thread_states};

use super::watch::Watch;
use crate::targeted::{Named, not_ours};

/// How long threads may take to stop, or to go on: one that waits for a disk stops when the disk answers.
const SETTLE: Duration = Duration::from_secs(5);

/// Processes that were stopped by signal.
pub(super) struct Stopped(Watch);

impl Stopped {
    pub(super) async fn begin(held: Vec<(Named, Pidfd)>) -> Result<Self, FaultError> {
        for (named, pidfd) in &held {
            match pidfd.signal(Signal::STOP) {
                Ok(()) | Err(Error::ProcessGone(_)) => {}
                Err(e) => return Err(not_ours(named, e)),
            }
        }
        let watch = Watch::begin(held)?;
        // In force means that it is seen to be, as far as that comes soon; the rest is for `observe` to tell.
        let patience = Instant::now() + Duration::from_millis(500);
        while !watch.all_stopped()? && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Self(watch))
    }
}

impl Injection for Stopped {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async { self.0.effect() }.boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        self.0.all_ended().boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move {
            let targets: Vec<Named> = self.0.targets().cloned().collect();
            go_on(&targets).await.map(|_| None)
        }
        .boxed()
    }
}

/// Lets processes go on, whatever state they are in, and waits until they do. All are told before any is waited for.
pub(super) async fn go_on(targets: &[Named]) -> Result<Vec<String>, FaultError> {
    let mut failed: Option<FaultError> = None;
    let mut told = Vec::new();
    let mut notes = Vec::new();
    for named in targets {
        // Also where it runs: a thread that waits for a disk may have the stop still before it, and SIGCONT takes it
        // away. To a process that runs it says nothing.
        match named.open()?.map(|pidfd| pidfd.signal(Signal::CONT)) {
            None | Some(Err(Error::ProcessGone(_))) => notes.push(format!("{named} has ended")),
            Some(Ok(())) => told.push(named),
            Some(Err(e)) => failed = Some(not_ours(named, e).help(by_hand(named))),
        }
    }
    let deadline = Instant::now() + SETTLE;
    for named in told {
        loop {
            let stopped = match thread_states(&named.id) {
                Ok(states) => states.contains(&State::Stopped),
                Err(Error::ProcessGone(_)) => false,
                Err(e) => return Err(not_ours(named, e)),
            };
            if !stopped {
                notes.push(format!("{named} goes on"));
                break;
            }
            if Instant::now() > deadline {
                failed = Some(FaultError::new(format!("{named} is still stopped")).help(by_hand(named)));
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    failed.map_or(Ok(notes), Err)
}

fn by_hand(named: &Named) -> String {
    format!("as root: kill -CONT {}", named.id.pid())
}
