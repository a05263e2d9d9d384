//! Whole frames, as a terminal would show them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::view::testrun;

fn live(records: &[Record]) -> Live {
    let mut live = Live::new(Ink::NONE);
    records.iter().for_each(|r| live.take(r));
    live
}

fn terminal(live: &Live, columns: u16, rows: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let now = live.story.state().at;
    terminal
        .draw(|frame| {
            frame::draw(frame, live, now);
        })
        .unwrap();
    terminal
}

fn drawn(live: &Live, columns: u16, rows: u16) -> String {
    let terminal = terminal(live, columns, rows);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let cells: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
        cells.trim_end().to_owned()
    };
    (0..rows).map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn under_a_fault_80x24() {
    insta::assert_snapshot!(drawn(&live(&testrun::under_fault()), 80, 24));
}

#[test]
fn under_a_fault_120x40() {
    insta::assert_snapshot!(drawn(&live(&testrun::under_fault()), 120, 40));
}

#[test]
fn held_120x40() {
    insta::assert_snapshot!(drawn(&live(&testrun::held()), 120, 40));
}

#[test]
fn refuted_with_recovery_80x24() {
    insta::assert_snapshot!(drawn(&live(&testrun::refuted()), 80, 24));
}

#[test]
fn refuted_with_recovery_160x40() {
    insta::assert_snapshot!(drawn(&live(&testrun::refuted()), 160, 40));
}

#[test]
fn stopped_80x24() {
    insta::assert_snapshot!(drawn(&live(&testrun::stopped()), 80, 24));
}

#[test]
fn failed_to_inject_80x24() {
    insta::assert_snapshot!(drawn(&live(&testrun::failed_to_inject()), 80, 24));
}

#[test]
fn a_search_120x40() {
    insta::assert_snapshot!(drawn(&live(&testrun::search()), 120, 40));
}

fn crowded() -> Vec<Record> {
    let names: Vec<String> = (0..50).map(|i| format!("probe-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut script = testrun::Script::new(&names);
    script.samples(0..3000, 480.0);
    script.done()
}

#[test]
fn fifty_probes_scroll_80x24() {
    let stop = StopSwitch::default();
    let mut live = live(&crowded());
    live.page = 10;
    assert!(drawn(&live, 80, 24).contains("40 more probes (↑ ↓), 0 of them bad"), "{}", drawn(&live, 80, 24));
    live.key(Key::PageDown, &stop);
    let text = drawn(&live, 80, 24);
    assert!(text.contains("probe-10 ") && !text.contains("probe-9 ") && text.contains("1 of them bad"), "{text}");
    live.key(Key::End, &stop);
    live.key(Key::Up, &stop);
    let text = drawn(&live, 80, 24);
    assert!(text.contains("probe-39 ") && text.contains("probe-48 ") && !text.contains("probe-49"), "{text}");
}

#[test]
fn help_80x24() {
    let mut live = live(&testrun::under_fault());
    live.key(Key::Char('?'), &StopSwitch::default());
    insta::assert_snapshot!(drawn(&live, 80, 24));
}

#[test]
fn no_size_is_a_panic() {
    let live = live(&testrun::refuted());
    let crowded = self::live(&crowded());
    for (columns, rows) in [(1, 1), (5, 50), (59, 24), (60, 14), (80, 15), (81, 23), (300, 14), (400, 100)] {
        drawn(&live, columns, rows);
        drawn(&crowded, columns, rows);
    }
    assert!(drawn(&live, 30, 5).contains("q stop"));
    // Before anything is known, too.
    drawn(&Live::new(Ink::NONE), 80, 24);
}

#[test]
fn foreign_names_cannot_break_the_picture() {
    let mut records = testrun::under_fault();
    if let toprope_model::event::Event::RunStarted(started) = &mut records[0].event {
        started.probes[0].name = "日本語の長い名前のプローブ\x1b[2J\n".into();
        started.faults[0].name = "x".repeat(500);
    }
    let text = drawn(&live(&records), 80, 24);
    assert!(!text.contains('\x1b'));
    // A wide character takes two cells, of which the second is empty in the buffer.
    assert!(text.contains("日 本 語"), "{text}");
    assert!(text.contains("xxx…"), "{text}");
}

#[test]
fn colours_are_there_and_only_when_wanted() {
    let coloured = |live: &Live| {
        let terminal = terminal(live, 80, 24);
        terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
    };
    let mut live = live(&testrun::under_fault());
    assert!(!coloured(&live));
    live.ink = Ink::ALL;
    assert!(coloured(&live));
}

#[test]
fn q_and_control_c_stop_the_run_once() {
    for key in [Key::Char('q'), Key::Control('c')] {
        let stop = StopSwitch::default();
        let mut live = live(&testrun::under_fault());
        live.key(key, &stop);
        let pulled = stop.pulled().unwrap();
        assert_eq!((pulled.by.as_str(), pulled.why.as_str()), ("person", "stopped from the keyboard"));
        assert!(drawn(&live, 80, 24).contains("stopping: undoing everything"));
    }
}

#[test]
fn a_paused_picture_stands_still_while_the_run_goes_on() {
    let stop = StopSwitch::default();
    let mut live = live(&testrun::under_fault());
    live.key(Key::Char('p'), &stop);
    let before = drawn(&live, 80, 24);
    assert!(before.contains("paused at"), "{before}");
    testrun::refuted().iter().filter(|r| r.at > 8_200_000_000).for_each(|r| live.take(r));
    assert_eq!(drawn(&live, 80, 24), before);
    live.key(Key::Char('p'), &stop);
    assert!(drawn(&live, 80, 24).contains("VERDICT"));
    assert!(stop.pulled().is_none());
}

#[tokio::test]
async fn a_question_is_asked_above_all_else_and_answered_by_a_key() {
    use toprope_engine::host::Person;
    let (desk, mut requests) = Desk::new();
    let stop = StopSwitch::default();
    let mut live = live(&testrun::under_fault());
    let (answer, ()) = tokio::join!(desk.ask("pull the plug of db-1", Duration::from_secs(60)), async {
        while live.request.is_none() {
            tokio::task::yield_now().await;
            live.ask(&mut requests);
        }
        let text = drawn(&live, 80, 24);
        assert!(text.contains("pull the plug of db-1") && text.contains("it cannot be done"), "{text}");
        live.key(Key::Char('n'), &stop);
    });
    assert!(answer.is_err());
    assert!(live.request.is_none() && stop.pulled().is_none());
}

#[test]
fn what_is_kept_to_be_drawn_does_not_grow_with_the_samples() {
    // Folding and drawing cost what is kept, and time is measured by nobody: a test machine may stand still.
    let kept = |seconds: u64| {
        let mut script = testrun::Script::new(&["one", "two"]);
        script.samples(0..seconds * 1000, 22.0);
        let records = script.done();
        let mut live = Live::new(Ink::ALL);
        records.iter().for_each(|record| live.take(record));
        assert!(drawn(&live, 120, 40).contains("one"));
        (records.len(), format!("{live:?}").len())
    };
    let ((few, short), (many, long)) = (kept(150), kept(1200));
    assert!(many > 7 * few, "{few} and {many} records");
    assert!(long < short * 3 / 2, "{short} characters tell what is kept of {few} records, {long} of {many}");
}
