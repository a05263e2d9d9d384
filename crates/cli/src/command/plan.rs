//! `toprope plan`

use std::time::Duration;

use serde_json::json;
use toprope_engine::run::RunError;
use toprope_model::Dur;
use toprope_model::experiment::{Claim, ProbeCommon, ProbeItem, STEADY_STATE};
use toprope_model::step::Undo;

use super::run::setup;
use crate::args::PlanArgs;
use crate::invocation::{Failure, exit_of, runtime, tables, through};
use crate::load::{self, Loaded};
use crate::show;

/// Prints what a run would do here and now.
pub fn plan(args: &PlanArgs) -> Result<u8, Failure> {
    through(&args.launcher)?;
    let loaded = load::experiment(&args.manifest.file, &args.manifest.set, &tables())?;
    let mut setup = setup(&loaded, "plan")?;
    setup.seed = args.seed.or(setup.seed);
    setup.person = crate::view::person();
    let plans = runtime()?.block_on(toprope_engine::run::plan(&setup)).map_err(|error| at_its_place(error, &loaded))?;
    if args.json {
        let names = loaded.experiment.spec.probe_names();
        let claims: Vec<_> = loaded.experiment.spec.probes.iter().zip(&names).flat_map(claims_as_json).collect();
        let value = json!({"experiment": loaded.experiment.name, "probes": names, "claims": claims, "faults": plans});
        show::line(&serde_json::to_string_pretty(&value).unwrap_or_default());
        return Ok(0);
    }
    let experiment = &loaded.experiment;
    show::line(&format!("{}: {}", experiment.name, experiment.spec.hypothesis));
    let steady = experiment.spec.steady_state.as_ref().map_or(STEADY_STATE, |s| s.for_.0);
    show::line(&format!("\nSteady state: {} before anything is injected", Dur(steady)));
    for (item, name) in experiment.spec.probes.iter().zip(experiment.spec.probe_names()) {
        let interval = experiment.interval(item);
        let during = experiment.method_duration().as_secs_f64() / interval.as_secs_f64().max(1e-3);
        let mut text = format!("  {}, every {}", titled(&name, &item.kind), Dur(interval));
        let needed = item.common.samples_needed();
        if needed > 1 {
            text.push_str(&format!(": about {} while the method runs, {needed} needed", samples(during)));
        }
        show::line(&text);
        for claim in item.common.claims() {
            show::line(&format!("    {}", needs(&claim, interval, &item.common)));
        }
    }
    for (fault, plan) in experiment.faults().iter().zip(&plans) {
        let time = fault.common.for_.map_or("at one instant".to_owned(), |d| format!("for {d}"));
        show::line(&format!("\n{} {time}", titled(fault.name(), &fault.kind)));
        show::line(&format!("  path     {}", plan.path));
        show::line(&format!("  targets  {} of {} that match", plan.targets.len(), plan.matched));
        plan.targets.iter().for_each(|t| show::line(&format!("           {t}")));
        for step in &plan.steps {
            show::line(&format!("  step     {}", step.describe));
            let undo = match &step.undo {
                Undo::KernelOwned(how) => format!("the kernel, when the injector ends: {how}"),
                Undo::Restore(_) => "restored from the journal".to_owned(),
                Undo::Irreversible { leaves } => format!("cannot be undone; leaves {}", leaves.join(", ")),
            };
            show::line(&format!("  undo     {undo}"));
        }
        plan.warnings.iter().for_each(|w| show::line(&format!("  warning  {w}")));
    }
    show::line("\nNothing was changed.");
    Ok(0)
}

/// How many samples a claim takes, and how long that is: `p99 < 300ms with 99% confidence: 644 samples (32.2s) if …`.
fn needs(claim: &Claim, interval: Duration, probe: &ProbeCommon) -> String {
    let level = probe.confidence.map(|c| c.to_string()).unwrap_or_default();
    let takes = |n: u64| {
        let time = interval.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX)).as_secs_f64() * 1e3;
        format!("{} ({})", crate::view::words::count(n, "sample"), crate::view::words::millis(time))
    };
    let mut text = format!("{} with {level} confidence", claim.text);
    if let Some(fewest) = claim.fewest() {
        text.push_str(&format!(": {} if all are good", takes(fewest)));
    }
    if let Some(more) = claim.if_half_is_bad() {
        let half = toprope_model::units::short(claim.allowed * 50.0);
        text.push_str(&format!(", {} if {half}% are not", takes(more)));
    }
    text
}

fn claims_as_json((probe, name): (&ProbeItem, &String)) -> Vec<serde_json::Value> {
    let of = |claim: Claim| {
        json!({
            "probe": name,
            "claim": claim.text,
            "alpha": claim.alpha,
            "allowed": claim.allowed,
            "samples_if_all_are_good": claim.fewest(),
            "samples_if_half_of_allowed_is_bad": claim.if_half_is_bad(),
        })
    };
    probe.common.claims().into_iter().map(of).collect()
}

/// `1 sample`, `12 samples`; as many as fit whole.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of samples")]
fn samples(expected: f64) -> String {
    crate::view::words::count(expected.max(0.0) as u64, "sample")
}

/// A name with its kind, where that is not its name.
fn titled(name: &str, kind: &str) -> String {
    if name == kind { name.to_owned() } else { format!("{name} ({kind})") }
}

/// A fault or a probe that was refused is shown where the manifest names it.
pub fn at_its_place(error: RunError, loaded: &Loaded) -> Failure {
    let experiment = &loaded.experiment;
    let place = match &error {
        RunError::Plan { index, .. } => experiment.faults().get(*index).map(|f| (f.kind_span, "this fault")),
        RunError::Probe { probe, .. } => {
            let index = experiment.spec.probe_names().iter().position(|name| name == probe);
            index.and_then(|i| experiment.spec.probes.get(i)).map(|p| (p.kind_span, "this probe"))
        }
        _ => None,
    };
    let Some((span, label)) = place else { return error.into() };
    let mut problems = toprope_model::Problems::default();
    let problem = problems.add(span, error.to_string(), label);
    if let Some(help) = error.help() {
        problem.help(help);
    }
    Failure::manifest(loaded.sources.clone(), problems).exit(exit_of(&error))
}
