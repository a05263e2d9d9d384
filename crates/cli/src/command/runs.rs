//! `toprope runs`

use serde_json::json;
use toprope_engine::run::{Life, life};
use toprope_engine::state::State;
use toprope_model::event::{Event, Record};

use crate::args::RunsArgs;
use crate::invocation::{Failure, state};
use crate::show;

/// The run that a text means.
pub fn find(state: &State, text: &str) -> Result<String, Failure> {
    state.find_run(text).ok_or_else(|| {
        let what = if text == "last" {
            "there is no run yet".to_owned()
        } else {
            format!("there is no run `{text}`, or more than one")
        };
        Failure::new(what).help("`toprope runs` lists them")
    })
}

/// Lists runs, the newest first.
pub fn runs(args: &RunsArgs) -> Result<u8, Failure> {
    let state = state()?;
    let mut rows = Vec::new();
    for run in state.run_ids().into_iter().rev().take(args.number) {
        let log = toprope_engine::log::read(&state.run(&run).join(toprope_engine::log::FILE));
        let (name, outcome, seconds) = match &log {
            Ok(log) => summary(&log.records, life(&state.run(&run))),
            Err(error) => (error.to_string(), "damaged".into(), 0.0),
        };
        rows.push((run, outcome, seconds, name));
    }
    if args.json {
        let row = |(run, outcome, seconds, name): &(String, String, f64, String)| json!({"run": run, "outcome": outcome, "seconds": seconds, "experiment": name});
        let list: Vec<_> = rows.iter().map(row).collect();
        show::line(&serde_json::to_string_pretty(&list).unwrap_or_default());
        return Ok(0);
    }
    if rows.is_empty() {
        show::line("no run yet; begin with `toprope init` or `toprope demo`");
    }
    for (run, outcome, seconds, name) in rows {
        show::line(&format!("{run}  {outcome:12}  {seconds:7.1} s  {name}"));
    }
    Ok(0)
}

fn summary(records: &[Record], life: Life) -> (String, String, f64) {
    let name = match records.first().map(|r| &r.event) {
        Some(Event::RunStarted(started)) => {
            started.manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    let outcome = records.iter().rev().find_map(|r| match &r.event {
        Event::Judged(judgement) => Some(judgement.outcome.to_string()),
        Event::Sealed { .. } => Some("killed".into()),
        _ => None,
    });
    let seconds = records.last().map_or(0.0, |r| std::time::Duration::from_nanos(r.at).as_secs_f64());
    let unjudged = if life == Life::Running { "running" } else { "killed" };
    (name, outcome.unwrap_or_else(|| unjudged.into()), seconds)
}
