//! How fast each fault is in effect and gone again, and how exact it is, as the system that it hits sees it.
//!
//! Nothing here asks Toprope when something happened. A look at the system (a connection, the state of a process, the
//! room on a disk) is taken again and again, and the first that shows the effect, or no longer shows it, ends the time.

pub(super) mod look;
mod scene;

use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use toprope_faults::FAULTS;
use toprope_model::event::{Event, Phase, Record};

use super::run::{Home, Run, web_server};
use super::{Bench, Row, percentiles};
use crate::failure::{Failure, OnFile};
use scene::{Scene, Stage};

/// How long the steady state is watched.
const STEADY: Duration = Duration::from_millis(200);
/// Between an effect that was seen and the decision to stop: starting the fault is over by then.
const SETTLE: Duration = Duration::from_millis(200);
/// From one look to the next. What looks more often is itself a load on what is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// A fault that is not in effect, or not gone, after so long never will be.
const PATIENCE: Duration = Duration::from_secs(20);

/// A network and mounts of this process's own, with a small file system in memory to fill: nothing of the machine is
/// touched. Call it before any thread is started.
pub(super) fn enter_own_host() -> Result<TempDir, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::Found(format!("cannot {what}: {error}; faults are measured as root, in namespaces of their own"))
    };
    toprope_os::namespace::enter_new_net().map_err(|error| failed("make a network", &error))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed("have mounts of its own", &error))?;
    let directory = tempfile::tempdir().on("create", "a temporary directory")?;
    let none = None::<&str>;
    let mounted = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64m")));
    mounted.map_err(|error| failed("mount a file system in memory", &error))?;
    Ok(directory)
}

/// What was measured of one fault.
struct Measured {
    kind: &'static str,
    asked: String,
    in_effect: Vec<Duration>,
    undone: Vec<Duration>,
    exact: String,
}

/// The promised times, of a fault that holds a process, one that holds connections and one that holds packets: they
/// come into force in different ways.
pub(super) fn promises(bench: &Bench<'_>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for kind in ["process-pause", "network-latency", "network-partition"] {
        eprintln!("measuring: {kind}");
        let Some(mut measured) = measure(bench, kind, false)? else { continue };
        let mut row = |what: &str, goal, times: &mut [Duration]| {
            rows.push(Row { what: format!("{what} (`{kind}`)"), goal, measured: percentiles(times) });
        };
        row("steady state seen → fault in effect", "p50 ≤ 50 ms", &mut measured.in_effect);
        row("stop decided → clean", "p50 ≤ 100 ms", &mut measured.undone);
    }
    rows.push(Row { what: "for comparison: a line appended and fsynced".into(), goal: "", measured: fsync(bench)? });
    Ok(rows)
}

/// Every fault of the table, as a Markdown table.
pub(super) fn table(bench: &Bench<'_>) -> Result<String, Failure> {
    use std::fmt::Write;
    let mut text = String::from(
        "| fault | asked for | in effect after | gone after | as felt by what it hits |\n| --- | --- | --- | --- | --- |\n",
    );
    for fault in FAULTS.0 {
        let kind = fault.spec().spec.kind;
        eprintln!("measuring: {kind}");
        let line = match measure(bench, kind, true)? {
            None => format!("| `{kind}` | | not measured | | |\n"),
            Some(mut m) => format!(
                "| `{}` | {} | {} | {} | {} |\n",
                m.kind,
                m.asked,
                percentiles(&mut m.in_effect),
                if m.undone.is_empty() { "it cannot be undone".into() } else { percentiles(&mut m.undone) },
                m.exact
            ),
        };
        text.push_str(&line);
    }
    let _ = writeln!(text, "\nFor comparison, a line appended to a file and fsynced: {}.", fsync(bench)?);
    Ok(text)
}

