//! The pictures of a run over its time: what was done, and what each probe saw.

use toprope_model::event::{Phase, ProbeInfo};
use toprope_model::verdict::Outcome;

use super::axis::{Time, Values};
use super::summary::Summary;
use super::svg::{CHARACTER, Path, Svg, fit};
use super::text::{at, name};
use super::track::{Column, columns, stretches};
use crate::verdict::evidence::{Injection, Watch};
use crate::verdict::words;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
/// Most lanes of faults; a method with more is told in its table.
const LANES: usize = 12;
/// Most columns of all charts together: what keeps the file small, however many probes there are.
const COLUMNS: usize = 36_000;

/// The axis that all charts of a run share.
pub(super) fn time(summary: &Summary<'_>) -> Time {
    Time::new(0, summary.end, LEFT, WIDTH - LEFT - RIGHT)
}

fn time_axis(svg: &mut Svg, time: &Time, top: f64, bottom: f64) {
    for (x, label) in time.ticks(10) {
        svg.line("grid", (x, top), (x, bottom));
        let anchor = if x > time.right() - 12.0 { "end" } else { "middle" };
        svg.text("tick", x, bottom + 14.0, anchor, &label);
    }
}

/// When an injection was in force, as it is drawn.
pub(super) fn in_force(injection: &Injection, end: u64) -> (u64, u64) {
    let from = injection.injected.unwrap_or(injection.injecting);
    (from, injection.end().unwrap_or(end).max(from))
}

fn tell(summary: &Summary<'_>, injection: &Injection) -> String {
    let (from, to) = in_force(injection, summary.end);
    let what = summary.fault_name(injection);
    if injection.lasting {
        format!("{what}: in force from {} to {}", at(from), at(to))
    } else {
        format!("{what}: at {}", at(from))
    }
}

/// Where faults were in force, behind a chart.
fn bands(svg: &mut Svg, summary: &Summary<'_>, time: &Time, top: f64, height: f64) {
    for injection in summary.evidence.injections.iter().filter(|i| i.failed.is_none()) {
        let (from, to) = in_force(injection, summary.end);
        let title = tell(summary, injection);
        if injection.lasting {
            svg.rect("band", time.x(from), top, (time.x(to) - time.x(from)).max(1.0), height, &title);
            svg.line("band-edge", (time.x(from), top), (time.x(from), top + height));
            svg.line("band-edge", (time.x(to), top), (time.x(to), top + height));
        } else {
            svg.rect("instant", time.x(from) - 0.75, top, 1.5, height, &title);
        }
    }
    if let Some((stopped, stop)) = &summary.evidence.stop {
        svg.rect("stop", time.x(*stopped) - 0.75, top, 1.5, height, &format!("stopped by {}", stop.by));
    }
}

