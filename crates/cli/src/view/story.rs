//! A run told in lines: what happened, when, in words. Single samples are not told, only what they turn.

use toprope_model::event::{Event, Level, Phase, Record, RunStarted, Stop};
use toprope_model::step::{Plan, Undone};
use toprope_model::verdict::Outcome;

use super::ink::{Ink, Tone};
use super::probe::{Health, ProbeState};
use super::state::{RunState, Turn};
use super::words::{clean, count, effect, millis, nanos, offset, value};

/// After so long without a line, one says how the probes are.
const SILENCE: u64 = 15_000_000_000;
/// How many probes such a line names.
const NAMED: usize = 4;

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since the run began.
    pub at: u64,
    /// How it is meant.
    pub tone: Tone,
    /// What it is about, in a word.
    pub about: &'static str,
    /// What happened.
    pub text: String,
}

impl Entry {
    /// A sign that says the tone without colour, one column wide.
    pub fn sign(&self) -> &'static str {
        match self.tone {
            Tone::Good => "✔",
            Tone::Bad => "✘",
            Tone::Warn => "!",
            Tone::Fault => "▶",
            Tone::Strong => "■",
            Tone::Plain | Tone::Dim => " ",
        }
    }

    /// The entry as one line of text.
    pub fn line(&self, ink: Ink) -> String {
        let sign = ink.paint(self.tone, self.sign());
        let text = match self.tone {
            Tone::Plain | Tone::Warn | Tone::Good | Tone::Fault => self.text.clone(),
            Tone::Bad | Tone::Strong | Tone::Dim => ink.paint(self.tone, &self.text),
        };
        let at = ink.paint(Tone::Dim, &format!("{:>9}", offset(self.at)));
        format!("{at}  {sign} {:<8}  {text}", self.about)
    }
}

/// Tells a run event by event.
#[derive(Debug, Default)]
pub struct Story {
    state: RunState,
    /// When the last line was told.
    told: u64,
}

impl Story {
    /// The run so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The run, when all is told.
    pub fn into_state(self) -> RunState {
        self.state
    }

    /// Takes the next event and returns what there is to tell of it.
    pub fn take(&mut self, record: &Record) -> Vec<Entry> {
        let turn = self.state.apply(record);
        let at = record.at;
        let mut told: Vec<Entry> = turn
            .and_then(|turn| self.turn(turn))
            .into_iter()
            .chain(self.event(&record.event))
            .map(|(tone, about, text)| Entry { at, tone, about, text })
            .collect();
        if told.is_empty() && at.saturating_sub(self.told) >= SILENCE && matches!(record.event, Event::Sample(_)) {
            told.push(Entry { at, tone: Tone::Dim, about: "probes", text: self.probes() });
        }
        if !told.is_empty() {
            self.told = at;
        }
        told
    }

    fn event(&self, event: &Event) -> Vec<(Tone, &'static str, String)> {
        let one = |tone, about, text: String| vec![(tone, about, text)];
        match event {
            Event::RunStarted(started) => self.started(started),
            Event::Planned(plans) => {
                plans.iter().flat_map(|p| planned(&self.fault_name(p.fault as usize), &p.plan)).collect()
            }
            Event::TrialStarted { trial, value } => {
                one(Tone::Strong, "trial", format!("trial {trial}: {}", clean(value)))
            }
            Event::TrialEnded { trial, outcome, reason } => {
                one(tone(*outcome), "trial", format!("trial {trial}: {outcome}. {}", clean(reason)))
            }
            Event::PassThrough { at, to } => one(
                Tone::Plain,
                "listen",
                format!("clients of {} are led to {} until the run has ended", clean(at), clean(to)),
            ),
            Event::PassThroughLost { at, why } => {
                one(Tone::Bad, "listen", format!("the pass-through on {} is gone: {}", clean(at), clean(why)))
            }
            Event::Phase(Phase::Verdict) => vec![],
            Event::Phase(phase) => self.phase(*phase),
            Event::Injected { injection, path } => one(Tone::Fault, "inject", self.injected(*injection, path)),
            Event::Effect { injection, effect: measured, last: true } => {
                let name = self.injection(*injection);
                let (tone, took) = match measured.took {
                    Some(true) => (Tone::Good, "took"),
                    Some(false) => (Tone::Bad, "did not take"),
                    None => (Tone::Warn, "was not seen to take"),
                };
                let words = effect(measured);
                let colon = if words.is_empty() { "" } else { ": " };
                one(tone, "effect", format!("{name} {took}{colon}{words}"))
            }
            Event::Adjusted { injection, parameter, value } => {
                let text = format!("{}: {} {}", self.injection(*injection), clean(parameter), clean(value));
                one(Tone::Fault, "adjust", text)
            }
            Event::Ended { injection, why } => {
                one(Tone::Warn, "inject", format!("{} ended: {}", self.injection(*injection), clean(why)))
            }
            Event::Undone { injection, undone } => self.undone(*injection, undone),
            Event::InjectFailed { fault, error, .. } => {
                let name = self.fault_name(*fault as usize);
                one(Tone::Bad, "inject", format!("{name} could not be injected: {}", clean(error)))
            }
            Event::Found { probe, acknowledged, lost } => {
                let name = self.probe_name(*probe as usize);
                let text = match lost.len() {
                    0 => format!("{name}: all {} found again", count(*acknowledged, "acknowledged write")),
                    n => {
                        let few: Vec<String> = lost.iter().take(3).map(|l| clean(l)).collect();
                        let more = if n > few.len() { ", …" } else { "" };
                        format!("{name}: {n} of {acknowledged} acknowledged writes lost ({}{more})", few.join(", "))
                    }
                };
                one(if lost.is_empty() { Tone::Good } else { Tone::Bad }, "probe", text)
            }
            // A second reason changes nothing: the first one is why the run is stopped.
            Event::Stopping(stop) if self.state.stopping.as_ref() != Some(stop) => vec![],
            Event::Stopping(stop) => one(Tone::Bad, "stop", stopped(stop)),
            Event::Note { level, text } => {
                let tone = match level {
                    Level::Info => Tone::Plain,
                    Level::Warning => Tone::Warn,
                    Level::Error => Tone::Bad,
                };
                one(tone, "note", clean(text))
            }
            // Its reasons are in the closing block.
            Event::Judged(judgement) => one(tone(judgement.outcome), "verdict", judgement.outcome.to_string()),
            Event::Sealed { notes, .. } => {
                let mut entries = one(Tone::Warn, "sealed", "the run was killed; its log was sealed later".into());
                entries.extend(notes.iter().map(|n| (Tone::Plain, "", clean(n))));
                entries
            }
            Event::Sample(_)
            | Event::Injecting { .. }
            | Event::Effect { .. }
            | Event::Undoing { .. }
            | Event::RunEnded { .. } => vec![],
        }
    }

