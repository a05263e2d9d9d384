//! `disk-fill`: takes the space of a file system, as logs that nobody rotates do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Effect, Measure, Plan, Step as PlanStep, Undo};
use toprope_model::{FromNode, KindSpec, Node, Percent, Problems, Size, fields};
use toprope_os::disk::{self, Filler, Space, Way};
use toprope_os::memory;

use crate::extent::{Extent, Goal, Stock, check_one, exactly_one};
use crate::targeted::{data_of, to_data};
use crate::thread::{Step, Steps, blocking};

fields! {
    /// What `disk-fill` takes.
    struct DiskParameters {
        /// A directory on the file system to fill. A relative path is from where the run was started.
        path: String,
        /// How much to take.
        amount: Option<Size>,
        /// Take what is missing until so much of the file system is used, as `df` shows it. At `100%`, users without
        /// special rights are refused any more space.
        percent: Option<Percent>,
        /// How much must stay available when the fault takes its space: an `amount` that does not leave it is
        /// refused, a `percent` stops there.
        reserve: Size = "0B",
    }
}

impl DiskParameters {
    fn extent(&self) -> Option<Extent> {
        Extent::of(self.amount, self.percent)
    }
}

fn check(node: &Node, problems: &mut Problems) {
    if let Some(parameters) = DiskParameters::from_node(node, problems) {
        check_one(parameters.extent(), node, problems);
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "disk-fill",
        summary: "Fill a file system, by amount or up to a percentage.",
        docs: "\
The injector makes a file without a name in the directory and lets the file system set blocks aside for it, without
writing them (`fallocate`). Where the file system cannot do that, noise is written instead, which takes as long as the
disk needs.

The blocks that some file systems keep for root are left alone. So at `100%`, what runs as root can still write to
them; `plan` says how many there are. Inodes are not taken. Space that others free while the fault is in force stays
free: a cleaner that makes room is a reaction to observe.

A file system in memory (tmpfs) is filled only as far as there is memory for it.

The file belongs to the injector, so the space is free when the injector ends, however it ends.",
        example: "- disk-fill: {path: /var/lib/app, percent: 95%, for: 1m}",
        fields: DiskParameters::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::SharesHost,
    needs: &[Need::DacOverride],
    strength: &["amount", "percent"],
    recovers: false,
    ramps: &["amount", "percent"],
};

/// The share of the goal that must be taken for the fault to have taken.
const ENOUGH: f64 = 0.9;
/// What is taken at once: little enough to stop soon, even where it has to be written.
const STEP_ALLOCATED: u64 = 1 << 30;
const STEP_WRITTEN: u64 = 16 << 20;
/// What filling a file system in memory leaves of it.
const MEMORY_RESERVE: Size = Size(256 << 20);

/// The fault.
pub(crate) struct DiskFill;

/// What a step says: where. How much may change while it is in force, so that is in the parameters.
#[derive(Serialize, Deserialize)]
struct Place {
    directory: PathBuf,
}

impl Fault for DiskFill {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let parameters: DiskParameters = params.read()?;
            let (wanted, path) = (Wanted::new(&parameters)?, host.directory.join(&parameters.path));
            // A network file system whose server is gone does not answer.
            blocking(move || plan(wanted, &path)).await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a PlanStep,
        params: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move {
            let place: Place = data_of(step)?;
            let wanted = Wanted::new(&params.read()?)?;
            let injection = blocking(move || Filling::begin(wanted, place.directory)).await?;
            Ok(Box::new(injection) as Box<dyn Injection>)
        }
        .boxed()
    }

    fn undo<'a>(&'a self, step: &'a PlanStep, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        // An injector's end is awaited by who calls this, and its files are closed before its end can be seen.
        async move {
            let Place { directory } = data_of(step)?;
            Ok(vec![format!("the space taken at {} became free when its injector ended", directory.display())])
        }
        .boxed()
    }
}

