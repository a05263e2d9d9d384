//! `process-pause`: processes that live and do nothing, as after a long collection of garbage, a stalled disk, or a
//! virtual machine that was moved.

mod hold;
mod signal;
mod watch;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::target;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind, check};
use toprope_model::step::{Plan, Step, Undo};
use toprope_model::target::Target;
use toprope_model::{KindSpec, fields};
use toprope_os::Error;
use toprope_os::process::{Pidfd, State, thread_states};
use toprope_os::ptrace::may_seize;

use crate::targeted::{Named, data_of, list, not_ours, to_data};

fields! {
    /// What `process-pause` takes.
    struct Pause {
        /// The processes to pause.
        target: Target,
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "process-pause",
        summary: "Pause processes: they live, keep their connections, and do nothing.",
        docs: "\
Stops every thread of each target, and lets all go on at the end. To its clients a paused process looks like one that
hangs: the kernel still accepts connections for it and acknowledges what is sent, and no answer comes. It is what a long
collection of garbage, a stalled disk or a moved virtual machine does, and what timeouts are for.

Where it may, Toprope holds the processes as a debugger does (ptrace): their parents see nothing of it, and the kernel
lets them go on when Toprope ends, even by `kill -9`. Where it may not (a debugger holds one of them, a container forbids
it, they are another user's), they are stopped by SIGSTOP and go on by SIGCONT; what was stopped is in the journal before,
and a shell that runs one of them takes notice. `plan` says which way it is, and why. A process that is stopped already is
refused.

The effect is measured: the state of every thread, and that the processes use no more time on the cores.",
        example: "- process-pause: {target: {process: redis-server}, for: 10s}",
        fields: Pause::fields,
        check: check::<Pause>,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::Contained,
    needs: &[Need::Kill, Need::Ptrace],
    strength: &[],
    recovers: false,
    ramps: &[],
};

/// The fault.
pub(crate) struct ProcessPause;

/// How processes are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// Held by a tracer, and so by the kernel.
    Hold,
    /// Stopped by a signal.
    Signal,
}

/// What a step says: who is paused, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pausing {
    way: Way,
    targets: Vec<Named>,
}

impl Fault for ProcessPause {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move { plan(params, host) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        _: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move {
            let Pausing { way, targets } = data_of(step)?;
            let alive = alive(&targets)?;
            Ok(match way {
                Way::Hold => Box::new(hold::Held::begin(alive).await?) as Box<dyn Injection>,
                Way::Signal => Box::new(signal::Stopped::begin(alive).await?),
            })
        }
        .boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        async move {
            let Pausing { way, targets } = data_of(step)?;
            match way {
                Way::Hold => hold::let_go(&targets, hold::LET_GO_WITHIN).await,
                Way::Signal => signal::go_on(&targets).await,
            }
        }
        .boxed()
    }
}

fn plan(params: &Params, host: &Host) -> Result<Plan, FaultError> {
    let pause: Pause = params.read()?;
    let found = target::resolve(&pause.target, params.seed, host)?;
    let targets: Vec<Named> = found.picked.iter().map(Named::from).collect();
    let mut no_hold = None;
    for (named, pidfd) in alive(&targets)? {
        if let Err(why) = may_seize(&named.id).or_else(unless_gone) {
            pidfd.may_signal().map_err(|e| not_ours(&named, e))?;
            no_hold.get_or_insert_with(|| format!("{named} cannot be held: {why}"));
        }
    }
    Ok(Plan {
        matched: found.matched,
        targets: targets.iter().map(Named::to_string).collect(),
        warnings: found.warnings,
        path: match &no_hold {
            None => "held by ptrace".into(),
            Some(why) => format!("SIGSTOP and SIGCONT, because {why}"),
        },
        steps: vec![step(if no_hold.is_none() { Way::Hold } else { Way::Signal }, targets)],
    })
}

fn step(way: Way, targets: Vec<Named>) -> Step {
    let pausing = to_data(&Pausing { way, targets: targets.clone() });
    Step {
        describe: format!("pause {}", list(&targets)),
        claims: targets.iter().map(|t| format!("process {}", t.id.pid())).collect(),
        undo: match way {
            Way::Hold => Undo::KernelOwned("the processes go on when their tracer ends (ptrace)".into()),
            Way::Signal => Undo::Restore(pausing.clone()),
        },
        data: pausing,
    }
}

/// Holds on to those that have not ended since the plan was made, and makes sure that nobody else stopped them.
fn alive(targets: &[Named]) -> Result<Vec<(Named, Pidfd)>, FaultError> {
    let mut alive = Vec::new();
    for named in targets {
        if let Some(pidfd) = named.open()? {
            must_run(named)?;
            alive.push((named.clone(), pidfd));
        }
    }
    if alive.is_empty() { Err(ended(targets)) } else { Ok(alive) }
}

/// What has ended since it was looked at needs nothing.
fn unless_gone(error: Error) -> Result<(), Error> {
    if matches!(error, Error::ProcessGone(_)) { Ok(()) } else { Err(error) }
}

fn ended(targets: &[Named]) -> FaultError {
    let message = format!("{} ended before anything was paused", list(targets));
    FaultError::new(message).help("does something else end it? Run again, or select it by name instead of by number")
}

/// Refuses a process that somebody stopped before: to let it go on at the end would not restore what was found.
fn must_run(named: &Named) -> Result<(), FaultError> {
    let states = match thread_states(&named.id) {
        Ok(states) => states,
        Err(Error::ProcessGone(_)) => return Ok(()),
        Err(e) => return Err(not_ours(named, e)),
    };
    if !states.iter().any(|s| matches!(s, State::Stopped | State::Traced)) {
        return Ok(());
    }
    Err(FaultError::new(format!("{named} is stopped already, by somebody else"))
        .help(format!("let it go on first (`kill -CONT {}`, or end the debugger), or select another", named.id.pid())))
}

#[cfg(test)]
mod tests;
