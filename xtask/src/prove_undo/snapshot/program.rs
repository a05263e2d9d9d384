//! What programs of the system print: iproute2, nftables.

use std::process::{Command, Stdio};

use super::Facts;

/// The lines that a program prints, each a fact.
pub(super) fn facts(program: &str, args: &[&str]) -> Result<Facts, String> {
    Ok(counted(lines(program, args)?))
}

/// The lines that a program prints.
pub(super) fn lines(program: &str, args: &[&str]) -> Result<Vec<String>, String> {
    let words = || format!("`{program} {}`", args.join(" "));
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{} cannot be started: {e}", words()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{} failed: {why}", words()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|l| !l.is_empty())
        .collect())
}

/// Lines as facts: how often each is there.
pub(super) fn counted(lines: impl IntoIterator<Item = String>) -> Facts {
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts.into_iter().map(|(line, count)| (line, format!("{count}×"))).collect()
}
