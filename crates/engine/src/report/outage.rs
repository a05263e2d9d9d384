//! The pictures of an outage's anatomy and of a breaking point.

use toprope_model::search::Quantity;
use toprope_model::verdict::BreakingPoint;

use super::axis::Time;
use super::chart::in_force;
use super::summary::Summary;
use super::svg::{CHARACTER, Path, Svg, fit};
use super::text::name;
use crate::verdict::words::millis;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 24.0;
/// Most probes in the anatomy; the others are in their own sections.
const ROWS: usize = 24;

/// Injected, detected, recovered: a row for every probe that was bad. `None` if none was.
pub(super) fn anatomy(summary: &Summary<'_>) -> Option<String> {
    const MS: f64 = 1e6;
    let injected = summary.evidence.first_injected()?;
    let rows: Vec<_> = summary.judgement.probes.iter().filter_map(|p| Some((p, p.detect_ms?))).take(ROWS).collect();
    if rows.is_empty() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within the run")]
    let after = |ms: f64| injected + (ms.max(0.0) * MS) as u64;
    let lasting: Vec<_> = summary.evidence.injections.iter().filter(|i| i.failed.is_none()).collect();
    let fault_end = lasting.iter().map(|i| in_force(i, summary.end).1).max().unwrap_or(injected);
    let back = |detect: f64, recover: Option<f64>| recover.map(|r| after(detect + r));
    let last =
        rows.iter().map(|(p, detect)| back(*detect, p.recover_ms).unwrap_or(summary.end)).max().unwrap_or(injected);
    let span = last.max(fault_end) - injected;
    let time = Time::new(injected, last.max(fault_end) + span / 12 + 1, LEFT, WIDTH - LEFT - RIGHT);
    let body = 34.0 + 44.0 * rows.len() as f64;
    let mut svg =
        Svg::new("chart", WIDTH, body + 38.0, "From the injection to the first bad sample, and until good again");
    for (x, label) in time.ticks(8) {
        svg.line("grid", (x, 8.0), (x, body));
        svg.text("tick", x, body + 14.0, "middle", &label);
    }
    svg.text("axis-name", time.right(), body + 30.0, "end", "since the injection");
    svg.text("row-name", LEFT - 12.0, 22.0, "end", "faults in force");
    for injection in &lasting {
        let (from, to) = in_force(injection, summary.end);
        let width = (time.x(to) - time.x(from)).max(3.0);
        svg.rect("fault", time.x(from), 12.0, width, 12.0, &summary.fault_name(injection));
    }
    for (i, (probe, detect)) in rows.iter().enumerate() {
        let y = 34.0 + 44.0 * i as f64;
        let (x0, x1) = (time.x(injected), time.x(after(*detect)));
        svg.text("row-name", LEFT - 12.0, y + 30.0, "end", &fit(&name(&probe.name), LEFT - 16.0));
        svg.rect("unnoticed", x0, y + 24.0, x1 - x0, 4.0, "injected, and not yet seen to be bad");
        let detect_text = format!("{} to detect", millis(*detect));
        let text_width = detect_text.chars().count() as f64 * CHARACTER;
        match back(*detect, probe.recover_ms) {
            Some(back) => {
                let x2 = time.x(back);
                svg.rect("outage", x1, y + 20.0, (x2 - x1).max(2.0), 12.0, "out of tolerance");
                svg.rect("back", x2, y + 24.0, time.right() - x2, 4.0, "back in tolerance");
                svg.circle("mark good", x2, y + 26.0, 5.0, "good again");
                let text = format!("{} to recover", millis(probe.recover_ms.unwrap_or_default()));
                let wide = text.chars().count() as f64 * CHARACTER;
                // Beside the detection's text, wherever the bar itself is too short for its own.
                let start = (x0 + text_width + 16.0).max(x1);
                let middle = f64::midpoint(x1, x2);
                let x = if middle - wide / 2.0 > x0 + text_width + 12.0 { middle } else { start + wide / 2.0 };
                svg.text("outage-name", x.min(time.right() - wide / 2.0), y + 14.0, "middle", &text);
            }
            None => {
                let end = time.x(summary.end);
                svg.rect("outage", x1, y + 20.0, (end - x1).max(2.0), 12.0, "out of tolerance to the end");
                svg.text("outage-name", end, y + 14.0, "end", "not back at the end");
            }
        }
        svg.circle("mark bad", x1, y + 26.0, 5.0, "first bad sample");
        svg.text("detect-name", x0 + 6.0, y + 14.0, "start", &detect_text);
    }
    svg.line("injection", (time.x(injected), 4.0), (time.x(injected), body));
    Some(svg.finish())
}

