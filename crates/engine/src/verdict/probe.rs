//! The judgement on one probe.

use std::time::Duration;

use toprope_model::event::ProbeInfo;
use toprope_model::experiment::{Experiment, ProbeCommon, RECOVERY, When};
use toprope_model::verdict::{Outcome, ProbeJudgement};

use super::anatomy::{self, BACK, Outage, between};
use super::evidence::{Evidence, Period, Seen, Watch, Worth};
use super::tolerance::{Finding, Set, TooFew, outside_loosest};
use super::words::{self, cut, millis, samples, sentence};

/// A probe, what it was to keep to, and what it saw.
pub(super) struct Subject<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) common: &'a ProbeCommon,
    pub(super) info: &'a ProbeInfo,
    pub(super) watch: &'a Watch,
    pub(super) evidence: &'a Evidence,
}

/// What came out, with what the run's judgement needs of it.
pub(super) struct Judged {
    pub(super) judgement: ProbeJudgement,
    pub(super) outage: Option<Outage>,
    /// The most samples that are missing for a decision.
    pub(super) missing: Option<u64>,
}

impl Subject<'_> {
    fn set<'s>(&'s self, samples: &'s [Seen], when: &'s str, why: &'s Option<String>, too_few: TooFew) -> Set<'s> {
        Set {
            samples,
            common: self.common,
            unit: &self.info.unit,
            when,
            too_few,
            claims: false,
            to_come: 0,
            why: why.as_deref(),
            why_broken: self.watch.whys.broken.as_deref(),
        }
    }

    /// Whether it was good before anything was injected. Too few samples for a percentile are judged by the worst.
    pub(super) fn steady(&self) -> Vec<Finding> {
        let samples = self.watch.of(Period::Steady);
        let set = self.set(&samples, "in the steady state", &self.watch.whys.steady, TooFew::Largest);
        let mut findings = set.judge();
        // Nothing was injected yet, so nothing can be refuted.
        for finding in findings.iter_mut().filter(|f| f.outcome == Outcome::Refuted) {
            finding.outcome = Outcome::Inconclusive;
        }
        findings
    }

    /// Whether it is asked before anything is injected.
    pub(super) fn has_steady_state(&self) -> bool {
        matches!(self.common.when, When::Before | When::During | When::Edge)
    }

    fn recovers(&self) -> bool {
        self.info.recovers && !self.info.waits && !matches!(self.common.when, When::Before | When::At)
    }

    pub(super) fn judge(&self) -> Judged {
        let since = self.watch.since_injection();
        let (mut findings, judged) = if self.common.when == When::Before {
            let set = self.watch.of(Period::Steady);
            (self.steady(), set)
        } else if self.recovers() {
            (self.recovery(&since), since.clone())
        } else {
            (self.unaffected(), since.clone())
        };
        findings.extend(self.losses());
        let about_values = findings.iter().any(|f| f.outcome == Outcome::Refuted && f.about_values);
        let evidence: Vec<Seen> = since.iter().filter(|s| s.worth != Worth::Broken).copied().collect();
        let outage =
            anatomy::outage(&evidence, |s| s.worth == Worth::Bad || (about_values && outside_loosest(self.common, s)));
        let count = |worth| judged.iter().filter(|s| s.worth == worth).count() as u64;
        let good = count(Worth::Good);
        let injected = self.evidence.first_injected();
        let mut reasons = reasons(&findings);
        if self.watch.retried > 0 {
            let again = words::count(self.watch.retried, "sample");
            reasons.push(sentence(&format!("{again} since the injection got no good answer at the first try")));
        }
        let judgement = ProbeJudgement {
            name: self.info.name.clone(),
            outcome: worst(findings.iter().map(|f| f.outcome)),
            reasons,
            samples: (good, good + count(Worth::Bad)),
            claims: findings.iter().filter_map(|f| f.claim.clone()).collect(),
            detect_ms: outage.zip(injected).map(|(o, from)| between(from, o.detected)),
            recover_ms: outage.and_then(|o| o.back.map(|back| between(o.detected, back))),
            lost: self.watch.found.as_ref().map(|(acknowledged, lost, _)| (*acknowledged, *lost)),
        };
        Judged { judgement, outage, missing: findings.iter().filter_map(|f| f.missing).max() }
    }

    fn unaffected(&self) -> Vec<Finding> {
        let (in_force, after) = (self.watch.of(Period::InForce), self.watch.of(Period::After));
        let whys = &self.watch.whys;
        let lasted = self.evidence.lasted();
        let force = if self.evidence.injections.len() == 1 {
            "while the fault was in force"
        } else {
            "while faults were in force"
        };
        let only_after = !lasted || self.info.waits || matches!(self.common.when, When::After | When::Edge);
        if only_after {
            let since = self.watch.since_injection();
            let why = if whys.in_force.is_some() { &whys.in_force } else { &whys.after };
            let set = self.set(
                &since,
                if self.info.waits { "since the injection" } else { "after the fault" },
                why,
                TooFew::Undecided,
            );
            return Set { claims: true, to_come: self.to_come(&since), ..set }.judge();
        }
        let set = self.set(&in_force, force, &whys.in_force, TooFew::Undecided);
        let to_come = self.to_come(&in_force);
        let mut findings = Set { claims: true, to_come, ..set }.judge();
        for finding in findings.iter_mut().filter(|f| f.outcome == Outcome::Held) {
            finding.text.push_str(&format!(" {force}"));
        }
        findings.extend(self.unasked());
        let set = self.set(&after, "after the fault", &whys.after, TooFew::Undecided);
        let (_, all) = set.counted();
        if self.common.when == When::At || (all == 0 && after.is_empty()) {
            return findings;
        }
        if all < self.enough() {
            let since = self.watch.since_injection();
            let when = "while the fault was in force and after it, taken together";
            let why = if whys.in_force.is_some() { &whys.in_force } else { &whys.after };
            let together = Set { to_come, ..self.set(&since, when, why, TooFew::Undecided) }.judge();
            // Only what it adds: that what was good in force is no longer so with what came after it.
            let held = worst(findings.iter().map(|f| f.outcome)) == Outcome::Held;
            findings.extend(together.into_iter().filter(|f| held && f.outcome != Outcome::Held));
            return findings;
        }
        let mut later = set.judge();
        for finding in later.iter_mut().filter(|f| f.outcome == Outcome::Held) {
            finding.text.push_str(" after it");
        }
        findings.extend(later);
        findings
    }

    /// That it was not asked while some of the faults were in force: what it saw of the others says nothing of them.
    fn unasked(&self) -> Option<Finding> {
        let lasting = self.evidence.injections.iter().filter(|i| i.lasting && i.failed.is_none());
        let (asked, unasked): (Vec<_>, Vec<_>) = lasting.partition(|i| self.evidence.asked_during(self.watch, i));
        if asked.is_empty() || unasked.is_empty() {
            return None; // Without any sample in force there is a finding already.
        }
        let all = words::count((asked.len() + unasked.len()) as u64, "injection");
        let text = format!(
            "it was not asked in {} of {all}: a fault must last for longer than the interval of {}",
            unasked.len(),
            millis(self.info.interval_ms)
        );
        Some(Finding { missing: Some(1), ..Finding::new(Outcome::Inconclusive, sentence(&text)) })
    }

    /// How many samples it takes to judge every tolerance: those of the percentiles, and of a share of good ones as
    /// many as one bad sample may be among.
    fn enough(&self) -> u64 {
        let share = self.common.good.map_or(1.0, |g| g.share());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a million")]
        let of_share = if share < 1.0 { (1.0 / (1.0 - share)).min(1e6).ceil() as u64 } else { 1 };
        self.common.samples_needed().max(of_share)
    }

    /// How many samples were still to come when the run was stopped: at most as many as the whole method yields.
    fn to_come(&self, taken: &[Seen]) -> u64 {
        if self.evidence.stop.is_none() || self.info.interval_ms <= 0.0 {
            return 0;
        }
        let planned = self.experiment.method_duration().as_secs_f64() * 1e3 / self.info.interval_ms;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a method ends within a year")]
        let planned = planned.ceil() as u64;
        planned.saturating_sub(taken.len() as u64)
    }

    fn recovery(&self, since: &[Seen]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let broken = since.iter().filter(|s| s.worth == Worth::Broken).count() as u64;
        if broken > 0 {
            let why = self.watch.whys.broken.as_deref().map(|w| format!(": {}", cut(w))).unwrap_or_default();
            let text = format!("the probe itself failed in {} of {}{why}", broken, samples(since.len() as u64));
            findings.push(Finding::new(Outcome::Inconclusive, sentence(&text)));
        }
        let samples: Vec<Seen> = since.iter().filter(|s| s.worth != Worth::Broken).copied().collect();
        let (finding, back) = self.recovered(&samples);
        let recovered = finding.outcome == Outcome::Held;
        findings.push(finding);
        if recovered && !self.common.tolerances().is_empty() {
            let set = self.set(&samples[back..], "since it was back", &self.watch.whys.after, TooFew::Largest);
            findings.extend(set.judge().into_iter().filter(|f| f.about_values));
        }
        findings
    }

    /// Whether it came back in time, and from which sample on it was back.
    fn recovered(&self, all: &[Seen]) -> (Finding, usize) {
        let undecided = |text: String| (Finding::new(Outcome::Inconclusive, sentence(&text)), all.len());
        let within = self.within();
        let allowed = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        let allowed_text = millis(within.as_secs_f64() * 1e3);
        let the_end = if self.evidence.lasted() { "the fault's end" } else { "the fault" };
        // From when to when it may be bad.
        let mut windows = Vec::new();
        for injection in self.evidence.injections.iter().filter(|i| i.failed.is_none()) {
            match injection.end() {
                Some(end) => windows.push((injection.injecting, end)),
                None => {
                    return undecided(
                        "the fault has no end in the log, so that nothing can have recovered from it".into(),
                    );
                }
            }
        }
        let Some(end) = windows.iter().map(|w| w.1).max() else {
            return undecided("there was no fault to recover from".into());
        };
        let last_bad = all.iter().rposition(|s| s.worth == Worth::Bad);
        let tolerated =
            |s: &Seen| windows.iter().any(|(from, to)| *from <= s.at && s.started <= to.saturating_add(allowed));
        if let Some(late) = all.iter().find(|s| s.worth == Worth::Bad && !tolerated(s)) {
            let since = windows.iter().map(|w| w.1).filter(|to| *to <= late.started).max().unwrap_or(end);
            let why = self.watch.whys.last.as_deref().map(|w| format!(": {}", cut(w))).unwrap_or_default();
            let stayed = last_bad.is_some_and(|i| all.len() - i <= BACK);
            let how = if stayed { "it did not recover: still" } else { "it was" };
            let text = format!(
                "{how} bad {} after {the_end}, and had {allowed_text}{why}",
                millis(between(since, late.started))
            );
            return (Finding::new(Outcome::Refuted, sentence(&text)), all.len());
        }
        let back = match last_bad {
            Some(i) => i + 1,
            None => all.iter().position(|s| s.started >= end).unwrap_or(all.len()),
        };
        let good = &all[back..];
        let n = good.len();
        if n < BACK {
            let watched = millis(between(end, self.evidence.end));
            let what = if last_bad.is_some() { "was not yet good again" } else { "was hardly asked" };
            return undecided(format!(
                "the run ended {watched} after {the_end}, when it {what}: {} in a row, and it takes {BACK}",
                words::count(n as u64, "good sample")
            ));
        }
        let bad = all.iter().filter(|s| s.worth == Worth::Bad).count() as u64;
        let Some(last) = last_bad.map(|i| all[i]) else {
            let text =
                format!("all {} good since the injection, {} of them after {the_end}", samples(all.len() as u64), n);
            return (Finding::new(Outcome::Held, text), back);
        };
        if good[0].started > end.saturating_add(allowed) {
            return undecided(format!(
                "it was last bad when asked {} after {the_end} and good again {} after it; whether that was within \
                 {allowed_text} cannot be told",
                millis(between(end, last.started)),
                millis(between(end, good[0].started))
            ));
        }
        let when = if good[0].at <= end {
            format!("good again before {the_end}")
        } else {
            format!("good again {} after {the_end}", millis(between(end, good[0].at)))
        };
        let text = format!(
            "{} of {} bad, {when} (allowed {allowed_text}), and good from then on for {}",
            bad,
            samples(all.len() as u64),
            samples(n as u64)
        );
        (Finding::new(Outcome::Held, text), back)
    }

    fn within(&self) -> Duration {
        let of_run = || self.experiment.spec.recovery.as_ref().map_or(RECOVERY, |r| r.within.0);
        self.common.recovers.as_ref().map_or_else(of_run, |r| r.within.0)
    }

    fn losses(&self) -> Option<Finding> {
        let allowed = self.common.loses?;
        let Some((acknowledged, lost, names)) = &self.watch.found else {
            let text = "the acknowledged writes were not looked for at the end.";
            return Some(Finding::new(Outcome::Inconclusive, sentence(text)));
        };
        if *acknowledged == 0 {
            let text = "no write was acknowledged, so that none could be lost.";
            return Some(Finding::new(Outcome::Inconclusive, sentence(text)));
        }
        let writes = words::count(*acknowledged, "acknowledged write");
        if *lost > allowed {
            let more = if *lost > names.len() as u64 { ", …" } else { "" };
            let names: Vec<String> = names.iter().map(|n| cut(n)).collect();
            let limit = if allowed == 0 { "none may be".into() } else { format!("{allowed} may be") };
            let text = format!(
                "{lost} of {writes} {} lost, and {limit}: {}{more}",
                if *lost == 1 { "is" } else { "are" },
                names.join(", ")
            );
            return Some(Finding::new(Outcome::Refuted, sentence(&text)));
        }
        let text = if *lost == 0 {
            format!("all {writes} found again")
        } else {
            format!("{lost} of {writes} lost ({allowed} allowed)")
        };
        Some(Finding::new(Outcome::Held, text))
    }
}

/// The worst of several outcomes; held if there is none.
pub(super) fn worst(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let rank = |o: &Outcome| match o {
        Outcome::Held => 0,
        Outcome::Inconclusive => 1,
        Outcome::Refuted => 2,
    };
    outcomes.max_by_key(rank).unwrap_or(Outcome::Held)
}

/// The sentences of some findings, the weightiest first; what held becomes one sentence.
fn reasons(findings: &[Finding]) -> Vec<String> {
    let of = |outcome| findings.iter().filter(move |f| f.outcome == outcome).map(|f| f.text.as_str());
    let held: Vec<&str> = of(Outcome::Held).collect();
    let mut all: Vec<String> = of(Outcome::Refuted).chain(of(Outcome::Inconclusive)).map(str::to_owned).collect();
    if !held.is_empty() {
        all.push(sentence(&held.join("; ")));
    }
    all
}
