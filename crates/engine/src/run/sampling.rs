//! One task for each probe: asks at its interval, whether or not the last answer is there.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::MissedTickBehavior;
use toprope_model::event::{Event, Phase, Sample};
use toprope_model::experiment::When;

use super::recorder::{Recorder, Stage};
use crate::probe::{Answer, Moment, Probe};

/// So many samples of one probe may wait for their answers at a time; a further one is bad at once.
const IN_FLIGHT: usize = 64;

/// One probe as it is sampled.
#[derive(Clone)]
pub(super) struct Sampler {
    pub(super) index: u32,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) when: When,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) initial_delay: Duration,
    /// Take so many samples in a trial and no more.
    pub(super) samples: Option<u32>,
    /// How many faults must be in force before the first sample of a probe that is asked under faults.
    pub(super) together: u32,
}

impl Sampler {
    /// Whether to ask at this stage; `begun` says that a sample was begun in this trial.
    fn wanted(&self, stage: Stage, begun: bool) -> bool {
        match self.when {
            When::Before => stage.phase == Phase::SteadyState,
            When::During => matches!(stage.phase, Phase::SteadyState | Phase::Inject | Phase::Undo | Phase::Recovery),
            When::At => stage.phase == Phase::Inject && stage.in_force >= if begun { 1 } else { self.together },
            When::After => stage.phase == Phase::Recovery,
            When::Edge => matches!(stage.phase, Phase::SteadyState | Phase::Recovery),
        }
    }

    /// Samples until the run is over and every sample that was begun has its answer.
    pub(super) async fn run(self, recorder: Arc<Recorder>) {
        let mut stage = recorder.stage();
        tokio::select! {
            () = tokio::time::sleep(self.initial_delay) => {}
            _ = stage.wait_for(|stage| stage.over) => return,
        }
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut in_flight: FuturesUnordered<BoxFuture<'static, (u64, Option<Sample>)>> = FuturesUnordered::new();
        let answered = |(asked, sample): (u64, Option<Sample>)| {
            if let Some(sample) = sample {
                recorder.record(Event::Sample(sample));
            }
            recorder.answered(asked);
        };
        let mut number = 0;
        let mut begun_in_trial = 0;
        let mut phase = Phase::SteadyState;
        let mut over = stage.borrow().over;
        while !over {
            tokio::select! {
                _ = tick.tick() => {
                    let now = *stage.borrow();
                    if now.phase != phase {
                        phase = now.phase;
                        // `samples` are those since the faults began; a trial begins anew.
                        if matches!(phase, Phase::SteadyState | Phase::Inject) {
                            begun_in_trial = 0;
                        }
                    }
                    let enough = phase != Phase::SteadyState && self.samples.is_some_and(|n| begun_in_trial >= n);
                    if enough || !self.wanted(now, begun_in_trial > 0) {
                        continue;
                    }
                    begun_in_trial += 1;
                    if in_flight.len() >= IN_FLIGHT {
                        let why = format!("{IN_FLIGHT} samples before it had no answer yet");
                        recorder.record(Event::Sample(self.sample(recorder.now(), Answer::bad(why), None, 0)));
                        continue;
                    }
                    let asked = recorder.asks();
                    let since = now.first_injection.map(|first| Duration::from_nanos(asked.saturating_sub(first)));
                    let moment = Moment { number, phase: now.phase, since_injection: since };
                    number += 1;
                    in_flight.push(self.clone().ask(moment, asked).map(move |sample| (asked, sample)).boxed());
                }
                Some(answer) = in_flight.next(), if !in_flight.is_empty() => answered(answer),
                changed = stage.changed() => {
                    // A phase that has just begun is sampled at once, not at the next tick.
                    let now = *stage.borrow_and_update();
                    over = changed.is_err() || now.over;
                    if self.when == When::At && begun_in_trial == 0 && self.wanted(now, false) {
                        tick.reset_immediately();
                    }
                }
            }
        }
        while let Some(answer) = in_flight.next().await {
            answered(answer);
        }
    }

    /// Asks once, and again as often as the manifest allows.
    async fn ask(self, moment: Moment, started: u64) -> Option<Sample> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let asked = AssertUnwindSafe(self.probe.clone().sample(moment)).catch_unwind();
            let (answer, timed_out) = match tokio::time::timeout(self.timeout, asked).await {
                Ok(Ok(answer)) => (answer, false),
                Ok(Err(panic)) => (Answer::broken(format!("the probe panicked: {}", panic_text(&*panic))), false),
                Err(_) => (Answer::bad(format!("no answer within {:?}", self.timeout)), true),
            };
            if answer.silent {
                return None;
            }
            if answer.bad.is_some() && tries < self.retries {
                tries += 1;
                continue;
            }
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let latency = (self.probe.unit() == "ms" || timed_out).then_some(took);
            return Some(self.sample(started, answer, latency, tries));
        }
    }

    fn sample(&self, started: u64, answer: Answer, latency: Option<f64>, retries: u32) -> Sample {
        let value = answer.value.or(latency.filter(|_| self.probe.unit() == "ms")).filter(|v| v.is_finite());
        Sample {
            probe: self.index,
            started,
            ok: answer.bad.is_none(),
            value: if answer.broken { None } else { value.map(|v| (v * 1e4).round() / 1e4) },
            why: answer.bad.map(|why| why.chars().take(500).collect()),
            broken: answer.broken,
            retries,
            wrote: answer.wrote,
        }
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into())
}
