//! A fault in force, from its record in the journal to its undo.

use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use tokio::signal::unix::{SignalKind, signal};
use toprope_model::Node;
use toprope_model::journal::{Intent, Mark, VERSION};
use toprope_model::step::{Effect, Plan, Step, Undo, Undone};
use toprope_os::process::ProcessId;
use toprope_os::time::boottime;

use super::claims::Claims;
use super::message::{ApplyRequest, Change, FromInjector, ToInjector};
use super::serve::{Planned, Requests, ToRun};
use crate::fault::{Draining, FaultError, Injection, Params};
use crate::guard::{Guard, News};
use crate::journal::{Entry, Journal, JournalError};
use crate::pass_through::Lent;

/// How often the effect is measured while the fault is in force.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);
/// How long one measurement may take before it counts as failed.
const OBSERVE_LIMIT: Duration = Duration::from_secs(5);
/// How much longer than asked a fault stays in force at most so that its effect can be measured a last time.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// The same when the run is being stopped.
const URGENT: Duration = Duration::from_millis(20);
/// How long the effect of a fault that happens at one instant is looked for, where the fault itself sets no limit.
const INSTANT_LIMIT: Duration = Duration::from_secs(300);

/// Applies, holds and undoes. Returns when nothing is in force any more and connections in flight have ended.
pub(super) async fn hold(
    planned: &Planned,
    request: ApplyRequest,
    mut guard: Option<Guard>,
    requests: &mut Requests,
    run: &ToRun,
) {
    let failed = |error: FaultError| FromInjector::ApplyFailed {
        failure: error.into(),
        undone: Undone { clean: true, by: "injector".into(), ..Undone::default() },
    };
    // The targets may have changed since the plan was made: it is made anew, and held against the limits again.
    let plan = match planned.plan().await {
        Ok(plan) => plan,
        Err(error) => return run.send(failed(error)).await,
    };
    run.send(FromInjector::Planned(Box::new(plan.clone()))).await;
    // The run writes down that it begins before anything can be felt of it: else what a probe feels while the run is slow
    // to listen would be counted to the time before.
    if !logged(requests).await {
        return run.send(failed(FaultError::new("it was to end before it was in force"))).await;
    }
    let journal = &planned.journal;
    let deadline = boottime() + planned.params.duration;
    let mut entry = match intent(planned, &plan, &request, deadline).and_then(|intent| Ok(journal.begin(&intent)?)) {
        Ok(entry) => entry,
        Err(error) => return run.send(failed(error)).await,
    };
    // The journal knows those of its own home, and names the run; others of this host are known by what they hold.
    let claims = match Claims::take(&plan.steps) {
        Ok(claims) => claims,
        Err(error) => {
            let _ = entry.mark(&Mark::Undone(Undone { clean: true, by: "injector".into(), ..Undone::default() }));
            let _ = journal.remove(entry.path());
            return run.send(failed(error)).await;
        }
    };
    if planned.fault.spec().lasting {
        let armed = match &mut guard {
            Some(guard) => guard.arm(journal, entry.path(), &planned.host, deadline).await,
            None => Err(std::io::Error::other("it could not be started")),
        };
        if let Err(error) = armed {
            let _ = entry.mark(&Mark::Undone(Undone { clean: true, by: "injector".into(), ..Undone::default() }));
            let _ = journal.remove(entry.path());
            drop(claims);
            let why = FaultError::because("there is no guard, and nothing is injected without one", error);
            return run.send(failed(why)).await;
        }
    }
    let mut injections = Vec::new();
    let undoing = |guard: &Option<Guard>| guard.iter().for_each(Guard::undoing);
    match apply(planned, &plan, &mut entry, &mut injections).await {
        Ok(()) => {}
        Err(error) => {
            undoing(&guard);
            let (undone, _) = release(planned, &plan, injections, &mut entry, Duration::ZERO).await;
            drop(claims);
            run.send(FromInjector::ApplyFailed { failure: error.into(), undone }).await;
            finish(journal, &entry, guard, requests).await;
            return;
        }
    }
    let _ = entry.mark(&Mark::Applied);
    run.send(FromInjector::Applied).await;
    let effect = if planned.fault.spec().lasting {
        in_force(planned, deadline, &request.changes, &mut injections, &mut guard, requests, run).await
    } else {
        instant(&mut injections, requests).await
    };
    run.send(FromInjector::Effect { effect, last: true }).await;
    undoing(&guard);
    run.send(FromInjector::Undoing).await;
    let drain = Duration::from_millis(request.drain_ms);
    let (undone, draining) = release(planned, &plan, injections, &mut entry, drain).await;
    // Before the run hears of it, and may inject the next one; connections in flight claim nothing.
    drop(claims);
    run.send(FromInjector::Undone(undone)).await;
    finish(journal, &entry, guard, requests).await;
    if !draining.is_empty() {
        let ended = futures::future::join_all(draining).await;
        let (own, cut) = ended.iter().fold((0, 0), |sum, e| (sum.0 + e.0, sum.1 + e.1));
        run.send(FromInjector::Drained(own, cut)).await;
    }
}

