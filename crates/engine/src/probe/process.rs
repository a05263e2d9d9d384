//! `process`: looks at processes of this host.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use toprope_model::target::{Pick, Target};
use toprope_model::units::short;
use toprope_model::{Comparison, KindSpec, Node, Problems, Size, fields};
use toprope_os::process::{ProcessId, ProcessInfo, State, open_files};

use super::params::{self, Params};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};
use crate::host::Host;
use crate::target::{describe, resolve};

fields! {
    /// Parameters of `process`.
    struct Process {
        /// The processes: for instance `{process: nginx}`, `{port: 8080}` or `{unit: postgresql}`.
        target: Target,
        /// Whether they must run: at least one of them; or, with `false`, none.
        alive: bool = "true",
        /// How many there must be.
        count: Option<Comparison>,
        /// How busy each may be, in percent of one core, averaged over the last second: `< 80%`, or `< 250` for two and
        /// a half cores.
        cpu: Option<Comparison>,
        /// How much memory each may have resident.
        rss: Option<Comparison>,
        /// How many file descriptors each may have open.
        fds: Option<Comparison>,
    }
}

impl Params for Process {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        if self.target.0.pick != Pick::All {
            let span = node.get("target").map_or(node.span, |n| n.span);
            problems.add(span, "a probe looks at every process that matches", "leave out `pick`");
        }
        let looks_closer = ["count", "cpu", "rss", "fds"].iter().find_map(|key| node.get(key));
        if let (false, Some(closer)) = (self.alive, looks_closer) {
            problems.add(closer.span, "`alive: false` says that there is none to look at", "leave this out");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "process",
    summary: "Looks at processes of this host: whether they run, how many, how busy, how large.",
    docs: "\
The processes are looked up anew whenever one of them ends, so that a restarted service is seen under its new number; and
every five seconds otherwise (every second if `count` is given), for those that came in addition. Every process that matches is judged alone. Toprope itself and
the processes that it was started from are left out.

The value of a sample is the largest reading of the first of `cpu`, `rss` (in bytes) and `fds` that is given, and else the
number of processes.

**Good** is at least one process that matches, and all of them within the bounds. A process that is stopped or that waits
is alive; one that has ended and was not yet waited for is not. **No evidence**: the descriptors of somebody else's process
cannot be counted without root.",
    example: "\
- process:
    target: {process: postgres}
    rss: < 500MiB
    fds: < 900
",
    fields: Process::fields,
    check: params::check::<Process>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Process = params::read(params)?;
        let host = Host {
            services: context.services.clone(),
            // What Toprope started is left out by faults alone: the shop of `demo`, the command of `exec` can be looked at.
            own: vec![],
            invoking_user: context.invoking_user,
            directory: PathBuf::new(),
            person: None,
            pass_throughs: vec![],
            pass_through: None,
        };
        Ok(Box::new(ProcessProbe { params, host, seen: Mutex::default() }))
    }
}

/// The processes are looked up this often where nothing happened to them: there may be others by now.
const LOOK_UP: Duration = Duration::from_secs(5);
/// The same where they are counted.
const LOOK_UP_TO_COUNT: Duration = Duration::from_secs(1);
/// A lookup reads much of `/proc`. It is not repeated before this many times its own duration, so that it never takes
/// more than a tenth of a core.
const REST: u32 = 10;
/// Processor time is averaged over this: the kernel counts it in steps of 10 ms.
const AVERAGE: Duration = Duration::from_secs(1);
/// No average is taken over less.
const AT_LEAST: Duration = Duration::from_millis(100);

struct ProcessProbe {
    params: Process,
    host: Host,
    seen: Mutex<Seen>,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    known: Vec<ProcessInfo>,
    /// Why none is known.
    none: String,
    looked_up: Option<LookUp>,
    /// Processor time used, and when, the oldest first.
    cpu: HashMap<ProcessId, VecDeque<(Instant, Duration)>>,
}

