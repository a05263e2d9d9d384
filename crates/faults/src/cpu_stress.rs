//! `cpu-stress`: takes a share of each core's time, as a noisy neighbour or a runaway job does.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, UndoKind, check};
use toprope_model::step::{Effect, Measure, Plan, Spread, Step, Undo};
use toprope_model::units::short;
use toprope_model::{KindSpec, Percent, fields};
use toprope_os::cpu::{self, CpuLoad, PERIOD, Usage};

use crate::targeted::{data_of, to_data};
use crate::thread::blocking;

fields! {
    /// What `cpu-stress` takes.
    struct CpuParameters {
        /// The share of each core's time to take. What other programs use comes on top of it.
        load: Percent,
        /// On how many cores, those with the lowest numbers first. All that Toprope may use, unless given.
        cores: Option<u32>,
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "cpu-stress",
        summary: "Keep cores busy for a share of their time.",
        docs: "\
One thread on each core computes for the given share of every 20 ms and rests for the remainder. It is steered by the
CPU time that the kernel counts for it, so on a machine with time to spare the share is met within 2 points, and time
that other work took is caught up with afterwards, up to 200 ms of it.

It competes as any other program does, at normal priority. A core that others want too is shared out by the kernel:
with one other busy program, a load of 80% gets about half of the core. A CPU limit on Toprope's own control group
holds for the load too.

The fault took when every core had the share that was asked for, less 2 points at most (of a share below 4%, half
of it). Below that the effect says how many cores had it and how much they had on average, and the run is inconclusive:
what was asked for was not tested. Ask for what the machine has to spare.

The threads belong to the injector, so they end with it however it ends.",
        example: "- cpu-stress: {load: 80%, for: 30s}",
        fields: CpuParameters::fields,
        check: check::<CpuParameters>,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::SharesHost,
    needs: &[],
    strength: &["load", "cores"],
    recovers: false,
    ramps: &["load"],
};

/// How far below the asked share a core may be and still count as loaded: the accuracy that is claimed, and of a small
/// share half, so that no load at all never counts.
fn margin(asked: f64) -> f64 {
    const ACCURACY: f64 = 0.02;
    ACCURACY.min(asked / 2.0)
}

/// What is measured in less time than this says little: work comes before rest within a period.
const TOO_SHORT: Duration = PERIOD.saturating_mul(10);

/// The fault.
pub(crate) struct CpuStress;

/// What a step says: which cores. How much may change while it is in force, so that is in the parameters.
#[derive(Serialize, Deserialize)]
struct Cores {
    cores: Vec<usize>,
}

impl Fault for CpuStress {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, _: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move { plan(params) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move { Ok(Box::new(Stressing::begin(data_of(step)?, params.read()?)?) as Box<dyn Injection>) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        // An injector's end is awaited by who calls this, and no thread outlives its process.
        async move { Ok(vec![format!("the load on {} ended with its injector", list(&data_of::<Cores>(step)?.cores))]) }
            .boxed()
    }
}

fn plan(params: &Params) -> Result<Plan, FaultError> {
    let wanted: CpuParameters = params.read()?;
    let allowed = cpu::allowed().map_err(|e| FaultError::because("no core can be loaded", e))?;
    let count = wanted.cores.map_or(allowed.len(), |cores| cores as usize);
    let Some(cores) = allowed.get(..count).filter(|cores| !cores.is_empty()) else {
        return Err(FaultError::new(format!(
            "{count} cores were asked for, and this process may use {}",
            allowed.len()
        ))
        .help(format!("ask for 1 to {}, or leave `cores` out to load them all", allowed.len())));
    };
    let cores = cores.to_vec();
    Ok(Plan {
        path: format!("a thread on each core, steered by its CPU time every {} ms", PERIOD.as_millis()),
        matched: allowed.len(),
        targets: cores.iter().map(|core| format!("core {core}")).collect(),
        warnings: vec![],
        steps: vec![Step {
            describe: format!("take {} of {}", wanted.load, list(&cores)),
            claims: cores.iter().map(|core| format!("core {core}")).collect(),
            undo: Undo::KernelOwned("the threads end with the injector".into()),
            data: to_data(&Cores { cores }),
        }],
    })
}

/// `core 0` or `cores 0, 1`.
fn list(cores: &[usize]) -> String {
    let numbers: Vec<String> = cores.iter().map(usize::to_string).collect();
    format!("{} {}", if cores.len() == 1 { "core" } else { "cores" }, numbers.join(", "))
}

/// The load in force.
struct Stressing {
    load: CpuLoad,
    asked: Percent,
    /// What the threads had used when the share was last changed.
    since: Vec<Usage>,
    /// What they had used at the last look, and the share of each core from look to look since that change.
    lately: Vec<Usage>,
    seen: Vec<Shares>,
}

/// Shares of a core's time, counted by tenths of a percent: as small as this however long the fault lasts.
#[derive(Clone)]
struct Shares(Vec<u32>);

impl Shares {
    const fn none() -> Self {
        Self(Vec::new())
    }

    fn push(&mut self, share: f64) {
        self.0.resize(1001, 0);
        let tenths = (share * 1000.0).round().clamp(0.0, 1000.0) as usize;
        self.0[tenths] = self.0[tenths].saturating_add(1);
    }

    /// In percent, by nearest rank; `None` of less than two.
    fn spread(&self) -> Option<Spread> {
        let all: u64 = self.0.iter().map(|n| u64::from(*n)).sum();
        let at = |q: f64| {
            let rank = ((q * all as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let tenths = self.0.iter().position(|n| {
                seen += u64::from(*n);
                seen >= rank
            });
            tenths.map(|tenths| tenths as f64 / 10.0)
        };
        (all > 1).then_some(())?;
        Some(Spread { min: at(0.0)?, p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

impl Stressing {
    fn begin(step: Cores, wanted: CpuParameters) -> Result<Self, FaultError> {
        let load = CpuLoad::start(&step.cores, wanted.load.share())
            .map_err(|e| FaultError::because(format!("{} cannot be loaded", list(&step.cores)), e))?;
        let since = usage(&load)?;
        let seen = vec![Shares::none(); since.len()];
        Ok(Self { load, asked: wanted.load, lately: since.clone(), since, seen })
    }

    fn look(&mut self) -> Result<Effect, FaultError> {
        let now = usage(&self.load)?;
        let lately = shares(&self.lately, &now);
        if lately.iter().all(|(_, wall, _)| *wall >= TOO_SHORT) {
            self.seen.iter_mut().zip(&lately).for_each(|(seen, (_, _, share))| seen.push(*share));
            self.lately.clone_from(&now);
        }
        let mut effect = effect(self.asked, &shares(&self.since, &now));
        for (measure, seen) in effect.measures.iter_mut().zip(&self.seen) {
            measure.spread = seen.spread();
        }
        Ok(effect)
    }
}

/// The share that each core's thread had between two looks, and how long that was.
fn shares(before: &[Usage], now: &[Usage]) -> Vec<(usize, Duration, f64)> {
    let share = |(before, now): (&Usage, &Usage)| {
        let wall = now.at.saturating_sub(before.at);
        (now.core, wall, now.cpu.saturating_sub(before.cpu).as_secs_f64() / wall.as_secs_f64())
    };
    before.iter().zip(now).map(share).collect()
}

fn usage(load: &CpuLoad) -> Result<Vec<Usage>, FaultError> {
    load.usage().map_err(|e| FaultError::because("the load cannot be measured", e))
}

/// From the share that each core's thread had, in which time.
fn effect(asked: Percent, cores: &[(usize, Duration, f64)]) -> Effect {
    if cores.iter().any(|(_, wall, _)| *wall < TOO_SHORT) {
        return Effect::default();
    }
    let loaded = cores.iter().filter(|(_, _, share)| *share >= asked.share() - margin(asked.share())).count();
    let mean = cores.iter().map(|(_, _, share)| share).sum::<f64>() / cores.len() as f64;
    let short_of = cores.len() - loaded;
    Effect {
        // Nothing was asked for yet, at the foot of a ramp.
        took: (asked.share() > 0.0).then_some(short_of == 0),
        reached: Some(loaded as f64 / cores.len() as f64),
        measures: cores
            .iter()
            .map(|(core, wall, share)| Measure {
                name: format!("load of core {core}"),
                unit: "%".into(),
                asked: Some(asked.0),
                measured: share * 100.0,
                samples: (wall.as_nanos() / PERIOD.as_nanos()) as u64,
                spread: None,
            })
            .collect(),
        note: (short_of > 0).then(|| {
            format!(
                "{short_of} of {} cores had less than {asked} to give: {}% on average, because other work wants them or \
                 a CPU limit holds",
                cores.len(),
                short(mean * 100.0)
            )
        }),
    }
}

impl Injection for Stressing {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async { self.look() }.boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async move {
            let wanted: CpuParameters = params.read()?;
            if wanted.cores.is_some_and(|cores| cores as usize != self.since.len()) {
                return Err(FaultError::new("`cores` cannot change while the fault is in force")
                    .help("only `load` can be ramped"));
            }
            let failed = |e| FaultError::because(format!("the load cannot be changed to {}", wanted.load), e);
            self.load.set_share(wanted.load.share()).map_err(failed)?;
            (self.asked, self.since) = (wanted.load, usage(&self.load)?);
            self.lately.clone_from(&self.since);
            self.seen.fill(Shares::none());
            Ok(())
        }
        .boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        // The drop waits for the threads, which takes up to a period.
        blocking(move || {
            drop(self);
            Ok(None)
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::testing::injector::Injector;
    use crate::testing::{PATIENCE, eventually, host, known_effect, params, planned};

    /// The CPU time of a process's thread of a name, in seconds, as `/proc` tells everybody.
    fn seconds_in_proc(pid: u32, name: &str) -> Option<f64> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let fields = stats.filter_map(|stat| {
            let (head, tail) = stat.rsplit_once(") ")?;
            let tail: Vec<String> = tail.split(' ').map(str::to_owned).collect();
            head.ends_with(&format!("({name}")).then_some(tail)
        });
        // utime and stime are fields 14 and 15 of proc_pid_stat(5); the tail begins with field 3.
        let ticks = |fields: Vec<String>| -> Option<f64> {
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        };
        fields.filter_map(ticks).next().map(|ticks| ticks / 100.0)
    }

    /// Both loads of a process of its own, in percent of each core: asked for, and seen from outside over a time.
    fn loads_seen(load: &str, time: Duration) -> (Effect, Vec<(usize, f64)>) {
        let (injector, effect) = Injector::child("cpu-stress", &json!({"load": load}));
        let cores = cpu::allowed().expect("readable");
        let seconds = |core: &usize| seconds_in_proc(injector.pid(), &format!("load-core-{core}")).expect("it runs");
        let (start, before) = (Instant::now(), cores.iter().map(seconds).collect::<Vec<_>>());
        std::thread::sleep(time);
        let after: Vec<f64> = cores.iter().map(seconds).collect();
        let wall = start.elapsed().as_secs_f64();
        let used = before.iter().zip(after).map(|(before, after)| (after - before) / wall * 100.0);
        let seen = cores.iter().copied().zip(used).collect();
        assert!(injector.release().success());
        (effect, seen)
    }

    #[test]
    fn every_core_is_loaded_as_seen_from_outside() {
        let (effect, seen) = loads_seen("40%", Duration::from_secs(2));
        assert_eq!(effect.measures.len(), seen.len());
        for (measure, (core, load)) in effect.measures.iter().zip(seen) {
            // Others want the same cores, so that only too much is certainly wrong: 40%, and what is caught up with.
            assert!(load > 0.0 && load < 56.0, "core {core} has {load}%, {measure:?}");
            assert_eq!((&measure.name, measure.asked), (&format!("load of core {core}"), Some(40.0)));
            assert!(measure.measured < 56.0 && measure.unit == "%" && measure.samples >= 10, "{measure:?}");
        }
    }

    #[tokio::test]
    async fn a_release_ends_the_threads() {
        let params = params(json!({"load": "40%"}));
        let (plan, step) = planned(&CpuStress, &params, &host()).await;
        let cores = cpu::allowed().expect("readable");
        assert_eq!((plan.matched, plan.targets.len(), step.claims.len()), (cores.len(), cores.len(), cores.len()));
        let injection = CpuStress.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        let runs = |core: &usize| seconds_in_proc(std::process::id(), &format!("load-core-{core}")).is_some();
        assert!(cores.iter().all(runs));
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        // A thread that was waited for may still be listed for a moment.
        eventually("no thread is left", || !cores.iter().any(runs));
        let notes = CpuStress.undo(&step, &host()).await.expect("nothing is left to do");
        assert!(notes[0].contains("core"), "{notes:?}");
    }

    /// Run on an idle machine with `--ignored --nocapture`.
    #[test]
    #[ignore = "needs an idle machine, and takes a minute"]
    fn accuracy() {
        for load in ["10%", "50%", "80%", "95%"] {
            let (effect, seen) = loads_seen(load, Duration::from_secs(12));
            for (measure, (core, seen)) in effect.measures.iter().zip(seen) {
                println!(
                    "core {core}: asked {load}, seen {seen:.2}%, measured after {} periods {:.2}%",
                    measure.samples, measure.measured
                );
                assert!((seen - measure.asked.expect("a load")).abs() < 2.0);
            }
        }
    }

    #[tokio::test]
    async fn a_ramp_changes_the_load_and_what_is_measured() {
        let (low, high) = (params(json!({"load": "0%", "cores": 1})), params(json!({"load": "100%", "cores": 1})));
        let (plan, step) = planned(&CpuStress, &low, &host()).await;
        assert_eq!(plan.targets.len(), 1);
        let mut injection = CpuStress.apply(&step, &low, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(injection.observe().await.expect("it runs").took, None, "there was no time to tell");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let idle = injection.observe().await.expect("it runs");
        assert!(idle.took.is_none() && idle.measures[0].measured < 2.0, "{idle:?}");
        injection.adjust(&high).await.expect("load can be ramped");
        let deadline = Instant::now() + PATIENCE;
        while known_effect(injection.as_mut()).await.measures[0].measured < 3.0 {
            assert!(Instant::now() < deadline, "the core is never loaded");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(known_effect(injection.as_mut()).await.measures[0].asked, Some(100.0));
        let both = params(json!({"load": "100%", "cores": 2}));
        assert!(injection.adjust(&both).await.is_err());
    }

    #[tokio::test]
    async fn cores_that_are_not_there_are_refused() {
        for cores in [0, 100_000] {
            let refused = CpuStress.plan(&params(json!({"load": "50%", "cores": cores})), &host()).await;
            let error = refused.expect_err("nobody has so many");
            assert!(error.message.contains(&format!("{cores} cores")) && error.help.is_some(), "{error:?}");
        }
        assert!(CpuStress.plan(&params(json!({"load": "150%"})), &host()).await.is_err());
    }

    #[test]
    fn the_effect_says_how_far_it_got() {
        let second = Duration::from_secs(1);
        let asked = Percent(80.0);
        let all = effect(asked, &[(0, second, 0.79), (1, second, 0.81)]);
        assert_eq!((all.took, all.reached, all.note), (Some(true), Some(1.0), None));
        let half = effect(asked, &[(0, second, 0.8), (1, second, 0.5)]);
        assert_eq!((half.took, half.reached), (Some(false), Some(0.5)));
        assert!(half.note.expect("it says why").contains("1 of 2 cores had less than 80% to give: 65%"));
        let starved = effect(asked, &[(0, second, 0.3), (1, second, 0.1)]);
        assert_eq!((starved.took, starved.reached), (Some(false), Some(0.0)));
        // The margin, from both sides.
        assert_eq!(effect(Percent(1.0), &[(0, second, 0.004)]).took, Some(false), "nearly nothing is not something");
        assert_eq!(effect(Percent(1.0), &[(0, second, 0.006)]).took, Some(true));
        assert_eq!(effect(asked, &[(0, second, 0.7801)]).took, Some(true));
        assert_eq!(effect(asked, &[(0, second, 0.7799)]).took, Some(false));
        assert_eq!(effect(asked, &[(0, Duration::from_millis(30), 0.8)]), Effect::default());
    }

    #[test]
    fn shares_are_spread_by_rank_and_take_no_more_room_the_longer_they_are_counted() {
        let mut shares = Shares::none();
        assert_eq!(shares.spread(), None);
        shares.push(0.8);
        assert_eq!(shares.spread(), None, "one is no distribution");
        (0..98).for_each(|_| shares.push(0.8));
        shares.push(0.2);
        shares.push(1.02);
        let spread = shares.spread().expect("there are many");
        assert_eq!((spread.min, spread.p50, spread.p99, spread.max), (20.0, 80.0, 80.0, 100.0));
        assert_eq!(shares.0.len(), 1001);
    }
}
