//! `memory-stress`: takes memory and keeps it, as a leak or a greedy neighbour does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, UndoKind};
use toprope_model::step::{Effect, Measure, Plan, Step as PlanStep, Undo};
use toprope_model::{FromNode, KindSpec, Node, Percent, Problems, Size, fields};
use toprope_os::memory::{self, Hog, Memory, OomOffer, STEP};

use crate::extent::{Extent, Goal, Stock, check_one, exactly_one};
use crate::thread::{Step, Steps, blocking};

fields! {
    /// What `memory-stress` takes.
    struct MemoryParameters {
        /// How much to take.
        amount: Option<Size>,
        /// Take what is missing until so much of all memory is used, by whomever. Where a control group limits the
        /// memory that Toprope may use, that limit counts as all memory.
        percent: Option<Percent>,
        /// How much must stay available when the fault takes its memory: an `amount` that does not leave it is
        /// refused, a `percent` stops there.
        reserve: Size = "256MiB",
    }
}

impl MemoryParameters {
    fn extent(&self) -> Option<Extent> {
        Extent::of(self.amount, self.percent)
    }
}

fn check(node: &Node, problems: &mut Problems) {
    if let Some(parameters) = MemoryParameters::from_node(node, problems) {
        check_one(parameters.extent(), node, problems);
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "memory-stress",
        summary: "Take memory, by amount or up to a percentage, and keep it.",
        docs: "\
The injector maps memory and writes to every page of it, 64 MiB at a time, and looks before each how much is left.
While it is in force the pages that are in memory are counted, and those that were swapped out are brought back.

What counts as used is what `MemAvailable` leaves of all memory: the kernel's caches give way first, which is part of
the stress. Nothing is taken from the reserve; what others take from it afterwards is the experiment.

The injector offers itself to the OOM killer before all others. Where the kernel has to end a process, that is the
first: the memory is free again, and the run is inconclusive, because the fault did not last.

The memory belongs to the injector, so it is free when the injector ends, however it ends; the kernel takes about
100 ms for each GiB.",
        example: "- memory-stress: {percent: 80%, reserve: 512MiB, for: 1m}",
        fields: MemoryParameters::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::SharesHost,
    needs: &[],
    strength: &["amount", "percent"],
    recovers: false,
    ramps: &["amount", "percent"],
};

/// The share of the goal that must be resident for the fault to have taken.
const ENOUGH: f64 = 0.9;
/// Counting resident pages costs at most one part in so many of a core.
const COUNTING_COST: u32 = 20;

/// The fault.
pub(crate) struct MemoryStress;

impl Fault for MemoryStress {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, _: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move { plan(params) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        _: &'a PlanStep,
        params: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move { Ok(Box::new(Hogging::begin(Wanted::read(params)?)?) as Box<dyn Injection>) }.boxed()
    }

    fn undo<'a>(&'a self, _: &'a PlanStep, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        // An injector's end is awaited by who calls this, and its memory is free before its end can be seen.
        async { Ok(vec!["the memory that was taken became free when its injector ended".into()]) }.boxed()
    }
}

fn plan(params: &Params) -> Result<Plan, FaultError> {
    let wanted = Wanted::read(params)?;
    let memory = look()?;
    let goal = wanted.goal(&memory, 0)?;
    let of = match &memory.cgroup {
        None => "this machine".to_owned(),
        Some(group) => format!("the control group {}", group.display()),
    };
    let (total, used) = (Size(memory.total), Size(memory.used));
    let describe = match wanted.extent {
        Extent::Amount(amount) => format!("take {amount} of memory"),
        Extent::Percent(percent) => {
            format!("take memory until {percent} is used, which is {} more now", Size(goal.bytes))
        }
    };
    Ok(Plan {
        path: "pages of the injector's own, first for the OOM killer".into(),
        matched: 1,
        targets: vec![format!("memory of {of}: {total}, of which {used} is used")],
        warnings: goal.warning.into_iter().collect(),
        steps: vec![PlanStep {
            describe,
            claims: vec!["memory".into()],
            undo: Undo::KernelOwned("the memory is free when the injector ends".into()),
            data: serde_json::Value::Null,
        }],
    })
}

fn look() -> Result<Memory, FaultError> {
    memory::now().map_err(|e| FaultError::because("the memory that there is cannot be told", e))
}

/// The parameters, valid.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    extent: Extent,
    reserve: Size,
}

impl Wanted {
    fn read(params: &Params) -> Result<Self, FaultError> {
        let parameters: MemoryParameters = params.read()?;
        Ok(Self { extent: exactly_one(parameters.extent())?, reserve: parameters.reserve })
    }

    fn goal(&self, memory: &Memory, held: u64) -> Result<Goal, FaultError> {
        let Memory { total, used, available, .. } = *memory;
        self.extent.goal(Stock { name: "memory", total, used, available, reserve: self.reserve, held })
    }
}

/// The memory in force.
struct Hogging {
    wanted: Wanted,
    held: Arc<Mutex<Held>>,
    filling: Steps,
    /// Whether the OOM killer was told, or why not.
    offer: Result<OomOffer, String>,
    counted: Option<Counted>,
}

/// What is taken, and how much it is to be.
struct Held {
    hog: Hog,
    goal: u64,
    warning: Option<String>,
}

/// A count of resident pages: how long it took says when it may be made again.
#[derive(Clone, Copy)]
struct Counted {
    resident: u64,
    at: Instant,
    cost: Duration,
}

