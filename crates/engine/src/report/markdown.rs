//! The Markdown report.

use std::fmt::Write;

use toprope_model::event::Level;
use toprope_model::verdict::Outcome;

use super::html::{Measured, facts, measures, took, undone};
use super::summary::{Stats, Summary};
use super::text::{TEXT, at, clean, name};
use crate::verdict::evidence::Watch;
use crate::verdict::words::{self, millis, number};

/// Renders the report.
pub(super) fn render(summary: &Summary<'_>) -> String {
    let mut out = String::with_capacity(4096);
    write(summary, &mut out).expect("writing to a string cannot fail");
    out
}

/// Foreign text on one line, with all that Markdown would take for its own escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in clean(&text.split_whitespace().collect::<Vec<_>>().join(" "), TEXT).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // `@name` and `#1` would call people and link issues.
            '@' => out.push_str("&#64;"),
            '#' => out.push_str("&#35;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A sentence of ours: what stands between backticks is a name, and stays code.
fn prose(sentence: &str) -> String {
    let closed = sentence.matches('`').count() / 2 * 2;
    let mut out = String::new();
    for (i, part) in sentence.splitn(closed + 1, '`').enumerate() {
        if i % 2 == 1 {
            out.push_str(&code(part));
        } else {
            // What follows code keeps its space.
            let (before, after) = (part.starts_with(' '), part.ends_with(' ') && part.len() > 1);
            let _ = write!(out, "{}{}{}", if before { " " } else { "" }, escape(part), if after { " " } else { "" });
        }
    }
    out
}

/// Foreign text as code on one line.
fn code(text: &str) -> String {
    let text =
        clean(&text.split_whitespace().collect::<Vec<_>>().join(" "), TEXT).replace('`', "'").replace('|', "\\|");
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// A block of code whose fence is longer than any in it.
fn block(language: &str, text: &str) -> String {
    let text = clean(text, 200_000);
    let longest = text.lines().map(|l| l.trim_start().chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}", text.trim_end())
}

fn sign(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "✅ held",
        Outcome::Refuted => "❌ refuted",
        Outcome::Inconclusive => "❔ inconclusive",
    }
}

fn write(summary: &Summary<'_>, out: &mut String) -> std::fmt::Result {
    let judgement = &summary.judgement;
    writeln!(out, "# {}\n", escape(&summary.hypothesis()))?;
    writeln!(out, "**{}** · {} · {}\n", sign(judgement.outcome), escape(&summary.ending()), code(&summary.name()))?;
    for reason in &judgement.reasons {
        writeln!(out, "- {}", prose(reason))?;
    }
    writeln!(out)?;
    let figures = [("Time to detect", judgement.detect_ms), ("Time to recover", judgement.recover_ms)];
    for (label, ms) in figures {
        if let Some(ms) = ms {
            writeln!(out, "{label}: **{}**  ", millis(ms))?;
        }
    }
    if let Some(point) = &judgement.breaking_point {
        let of = |v: &Option<String>| v.as_deref().map_or_else(|| "—".into(), |v| code(&name(v)));
        writeln!(
            out,
            "{}: holds at **{}**, breaks at **{}**\n",
            code(&point.parameter),
            of(&point.held),
            of(&point.refuted)
        )?;
        writeln!(out, "| value | held | refuted | inconclusive |\n| --- | --: | --: | --: |")?;
        for (value, held, refuted, unknown) in &point.trials {
            writeln!(out, "| {} | {held} | {refuted} | {unknown} |", code(&name(value)))?;
        }
    }
    probes(summary, out)?;
    faults(summary, out)?;
    if !summary.notes.is_empty() || summary.sealed.is_some() {
        writeln!(out, "\n## Notes\n")?;
        if let Some((wall, notes)) = summary.sealed {
            writeln!(
                out,
                "- **warning**: this log had no end: the run was killed. It was sealed at {}.",
                escape(wall)
            )?;
            notes.iter().try_for_each(|n| writeln!(out, "- {}", escape(n)))?;
        }
        for (when, level, text) in summary.notes.iter().take(100) {
            let word = match level {
                Level::Info => "",
                Level::Warning => "**warning**: ",
                Level::Error => "**error**: ",
            };
            writeln!(out, "- {} {word}{}", at(*when), escape(text))?;
        }
    }
    if !judgement.next.is_empty() {
        writeln!(out, "\n## What to try next\n")?;
        for next in &judgement.next {
            writeln!(out, "- {}", prose(&next.text))?;
            if let Some(command) = &next.command {
                writeln!(out, "\n  {}\n", block("sh", command).replace('\n', "\n  "))?;
            }
        }
    }
    writeln!(out, "\n## How to repeat it\n")?;
    if !summary.started.run.is_empty() {
        writeln!(out, "{}\n", block("sh", &format!("toprope run --again {}", clean(&summary.started.run, 120))))?;
    }
    let manifest = summary.manifest();
    if !manifest.is_empty() {
        writeln!(out, "<details><summary>The manifest</summary>\n\n{}\n\n</details>\n", block("yaml", &manifest))?;
    }
    writeln!(out, "| | |\n| --- | --- |")?;
    for (label, text) in facts(summary) {
        writeln!(out, "| {label} | {} |", escape(&text))?;
    }
    Ok(())
}

fn probes(summary: &Summary<'_>, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## Probes\n")?;
    let periods = summary.periods();
    let heads: String = periods.iter().map(|(label, _)| format!(" {} |", label.to_lowercase())).collect();
    writeln!(
        out,
        "| probe | |{heads} detect | recover |\n| --- | --- |{} --: | --: |",
        " --: |".repeat(periods.len())
    )?;
    let empty = Watch::default();
    for (i, info) in summary.started.probes.iter().enumerate() {
        let watch = summary.evidence.probes.get(i).unwrap_or(&empty);
        let judgement = summary.judgement.probes.get(i);
        let cell = |periods| {
            let stats = Stats::of(watch, periods);
            if stats.all() == 0 {
                return "—".to_owned();
            }
            let p99 = stats
                .values
                .as_ref()
                .map(|v| format!(", p99 {}", escape(&words::value(v.p99, &info.unit))))
                .unwrap_or_default();
            format!("{}/{} good{}", number(stats.good), number(stats.all()), p99)
        };
        let time = |ms: Option<f64>| ms.map_or_else(|| "—".into(), millis);
        writeln!(
            out,
            "| {} | {} |{} {} | {} |",
            code(&name(&info.name)),
            sign(judgement.map_or(Outcome::Inconclusive, |j| j.outcome)),
            periods.iter().map(|(_, p)| format!(" {} |", cell(p))).collect::<String>(),
            time(judgement.and_then(|j| j.detect_ms)),
            time(judgement.and_then(|j| j.recover_ms)),
        )?;
    }
    writeln!(out)?;
    for info in &summary.started.probes {
        let tolerates =
            if info.tolerates.is_empty() { String::new() } else { format!(": {}", escape(&info.tolerates)) };
        writeln!(out, "- {} asks {}{tolerates}", code(&name(&info.name)), code(&info.asks))?;
    }
    Ok(())
}

fn faults(summary: &Summary<'_>, out: &mut String) -> std::fmt::Result {
    if summary.evidence.injections.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n## Faults\n\n| fault | at | effect | asked | measured | undone |\n| --- | --: | --- | --- | --- | --- |"
    )?;
    for injection in summary.evidence.injections.iter().take(100) {
        let effect = injection.effect.as_ref().map(|(e, _)| measures(e)).unwrap_or_default();
        let join = |pick: &dyn Fn(&Measured) -> String| effect.iter().map(pick).collect::<Vec<_>>().join("; ");
        let (word, _, when, by) = undone(summary, injection);
        let undone =
            if injection.failed.is_some() { "—".to_owned() } else { format!("{word} at {when} by {}", escape(&by)) };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {undone} |",
            code(&summary.fault_name(injection)),
            at(injection.injected.unwrap_or(injection.injecting)),
            took(injection).0,
            escape(&join(&|m| format!("{} {}", m.name, m.asked))),
            escape(&join(&|m| m.measured.clone())),
        )?;
    }
    let more = summary.evidence.injections.len().saturating_sub(100);
    if more > 0 {
        writeln!(out, "\n{more} more injections are in the log.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_become_markup() {
        assert_eq!(
            escape("<b>*x*</b> [a](b) | @me #1\n- x"),
            "&lt;b&gt;\\*x\\*&lt;/b&gt; \\[a\\](b) \\| &#64;me &#35;1 - x"
        );
        assert_eq!(code("a`b|c\n"), "`a'b\\|c`");
        assert_eq!(prose("`a` was bad: <x>"), "`a` was bad: &lt;x&gt;");
        assert!(block("yaml", "x\n````\n").starts_with("`````yaml\n"));
    }
}