fn intent(planned: &Planned, plan: &Plan, request: &ApplyRequest, deadline: Duration) -> Result<Intent, FaultError> {
    let injector = ProcessId::current().map_err(|e| FaultError::because("cannot name this process", e))?;
    Ok(Intent {
        version: VERSION,
        run: request.run.clone(),
        injection: request.injection,
        fault: planned.fault.spec().spec.kind.into(),
        user: request.user.clone(),
        steps: plan.steps.clone(),
        injector: serde_json::to_string(&injector).map_err(|e| FaultError::because("cannot name this process", e))?,
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        written: u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default(),
    })
}

impl From<JournalError> for FaultError {
    fn from(error: JournalError) -> Self {
        let dirty = matches!(error, JournalError::Dirty { .. });
        Self { dirty, ..Self::new(error.to_string()) }
    }
}

async fn apply(
    planned: &Planned,
    plan: &Plan,
    entry: &mut Entry,
    injections: &mut Vec<Box<dyn Injection>>,
) -> Result<(), FaultError> {
    for (number, step) in plan.steps.iter().enumerate() {
        entry.mark(&Mark::Applying(number))?;
        let (params, host) = (&planned.params, &planned.host);
        injections.push(match planned.fault.passage(params)? {
            None => planned.fault.apply(step, params, host).await?,
            Some(passage) => {
                let lent = planned.lent.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let gone = || FaultError::new(format!("the pass-through on {} is gone", passage.at));
                Lent::apply(lent.ok_or_else(gone)?, planned.fault.spec().spec.kind, step, params).await?
            }
        });
    }
    Ok(())
}

/// Releases everything in reverse order; what does not release is undone as if this were a new process.
async fn release(
    planned: &Planned,
    plan: &Plan,
    injections: Vec<Box<dyn Injection>>,
    entry: &mut Entry,
    drain: Duration,
) -> (Undone, Vec<Draining>) {
    let mut undone = Undone { clean: true, by: "injector".into(), ..Undone::default() };
    let mut draining = Vec::new();
    let _ = entry.mark(&Mark::Undoing("injector".into()));
    let applied = injections.len();
    // Half of the step after the last may have been applied when it failed.
    let mut again: Vec<&Step> = plan.steps.get(applied).into_iter().collect();
    for (injection, step) in injections.into_iter().zip(&plan.steps).rev() {
        match injection.release(drain).await {
            Ok(flows) => {
                draining.extend(flows);
                match &step.undo {
                    Undo::Irreversible { leaves } => undone.notes.extend(leaves.iter().cloned()),
                    _ => undone.notes.push(format!("undone: {}", step.describe)),
                }
            }
            Err(error) => {
                undone.notes.push(format!("the release failed ({error}); it is undone from what the journal knows"));
                again.push(step);
            }
        }
    }
    for step in again {
        match planned.fault.undo(step, &planned.host).await {
            Ok(notes) => undone.notes.extend(notes),
            Err(error) => {
                undone.clean = false;
                undone.notes.push(format!("{} could not be undone: {error}", step.describe));
                undone.notes.extend(error.help);
            }
        }
    }
    let mark = if undone.clean { Mark::Undone(undone.clone()) } else { Mark::UndoFailed(undone.notes.join("; ")) };
    if let Err(error) = entry.mark(&mark) {
        undone.notes.push(format!("{error}; the record stays, and `toprope undo` will clear it"));
    }
    (undone, draining)
}

