//! Every event as one line of JSON, for programs: the lines of the log, as they come.

use std::io::Write;
use std::sync::Arc;

use toprope_model::event::Record;

use super::state::RunState;

/// Writes the run's events until it is over, and returns what was seen of it. Blocks: call it on a thread of its own.
///
/// A reader that goes away (a closed pipe) ends the writing and nothing else.
pub fn show(records: impl Iterator<Item = Arc<Record>>, mut out: impl Write) -> RunState {
    let mut state = RunState::default();
    let mut line = Vec::new();
    let mut open = true;
    for record in records {
        state.apply(&record);
        line.clear();
        // In one piece, so that no reader ever sees half a line.
        if open && serde_json::to_writer(&mut line, &*record).is_ok() {
            line.push(b'\n');
            open = out.write_all(&line).and_then(|()| out.flush()).is_ok();
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::super::testrun;
    use super::*;

    #[test]
    fn every_record_is_one_line_that_reads_back() {
        let records = testrun::refuted();
        let mut out = Vec::new();
        show(records.iter().cloned().map(Arc::new), &mut out);
        let text = String::from_utf8(out).unwrap();
        let read: Vec<Record> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read, records);
    }
}
