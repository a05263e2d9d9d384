//! Reports: folds over a run's events, rendered as HTML, Markdown, JUnit and JSON.
//!
//! The same log makes the same bytes: no clock, no locale, nothing but the records and the hash at the end of their
//! chain. A log without a verdict (its run was killed) is judged by what it has. Everything that came from outside is
//! cleaned of control characters, cut, and escaped where it is shown.

use toprope_model::event::Record;

mod axis;
mod chart;
mod html;
mod json;
mod junit;
mod markdown;
mod outage;
mod summary;
mod svg;
mod text;
mod track;

#[cfg(test)]
mod tests;

pub use junit::Suite;

/// One file of HTML that needs nothing else: no scripts, no fonts, no requests. Light and dark, for screen and paper.
///
/// `head` is the SHA-256 of the log's last line, in hexadecimal, which the whole log hangs on.
pub fn html(records: &[Record], head: &str) -> String {
    html::render(&summary::Summary::of(records, head))
}

/// Markdown for a pull request or a wiki: GitHub's dialect, which the others read too.
pub fn markdown(records: &[Record], head: &str) -> String {
    markdown::render(&summary::Summary::of(records, head))
}

/// JUnit XML with this run as its one test case; [`Suite`] puts several into one.
pub fn junit(records: &[Record], head: &str) -> String {
    let mut suite = Suite::new("toprope");
    suite.run(records, head);
    suite.xml()
}

/// JSON for other programs. What is in it stays; more may be added.
///
/// `format` (1) · `run`, `experiment`, `hypothesis`, `environment`, `version` · `verdict`: the run's
/// [`Judgement`](toprope_model::verdict::Judgement) with `exit` beside it · `duration_ms` · `phases`: `phase`,
/// `from_ms`, `to_ms` · `faults`: one per injection, with `effect` and `undone` as in the log · `probes`: `name`, `kind`,
/// `asks`, `tolerates`, `unit`, and of `steady`, `in_force` and `after` the counts (`good`, `bad`, `broken`) and, of the
/// good samples' values, `min`, `p50`, `p90`, `p99`, `max` · `trials` of a search · `notes` · `started`: as in the log,
/// with the manifest, the seed and the generator · `log`: `events` and `sha256`.
pub fn json(records: &[Record], head: &str) -> String {
    json::render(&summary::Summary::of(records, head))
}
