//! One injection as the run sees it: plan, apply, follow, and find out how it ended even when its injector died.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use toprope_model::Node;
use toprope_model::event::{Event, Level};
use toprope_model::experiment::{FaultItem, Ramp};
use toprope_model::search::{Quantity, value_for};
use toprope_model::step::{Plan, Undone};

use super::recorder::Recorder;
use super::{RunError, Setup, StopSwitch, prepare};
use crate::fault::Params;
use crate::injector::{ApplyRequest, Change, FromInjector, Injector, InjectorError, Limits, PlanRequest, ToInjector};
use crate::pass_through::PassThroughs;

/// An injector tells what it measures twice a second, and one measurement takes 5 s at most: after so long it hangs. Its
/// guard sees that far sooner; this is for the case that the guard was killed too.
const TELLS_ITS_EFFECT: Duration = Duration::from_secs(20);
/// The same for a fault that happens at one instant, whose effect is looked for in silence.
const LOOKS_FOR_ITS_EFFECT: Duration = Duration::from_secs(330);
/// And while it undoes: by then its deadline is near, after which the guard waits less than this.
const UNDOES: Duration = Duration::from_secs(120);

/// And once it has undone and the drain of connections in flight is over: then it has only to end.
const ENDS: Duration = Duration::from_secs(10);

/// Starts an injector for a fault of the method and has it plan.
pub(super) async fn plan_fault(
    setup: &Setup,
    pass_throughs: &PassThroughs,
    seed: u64,
    index: usize,
) -> Result<(Plan, Injector), RunError> {
    let faults = setup.experiment.faults();
    let item = faults[index];
    let named = |error| RunError::Plan { fault: item.name().to_owned(), index, error };
    let params = first_params(setup, item);
    let lent = lend(setup, pass_throughs, item, &params).await.map_err(named)?;
    let mut injector = Injector::start(&setup.launch, &item.kind, lent).map_err(named)?;
    let radius = setup.experiment.spec.blast_radius.as_ref();
    let request = PlanRequest {
        fault: item.kind.clone(),
        params: params.to_json(),
        seed: prepare::injection_seed(seed, u32::try_from(index).unwrap_or(u32::MAX)),
        for_ms: millis(item.common.for_.map(|d| d.0).unwrap_or_default()),
        host: prepare::host(setup, pass_throughs.opened()),
        limits: Limits {
            targets: radius.and_then(|r| r.processes),
            percent: radius.and_then(|r| r.percent).map(|p| p.0),
        },
        journal: setup.journal.directory().to_owned(),
        attended: setup.person.is_some(),
    };
    let plan = injector.plan(request).await.map_err(named)?;
    Ok((plan, injector))
}

/// A socket to the pass-through that a fault wants. None stands while it is only planned.
async fn lend(
    setup: &Setup,
    pass_throughs: &PassThroughs,
    item: &FaultItem,
    params: &Node,
) -> Result<Option<OwnedFd>, InjectorError> {
    let Some(fault) = setup.faults.get(&item.kind) else { return Ok(None) };
    let params = Params { node: params.clone(), seed: 0, duration: Duration::ZERO };
    // What is wrong with them the injector says.
    let Ok(Some(passage)) = fault.passage(&params) else { return Ok(None) };
    pass_throughs.lend(passage.at).await.map_err(InjectorError::Start)
}

/// A fault's parameters when it begins: a ramp begins at its first value, not at what stands beside it.
fn first_params(setup: &Setup, item: &FaultItem) -> Node {
    let mut params = item.params.clone();
    if let (Some(ramp), Some(fault)) = (&item.common.ramp, setup.tables.fault(&item.kind)) {
        params.set(&ramp.parameter, value_for(&(fault.spec.fields)(), &ramp.parameter, &ramp.from));
    }
    params
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an injection needs.
pub(super) struct Injection<'a> {
    pub(super) setup: &'a Setup,
    pub(super) recorder: &'a Arc<Recorder>,
    pub(super) stop: &'a StopSwitch,
    /// Resolves when faults shall end before their time, in order.
    pub(super) early: tokio::sync::watch::Receiver<bool>,
    pub(super) run: &'a str,
    pub(super) number: u32,
    pub(super) fault: usize,
}

