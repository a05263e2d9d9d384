//! Plain lines, for what is no terminal: one for each event that matters.

use std::io::Write;
use std::sync::Arc;

use toprope_model::event::Record;

use super::ink::Ink;
use super::state::RunState;
use super::story::Story;

/// Writes the run's lines until it is over, and returns what was seen of it. Blocks: call it on a thread of its own.
///
/// A reader that goes away (a closed pipe) ends the writing and nothing else.
pub fn show(records: impl Iterator<Item = Arc<Record>>, mut out: impl Write, ink: Ink) -> RunState {
    let mut story = Story::default();
    let mut open = true;
    for record in records {
        for entry in story.take(&record) {
            open = open && writeln!(out, "{}", entry.line(ink)).and_then(|()| out.flush()).is_ok();
        }
    }
    story.into_state()
}

#[cfg(test)]
mod tests {
    use super::super::testrun;
    use super::*;

    fn told(records: Vec<Record>, ink: Ink) -> String {
        let mut out = Vec::new();
        show(records.into_iter().map(Arc::new), &mut out, ink);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_held_run() {
        insta::assert_snapshot!(told(testrun::held(), Ink::NONE));
    }

    #[test]
    fn a_refuted_run_that_recovers() {
        insta::assert_snapshot!(told(testrun::refuted(), Ink::NONE));
    }

    #[test]
    fn a_run_that_a_guardrail_stops() {
        insta::assert_snapshot!(told(testrun::stopped(), Ink::NONE));
    }

    #[test]
    fn a_fault_that_cannot_be_injected() {
        insta::assert_snapshot!(told(testrun::failed_to_inject(), Ink::NONE));
    }

    #[test]
    fn the_trials_of_a_search() {
        insta::assert_snapshot!(told(testrun::search(), Ink::NONE));
    }

    #[test]
    fn no_line_can_speak_to_the_terminal_but_in_our_colours() {
        let plain = told(testrun::failed_to_inject(), Ink::NONE);
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(plain.contains("could not be injected\u{fffd}[31m"), "{plain}");
        assert!(told(testrun::failed_to_inject(), Ink::ALL).contains("\x1b[1;31m"));
    }

    #[test]
    fn a_long_silence_is_broken() {
        let mut script = testrun::Script::new(&["checkout"]);
        script.samples(0..40_000, 22.0);
        let told = told(script.done(), Ink::NONE);
        let lines: Vec<&str> = told.lines().filter(|l| l.contains("probes")).collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].contains("checkout 151 of 151 good, p50 2"), "{told}");
    }

    #[test]
    fn a_reader_who_goes_away_is_no_panic() {
        struct Closed(usize);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                self.0 += 1;
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut closed = Closed(0);
        let state = show(testrun::refuted().into_iter().map(Arc::new), &mut closed, Ink::NONE);
        assert!(state.judgement.is_some(), "the run is followed to its end all the same");
        assert_eq!(closed.0, 1, "and nobody writes to a closed pipe twice");
    }
}
