//! One frame of the live view: header, table, story, keys; and what may lie above them.

use std::collections::VecDeque;
use std::time::Instant;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget};
use toprope_model::event::Phase;
use toprope_model::verdict::Outcome;

use super::Live;
use super::table::{Columns, Table};
use crate::view::fault::Standing;
use crate::view::ink::{Ink, Tone};
use crate::view::probe::Health;
use crate::view::state::RunState;
use crate::view::story::{Entry, stopped, tone};
use crate::view::verdict::outcome_text;
use crate::view::words::{clean, count as counted, fit, left, nanos, offset, running, width, wrap};

/// Rows above the table: name, hypothesis, phases, how it stands, a rule, the titles.
const HEADER: u16 = 6;
/// Rows below it that are always there: a rule, the keys.
const FOOTER: u16 = 2;
/// Rows that are left to the story at least.
const STORY: u16 = 4;
const PLENTY: usize = 10;
/// The most rows of a sparkline.
const TALLEST: usize = 3;
/// The story's lines begin at this column, and take at most so many rows each.
const STORY_TEXT: usize = 22;
const STORY_ROWS: usize = 3;
/// A terminal smaller than this gets the most important line alone.
const SMALLEST: (u16, u16) = (60, 14);

const PHASES: [Phase; 5] = [Phase::SteadyState, Phase::Inject, Phase::Undo, Phase::Recovery, Phase::Verdict];

/// Draws a frame as of `now`, and returns how many probes fit.
pub fn draw(frame: &mut Frame, live: &Live, now: u64) -> usize {
    let area = frame.area();
    let (run, tail, at) = match &live.frozen {
        Some(frozen) => (&frozen.run, &frozen.tail, frozen.now),
        None => (live.story.state(), &live.tail, now),
    };
    let mut page = Page { buffer: frame.buffer_mut(), area, ink: live.ink };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        page.small(live.story.state(), now);
        return 1;
    }
    page.header(run, at);
    let layout = Layout::of(run, area);
    page.table(run, at, &layout, live.scroll);
    page.story(tail, layout.story);
    page.keys(live);
    if live.help {
        page.help();
    }
    if let Some(request) = &live.request {
        page.request(&request.what, request.until);
    }
    layout.probes
}

/// How the rows are shared out between probes, faults and the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Probes that are shown, and the rows of each one's sparkline; with 0 a probe has a single row for everything.
    probes: usize,
    height: usize,
    /// Whether a row is needed to say that there are more.
    more: bool,
    faults: usize,
    roomy_faults: bool,
    /// The first row of the story, after its rule.
    story: u16,
}

impl Layout {
    fn of(run: &RunState, area: Rect) -> Self {
        let (probes, faults) = (run.probes.len(), run.faults.len());
        let all = usize::from(area.height.saturating_sub(HEADER + FOOTER));
        let rows = |height: usize| probes * (height + 1) + faults * 2;
        // Sparklines grow where plenty of rows is still left to the story.
        let tall = (2..=TALLEST).rev().find(|height| rows(*height) + PLENTY <= all);
        let room = all.saturating_sub(usize::from(STORY));
        let (height, roomy_faults) = match tall {
            Some(height) => (height, true),
            None if rows(1) <= room => (1, true),
            None => (0, rows(0) <= room),
        };
        let per_fault = if roomy_faults { 2 } else { 1 };
        // Faults are few; but a method of many must not push out the probes.
        let faults = faults.min((room / 2 / per_fault).max(1));
        let left = room.saturating_sub(faults * per_fault);
        let more = probes * (height + 1) > left;
        let probes = if more { left.saturating_sub(1).max(1) } else { probes };
        let used = probes * (height + 1) + usize::from(more) + faults * per_fault;
        let story = area.y + HEADER + u16::try_from(used).unwrap_or(u16::MAX) + 1;
        Self { probes, height, more, faults, roomy_faults, story }
    }
}

struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    ink: Ink,
}

