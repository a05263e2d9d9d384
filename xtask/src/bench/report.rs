//! How long the report of a run of a million events takes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use toprope_engine::log::{self, LogWriter};
use toprope_model::event::{Event, Record};

use super::run::{Home, Sleeper, web_server};
use super::{Row, percentiles};
use crate::failure::{Failure, OnFile};
use crate::workspace::output;

const EVENTS: usize = 1_000_000;
/// Each form is rendered so often.
const ROUNDS: usize = 5;

/// Renders the log of a real run whose samples were multiplied.
pub(super) fn measure(toprope: &Path) -> Result<Vec<Row>, Failure> {
    let home = Home::new()?;
    let log = long_log(&home, &short_run(toprope, &home)?)?;
    let size = std::fs::metadata(&log).on("read", &log)?.len();
    let page = home.path().join("report.html");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        output(Command::new(toprope).arg("replay").arg(&log).args(["--form", "html", "--output"]).arg(&page))?;
        times.push(begun.elapsed());
    }
    let page = std::fs::metadata(&page).on("read", &page)?.len();
    let measured =
        format!("{}; log {:.0} MB, page {:.1} MB", percentiles(&mut times), size as f64 / 1e6, page as f64 / 1e6);
    Ok(vec![Row { what: "report (HTML) of a run of a million events".into(), goal: "≤ 2 s", measured }])
}

/// The events of a run of a few seconds, as its log has them.
fn short_run(toprope: &Path, home: &Home) -> Result<Vec<Record>, Failure> {
    let target = Sleeper::start()?;
    let server = web_server()?;
    let probe =
        |n| json!({"http": {"name": format!("p{n}"), "get": format!("http://{server}/{n}"), "interval": "50ms"}});
    let mut run = home.run(
        toprope,
        &json!({
            "hypothesis": "the server does not mind",
            "steady-state": {"for": "1s"},
            "probes": [probe(0), probe(1), probe(2)],
            "method": [{"process-pause": {"target": {"pid": target.pid()}, "for": "2s"}}],
            "recovery": {"within": "2s"},
        }),
    )?;
    run.until("an end", |record| matches!(record.event, Event::RunEnded { .. }))?;
    Ok(std::mem::take(&mut run.records))
}

/// Writes a log in which each sample stands for many, spread over the time to the next event.
fn long_log(home: &Home, records: &[Record]) -> Result<PathBuf, Failure> {
    let directory = home.path().join("long");
    std::fs::create_dir(&directory).on("create", &directory)?;
    let samples = records.iter().filter(|r| matches!(r.event, Event::Sample(_))).count();
    let copies = EVENTS.div_ceil(samples.max(1)) as u64;
    let failed = |error: log::LogError| Failure::Found(error.to_string());
    let mut log = LogWriter::create(&directory).map_err(failed)?;
    for (record, next) in records.iter().zip(records.iter().skip(1).chain(records.last())) {
        match &record.event {
            Event::Sample(sample) => {
                let step = next.at.saturating_sub(record.at) / copies;
                for copy in 0..copies {
                    let mut sample = sample.clone();
                    sample.started += copy * step;
                    log.append(record.at + copy * step, Event::Sample(sample)).map_err(failed)?;
                }
            }
            other => drop(log.append(record.at, other.clone()).map_err(failed)?),
        }
    }
    log.finish().map_err(failed)?;
    Ok(directory.join(log::FILE))
}
