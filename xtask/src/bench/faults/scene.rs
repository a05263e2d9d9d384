//! For each fault: what it hits here, how its effect is seen from outside, and how exact it is.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use toprope_os::disk::Space;
use toprope_os::process::{ProcessInfo, State};

use super::look::{self, Datagrams};
use crate::bench::run::{Sleeper, endless_server, flag_server};
use crate::failure::{Failure, OnFile};

/// Where scenes play.
pub(super) struct Stage<'a> {
    /// A small file system in memory.
    pub(super) own: &'a Path,
    /// A server that faults hit.
    pub(super) hit: SocketAddr,
    /// A server that nothing hits.
    pub(super) watched: SocketAddr,
}

/// Whether the effect is there now. It is told the run's process.
type Look = Box<dyn FnMut(u32) -> Result<bool, Failure>>;
/// Measures, while the fault is in force, how near it is to what was asked. It is told the run's process.
type Gauge = Box<dyn FnOnce(u32) -> Result<String, Failure>>;

/// One round of one fault.
pub(super) struct Scene {
    /// The fault, as an item of a method.
    pub(super) fault: Json,
    /// Its parameters in words.
    pub(super) asked: String,
    /// Whether it ends, or is over at once.
    pub(super) lasting: bool,
    pub(super) look: Look,
    pub(super) gauge: Option<Gauge>,
}

impl Scene {
    fn lasting(kind: &str, asked: &str, mut params: Json, look: Look) -> Self {
        params["for"] = "60s".into();
        Self { fault: json!({ kind: params }), asked: asked.into(), lasting: true, look, gauge: None }
    }

    fn instant(kind: &str, asked: &str, params: Json, look: Look) -> Self {
        Self { fault: json!({ kind: params }), asked: asked.into(), lasting: false, look, gauge: None }
    }

    fn gauged(self, gauge: impl FnOnce(u32) -> Result<String, Failure> + 'static) -> Self {
        Self { gauge: Some(Box::new(gauge)), ..self }
    }
}

/// The scene of a kind; `None` for one that has none, as `manual`, which is as fast as a person.
pub(super) fn of(kind: &str, stage: &Stage<'_>) -> Result<Option<Scene>, Failure> {
    let scene = match kind {
        "process-kill" => process_kill()?,
        "process-pause" => process_pause()?,
        "process-restart" => process_restart(stage.own)?,
        "cpu-stress" => cpu_stress(),
        "memory-stress" => memory_stress(),
        "disk-fill" => disk_fill(stage.own),
        "network-partition" => network_partition(stage.hit),
        "network-loss" => network_loss()?,
        "network-latency" => network_latency(stage.hit),
        "network-bandwidth" => network_bandwidth()?,
        "command" => command(stage.own),
        "http" => http()?,
        _ => return Ok(None),
    };
    Ok(Some(scene))
}

fn process_kill() -> Result<Scene, Failure> {
    let mut victim = Sleeper::start()?;
    let params = json!({"target": {"pid": victim.pid()}});
    Ok(Scene::instant("process-kill", "one process", params, Box::new(move |_| Ok(victim.has_ended()))))
}

fn process_pause() -> Result<Scene, Failure> {
    let victim = Sleeper::start()?;
    let params = json!({"target": {"pid": victim.pid()}});
    let look = move |_| {
        let state = ProcessInfo::of(victim.pid()).map(|info| info.state);
        Ok(matches!(state, Ok(State::Traced | State::Stopped)))
    };
    Ok(Scene::lasting("process-pause", "one process", params, Box::new(look)))
}

fn process_restart(directory: &Path) -> Result<Scene, Failure> {
    let new = directory.join("restarted");
    let _ = std::fs::remove_file(&new);
    // A command line that no other process has, by which the fault finds the old one and the new one.
    let marked = format!("600.{}{:06}", std::process::id(), Instant::now().elapsed().as_nanos() % 1_000_000);
    let mut first = Sleeper::of(&marked)?;
    let script = format!("kill -9 {}; sleep {marked} >/dev/null 2>&1 & echo $! > {}", first.pid(), new.display());
    let params = json!({
        "command": ["sh", "-c", script], "target": {"command-line": format!("^sleep {marked}$")}, "within": "10s"
    });
    let second = Restarted(new);
    let look = move |_| Ok(first.has_ended() && second.pid().is_some());
    Ok(Scene::instant("process-restart", "one process, by `kill` and `sleep &`", params, Box::new(look)))
}