/// The values tried in a search, and how each trial went.
pub(super) fn breaking_point(point: &BreakingPoint) -> Option<String> {
    const TOP: f64 = 26.0;
    const ROW: f64 = 16.0;
    let numbers: Vec<f64> =
        point.trials.iter().map(|t| Quantity::read(&t.0).map(|q| q.number)).collect::<Option<_>>()?;
    let (low, high) = (numbers.iter().copied().reduce(f64::min)?, numbers.iter().copied().reduce(f64::max)?);
    let log = low > 0.0 && high / low > 10.0;
    let of = |n: f64| if log { n.ln() } else { n };
    let (left, width) = (40.0, WIDTH - 80.0);
    let span = of(high) - of(low);
    let x = |n: f64| left + if span > 0.0 { (of(n) - of(low)) / span * width } else { width / 2.0 };
    // At most a dozen marks above each other; a value with more says how many.
    let most = point.trials.iter().map(|t| t.1 + t.2 + t.3).max().unwrap_or(0).min(12);
    let axis = TOP + ROW * f64::from(most.max(2)) + 8.0;
    let label = format!("How trials went at each value of {}", name(&point.parameter));
    let mut svg = Svg::new("chart", WIDTH, axis + 46.0, &label);
    let place = |value: &Option<String>| value.as_deref().and_then(Quantity::read).map(|q| x(q.number));
    if let (Some(held), Some(refuted)) = (place(&point.held), place(&point.refuted)) {
        svg.rect("bracket", held, 4.0, refuted - held, axis - 4.0, "the breaking point lies in here");
    }
    svg.line("axis", (left - 16.0, axis), (WIDTH - left + 16.0, axis));
    let mut labelled: Vec<(f64, f64)> = Vec::new();
    let close = place(&point.held).zip(place(&point.refuted)).is_some_and(|(held, refuted)| refuted - held < 60.0);
    let bracket = |v: &str| [&point.held, &point.refuted].into_iter().any(|p| p.as_deref() == Some(v));
    let mut order: Vec<usize> = (0..point.trials.len()).collect();
    order.sort_by_key(|i| !bracket(&point.trials[*i].0));
    for i in order {
        let (value, held, refuted, unknown) = &point.trials[i];
        let x = x(numbers[i]);
        let mut n = 0;
        for (count, kind) in [(held, "good"), (refuted, "bad"), (unknown, "unknown")] {
            for _ in 0..(*count).min(12 - n.min(12)) {
                let y = axis - 12.0 - ROW * f64::from(n);
                if kind == "bad" {
                    let mut cross = Path::default();
                    cross.start(x - 4.5, y - 4.5);
                    cross.line(x + 4.5, y + 4.5);
                    cross.start(x - 4.5, y + 4.5);
                    cross.line(x + 4.5, y - 4.5);
                    svg.path("cross heavy", &cross);
                } else {
                    let class = if kind == "good" { "mark good" } else { "mark unknown" };
                    svg.circle(class, x, y, 5.0, &format!("{}: {kind}", name(value)));
                }
                n += 1;
            }
        }
        svg.line("axis", (x, axis), (x, axis + 4.0));
        let text = name(value);
        let wide = text.chars().count() as f64 * CHARACTER;
        // The two ends of the bracket are labelled away from each other, and before all others.
        let (anchor, middle) = match (close, Some(value) == point.held.as_ref(), Some(value) == point.refuted.as_ref())
        {
            (true, true, _) => ("end", x + 6.0 - wide / 2.0),
            (true, _, true) => ("start", x - 6.0 + wide / 2.0),
            _ => ("middle", x),
        };
        if labelled.iter().any(|(l, w)| (l - middle).abs() < f64::midpoint(wide, *w) + 14.0) {
            continue;
        }
        labelled.push((middle, wide));
        let class = if bracket(value) { "tick strong" } else { "tick" };
        let at = match anchor {
            "end" => x + 6.0,
            "start" => x - 6.0,
            _ => x,
        };
        svg.text(class, at, axis + 18.0, anchor, &text);
    }
    let scale = if log { " (log scale)" } else { "" };
    svg.text("axis-name", WIDTH / 2.0, axis + 40.0, "middle", &format!("{}{scale}", name(&point.parameter)));
    Some(svg.finish())
}