/// Lets the guard go, and removes the record once the run has what it says in its log. A record that nobody took
/// stays for the next start, which seals the dead run's log with it.
async fn finish(journal: &Journal, entry: &Entry, guard: Option<Guard>, requests: &mut Requests) {
    if let Some(guard) = guard {
        guard.clean().await;
    }
    let logged = async {
        while let Some(request) = requests.recv().await {
            if matches!(request, ToInjector::Logged) {
                return true;
            }
        }
        false
    };
    if tokio::time::timeout(Duration::from_secs(5), logged).await == Ok(true)
        && journal.read(entry.path()).is_ok_and(|r| r.undone().is_some())
    {
        let _ = journal.remove(entry.path());
    }
}

/// Waits until the run has in its log what it was told; false where it is gone, or wants the end of it instead.
async fn logged(requests: &mut Requests) -> bool {
    loop {
        match requests.recv().await {
            Some(ToInjector::Logged) => return true,
            None | Some(ToInjector::Release { .. }) => return false,
            Some(_) => {}
        }
    }
}

async fn observe(injections: &mut [Box<dyn Injection>]) -> Effect {
    let mut total = Effect { took: Some(true), ..Default::default() };
    let parts = injections.len().max(1);
    for injection in injections.iter_mut() {
        match tokio::time::timeout(OBSERVE_LIMIT, injection.observe()).await {
            Ok(Ok(effect)) => merge(&mut total, effect, parts),
            Ok(Err(error)) => {
                total.took = None;
                total.note = Some(format!("the effect could not be measured: {error}"));
            }
            Err(_) => {
                total.took = None;
                total.note = Some(format!("the effect could not be measured within {OBSERVE_LIMIT:?}"));
            }
        }
    }
    total
}

/// The effect of several steps: it took if all took; the reached share is their mean.
#[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
fn merge(total: &mut Effect, part: Effect, parts: usize) {
    total.took = match (total.took, part.took) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    if let Some(reached) = part.reached {
        *total.reached.get_or_insert(0.0) += reached / parts as f64;
    }
    total.measures.extend(part.measures);
    if total.note.is_none() {
        total.note = part.note;
    }
}

/// A fault that happens at one instant: its effect is looked for until it is known, or the run ends it.
async fn instant(injections: &mut [Box<dyn Injection>], requests: &mut Requests) -> Effect {
    let until = boottime() + INSTANT_LIMIT;
    loop {
        let effect = observe(injections).await;
        if effect.took.is_some() || boottime() > until {
            return effect;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            request = requests.recv() => if matches!(request, None | Some(ToInjector::Release { .. })) {
                return observe(injections).await;
            },
        }
    }
}

/// Holds the fault until its deadline, the run's word or end, a signal, or its own end; returns the last effect.
async fn in_force(
    planned: &Planned,
    deadline: Duration,
    changes: &[Change],
    injections: &mut [Box<dyn Injection>],
    guard: &mut Option<Guard>,
    requests: &mut Requests,
    run: &ToRun,
) -> Effect {
    let started = deadline.saturating_sub(planned.params.duration);
    let mut changes = changes.iter().peekable();
    let mut next_look = boottime() + OBSERVE_EVERY;
    // What counts when there is no time for a last look.
    let mut latest = Effect::default();
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return last_look(injections, latest).await;
    };
    loop {
        let now = boottime();
        if now >= deadline {
            return last_look(injections, latest).await;
        }
        if let Some(change) = changes.next_if(|c| started + Duration::from_millis(c.after_ms) <= now) {
            adjust(planned, change, injections, run).await;
            continue;
        }
        if now >= next_look {
            // A stop is heard while a slow measurement is under way.
            latest = tokio::select! {
                effect = observe(injections) => effect,
                () = tokio::time::sleep((deadline + LAST_LOOK).saturating_sub(now)) => return late(latest),
                request = requests.recv() => match request {
                    None | Some(ToInjector::Release { urgent: true, .. }) => return latest,
                    Some(ToInjector::Release { urgent: false, .. }) => return last_look(injections, latest).await,
                    Some(_) => continue,
                },
            };
            if boottime() >= deadline {
                return latest; // It was the last one.
            }
            run.send(FromInjector::Effect { effect: latest.clone(), last: false }).await;
            next_look = boottime() + OBSERVE_EVERY;
            continue;
        }
        let change_at = changes.peek().map(|c| started + Duration::from_millis(c.after_ms));
        let wake = [Some(deadline), Some(next_look), change_at].into_iter().flatten().min().unwrap_or(deadline);
        let woken = {
            let ended = select_all(injections.iter_mut().map(|i| i.ended()));
            tokio::select! {
                () = tokio::time::sleep(wake.saturating_sub(now)) => Woken::Time,
                _ = terminated.recv() => Woken::Ended("the injector was told to stop".into()),
                (why, ..) = ended => Woken::Ended(why),
                news = news_of(guard) => match news {
                    News::Replaced(what) => Woken::Noticed(what),
                    News::Lost(why) => Woken::Ended(why),
                },
                request = requests.recv() => match request {
                    None => Woken::Alone,
                    Some(ToInjector::Release { urgent, .. }) => Woken::Released { urgent },
                    Some(_) => Woken::Time,
                },
            }
        };
        match woken {
            Woken::Time => {}
            Woken::Noticed(what) => run.send(FromInjector::Noticed(what)).await,
            Woken::Alone => return Effect::default(), // Nobody wants to know any more, and the undo is urgent.
            // A run that is stopped has no use for a measurement that comes late.
            Woken::Released { urgent: true } => {
                return tokio::time::timeout(URGENT, observe(injections)).await.unwrap_or(latest);
            }
            Woken::Released { urgent: false } => return last_look(injections, latest).await,
            Woken::Ended(why) => {
                run.send(FromInjector::Ended(why)).await;
                return last_look(injections, latest).await;
            }
        }
    }
}

