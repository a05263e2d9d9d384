//! The time axis that all probes and faults share.

use crate::view::fault::FaultState;
use crate::view::ink::Tone;
use crate::view::probe::ProbeState;
use crate::view::state::RunState;
use crate::view::timeline::Bucket;

const SECOND: u64 = 1_000_000_000;
/// Columns get no wider than this: a longer run moves out at the left.
const WIDEST: u64 = 5 * SECOND;
/// A little room after what is planned, so that the recovery does not rescale the axis at once.
const ROOM: u64 = 3 * SECOND;
/// How much higher than the usual value a sparkline is at least.
const HEADROOM: f64 = 4.0;
/// How many buckets a column may take.
const STEPS: [u64; 14] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 40, 50];
/// From one label to the next, in seconds.
const TICKS: [u64; 13] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200];

/// Columns of equal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    from: u64,
    column: u64,
    columns: usize,
}

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub glyph: char,
    pub tone: Tone,
}

const NOTHING: Mark = Mark { glyph: ' ', tone: Tone::Plain };

/// A sparkline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spark {
    /// Its rows, the topmost first.
    pub rows: Vec<Vec<Mark>>,
    /// Whether something bad was seen in a column.
    pub bad: Vec<bool>,
}

impl Spark {
    /// The columns in which something bad was seen, for readers without colours.
    pub fn marks(&self) -> Vec<Mark> {
        self.bad.iter().map(|bad| if *bad { Mark { glyph: '×', tone: Tone::Bad } } else { NOTHING }).collect()
    }
}

/// From values to eighths of rows.
#[derive(Debug, Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    steps: usize,
}

impl Scale {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 1 to a few dozen"
    )]
    fn level(self, value: f64) -> usize {
        if self.high <= self.low {
            return 1;
        }
        let steps = self.steps as f64;
        ((value - self.low) / (self.high - self.low) * steps).ceil().clamp(1.0, steps) as usize
    }
}

/// What a column shows in the row that begins so many eighths above the bottom.
fn cell(bucket: &Bucket, scale: Scale, above: usize) -> Mark {
    let tone = match bucket {
        b if b.is_empty() => return NOTHING,
        Bucket { bad: 1.., .. } => Tone::Bad,
        Bucket { good: 0, .. } => Tone::Warn,
        _ => Tone::Good,
    };
    let glyph = match bucket.max {
        _ if bucket.good + bucket.bad == 0 => {
            if above == 0 {
                '!'
            } else {
                ' '
            }
        }
        None if above > 0 => ' ',
        None if bucket.bad > 0 => '×',
        None => '▁',
        Some(v) => {
            let blocks = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
            blocks[scale.level(v).saturating_sub(above).min(8)]
        }
    };
    Mark { glyph, tone }
}

impl Axis {
    /// The axis that shows the whole run (or trial) and what is planned of it; of a long one, its end.
    pub fn of(run: &RunState, now: u64, columns: usize) -> Self {
        let finest = run.probes.iter().map(|p| p.timeline.width()).max().unwrap_or(SECOND / 10);
        let planned = run.schedule.steady + run.schedule.method;
        let planned = u64::try_from(planned.as_nanos()).unwrap_or(u64::MAX).saturating_add(ROOM);
        let elapsed = now.saturating_sub(run.origin);
        let room = columns.max(1) as u64;
        let fits = |wanted: u64| {
            let widths = STEPS.iter().map(|k| k * finest).take_while(|w| *w <= WIDEST.max(finest));
            widths.into_iter().find(|w| w * room > wanted)
        };
        // A plan that is too long to be shown whole would only make the columns wide and empty.
        let column = fits(planned.max(elapsed)).or_else(|| fits(elapsed));
        let column =
            column.unwrap_or_else(|| STEPS.iter().map(|k| k * finest).rfind(|w| *w <= WIDEST).unwrap_or(finest));
        let hidden = (elapsed / column + 1).saturating_sub(room);
        Self { from: run.origin + hidden * column, column, columns }
    }