impl Page<'_> {
    fn columns(&self) -> usize {
        usize::from(self.area.width)
    }

    fn line(&mut self, row: u16, line: &Line) {
        if row < self.area.height {
            self.buffer.set_line(self.area.x, self.area.y + row, line, self.area.width);
        }
    }

    fn at_right(&mut self, row: u16, text: &str, style: Style) {
        let columns = width(text).min(self.columns().saturating_sub(1));
        let x = self.area.right().saturating_sub(u16::try_from(columns).unwrap_or_default() + 1);
        self.buffer.set_stringn(x, self.area.y + row, text, columns, style);
    }

    fn rule(&mut self, row: u16) {
        let line = "─".repeat(self.columns());
        self.line(row, &Line::styled(line, self.ink.style(Tone::Dim)));
    }

    fn span(&self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.ink.style(tone))
    }

    fn header(&mut self, run: &RunState, now: u64) {
        let id = run.started.as_ref().map(|s| clean(&s.run)).unwrap_or_default();
        let right = format!("{id}  {:>7}", running(now));
        let room = self.columns().saturating_sub(width(&right) + 4);
        let name = fit(&clean(run.name()), room);
        self.line(0, &Line::from(vec![Span::raw(" "), self.span(Tone::Strong, name)]));
        self.at_right(0, &right, self.ink.style(Tone::Dim));
        let hypothesis = fit(&clean(run.hypothesis()), self.columns().saturating_sub(2));
        self.line(1, &Line::raw(format!(" {hypothesis}")));
        let strip = self.phases(run);
        let used = strip.width();
        self.line(2, &strip);
        let room = self.columns().saturating_sub(used + 3);
        let countdown = countdown(run, now).into_iter().find(|text| width(text) <= room);
        self.at_right(2, &countdown.unwrap_or_default(), self.ink.style(Tone::Strong));
        let standing = self.standing(run);
        self.line(3, &standing);
        self.rule(4);
    }

    /// The phases in order, with signs for what is over, what goes on and what is to come.
    fn phases(&self, run: &RunState) -> Line<'static> {
        let current = run.phase.map(|(phase, _)| phase);
        let mut spans = vec![Span::raw(" ")];
        for (i, phase) in PHASES.into_iter().enumerate() {
            if i > 0 {
                spans.push(self.span(Tone::Dim, " ─ "));
            }
            spans.push(match current {
                Some(now) if now == phase => {
                    let style = self.ink.style(Tone::Strong).add_modifier(Modifier::REVERSED);
                    Span::styled(format!("▶ {}", phase.to_string().to_uppercase()), style)
                }
                Some(_) if run.phases.contains(&phase) => self.span(Tone::Good, format!("✔ {phase}")),
                _ => self.span(Tone::Dim, format!("· {phase}")),
            });
        }
        Line::from(spans)
    }

    /// How it stands, in one line.
    fn standing(&self, run: &RunState) -> Line<'static> {
        let mut spans = vec![Span::raw(" ")];
        if let Some(judgement) = &run.judgement {
            let text = outcome_text(judgement.outcome).to_uppercase();
            spans.push(self.span(tone(judgement.outcome), text));
            spans.push(Span::raw("   "));
        }
        if let Some(stop) = &run.stopping {
            spans.push(self.span(Tone::Bad, format!("✘ {}", stopped(stop))));
            return Line::from(spans);
        }
        let known = run.trials.iter().filter(|t| t.outcome.is_some());
        if let Some(trial) = run.trials.last().filter(|t| t.outcome.is_none()) {
            spans.push(self.span(Tone::Strong, format!("trial {}: {}", trial.number, clean(&trial.value))));
            for outcome in [Outcome::Held, Outcome::Refuted, Outcome::Inconclusive] {
                let mut values: Vec<String> =
                    known.clone().filter(|t| t.outcome == Some(outcome)).map(|t| clean(&t.value)).collect();
                values.dedup();
                if !values.is_empty() {
                    spans.push(Span::raw("   "));
                    spans.push(self.span(tone(outcome), format!("{outcome} at {}", values.join(", "))));
                }
            }
            spans.push(Span::raw("   "));
        }
        let count = |health| run.probes.iter().filter(|p| p.last.as_ref().is_some_and(|l| l.health == health)).count();
        let (good, bad, broken) = (count(Health::Good), count(Health::Bad), count(Health::Broken));
        let probes = counted(run.probes.len() as u64, "probe");
        match (good, bad, broken) {
            (0, 0, 0) => spans.push(self.span(Tone::Dim, "no samples yet")),
            (_, 0, 0) => spans.push(self.span(Tone::Good, format!("✔ {good} of {probes} good"))),
            (_, 0, n) => spans.push(self.span(Tone::Warn, format!("! {n} of {probes} broken"))),
            (_, n, _) => spans.push(self.span(Tone::Bad, format!("✘ {n} of {probes} bad"))),
        }
        if let Some(detect) = run.detect() {
            spans.push(Span::raw(format!("   detected {} after the injection", nanos(detect))));
        }
        if let Some(recover) = run.recover() {
            spans.push(Span::raw(format!(", back {} later", nanos(recover))));
        }
        Line::from(spans)
    }

    fn table(&mut self, run: &RunState, now: u64, layout: &Layout, scroll: usize) {
        let columns = Columns::of(run, self.columns());
        let axis = columns.axis(run, now);
        let mut y = self.area.y + HEADER - 1;
        let mut table = Table { buffer: self.buffer, columns, axis, ink: self.ink, now };
        table.head(y);
        y += 1;
        let first = scroll.min(run.probes.len().saturating_sub(layout.probes));
        for probe in run.probes.iter().skip(first).take(layout.probes) {
            table.probe(y, probe, run, layout.height);
            y += u16::try_from(layout.height + 1).unwrap_or(u16::MAX);
        }
        if layout.more {
            let hidden: Vec<_> = run
                .probes
                .iter()
                .enumerate()
                .filter(|(i, _)| *i < first || *i >= first + layout.probes)
                .map(|(_, p)| p)
                .collect();
            let bad = hidden.iter().filter(|p| p.last.as_ref().is_some_and(|l| l.health == Health::Bad)).count();
            let words = format!(" … {} more probes (↑ ↓), {bad} of them bad", hidden.len());
            let style = self.ink.style(if bad > 0 { Tone::Bad } else { Tone::Dim });
            table.buffer.set_stringn(self.area.x, y, words, usize::from(self.area.width), style);
            y += 1;
        }
        // Those that are or were in force before those that wait.
        let waiting = |f: &&crate::view::fault::FaultState| f.standing() == Standing::Waiting;
        let mut faults: Vec<_> = run.faults.iter().collect();
        if faults.len() > layout.faults {
            faults.sort_by_key(|f| (waiting(f), !f.is_in_force()));
        }
        for fault in faults.into_iter().take(layout.faults) {
            table.fault(y, fault, layout.roomy_faults);
            y += if layout.roomy_faults { 2 } else { 1 };
        }
    }

    fn story(&mut self, tail: &VecDeque<Entry>, first: u16) {
        let last = self.area.bottom().saturating_sub(1);
        self.rule(first.saturating_sub(self.area.y + 1));
        let rows = usize::from(last.saturating_sub(first));
        let room = self.columns().saturating_sub(STORY_TEXT + 1);
        // From the end back, until the rows are full.
        let mut lines: VecDeque<Line> = VecDeque::new();
        for entry in tail.iter().rev() {
            let told = self.told(entry, room);
            if lines.len() + told.len() > rows {
                break;
            }
            told.into_iter().rev().for_each(|line| lines.push_front(line));
        }
        for (row, line) in (first - self.area.y..).zip(&lines) {
            self.line(row, line);
        }
    }

    /// A line of the story, in as many rows as it needs.
    fn told(&self, entry: &Entry, room: usize) -> Vec<Line<'static>> {
        let strong = matches!(entry.tone, Tone::Bad | Tone::Strong);
        let tone = if strong { entry.tone } else { Tone::Plain };
        let mut rows = wrap(&entry.text, room);
        if rows.len() > STORY_ROWS {
            rows.truncate(STORY_ROWS);
            let last = &mut rows[STORY_ROWS - 1];
            *last = format!("{} …", fit(last, room.saturating_sub(2)));
        }
        let line = |(i, text): (usize, String)| {
            let text = self.span(tone, fit(&text, room));
            if i > 0 {
                return Line::from(vec![Span::raw(" ".repeat(STORY_TEXT)), text]);
            }
            let at = self.span(Tone::Dim, format!("{:>9}  ", offset(entry.at)));
            Line::from(vec![at, self.span(entry.tone, format!("{} {} ", entry.sign(), left(entry.about, 8))), text])
        };
        rows.into_iter().enumerate().map(line).collect()
    }

    fn keys(&mut self, live: &Live) {
        let row = self.area.height - 1;
        let keys = [("q", "stop and undo"), ("p", "pause"), ("↑ ↓", "probes"), ("?", "help")];
        let mut spans = vec![Span::raw(" ")];
        for (key, does) in keys {
            spans.push(self.span(Tone::Strong, key));
            spans.push(self.span(Tone::Dim, format!(" {does}   ")));
        }
        self.line(row, &Line::from(spans));
        let loud = self.ink.style(Tone::Warn).add_modifier(Modifier::REVERSED);
        let run = live.story.state();
        let over = run.phase.is_some_and(|(phase, _)| phase > Phase::Undo);
        if !over && (live.stopped || run.stopping.is_some()) {
            self.at_right(row, " stopping: undoing everything ", loud);
        } else if let Some(frozen) = &live.frozen {
            let text = format!(" paused at {} (p goes on) ", running(frozen.now));
            self.at_right(row, &text, loud);
        }
    }

    fn help(&mut self) {
        let text = "\
q, Ctrl-C   stop the run: everything in force is undone at once
H           halt: stop every run on this host, and let none begin
p, Space    pause the picture; the run goes on
↑ ↓ j k     scroll the probes (also PgUp, PgDn, Home, End)
?, h, Esc   this help

▁▂▃▄▅▆▇█    the largest value in that time, from 0 up
×           some sample in that time was bad
!           the probe itself failed: no evidence
▓ ▒ ░       a fault in force, being undone, still to come
▲ ✘         a fault that happened at once, that failed

good, p50, p99: of the samples under the fault;
before it, of the steady state.";
        let lines: Vec<Line> = text.lines().map(Line::raw).collect();
        self.boxed(" help ", lines);
    }

    fn request(&mut self, what: &str, until: Instant) {
        let room = self.columns().saturating_sub(12).clamp(20, 70);
        let mut lines: Vec<Line> =
            wrap(&clean(what), room).into_iter().map(|l| Line::from(self.span(Tone::Strong, l))).collect();
        let left = until.saturating_duration_since(Instant::now());
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        lines.push(Line::raw(""));
        lines.push(Line::raw("y, Enter   it is done"));
        lines.push(Line::raw("n          it cannot be done"));
        lines.push(Line::styled(format!("{} left", running(left)), self.ink.style(Tone::Warn)));
        self.boxed(" please do this by hand ", lines);
    }

    /// A box in the middle, above all else.
    fn boxed(&mut self, title: &str, lines: Vec<Line>) {
        let widest = lines.iter().map(Line::width).max().unwrap_or_default().max(width(title));
        let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(self.area.width);
        let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(self.area.height);
        let area = Rect {
            x: self.area.x + (self.area.width - width) / 2,
            y: self.area.y + (self.area.height - height) / 2,
            width,
            height,
        };
        Clear.render(area, self.buffer);
        let padding = ratatui::widgets::Padding::horizontal(1);
        let frame = Block::bordered().title(title.to_owned()).padding(padding);
        Paragraph::new(lines).block(frame).render(area, self.buffer);
    }

    /// For a terminal on which nothing fits.
    fn small(&mut self, run: &RunState, now: u64) {
        let phase = run.phase.map(|(phase, _)| phase.to_string()).unwrap_or_default();
        let first = format!("{phase} {}", running(now));
        self.line(0, &Line::styled(first, self.ink.style(Tone::Strong)));
        let standing = self.standing(run);
        self.line(1, &standing);
        self.line(2, &Line::raw(" q stop and undo (a larger window shows more)"));
    }
}

/// What ends next, and in how long; in words, and in fewer words.
fn countdown(run: &RunState, now: u64) -> Vec<String> {
    let faults = run.faults.iter().filter(|f| f.is_in_force());
    let next = faults.filter_map(|f| Some((f.planned_end()?, f))).min_by_key(|(end, _)| *end);
    if let Some((end, fault)) = next {
        let left = running(end.saturating_sub(now));
        return vec![format!("{} ends in {left}", clean(&fault.info.name)), format!("ends in {left}"), left];
    }
    match (run.phase, run.phase_left(now)) {
        (Some((phase, _)), Some(left)) => {
            let left = running(left);
            vec![format!("{phase} ends in {left}"), format!("{left} left"), left]
        }
        _ => vec![],
    }
}