/// The lanes of phases, trials and faults.
pub(super) fn overview(summary: &Summary<'_>, time: &Time) -> String {
    let evidence = &summary.evidence;
    let mut lanes: Vec<u32> = Vec::new();
    for injection in evidence.injections.iter().filter(|i| i.failed.is_none()) {
        if !lanes.contains(&injection.fault) {
            lanes.push(injection.fault);
        }
    }
    let hidden = lanes.len().saturating_sub(LANES);
    lanes.truncate(LANES);
    let trials = if summary.trials.is_empty() { 0.0 } else { 28.0 };
    let stop = if evidence.stop.is_some() { 18.0 } else { 0.0 };
    let body = 28.0 + trials + 34.0 * lanes.len() as f64 + if hidden > 0 { 18.0 } else { 0.0 } + stop;
    let mut svg = Svg::new("chart", WIDTH, body + 22.0, "What was done, over the time of the run");
    time_axis(&mut svg, time, 26.0, body);
    for span in summary.phases.iter().filter(|s| s.phase != Phase::Verdict) {
        let (x, width) = (time.x(span.from), time.x(span.to) - time.x(span.from));
        svg.rect(
            "phase",
            x,
            2.0,
            (width - 1.0).max(0.5),
            20.0,
            &format!("{}: {} to {}", span.phase, at(span.from), at(span.to)),
        );
        let label = span.phase.to_string();
        let label = if width < label.len() as f64 * CHARACTER + 10.0 { label.replace(" state", "") } else { label };
        svg.text("phase-name", x + 6.0, 16.0, "start", &fit(&label, width - 8.0));
    }
    let mut y = 28.0;
    if trials > 0.0 {
        svg.text("axis-name", LEFT - 8.0, y + 14.0, "end", "trials");
        for trial in &summary.trials {
            let (x, width) = (time.x(trial.from), time.x(trial.to) - time.x(trial.from));
            let (class, outcome) = match trial.outcome {
                Some(Outcome::Held) => ("trial good", "held"),
                Some(Outcome::Refuted) => ("trial bad", "refuted"),
                Some(Outcome::Inconclusive) => ("trial unknown", "inconclusive"),
                None => ("trial unknown", "did not end"),
            };
            let title = format!("trial {} at {}: {outcome}. {}", trial.trial, trial.value, trial.reason);
            svg.rect(class, x, y + 2.0, (width - 1.0).max(1.0), 18.0, &title);
            svg.text("trial-name", x + 4.0, y + 15.0, "start", &fit(&name(trial.value), width - 6.0));
        }
        y += trials;
    }
    for (i, fault) in lanes.iter().enumerate() {
        let info = summary.started.faults.get(*fault as usize);
        let label = info.map_or_else(String::new, |f| {
            let parameters = name(&f.parameters);
            format!("{}{}{parameters}", name(&f.name), if parameters.is_empty() { "" } else { " · " })
        });
        let mut first = None;
        for injection in evidence.injections.iter().filter(|j| j.fault == *fault && j.failed.is_none()) {
            let (from, to) = in_force(injection, summary.end);
            let x = time.x(from);
            first.get_or_insert(x);
            let width = if injection.lasting { (time.x(to) - x).max(2.0) } else { 3.0 };
            svg.rect("fault", x, y + 18.0, width, 11.0, &tell(summary, injection));
        }
        let x = first.unwrap_or(LEFT);
        // Its letters are bold, and as much wider.
        let bold = |room: f64| room * 0.88;
        let room = time.right() - x;
        if room > label.chars().count() as f64 * CHARACTER || room > (x - LEFT) {
            svg.text("fault-name", x, y + 13.0, "start", &fit(&label, bold(room)));
        } else {
            svg.text("fault-name", time.right(), y + 13.0, "end", &fit(&label, bold(time.right() - LEFT)));
        }
        if i == 0 {
            svg.text("axis-name", LEFT - 8.0, y + 27.0, "end", "faults");
        }
        y += 34.0;
    }
    if hidden > 0 {
        svg.text("tick", LEFT, y + 12.0, "start", &format!("and {hidden} more, in the table below"));
        y += 18.0;
    }
    if let Some((stopped, _)) = &evidence.stop {
        let x = time.x(*stopped);
        svg.rect("stop", x - 0.75, 26.0, 1.5, body - 26.0, "stopped");
        let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
        let x = if anchor == "end" { x - 6.0 } else { x + 6.0 };
        svg.text("stop-name", x, y + 12.0, anchor, &summary.ending());
    }
    svg.finish()
}

/// What one probe saw over the time of the run. `deadline` is when one that recovers must be good again.
pub(super) fn probe(
    summary: &Summary<'_>,
    time: &Time,
    info: &ProbeInfo,
    watch: &Watch,
    tolerances: &[(String, f64)],
    deadline: Option<u64>,
) -> String {
    let width = time.right() - time.left();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundreds")]
    let most = width as usize;
    let count = (COLUMNS / summary.started.probes.len().max(1)).clamp(60, most);
    let columns = columns(&watch.samples, time, count);
    let column_width = width / count as f64;
    let has_values = columns.iter().any(|c| c.values.is_some() || c.bad_values.is_some());
    let (top, height) = (8.0, if has_values { 132.0 } else { 4.0 });
    let strip = top + height + 8.0;
    let bottom = strip + 12.0;
    let label = format!("Samples of {} over the time of the run", name(&info.name));
    let mut svg = Svg::new("chart", WIDTH, bottom + 20.0, &label);
    bands(&mut svg, summary, time, top, bottom - top);
    time_axis(&mut svg, time, top, bottom);
    // Gaps of up to three samples are still one line.
    let step = info.interval_ms * 1e6 * 3.0 / (summary.end.max(1) as f64) * count as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the number of columns")]
    let gap = step.clamp(4.0, count as f64) as usize;
    if has_values {
        values(&mut svg, time, &columns, column_width, gap, info, tolerances, (top, height, bottom));
    }
    strip_of(&mut svg, &columns, column_width, gap, strip);
    if let Some(deadline) = deadline.filter(|d| *d < summary.end) {
        let x = time.x(deadline);
        svg.line("deadline", (x, top), (x, bottom));
        let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
        svg.text("tick", if anchor == "end" { x - 5.0 } else { x + 5.0 }, top + 9.0, anchor, "good again by here");
    }
    svg.finish()
}

