//! Views of a run (transitional: the live view replaces this file).

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use toprope_engine::host::Person;
use toprope_engine::run::{Finished, StopSwitch};
use toprope_engine::state::State;
use toprope_model::event::{Event, Record};

use crate::args::OutputArgs;

/// A view that was started.
pub struct View(tokio::task::JoinHandle<()>);

/// Starts the view that the command line asks for.
pub fn start(
    output: &OutputArgs,
    mut receiver: UnboundedReceiver<Arc<Record>>,
    _stop: &StopSwitch,
) -> (View, Option<Arc<dyn Person>>) {
    let json = output.json;
    let task = tokio::spawn(async move {
        while let Some(record) = receiver.recv().await {
            if json {
                crate::show::line(&serde_json::to_string(&*record).unwrap_or_default());
            } else if !matches!(record.event, Event::Sample(_)) {
                crate::show::line(&format!("+{:.3}s {:?}", record.at as f64 / 1e9, record.event));
            }
        }
    });
    (View(task), None)
}

impl View {
    /// Waits until all is shown.
    pub async fn finish(self, _finished: Option<&Finished>, _state: &State) {
        let _ = self.0.await;
    }
}

/// Somebody at the terminal.
pub fn person() -> Option<Arc<dyn Person>> {
    None
}
