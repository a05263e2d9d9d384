//! The rows of probes and faults: words at the left, the time axis in the middle, numbers at the right.

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use super::axis::{Axis, Mark};
use crate::view::fault::{FaultState, Standing};
use crate::view::ink::{Ink, Tone};
use crate::view::probe::{Health, ProbeState};
use crate::view::state::RunState;
use crate::view::words::{clean, effect, fit, left, nanos, right, running, share, value, width};

const STATE: usize = 9;
const LAST: usize = 7;
const GOOD: usize = 5;
const NUMBER: usize = 6;
const TIME: usize = 8;
/// How many samples a 99th percentile needs.
const P99_NEEDS: u64 = 100;

/// Where the columns of the table stand.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    name: usize,
    chart: usize,
    /// Whether there is room for the largest value, and for the times to detect and recover.
    max: bool,
    times: bool,
    width: usize,
}

impl Columns {
    /// For a terminal of so many columns.
    pub fn of(run: &RunState, columns: usize) -> Self {
        let probes = run.probes.iter().map(|p| width(&clean(&p.info.name)));
        let faults = run.faults.iter().map(|f| width(&clean(&f.info.name)));
        let longest = probes.chain(faults).max().unwrap_or_default();
        let name = longest.clamp(6, (columns / 5).clamp(6, 32));
        let (max, times) = (columns >= 110, columns >= 140);
        let mut all = Self { name, chart: 0, max, times, width: columns };
        all.chart = columns.saturating_sub(all.chart_x() + 1 + all.numbers() + 1);
        all
    }

    fn chart_x(self) -> usize {
        1 + self.name + 1 + STATE + 1 + LAST + 1
    }

    fn numbers_x(self) -> usize {
        self.chart_x() + self.chart + 1
    }

    /// How wide the numbers are together.
    fn numbers(self) -> usize {
        let max = if self.max { 1 + NUMBER } else { 0 };
        let times = if self.times { 2 * (1 + TIME) } else { 0 };
        GOOD + 2 * (1 + NUMBER) + max + times
    }

    /// The axis for the chart.
    pub fn axis(self, run: &RunState, now: u64) -> Axis {
        Axis::of(run, now, self.chart)
    }
}

/// Draws rows into a buffer.
pub struct Table<'a> {
    pub buffer: &'a mut Buffer,
    pub columns: Columns,
    pub axis: Axis,
    pub ink: Ink,
    pub now: u64,
}

