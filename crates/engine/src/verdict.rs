//! The verdict: a pure fold over a run's events.
//!
//! # What is judged
//!
//! A sample belongs to the time **in force** if any part of it, from its question to its answer, falls into the time
//! from `Injecting` to `Undone` of a lasting fault (to `Injected`, of a fault that happens at one instant). Other samples
//! are of the **steady state** before the first injection, and of the time **after** from then on. Where no fault of the
//! method lasts, the time after is what counts.
//!
//! A probe that is to stay **unaffected** is judged in force and, separately, after. The share of good samples must be
//! the manifest's `good` (100 % if it says nothing), and every percentile, mean and maximum within its tolerance. In
//! force, a percentile needs as many samples as there must be to have one at all (p99: 100); after, fewer are judged
//! together with those in force. Values of bad samples count where they are out of the tolerance themselves: a request
//! that failed fast says nothing about the latency, one that timed out does. With `confidence` the share and the
//! percentiles in force are claims about the system, by tests that are valid at any time ([`toprope_stats::proportion`]).
//!
//! A probe that is to **recover** may be bad from the injection until `within` has passed since the fault's end. It must
//! not be bad in a sample that was asked later, and its last three samples must be good.
//!
//! # The three values
//!
//! *Inconclusive*, whatever the probes saw, is a run whose method did not happen as it was written: the steady state was
//! not seen, a fault was not injected, did not take or ended by itself, the log has no end. Otherwise *refuted* if a
//! probe is refuted, else *inconclusive* if the run was stopped, a fault reached less than its target, or a probe is
//! inconclusive (no samples, too few, or the probe itself failed), else *held*.
//!
//! In a run that was stopped, a probe is refuted only if it would be even if all samples still to come were good.
//!
//! A run that searched for a breaking point *held* if it found the bracket, or held at every value up to the largest;
//! it is *refuted* if it was refuted at the smallest value already; else it is inconclusive.
//!
//! # The anatomy of an outage
//!
//! **Detect**: from the first fault's being in force to the answer of the first bad sample since it was injected.
//! **Recover**: from that answer to the answer of the first good sample which no bad sample follows (in the order in
//! which samples were asked), and which at least two good ones follow; of a run, until the last probe is back. For a
//! probe that is refuted by a value tolerance, samples out of the loosest one count as bad.

use toprope_model::event::{Record, RunStarted};
use toprope_model::experiment::Experiment;
use toprope_model::verdict::Judgement;

mod anatomy;
pub(crate) mod evidence;
mod next;
mod probe;
mod run;
mod search;
mod tolerance;
pub(crate) mod words;

#[cfg(test)]
pub(crate) mod testlog;
#[cfg(test)]
mod tests;

pub use run::Fold;

/// Judges a run by its log. The run appends `Phase(Verdict)` before it asks, also when nothing was injected: a log with
/// neither that nor `RunEnded` has no end, and is inconclusive.
///
/// One pass over the records; a million take a fraction of a second.
pub fn judge(experiment: &Experiment, records: &[Record]) -> Judgement {
    let mut fold = Fold::new(experiment);
    records.iter().for_each(|record| fold.push(record));
    fold.judge()
}

/// Judges one trial of a search: `records` are those from its `TrialStarted` to before its `TrialEnded`. Samples that
/// were asked before the first of them are of the trial before it, and do not count.
///
/// Where they hold no steady state of the trial's own, it was seen before the first trial; samples from before its
/// injection must be good all the same.
pub fn judge_trial(experiment: &Experiment, started: &RunStarted, records: &[Record]) -> Judgement {
    let mut fold = Fold::of_trial(experiment, started);
    records.iter().for_each(|record| fold.push(record));
    fold.judge()
}

/// Whether the steady state was seen, by the samples before the first injection; in a search, by those of the last
/// trial, if it goes on. A probe need not have samples where the manifest asks for no steady state (`for: 0s`) or where
/// it waits for something to happen; what there is must be good.
///
/// # Errors
/// Why not, one sentence for each probe that was bad or has no samples. Then nothing may be injected.
pub fn steady_state(experiment: &Experiment, records: &[Record]) -> Result<(), Vec<String>> {
    let mut fold = Fold::new(experiment);
    records.iter().for_each(|record| fold.push(record));
    fold.steady_state()
}