/// The process whose number a restart wrote down; ended when dropped.
struct Restarted(std::path::PathBuf);

impl Restarted {
    fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        use toprope_os::process::{Pidfd, ProcessId, Signal};
        if let Some(pid) = self.pid() {
            let _ = ProcessId::of(pid).and_then(|id| Pidfd::open(&id)?.signal(Signal::KILL));
        }
    }
}

fn cpu_stress() -> Scene {
    const THREADS: &str = "load-core-";
    let mut injector = None;
    let look = move |run| {
        injector = injector.or_else(|| look::injector(run));
        let used = injector.map(|pid| look::processor_time(pid, THREADS)).unwrap_or_default();
        Ok(!used.is_empty() && used.iter().all(|time| *time >= Duration::from_millis(1)))
    };
    let scene = Scene::lasting("cpu-stress", "load 50 % of every core", json!({"load": "50%"}), Box::new(look));
    scene.gauged(|run| {
        const WINDOW: Duration = Duration::from_secs(10);
        let pid = look::injector(run).ok_or_else(|| Failure::Found("there is no injector".into()))?;
        let (begun, before) = (Instant::now(), look::processor_time(pid, THREADS));
        std::thread::sleep(WINDOW);
        let (wall, after) = (begun.elapsed(), look::processor_time(pid, THREADS));
        let share = |(before, after): (&Duration, &Duration)| {
            format!("{:.1} %", 100.0 * after.saturating_sub(*before).as_secs_f64() / wall.as_secs_f64())
        };
        let shares: Vec<String> = before.iter().zip(&after).map(share).collect();
        Ok(format!("{} of the cores' time over {} s", shares.join(", "), WINDOW.as_secs()))
    })
}

fn memory_stress() -> Scene {
    const AMOUNT: u64 = 256 << 20;
    let mut injector = None;
    let mut before = None;
    let look = move |run| {
        injector = injector.or_else(|| look::injector(run));
        let now = injector.map_or(0, look::resident);
        let before = *before.get_or_insert(now);
        Ok(now.saturating_sub(before) >= AMOUNT / 100 * 99)
    };
    let params = json!({"amount": "256MiB"});
    Scene::lasting("memory-stress", "amount 256 MiB", params, Box::new(look)).gauged(|run| {
        let pid = look::injector(run).ok_or_else(|| Failure::Found("there is no injector".into()))?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).on("read", "the injector's memory")?;
        let sizes =
            text.lines().filter_map(|line| line.strip_prefix("Rss:")?.trim().trim_end_matches(" kB").parse().ok());
        // What it holds beside the program's own memory: its large mappings.
        let held: u64 = sizes.filter(|kb: &u64| *kb >= 16 << 10).sum();
        Ok(format!("{:.2} MiB resident", held as f64 / 1024.0))
    })
}

fn disk_fill(directory: &Path) -> Scene {
    let space = |directory: &Path| Space::of(directory).map_err(|error| Failure::Found(error.to_string()));
    let own = directory.to_owned();
    let look = move |_| Ok(space(&own)?.available == 0);
    let params = json!({"path": directory, "percent": "100%"});
    let own = directory.to_owned();
    Scene::lasting("disk-fill", "100 % of 64 MiB in memory (tmpfs)", params, Box::new(look)).gauged(move |_| {
        let refused = std::fs::write(own.join("more"), [0; 1]).err().map(|error| error.kind());
        let _ = std::fs::remove_file(own.join("more"));
        Ok(format!(
            "{:.2} MiB used; a further byte: {}",
            space(&own)?.used() as f64 / f64::from(1 << 20),
            refused.map_or("written".to_owned(), |kind| kind.to_string())
        ))
    })
}

