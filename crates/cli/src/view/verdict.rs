//! The closing block: the verdict, why, what each probe and fault came to, what next, and where it is kept.

use std::path::PathBuf;

use toprope_model::verdict::{BreakingPoint, Ending, Judgement, Outcome, ProbeJudgement};

use super::fault::FaultState;
use super::ink::{Ink, Tone};
use super::state::RunState;
use super::story::tone;
use super::words::{clean, count, effect, left, millis, plain, width, wrap};

/// Where a run is kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// What was kept, each with a word for it: `report`, `log`, `junit`.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// The outcome with its sign: `✔ held`.
pub fn outcome_text(outcome: Outcome) -> String {
    let sign = match outcome {
        Outcome::Held => '✔',
        Outcome::Refuted => '✘',
        Outcome::Inconclusive => '?',
    };
    format!("{sign} {outcome}")
}

/// The closing block of a run as lines of text, in at most `columns` columns where words can be broken. Commands and
/// paths are never broken: they are there to be copied.
pub fn verdict_text(judgement: &Judgement, run: &RunState, kept: &Kept, ink: Ink, columns: usize) -> String {
    let mut block = Block { out: String::new(), ink, columns: columns.max(40) };
    block.headline(judgement, run);
    block.probes(judgement);
    block.times(judgement);
    if let Some(point) = &judgement.breaking_point {
        block.breaking_point(point);
    }
    block.faults(run);
    block.next(judgement);
    block.kept(kept);
    block.out
}

struct Block {
    out: String,
    ink: Ink,
    columns: usize,
}

