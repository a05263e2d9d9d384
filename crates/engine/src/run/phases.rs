//! The phases of a run, in order, and of each trial of a search.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use toprope_model::event::{
    Event, FaultInfo, Level, Phase, PlannedFault, ProbeInfo, Record, RunStarted, Sample, VERSION,
};
use toprope_model::experiment::{BACK, FaultItem, ProbeItem, RECOVERY, STEADY_STATE, When};
use toprope_model::step::Plan;
use toprope_model::verdict::{Judgement, Outcome};
use toprope_model::{Experiment, Node, Value};

use super::guardrail::{Guardrails, Watched};
use super::inject::plan_fault;
use super::method::{Course, Job};
use super::recorder::Recorder;
use super::sampling::Sampler;
use super::{Finished, RunError, Setup, StopSwitch, overlap, prepare, search};
use crate::halt::{self, Levers};
use crate::injector::Injector;
use crate::journal::JournalError;
use crate::pass_through::PassThroughs;
use crate::probe::{Context, PROBES, Probe};

/// Waiting for connections in flight is told when it takes longer.
const DRAINS_AT_ONCE: Duration = Duration::from_millis(500);
/// How often the recovery looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn run(
    setup: Arc<Setup>,
    stop: StopSwitch,
    observer: mpsc::UnboundedSender<Arc<Record>>,
) -> Result<Finished, RunError> {
    setup.state.prepare()?;
    prepare::seal_dead_runs(&setup.state, &setup.journal);
    match setup.journal.refuse_dirty() {
        // Root's journal: its injectors look into it.
        Err(JournalError::Io { error, .. }) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        other => other?,
    }
    let seed = prepare::seed(&setup);
    let run = prepare::new_run_id(setup.state.run_ids().last().map(String::as_str));
    let (levers, services) = (Levers::of(&setup.state), halt::services(&setup));
    if let Some(order) = levers.order_for(&run, &services) {
        return Err(RunError::Halted(Box::new(order)));
    }
    let (obeying, stopping) = (run.clone(), stop.clone());
    let _obeys = AbortOnDrop(tokio::spawn(async move { levers.obey(&obeying, &services, &stopping).await }));
    let probes = build_probes(&setup, &run)?;
    // Planned before anything is written: a run that cannot be has no log.
    let pass_throughs = Arc::new(PassThroughs::open(&setup).await?);
    let planned = plan_all(&setup, &pass_throughs, seed).await?;
    for (name, probe) in setup.experiment.spec.probe_names().into_iter().zip(&probes) {
        probe.begin().await.map_err(|e| RunError::Probe { probe: name, why: e.to_string() })?;
    }
    let log = prepare::begin(&setup.state, &run)?;
    let directory = setup.state.run(&run);
    let guardrails = Guardrails::new(&setup.experiment, &watched(&setup.experiment, &probes));
    let mut started = started(&setup, &run, seed, &probes);
    started.guardrails = guardrails.in_words(&setup.experiment.spec.guardrails);
    let recorder = Arc::new(Recorder::new(log, guardrails, probes.len(), stop.clone(), observer));
    recorder.record(Event::RunStarted(Box::new(started)));
    pass_throughs.follow(&recorder, &stop);
    let mut trials = Trials { setup, pass_throughs, stop, recorder, run, seed, probes, injections: Arc::default() };
    let judgement = if trials.setup.experiment.spec.search.is_some() {
        let judgement = search::search(&mut trials, planned).await;
        let pass_throughs = trials.pass_throughs.clone();
        trials.drained(pass_throughs.close()).await;
        judgement
    } else {
        trials.trial(trials.setup.clone(), planned).await;
        let pass_throughs = trials.pass_throughs.clone();
        trials.drained(pass_throughs.close()).await;
        trials.judge()
    };
    trials.recorder.record(Event::Judged(Box::new(judgement.clone())));
    trials.recorder.record(Event::RunEnded { exit: judgement.exit_code() });
    trials.recorder.finish();
    let _ = std::fs::remove_file(directory.join(prepare::RUNNING));
    Ok(Finished { run: trials.run, directory, judgement })
}

/// A task that ends with this value.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The probes as guardrails know them.
fn watched(experiment: &Experiment, probes: &[Arc<dyn Probe>]) -> Vec<Watched> {
    let names = experiment.spec.probe_names().into_iter();
    let items = experiment.spec.probes.iter().zip(names).zip(probes).enumerate();
    items
        .map(|(i, ((item, name), probe))| Watched {
            probe: u32::try_from(i).unwrap_or(u32::MAX),
            name,
            unit: probe.unit().to_owned(),
            when: item.common.when,
            waits: probe.needs_after_injection().is_some(),
        })
        .collect()
}