/// How an injection went.
pub(super) struct Ended {
    /// Whether everything is undone.
    pub(super) clean: bool,
    /// Whether it was in force at all.
    pub(super) applied: bool,
    /// Carries connections in flight on until they end.
    pub(super) draining: Option<tokio::task::JoinHandle<()>>,
}

impl Injection<'_> {
    /// Applies a planned fault and follows it to its end.
    pub(super) async fn follow(mut self, plan: Plan, mut injector: Injector) -> Ended {
        let item = self.setup.experiment.faults()[self.fault].clone();
        let (injection, fault) = (self.number, u32::try_from(self.fault).unwrap_or(u32::MAX));
        let request = ApplyRequest {
            run: self.run.to_owned(),
            injection,
            user: self.setup.user.clone(),
            drain_ms: millis(item.common.drain.0),
            changes: self.changes(&item),
        };
        let mut plan = plan;
        let mut announced = false;
        let mut applied = false;
        injector.send(&ToInjector::Apply(request)).await;
        let mut released = false;
        // Before it is in force its silence has reasons of its own: a person, a program that takes its time.
        let mut patience = None;
        loop {
            let message = tokio::select! {
                message = injector.next() => message,
                () = silent_for(patience) => {
                    self.recorder.note(Level::Error, format!("the injector of {} hangs; it is killed", item.name()));
                    injector.kill();
                    None
                }
                stop = self.stop.wait(), if !released => {
                    released = true;
                    injector.send(&ToInjector::Release { urgent: true, why: stop.why }).await;
                    continue;
                }
                () = said_early(&mut self.early), if !released => {
                    released = true;
                    injector.send(&ToInjector::Release { urgent: false, why: "all samples were taken".into() }).await;
                    continue;
                }
            };
            let Some(message) = message else {
                return self.injector_died(injector, applied, announced, &plan).await;
            };
            match message {
                FromInjector::Planned(fresh) => {
                    plan = *fresh;
                    announced = true;
                    self.recorder.record(Event::Injecting { injection, fault, plan: Box::new(plan.clone()) });
                    injector.send(&ToInjector::Logged).await;
                }
                FromInjector::PlanFailed(failure) => {
                    self.recorder.record(Event::InjectFailed { injection, fault, error: failure.to_string() });
                    return Ended { clean: true, applied: false, draining: None };
                }
                FromInjector::Applied => {
                    applied = true;
                    patience = Some(if item.common.for_.is_some() { TELLS_ITS_EFFECT } else { LOOKS_FOR_ITS_EFFECT });
                    self.recorder.record(Event::Injected { injection, path: plan.path.clone() });
                    self.recorder.entered_force();
                }
                FromInjector::ApplyFailed { failure, undone } => {
                    let clean = undone.clean;
                    self.recorder.record(Event::InjectFailed { injection, fault, error: failure.to_string() });
                    if !clean || !undone.notes.is_empty() {
                        self.recorder.record(Event::Undone { injection, undone });
                    }
                    injector.send(&ToInjector::Logged).await;
                    injector.reaped().await;
                    return Ended { clean, applied: false, draining: None };
                }
                FromInjector::Effect { effect, last } => {
                    self.recorder.record(Event::Effect { injection, effect, last });
                }
                FromInjector::Adjusted { parameter, value } => {
                    self.recorder.record(Event::Adjusted { injection, parameter, value });
                }
                FromInjector::AdjustFailed(failure) => {
                    self.recorder.note(Level::Error, format!("a parameter could not be changed: {failure}"));
                    self.stop.pull("error", format!("the ramp of {} failed: {failure}", item.name()));
                }
                FromInjector::Noticed(what) => self.recorder.note(Level::Warning, what),
                FromInjector::Ended(why) => self.recorder.record(Event::Ended { injection, why }),
                FromInjector::Undoing => {
                    patience = Some(UNDOES);
                    self.recorder.record(Event::Undoing { injection });
                }
                FromInjector::Undone(undone) => {
                    let clean = undone.clean;
                    self.recorder.record(Event::Undone { injection, undone });
                    self.recorder.left_force();
                    injector.send(&ToInjector::Logged).await;
                    let (recorder, name) = (self.recorder.clone(), item.name().to_owned());
                    let draining = tokio::spawn(drained(recorder, injector, name, item.common.drain.0));
                    return Ended { clean, applied, draining: Some(draining) };
                }
                FromInjector::Ask { what, deadline_ms } => {
                    let deadline = Duration::from_millis(deadline_ms);
                    let answer = match &self.setup.person {
                        Some(person) => tokio::select! {
                            answer = person.ask(&what, deadline) => answer,
                            stop = self.stop.wait(), if !released => Err(format!("the run was stopped: {}", stop.why)),
                        },
                        None => Err("nobody is here to do it".into()),
                    };
                    injector.send(&ToInjector::Answer(answer)).await;
                }
                FromInjector::Drained(..) => {}
            }
        }
    }

    /// The injector is gone without a word: the kernel undoes what it owns, and the rest is undone from the journal,
    /// by the guard or by a fresh injector, whoever is first.
    async fn injector_died(self, injector: Injector, applied: bool, announced: bool, plan: &Plan) -> Ended {
        let injection = self.number;
        let fault = u32::try_from(self.fault).unwrap_or(u32::MAX);
        injector.reaped().await;
        if !announced {
            let error = "the injector died before it did anything".to_owned();
            self.recorder.record(Event::InjectFailed { injection, fault, error });
            return Ended { clean: true, applied: false, draining: None };
        }
        let why = "the injector was killed".to_owned();
        self.recorder.record(Event::Ended { injection, why });
        self.recorder.record(Event::Undoing { injection });
        let undone = self.undo_from_journal(plan).await;
        let clean = undone.clean;
        self.recorder.record(Event::Undone { injection, undone });
        if applied {
            self.recorder.left_force();
        }
        Ended { clean, applied, draining: None }
    }

    async fn undo_from_journal(&self, plan: &Plan) -> Undone {
        let journal = &self.setup.journal;
        let record = journal.directory().join(format!("{}-{}.jsonl", self.run, self.number));
        let failed = |why: String| Undone { clean: false, by: "run".into(), notes: vec![why], drained: None };
        if matches!(record.try_exists(), Ok(false)) {
            let notes = vec![format!("nothing was applied of: {}", plan.path)];
            return Undone { clean: true, by: "run".into(), notes, drained: None };
        }
        let kind = &self.setup.experiment.faults()[self.fault].kind;
        let mut fresh = match Injector::start(&self.setup.launch, kind, None) {
            Ok(fresh) => fresh,
            Err(error) => return failed(error.to_string()),
        };
        let host = prepare::host(self.setup, vec![]);
        fresh.send(&ToInjector::Undo { journal: journal.directory().to_owned(), record: record.clone(), host }).await;
        let undone = loop {
            match fresh.next().await {
                Some(FromInjector::Undone(undone)) => break undone,
                Some(FromInjector::Ask { what, deadline_ms }) => {
                    let answer = match &self.setup.person {
                        Some(person) => person.ask(&what, Duration::from_millis(deadline_ms)).await,
                        None => Err("nobody is here to do it".into()),
                    };
                    fresh.send(&ToInjector::Answer(answer)).await;
                }
                Some(_) => {}
                None => break failed("the injector that should undo it died too; run `toprope undo`".into()),
            }
        };
        if undone.clean {
            let _ = journal.remove(&record);
        }
        undone
    }

    /// The ramp as parameters at times.
    fn changes(&self, item: &FaultItem) -> Vec<Change> {
        let Some(ramp) = &item.common.ramp else { return vec![] };
        let Some(fault) = self.setup.tables.fault(&item.kind) else { return vec![] };
        let fields = (fault.spec.fields)();
        let values = ramp_values(ramp);
        let change = |(after_ms, value): (u64, String)| {
            let mut params = item.params.clone();
            params.set(&ramp.parameter, value_for(&fields, &ramp.parameter, &value));
            Change { after_ms, parameter: ramp.parameter.clone(), value, params: params.to_json() }
        };
        values.into_iter().map(change).collect()
    }
}