    /// The column of a time; `None` if it is not shown.
    fn at(&self, time: u64) -> Option<usize> {
        let column = usize::try_from(time.checked_sub(self.from)? / self.column).ok()?;
        (column < self.columns).then_some(column)
    }

    /// Times since the run began, each at its column.
    pub fn labels(&self) -> String {
        let needed = self.column * 8;
        let tick = TICKS.into_iter().map(|t| t * SECOND).find(|t| *t >= needed).unwrap_or(24 * 3600 * SECOND);
        let mut out = vec![' '; self.columns];
        let mut time = self.from.next_multiple_of(tick);
        while let Some(column) = self.at(time) {
            let label = format!("╷{}", label(time / SECOND));
            if column + label.chars().count() <= self.columns {
                out[column..].iter_mut().zip(label.chars()).for_each(|(cell, c)| *cell = c);
            }
            time += tick;
        }
        out.into_iter().collect()
    }

    /// A probe's samples as a sparkline of so many rows, the topmost first.
    ///
    /// Its top is the largest value in sight, but not less than [`HEADROOM`] times the usual one: a probe that does
    /// nothing unusual is a low line and not a wall.
    pub fn sparkline(&self, probe: &ProbeState, now: u64, rows: usize) -> Spark {
        let mut buckets = probe.timeline.columns(self.from, self.column, self.columns);
        self.carry(&mut buckets, probe.info.interval_ms, now);
        let values = buckets.iter().filter_map(|b| b.max);
        let usual = probe.usual().unwrap_or_default() * HEADROOM;
        let (low, high) = values.fold((0f64, usual.max(0.0)), |(low, high), v| (low.min(v), high.max(v)));
        let scale = Scale { low, high, steps: rows * 8 };
        let row = |row: usize| buckets.iter().map(|b| cell(b, scale, (rows - 1 - row) * 8)).collect();
        Spark { rows: (0..rows).map(row).collect(), bad: buckets.iter().map(|b| b.bad > 0).collect() }
    }

    /// Lets a sample stand until the next one is due, so that a probe which is asked less often than once a column
    /// shows a line and not dots.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a handful of columns"
    )]
    fn carry(&self, buckets: &mut [Bucket], interval_ms: f64, now: u64) {
        let due = (interval_ms.max(0.0) * 1.5e6 / self.column as f64).min(1e6).ceil() as usize;
        let end = self.at(now).map_or(buckets.len(), |c| c + 1);
        let mut last: Option<(usize, Bucket)> = None;
        for (i, bucket) in buckets.iter_mut().enumerate().take(end) {
            if !bucket.is_empty() {
                last = Some((i, *bucket));
            } else if let Some((from, seen)) = last
                && i - from <= due
            {
                *bucket = seen;
            }
        }
    }

    /// A fault's bands: in force `▓`, being undone `▒`, still to come `░`, at one instant `▲`, failed `✘`.
    pub fn bands(&self, fault: &FaultState, now: u64) -> Vec<Mark> {
        let mut marks = vec![NOTHING; self.columns];
        let ended = |t: u64| self.from.saturating_add(self.column * self.columns as u64).min(t);
        let mut fill = |from: u64, to: u64, glyph: char, tone: Tone| {
            if to < self.from {
                return;
            }
            let last = self.at(ended(to).saturating_sub(1).max(from));
            if let (Some(first), Some(last)) = (self.at(from.max(self.from)), last) {
                marks[first..=last.max(first)].fill(Mark { glyph, tone });
            }
        };
        if let Some(end) = fault.planned_end().filter(|_| fault.is_in_force()) {
            fill(now.min(end), end, '░', Tone::Fault);
        }
        for band in &fault.bands {
            match (band.injected, &band.ended) {
                (Some(at), _) if !fault.info.lasting => fill(at, at, '▲', Tone::Fault),
                (Some(at), _) => {
                    let undone = band.undone.map(|u| u.0);
                    if let Some(undoing) = band.undoing {
                        fill(undoing, undone.unwrap_or(now), '▒', Tone::Fault);
                    }
                    fill(at, band.undoing.or(undone).unwrap_or(now), '▓', Tone::Fault);
                }
                (None, Some((at, _))) => fill(*at, *at, '✘', Tone::Bad),
                (None, None) => {}
            }
        }
        marks
    }
}