#[derive(Clone, Copy)]
struct LookUp {
    ended: Instant,
    took: Duration,
}

/// A process as it was in one sample.
struct Reading {
    info: ProcessInfo,
    /// In percent of one core; `None` before there are two readings to compare.
    cpu: Option<f64>,
    /// Open descriptors, where somebody wants to know; `None` also where we may not see them.
    fds: Option<u64>,
}

impl Seen {
    /// The processes that run now.
    fn look(&mut self, params: &Process, host: &Host) -> Vec<Reading> {
        let look_up = if params.count.is_some() { LOOK_UP_TO_COUNT } else { LOOK_UP };
        let mut running = self.running(params);
        let lost = running.len() < self.known.len() || running.is_empty();
        let due = self.looked_up.is_none_or(|last| {
            let rested = last.ended.elapsed() >= last.took * REST;
            rested && (lost || last.ended.elapsed() >= look_up)
        });
        if due {
            let begun = Instant::now();
            match resolve(&params.target, 0, host) {
                Ok(found) => running = found.picked,
                Err(e) => {
                    self.none = e.message;
                    running.clear();
                }
            }
            self.looked_up = Some(LookUp { ended: Instant::now(), took: begun.elapsed() });
        }
        self.cpu.retain(|id, _| running.iter().any(|info| info.id == *id));
        self.known.clone_from(&running);
        let now = Instant::now();
        let fds = |info: &ProcessInfo| params.fds.as_ref().and_then(|_| open_files(&info.id));
        let readings = running.into_iter().map(|info| Reading { cpu: self.cpu_of(&info, now), fds: fds(&info), info });
        // One that ended meanwhile has none to count, which is not the same as hiding them.
        readings.filter(|r| params.fds.is_none() || r.fds.is_some() || r.info.id.is_alive()).collect()
    }

    /// Those of the known ones that have not ended. They are read anew only where more is asked than that.
    fn running(&self, params: &Process) -> Vec<ProcessInfo> {
        let reads = params.cpu.is_some() || params.rss.is_some() || params.fds.is_some();
        let anew = |known: &ProcessInfo| match reads {
            true => ProcessInfo::of(known.id.pid()).ok().filter(|now| now.id == known.id && !has_ended(now)),
            false => known.id.is_alive().then(|| known.clone()),
        };
        self.known.iter().filter_map(anew).collect()
    }

    fn cpu_of(&mut self, info: &ProcessInfo, now: Instant) -> Option<f64> {
        let history = self.cpu.entry(info.id).or_default();
        history.push_back((now, info.cpu_time));
        // One reading that is older than the average stays, to reach back that far.
        while history.get(1).is_some_and(|(at, _)| now - *at >= AVERAGE) {
            history.pop_front();
        }
        let (since, used) = *history.front()?;
        let over = now - since;
        (over >= AT_LEAST).then(|| info.cpu_time.saturating_sub(used).as_secs_f64() / over.as_secs_f64() * 100.0)
    }
}

/// A main thread may end before the others; then the process lives.
fn has_ended(info: &ProcessInfo) -> bool {
    match info.state {
        State::Dead => true,
        State::Zombie => info.threads <= 1,
        _ => false,
    }
}