fn plan(wanted: Wanted, path: &Path) -> Result<Plan, FaultError> {
    let cannot = |e: &dyn std::fmt::Display| FaultError::because(format!("{} cannot be filled", path.display()), e);
    let directory = path.canonicalize().map_err(|e| cannot(&e))?;
    let space = Space::of(&directory).map_err(|e| cannot(&e))?;
    disk::check_writable(&directory).map_err(|e| cannot(&e))?;
    let goal = wanted.goal(&space, 0)?;
    let mut warnings: Vec<String> = goal.warning.into_iter().collect();
    if wanted.extent == Extent::Percent(Percent(100.0)) && space.reserved() > 0 {
        let reserved = Size(space.reserved());
        warnings.push(format!("{reserved} are kept for root: what runs as root can still write so much"));
    }
    let place = directory.display().to_string();
    let (major, minor) = space.device;
    Ok(Plan {
        path: "a file without a name, its blocks set aside by fallocate".into(),
        matched: 1,
        targets: vec![format!(
            "the file system of {place}: {}, of which {} is used and {} is available",
            Size(space.total),
            Size(space.used()),
            Size(space.available)
        )],
        warnings,
        steps: vec![PlanStep {
            describe: match wanted.extent {
                Extent::Amount(amount) => format!("take {amount} at {place}"),
                Extent::Percent(percent) => {
                    format!("fill {place} until {percent} is used, which is {} more now", Size(goal.bytes))
                }
            },
            claims: vec![format!("file system {major}:{minor}")],
            undo: Undo::KernelOwned("the file has no name, so its space is free when the injector ends".into()),
            data: to_data(&Place { directory }),
        }],
    })
}

/// How much is wanted, valid.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    extent: Extent,
    reserve: Size,
}

impl Wanted {
    fn new(parameters: &DiskParameters) -> Result<Self, FaultError> {
        Ok(Self { extent: exactly_one(parameters.extent())?, reserve: parameters.reserve })
    }

    fn goal(&self, space: &Space, held: u64) -> Result<Goal, FaultError> {
        let goal = self.extent.goal(Stock {
            name: "disk space",
            total: space.used() + space.available,
            used: space.used(),
            available: space.available,
            reserve: self.reserve,
            held,
        })?;
        if space.in_memory {
            let memory = memory::now().map_err(|e| FaultError::because("the memory for it cannot be told", e))?;
            if goal.bytes.saturating_sub(held) + MEMORY_RESERVE.0 > memory.available {
                return Err(FaultError::new(format!(
                    "this file system lives in memory, of which {} is available: {} more do not fit with {} to spare",
                    Size(memory.available),
                    Size(goal.bytes.saturating_sub(held)),
                    MEMORY_RESERVE
                ))
                .help("take less, or use memory-stress where memory is what is meant to be short"));
            }
        }
        Ok(goal)
    }
}

/// The file in force.
struct Filling {
    wanted: Wanted,
    directory: PathBuf,
    taken: Arc<Mutex<Taken>>,
    filling: Steps,
    /// Whether a writer was seen to be refused; stays true when others make room.
    was_full: bool,
}

/// What is taken, and how much it is to be.
struct Taken {
    /// `None` once it is given back.
    filler: Option<Filler>,
    goal: u64,
    warning: Option<String>,
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cannot_fill(e: toprope_os::Error) -> FaultError {
    FaultError::because("the disk cannot be filled", e)
}

impl Taken {
    fn filler(&mut self) -> Result<&mut Filler, FaultError> {
        self.filler.as_mut().ok_or_else(|| FaultError::new("the space was given back already"))
    }

    /// One step towards the goal, which is told anew from what there is now: others use the file system too, and its
    /// own records take space.
    fn grow(&mut self, wanted: Wanted) -> Result<Step, FaultError> {
        let filler = self.filler()?;
        let (space, held) = (filler.space().map_err(cannot_fill)?, filler.taken().map_err(cannot_fill)?);
        let goal = wanted.goal(&space, held)?;
        let step = match filler.way() {
            Way::Allocate => STEP_ALLOCATED,
            Way::Write => STEP_WRITTEN,
        };
        let missing = goal.bytes.saturating_sub(held);
        // Whole blocks alone can be taken, and the reserve must stay.
        let piece = missing.min(step) / space.block * space.block;
        let grown = if piece > 0 { filler.grow(piece).map_err(cannot_fill)? } else { 0 };
        (self.goal, self.warning) = (goal.bytes, goal.warning);
        Ok(if grown < piece || piece == 0 { Step::Last } else { Step::More })
    }
}

fn fill(wanted: Wanted, taken: Arc<Mutex<Taken>>) -> Result<Steps, FaultError> {
    Steps::start("disk-fill", move || lock(&taken).grow(wanted))
}

impl Filling {
    fn begin(wanted: Wanted, directory: PathBuf) -> Result<Self, FaultError> {
        let filler = Filler::create(&directory).map_err(cannot_fill)?;
        let goal = wanted.goal(&filler.space().map_err(cannot_fill)?, 0)?;
        let taken = Taken { filler: Some(filler), goal: goal.bytes, warning: goal.warning };
        let taken = Arc::new(Mutex::new(taken));
        Ok(Self { wanted, directory, filling: fill(wanted, Arc::clone(&taken))?, taken, was_full: false })
    }