fn label(seconds: u64) -> String {
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 7200 && s % 60 == 0 => format!("{}m", s / 60),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s < 7200 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testrun;

    fn folded(records: Vec<toprope_model::event::Record>) -> RunState {
        let mut state = RunState::default();
        for record in &records {
            state.apply(record);
        }
        state
    }

    fn text(marks: &[Mark]) -> String {
        marks.iter().map(|m| m.glyph).collect()
    }

    #[test]
    fn the_whole_plan_is_shown_from_the_start() {
        let axis = Axis::of(&folded(testrun::under_fault()), 8 * SECOND, 40);
        assert_eq!((axis.from, axis.column), (0, SECOND / 2));
        assert_eq!(axis.labels(), "╷0s       ╷5s       ╷10s      ╷15s      ");
    }

    #[test]
    fn a_long_run_moves_out_at_the_left() {
        let axis = Axis::of(&folded(testrun::held()), 3600 * SECOND, 40);
        assert_eq!(axis.column, 5 * SECOND);
        assert_eq!(axis.from, (3600 - 39 * 5) * SECOND);
        assert_eq!(axis.at(3600 * SECOND), Some(39));
        assert!(axis.labels().contains("╷57m"), "{}", axis.labels());
    }

    #[test]
    fn a_band_goes_on_to_its_planned_end() {
        let state = folded(testrun::under_fault());
        let axis = Axis::of(&state, 8 * SECOND, 40);
        assert_eq!(text(&axis.bands(&state.faults[0], 8 * SECOND)), "      ▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░             ");
        let spark = axis.sparkline(&state.probes[0], 8 * SECOND, 1);
        assert_eq!(text(&spark.rows[0]), "▁▁▁▁▁▁▁▇█████████                       ");
        assert_eq!(text(&spark.marks()), "       ××××××××××                       ");
        let spark = axis.sparkline(&state.probes[0], 8 * SECOND, 2);
        assert_eq!(text(&spark.rows[0]), "       ▆███▇████▇                       ");
        assert_eq!(text(&spark.rows[1]), "▁▁▁▁▁▁▁██████████                       ");
    }

    #[test]
    fn a_band_that_is_out_of_sight_is_not_drawn() {
        let state = folded(testrun::held());
        let axis = Axis::of(&state, 3600 * SECOND, 40);
        assert_eq!(text(&axis.bands(&state.faults[0], 3600 * SECOND)).trim(), "");
    }

    #[test]
    fn a_failed_injection_leaves_its_mark() {
        let state = folded(testrun::failed_to_inject());
        let axis = Axis::of(&state, 4 * SECOND, 40);
        assert_eq!(text(&axis.bands(&state.faults[0], 4 * SECOND)).trim(), "✘");
    }

    #[test]
    fn a_probe_asked_seldom_shows_a_line_up_to_now() {
        let mut script = testrun::Script::new(&["checkout"]);
        for at in (0..8000).step_by(1000) {
            script.sample(at, 0, 20.0, None);
        }
        let mut state = folded(script.done());
        state.probes[0].info.interval_ms = 1000.0;
        let axis = Axis { from: 0, column: SECOND / 4, columns: 40 };
        let marks = axis.sparkline(&state.probes[0], 8 * SECOND, 1).rows.remove(0);
        assert_eq!(text(&marks).trim_end().chars().count(), 33);
        assert!(!text(&marks).trim_end().contains(' '));
    }
}
