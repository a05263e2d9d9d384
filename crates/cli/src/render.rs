//! Errors on standard error: in place, with a caret, and with what to do.

mod excerpt;
mod foreign;

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, Report, Severity};
use toprope_model::{Problems, Sources};

use excerpt::Excerpt;
pub use foreign::harmless;
use foreign::shown;

/// So many problems are shown: whoever has more mends those first.
const SHOWN: usize = 20;

/// Prints an error that has no place in a text.
pub fn error(message: &str, help: Option<&str>) {
    let mut text = format!("{} {}\n", paint("error:", "1;31"), shown(message));
    if let Some(help) = help {
        text.push_str(&format!(" {} {}\n", paint("help:", "1;36"), shown(help)));
    }
    // A closed terminal cannot be told anything.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether standard error shows colours.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn paint(text: &str, code: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints everything that is wrong with a manifest, each at its place.
pub fn problems(sources: &Sources, problems: &Problems) {
    let text = problems_as_text(sources, problems, colours());
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The same as text.
pub fn problems_as_text(sources: &Sources, problems: &Problems, colours: bool) -> String {
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_context_lines(1);
    let mut text = String::new();
    // A text is made fit to be shown once, however many problems are in it.
    let mut excerpts: HashMap<*const u8, Excerpt> = HashMap::new();
    for problem in problems.0.iter().take(SHOWN) {
        let mut diagnostic = MietteDiagnostic::new(shown(&problem.message)).with_severity(Severity::Error);
        if let Some(help) = &problem.help {
            diagnostic = diagnostic.with_help(shown(help));
        }
        let source = problem.span.and_then(|span| sources.get(span).map(|source| (span, source)));
        let report: Report = match source {
            Some((span, source)) => {
                let excerpt = excerpts.entry(source.text.as_ptr());
                let excerpt = excerpt.or_insert_with(|| Excerpt::new(&source.name, &source.text));
                let label = Some(shown(&problem.label)).filter(|l| !l.is_empty());
                let length = excerpt.label_length(span.start, span.end);
                diagnostic = diagnostic.with_label(LabeledSpan::new(label, span.start, length));
                Report::new(diagnostic).with_source_code(excerpt.clone())
            }
            None => Report::new(diagnostic),
        };
        let _ = handler.render_report(&mut text, report.as_ref());
    }
    let count = problems.count();
    let more = if count > SHOWN { format!("; the first {SHOWN} are shown") } else { String::new() };
    text.push_str(&format!("{count} problem{}{more}\n", if count == 1 { "" } else { "s" }));
    text
}
