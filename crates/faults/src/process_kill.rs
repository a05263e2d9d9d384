//! `process-kill`: ends processes, as a crash, the OOM killer or an impatient supervisor does.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::target;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind, check};
use toprope_model::step::{Effect, Measure, Plan, Spread, Step, Undo};
use toprope_model::target::Target;
use toprope_model::{Dur, KindSpec, choice, fields};
use toprope_os::Error;
use toprope_os::process::{Pidfd, Signal as OsSignal};

use crate::targeted::{Named, data_of, list, not_ours, to_data};

fields! {
    /// What `process-kill` takes.
    struct Kill {
        /// The processes to end.
        target: Target,
        /// The signal to send. `KILL` ends a process without asking, as the OOM killer does; the others can be caught:
        /// `TERM`, `INT`, `QUIT` and `HUP` ask it to end, `ABRT` and `SEGV` end it as a crash of its own would (and may
        /// write a core file).
        signal: Signal = "KILL",
        /// Also end every process that the targets started, and those that these started.
        tree: bool = "false",
        /// How long a process may take to end. If it still runs then, the fault did not take.
        within: Dur = "10s",
    }
}

choice! {
    /// A signal that ends a process unless it is caught.
    enum Signal {
        /// Cannot be caught.
        Kill = "KILL",
        /// The usual request.
        Term = "TERM",
        /// Ctrl-C.
        Int = "INT",
        /// Ctrl-\.
        Quit = "QUIT",
        /// The terminal is gone.
        Hup = "HUP",
        /// abort(3).
        Abrt = "ABRT",
        /// A bad address.
        Segv = "SEGV",
    }
}

impl Signal {
    fn of_the_kernel(self) -> OsSignal {
        match self {
            Self::Kill => OsSignal::KILL,
            Self::Term => OsSignal::TERM,
            Self::Int => OsSignal::INT,
            Self::Quit => OsSignal::QUIT,
            Self::Hup => OsSignal::HUP,
            Self::Abrt => OsSignal::ABORT,
            Self::Segv => OsSignal::SEGV,
        }
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "process-kill",
        summary: "End processes with a signal.",
        docs: "\
Sends each target a signal and waits until the process has ended. It happens at one instant, so it takes no `for`;
use `repeat` to kill again and again. Probes are expected to recover from it unless they say `unaffected: true`.

Whatever supervises the process (systemd, a container runtime, a parent) may start it again: that is the reaction to
observe. Nothing is restarted by Toprope, because a process cannot be taken back to where it was.

The effect is measured: each process is held by a descriptor, so its end is seen when it happens, and a process that
later gets the same number is never hit. A process that catches the signal and stays makes the run inconclusive.",
        example: "- process-kill: {target: {process: redis-server}, signal: KILL}",
        fields: Kill::fields,
        check: check::<Kill>,
    },
    lasting: false,
    undo: UndoKind::Irreversible,
    danger: Danger::Lasting,
    needs: &[Need::Kill, Need::Ptrace],
    strength: &[],
    recovers: true,
    ramps: &[],
};

/// The fault.
pub(crate) struct ProcessKill;

/// What a step says: who gets which signal.
#[derive(Serialize, Deserialize)]
struct Sentence {
    signal: Signal,
    targets: Vec<Named>,
    within_ms: u64,
}

impl Fault for ProcessKill {
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
        async move { Ok(Box::new(Killing::begin(data_of(step)?)?) as Box<dyn Injection>) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        async move {
            let sentence: Sentence = data_of(step)?;
            sentence.targets.iter().map(what_became_of).collect()
        }
        .boxed()
    }
}

fn plan(params: &Params, host: &Host) -> Result<Plan, FaultError> {
    let kill: Kill = params.read()?;
    let found = target::resolve(&kill.target, params.seed, host)?;
    let mut condemned = found.picked;
    let roots = condemned.len();
    if kill.tree {
        condemned = target::with_descendants(condemned, host)?;
    }
    let targets: Vec<Named> = condemned.iter().map(Named::from).collect();
    for named in &targets {
        let pidfd = named.open()?.ok_or_else(|| ended(named))?;
        pidfd.may_signal().map_err(|e| not_ours(named, e))?;
    }
    let signal = kill.signal;
    let leaves = targets.iter().map(|t| format!("{t} is dead, unless somebody starts it again")).collect();
    Ok(Plan {
        path: format!("SIG{} by pidfd", signal.word()),
        matched: found.matched + targets.len() - roots,
        targets: targets.iter().map(Named::to_string).collect(),
        warnings: found.warnings,
        steps: vec![Step {
            describe: format!("send SIG{} to {}", signal.word(), list(&targets)),
            claims: vec![],
            undo: Undo::Irreversible { leaves },
            data: to_data(&Sentence { signal, targets, within_ms: millis(kill.within) }),
        }],
    })
}

