//! Pausing by SIGSTOP, which lasts until SIGCONT, whatever becomes of us: so it is undone from the journal.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Draining, FaultError, Injection};
use toprope_model::step::Effect;
use toprope_os::Error;
use toprope_os::process::{Signal, State, thread_states};

use super::watch::Watch;
use super::{ended, must_run};
use crate::targeted::{Named, not_ours};

/// How long threads may take to stop, or to go on: one that waits for a disk stops when the disk answers.
const SETTLE: Duration = Duration::from_secs(5);

/// Processes that were stopped by signal.
pub(super) struct Stopped(Watch);

impl Stopped {
    pub(super) async fn begin(targets: Vec<Named>) -> Result<Self, FaultError> {
        let mut held = Vec::new();
        for named in targets {
            must_run(&named)?;
            let pidfd = named.open()?.ok_or_else(|| ended(&named))?;
            held.push((named, pidfd));
        }
        for (named, pidfd) in &held {
            pidfd.signal(Signal::STOP).map_err(|e| not_ours(named, e))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toprope_engine::fault::Fault;
    use toprope_model::step::Undo;

    use super::super::ProcessPause;
    use super::*;
    use crate::testing::{PATIENCE, Victim, eventually, host, params, planned};

    /// A process that counts in a file's length, so that its pace is seen from outside.
    fn busy(directory: &tempfile::TempDir) -> (Victim, impl Fn() -> u64 + use<>) {
        let file = directory.path().join("count");
        let script = format!("echo ready; while :; do printf x >> {}; sleep 0.01; done", file.display());
        (Victim::script(&script), move || std::fs::metadata(&file).map_or(0, |m| m.len()))
    }

    fn states(victim: &Victim) -> Vec<State> {
        thread_states(&victim.id()).expect("it lives")
    }

    #[tokio::test]
    async fn a_paused_process_does_nothing_and_then_goes_on() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (victim, count) = busy(&directory);
        eventually("it works", || count() > 2);
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let (plan, step) = planned(&ProcessPause, &params, &host()).await;
        assert!(matches!(step.undo, Undo::Restore(_)));
        assert_eq!(plan.steps[0].claims, [format!("process {}", victim.pid())]);
        let mut injection = ProcessPause.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        eventually("it stops", || states(&victim) == [State::Stopped]);
        let before = count();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(count() <= before + 1, "what was begun may end");
        let effect = injection.observe().await.expect("it lives");
        assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
        assert_eq!(effect.measures[0].measured, 100.0);
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        let before = count();
        eventually("it works again", || count() > before + 2);
    }

    #[tokio::test]
    async fn it_is_undone_from_every_state_and_only_for_those_who_were_meant() {
        let mut victim = Victim::sleeping();
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let (_, step) = planned(&ProcessPause, &params, &host()).await;
        for _ in 0..2 {
            ProcessPause.undo(&step, &host()).await.expect("never applied, and undone already");
        }
        assert!(!states(&victim).contains(&State::Stopped));
        let injection = ProcessPause.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        eventually("it stops", || states(&victim) == [State::Stopped]);
        drop(injection); // as when the injector is killed
        assert_eq!(states(&victim), [State::Stopped], "nobody undoes it but the journal");
        let mut another = step.clone();
        let start = &mut another.data["targets"][0]["id"]["start_time"];
        *start = json!(start.as_u64().expect("clock ticks") - 1);
        ProcessPause.undo(&another, &host()).await.expect("that one has ended");
        assert_eq!(states(&victim), [State::Stopped], "a reused number is left alone");
        let notes = ProcessPause.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(notes[0].ends_with("goes on") && !states(&victim).contains(&State::Stopped), "{notes:?}");
        victim.end();
        let notes = ProcessPause.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(notes[0].ends_with("has ended"), "{notes:?}");
    }

    #[tokio::test]
    async fn what_somebody_else_stopped_is_refused() {
        let victim = Victim::sleeping();
        victim.signal(Signal::STOP);
        eventually("it stops", || states(&victim) == [State::Stopped]);
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let refused = ProcessPause.plan(&params, &host()).await.expect_err("it is stopped");
        assert!(refused.message.contains("stopped already") && refused.help.is_some(), "{refused}");
        assert_eq!(states(&victim), [State::Stopped]);
    }

    #[tokio::test]
    async fn a_pause_that_somebody_ends_did_not_hold() {
        let victim = Victim::sleeping();
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let (_, step) = planned(&ProcessPause, &params, &host()).await;
        let mut injection = ProcessPause.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        eventually("it stops", || states(&victim) == [State::Stopped]);
        victim.signal(Signal::CONT);
        eventually("it goes on", || states(&victim) != [State::Stopped]);
        let effect = injection.observe().await.expect("it lives");
        assert_eq!(effect.took, Some(false));
        assert!(effect.note.expect("it says who").starts_with("running: sleep"));
    }

    #[tokio::test]
    async fn the_end_of_all_targets_is_the_end_of_the_fault() {
        let victim = Victim::sleeping();
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let (_, step) = planned(&ProcessPause, &params, &host()).await;
        let mut injection = ProcessPause.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        let early = tokio::time::timeout(Duration::from_millis(50), injection.ended()).await;
        assert!(early.is_err(), "it lives");
        victim.signal(Signal::KILL);
        let why = tokio::time::timeout(PATIENCE, injection.ended()).await.expect("it was killed");
        assert!(why.contains(&format!("pid {}", victim.pid())), "{why}");
        injection.release(Duration::ZERO).await.expect("there is nothing left to let go");
    }
}
