//! `process-restart`: a service that goes away and comes back, as in a deploy or when its supervisor starts it anew.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::target;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Effect, Measure, Plan, Step, Undo};
use toprope_model::target::{Pick, Selector, Target};
use toprope_model::{Dur, FromNode, KindSpec, Node, Problems, fields};
use toprope_os::process::ProcessId;

use crate::program::{Argv, Ended, Setting, Tie};
use crate::targeted::{Named, data_of, list, to_data};

fields! {
    /// What `process-restart` takes.
    struct Restart {
        /// The systemd unit to restart.
        unit: Option<String>,
        /// Instead of `unit`: the program that restarts the service, with its arguments. It runs as the user who
        /// started Toprope, and its output goes nowhere.
        command: Option<Argv>,
        /// With `command`: the processes that it replaces by new ones. All that match must be replaced.
        target: Option<Target>,
        /// How long the restart may take. If the old processes are not gone then, or no new one is there, the fault did
        /// not take.
        within: Dur = "30s",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "process-restart",
        summary: "Restart a service, by its systemd unit or by a command.",
        docs: "\
Restarts a service as a deploy or an operator does: with `unit: nginx` by `systemctl restart`, or with `command` by a
program of yours, which is not cut short even when the run is. It happens at one instant, so it takes no `for`. Probes
are expected to recover from it unless they say `unaffected: true`.

The effect is measured: every process of the service that was there has ended, and there is one that was not there
before; the time that took is reported. A service that is not running when the fault comes is refused, because it would
be started and not restarted.",
        example: "- process-restart: {unit: nginx}",
        fields: Restart::fields,
        check,
    },
    lasting: false,
    undo: UndoKind::Irreversible,
    danger: Danger::Lasting,
    needs: &[Need::SetUser, Need::Kill, Need::Ptrace],
    strength: &[],
    recovers: true,
    ramps: &[],
};

fn check(node: &Node, problems: &mut Problems) {
    let Some(restart) = Restart::from_node(node, problems) else { return };
    let span = |key| node.get(key).map_or(node.span, |n| n.span);
    match (&restart.unit, &restart.command, &restart.target) {
        (None, None, _) => {
            problems
                .add(node.span, "what restarts is missing", "neither `unit` nor `command`")
                .help("for instance unit: nginx");
        }
        (Some(_), Some(_), _) => {
            problems.add(span("command"), "`unit` and `command` exclude each other", "one restart is enough");
        }
        (Some(_), None, Some(_)) => {
            problems.add(span("target"), "with `unit`, the unit's processes are the target", "not with `unit`");
        }
        (None, Some(_), None) => {
            problems
                .add(node.span, "`target` is missing", "which processes does the command replace?")
                .help("for instance target: {process: redis-server}");
        }
        (None, Some(_), Some(target)) if target.0.pick != Pick::All => {
            problems.add(span("target"), "a restart replaces all that match", "`pick` has no meaning here");
        }
        _ => {}
    }
    if restart.unit.as_ref().is_some_and(|u| u.is_empty() || u.starts_with('-')) {
        problems.add(span("unit"), "this is no unit's name", "not a name");
    }
}

impl Restart {
    /// Whose processes are replaced, and what replaces them.
    fn parts(self) -> Result<(Target, Argv, Tie), FaultError> {
        match (self.unit, self.command, self.target) {
            (Some(unit), None, None) => {
                let argv = Argv::of(["systemctl", "--no-ask-password", "restart", "--", &unit]);
                Ok((unit_target(unit), argv, Tie::Spared))
            }
            (None, Some(command), Some(target)) => Ok((target, command, Tie::Free)),
            _ => Err(FaultError::new("exactly one of `unit` and `command` restarts, and `command` needs a `target`")),
        }
    }
}

fn unit_target(unit: String) -> Target {
    Target(Selector {
        unit: Some(unit),
        pid: None,
        process: None,
        command_line: None,
        user: None,
        cgroup: None,
        port: None,
        service: None,
        host: None,
        pick: Pick::All,
    })
}

/// The fault.
pub(crate) struct ProcessRestart;

/// What a step knows.
#[derive(Serialize, Deserialize)]
struct Replacement {
    old: Vec<Named>,
    argv: Argv,
    setting: Setting,
}

