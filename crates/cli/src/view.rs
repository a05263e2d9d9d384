//! What a reader sees while an experiment runs, and when it is over.
//!
//! Every view is a fold over the run's events: [`state`] is that fold, [`story`] tells it in lines, [`lines`] writes
//! those, [`json`] writes the events themselves, [`verdict`] is the closing block.
//!
//! A view has a thread of its own, so that a reader who does not read (a full pipe, a stopped terminal) holds up the
//! view and never the run.

mod fault;
mod ink;
mod json;
mod lines;
mod person;
mod probe;
mod quantiles;
mod state;
mod story;
#[cfg(test)]
mod testrun;
mod timeline;
mod verdict;
mod words;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use toprope_engine::host::Person;
use toprope_engine::run::{Finished, StopSwitch};
use toprope_engine::state::State;
use toprope_model::event::Record;

use crate::args::OutputArgs;
use ink::Ink;
use state::RunState;
use verdict::Kept;

/// How wide text is broken where the terminal does not say.
const COLUMNS: usize = 100;

/// A view that was started.
pub struct View {
    over: oneshot::Receiver<RunState>,
    outputs: Vec<(&'static str, PathBuf)>,
    closes: bool,
}

/// Starts the view that the command line asks for, and says who can be asked to do something by hand.
pub fn start(
    output: &OutputArgs,
    mut records: UnboundedReceiver<Arc<Record>>,
    _stop: &StopSwitch,
) -> (View, Option<Arc<dyn Person>>) {
    let (done, over) = oneshot::channel();
    let json = output.json;
    std::thread::spawn(move || {
        let records = std::iter::from_fn(|| records.blocking_recv());
        let out = std::io::stdout();
        let ink = Ink::of(&out);
        let state = if json { json::show(records, out) } else { lines::show(records, out, ink) };
        // Nobody waits for it any more: the run broke off.
        let _ = done.send(state);
    });
    let outputs = [("html", &output.html), ("markdown", &output.md), ("junit", &output.junit)];
    let outputs = outputs.into_iter().filter_map(|(what, path)| Some((what, path.clone()?))).collect();
    (View { over, outputs, closes: !json }, person())
}

impl View {
    /// Waits until all is shown, and closes with the verdict.
    pub async fn finish(self, finished: Option<&Finished>, _state: &State) {
        // A view that died has shown what it could.
        let run = self.over.await.unwrap_or_default();
        if let (true, Some(finished)) = (self.closes, finished) {
            let mut files = vec![("report", finished.directory.join("report.html"))];
            files.push(("log", finished.directory.join(toprope_engine::log::FILE)));
            files.extend(self.outputs.into_iter().map(|(what, path)| (what, absolute(&path))));
            let mut out = std::io::stdout();
            let text = verdict::verdict_text(&finished.judgement, &run, &Kept { files }, Ink::of(&out), columns());
            let _ = out.write_all(format!("\n{text}").as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Somebody at the terminal, where there is one.
pub fn person() -> Option<Arc<dyn Person>> {
    person::Asker::new().map(|asker| Arc::new(asker) as Arc<dyn Person>)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// How wide the reader's terminal is, but not wider than text is good to read.
fn columns() -> usize {
    let known = std::io::stdout().is_terminal().then(ratatui::crossterm::terminal::size);
    known.and_then(Result::ok).map_or(COLUMNS, |(columns, _)| usize::from(columns).min(COLUMNS))
}