#[expect(clippy::too_many_arguments, reason = "the parts of one picture")]
fn values(
    svg: &mut Svg,
    time: &Time,
    columns: &[Column],
    column_width: f64,
    gap: usize,
    info: &ProbeInfo,
    tolerances: &[(String, f64)],
    (top, height, bottom): (f64, f64, f64),
) {
    let envelopes = columns.iter().flat_map(|c| [c.values, c.bad_values]).flatten();
    let bounds = tolerances.iter().map(|t| (t.1, t.1));
    let (low, high) = envelopes
        .map(|e| (e.low, e.high))
        .chain(bounds)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), e| (l.min(e.0), h.max(e.1)));
    let scale = Values::new(low, high, top, height);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        svg.line("grid", (time.left(), y), (time.right(), y));
        let label = if tick == 0.0 { "0".into() } else { words::value(tick, &name(&info.unit)) };
        svg.text("tick", time.left() - 8.0, y + 4.0, "end", &fit(&label, time.left() - 8.0));
    }
    if scale.is_log() {
        // On the line of the times, where no value has its label.
        svg.text("axis-name", time.left() - 12.0, bottom + 14.0, "end", "log scale");
    }
    let x = |i: usize| time.left() + (i as f64 + 0.5) * column_width;
    let runs = stretches(columns, gap, |c| c.values.is_some());
    let (mut band, mut line) = (Path::default(), Path::default());
    let filled = columns.iter().filter(|c| c.values.is_some()).count();
    for (from, to) in runs {
        let envelopes = || (from..to).filter_map(|i| Some((x(i), columns[i].values?)));
        if envelopes().any(|(_, e)| (scale.y(e.low) - scale.y(e.high)).abs() > 1.0) {
            envelopes().enumerate().for_each(|(n, (x, e))| {
                if n == 0 { band.start(x, scale.y(e.high)) } else { band.line(x, scale.y(e.high)) }
            });
            (from..to)
                .rev()
                .filter_map(|i| Some((x(i), columns[i].values?)))
                .for_each(|(x, e)| band.line(x, scale.y(e.low)));
            band.close();
        }
        for (n, (x, e)) in envelopes().enumerate() {
            if n == 0 { line.start(x, scale.y(e.mean())) } else { line.line(x, scale.y(e.mean())) }
        }
    }
    svg.path("envelope", &band);
    svg.path("line", &line);
    if filled <= 90 {
        for (i, e) in columns.iter().enumerate().filter_map(|(i, c)| Some((i, c.values?))) {
            svg.circle("dot", x(i), scale.y(e.mean()), 2.2, &words::value(e.mean(), &info.unit));
        }
    }
    let mut crosses = Path::default();
    for (i, e) in columns.iter().enumerate().filter_map(|(i, c)| Some((i, c.bad_values?))) {
        let (x, high, low) = (x(i), scale.y(e.high), scale.y(e.low));
        for y in if low - high > 4.0 { vec![high, low] } else { vec![high] } {
            crosses.start(x - 2.6, y - 2.6);
            crosses.line(x + 2.6, y + 2.6);
            crosses.start(x - 2.6, y + 2.6);
            crosses.line(x + 2.6, y - 2.6);
        }
    }
    svg.path("cross", &crosses);
    let mut used: Vec<f64> = Vec::new();
    for (text, bound) in tolerances {
        let y = scale.y(*bound);
        svg.line("bound", (time.left(), y), (time.right(), y));
        let above = y - 5.0;
        let label = if above < top + 8.0 || used.iter().any(|u| (u - above).abs() < 12.0) { y + 13.0 } else { above };
        used.push(label);
        svg.text("bound-name", time.right() - 4.0, label, "end", &fit(text, 300.0));
    }
}

/// Good, bad and broken as a strip: thin, thick and hatched, so that it does not take colours to read.
fn strip_of(svg: &mut Svg, columns: &[Column], column_width: f64, gap: usize, y: f64) {
    let rect = |svg: &mut Svg, class: &str, from: usize, to: usize, dy: f64, height: f64, title: &str| {
        svg.rect(class, LEFT + from as f64 * column_width, y + dy, (to - from) as f64 * column_width, height, title);
    };
    for (from, to) in stretches(columns, gap, |c| c.good > 0 && c.bad == 0 && c.broken == 0) {
        rect(svg, "strip good", from, to, 4.0, 3.0, "");
    }
    for (from, to) in stretches(columns, gap, |c| c.bad > 0) {
        let bad: u32 = columns[from..to].iter().map(|c| c.bad).sum();
        rect(svg, "strip bad", from, to.max(from + 1), 0.0, 11.0, &format!("{} bad", words::samples(u64::from(bad))));
    }
    for (from, to) in stretches(columns, gap, |c| c.broken > 0) {
        let broken: u32 = columns[from..to].iter().map(|c| c.broken).sum();
        rect(
            svg,
            "strip broken",
            from,
            to,
            0.0,
            11.0,
            &format!("{}: the probe itself failed", words::samples(u64::from(broken))),
        );
    }
}