impl Fault for ProcessRestart {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move { plan(params, host) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move { Ok(Box::new(Restarting::begin(data_of(step)?, params, host)?) as Box<dyn Injection>) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        async move {
            let Replacement { old, .. } = data_of(step)?;
            let became = |named: &Named| {
                Ok(match named.now()? {
                    Some(_) => format!("{named} still runs"),
                    None => format!("{named} was replaced; whether its service runs is for its owner to see"),
                })
            };
            old.iter().map(became).collect()
        }
        .boxed()
    }
}

fn plan(params: &Params, host: &Host) -> Result<Plan, FaultError> {
    let restart: Restart = params.read()?;
    let within = restart.within.0;
    let (target, argv, tie) = restart.parts()?;
    let setting = match tie {
        Tie::Spared => {
            // sd_booted(3).
            if !std::path::Path::new("/run/systemd/system").is_dir() {
                return Err(FaultError::new("this host was not started by systemd, so it has no units")
                    .help("give `command` and `target` instead"));
            }
            Setting::with_our_rights(host, within)?
        }
        Tie::Free | Tie::Ours => Setting::of(host, within)?,
    };
    argv.must_exist(&setting)?;
    let found = target::resolve(&target, params.seed, host)?;
    let old: Vec<Named> = found.picked.iter().map(Named::from).collect();
    Ok(Plan {
        path: argv.to_string(),
        matched: found.matched,
        targets: old.iter().map(Named::to_string).collect(),
        warnings: found.warnings,
        steps: vec![Step {
            describe: format!("replace {} by `{argv}`", list(&old)),
            claims: vec![],
            undo: Undo::Irreversible { leaves: old.iter().map(|o| format!("{o} was restarted")).collect() },
            data: to_data(&Replacement { old, argv, setting }),
        }],
    })
}

/// A restart under way.
struct Restarting {
    old: Vec<Named>,
    argv: Argv,
    target: Target,
    host: Host,
    seed: u64,
    began: Instant,
    within: Duration,
    program: Option<JoinHandle<Result<Ended, FaultError>>>,
    /// Why the program failed.
    failed: Option<String>,
    stopped: Option<Duration>,
    restarted: Option<(Duration, String)>,
}

impl Restarting {
    fn begin(replacement: Replacement, params: &Params, host: &Host) -> Result<Self, FaultError> {
        let Replacement { old, argv, setting } = replacement;
        let (target, _, tie) = params.read::<Restart>()?.parts()?;
        let mut alive = false;
        for named in &old {
            alive |= named.open()?.is_some();
        }
        if !alive {
            return Err(FaultError::new(format!("{} ended before anything was restarted", list(&old)))
                .help("does something else restart it? Run again"));
        }
        let began = Instant::now();
        let within = setting.timeout();
        let program = {
            let argv = argv.clone();
            tokio::spawn(async move { argv.run(&setting, tie).await })
        };
        Ok(Self {
            old,
            argv,
            target,
            host: host.clone(),
            seed: params.seed,
            began,
            within,
            program: Some(program),
            failed: None,
            stopped: None,
            restarted: None,
        })
    }

    /// What is known so far; does not wait.
    async fn look(&mut self) -> Result<Effect, FaultError> {
        let mut left = Vec::new();
        for named in &self.old {
            if named.now()?.is_some() {
                left.push(named.clone());
            }
        }
        if left.is_empty() && self.stopped.is_none() {
            self.stopped = Some(self.began.elapsed());
        }
        if self.restarted.is_none() && left.is_empty() {
            let before: HashSet<ProcessId> = self.old.iter().map(|n| n.id).collect();
            // Nothing that matches is no error here: it has not come back yet.
            let now =
                target::resolve(&self.target, self.seed, &self.host).map(|found| found.picked).unwrap_or_default();
            if let Some(new) = now.iter().find(|p| !before.contains(&p.id)) {
                self.restarted = Some((self.began.elapsed(), target::describe(new)));
            }
        }
        if let Some(program) = self.program.take_if(|p| p.is_finished()) {
            self.failed = match program.await {
                Ok(Ok(ended)) if ended.success => None,
                Ok(Ok(ended)) => Some(format!("`{}` failed: {}", self.argv, ended.says)),
                Ok(Err(error)) => Some(error.message),
                Err(_) => Some(format!("`{}` was not waited for", self.argv)),
            };
        }
        Ok(self.effect(&left))
    }

    fn effect(&self, left: &[Named]) -> Effect {
        let late = self.began.elapsed() >= self.within;
        let took = match (&self.failed, &self.restarted) {
            (Some(_), _) => Some(false),
            (None, Some(_)) if self.program.is_none() => Some(true),
            // What runs on after the new process is there has still to say whether it went well.
            _ => late.then_some(self.restarted.is_some()),
        };
        let note = match (&self.failed, &self.restarted) {
            (Some(why), _) => Some(why.clone()),
            (None, Some((_, new))) => Some(format!("{new} is new")),
            (None, None) if !left.is_empty() => Some(format!("still running: {}", list(left))),
            (None, None) => Some("no new process is there".into()),
        };
        let millis = |name: &str, time: Duration| Measure {
            name: name.into(),
            unit: "ms".into(),
            asked: None,
            measured: time.as_secs_f64() * 1e3,
            samples: 1,
            spread: None,
        };
        let stopped = self.stopped.map(|time| millis("time to stop", time));
        let restarted = self.restarted.as_ref().map(|(time, _)| millis("time to be back", *time));
        Effect {
            took,
            reached: Some((self.old.len() - left.len()) as f64 / self.old.len() as f64),
            measures: stopped.into_iter().chain(restarted).collect(),
            note,
        }
    }
}

impl Injection for Restarting {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        self.look().boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async { Ok(None) }.boxed()
    }
}

#[cfg(test)]
mod tests;
