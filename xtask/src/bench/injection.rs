//! How fast a fault comes into force, and how fast it is gone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

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
        let records = once(toprope, &home, spec)?;
        injecting.push(between(&records, is_inject, is_injected)?);
        undoing.push(between(&records, is_stopping, is_undone)?);
    }
    let row = |what: &str, goal, mut times: Vec<Duration>| Row {
        what: format!("{what} (`{kind}`)"),
        goal,
        measured: percentiles(&mut times),
    };
    Ok(vec![
        row("steady state seen → fault in effect", "p50 ≤ 50 ms", injecting),
        row("stop decided → measured clean", "p50 ≤ 100 ms", undoing),
    ])
}

fn once(toprope: &Path, home: &Home, spec: &Json) -> Result<Vec<Record>, Failure> {
    let mut run = home.run(toprope, spec)?;
    run.until("a fault in force", is_injected)?;
    // Long enough that starting the fault is over when it is to end.
    std::thread::sleep(Duration::from_millis(300));
    run.interrupt()?;
    run.end()?;
    Ok(std::mem::take(&mut run.records))
}

fn is_inject(record: &Record) -> bool {
    record.event == Event::Phase(Phase::Inject)
}

fn is_injected(record: &Record) -> bool {
    matches!(record.event, Event::Injected { .. })
}

fn is_stopping(record: &Record) -> bool {
    matches!(record.event, Event::Stopping(_))
}

fn is_undone(record: &Record) -> bool {
    matches!(record.event, Event::Undone { .. })
}

/// From one event to the first other one after it, by the run's own clock.
fn between(
    records: &[Record],
    from: impl Fn(&Record) -> bool,
    to: impl Fn(&Record) -> bool,
) -> Result<Duration, Failure> {
    let missing = || Failure::Found("the run's events lack one that is measured".into());
    let start = records.iter().position(from).ok_or_else(missing)?;
    let end = records[start..].iter().find(|record| to(record)).ok_or_else(missing)?;
    Ok(Duration::from_nanos(end.at.saturating_sub(records[start].at)))
}
