//! `process-pause`: processes that live and do nothing, as after a long collection of garbage, a stalled disk, or a
//! virtual machine that was moved.

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
use toprope_os::process::{State, thread_states};

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

The processes are stopped by SIGSTOP and go on by SIGCONT; what was stopped is in the journal before. A process that is
stopped already is refused. A shell that runs one of the targets in the foreground takes notice of the stop.

The effect is measured: the state of every thread, and that the processes use no more time on the cores.",
        example: "- process-pause: {target: {process: redis-server}, for: 10s}",
        fields: Pause::fields,
        check: check::<Pause>,
    },
    lasting: true,
    undo: UndoKind::Journalled,
    danger: Danger::Contained,
    needs: &[Need::Kill, Need::Ptrace],
    recovers: false,
};

/// The fault.
pub(crate) struct ProcessPause;

/// What a step says: who is held, and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
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
        async move { Ok(Box::new(signal::Stopped::begin(data_of::<Held>(step)?.targets).await?) as _) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        async move { signal::go_on(&data_of::<Held>(step)?.targets).await }.boxed()
    }
}

fn plan(params: &Params, host: &Host) -> Result<Plan, FaultError> {
    let pause: Pause = params.read()?;
    let found = target::resolve(&pause.target, params.seed, host)?;
    let targets: Vec<Named> = found.picked.iter().map(Named::from).collect();
    for named in &targets {
        let pidfd = named.open()?.ok_or_else(|| ended(named))?;
        pidfd.may_signal().map_err(|e| not_ours(named, e))?;
        must_run(named)?;
    }
    let held = to_data(&Held { targets: targets.clone() });
    Ok(Plan {
        path: "SIGSTOP and SIGCONT by pidfd".into(),
        matched: found.matched,
        targets: targets.iter().map(Named::to_string).collect(),
        warnings: found.warnings,
        steps: vec![Step {
            describe: format!("pause {}", list(&targets)),
            claims: targets.iter().map(|t| format!("process {}", t.id.pid())).collect(),
            undo: Undo::Restore(held.clone()),
            data: held,
        }],
    })
}

fn ended(named: &Named) -> FaultError {
    FaultError::new(format!("{named} has ended, and only what lives can be paused")).help("start it, and run again")
}

/// Refuses a process that somebody stopped before: to let it go on at the end would not restore what was found.
fn must_run(named: &Named) -> Result<(), FaultError> {
    let states = thread_states(&named.id).map_err(|e| not_ours(named, e))?;
    if !states.iter().any(|s| matches!(s, State::Stopped | State::Traced)) {
        return Ok(());
    }
    Err(FaultError::new(format!("{named} is stopped already, by somebody else"))
        .help(format!("let it go on first (`kill -CONT {}`, or end the debugger), or select another", named.id.pid())))
}