    async fn look(&mut self) -> Result<Effect, FaultError> {
        let (filling, failure) = (self.filling.running(), self.filling.failure());
        let (taken, directory) = (Arc::clone(&self.taken), self.directory.clone());
        let seen = blocking(move || see(&taken, &directory, filling)).await?;
        self.was_full |= seen.full;
        Ok(effect(self.wanted.extent, seen, self.was_full, failure))
    }

    async fn change(&mut self, wanted: Wanted) -> Result<(), FaultError> {
        let taken = Arc::clone(&self.taken);
        // The steps under way lead to the former goal.
        let former = std::mem::replace(&mut self.filling, Steps::start("disk-fill", || Ok(Step::Last))?);
        blocking(move || {
            drop(former);
            let mut taken = lock(&taken);
            let filler = taken.filler()?;
            let held = filler.taken().map_err(cannot_fill)?;
            let goal = wanted.goal(&filler.space().map_err(cannot_fill)?, held)?;
            filler.shrink_to(goal.bytes).map_err(cannot_fill)
        })
        .await?;
        self.wanted = wanted;
        self.filling = fill(wanted, Arc::clone(&self.taken))?;
        Ok(())
    }
}

/// What was seen of the file system.
struct Seen {
    filling: bool,
    goal: u64,
    /// Why the goal is less than what was asked for.
    warning: Option<String>,
    taken: u64,
    space: Space,
    /// Whether a user without special rights is refused a block.
    full: bool,
}

fn see(taken: &Mutex<Taken>, directory: &Path, filling: bool) -> Result<Seen, FaultError> {
    let cannot = |e| FaultError::because("the space taken cannot be measured", e);
    let mut taken = lock(taken);
    let (goal, warning) = (taken.goal, taken.warning.clone());
    let filler = taken.filler()?;
    let (space, taken) = (filler.space().map_err(cannot)?, filler.taken().map_err(cannot)?);
    // Root may still use what is kept for it, so as root a trial tells nothing there.
    let kept_for_root = space.available < space.block && space.reserved() > 0;
    let full = kept_for_root || disk::refuses_writers(directory).map_err(cannot)?;
    Ok(Seen { filling, goal, warning, taken, space, full })
}

fn effect(extent: Extent, seen: Seen, was_full: bool, failure: Option<FaultError>) -> Effect {
    let Seen { filling, goal, warning, taken, space, full } = seen;
    let reached = if goal == 0 { 0.0 } else { taken as f64 / goal as f64 };
    let mut measures = vec![extent.measure("space taken", goal, taken)];
    if let Some(percent) = extent.percent() {
        let (name, unit, measured) = ("file system used".into(), "%".into(), space.used_share() * 100.0);
        measures.push(Measure { name, unit, asked: Some(percent.0), measured, samples: 1, spread: None });
    }
    let must_refuse = extent == Extent::Percent(Percent(100.0)) && warning.is_none();
    let mut notes: Vec<String> = warning.into_iter().collect();
    if filling {
        notes.push(format!("still taking: {} of {}", Size(taken).beside(Size(goal)), Size(goal)));
    }
    if full {
        notes.push("a new writer is refused: no space is left".into());
    } else if must_refuse && !filling {
        notes.push("a new writer gets space".into());
    }
    notes.extend(failure.map(|e| e.message));
    Effect {
        took: (!filling).then_some(reached >= ENOUGH && (was_full || !must_refuse)),
        reached: Some(reached.min(1.0)),
        measures,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

impl Injection for Filling {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        self.look().boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async {
            let parameters: DiskParameters = params.read()?;
            self.change(Wanted::new(&parameters)?).await
        }
        .boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        blocking(move || {
            let Self { taken, filling, .. } = *self;
            drop(filling);
            let filler = lock(&taken).filler.take();
            filler.map_or(Ok(()), Filler::free).map_err(|e| FaultError::because("the space is not given back", e))?;
            Ok(None)
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests;