fn millis(dur: Dur) -> u64 {
    u64::try_from(dur.0.as_millis()).expect("a manifest's durations are at most a year")
}

fn ended(named: &Named) -> FaultError {
    FaultError::new(format!("{named} has ended before anything was done to it"))
        .help("does something else end it? Run again, or select it by name instead of by number")
}

fn what_became_of(named: &Named) -> Result<String, FaultError> {
    Ok(match named.now()? {
        Some(_) => format!("{named} still runs"),
        None => format!("{named} is dead"),
    })
}

/// The kill under way.
struct Killing {
    targets: usize,
    /// The ends that are awaited, each with the time that it took.
    deaths: JoinSet<(Named, toprope_os::Result<Duration>)>,
    /// Those that were signalled and were not seen to end.
    alive: Vec<Named>,
    took: Vec<Duration>,
    /// Those that had ended between plan and apply.
    gone: Vec<Named>,
    deadline: Instant,
}

impl Killing {
    fn begin(sentence: Sentence) -> Result<Self, FaultError> {
        let Sentence { signal, targets, within_ms } = sentence;
        // All are held before the first is hit, so that they end together, and so that a parent's end, which may take
        // its children with it before it is their turn, counts as this kill's work.
        let mut held: Vec<(&Named, Pidfd)> = Vec::new();
        let mut gone = Vec::new();
        for named in &targets {
            match named.open()? {
                Some(pidfd) => held.push((named, pidfd)),
                None => gone.push(named.clone()),
            }
        }
        if held.is_empty() {
            return Err(ended(targets.first().expect("a step has at least one target")));
        }
        let (mut deaths, mut alive) = (JoinSet::new(), Vec::new());
        for (named, pidfd) in held {
            let sent = Instant::now();
            match pidfd.signal(signal.of_the_kernel()) {
                Ok(()) | Err(Error::ProcessGone(_)) => {}
                Err(e) => return Err(not_ours(named, e)),
            }
            alive.push(named.clone());
            let named = named.clone();
            deaths.spawn(async move { (named, pidfd.exited().await.map(|()| sent.elapsed())) });
        }
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        Ok(Self { targets: targets.len(), deaths, alive, took: Vec::new(), gone, deadline })
    }

