//! How fast a fault comes into force, and how fast it is gone.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toprope_model::event::{Event, Phase, Record};

use super::run::{Home, Sleeper, web_server};
use super::{Row, percentiles};
use crate::failure::Failure;

/// Runs an experiment again and again, and presses Ctrl-C while its fault is in force.
pub(super) fn measure(toprope: &Path, rounds: usize) -> Result<Vec<Row>, Failure> {
    let target = Sleeper::start()?;
    let server = web_server()?;
    let fault = json!({"process-pause": {"target": {"pid": target.pid()}, "for": "60s"}});
    let spec = json!({
        "hypothesis": "the server does not mind",
        "steady-state": {"for": "300ms"},
        "probes": [{"http": {"get": format!("http://{server}/"), "interval": "50ms"}}],
        "method": [fault],
        "recovery": {"within": "2s"},
    });
    let (mut injecting, mut undoing) = (Vec::new(), Vec::new());
    let home = Home::new()?;
    for _ in 0..rounds {
        let records = once(toprope, &home, &spec)?;
        injecting.push(between(&records, is_inject, is_injected)?);
        undoing.push(between(&records, is_stopping, is_undone)?);
    }
    let row =
        |what: &str, goal, mut times: Vec<Duration>| Row { what: what.into(), goal, measured: percentiles(&mut times) };
    Ok(vec![
        row("steady state seen → fault in effect (`process-pause`)", "p50 ≤ 50 ms", injecting),
        row("stop decided → measured clean (`process-pause`)", "p50 ≤ 100 ms", undoing),
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
