//! What a reader sees while an experiment runs, and when it is over.
//!
//! Every view is a fold over the run's events: [`state`] is that fold, [`story`] tells it in lines, [`lines`] writes
//! those, [`live`] shows them on a whole terminal with all else that is known, [`json`] writes the events themselves,
//! [`verdict`] is the closing block.
//!
//! A view has a thread of its own, so that a reader who does not read (a full pipe, a stopped terminal) holds up the
//! view and never the run.

mod fault;
mod ink;
mod json;
mod lines;
mod live;
mod person;
mod probe;
mod quantiles;
mod state;
mod story;
#[cfg(test)]
mod testrun;
mod timeline;
mod verdict;
pub(crate) mod words;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use toprope_engine::host::Person;
use toprope_engine::run::{Finished, StopSwitch};
use toprope_engine::state::State;
use toprope_model::event::Record;

use crate::args::OutputArgs;
use ink::Ink;
use live::Desk;
use state::RunState;
use verdict::Kept;

/// How wide text is broken where the terminal does not say.
const COLUMNS: usize = 100;

/// A view that was started. Dropping it ends a live view and gives the terminal back.
pub struct View {
    over: oneshot::Receiver<RunState>,
    outputs: Vec<(&'static str, PathBuf)>,
    closes: bool,
    live: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

/// Starts the view that the command line asks for, and says who can be asked to do something by hand.
pub fn start(
    output: &OutputArgs,
    mut records: UnboundedReceiver<Arc<Record>>,
    stop: &StopSwitch,
) -> (View, Option<Arc<dyn Person>>) {
    let (done, over) = oneshot::channel();
    let outputs = [("html", &output.html), ("markdown", &output.md), ("junit", &output.junit)];
    let outputs = outputs.into_iter().filter_map(|(what, path)| Some((what, path.clone()?))).collect();
    let mut view = View { over, outputs, closes: !output.json, live: None };
    let out = std::io::stdout();
    let ink = Ink::of(&out);
    // When the view is over and nobody waits for it, the run broke off: `send` may fail.
    if output.json {
        let records = std::iter::from_fn(move || records.blocking_recv());
        std::thread::spawn(move || drop(done.send(json::show(records, out))));
    } else if output.plain || !can_be_taken_over() {
        let records = std::iter::from_fn(move || records.blocking_recv());
        std::thread::spawn(move || drop(done.send(lines::show(records, out, ink))));
    } else {
        let (desk, requests) = Desk::new();
        let leave = Arc::new(AtomicBool::new(false));
        let inputs = live::Inputs { records, requests, stop: stop.clone(), leave: leave.clone() };
        let thread = std::thread::spawn(move || drop(done.send(live::show(inputs, ink))));
        view.live = Some((leave, thread));
        return (view, Some(Arc::new(desk)));
    }
    (view, person())
}

impl View {
    /// Waits until all is shown, and closes with the verdict.
    pub async fn finish(mut self, finished: Option<&Finished>, _state: &State) {
        // A view that died has shown what it could.
        let run = (&mut self.over).await.unwrap_or_default();
        let Some(finished) = finished.filter(|_| self.closes) else { return };
        let mut files = vec![("report", finished.directory.join("report.html"))];
        files.push(("log", finished.directory.join(toprope_engine::log::FILE)));
        files.extend(self.outputs.iter().map(|(what, path)| (*what, absolute(path))));
        let mut out = std::io::stdout();
        let text = verdict::verdict_text(&finished.judgement, &run, &Kept { files }, Ink::of(&out), columns());
        let _ = out.write_all(format!("\n{text}").as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((leave, thread)) = self.live.take() {
            leave.store(true, Ordering::Relaxed);
            // A panic in it has given the terminal back, and was told.
            let _ = thread.join();
        }
    }
}

/// Whether standard output is a terminal on which a picture can be drawn, and this process is the one in front of it: a
/// job in the background that takes a terminal over is stopped by the kernel.
fn can_be_taken_over() -> bool {
    let out = std::io::stdout();
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let in_front = || rustix::termios::tcgetpgrp(&out).is_ok_and(|group| group == rustix::process::getpgrp());
    out.is_terminal() && !dumb && in_front()
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