    /// What is known so far; does not wait.
    fn look(&mut self) -> Result<Effect, FaultError> {
        while let Some(Ok((named, took))) = self.deaths.try_join_next() {
            self.took.push(took.map_err(|e| FaultError::because(format!("the end of {named} cannot be seen"), e))?);
            self.alive.retain(|n| n.id != named.id);
        }
        let alive = &self.alive;
        let by_us = self.took.len();
        let mut notes = Vec::new();
        if !alive.is_empty() {
            notes.push(format!("still running: {}", list(alive)));
        }
        if !self.gone.is_empty() {
            notes.push(format!("had ended before: {}", list(&self.gone)));
        }
        let mut times: Vec<f64> = self.took.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        let measures = Spread::of(&mut times).map(|spread| Measure {
            name: "time to die".into(),
            unit: "ms".into(),
            asked: None,
            measured: spread.p50,
            samples: times.len() as u64,
            spread: (times.len() > 1).then_some(spread),
        });
        Ok(Effect {
            took: if alive.is_empty() { Some(by_us > 0) } else { (Instant::now() >= self.deadline).then_some(false) },
            reached: Some(by_us as f64 / self.targets as f64),
            measures: measures.into_iter().collect(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }
}

impl Injection for Killing {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async { self.look() }.boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async { Ok(None) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toprope_os::process::descendants;

    use super::*;
    use crate::testing::{Victim, eventually, host, known_effect, params, planned};

    async fn kill(parameters: serde_json::Value) -> (Plan, Step, Effect) {
        let params = params(parameters);
        let (plan, step) = planned(&ProcessKill, &params, &host()).await;
        let mut injection = ProcessKill.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        let effect = known_effect(injection.as_mut()).await;
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        (plan, step, effect)
    }

    #[tokio::test]
    async fn a_killed_process_is_dead_and_its_death_measured() {
        let victim = Victim::sleeping();
        let (plan, step, effect) = kill(json!({"target": {"pid": victim.pid()}})).await;
        assert!(!victim.is_alive());
        assert_eq!(plan.targets, [format!("sleep (pid {})", victim.pid())]);
        assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)));
        assert!(effect.measures[0].measured < 10_000.0 && effect.measures[0].samples == 1, "{effect:?}");
        let notes = ProcessKill.undo(&step, &host()).await.expect("there is nothing to restore");
        assert!(notes[0].ends_with("is dead"), "{notes:?}");
    }

    #[tokio::test]
    async fn planning_harms_nobody_and_undoing_what_never_was_says_so() {
        let victim = Victim::sleeping();
        let (_, step) = planned(&ProcessKill, &params(json!({"target": {"pid": victim.pid()}})), &host()).await;
        for _ in 0..2 {
            let notes = ProcessKill.undo(&step, &host()).await.expect("there is nothing to restore");
            assert!(notes[0].ends_with("still runs"), "{notes:?}");
        }
        assert!(victim.is_alive());
    }

    #[tokio::test]
    async fn a_process_that_stays_is_a_fault_that_did_not_take() {
        let victim = Victim::script("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        let (_, _, effect) = kill(json!({"target": {"pid": victim.pid()}, "signal": "TERM", "within": "300ms"})).await;
        assert_eq!((effect.took, effect.reached), (Some(false), Some(0.0)));
        assert!(effect.note.expect("it says who").contains("still running: sh"));
        assert!(victim.is_alive());
    }

    #[tokio::test]
    async fn a_process_that_ends_in_its_own_time_is_waited_for() {
        let victim = Victim::script("trap 'sleep 0.3; exit' TERM; echo ready; while :; do sleep 0.05; done");
        let (_, _, effect) = kill(json!({"target": {"pid": victim.pid()}, "signal": "TERM"})).await;
        assert_eq!(effect.took, Some(true));
        assert!(effect.measures[0].measured >= 250.0, "{effect:?}");
    }

    #[tokio::test]
    async fn a_tree_goes_with_its_root() {
        let victim = Victim::script("sleep 600 & sleep 600 & echo ready; wait");
        eventually("both children sleep", || {
            let children = descendants(victim.pid()).expect("/proc is mounted");
            children
                .iter()
                .filter(|id| toprope_os::process::ProcessInfo::of(id.pid()).is_ok_and(|p| p.name == "sleep"))
                .count()
                == 2
        });
        let children = descendants(victim.pid()).expect("/proc is mounted");
        let (plan, _, effect) = kill(json!({"target": {"pid": victim.pid()}, "tree": true})).await;
        assert_eq!((plan.targets.len(), plan.matched, effect.took), (3, 3, Some(true)));
        assert!(children.iter().all(|id| !id.is_alive()));
    }

    #[tokio::test]
    async fn whoever_ended_before_is_not_counted_as_killed() {
        let (mut first, second) = (Victim::sleeping(), Victim::sleeping());
        let params = params(json!({"target": {"pid": first.pid()}}));
        let (_, mut step) = planned(&ProcessKill, &params, &host()).await;
        let (_, other) =
            planned(&ProcessKill, &crate::testing::params(json!({"target": {"pid": second.pid()}})), &host()).await;
        first.end();
        let dead = ProcessKill.apply(&step, &params, &host()).await.err().expect("it has ended");
        assert!(dead.message.contains("has ended before") && dead.help.is_some(), "{dead}");
        // Both in one step, as `process: sleep` would have planned them.
        let targets = [step.data["targets"][0].clone(), other.data["targets"][0].clone()];
        step.data["targets"] = json!(targets);
        let mut injection = ProcessKill.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        let effect = known_effect(injection.as_mut()).await;
        assert_eq!((effect.took, effect.reached), (Some(true), Some(0.5)));
        assert!(effect.note.expect("it says who").contains("had ended before"));
    }

    #[tokio::test]
    async fn a_reused_number_is_not_hit() {
        let victim = Victim::sleeping();
        let params = params(json!({"target": {"pid": victim.pid()}}));
        let (_, mut step) = planned(&ProcessKill, &params, &host()).await;
        let start = &mut step.data["targets"][0]["id"]["start_time"];
        *start = json!(start.as_u64().expect("clock ticks") - 1);
        assert!(ProcessKill.apply(&step, &params, &host()).await.is_err());
        assert!(victim.is_alive());
    }
}