impl Hogging {
    fn begin(wanted: Wanted) -> Result<Self, FaultError> {
        // What cannot be had at all is said now, not by the effect.
        let goal = wanted.goal(&look()?, 0)?;
        let held = Arc::new(Mutex::new(Held { hog: Hog::new(), goal: goal.bytes, warning: goal.warning }));
        let offer = OomOffer::make().map_err(|e| e.to_string());
        Ok(Self { wanted, filling: fill(wanted, Arc::clone(&held))?, held, offer, counted: None })
    }
}

/// Takes memory step by step until the goal is reached. The goal is told anew before each step, from what there is
/// then: so the reserve stays, and others who take memory at the same time are taken into account.
fn fill(wanted: Wanted, held: Arc<Mutex<Held>>) -> Result<Steps, FaultError> {
    Steps::start("memory-stress", move || {
        let mut held = lock(&held);
        let now = held.hog.held();
        let goal = wanted.goal(&look()?, now)?;
        (held.goal, held.warning) = (goal.bytes, goal.warning);
        if goal.bytes <= now {
            return Ok(Step::Last);
        }
        let piece = (goal.bytes - now).min(STEP);
        held.hog.grow(piece).map_err(|e| FaultError::because(format!("only {} could be taken", Size(now)), e))?;
        Ok(Step::More)
    })
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what is resident, and brings back what is not.
fn count(held: &Mutex<Held>) -> Result<Counted, FaultError> {
    let mut held = lock(held);
    let at = Instant::now();
    let resident = held.hog.resident().map_err(|e| FaultError::because("the memory cannot be measured", e))?;
    let cost = at.elapsed();
    if resident < held.hog.held() {
        held.hog.touch();
    }
    Ok(Counted { resident, at, cost })
}

impl Hogging {
    async fn look(&mut self) -> Result<Effect, FaultError> {
        let filling = self.filling.running();
        let counted = match self.counted {
            Some(last) if !filling && last.at.elapsed() < last.cost * COUNTING_COST => last,
            _ => {
                let held = Arc::clone(&self.held);
                blocking(move || count(&held)).await?
            }
        };
        self.counted = (!filling).then_some(counted);
        let memory = look()?;
        let held = lock(&self.held);
        let mut notes: Vec<String> = held.warning.iter().cloned().collect();
        let swapped = held.hog.held().saturating_sub(counted.resident);
        if filling {
            notes.push(format!(
                "still taking: {} of {}",
                Size(counted.resident).beside(Size(held.goal)),
                Size(held.goal)
            ));
        } else if swapped > 0 {
            notes.push(format!("{} had been swapped out and was brought back", Size(swapped)));
        }
        notes.extend(self.filling.failure().map(|e| e.message));
        notes.extend(self.offer.as_ref().err().map(|e| format!("the OOM killer does not prefer the injector: {e}")));
        Ok(effect(self.wanted.extent, filling, held.goal, counted.resident, &memory, notes))
    }

    async fn change(&mut self, wanted: Wanted) -> Result<(), FaultError> {
        let held = Arc::clone(&self.held);
        // The steps under way lead to the former goal.
        let former = std::mem::replace(&mut self.filling, Steps::start("memory-stress", || Ok(Step::Last))?);
        blocking(move || {
            drop(former);
            let mut held = lock(&held);
            let goal = wanted.goal(&look()?, held.hog.held())?;
            let failed = |e| FaultError::because("memory cannot be given back", e);
            held.hog.shrink_to(goal.bytes).map_err(failed)
        })
        .await?;
        self.wanted = wanted;
        self.counted = None;
        self.filling = fill(wanted, Arc::clone(&self.held))?;
        Ok(())
    }
}

fn effect(extent: Extent, filling: bool, goal: u64, resident: u64, memory: &Memory, notes: Vec<String>) -> Effect {
    let reached = if goal == 0 { 0.0 } else { resident as f64 / goal as f64 };
    let mut measures = vec![extent.measure("resident memory", goal, resident)];
    if let Some(percent) = extent.percent() {
        let (name, unit, measured) = ("memory used".into(), "%".into(), memory.used_share() * 100.0);
        measures.push(Measure { name, unit, asked: Some(percent.0), measured, samples: 1, spread: None });
    }
    Effect {
        took: (!filling).then_some(reached >= ENOUGH),
        reached: Some(reached.min(1.0)),
        measures,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// Gives all memory back, and makes sure that this process has so much less.
fn free(held: &Mutex<Held>) -> Result<(), FaultError> {
    let failed = |e| FaultError::because("the memory cannot be given back", e);
    let mut held = lock(held);
    let (before, taken) = (memory::resident().map_err(failed)?, held.hog.resident().map_err(failed)?);
    held.hog.shrink_to(0).map_err(failed)?;
    let after = memory::resident().map_err(failed)?;
    // The kernel's fast count and what else this process does meanwhile are off by less.
    let tolerated = (taken / 20).max(16 << 20);
    if after + taken > before + tolerated {
        return Err(FaultError::new(format!(
            "{} of memory was given back, but this process went only from {} to {}",
            Size(taken),
            Size(before),
            Size(after)
        )));
    }
    Ok(())
}

impl Injection for Hogging {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        self.look().boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async { self.change(Wanted::read(params)?).await }.boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        blocking(move || {
            let Self { held, filling, offer, .. } = *self;
            drop(filling);
            free(&held)?;
            drop(offer);
            Ok(None)
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests;
