//! The course of the method: series, parallel, waits, repetitions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_model::event::{Event, Level};
use toprope_model::experiment::MethodItem;
use toprope_model::step::Plan;

use super::inject::{Ended, Injection, plan_fault, said_early};
use super::recorder::Recorder;
use super::{Setup, StopSwitch};
use crate::injector::Injector;
use crate::pass_through::PassThroughs;

/// The method with its faults numbered in the manifest's order.
pub(super) enum Job {
    Fault(usize),
    Wait(Duration),
    Serial(Vec<Job>),
    Parallel(Vec<Job>),
    Repeat { times: u32, every: Option<Duration>, jobs: Vec<Job> },
}

impl Job {
    /// The method as one job.
    pub(super) fn of(items: &[MethodItem]) -> Self {
        let mut next = 0;
        Self::Serial(Self::all(items, &mut next))
    }

    fn all(items: &[MethodItem], next: &mut usize) -> Vec<Self> {
        let one = |item: &MethodItem| match item {
            MethodItem::Fault(_) => {
                *next += 1;
                Self::Fault(*next - 1)
            }
            MethodItem::Wait(wait) => Self::Wait(wait.for_.0),
            MethodItem::Serial(items, _) => Self::Serial(Self::all(items, next)),
            MethodItem::Parallel(items, _) => Self::Parallel(Self::all(items, next)),
            MethodItem::Repeat(repeat, _) => Self::Repeat {
                times: repeat.times,
                every: repeat.every.map(|d| d.0),
                jobs: Self::all(&repeat.steps, next),
            },
        };
        items.iter().map(one).collect()
    }
}

/// Runs the method of one trial.
pub(super) struct Course {
    pub(super) setup: Arc<Setup>,
    pub(super) pass_throughs: Arc<PassThroughs>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: StopSwitch,
    pub(super) early: tokio::sync::watch::Receiver<bool>,
    pub(super) run: String,
    pub(super) seed: u64,
    /// Injectors that have planned and wait.
    pub(super) planned: Mutex<HashMap<usize, (Plan, Injector)>>,
    /// Injections so far, in all trials.
    pub(super) injections: Arc<AtomicU32>,
    /// Connections in flight that are still carried on.
    pub(super) draining: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Whether anything was in force.
    pub(super) injected: std::sync::atomic::AtomicBool,
}

impl Course {
    /// Does a job. What goes wrong stops the run.
    pub(super) fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, ()> {
        async move {
            if self.stop.pulled().is_some() || *self.early.borrow() {
                return;
            }
            match job {
                Job::Fault(index) => self.fault(*index).await,
                Job::Wait(time) => self.wait(*time).await,
                Job::Serial(jobs) => self.serial(jobs).await,
                Job::Parallel(jobs) => {
                    futures::future::join_all(jobs.iter().map(|job| self.run(job))).await;
                }
                Job::Repeat { times, every, jobs } => {
                    for round in 0..*times {
                        let next = tokio::time::Instant::now() + every.unwrap_or_default();
                        self.serial(jobs).await;
                        if round + 1 < *times {
                            self.wait(next.saturating_duration_since(tokio::time::Instant::now())).await;
                        }
                    }
                }
            }
        }
        .boxed()
    }

    async fn serial(&self, jobs: &[Job]) {
        for job in jobs {
            self.run(job).await;
        }
    }

    async fn wait(&self, time: Duration) {
        let mut early = self.early.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = self.stop.wait() => {}
            () = said_early(&mut early) => {}
        }
    }

    async fn fault(&self, index: usize) {
        let waiting = self.planned.lock().ok().and_then(|mut p| p.remove(&index));
        let planned = match waiting {
            Some(planned) => Ok(planned),
            None => plan_fault(&self.setup, &self.pass_throughs, self.seed, index).await,
        };
        let number = self.injections.fetch_add(1, Ordering::SeqCst);
        let name = self.setup.experiment.faults()[index].name().to_owned();
        let (plan, injector) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                let fault = u32::try_from(index).unwrap_or(u32::MAX);
                self.recorder.record(Event::InjectFailed { injection: number, fault, error: error.to_string() });
                self.stop.pull("error", error.to_string());
                return;
            }
        };
        let injection = Injection {
            setup: &self.setup,
            recorder: &self.recorder,
            stop: &self.stop,
            early: self.early.clone(),
            run: &self.run,
            number,
            fault: index,
        };
        let Ended { clean, applied, draining } = injection.follow(plan, injector).await;
        if applied {
            self.injected.store(true, Ordering::SeqCst);
        } else {
            self.stop.pull("error", format!("{name} could not be injected"));
        }
        if !clean {
            self.recorder.note(Level::Error, format!("{name} could not be undone: run `toprope undo {}`", self.run));
            self.stop.pull("error", format!("{name} could not be undone"));
        }
        if let (Some(handle), Ok(mut all)) = (draining, self.draining.lock()) {
            all.push(handle);
        }
    }
}