fn build_probes(setup: &Setup, run: &str) -> Result<Vec<Arc<dyn Probe>>, RunError> {
    let names = setup.experiment.spec.probe_names();
    let build = |(item, name): (&ProbeItem, String)| {
        let context = Context {
            run: run.to_owned(),
            timeout: item.common.timeout.0,
            directory: setup.directory.clone(),
            invoking_user: setup.invoking_user,
            services: prepare::host(setup, vec![]).services,
        };
        let kind = PROBES.iter().find(|k| k.spec().kind == item.kind);
        let built = match kind {
            Some(kind) => kind.build(&item.params, &context).map_err(|e| e.to_string()),
            None => Err(format!("this Toprope has no probe `{}`", item.kind)),
        };
        let probe: Arc<dyn Probe> = built.map_err(|why| RunError::Probe { probe: name.clone(), why })?.into();
        if item.common.loses.is_some() && !probe.can_find() {
            let why = "`loses` needs a probe that writes something and says how to find it again (`find`)".to_owned();
            return Err(RunError::Probe { probe: name, why });
        }
        Ok(probe)
    };
    setup.experiment.spec.probes.iter().zip(names).map(build).collect()
}

/// What injectors have planned, by the fault's place in the method.
pub(super) type PlannedFaults = HashMap<usize, (Plan, Injector)>;

pub(super) async fn plan_all(
    setup: &Setup,
    pass_throughs: &PassThroughs,
    seed: u64,
) -> Result<PlannedFaults, RunError> {
    let plan = |index| async move {
        let planned = plan_fault(setup, pass_throughs, seed, index).await?;
        Ok::<_, RunError>((index, planned))
    };
    let all = (0..setup.experiment.faults().len()).map(plan);
    let planned: PlannedFaults = futures::future::try_join_all(all).await?.into_iter().collect();
    overlap::refuse(&setup.experiment, |index| planned.get(&index).map(|(plan, _)| plan))?;
    Ok(planned)
}

fn started(setup: &Setup, run: &str, seed: u64, probes: &[Arc<dyn Probe>]) -> RunStarted {
    let experiment = &setup.experiment;
    let uname = rustix::system::uname();
    let probe = |((item, name), probe): ((&ProbeItem, String), &Arc<dyn Probe>)| ProbeInfo {
        name,
        kind: item.kind.clone(),
        asks: probe.asks(),
        tolerates: tolerates(item, probe.as_ref()),
        unit: probe.unit().to_owned(),
        interval_ms: experiment.interval(item).as_secs_f64() * 1e3,
        recovers: recovers(setup, item),
        waits: probe.needs_after_injection().is_some(),
    };
    let fault = |item: &FaultItem| FaultInfo {
        name: item.name().to_owned(),
        kind: item.kind.clone(),
        parameters: in_words(&item.params),
        lasting: setup.tables.fault(&item.kind).is_some_and(|f| f.lasting),
        for_ms: item.common.for_.map_or(0.0, |d| d.0.as_secs_f64() * 1e3),
    };
    RunStarted {
        format: VERSION,
        run: run.to_owned(),
        toprope: env!("CARGO_PKG_VERSION").to_owned(),
        command: setup.command.to_owned(),
        wall: jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        host: uname.nodename().to_string_lossy().into_owned(),
        kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        user: setup.user.clone(),
        seed,
        generator: prepare::GENERATOR.into(),
        again: setup.again.clone(),
        manifest: experiment.node.to_json(),
        topology: setup.topology.as_ref().map(|t| t.node.to_json()),
        probes: experiment.spec.probes.iter().zip(experiment.spec.probe_names()).zip(probes).map(probe).collect(),
        faults: experiment.faults().into_iter().map(fault).collect(),
        guardrails: Vec::new(),
    }
}