impl ProcessProbe {
    async fn look(self: &Arc<Self>) -> Vec<Reading> {
        let probe = Arc::clone(self);
        #[expect(clippy::disallowed_methods, reason = "one pass over /proc at most: milliseconds")]
        let looked = tokio::task::spawn_blocking(move || {
            let mut seen = probe.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.look(&probe.params, &probe.host)
        });
        looked.await.unwrap_or_default()
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes and counts, as charts show them")]
    fn judge(&self, readings: &[Reading]) -> Answer {
        let params = &self.params;
        let count = readings.len() as f64;
        let mut answer = Answer { value: Some(count), ..Answer::good() };
        match readings.first() {
            Some(first) if !params.alive => {
                answer.bad = Some(format!("{} runs", describe(&first.info)));
                return answer;
            }
            None if params.alive => {
                let none = self.seen.lock().unwrap_or_else(PoisonError::into_inner).none.clone();
                answer.bad = Some(if none.is_empty() { "no such process runs".into() } else { none });
                return answer;
            }
            _ => {}
        }
        if let Some(bound) = params.count.as_ref().filter(|bound| !bound.holds(count)) {
            answer.bad = Some(format!("the number of processes is {count}, not {bound}"));
        }
        let mut largest = None;
        let mut judge = |what: &str,
                         bound: &Option<Comparison>,
                         read: &dyn Fn(&Reading) -> Option<f64>,
                         show: &dyn Fn(f64) -> String| {
            let Some(bound) = bound else { return };
            let values = readings.iter().filter_map(|r| Some((r, read(r)?)));
            if largest.is_none() {
                largest = values.clone().map(|(_, v)| v).max_by(f64::total_cmp);
            }
            if let Some((reading, value)) = values.into_iter().find(|(_, v)| !bound.holds(*v)) {
                answer.bad.get_or_insert_with(|| {
                    format!("{what} of {} is {}, not {bound}", describe(&reading.info), show(value))
                });
            }
        };
        judge("cpu", &params.cpu, &|r| r.cpu, &|v| format!("{}%", short(v)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a whole number of bytes")]
        judge("rss", &params.rss, &|r| Some(r.info.rss as f64), &|v| Size(v as u64).to_string());
        judge("the number of descriptors", &params.fds, &|r| r.fds.map(|n| n as f64), &short);
        if let (Some(_), Some(hidden)) = (&params.fds, readings.iter().find(|r| r.fds.is_none())) {
            let why =
                format!("the descriptors of {} cannot be counted without root or its user", describe(&hidden.info));
            return Answer::broken(why);
        }
        Answer { value: largest.or(answer.value), ..answer }
    }
}

impl Probe for ProcessProbe {
    fn asks(&self) -> String {
        format!("processes: {}", self.params.target.0)
    }

    fn tolerates(&self) -> String {
        let params = &self.params;
        let bounds = [("count", &params.count), ("cpu", &params.cpu), ("rss", &params.rss), ("fds", &params.fds)];
        let bounds = bounds.into_iter().filter_map(|(what, bound)| Some(format!("{what} {}", bound.as_ref()?)));
        std::iter::once(if params.alive { "alive".to_owned() } else { "none alive".to_owned() })
            .chain(bounds)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn unit(&self) -> &'static str {
        match (&self.params.cpu, &self.params.rss, &self.params.fds) {
            (Some(_), _, _) => "%",
            (None, Some(_), _) => "B",
            (None, None, Some(_)) => "descriptors",
            (None, None, None) => "processes",
        }
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), ProbeError>> {
        // The first reading, so that the first sample has one to compare with.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(&self.params, &self.host);
        Box::pin(std::future::ready(Ok(())))
    }

    fn sample(self: Arc<Self>, _moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let mut readings = self.look().await;
            if self.params.cpu.is_some() && readings.iter().any(|r| r.cpu.is_none()) {
                tokio::time::sleep(AT_LEAST).await;
                readings = self.look().await;
            }
            self.judge(&readings)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::probe::testing::{PATIENCE, ask, probe, problems};

    /// A child that ends with the test.
    struct Running(Child);

    impl Running {
        fn start(program: &str, args: &[&str]) -> Self {
            let mut command = Command::new(program);
            Self(command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }

        fn end(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.end();
        }
    }

    /// Asks until the answer is as wanted: a new child has not yet become its program, and lookups rest.
    async fn asked_until(probe: &Arc<dyn Probe>, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask(probe).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "it stays {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_process_is_seen_until_it_ends_and_again_when_it_is_restarted() {
        // A command line that no other process has.
        let mark = format!("600.{}", std::process::id());
        let selector = format!("target: {{command-line: '^sleep {}$'}}", mark.replace('.', "\\."));
        let alive = probe(&Kind, &selector);
        let none = probe(&Kind, &format!("{{{selector}, alive: false}}"));
        alive.begin().await.unwrap();
        assert!(ask(&alive).await.bad.unwrap().contains("no process matches"), "it says why");
        assert_eq!(ask(&none).await.bad, None);
        let mut child = Running::start("sleep", &[&mark]);
        let answer = asked_until(&alive, |a| a.bad.is_none()).await;
        assert_eq!((answer.value, alive.unit()), (Some(1.0), "processes"));
        let runs = asked_until(&none, |a| a.bad.is_some()).await;
        assert_eq!(runs.bad.unwrap(), format!("sleep (pid {}) runs", child.pid()));
        child.end();
        asked_until(&alive, |a| a.bad.is_some()).await;
        let second = Running::start("sleep", &[&mark]);
        asked_until(&alive, |a| a.bad.is_none()).await;
        drop(second);
    }

    #[tokio::test]
    async fn a_zombie_is_not_alive() {
        let mut child = Running::start("sleep", &["600"]);
        let alive = probe(&Kind, &format!("target: {{pid: {}}}", child.pid()));
        assert_eq!(ask(&alive).await.bad, None);
        // Killed and not waited for.
        child.0.kill().unwrap();
        asked_until(&alive, |a| a.bad.is_some()).await;
    }

    #[tokio::test]
    async fn readings_are_held_against_their_bounds() {
        let busy = Running::start("sh", &["-c", "while :; do :; done"]);
        let pid = busy.pid();
        let cpu = probe(&Kind, &format!("{{target: {{pid: {pid}}}, cpu: '< 5%'}}"));
        let answer = ask(&cpu).await;
        assert!(answer.bad.as_ref().unwrap().starts_with("cpu of sh"), "{answer:?}");
        assert!(answer.value.is_some_and(|v| v > 5.0 && v < 150.0), "{answer:?}");
        let idle = Running::start("sleep", &["600"]);
        let all = format!("{{target: {{pid: {}}}, cpu: '< 50%', rss: '1KiB..1GiB', fds: '> 2', count: 1}}", idle.pid());
        let all = probe(&Kind, &all);
        assert_eq!(all.tolerates(), "alive, count 1, cpu < 50%, rss 1KiB..1GiB, fds > 2");
        let answer = ask(&all).await;
        assert!(answer.bad.is_none() && answer.value.is_some_and(|v| v < 50.0), "{answer:?}");
        let rss = ask(&probe(&Kind, &format!("{{target: {{pid: {}}}, rss: '< 1KiB'}}", idle.pid()))).await;
        assert!(rss.bad.as_ref().unwrap().starts_with("rss of sleep"), "{rss:?}");
        assert!(rss.value.is_some_and(|v| v > 1024.0));
        let fds = ask(&probe(&Kind, &format!("{{target: {{pid: {}}}, fds: '> 1000'}}", idle.pid()))).await;
        assert!(fds.bad.unwrap().starts_with("the number of descriptors of sleep"));
        let count = ask(&probe(&Kind, &format!("{{target: {{pid: {}}}, count: 2}}", idle.pid()))).await;
        assert_eq!(count.bad.unwrap(), "the number of processes is 1, not 2");
    }

    #[test]
    fn a_target_is_needed_and_all_of_it_is_watched() {
        assert!(problems(&Kind, "{alive: true}").contains("`target` is missing"));
        assert!(problems(&Kind, "{target: {}}").contains("selects nothing"));
        assert!(problems(&Kind, "{target: {process: x, pick: one}}").contains("every process that matches"));
        assert!(problems(&Kind, "{target: {process: x}, alive: false, rss: '< 1MiB'}").contains("none to look at"));
    }
}
