//! `command`: a fault of one's own, by programs.

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind, check};
use toprope_model::step::{Plan, Step};
use toprope_model::{Dur, KindSpec, fields};

use crate::program::{Argv, Setting, Tie};
use crate::scripted::{self, Action, Answer, Script};

fields! {
    /// What `command` takes.
    struct Commands {
        /// The program that puts the fault in force, with its arguments: `[program, argument, ...]`. There is no shell
        /// in between; where one is wanted, name it: `[sh, -c, "..."]`.
        apply: Argv,
        /// The program that tells whether the fault is in force: exit code 0 is yes, any other is no. It is run before
        /// (where it must say no), about twice a second while the fault is in force, and after the undo (where it must
        /// say no again). It must change nothing and should answer within a second.
        check: Argv,
        /// The program that takes the fault back. It may be run more than once, and also when `apply` never ran or was
        /// cut short; that it then fails does no harm, as long as `check` says no. It should end when its work is done:
        /// `check` must say no within 3 seconds of its end.
        undo: Argv,
        /// How long each of the programs may run before it is killed.
        timeout: Dur = "30s",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "command",
        summary: "Do anything that programs of yours can do, check, and undo.",
        docs: "\
Reaches what Toprope has no fault for: a cloud's command line, a load balancer's script, a feature flag. The programs
run as the user who started Toprope (also under sudo), in the directory where it was started, without a shell.

The undo is written to the journal before `apply` runs, and is run by whoever is left to do it, in the worst case by
`toprope undo` or at the next start. Programs that `apply` leaves running keep running: end them in `undo`.

`check` is what makes the run's verdict worth something: if it does not say yes while the fault should be in force, the
run is inconclusive, and if it does not say no after the undo, the undo has failed. What the programs hit is not known
to Toprope, so the blast radius does not count it.",
        example: "- command: {apply: [touch, /tmp/maintenance], check: [test, -e, /tmp/maintenance], \
                  undo: [rm, -f, /tmp/maintenance], for: 5s}",
        fields: Commands::fields,
        check: check::<Commands>,
    },
    lasting: true,
    undo: UndoKind::Journalled,
    danger: Danger::Lasting,
    needs: &[Need::SetUser, Need::Kill],
    strength: &[],
    recovers: false,
    ramps: &[],
};

/// The fault.
pub(crate) struct Command;

impl Action for Argv {
    type Setting = Setting;

    async fn act(&self, setting: &Setting) -> Result<Answer, FaultError> {
        let ended = self.run(setting, Tie::Ours).await?;
        Ok(Answer { yes: ended.success, says: ended.says })
    }

    fn place(setting: &Setting) -> String {
        format!(" in {}", setting.directory())
    }

    fn timeout(setting: &Setting) -> std::time::Duration {
        setting.timeout()
    }
}

impl Fault for Command {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let Commands { apply, check, undo, timeout } = params.read()?;
            let setting = Setting::of(host, timeout.0)?;
            for argv in [&undo, &check, &apply] {
                argv.must_exist(&setting)?;
            }
            scripted::plan(Script { apply, check, undo, setting }, "programs of the manifest").await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        _: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        scripted::apply::<Argv>(step).boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        scripted::undo::<Argv>(step).boxed()
    }
}

#[cfg(test)]
mod tests;