/// The last measurement. The fault is over: one that takes its time is not waited for, and what was measured before counts.
async fn last_look(injections: &mut [Box<dyn Injection>], latest: Effect) -> Effect {
    tokio::time::timeout(LAST_LOOK, observe(injections)).await.unwrap_or_else(|_| late(latest))
}

/// What was measured before, and why nothing after it.
fn late(latest: Effect) -> Effect {
    let before = match latest == Effect::default() {
        true => "there was none before it",
        false => "what counts is the one before it",
    };
    let why = format!("the last measurement was given up {LAST_LOOK:?} after the fault's end: {before}");
    let note = latest.note.map_or(why.clone(), |note| format!("{note}; {why}"));
    Effect { note: Some(note), ..latest }
}

/// Why a fault in force is looked at.
enum Woken {
    /// Something is due.
    Time,
    /// Something that the run should know.
    Noticed(String),
    /// The run says that it is over.
    Released { urgent: bool },
    /// The run is gone.
    Alone,
    /// It ended by itself.
    Ended(String),
}

/// What happened to the guard.
async fn news_of(guard: &mut Option<Guard>) -> News {
    match guard {
        Some(guard) => guard.news().await,
        None => std::future::pending().await,
    }
}

async fn adjust(planned: &Planned, change: &Change, injections: &mut [Box<dyn Injection>], run: &ToRun) {
    let params = Params { node: Node::from_json(&change.params), ..planned.params.clone() };
    for injection in injections.iter_mut() {
        if let Err(error) = injection.adjust(&params).await {
            return run.send(FromInjector::AdjustFailed(error.into())).boxed().await;
        }
    }
    let (parameter, value) = (change.parameter.clone(), change.value.clone());
    run.send(FromInjector::Adjusted { parameter, value }).await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::future::BoxFuture;

    use super::*;

    /// Something in force whose effect takes so long to measure.
    struct Slow(Duration);

    impl Injection for Slow {
        fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
            async {
                tokio::time::sleep(self.0).await;
                Ok(Effect { took: Some(true), ..Effect::default() })
            }
            .boxed()
        }

        fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
            async { Ok(None) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_last_measurement_that_takes_its_time_is_given_up_and_told() {
        let before = Effect { took: Some(false), note: Some("3 of 9".into()), ..Effect::default() };
        let mut slow: [Box<dyn Injection>; 1] = [Box::new(Slow(Duration::from_secs(600)))];
        let begun = Instant::now();
        let effect = last_look(&mut slow, before.clone()).await;
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert_eq!(effect.took, Some(false));
        let note = effect.note.unwrap();
        assert!(note.starts_with("3 of 9; the last measurement was given up 1s after"), "{note}");

        let mut quick: [Box<dyn Injection>; 1] = [Box::new(Slow(Duration::ZERO))];
        assert_eq!(last_look(&mut quick, before).await, Effect { took: Some(true), ..Effect::default() });
    }
}
