//! Whether paused processes stay paused.

use std::time::Duration;

use futures::FutureExt;
use toprope_engine::fault::FaultError;
use toprope_model::step::{Effect, Measure};
use toprope_os::Error;
use toprope_os::process::{Pidfd, State, thread_states};

use crate::targeted::{Named, list, not_ours};

/// Processes that are watched from the moment at which they were paused.
pub(super) struct Watch(Vec<Watched>);

struct Watched {
    named: Named,
    pidfd: Pidfd,
    /// What it had used of the cores when the watch began.
    used_before: Duration,
}

/// A process's threads: how many there are, and how many of them run no more.
fn threads(named: &Named) -> Result<Option<(usize, usize)>, FaultError> {
    let states = match thread_states(&named.id) {
        Ok(states) => states,
        Err(Error::ProcessGone(_)) => return Ok(None),
        Err(e) => return Err(not_ours(named, e)),
    };
    let stopped = |s: &&State| matches!(s, State::Stopped | State::Traced | State::Zombie | State::Dead);
    Ok(Some((states.len(), states.iter().filter(stopped).count())))
}

impl Watch {
    pub(super) fn begin(held: Vec<(Named, Pidfd)>) -> Result<Self, FaultError> {
        let begin = |(named, pidfd): (Named, Pidfd)| {
            let used_before = named.now()?.map(|p| p.cpu_time).unwrap_or_default();
            Ok(Watched { named, pidfd, used_before })
        };
        held.into_iter().map(begin).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn effect(&self) -> Result<Effect, FaultError> {
        let (mut all, mut stopped, mut paused) = (0, 0, 0);
        let mut used = Duration::ZERO;
        let (mut running, mut gone) = (Vec::new(), Vec::new());
        for Watched { named, used_before, .. } in &self.0 {
            let (Some(now), Some((its, its_stopped))) = (named.now()?, threads(named)?) else {
                gone.push(named.clone());
                continue;
            };
            used += now.cpu_time.saturating_sub(*used_before);
            all += its;
            stopped += its_stopped;
            match its == its_stopped {
                true => paused += 1,
                false => running.push(named.clone()),
            }
        }
        let mut notes = Vec::new();
        if !running.is_empty() {
            notes.push(format!("running: {}", list(&running)));
        }
        if !gone.is_empty() {
            notes.push(format!("ended while paused: {}", list(&gone)));
        }
        let measure = |name: &str, unit: &str, asked, measured, samples| Measure {
            name: name.into(),
            unit: unit.into(),
            asked: Some(asked),
            measured,
            samples,
            spread: None,
        };
        let share = if all == 0 { 0.0 } else { stopped as f64 / all as f64 };
        Ok(Effect {
            // Those that ended were paused until then; whether anything is paused is what counts.
            took: Some(running.is_empty() && paused > 0),
            reached: Some(paused as f64 / self.0.len() as f64),
            measures: vec![
                measure("threads stopped", "%", 100.0, share * 100.0, all as u64),
                measure("time used on cores", "ms", 0.0, used.as_secs_f64() * 1e3, 0),
            ],
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Whether every thread of all that live is stopped.
    pub(super) fn all_stopped(&self) -> Result<bool, FaultError> {
        for watched in &self.0 {
            if threads(&watched.named)?.is_some_and(|(all, stopped)| all != stopped) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns when all have ended.
    pub(super) async fn all_ended(&self) -> String {
        let ends = self.0.iter().map(|w| w.pidfd.exited());
        if futures::future::try_join_all(ends).await.is_err() {
            // It cannot be seen; the effect will tell.
            std::future::pending::<()>().boxed().await;
        }
        let names: Vec<Named> = self.targets().cloned().collect();
        format!("ended while paused: {}", list(&names))
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Named> {
        self.0.iter().map(|w| &w.named)
    }
}