impl Table<'_> {
    fn put(&mut self, x: usize, y: u16, columns: usize, text: &str, style: Style) {
        // Columns stand at fixed places: what is wider than its own is cut.
        let x = u16::try_from(x).unwrap_or(u16::MAX);
        if x < self.buffer.area.right() && y < self.buffer.area.bottom() {
            self.buffer.set_stringn(x, y, fit(text, columns), columns, style);
        }
    }

    fn tone(&mut self, x: usize, y: u16, columns: usize, text: &str, tone: Tone) {
        let style = self.ink.style(tone);
        self.put(x, y, columns, text, style);
    }

    fn marks(&mut self, y: u16, marks: &[Mark]) {
        let chart = self.columns.chart_x();
        for (i, mark) in marks.iter().enumerate() {
            self.tone(chart + i, y, 1, mark.glyph.encode_utf8(&mut [0; 4]), mark.tone);
        }
    }

    /// The titles of the columns and the labels of the axis.
    pub fn head(&mut self, y: u16) {
        let c = self.columns;
        let words = format!("{} {} {}", left("probe", c.name), left("state", STATE), right("last", LAST));
        self.tone(1, y, c.chart_x() - 2, &words, Tone::Dim);
        self.tone(c.chart_x(), y, c.chart, &self.axis.labels(), Tone::Dim);
        let mut numbers = format!("{} {} {}", right("good", GOOD), right("p50", NUMBER), right("p99", NUMBER));
        if c.max {
            numbers.push_str(&format!(" {}", right("max", NUMBER)));
        }
        if c.times {
            numbers.push_str(&format!(" {} {}", right("detected", TIME), right("back", TIME)));
        }
        self.tone(c.numbers_x(), y, c.numbers(), &numbers, Tone::Dim);
    }

    /// A probe: in one row, or with a sparkline of `height` rows and one more row below it.
    pub fn probe(&mut self, y: u16, probe: &ProbeState, run: &RunState, height: usize) {
        let c = self.columns;
        let (state, tone) = match probe.last.as_ref().map(|l| l.health) {
            None => ("· waiting", Tone::Dim),
            Some(Health::Good) => ("✔ good", Tone::Good),
            Some(Health::Bad) => ("✘ BAD", Tone::Bad),
            Some(Health::Broken) => ("! broken", Tone::Warn),
        };
        let unit = &probe.info.unit;
        let last = probe.last.as_ref().and_then(|l| l.value).map(|v| value(v, unit)).unwrap_or_default();
        self.tone(1, y, c.name, &clean(&probe.info.name), Tone::Strong);
        self.tone(1 + c.name + 1, y, STATE, state, tone);
        self.tone(1 + c.name + 1 + STATE + 1, y, LAST, &right(&last, LAST), tone);
        self.numbers(y, probe, run);
        let spark = self.axis.sparkline(probe, self.now, height.max(1));
        for (row, marks) in (y..).zip(&spark.rows) {
            self.marks(row, marks);
        }
        let bad = spark.marks();
        if height == 0 {
            // There is no row below to say it without colour.
            let marks: Vec<Mark> =
                spark.rows[0].iter().zip(bad).map(|(m, b)| if b.glyph == ' ' { *m } else { b }).collect();
            self.marks(y, &marks);
            return;
        }
        self.marks(y.saturating_add(u16::try_from(spark.rows.len()).unwrap_or(u16::MAX)), &bad);
        let why = probe.last.as_ref().and_then(|l| l.why.clone());
        let (text, tone) = match why {
            Some(why) => (why, tone),
            None => (clean(&probe.info.tolerates), Tone::Dim),
        };
        let room = c.chart_x().saturating_sub(4);
        self.tone(3, y + 1, room, &text, tone);
        if height > 1 {
            self.tone(3, y + 2, room, &clean(&probe.info.asks), Tone::Dim);
        }
        let (text, tone) = aftermath(probe, run);
        self.tone(c.numbers_x(), y + 1, c.numbers(), &right(&text, c.numbers()), tone);
    }

    fn numbers(&mut self, y: u16, probe: &ProbeState, run: &RunState) {
        let c = self.columns;
        let (_, tally) = probe.telling();
        if tally.judged() == 0 {
            return;
        }
        let unit = &probe.info.unit;
        let shown = |v: Option<f64>| right(&v.map_or_else(|| "-".into(), |v| value(v, unit)), NUMBER);
        let good = right(&share(tally.good, tally.judged()), GOOD);
        let mut numbers = format!(" {} {}", shown(tally.values.at(0.5, 1)), shown(tally.values.at(0.99, P99_NEEDS)));
        if c.max {
            numbers.push_str(&format!(" {}", shown(tally.values.max())));
        }
        if c.times {
            let time = |ns: Option<u64>| right(&ns.map_or_else(|| "-".into(), nanos), TIME);
            let (detected, back) = times(probe, run);
            numbers.push_str(&format!(" {} {}", time(detected), time(back)));
        }
        self.tone(c.numbers_x(), y, GOOD, &good, if tally.bad > 0 { Tone::Bad } else { Tone::Plain });
        self.tone(c.numbers_x() + GOOD, y, c.numbers() - GOOD, &numbers, Tone::Plain);
    }

    /// A fault in one row, or in two if `roomy`.
    pub fn fault(&mut self, y: u16, fault: &FaultState, roomy: bool) {
        let c = self.columns;
        let (state, tone) = match fault.standing() {
            Standing::Waiting => ("· waiting", Tone::Dim),
            Standing::Injecting => ("▶ begins", Tone::Fault),
            Standing::InForce => ("▶ in force", Tone::Fault),
            Standing::Done => ("▲ done", Tone::Fault),
            Standing::Undoing => ("▒ undoing", Tone::Fault),
            Standing::Undone => ("✔ undone", Tone::Good),
            Standing::NotUndone => ("✘ REMAINS", Tone::Bad),
            Standing::Failed => ("✘ failed", Tone::Bad),
        };
        self.tone(1, y, c.name, &clean(&fault.info.name), Tone::Strong);
        // In force is one letter wider than its column, and what is left has room for it.
        self.tone(1 + c.name + 1, y, STATE + 1, state, tone);
        let end = fault.planned_end().filter(|_| fault.is_in_force());
        let left = end.map(|end| running(end.saturating_sub(self.now))).unwrap_or_default();
        self.tone(1 + c.name + 1 + STATE + 1, y, LAST, &right(&left, LAST), tone);
        let bands = self.axis.bands(fault, self.now);
        self.marks(y, &bands);
        let words = fault.effect().map(effect).filter(|words| !words.is_empty());
        let number = fault.effect().and_then(|e| e.measures.first()).filter(|_| !roomy).map(|m| match m.asked {
            Some(asked) => format!("{} (asked {})", value(m.measured, &m.unit), value(asked, &m.unit)),
            None => value(m.measured, &m.unit),
        });
        let (text, tone) = match (number, fault.effect().map(|e| e.took)) {
            (_, Some(Some(false))) => ("✘ did not take".into(), Tone::Bad),
            (Some(number), _) => (number, Tone::Plain),
            (None, Some(Some(true))) => ("✔ took".into(), Tone::Good),
            (None, Some(None)) => ("? not seen to take".into(), Tone::Warn),
            (None, None) => (String::new(), Tone::Plain),
        };
        self.tone(c.numbers_x(), y, c.numbers(), &right(&text, c.numbers()), tone);
        if roomy {
            let adjusted = fault.bands.back().and_then(|b| b.adjusted.as_deref());
            let text = match (&fault.error, words, adjusted) {
                (Some(error), ..) => error.clone(),
                (None, Some(words), Some(adjusted)) => format!("now {}; {words}", clean(adjusted)),
                (None, Some(words), None) => words,
                (None, None, _) => clean(&fault.info.parameters),
            };
            let tone = if fault.error.is_some() { Tone::Bad } else { Tone::Dim };
            self.tone(3, y + 1, c.width.saturating_sub(4), &text, tone);
        }
    }
}

/// First injection to first bad sample, and from there to back; in nanoseconds.
fn times(probe: &ProbeState, run: &RunState) -> (Option<u64>, Option<u64>) {
    let detected = probe.detected.zip(run.first_injection).map(|(at, first)| at.saturating_sub(first));
    let back = probe.back.zip(probe.detected).map(|(back, at)| back.saturating_sub(at));
    (detected, back)
}

/// What the fault has done to a probe so far, in words.
fn aftermath(probe: &ProbeState, run: &RunState) -> (String, Tone) {
    if let Some((acknowledged, lost)) = probe.lost {
        let tone = if lost > 0 { Tone::Bad } else { Tone::Good };
        return (format!("{lost} of {acknowledged} lost"), tone);
    }
    match times(probe, run) {
        (_, Some(back)) => (format!("back after {}", nanos(back)), Tone::Good),
        (Some(detected), None) => (format!("bad after {}", nanos(detected)), Tone::Bad),
        (None, None) => (String::new(), Tone::Plain),
    }
}
