//! Linearises all that happens in a run: one log, one order, one clock; guardrails decide here.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use toprope_model::event::{Event, Level, Phase, Record, Sample};

use super::StopSwitch;
use super::guardrail::Guardrails;
use crate::log::{LogError, LogWriter};

/// Where the run is; samplers follow it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    pub(crate) phase: Phase,
    /// Faults in force.
    pub(crate) in_force: u32,
    /// When the first fault of this trial was in force, in nanoseconds since the run began.
    pub(crate) first_injection: Option<u64>,
    /// Whether samplers shall end.
    pub(crate) over: bool,
}

/// Writes the log, tells observers, and knows the stage.
pub struct Recorder {
    inner: Mutex<Inner>,
    started: Instant,
    stage: watch::Sender<Stage>,
    stop: StopSwitch,
    observer: mpsc::UnboundedSender<Arc<Record>>,
}

struct Inner {
    log: Option<LogWriter>,
    guardrails: Guardrails,
    /// Good samples in a row of each probe since the undo, for the end of the recovery.
    streaks: Vec<u32>,
    /// When the recovery began: an answer to what was asked before says nothing about it.
    recovery_from: u64,
    /// Samples of each probe in this trial, since its faults if they have begun.
    taken: Vec<u32>,
    /// When the latest of them was asked, in nanoseconds since the run began.
    asked: Vec<u64>,
    /// When the samples were asked that have no answer yet.
    unanswered: Vec<u64>,
}

impl Recorder {
    pub(super) fn new(
        log: LogWriter,
        guardrails: Guardrails,
        probes: usize,
        stop: StopSwitch,
        observer: mpsc::UnboundedSender<Arc<Record>>,
    ) -> Self {
        let stage = Stage { phase: Phase::SteadyState, in_force: 0, first_injection: None, over: false };
        let inner = Inner {
            log: Some(log),
            guardrails,
            streaks: vec![0; probes],
            recovery_from: 0,
            taken: vec![0; probes],
            asked: vec![0; probes],
            unanswered: vec![],
        };
        Self { inner: Mutex::new(inner), started: Instant::now(), stage: watch::channel(stage).0, stop, observer }
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic in a probe must not take the run's undo with it: what the lock protects is whole between events.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Records an event. A log that cannot be written stops the run; observers are told all the same.
    pub fn record(&self, event: Event) {
        let mut inner = self.inner();
        let at = self.now();
        if let Event::Sample(sample) = &event {
            self.note_sample(&mut inner, sample, at);
        }
        let record = match inner.log.as_mut().map(|log| log.append(at, event.clone())) {
            Some(Ok(record)) => {
                if let Some(why) = inner.log.as_ref().and_then(LogWriter::is_full) {
                    self.stop.pull("error", why);
                }
                record
            }
            Some(Err(error)) => {
                // Without its samples a run proves nothing: end it, in order while there is room for that.
                self.stop.pull("error", error.to_string());
                if !matches!(event, Event::Sample(_)) {
                    inner.log = None;
                }
                Record { seq: u64::MAX, at, prev: String::new(), event }
            }
            None => Record { seq: u64::MAX, at, prev: String::new(), event },
        };
        let _ = self.observer.send(Arc::new(record));
    }

    fn note_sample(&self, inner: &mut Inner, sample: &Sample, at: u64) {
        let stage = *self.stage.borrow();
        let probe = sample.probe as usize;
        if let Some(taken) = inner.taken.get_mut(probe) {
            *taken += 1;
        }
        if let Some(asked) = inner.asked.get_mut(probe) {
            *asked = sample.started.max(*asked);
        }
        if stage.phase == Phase::Recovery
            && sample.started >= inner.recovery_from
            && let Some(streak) = inner.streaks.get_mut(probe)
        {
            *streak = if sample.ok && !sample.broken { *streak + 1 } else { 0 };
        }
        match stage.phase {
            Phase::SteadyState => inner.guardrails.note_before(sample),
            Phase::Inject | Phase::Undo => {
                if let Some(why) = inner.guardrails.look(sample, at) {
                    self.stop.pull("guardrail", why);
                }
            }
            _ => {}
        }
    }

    /// Stops the run if a probe that should have given an answer by now has not.
    pub(super) fn listen(&self) {
        let stage = *self.stage.borrow();
        let mut inner = self.inner();
        let Inner { guardrails, taken, .. } = &mut *inner;
        if let Some(why) = guardrails.listen(self.now(), stage, taken) {
            self.stop.pull("guardrail", why);
        }
    }

    /// Notes something for the reader.
    pub fn note(&self, level: Level, text: impl Into<String>) {
        self.record(Event::Note { level, text: text.into() });
    }

    /// Waits until everything so far is on disk.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.inner().log.as_ref().map_or(Ok(()), LogWriter::sync)
    }