impl Block {
    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.line("");
        let text = self.ink.paint(Tone::Dim, text);
        self.line(&format!("  {text}"));
    }

    /// A paragraph with a first indent and one for the lines after it.
    fn paragraph(&mut self, first: &str, rest: &str, text: &str, tone: Tone) {
        let room = self.columns.saturating_sub(width(rest)).max(20);
        for (i, line) in wrap(text, room).iter().enumerate() {
            let line = self.ink.paint(tone, line);
            self.line(&format!("{}{line}", if i == 0 { first } else { rest }));
        }
    }

    fn headline(&mut self, judgement: &Judgement, run: &RunState) {
        let (sign, word) = match judgement.outcome {
            Outcome::Held => ("✔", "HELD"),
            Outcome::Refuted => ("✘", "REFUTED"),
            Outcome::Inconclusive => ("?", "INCONCLUSIVE"),
        };
        let ending = match judgement.ending {
            Ending::Complete => "",
            Ending::Stopped => " (stopped before its end)",
            Ending::NotUndone => " (NOT EVERYTHING COULD BE UNDONE)",
        };
        let verdict = self.ink.paint(tone(judgement.outcome), &format!("{sign} {word}"));
        let ending = self.ink.paint(if judgement.ending == Ending::NotUndone { Tone::Bad } else { Tone::Warn }, ending);
        self.line(&format!("{verdict}{ending}  {}", self.ink.paint(Tone::Strong, &clean(run.name()))));
        let hypothesis = clean(run.hypothesis());
        if !hypothesis.is_empty() {
            self.paragraph("  ", "  ", &hypothesis, Tone::Plain);
        }
        if !judgement.reasons.is_empty() {
            self.heading("why");
        }
        for reason in &judgement.reasons {
            self.paragraph("  - ", "    ", &clean(reason), Tone::Plain);
        }
    }

    fn probes(&mut self, judgement: &Judgement) {
        if judgement.probes.is_empty() {
            return;
        }
        let any = |has: fn(&ProbeJudgement) -> bool| judgement.probes.iter().any(has);
        let (detected, recovered) = (any(|p| p.detect_ms.is_some()), any(|p| p.recover_ms.is_some()));
        let lost = any(|p| p.lost.is_some());
        let mut head = vec!["probe", "verdict", "good samples"];
        head.extend(detected.then_some("detected after"));
        head.extend(recovered.then_some("recovered after"));
        head.extend(lost.then_some("writes lost"));
        let time = |ms: Option<f64>| Cell::plain(ms.map_or_else(|| "-".into(), millis));
        let row = |p: &ProbeJudgement| {
            let mut cells = vec![
                Cell::plain(clean(&p.name)),
                Cell { text: outcome_text(p.outcome), tone: tone(p.outcome) },
                Cell::plain(match p.samples {
                    (_, 0) => "none judged".into(),
                    (good, all) => format!("{good} of {all}"),
                }),
            ];
            cells.extend(detected.then(|| time(p.detect_ms)));
            cells.extend(recovered.then(|| time(p.recover_ms)));
            cells.extend(
                lost.then(|| Cell::plain(p.lost.map_or_else(|| "-".into(), |(all, lost)| format!("{lost} of {all}")))),
            );
            // What the verdict gave as its reason already needs no second time.
            let told = |reason: &&String| !judgement.reasons.iter().any(|r| r.contains(reason.trim_end_matches('.')));
            let reasons = p.reasons.iter().filter(told).map(|r| clean(r)).collect();
            (cells, reasons)
        };
        let rows = judgement.probes.iter().map(row).collect();
        self.table(&head, rows);
    }

    fn times(&mut self, judgement: &Judgement) {
        let detected = judgement.detect_ms.map(|ms| format!("detected {} after the injection", millis(ms)));
        let recovered = match (judgement.detect_ms, judgement.recover_ms) {
            (_, Some(ms)) => Some(format!("back in tolerance {} after that", millis(ms))),
            (Some(_), None) => Some("not back in tolerance before the end".into()),
            (None, None) => None,
        };
        let told: Vec<String> = detected.into_iter().chain(recovered).collect();
        if !told.is_empty() {
            self.line("");
            self.paragraph("  ", "  ", &told.join(", "), Tone::Plain);
        }
    }

    fn breaking_point(&mut self, point: &BreakingPoint) {
        let parameter = clean(&point.parameter);
        let found = match (&point.held, &point.refuted) {
            (Some(held), Some(refuted)) => {
                format!("{parameter}: held at {}, refuted at {}", clean(held), clean(refuted))
            }
            (Some(held), None) => format!("{parameter}: held at all values tried, up to {}", clean(held)),
            (None, Some(refuted)) => format!("{parameter}: refuted at all values tried, down to {}", clean(refuted)),
            (None, None) => format!("{parameter}: not found"),
        };
        self.heading("breaking point");
        self.paragraph("  ", "  ", &found, Tone::Strong);
        let cell = |n: &u32, tone| Cell { text: n.to_string(), tone: if *n > 0 { tone } else { Tone::Dim } };
        let rows = point.trials.iter().map(|(value, held, refuted, unclear)| {
            let cells = vec![
                Cell::plain(clean(value)),
                cell(held, Tone::Good),
                cell(refuted, Tone::Bad),
                cell(unclear, Tone::Warn),
            ];
            (cells, vec![])
        });
        let rows = rows.collect();
        self.table(&["value", "trials held", "refuted", "inconclusive"], rows);
    }

    fn faults(&mut self, run: &RunState) {
        if run.faults.is_empty() {
            return;
        }
        let row = |fault: &FaultState| {
            let (what, tone) = undone(fault);
            let mut notes: Vec<String> =
                fault.effect().map(effect).into_iter().filter(|words| !words.is_empty()).collect();
            let seen = if fault.unclean.is_empty() { &fault.undo_notes } else { &fault.unclean };
            notes.extend(seen.iter().take(4).cloned());
            (vec![Cell::plain(clean(&fault.info.name)), Cell { text: what, tone }], notes)
        };
        let rows = run.faults.iter().map(row).collect();
        self.table(&["fault", "what became of it"], rows);
        if run.faults.iter().any(|f| !f.unclean.is_empty()) {
            let run = run.started.as_ref().map(|s| clean(&s.run)).unwrap_or_default();
            let command = format!("toprope undo {run} && toprope residue");
            let text = self.ink.paint(Tone::Bad, "Something is left on this host. Remove it, and see that it is gone:");
            self.line("");
            self.line(&format!("  {text}"));
            self.line(&format!("      {}", self.ink.paint(Tone::Strong, &command)));
        }
    }

    fn next(&mut self, judgement: &Judgement) {
        if judgement.next.is_empty() {
            return;
        }
        self.heading("what next");
        for suggestion in &judgement.next {
            self.paragraph("  - ", "    ", &clean(&suggestion.text), Tone::Plain);
            if let Some(command) = &suggestion.command {
                let command = self.ink.paint(Tone::Strong, &plain(command));
                self.line(&format!("      {command}"));
            }
        }
    }

    fn kept(&mut self, kept: &Kept) {
        if kept.files.is_empty() {
            return;
        }
        self.line("");
        let widest = kept.files.iter().map(|(what, _)| width(what)).max().unwrap_or_default();
        for (what, path) in &kept.files {
            let what = self.ink.paint(Tone::Dim, &left(what, widest));
            self.line(&format!("  {what}  {}", plain(&path.display().to_string())));
        }
    }

    /// A table with aligned columns; each row may have notes below it.
    fn table(&mut self, head: &[&str], rows: Vec<(Vec<Cell>, Vec<String>)>) {
        const GAP: &str = "  ";
        let widest = |i: usize| {
            let cells = rows.iter().filter_map(|(cells, _)| cells.get(i)).map(|c| width(&c.text));
            cells.chain([width(head[i])]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(widest).collect();
        let titles: Vec<String> = head.iter().zip(&widths).map(|(title, w)| left(title, *w)).collect();
        self.heading(titles.join(GAP).trim_end());
        for (cells, notes) in rows {
            let last = cells.len().saturating_sub(1);
            let cell = |(i, (c, w)): (usize, (&Cell, &usize))| {
                self.ink.paint(c.tone, &if i == last { c.text.clone() } else { left(&c.text, *w) })
            };
            let cells: Vec<String> = cells.iter().zip(&widths).enumerate().map(cell).collect();
            self.line(&format!("  {}", cells.join(GAP)));
            let indent = " ".repeat(2 + widths.first().copied().unwrap_or_default().min(24) + GAP.len());
            for note in notes {
                self.paragraph(&indent, &indent, &note, Tone::Dim);
            }
        }
    }
}

struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    fn plain(text: String) -> Self {
        Self { text, tone: Tone::Plain }
    }
}