/// A fault's parameters in words: `to 127.0.0.1:5432, delay 200ms`.
fn in_words(node: &Node) -> String {
    match &node.value {
        Value::Map(entries) => {
            let word = |e: &toprope_model::node::Entry| match &e.node.value {
                Value::Map(_) => format!("{} ({})", e.key, in_words(&e.node)),
                Value::Bool(true) => e.key.clone(),
                _ => format!("{} {}", e.key, in_words(&e.node)),
            };
            entries.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        Value::List(items) => items.iter().map(in_words).collect::<Vec<_>>().join(" "),
        Value::Text(text) => text.clone(),
        _ => node.to_json().to_string(),
    }
}

/// Everything that a probe tolerates, in words.
fn tolerates(item: &ProbeItem, probe: &dyn Probe) -> String {
    let mut parts = vec![probe.tolerates()];
    parts.extend(item.common.tolerances().into_iter().map(|(name, _, _, bound)| format!("{name} {bound}")));
    parts.extend(item.common.good.map(|g| format!("{g} of samples good")));
    parts.extend(item.common.recovers.as_ref().map(|r| format!("recovers within {}", r.within)));
    parts.extend(item.common.loses.map(|n| format!("loses at most {n}")));
    parts.retain(|p| !p.is_empty());
    parts.join(", ")
}

/// Whether a probe is expected to recover: as it says, or as the faults' kinds have it.
fn recovers(setup: &Setup, item: &ProbeItem) -> bool {
    if item.common.recovers.is_some() {
        return true;
    }
    let by_default = |f: &&FaultItem| setup.tables.fault(&f.kind).is_some_and(|spec| spec.recovers);
    item.common.unaffected != Some(true) && setup.experiment.faults().iter().any(by_default)
}

/// What the trials of one run share.
pub(super) struct Trials {
    pub(super) setup: Arc<Setup>,
    /// They stand through all trials.
    pub(super) pass_throughs: Arc<PassThroughs>,
    pub(super) stop: StopSwitch,
    pub(super) recorder: Arc<Recorder>,
    pub(super) run: String,
    pub(super) seed: u64,
    probes: Vec<Arc<dyn Probe>>,
    injections: Arc<AtomicU32>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Trials {
    /// From the steady state to the end of the recovery.
    pub(super) async fn trial(&mut self, setup: Arc<Setup>, planned: PlannedFaults) {
        let experiment = &setup.experiment;
        let mut plans: Vec<PlannedFault> = planned
            .iter()
            .map(|(i, (plan, _))| PlannedFault { fault: u32::try_from(*i).unwrap_or(u32::MAX), plan: plan.clone() })
            .collect();
        plans.sort_by_key(|p| p.fault);
        self.recorder.record(Event::Planned(plans));
        self.recorder.phase(Phase::SteadyState);
        let sampling = self.samplers(experiment);
        if self.steady_state(experiment).await {
            self.inject(&setup, planned).await;
        }
        self.recorder.over();
        futures::future::join_all(sampling).await;
        self.recorder.reopen();
        if self.stop.pulled().is_none() {
            self.find_writes(experiment).await;
        }
    }

    fn samplers(&self, experiment: &Experiment) -> Vec<tokio::task::JoinHandle<()>> {
        let sampler = |(i, item): (usize, &ProbeItem)| Sampler {
            index: u32::try_from(i).unwrap_or(u32::MAX),
            probe: self.probes[i].clone(),
            when: item.common.when,
            interval: experiment.interval(item),
            timeout: item.common.timeout.0,
            retries: item.common.retries,
            initial_delay: item.common.initial_delay.0,
            samples: item.common.samples,
            // A suite runs once, so not before all that it is to run under is there.
            together: if item.common.samples.is_some() { experiment.begins_with() } else { 1 },
        };
        let probes = experiment.spec.probes.iter().enumerate();
        probes.map(|pair| tokio::spawn(sampler(pair).run(self.recorder.clone()))).collect()
    }

    /// Watches the steady state; says whether it was seen.
    async fn steady_state(&self, experiment: &Experiment) -> bool {
        let time = experiment.spec.steady_state.as_ref().map_or(STEADY_STATE, |s| s.for_.0);
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = self.stop.wait() => {}
        }
        // What was asked belongs to the steady state, also where its answer comes late: it may be that there is none. And
        // a slow first answer is waited for: without a sample nothing was seen.
        let end = self.recorder.now();
        let patience = |p: &ProbeItem| p.common.timeout.0 * (p.common.retries + 1) + p.common.initial_delay.0;
        let patience = experiment.spec.probes.iter().map(patience).max().unwrap_or_default();
        let until = tokio::time::Instant::now() + patience;
        while !time.is_zero()
            && (self.recorder.is_waiting_since(end) || self.unanswered(experiment))
            && tokio::time::Instant::now() < until
            && self.stop.pulled().is_none()
        {
            tokio::time::sleep(LOOK).await;
        }
        if let Some(stop) = self.stop.pulled() {
            self.recorder.record(Event::Stopping(stop));
            return false;
        }
        if time.is_zero() {
            return self.recorder.sync().is_ok(); // Asked for: nothing is watched before.
        }
        let records = self.read_log();
        let trial = match (records.first(), trial_begin(&records)) {
            (Some(first), begin) if begin > 0 => [std::slice::from_ref(first), &records[begin..]].concat(),
            _ => records,
        };
        let against = crate::verdict::steady_state(experiment, &trial).err().unwrap_or_default();
        for reason in &against {
            self.recorder.note(Level::Error, reason.clone());
        }
        against.is_empty() && self.recorder.sync().is_ok()
    }

    /// Whether a probe that must have answered by now has not.
    fn unanswered(&self, experiment: &Experiment) -> bool {
        let steady = |w: When| matches!(w, When::Before | When::During | When::Edge);
        experiment.spec.probes.iter().enumerate().any(|(i, p)| {
            steady(p.common.when) && self.recorder.taken(i) == 0 && self.probes[i].needs_after_injection().is_none()
        })
    }

    async fn inject(&mut self, setup: &Arc<Setup>, planned: PlannedFaults) {
        let (early_sender, early) = watch::channel(false);
        let course = Course {
            setup: setup.clone(),
            pass_throughs: self.pass_throughs.clone(),
            recorder: self.recorder.clone(),
            stop: self.stop.clone(),
            early,
            run: self.run.clone(),
            seed: self.seed,
            planned: Mutex::new(planned),
            injections: self.injections.clone(),
            draining: Mutex::default(),
            injected: AtomicBool::new(false),
        };
        self.recorder.phase(Phase::Inject);
        let method = Job::of(&setup.experiment.spec.method);
        let enough = self.enough_samples(&setup.experiment);
        tokio::pin!(enough);
        let recorder = self.recorder.clone();
        let _listens = AbortOnDrop(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                recorder.listen();
            }
        }));
        let mut running = course.run(&method);
        tokio::select! {
            () = &mut running => {}
            () = &mut enough => {
                let _ = early_sender.send(true);
                running.await;
            }
        }
        drop(early_sender);
        if let Some(stop) = self.stop.pulled() {
            self.recorder.record(Event::Stopping(stop));
        }
        self.recorder.phase(Phase::Undo);
        let _ = self.recorder.sync();
        if course.injected.load(Ordering::SeqCst) && self.stop.pulled().is_none() {
            self.recorder.phase(Phase::Recovery);
            self.recovery(&setup.experiment).await;
        }
        let draining = std::mem::take(&mut *course.draining.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.drained(futures::future::join_all(draining).map(drop)).await;
    }

    /// Waits for connections in flight, and says so where that takes time.
    async fn drained(&self, draining: impl Future<Output = ()>) {
        tokio::pin!(draining);
        if tokio::time::timeout(DRAINS_AT_ONCE, &mut draining).await.is_err() {
            let longest = self.setup.experiment.faults().iter().map(|f| f.common.drain).max_by_key(|d| d.0);
            let longest = longest.map(|d| format!(", for at most {d}")).unwrap_or_default();
            self.recorder.note(Level::Info, format!("waiting until connections in flight have ended{longest}"));
            draining.await;
        }
    }

    /// Resolves when every probe that takes a fixed number of samples has them; never, if there is none.
    async fn enough_samples(&self, experiment: &Experiment) {
        let limited: Vec<(usize, u32)> =
            experiment.spec.probes.iter().enumerate().filter_map(|(i, p)| p.common.samples.map(|n| (i, n))).collect();
        if limited.is_empty() {
            return std::future::pending().await;
        }
        while limited.iter().any(|(i, n)| self.recorder.taken(*i) < *n) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Watches until every probe is back, or the time for it is over.
    async fn recovery(&self, experiment: &Experiment) {
        let stated = experiment.spec.recovery.as_ref().map_or(RECOVERY, |r| r.within.0);
        let probes = &experiment.spec.probes;
        let wanted = probes.iter().filter_map(|p| p.common.recovers.as_ref().map(|r| r.within.0)).max();
        // Longer than is allowed: only a sample that was asked after that shows that something did not come back.
        let interval = probes.iter().map(|p| experiment.interval(p)).max().unwrap_or_default();
        let margin = (interval * 3).max(Duration::from_secs(1));
        let longest = stated.max(wanted.unwrap_or_default()) + margin;
        let begun = self.recorder.now();
        let stage = *self.recorder.stage().borrow();
        let since_injection = Duration::from_nanos(begun.saturating_sub(stage.first_injection.unwrap_or(begun)));
        // What must be asked for some time after the injection keeps the recovery open for so long.
        let needed = self.probes.iter().filter_map(|p| p.needs_after_injection()).max().unwrap_or_default();
        let least = needed.saturating_sub(since_injection);
        // And until one sample was asked after that time: only such a one can say that it did not happen.
        let timeout = probes.iter().map(|p| p.common.timeout.0).max().unwrap_or_default();
        let longest = longest.max(if needed.is_zero() { least } else { least + margin + timeout });
        let asked_late = |i: usize, needed: Duration| {
            let late = stage.first_injection.unwrap_or_default().saturating_add(nanos(needed));
            self.recorder.asked(i) > late
        };
        let begun = tokio::time::Instant::now();
        loop {
            let elapsed = begun.elapsed();
            let back = experiment.spec.probes.iter().enumerate().all(|(i, p)| {
                !matches!(p.common.when, When::During | When::After | When::Edge)
                    || p.common.samples.is_some()
                    || match self.probes[i].needs_after_injection() {
                        Some(needed) => asked_late(i, needed),
                        None => self.recorder.streak(i) >= BACK,
                    }
            });
            if (back && elapsed >= least) || elapsed >= longest || self.stop.pulled().is_some() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Some(stop) = self.stop.pulled() {
            self.recorder.record(Event::Stopping(stop));
        }
    }

    /// Looks for every write that was acknowledged.
    async fn find_writes(&self, experiment: &Experiment) {
        if !experiment.spec.probes.iter().any(|p| p.common.loses.is_some()) {
            return;
        }
        let written = self.acknowledged();
        for (i, item) in experiment.spec.probes.iter().enumerate().filter(|(_, p)| p.common.loses.is_some()) {
            let index = u32::try_from(i).unwrap_or(u32::MAX);
            let mine: Vec<String> = written.iter().filter(|(p, _)| *p == index).map(|(_, w)| w.clone()).collect();
            let mut lost = Vec::new();
            let mut failed = None;
            for write in &mine {
                let found =
                    tokio::time::timeout(item.common.timeout.0, self.probes[i].clone().find(write.clone())).await;
                match found {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => lost.push(write.clone()),
                    Ok(Err(error)) => failed = Some(error.to_string()),
                    Err(_) => failed = Some(format!("no answer within {}", item.common.timeout)),
                }
                if failed.is_some() {
                    break;
                }
            }
            match failed {
                None => self.recorder.record(Event::Found { probe: index, acknowledged: mine.len() as u64, lost }),
                Some(why) => {
                    self.recorder.note(Level::Error, format!("could not look for the acknowledged writes: {why}"))
                }
            }
        }
    }

    /// The writes that probes saw acknowledged in the current trial.
    fn acknowledged(&self) -> Vec<(u32, String)> {
        let records = self.read_log();
        let first = trial_begin(&records);
        records[first..]
            .iter()
            .filter_map(|r| match &r.event {
                Event::Sample(Sample { probe, ok: true, wrote: Some(wrote), .. }) => Some((*probe, wrote.clone())),
                _ => None,
            })
            .collect()
    }

    fn read_log(&self) -> Vec<Record> {
        let path = self.setup.state.run(&self.run).join(crate::log::FILE);
        match crate::log::read(&path) {
            Ok(log) => log.records,
            Err(error) => {
                self.stop.pull("error", error.to_string());
                vec![]
            }
        }
    }

    /// The verdict on the whole run, which ends with it.
    pub(super) fn judge(&self) -> Judgement {
        self.recorder.record(Event::Phase(Phase::Verdict));
        crate::verdict::judge(&self.setup.experiment, &self.read_log())
    }

    /// The outcome of the trial that was just made, and its first reason.
    pub(super) fn judge_trial(&self, setup: &Setup) -> (Outcome, String) {
        let records = self.read_log();
        let Some(Event::RunStarted(started)) = records.first().map(|r| &r.event) else {
            return (Outcome::Inconclusive, "the log cannot be read".into());
        };
        let trial = &records[trial_begin(&records)..];
        let judgement = crate::verdict::judge_trial(&setup.experiment, started, trial);
        (judgement.outcome, judgement.reasons.first().cloned().unwrap_or_default())
    }
}

/// Where the last trial begins; 0 where there are none.
fn trial_begin(records: &[Record]) -> usize {
    records.iter().rposition(|r| matches!(r.event, Event::TrialStarted { .. })).unwrap_or(0)
}