    /// Closes the log.
    pub(crate) fn finish(&self) {
        if let Some(log) = self.inner().log.take()
            && let Err(error) = log.finish()
        {
            self.stop.pull("error", error.to_string());
        }
    }

    /// Begins a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        {
            let mut inner = self.inner();
            match phase {
                Phase::SteadyState => {
                    inner.taken.fill(0);
                    inner.asked.fill(0);
                    inner.guardrails.reset(self.now());
                }
                Phase::Inject => {
                    // From here on samples are counted: those of the steady state are no part of what is asked for.
                    inner.taken.fill(0);
                    if let Some(why) = inner.guardrails.begin(self.now()) {
                        self.stop.pull("guardrail", why);
                    }
                }
                Phase::Recovery => {
                    inner.streaks.fill(0);
                    inner.recovery_from = self.now();
                }
                _ => {}
            }
        }
        self.record(Event::Phase(phase));
        self.stage.send_modify(|stage| {
            stage.phase = phase;
            if phase == Phase::SteadyState {
                stage.first_injection = None;
            }
        });
    }

    /// A fault came into force.
    pub(crate) fn entered_force(&self) {
        let now = self.now();
        self.stage.send_modify(|stage| {
            stage.in_force += 1;
            stage.first_injection.get_or_insert(now);
        });
    }

    /// A fault is no longer in force.
    pub(crate) fn left_force(&self) {
        self.stage.send_modify(|stage| stage.in_force = stage.in_force.saturating_sub(1));
    }

    /// Tells the samplers to end.
    pub(crate) fn over(&self) {
        self.stage.send_modify(|stage| stage.over = true);
    }

    /// Lets the samplers of another trial begin.
    pub(crate) fn reopen(&self) {
        self.stage.send_modify(|stage| stage.over = false);
    }

    /// Where the run is, and its changes.
    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// The good samples in a row of a probe since the undo.
    pub(crate) fn streak(&self, probe: usize) -> u32 {
        self.inner().streaks.get(probe).copied().unwrap_or_default()
    }

    /// When the latest sample of a probe in this trial was asked, in nanoseconds since the run began; 0 if none was.
    pub(crate) fn asked(&self, probe: usize) -> u64 {
        self.inner().asked.get(probe).copied().unwrap_or_default()
    }

    /// A sample is asked for; returns when, in nanoseconds since the run began.
    pub(super) fn asks(&self) -> u64 {
        let mut inner = self.inner();
        let now = self.now();
        inner.unanswered.push(now);
        now
    }

    /// The sample that was asked for then has its answer, or will have none.
    pub(super) fn answered(&self, asked: u64) {
        let unanswered = &mut self.inner().unanswered;
        if let Some(index) = unanswered.iter().position(|other| *other == asked) {
            unanswered.swap_remove(index);
        }
    }

    /// Whether a sample that was asked for by then has no answer yet.
    pub(super) fn is_waiting_since(&self, then: u64) -> bool {
        self.inner().unanswered.iter().any(|asked| *asked <= then)
    }

    /// The samples of a probe in this trial; once its faults have begun, those since then.
    pub(crate) fn taken(&self, probe: usize) -> u32 {
        self.inner().taken.get(probe).copied().unwrap_or_default()
    }
}