fn everybody_to(server: SocketAddr, more: Json) -> Json {
    let mut params = json!({"from": {"host": true}, "to": server.to_string()});
    for (key, value) in more.as_object().into_iter().flatten() {
        params[key] = value.clone();
    }
    params
}

fn network_partition(server: SocketAddr) -> Scene {
    let look = move |_| Ok(!look::is_quick(server, 1));
    let params = everybody_to(server, json!({"action": "drop"}));
    Scene::lasting("network-partition", "drop what goes to a port", params, Box::new(look)).gauged(move |_| {
        let answered = (0..100).filter(|_| look::is_quick(server, 1)).count();
        Ok(format!("{answered} of 100 connections got through"))
    })
}

fn network_loss() -> Result<Scene, Failure> {
    let sockets = std::rc::Rc::new(Datagrams::open()?);
    let params = everybody_to(sockets.to()?, json!({"loss": "20%", "direction": "out"}));
    let gauged = std::rc::Rc::clone(&sockets);
    // That none of 60 is lost at 20 % happens once in 650,000 looks.
    let look = move |_| Ok(sockets.arrived(60) < 60);
    Ok(Scene::lasting("network-loss", "20 % of what goes to a port", params, Box::new(look)).gauged(move |_| {
        const BATCH: usize = 100;
        const BATCHES: usize = 200;
        let arrived: usize = (0..BATCHES).map(|_| gauged.arrived(BATCH)).sum();
        let sent = BATCH * BATCHES;
        Ok(format!("{:.1} % of {sent} datagrams lost", 100.0 * (sent - arrived) as f64 / sent as f64))
    }))
}

fn network_latency(server: SocketAddr) -> Scene {
    let look = move |_| Ok(!look::is_quick(server, 1));
    let params = everybody_to(server, json!({"delay": "50ms", "drain": "1s"}));
    let before = median(server);
    Scene::lasting("network-latency", "delay 50 ms to a port", params, Box::new(look)).gauged(move |_| {
        let delay = median(server).saturating_sub(before);
        Ok(format!("answers come {:.1} ms later (median of 100)", delay.as_secs_f64() * 1e3))
    })
}

fn median(server: SocketAddr) -> Duration {
    let mut times: Vec<_> = (0..100).filter_map(|_| look::exchange(server, 1)).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn network_bandwidth() -> Result<Scene, Failure> {
    // At this rate they take 50 ms.
    const FEW: usize = 100_000;
    const MANY: usize = 10_000_000;
    let server = endless_server()?;
    let look = move |_| Ok(!look::is_quick(server, FEW));
    let params = everybody_to(server, json!({"rate": "2MB/s", "drain": "1s"}));
    Ok(Scene::lasting("network-bandwidth", "2 MB/s from a port", params, Box::new(look)).gauged(move |_| {
        let took = look::exchange(server, MANY).ok_or_else(|| Failure::Found("the server broke off".into()))?;
        let megabytes = MANY as f64 / 1e6;
        Ok(format!("{:.3} MB/s over {megabytes:.0} MB", megabytes / took.as_secs_f64()))
    }))
}

fn command(directory: &Path) -> Scene {
    let file = directory.join("command");
    let (text, seen) = (file.display().to_string(), file);
    let params = json!({"apply": ["touch", text], "check": ["test", "-e", text], "undo": ["rm", "-f", text]});
    Scene::lasting("command", "`touch`, `test`, `rm` a file", params, Box::new(move |_| Ok(seen.exists())))
}

fn http() -> Result<Scene, Failure> {
    let (server, flag) = flag_server()?;
    let at = |path: &str| format!("http://{server}/{path}");
    let params = json!({
        "apply": {"post": at("on")}, "check": {"get": at("is-on"), "status": 200}, "undo": {"post": at("off")}
    });
    let look = move |_| Ok(flag.load(std::sync::atomic::Ordering::SeqCst));
    Ok(Scene::lasting("http", "a POST to a server on the loopback", params, Box::new(look)))
}
