//! Undoing from the journal alone: what guards, the sweep at the next start, and `toprope undo` do.

use toprope_model::journal::Mark;
use toprope_model::step::{Undo, Undone};

use crate::fault::FaultTable;
use crate::host::Host;
use crate::journal::{Journal, JournalError, Record};

/// Undoes one record's steps in reverse order and marks it. Does nothing to a record that is undone, and waits for
/// anybody who is undoing it at this moment. `notes` stand before what the undo itself has to tell.
///
/// The injector that held it must be dead.
///
/// # Errors
/// The journal cannot be read or written. That a step could not be undone is no error: it is in the result.
pub async fn undo_record(
    journal: &Journal,
    record: &Record,
    table: FaultTable,
    host: &Host,
    by: &str,
    notes: Vec<String>,
) -> Result<Undone, JournalError> {
    let _lock = journal.lock(&record.path)?;
    let record = journal.read(&record.path)?;
    if let Some(undone) = record.undone() {
        return Ok(undone.clone());
    }
    let mut entry = journal.reopen(&record)?;
    entry.mark(&Mark::Undoing(by.into()))?;
    let mut undone = Undone { clean: true, by: by.into(), notes, drained: None };
    let applied = record.marks.iter().filter(|m| matches!(m, Mark::Applying(_))).count();
    let Some(fault) = table.get(&record.intent.fault) else {
        let why =
            format!("this Toprope knows no fault `{}`: undo with the version that injected it", record.intent.fault);
        entry.mark(&Mark::UndoFailed(why.clone()))?;
        return Ok(Undone { clean: false, by: by.into(), notes: vec![why], drained: None });
    };
    for (number, step) in record.intent.steps.iter().enumerate().rev() {
        if number >= applied && !matches!(step.undo, Undo::Restore(_)) {
            continue; // It was never applied, and there is nothing to look for.
        }
        if record.from_another_boot() && matches!(step.undo, Undo::KernelOwned(_)) {
            undone.notes.push(format!("{}: gone with the reboot", step.describe));
            continue;
        }
        match fault.undo(step, host).await {
            Ok(notes) => undone.notes.extend(notes),
            Err(error) => {
                undone.clean = false;
                undone.notes.push(format!("{} could not be undone: {error}", step.describe));
                undone.notes.extend(error.help);
            }
        }
    }
    if undone.clean {
        entry.mark(&Mark::Undone(undone.clone()))?;
    } else {
        entry.mark(&Mark::UndoFailed(undone.notes.join("; ")))?;
    }
    Ok(undone)
}
