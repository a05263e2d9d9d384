//! How fast a fault comes into force, and how fast it is gone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use toprope_model::event::{Event, Phase, Record};

use super::run::{Home, Sleeper, web_server};
use super::{Row, percentiles};
use crate::failure::Failure;

/// Runs experiments again and again, and presses Ctrl-C while their fault is in force.
pub(super) fn measure(toprope: &Path, rounds: usize) -> Result<Vec<Row>, Failure> {
    let target = Sleeper::start()?;
    let server = web_server()?;
    // One fault that holds a process, and one that holds connections: they come into force in different ways.
    let pause = json!({"process-pause": {"target": {"pid": target.pid()}, "for": "60s"}});
    let delay = json!({"network-latency": {
        "from": {"host": true}, "to": server.to_string(), "delay": "20ms", "for": "60s", "drain": "1s"
    }});
    let mut rows = of_fault(toprope, rounds, "process-pause", &spec(server, &pause))?;
    if toprope_os::user::Identity::current().is_ok_and(|user| user.uid == 0) {
        rows.extend(of_fault(toprope, rounds, "network-latency", &spec(server, &delay))?);
    } else {
        eprintln!("network-latency is not measured: it needs root");
    }
    Ok(rows)
}

fn spec(server: SocketAddr, fault: &Json) -> Json {
    json!({
        "hypothesis": "the server does not mind",
        "steady-state": {"for": "300ms"},
        "probes": [{"http": {"get": format!("http://{server}/"), "interval": "50ms"}}],
        "method": [fault],
        "recovery": {"within": "2s"},
    })
}

fn of_fault(toprope: &Path, rounds: usize, kind: &str, spec: &Json) -> Result<Vec<Row>, Failure> {
    let (mut injecting, mut undoing) = (Vec::new(), Vec::new());
    let home = Home::new()?;
    for _ in 0..rounds {
        let mut run = home.run(toprope, spec)?;
        run.until("a fault in force", |record| matches!(record.event, Event::Injected { .. }))?;
        injecting.push(from_inject_to_injected(&run.records)?);
        // Long enough that starting the fault is over when it is to end.
        std::thread::sleep(Duration::from_millis(300));
        let decided = Instant::now();
        run.interrupt()?;
        run.until("an undo", |record| matches!(record.event, Event::Undone { .. }))?;
        undoing.push(decided.elapsed());
        run.end()?;
    }
    let row = |what: &str, goal, mut times: Vec<Duration>| Row {
        what: format!("{what} (`{kind}`)"),
        goal,
        measured: percentiles(&mut times),
    };
    Ok(vec![
        row("steady state seen → fault in effect", "p50 ≤ 50 ms", injecting),
        row("Ctrl-C → undone, as seen from outside", "p50 ≤ 100 ms", undoing),
    ])
}

/// By the run's own clock: from the end of the steady state to the fault's being in force.
fn from_inject_to_injected(records: &[Record]) -> Result<Duration, Failure> {
    let at = |wanted: fn(&Event) -> bool| records.iter().find(|record| wanted(&record.event)).map(|record| record.at);
    let inject = at(|event| *event == Event::Phase(Phase::Inject));
    let injected = at(|event| matches!(event, Event::Injected { .. }));
    match (inject, injected) {
        (Some(from), Some(to)) => Ok(Duration::from_nanos(to.saturating_sub(from))),
        _ => Err(Failure::Found("the run's events lack the phase in which the fault was injected".into())),
    }
}