    fn turn(&self, turn: Turn) -> Option<(Tone, &'static str, String)> {
        Some(match turn {
            Turn::Bad(probe) => {
                let name = self.probe_name(probe);
                (Tone::Bad, "probe", format!("{name} is bad{}", self.why(probe)))
            }
            Turn::Broken(probe) => {
                let name = self.probe_name(probe);
                (Tone::Warn, "probe", format!("{name} itself failed{}", self.why(probe)))
            }
            Turn::Back { probe, after, bad } => {
                let name = self.probe_name(probe);
                (
                    Tone::Good,
                    "probe",
                    format!("{name} is good again after {}, {}", nanos(after), count(bad, "bad sample")),
                )
            }
            Turn::Took { fault, took } => {
                let name = self.fault_name(fault);
                let measured = self.state.faults.get(fault).and_then(|f| f.effect()).map(effect).unwrap_or_default();
                let colon = if measured.is_empty() { "" } else { ": " };
                if took {
                    (Tone::Good, "effect", format!("{name} takes{colon}{measured}"))
                } else {
                    (Tone::Bad, "effect", format!("{name} does not take{colon}{measured}"))
                }
            }
        })
    }

    fn started(&self, started: &RunStarted) -> Vec<(Tone, &'static str, String)> {
        let name = clean(self.state.name());
        let on = format!("{name}, run {} on {}", clean(&started.run), clean(&started.host));
        let mut entries = vec![(Tone::Strong, "run", on)];
        if !self.state.hypothesis().is_empty() {
            entries.push((Tone::Plain, "", format!("hypothesis: {}", clean(self.state.hypothesis()))));
        }
        let seed = format!("seed {} ({})", started.seed, clean(&started.generator));
        let again = started.again.as_deref().map(|run| format!("; repeats {}", clean(run))).unwrap_or_default();
        entries.push((Tone::Dim, "", format!("{seed}{again}")));
        entries
    }

    fn phase(&self, phase: Phase) -> Vec<(Tone, &'static str, String)> {
        let lasts = |d: std::time::Duration| match d.as_millis() {
            0 => String::new(),
            _ => format!(", {}", millis(d.as_secs_f64() * 1e3)),
        };
        let text = match phase {
            Phase::SteadyState => format!("steady state{}", lasts(self.state.schedule.steady)),
            Phase::Inject => format!("inject{}", lasts(self.state.schedule.method)),
            Phase::Recovery => "recovery: until every probe is back".into(),
            Phase::Undo | Phase::Verdict => phase.to_string(),
        };
        let seen = (phase == Phase::Inject).then(|| self.probes()).filter(|probes| !probes.is_empty());
        let seen = seen.map(|probes| (Tone::Good, "steady", format!("the steady state was seen: {probes}")));
        seen.into_iter().chain([(Tone::Strong, "phase", text)]).collect()
    }

