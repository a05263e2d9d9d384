//! What probing costs: 50 probes, ten times a second each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use toprope_model::event::{Event, Phase};

use super::Row;
use super::faults::look::exchange;
use super::run::{Home, Sleeper, web_server};
use crate::failure::Failure;
use crate::workspace;

const PROBES: usize = 50;
/// How long is measured, from when all is set up.
const WINDOW: Duration = Duration::from_secs(15);

/// Watches a steady state, and the process that watches it.
pub(super) fn measure(toprope: &Path) -> Result<Vec<Row>, Failure> {
    let target = Sleeper::start()?;
    let server = web_server()?;
    let probe =
        |n| json!({"http": {"name": format!("p{n}"), "get": format!("http://{server}/{n}"), "interval": "100ms"}});
    let spec = json!({
        "hypothesis": "probing is cheap",
        "steady-state": {"for": "60s"},
        "probes": (0..PROBES).map(probe).collect::<Vec<Json>>(),
        "method": [{"process-pause": {"target": {"pid": target.pid()}, "for": "1s"}}],
    });
    let home = Home::new()?;
    let mut run = home.run(toprope, &spec)?;
    run.until("a steady state", |record| record.event == Event::Phase(Phase::SteadyState))?;
    // Its output is a pipe that somebody must read, and the start is not what is measured.
    let begun = read_for(&mut run, Duration::from_secs(2))?;
    let before = cpu_seconds(run.pid())?;
    let first = run.records.len();
    let ended = read_for(&mut run, WINDOW)?;
    let busy = cpu_seconds(run.pid())? - before;
    let seconds = ended.duration_since(begun).as_secs_f64();
    let taken = run.records.len() - first;
    let peak = peak_memory(run.pid())?;
    let share = 100.0 * busy / seconds;
    let measured = format!(
        "{share:.1} % of a core, {peak:.1} MB ({:.0} of {} samples a second, over {seconds:.0} s); \
         the same requests by bare sockets {:.1} % of a core",
        taken as f64 / seconds,
        PROBES * 10,
        bare(server)?
    );
    Ok(vec![Row { what: format!("{PROBES} HTTP probes at 100 ms"), goal: "≤ 10 % of a core, ≤ 40 MB", measured }])
}

/// The share of a core that nothing but connecting, asking and reading takes, at the rate of the probes, in percent.
fn bare(server: SocketAddr) -> Result<f64, Failure> {
    const TIMES: usize = 2000;
    // Documentation/scheduler/sched-stats.rst: the first field is this thread's time on a core, in nanoseconds.
    let used = || {
        let text = workspace::read("/proc/thread-self/schedstat".as_ref())?;
        Ok::<f64, Failure>(text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN) / 1e9)
    };
    let before = used()?;
    let answered = (0..TIMES).filter(|_| exchange(server, 1).is_some()).count();
    if answered < TIMES {
        return Err(Failure::Found(format!("only {answered} of {TIMES} requests were answered")));
    }
    Ok(100.0 * (used()? - before) / TIMES as f64 * (PROBES * 10) as f64)
}

/// Reads events for a time; returns when it ended.
fn read_for(run: &mut super::run::Run, time: Duration) -> Result<Instant, Failure> {
    let end = Instant::now() + time;
    run.until("enough samples", |_| Instant::now() >= end)?;
    Ok(Instant::now())
}

/// The processor time that a process has used, in seconds.
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let text = workspace::read(format!("/proc/{pid}/stat").as_ref())?;
    // proc_pid_stat(5): the name is in parentheses and may hold anything; utime and stime are fields 14 and 15, in
    // clock ticks, of which Linux shows programs 100 a second.
    let after = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks = |field: usize| after.split(' ').nth(field - 3).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(14) + ticks(15)) / 100.0)
}

/// The most memory that a process had resident, in megabytes.
fn peak_memory(pid: u32) -> Result<f64, Failure> {
    let text = super::fact(&format!("/proc/{pid}/status"), "VmHWM")?;
    let kibibytes: f64 = text.trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    Ok(kibibytes * 1024.0 / 1e6)
}
