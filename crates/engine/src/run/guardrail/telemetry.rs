//! Whether anything is known of a probe: one that fails itself, or gives no answer, guards nothing.

use std::time::Duration;

use toprope_model::Dur;
use toprope_model::event::Sample;
use toprope_model::experiment::{BROKEN_IN_A_ROW, LostTelemetry, ProbeItem, When};

use super::Watched;
use crate::run::recorder::Stage;

/// What is known of one probe.
#[derive(Debug)]
pub(super) struct Telemetry {
    watched: Watched,
    /// So many samples in a row in which it failed itself are a loss.
    broken: u32,
    /// So long without an answer, good or bad, is one.
    silence: Duration,
    initial_delay: u64,
    /// Takes so many samples and no more.
    samples: Option<u32>,
    broken_in_a_row: u32,
    /// When the trial began, and since when an answer is waited for, in nanoseconds since the run began.
    trial: u64,
    since: u64,
}

impl Telemetry {
    pub(super) fn new(watched: &Watched, asked: &ProbeItem, said: Option<&LostTelemetry>, silence: Duration) -> Self {
        Self {
            watched: watched.clone(),
            broken: said.map_or(BROKEN_IN_A_ROW, |g| g.samples),
            silence,
            initial_delay: nanos(asked.common.initial_delay.0),
            samples: asked.common.samples,
            broken_in_a_row: 0,
            trial: 0,
            since: 0,
        }
    }

    pub(super) fn is_of(&self, probe: u32) -> bool {
        self.watched.probe == probe
    }

    pub(super) fn in_words(&self) -> String {
        format!(
            "{} itself failed {} times in a row, or gave no answer for {}",
            self.watched.name,
            self.broken,
            Dur(self.silence)
        )
    }

    pub(super) fn reset(&mut self, now: u64) {
        (self.broken_in_a_row, self.trial, self.since) = (0, now, now);
    }

    /// Faults begin to be injected.
    pub(super) fn begin(&mut self, now: u64) {
        self.broken_in_a_row = 0;
        self.since = now.max(self.trial.saturating_add(self.initial_delay));
    }

    /// Takes note of an answer; says why to stop, if the probe failed too often.
    pub(super) fn heard(&mut self, sample: &Sample, at: u64) -> Option<String> {
        if !sample.broken {
            (self.broken_in_a_row, self.since) = (0, self.since.max(at));
            return None;
        }
        self.broken_in_a_row += 1;
        (self.broken_in_a_row >= self.broken).then(|| {
            let why = sample.why.as_deref().map(|why| format!(": {}", crate::verdict::words::cut(why)));
            format!(
                "nothing is known of {} any more: the probe itself failed {} times in a row{}",
                self.watched.name,
                self.broken_in_a_row,
                why.unwrap_or_default()
            )
        })
    }

    /// Says why to stop if there is no answer for too long.
    pub(super) fn listen(&mut self, now: u64, stage: Stage, taken: &[u32]) -> Option<String> {
        let taken = taken.get(self.watched.probe as usize).copied().unwrap_or_default();
        let asked = match self.watched.when {
            // One that takes a number of samples waits until all faults that begin together are in force.
            When::At => stage.in_force > 0 && (self.samples.is_none() || taken > 0),
            _ => true,
        };
        if !asked || self.samples.is_some_and(|n| taken >= n) {
            self.since = self.since.max(now); // It is not asked now.
            return None;
        }
        (now.saturating_sub(self.since) > nanos(self.silence)).then(|| {
            let (name, silence) = (&self.watched.name, Dur(self.silence));
            format!("nothing is known of {name} any more: it gave no answer for {silence}")
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