    fn undone(&self, injection: u32, undone: &Undone) -> Vec<(Tone, &'static str, String)> {
        let name = self.injection(injection);
        let drained = undone.drained.map(|(own, cut)| format!("in flight: {own} carried to their own end, {cut} cut"));
        let notes: Vec<String> =
            undone.notes.iter().map(|n| clean(n.strip_prefix("undone: ").unwrap_or(n))).chain(drained).collect();
        let colon = if notes.is_empty() { "" } else { ": " };
        let notes = format!("{colon}{}", notes.join("; "));
        let fault = self.state.faults.iter().find(|f| f.band(injection).is_some());
        if undone.clean && fault.is_some_and(|f| !f.info.lasting) {
            // It happened at one instant: what is told is what it left.
            let left = if notes.is_empty() { ": there is nothing to undo".to_owned() } else { notes };
            vec![(Tone::Dim, "undo", format!("{name}{left}"))]
        } else if undone.clean {
            vec![(Tone::Good, "undo", format!("{name} is undone by the {}{notes}", clean(&undone.by)))]
        } else {
            let run = self.state.started.as_ref().map(|s| clean(&s.run)).unwrap_or_default();
            vec![
                (Tone::Bad, "undo", format!("{name} could not be undone by the {}{notes}", clean(&undone.by))),
                (Tone::Bad, "", format!("run `toprope undo {run}`, then `toprope residue`")),
            ]
        }
    }

    /// How the probes are, those in trouble first: `checkout 30/30 good, p50 22ms`.
    fn probes(&self) -> String {
        let mut probes: Vec<&ProbeState> = self.state.probes.iter().filter(|p| p.last.is_some()).collect();
        probes.sort_by_key(|p| !p.is_in_trouble());
        let more = probes.len().saturating_sub(NAMED);
        let mut parts: Vec<String> = probes.into_iter().take(NAMED).map(summary).collect();
        if more > 0 {
            parts.push(format!("{more} more"));
        }
        parts.join("; ")
    }

    fn why(&self, probe: usize) -> String {
        let why = self.state.probes.get(probe).and_then(|p| p.last.as_ref()).and_then(|l| l.why.clone());
        why.map(|w| format!(": {w}")).unwrap_or_default()
    }

    fn probe_name(&self, probe: usize) -> String {
        self.state.probes.get(probe).map_or_else(|| format!("probe {probe}"), |p| clean(&p.info.name))
    }

    fn fault_name(&self, fault: usize) -> String {
        self.state.faults.get(fault).map_or_else(|| format!("fault {fault}"), |f| clean(&f.info.name))
    }

    /// The name of an injection's fault.
    fn injection(&self, injection: u32) -> String {
        let fault = self.state.faults.iter().find(|f| f.band(injection).is_some());
        fault.map_or_else(|| format!("injection {injection}"), |f| clean(&f.info.name))
    }

    fn injected(&self, injection: u32, path: &str) -> String {
        let name = self.injection(injection);
        let Some(fault) = self.state.faults.iter().find(|f| f.band(injection).is_some()) else { return name };
        let on = few(&fault.targets);
        let on = if on.is_empty() { on } else { format!(" on {on}") };
        let lasts = if fault.info.for_ms > 0.0 { format!(" for {}", millis(fault.info.for_ms)) } else { String::new() };
        let verb = if fault.info.lasting { format!("is in force{lasts}") } else { "happened".into() };
        format!("{name} {verb}{on} · {}", clean(path))
    }
}

fn planned(name: &str, plan: &Plan) -> Vec<(Tone, &'static str, String)> {
    let hits = few(&plan.targets);
    let hits = if hits.is_empty() { hits } else { format!(" hits {hits}") };
    let mut entries = vec![(Tone::Plain, "plan", format!("{name}{hits} · {}", clean(&plan.path)))];
    entries.extend(plan.warnings.iter().map(|w| (Tone::Warn, "", clean(w))));
    entries
}

/// `nginx (pid 4242) and 3 more`.
fn few(targets: &[String]) -> String {
    match targets {
        [] => String::new(),
        [one] => clean(one),
        [one, two] => format!("{} and {}", clean(one), clean(two)),
        [one, rest @ ..] => format!("{} and {} more", clean(one), rest.len()),
    }
}

/// Who stops the run, and why.
pub fn stopped(stop: &Stop) -> String {
    let why = clean(&stop.why);
    match stop.by.as_str() {
        "guardrail" => format!("a guardrail stops the run: {why}"),
        "person" => why,
        "error" => format!("an error stops the run: {why}"),
        other => format!("{} stops the run: {why}", clean(other)),
    }
}

fn summary(probe: &ProbeState) -> String {
    let (_, tally) = probe.telling();
    let name = clean(&probe.info.name);
    let is = match probe.last.as_ref().map(|l| l.health) {
        Some(Health::Bad) => "bad, ",
        Some(Health::Broken) => "failing itself, ",
        _ => "",
    };
    let median = tally.values.at(0.5, 1).map(|v| format!(", p50 {}", value(v, &probe.info.unit))).unwrap_or_default();
    match (tally.judged(), tally.broken) {
        (0, 0) => format!("{name} not asked yet"),
        (0, broken) => format!("{name} failed itself in {}", count(broken, "sample")),
        (judged, _) => format!("{name} {is}{} of {judged} good{median}", tally.good),
    }
}

/// The tone of an outcome.
pub fn tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Held => Tone::Good,
        Outcome::Refuted => Tone::Bad,
        Outcome::Inconclusive => Tone::Warn,
    }
}
