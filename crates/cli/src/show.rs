//! Text on standard output, and a run as it is watched.

use std::io::Write;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toprope_engine::run::{Finished, RunError, Setup, StopSwitch};
use toprope_model::event::Record;

use crate::args::OutputArgs;
use crate::render::harmless;
use crate::view;

/// Prints a line, in which what a manifest holds cannot move the cursor. A reader that is gone is no error:
/// `toprope runs | head` ends well.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", harmless(text));
}

/// Prints text as it is.
pub fn text(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints text wrapped at 100 columns, indented.
pub fn wrapped(text: &str, indent: usize) {
    let mut current = String::new();
    for word in text.split_whitespace() {
        if !current.is_empty() && indent + current.chars().count() + 1 + word.chars().count() > 100 {
            line(&format!("{:indent$}{current}", ""));
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    if !current.is_empty() {
        line(&format!("{:indent$}{current}", ""));
    }
}

/// `1 probe`, `2 probes`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Runs an experiment and shows it as the command line asks.
pub async fn run_shown(setup: Setup, stop: StopSwitch, output: &OutputArgs) -> Result<Finished, RunError> {
    stop_on_signals(&stop);
    let (sender, receiver) = mpsc::unbounded_channel();
    let (view, person) = view::start(output, receiver, &stop);
    let setup = Setup { person: setup.person.clone().or(person), ..setup };
    let state = setup.state.clone();
    let result = toprope_engine::run::run(setup, stop, sender).await;
    // The view ends with the events.
    view.finish(result.as_ref().ok(), &state).await;
    result
}

/// Runs an experiment and shows nothing of it.
pub async fn run_quietly(setup: Setup, _output: &OutputArgs) -> Result<Finished, RunError> {
    let stop = StopSwitch::default();
    stop_on_signals(&stop);
    let (sender, mut receiver) = mpsc::unbounded_channel::<Arc<Record>>();
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    toprope_engine::run::run(setup, stop, sender).await
}

/// Ctrl-C, a polite end and a closed terminal stop the run: all is undone and told.
pub fn stop_on_signals(stop: &StopSwitch) {
    let signals = [
        (SignalKind::interrupt(), "SIGINT", "stopped with Ctrl-C"),
        (SignalKind::terminate(), "SIGTERM", "asked to end"),
        (SignalKind::hangup(), "SIGHUP", "the terminal was closed"),
    ];
    for (kind, name, why) in signals {
        let Ok(mut stream) = signal(kind) else { continue };
        let stop = stop.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                stop.pull(name, why);
            }
        });
    }
}

/// Notes something on standard error.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "toprope: {text}");
}
