//! What all rounds together say, as a page of Markdown.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Entry;
use super::round::Undoer;
use super::scenario::{self, Mechanism};

/// Times in milliseconds.
#[derive(Debug, Default)]
struct Times(Vec<f64>);

impl Times {
    /// The nearest rank.
    fn at(&self, percent: usize) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted
            .get(rank)
            .map_or_else(|| "–".to_owned(), |ms| if *ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") })
    }

    fn row(&self) -> String {
        format!("{} | {} | {} | {}", self.0.len(), self.at(50), self.at(99), self.at(100))
    }
}

/// Rounds and leftovers of something.
#[derive(Debug, Default)]
struct Count {
    rounds: usize,
    left: usize,
}

impl Count {
    fn add(&mut self, entry: &Entry) {
        self.rounds += 1;
        self.left += usize::from(!entry.outcome.leftovers.is_empty());
    }
}

fn mechanism_of(entry: &Entry) -> Option<Mechanism> {
    scenario::all().iter().find(|s| s.name() == entry.outcome.scenario).map(|s| s.mechanism)
}

/// The tables.
pub(crate) fn tables(entries: &[Entry]) -> String {
    let mut faults: BTreeMap<&str, (Count, BTreeMap<Undoer, Times>)> = BTreeMap::new();
    let mut mechanisms: BTreeMap<Mechanism, Count> = BTreeMap::new();
    let mut mechanism_times: BTreeMap<(Mechanism, Undoer), Times> = BTreeMap::new();
    let mut victims: BTreeMap<String, Count> = BTreeMap::new();
    let mut moments: BTreeMap<String, Count> = BTreeMap::new();
    for entry in entries {
        let outcome = &entry.outcome;
        let (count, times) = faults.entry(&outcome.scenario).or_default();
        count.add(entry);
        victims.entry(outcome.victims.to_string()).or_default().add(entry);
        moments.entry(outcome.moment.to_string()).or_default().add(entry);
        let mechanism = mechanism_of(entry);
        if let Some(mechanism) = mechanism {
            mechanisms.entry(mechanism).or_default().add(entry);
        }
        if let Some(ms) = outcome.clean_ms {
            times.entry(outcome.undoer).or_default().0.push(ms);
            if let Some(mechanism) = mechanism {
                mechanism_times.entry((mechanism, outcome.undoer)).or_default().0.push(ms);
            }
        }
    }
    let mut text = String::from("| fault | rounds | with leftovers | undone by | times | p50 ms | p99 ms | max ms |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (fault, (count, times)) in &faults {
        let mut first = format!("{fault} | {} | {}", count.rounds, count.left);
        for (undoer, times) in times {
            text.push_str(&format!("| {first} | {undoer} | {} |\n", times.row()));
            first = " | | ".into();
        }
        if times.is_empty() {
            text.push_str(&format!("| {first} | | | | | |\n"));
        }
    }
    text.push_str("\n| mechanism | rounds | with leftovers | undone by | times | p50 ms | p99 ms | max ms |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (mechanism, count) in &mechanisms {
        let mut first = format!("{} | {} | {}", mechanism.words(), count.rounds, count.left);
        for ((_, undoer), times) in mechanism_times.iter().filter(|((of, _), _)| of == mechanism) {
            text.push_str(&format!("| {first} | {undoer} | {} |\n", times.row()));
            first = " | | ".into();
        }
        if !mechanism_times.keys().any(|(of, _)| of == mechanism) {
            text.push_str(&format!("| {first} | | | | | |\n"));
        }
    }
    for (what, counts) in [("killed", &victims), ("when", &moments)] {
        text.push_str(&format!("\n| {what} | rounds | with leftovers |\n| --- | --- | --- |\n"));
        for (name, Count { rounds, left }) in counts {
            text.push_str(&format!("| {name} | {rounds} | {left} |\n"));
        }
    }
    text
}

/// The page for `docs/`: the tables, of what and when they are, and every round that failed.
pub(crate) fn page(entries: &[Entry], circumstances: &str) -> String {
    let mut text = String::from(
        "# The undo, proven\n\n\
         Written by `cargo xtask prove-undo --write`. Each round starts a run in a sandbox of namespaces, kills who the\n\
         tables say at an instant of chance, and compares the state of the sandbox before and after, class by class,\n\
         whatever the fault declares. *Undone by* says who was left to take the fault back; *times* counts the rounds in\n\
         which it was felt when the blow came, and the milliseconds are from the blow until it was not felt any more\n\
         (of `toprope undo`: from its start). See [safety](../guide/safety.md).\n\n",
    );
    let commits: BTreeSet<(&str, &str)> = entries.iter().map(|e| (e.date.as_str(), e.commit.as_str())).collect();
    for (date, commit) in commits {
        let rounds = entries.iter().filter(|e| e.commit == commit && e.date == date).count();
        text.push_str(&format!("- {rounds} rounds of commit {commit} on {date}\n"));
    }
    text.push_str(&format!("\n{circumstances}\n\n{}", tables(entries)));
    let failed: Vec<&Entry> = entries.iter().filter(|e| !e.outcome.leftovers.is_empty()).collect();
    if !failed.is_empty() {
        text.push_str("\n## Rounds with leftovers\n");
        for Entry { outcome, commit, .. } in failed {
            text.push_str(&format!(
                "\n- {} (seed {}, commit {commit}): {} struck {}\n",
                outcome.scenario, outcome.seed, outcome.victims, outcome.moment
            ));
            for left in &outcome.leftovers {
                text.push_str(&format!("  - {}\n", left.lines().next().unwrap_or_default()));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_nearest_rank() {
        let times = Times((1..=200).rev().map(f64::from).collect());
        assert_eq!(times.row(), "200 | 100 | 198 | 200");
        assert_eq!(Times(vec![]).row(), "0 | – | – | –");
    }
}