async fn silent_for(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

/// Resolves when faults shall end before their time.
pub(super) async fn said_early(early: &mut tokio::sync::watch::Receiver<bool>) {
    if early.wait_for(|early| *early).await.is_err() {
        std::future::pending().await // Whoever could say it is gone: the faults end in their time.
    }
}

/// The values of a ramp and when they hold, in milliseconds after the fault is in force. The first holds at once.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few steps")]
fn ramp_values(ramp: &Ramp) -> Vec<(u64, String)> {
    let (Some(from), Some(to)) = (Quantity::read(&ramp.from), Quantity::read(&ramp.to)) else {
        return vec![(0, ramp.from.clone()), (millis(ramp.over.0), ramp.to.clone())];
    };
    let steps = ramp.steps.max(1);
    let value = |step: u32| {
        let share = f64::from(step) / f64::from(steps);
        let value = match step {
            0 => ramp.from.clone(),
            last if last == steps => ramp.to.clone(),
            _ => from.with(from.number + (to.number - from.number) * share).to_string(),
        };
        ((millis(ramp.over.0) as f64 * share) as u64, value)
    };
    (0..=steps).map(value).collect()
}

/// What became of connections in flight, in words.
pub(crate) fn in_flight(own: u64, cut: u64) -> String {
    let connections = |n: u64| format!("{n} {}", if n == 1 { "connection" } else { "connections" });
    let were = |n: u64| if n == 1 { "was" } else { "were" };
    let themselves = |n: u64| if n == 1 { "itself" } else { "themselves" };
    match (own, cut) {
        (own, 0) => format!("{} in flight ended by {}", connections(own), themselves(own)),
        (0, cut) => format!("{} in flight {} cut when the drain was over", connections(cut), were(cut)),
        (own, cut) => format!(
            "of {} in flight, {own} ended by {} and {cut} {} cut when the drain was over",
            connections(own + cut),
            themselves(own),
            were(cut)
        ),
    }
}

/// Waits until connections in flight have ended, and notes how. An injector that hangs meanwhile is killed: its guard has
/// nothing to do any more, and the run would not end.
async fn drained(recorder: Arc<Recorder>, mut injector: Injector, name: String, drain: Duration) {
    let listen = async {
        while let Some(message) = injector.next().await {
            if let FromInjector::Drained(own, cut) = message
                && own + cut > 0
            {
                let level = if cut > 0 { Level::Warning } else { Level::Info };
                recorder.note(level, format!("{name}: {}", in_flight(own, cut)));
            }
        }
    };
    if tokio::time::timeout(drain + ENDS, listen).await.is_err() {
        recorder.note(Level::Error, format!("the injector of {name} hangs after its undo; it is killed"));
        injector.kill();
    }
    injector.reaped().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use toprope_model::{FromNode, Node, Problems};

    #[test]
    fn what_became_of_connections_in_flight_is_a_sentence() {
        assert_eq!(in_flight(1, 0), "1 connection in flight ended by itself");
        assert_eq!(in_flight(0, 2), "2 connections in flight were cut when the drain was over");
        assert_eq!(
            in_flight(2, 1),
            "of 3 connections in flight, 2 ended by themselves and 1 was cut when the drain was over"
        );
    }

    #[test]
    fn a_ramp_begins_at_its_first_value_and_ends_at_its_last() {
        let node = Node::from_json(&serde_json::json!(
            {"parameter": "delay", "from": "100ms", "to": "500ms", "over": "10s", "steps": 4}
        ));
        let ramp = Ramp::from_node(&node, &mut Problems::default()).unwrap();
        let values = ramp_values(&ramp);
        let expected = [(0, "100ms"), (2500, "200ms"), (5000, "300ms"), (7500, "400ms"), (10_000, "500ms")];
        assert_eq!(values, expected.map(|(at, v)| (at, v.to_owned())).to_vec());
    }
}