/// One kind, if there is a scene for it.
fn measure(bench: &Bench<'_>, kind: &'static str, gauged: bool) -> Result<Option<Measured>, Failure> {
    let stage = Stage { own: bench.own_file_system, hit: web_server()?, watched: web_server()? };
    let home = Home::new()?;
    let Some(scene) = scene::of(kind, &stage)? else { return Ok(None) };
    let asked = scene.asked.clone();
    drop(scene);
    let mut measured = Measured { kind, asked, in_effect: vec![], undone: vec![], exact: String::new() };
    for round in 0..bench.rounds {
        let Some(mut scene) = scene::of(kind, &stage)? else { break };
        let mut run = home.run(bench.toprope, &spec(&stage, &scene))?;
        measured.in_effect.push(in_effect(&mut run, &mut scene)?);
        std::thread::sleep(SETTLE);
        let pid = run.pid();
        if let Some(gauge) = scene.gauge.take().filter(|_| gauged && round + 1 == bench.rounds) {
            measured.exact = gauge(pid)?;
        }
        run.catch_up()?;
        let decided = Instant::now();
        run.interrupt()?;
        if scene.lasting {
            measured.undone.push(gone(&run, &mut scene, decided)?);
        }
        run.end()?;
        clean(&mut run)?;
    }
    Ok(Some(measured))
}

fn spec(stage: &Stage<'_>, scene: &Scene) -> Json {
    json!({
        "hypothesis": "who is not hit does not mind",
        "steady-state": {"for": format!("{}ms", STEADY.as_millis())},
        "probes": [{"http": {"get": format!("http://{}/", stage.watched), "interval": "50ms"}}],
        "method": [scene.fault],
        "recovery": {"within": "2s"},
    })
}

/// From the end of the steady state's time, of which the run's own clock tells when it began, to the first look that
/// shows the effect: what is read, synced and planned in between counts.
fn in_effect(run: &mut Run, scene: &mut Scene) -> Result<Duration, Failure> {
    run.until("a steady state", |record| record.event == Event::Phase(Phase::SteadyState))?;
    let steady = run.records.last().map_or(0, |record| record.at) + STEADY.as_nanos() as u64;
    if (scene.look)(run.pid())? && (scene.look)(run.pid())? {
        return Err(run.failed("the effect was there before the steady state was seen: something else made it"));
    }
    run.until("the injection", |record| record.event == Event::Phase(Phase::Inject))?;
    let until = Instant::now() + PATIENCE;
    let mut first = None;
    // A machine that stands still for a moment can look like an effect; it does so for one look, not for two.
    let seen = loop {
        let begun = Instant::now();
        match ((scene.look)(run.pid())?, first) {
            (true, Some(first)) => break first,
            (true, None) => first = Some(begun),
            (false, _) => first = None,
        }
        run.catch_up()?;
        if begun > until {
            return Err(run.failed("the fault was never seen to be in effect"));
        }
        std::thread::sleep(PAUSE);
    };
    let injected = |record: &Record| matches!(record.event, Event::Injected { .. });
    if !run.records.iter().any(injected) {
        run.until("a fault in force", injected)?;
    }
    let asked = run.when(steady).ok_or_else(|| Failure::Found("the run never told its time".into()))?;
    Ok(seen.saturating_duration_since(asked))
}

/// From the decision to stop to the end of the first look that no longer shows the effect.
fn gone(run: &Run, scene: &mut Scene, decided: Instant) -> Result<Duration, Failure> {
    while (scene.look)(run.pid())? {
        if decided.elapsed() > PATIENCE {
            return Err(Failure::Found(format!("the effect of {} did not end", scene.fault)));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(decided.elapsed())
}

/// Fails if the run did not undo what it did, by its own word.
fn clean(run: &mut Run) -> Result<(), Failure> {
    let dirty = run.records.iter().any(|record| match &record.event {
        Event::Undone { undone, .. } => !undone.clean,
        Event::InjectFailed { .. } => true,
        _ => false,
    });
    if dirty { Err(run.failed("the fault was not undone")) } else { Ok(()) }
}

/// What one durable line costs where the journals of these runs are.
fn fsync(bench: &Bench<'_>) -> Result<String, Failure> {
    use std::io::Write;
    let home = Home::new()?;
    let path = home.path().join("line");
    let mut file = std::fs::File::options().append(true).create(true).open(&path).on("open", &path)?;
    let mut times = Vec::new();
    for _ in 0..bench.rounds.max(100) {
        let begun = Instant::now();
        file.write_all(&[b'x'; 300]).and_then(|()| file.sync_data()).on("write", &path)?;
        times.push(begun.elapsed());
    }
    Ok(percentiles(&mut times))
}