/// What became of a fault, in words.
fn undone(fault: &FaultState) -> (String, Tone) {
    let times =
        if fault.injected > 1 { format!(", {}", count(u64::from(fault.injected), "injection")) } else { String::new() };
    match (&fault.error, fault.injected) {
        _ if !fault.unclean.is_empty() => (format!("✘ NOT UNDONE{times}"), Tone::Bad),
        (Some(error), _) => (format!("✘ could not be injected: {error}"), Tone::Bad),
        (None, 0) => ("not injected".into(), Tone::Dim),
        (None, n) if fault.clean >= n && fault.info.lasting => {
            (format!("✔ undone by the {}{times}", fault.undone_by), Tone::Good)
        }
        (None, _) if !fault.info.lasting => happened(fault, &times),
        (None, n) => {
            (format!("? {} not seen to be undone", count(u64::from(n - fault.clean), "injection")), Tone::Warn)
        }
    }
}

/// Whether what was to happen at one instant was seen to, and else what was.
fn happened(fault: &FaultState, times: &str) -> (String, Tone) {
    let effect = fault.effect();
    let note = effect.and_then(|e| e.note.as_deref()).map(|note| format!(": {}", clean(note))).unwrap_or_default();
    match effect.and_then(|e| e.took) {
        Some(true) => (format!("✔ happened{times}"), Tone::Good),
        Some(false) => (format!("✘ did not take{times}{note}"), Tone::Bad),
        None => (format!("? not seen to happen{times}{note}"), Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testrun;
    use super::*;
    use toprope_model::event::{Event, Record};
    use toprope_model::step::Undone;

    fn closing(records: &[Record], judgement: Option<Judgement>, ink: Ink) -> String {
        let mut state = RunState::default();
        for record in records {
            state.apply(record);
        }
        let judgement = judgement.unwrap_or_else(|| *state.judgement.clone().unwrap());
        let kept = Kept {
            files: vec![
                ("report", "/var/lib/toprope/runs/20260301-101500-ab12/report.html".into()),
                ("log", "/var/lib/toprope/runs/20260301-101500-ab12/events.jsonl".into()),
            ],
        };
        verdict_text(&judgement, &state, &kept, ink, 80)
    }

    #[test]
    fn held() {
        insta::assert_snapshot!(closing(&testrun::held(), None, Ink::NONE));
    }

    #[test]
    fn refuted() {
        insta::assert_snapshot!(closing(&testrun::refuted(), None, Ink::NONE));
    }

    #[test]
    fn stopped() {
        insta::assert_snapshot!(closing(&testrun::stopped(), None, Ink::NONE));
    }

    #[test]
    fn failed_to_inject() {
        insta::assert_snapshot!(closing(&testrun::failed_to_inject(), None, Ink::NONE));
    }

    #[test]
    fn breaking_point() {
        insta::assert_snapshot!(closing(&testrun::search(), Some(testrun::breaking_point()), Ink::NONE));
    }

    #[test]
    fn what_is_left_on_the_host_cannot_be_overlooked() {
        let mut records = testrun::refuted();
        for record in &mut records {
            if let Event::Undone { undone, .. } = &mut record.event {
                let notes = vec!["the route to 10.0.0.0/8 is still gone".into()];
                *undone = Undone { clean: false, by: "run".into(), notes, drained: None };
            }
        }
        let judgement =
            testrun::judgement(Outcome::Refuted, Ending::NotUndone, &["slow-database could not be undone."]);
        let text = closing(&records, Some(judgement), Ink::NONE);
        assert!(text.contains("NOT EVERYTHING COULD BE UNDONE"), "{text}");
        assert!(text.contains("NOT UNDONE\n") && text.contains("still gone"), "{text}");
        assert!(text.contains("toprope undo 20260301-101500-ab12 && toprope residue"), "{text}");
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let strip = |text: &str| regex::Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(text, "").into_owned();
        let coloured = closing(&testrun::refuted(), None, Ink::ALL);
        assert!(coloured.contains("\x1b[1;31m✘ REFUTED\x1b[0m"));
        let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&strip(&coloured)), trimmed(&closing(&testrun::refuted(), None, Ink::NONE)));
    }

    #[test]
    fn what_was_not_seen_to_happen_is_not_told_as_if_it_had() {
        for (took, told) in [
            (Some(true), "✔ happened"),
            (Some(false), "✘ did not take: the old process still runs"),
            (None, "? not seen to happen: the old process still runs"),
        ] {
            let mut records = testrun::held();
            for record in &mut records {
                match &mut record.event {
                    Event::RunStarted(started) => started.faults[0].lasting = false,
                    Event::Effect { effect, .. } => {
                        (effect.took, effect.note) = (took, Some("the old process still runs".into()));
                    }
                    _ => {}
                }
            }
            let text = closing(&records, None, Ink::NONE);
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn a_probe_of_which_nothing_was_judged_says_so() {
        let records = testrun::held();
        let mut state = RunState::default();
        for record in &records {
            state.apply(record);
        }
        let mut judgement = *state.judgement.clone().unwrap();
        judgement.probes[0].samples = (0, 0);
        let text = closing(&records, Some(judgement), Ink::NONE);
        assert!(text.contains("none judged") && !text.contains("0 of 0"), "{text}");
    }
}
