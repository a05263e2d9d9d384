//! Measures what was promised of Toprope's own speed. Timings belong here and not into tests, which run anywhere.

mod faults;
mod probes;
mod report;
mod run;
mod startup;
mod stats;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::workspace::{self, Workspace, output};

/// What to measure, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure; all but `faults` if nothing is named
    #[arg(value_enum)]
    which: Vec<Which>,
    /// A built `toprope`, instead of building one with the profile `ci`
    #[arg(long, value_name = "FILE")]
    toprope: Option<PathBuf>,
    /// Rounds of what is measured again and again
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// From the start of `toprope --version` to its end
    Startup,
    /// From the steady state seen to the fault in effect, and from the decision to stop to clean, of three faults
    Injection,
    /// What 50 probes cost at 100 ms
    Probes,
    /// The report of a run of a million events
    Report,
    /// How fast every fault is in effect and gone, and how exact it is: a table of its own, for docs/measured.md
    Faults,
    /// What one more sample costs in statistics
    Stats,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    /// What was measured.
    what: String,
    /// What was promised.
    goal: &'static str,
    /// What was found.
    measured: String,
}

/// What all measurements need.
struct Bench<'a> {
    /// The program to measure.
    toprope: &'a Path,
    /// How often what is measured again and again is.
    rounds: usize,
    /// A small file system in memory, for faults to fill.
    own_file_system: &'a Path,
}

/// Measures and prints.
pub(crate) fn bench(workspace: &Workspace, args: &Args) -> Result<(), Failure> {
    let toprope = args.toprope.clone().map_or_else(|| workspace.build_toprope("ci"), Ok)?;
    let usual = [Which::Startup, Which::Injection, Which::Probes, Which::Report];
    let which = if args.which.is_empty() { &usual[..] } else { &args.which };
    let injects = which.iter().any(|which| matches!(which, Which::Injection | Which::Faults));
    let own_host = injects.then(faults::enter_own_host).transpose()?;
    let own_file_system = own_host.as_ref().map_or(Path::new(""), TempDir::path);
    let bench = Bench { toprope: &toprope, rounds: args.rounds.max(1), own_file_system };
    let load = load()?;
    let mut rows = Vec::new();
    let mut tables = Vec::new();
    for which in which {
        eprintln!("measuring: {which:?}");
        match which {
            Which::Startup => rows.extend(startup::measure(&toprope, bench.rounds * 5)?),
            Which::Injection => rows.extend(faults::promises(&bench)?),
            Which::Probes => rows.extend(probes::measure(&toprope)?),
            Which::Report => rows.extend(report::measure(&toprope)?),
            Which::Stats => rows.extend(stats::measure()?),
            Which::Faults => tables.push(faults::table(&bench)?),
        }
    }
    if !rows.is_empty() {
        println!("| what | goal | measured |\n| --- | --- | --- |");
    }
    for Row { what, goal, measured } in &rows {
        println!("| {what} | {goal} | {measured} |");
    }
    for table in tables {
        println!("{table}");
    }
    let build =
        args.toprope.as_ref().map_or_else(|| "built with the profile ci".into(), |path| path.display().to_string());
    println!("\n{}; {build}. {load}.", circumstances(workspace)?);
    Ok(())
}

/// How busy the machine was with other things: figures from a busy one say little.
fn load() -> Result<String, Failure> {
    let text = workspace::read("/proc/loadavg".as_ref())?;
    let minute = text.split(' ').next().unwrap_or_default();
    Ok(format!("Load average of the minute before: {minute}"))
}

/// What was measured, when, and on what machine.
fn circumstances(workspace: &Workspace) -> Result<String, Failure> {
    let commit = output(workspace.program("git").args(["describe", "--always", "--dirty"]))?;
    let date = output(workspace.program("date").args(["-u", "+%F"]))?;
    Ok(format!("Commit {} on {}: {}", commit.trim(), date.trim(), machine()?))
}

/// On what machine something is measured.
pub(crate) fn machine() -> Result<String, Failure> {
    let cpu = fact("/proc/cpuinfo", "model name")?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory: f64 = fact("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = workspace::read("/proc/sys/kernel/osrelease".as_ref())?;
    Ok(format!("{cores} cores of {cpu}, {:.0} GiB of memory, Linux {}", memory / f64::from(1 << 20), kernel.trim(),))
}

/// The value of the first line with this name in a file of the kernel's.
fn fact(file: &str, name: &str) -> Result<String, Failure> {
    let text = workspace::read(file.as_ref())?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
    Ok(line
        .and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned()))
}

/// Median and 99th percentile (nearest rank), in milliseconds, and how many there were. Fewer than a hundred have no
/// 99th percentile: then it is the longest.
fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let rank = |percent: usize| (times.len() * percent).div_ceil(100).max(1) - 1;
    let at = |percent| times.get(rank(percent)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    let (tail, percent) = if times.len() < 100 { ("longest", 100) } else { ("p99", 99) };
    format!("p50 {:.1} ms, {tail} {:.1} ms (n = {})", at(50), at(percent), times.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(&mut times), "p50 100.0 ms, p99 198.0 ms (n = 200)");
        assert_eq!(percentiles(&mut [Duration::from_millis(3)]), "p50 3.0 ms, longest 3.0 ms (n = 1)");
    }
}
