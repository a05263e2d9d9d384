//! What holds for every fault, whoever wrote it: tests that walk the table.

use std::any::Any;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toprope_engine::fault::Fault;
use toprope_engine::host::Host;
use toprope_engine::probe::PROBES;
use toprope_model::event::{Event, FaultInfo, Phase, ProbeInfo, Record, RunStarted, Sample, VERSION};
use toprope_model::experiment::{FaultCommon, MethodItem, STEP_KINDS};
use toprope_model::kind::{FaultSpec, Tables, UndoKind};
use toprope_model::step::{Effect, Step, Undo, Undone};
use toprope_model::verdict::{Judgement, Outcome};
use toprope_model::{Experiment, Field, Node, Sources, Type, Value};
use toprope_os::process::{State, thread_states};

use crate::FAULTS;
use crate::testing::{PATIENCE, Victim, host, params};

fn kinds() -> impl Iterator<Item = &'static FaultSpec> {
    FAULTS.specs().into_iter()
}

fn is_kebab(name: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('-').all(word)
}

#[test]
fn kinds_are_unique_in_kebab_case_and_no_other_step() {
    let mut seen: BTreeSet<&str> = STEP_KINDS.iter().map(|k| k.0).collect();
    for fault in kinds() {
        let kind = fault.spec.kind;
        assert!(seen.insert(kind), "{kind} is there twice, or a step of another meaning");
        assert!(is_kebab(kind), "{kind} is not in kebab-case");
    }
}

#[test]
fn every_fault_and_every_field_says_what_it_is() {
    fn documented(kind: &str, fields: &[Field]) {
        for field in fields {
            let key = &field.key;
            assert!(
                field.doc.ends_with(['.', ')']),
                "{kind}: `{key}` is not documented in a sentence: {:?}",
                field.doc
            );
            assert!(is_kebab(key), "{kind}: `{key}` is not in kebab-case");
            if let Type::Object(inner) = &field.ty {
                documented(kind, inner);
            }
        }
    }
    for fault in kinds() {
        let spec = &fault.spec;
        assert!(spec.summary.ends_with('.') && !spec.summary.contains('\n'), "{}: {:?}", spec.kind, spec.summary);
        assert!(spec.docs.len() > 200, "{} is hardly documented", spec.kind);
        assert!(!spec.docs.contains("\n "), "{}: the docs are indented, as if they were code", spec.kind);
        documented(spec.kind, &(spec.fields)());
    }
}

#[test]
fn no_fault_takes_a_key_that_all_faults_have() {
    let common = FaultCommon::keys();
    for fault in kinds() {
        for field in (fault.spec.fields)() {
            assert!(!common.contains(&field.key), "{} takes `{}`, which every fault has", fault.spec.kind, field.key);
        }
    }
}

#[test]
fn the_strength_of_a_fault_is_among_its_parameters() {
    for fault in kinds() {
        let keys: Vec<String> = (fault.spec.fields)().into_iter().map(|f| f.key).collect();
        for name in fault.strength {
            assert!(keys.iter().any(|k| k == name), "{} has no `{name}`", fault.spec.kind);
        }
    }
}

#[test]
fn every_example_is_a_step_that_a_manifest_can_hold() {
    let tables = Tables { faults: FAULTS.specs(), probes: PROBES.iter().map(|p| p.spec()).collect() };
    for fault in kinds() {
        let kind = fault.spec.kind;
        let read = toprope_model::parse(&mut Sources::default(), kind, fault.spec.example);
        let node = read.unwrap_or_else(|e| panic!("{kind}: {e}"));
        let Value::List(items) = &node.value else { panic!("the example of {kind} is no list item: begin with `- `") };
        assert_eq!(items.len(), 1, "the example of {kind} is one item");
        let manifest = json!({
            "apiVersion": "toprope.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": "example"},
            "spec": {
                "hypothesis": "it holds",
                "probes": [{"http": {"get": "http://127.0.0.1:8080/"}}],
                "method": node.to_json(),
            },
        });
        let read = Experiment::read(&Node::from_json(&manifest), &tables).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let [MethodItem::Fault(item)] = read.spec.method.as_slice() else { panic!("{kind}: {:?}", read.spec.method) };
        assert_eq!(item.kind, kind, "an example is of its own kind");
        assert_eq!(item.common.for_.is_some(), fault.lasting, "{kind} takes `for` if it lasts, and only then");
    }
}

#[test]
fn what_can_be_ramped_is_a_parameter_of_what_lasts() {
    for fault in kinds() {
        let (kind, fields) = (fault.spec.kind, (fault.spec.fields)());
        assert!(fault.lasting || fault.ramps.is_empty(), "{kind} is over before it could change");
        for name in fault.ramps {
            assert!(fields.iter().any(|f| f.key == *name), "{kind} has no parameter `{name}`");
        }
    }
}

#[test]
fn what_cannot_be_taken_back_is_recovered_from() {
    for fault in kinds() {
        let kind = fault.spec.kind;
        if fault.undo == UndoKind::Irreversible {
            assert!(fault.recovers, "{kind}: nobody stays unaffected by what is never taken back");
            assert!(!fault.lasting, "{kind}: what lasts ends");
        }
    }
}

/// How a fault can be driven here, against nothing but what the test itself made.
struct Drive {
    parameters: Json,
    host: Host,
    /// What the fault is about, as seen from outside of it.
    look: Box<dyn Fn() -> String>,
    /// What must live as long as the test.
    _made: Box<dyn Any>,
}

impl Drive {
    fn new(parameters: Json, look: impl Fn() -> String + 'static, made: impl Any) -> Self {
        Self { parameters, host: host(), look: Box::new(look), _made: Box::new(made) }
    }

    fn on(self, host: Host) -> Self {
        Self { host, ..self }
    }
}

/// Somebody who does whatever they are asked to.
#[derive(Debug)]
struct Willing;

impl toprope_engine::host::Person for Willing {
    fn ask(&self, _: &str, _: Duration) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// A new fault needs an arm here; what needs a network of its own is driven where it has one.
async fn drive(kind: &str) -> Option<Drive> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_owned();
    let here = Host { directory: path.clone(), ..host() };
    Some(match kind {
        "process-kill" | "process-pause" => {
            let victim = Victim::sleeping();
            let id = victim.id();
            let look = move || match thread_states(&id) {
                Ok(states) if !id.is_alive() => format!("ended: {states:?}"),
                Ok(states) => states.iter().any(|s| matches!(s, State::Stopped | State::Traced)).to_string(),
                Err(e) => e.to_string(),
            };
            Drive::new(json!({"target": {"pid": victim.pid()}}), look, victim)
        }
        "process-restart" => {
            let victim = Victim::sleeping();
            let id = victim.id();
            let parameters = json!({
                "target": {"pid": victim.pid()}, "command": ["kill", victim.pid().to_string()], "within": "100ms",
            });
            Drive::new(parameters, move || id.is_alive().to_string(), victim)
        }
        "command" => {
            let parameters =
                json!({"apply": ["touch", "flag"], "check": ["test", "-e", "flag"], "undo": ["rm", "flag"]});
            let flag = path.join("flag");
            Drive::new(parameters, move || flag.exists().to_string(), directory).on(here)
        }
        "http" => {
            let server = crate::http::tests::Flags::start().await;
            let parameters = server.fault();
            Drive::new(parameters, move || format!("{:?}", server.flag()), ())
        }
        "manual" => {
            let asked = Host { person: Some(std::sync::Arc::new(Willing)), ..host() };
            Drive::new(json!({"do": "Nod", "undo": "Nod again"}), String::new, ()).on(asked)
        }
        "cpu-stress" => Drive::new(json!({"load": "1%", "cores": 1}), String::new, ()),
        "memory-stress" => Drive::new(json!({"amount": "4MiB", "reserve": "1MiB"}), String::new, ()),
        "disk-fill" => {
            let entries = move || std::fs::read_dir(&path).expect("our own").count().to_string();
            Drive::new(json!({"path": directory.path(), "amount": "1MiB"}), entries, directory)
        }
        network if network.starts_with("network-") => return None,
        other => panic!("say here how `{other}` can be driven"),
    })
}

async fn undo_twice(fault: &dyn Fault, step: &Step, host: &Host, when: &str) {
    for time in ["once", "twice"] {
        let undone = tokio::time::timeout(PATIENCE, fault.undo(step, host)).await;
        let notes = undone.expect("an undo ends").unwrap_or_else(|e| panic!("{}, {when}, {time}: {e}", step.describe));
        assert!(!notes.is_empty(), "{}, {when}: nothing is said of what became of it", step.describe);
    }
}

#[tokio::test]
async fn every_fault_is_undone_whether_it_was_applied_or_not() {
    for fault in FAULTS.0 {
        let spec = fault.spec();
        let kind = spec.spec.kind;
        let Some(Drive { parameters, host, look, _made }) = drive(kind).await else { continue };
        let params = params(parameters);
        let before = look();
        let plan = fault.plan(&params, &host).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(look(), before, "{kind}: planning changed something");
        assert!(!plan.steps.is_empty() && !plan.path.is_empty(), "{kind}: {plan:?}");
        // As it comes back from the journal, to a process that knows nothing else.
        let steps = serde_json::to_string(&plan.steps).expect("plain data");
        let steps: Vec<Step> = serde_json::from_str(&steps).expect("what was written");
        assert_eq!(steps, plan.steps, "{kind}: a step is not the same when it is read back");
        let irreversible = steps.iter().any(|s| matches!(s.undo, Undo::Irreversible { .. }));
        assert_eq!(irreversible, spec.undo == UndoKind::Irreversible, "{kind} says one thing and plans another");
        for step in steps.iter().rev() {
            undo_twice(*fault, step, &host, "never applied").await;
        }
        assert_eq!(look(), before, "{kind}: the undo of what never was changed something");
        let mut injections = Vec::new();
        for step in &steps {
            injections.push(fault.apply(step, &params, &host).await.unwrap_or_else(|e| panic!("{kind}: {e}")));
        }
        // As when the injector is killed: nobody releases.
        drop(injections);
        for step in steps.iter().rev() {
            undo_twice(*fault, step, &host, "applied").await;
        }
        if !irreversible {
            assert_eq!(look(), before, "{kind}: something is left");
        }
    }
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_refused_and_never_a_panic() {
    for fault in FAULTS.0 {
        let kind = fault.spec().spec.kind;
        for wrong in [json!({"no-such-key": 1}), json!([]), json!(null), json!("text")] {
            let refused = fault.plan(&params(wrong), &host()).await.expect_err(kind);
            assert!(!refused.message.is_empty());
        }
        let step = Step {
            describe: "another version's".into(),
            claims: vec![],
            undo: Undo::Restore(json!(null)),
            data: json!({"unknown": true}),
        };
        if let Err(error) = fault.undo(&step, &host()).await {
            assert!(!error.message.is_empty(), "{kind}");
        }
    }
}

/// A run of a fault as its log has it, with all its probe's samples good, and the verdict on it.
fn verdict_on(fault: &FaultSpec, effect: Option<Effect>) -> Judgement {
    let parse = |text: &str| toprope_model::parse(&mut Sources::default(), fault.spec.kind, text).expect("it is YAML");
    let manifest = json!({
        "apiVersion": "toprope.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "example"},
        "spec": {
            "hypothesis": "it holds",
            "probes": [{"http": {"get": "http://127.0.0.1:8080/", "unaffected": true}}],
            "method": parse(fault.spec.example).to_json(),
        },
    });
    let tables = Tables { faults: FAULTS.specs(), probes: PROBES.iter().map(|p| p.spec()).collect() };
    let experiment = Experiment::read(&Node::from_json(&manifest), &tables).unwrap_or_else(|e| panic!("{e}"));
    let started = RunStarted {
        format: VERSION,
        run: "20260301-120000-7f3a".into(),
        toprope: String::new(),
        command: "run".into(),
        wall: String::new(),
        host: String::new(),
        kernel: String::new(),
        user: String::new(),
        seed: 0,
        generator: String::new(),
        again: None,
        manifest,
        topology: None,
        probes: vec![ProbeInfo {
            name: "http".into(),
            kind: "http".into(),
            asks: String::new(),
            tolerates: String::new(),
            unit: "ms".into(),
            interval_ms: 100.0,
            recovers: false,
            waits: false,
        }],
        faults: vec![FaultInfo {
            name: fault.spec.kind.into(),
            kind: fault.spec.kind.into(),
            parameters: String::new(),
            lasting: fault.lasting,
            for_ms: 1000.0,
        }],
        guardrails: vec![],
    };
    let sample = |ms: u64| {
        let started = ms * 1_000_000;
        let (ok, value) = (true, Some(1.0));
        (ms, Event::Sample(Sample { probe: 0, started, ok, value, why: None, broken: false, retries: 0, wrote: None }))
    };
    let mut events = vec![
        (0, Event::RunStarted(Box::new(started))),
        (0, Event::Phase(Phase::SteadyState)),
        (1000, Event::Phase(Phase::Inject)),
        (1000, Event::Injecting { injection: 0, fault: 0, plan: Box::default() }),
        (1001, Event::Injected { injection: 0, path: String::new() }),
        (2002, Event::Undone { injection: 0, undone: Undone { clean: true, ..Undone::default() } }),
        (2002, Event::Phase(Phase::Undo)),
        (2002, Event::Phase(Phase::Recovery)),
        (3000, Event::Phase(Phase::Verdict)),
    ];
    events.extend((0..30).map(|i| sample(i * 100 + 50)));
    events.extend(effect.map(|effect| (2001, Event::Effect { injection: 0, effect, last: true })));
    events.sort_by_key(|(ms, _)| *ms);
    let record =
        |(seq, (ms, event)): (u64, (u64, Event))| Record { seq, at: ms * 1_000_000, prev: String::new(), event };
    let records: Vec<Record> = (0..).zip(events).map(record).collect();
    toprope_engine::verdict::judge(&experiment, &records)
}

#[test]
fn no_fault_passes_that_did_not_take_or_reached_less_than_it_was_asked_to() {
    let took = Effect { took: Some(true), reached: Some(1.0), ..Effect::default() };
    for fault in kinds() {
        let kind = fault.spec.kind;
        let honest = verdict_on(fault, Some(took.clone()));
        assert_eq!(honest.outcome, Outcome::Held, "{kind}: {:?}", honest.reasons);
        for (sabotaged, says) in [
            (None, "was never measured"),
            (Some(Effect { took: None, ..took.clone() }), "could not be measured"),
            (Some(Effect { took: Some(false), ..took.clone() }), "did not take"),
            (Some(Effect { reached: Some(0.99), ..took.clone() }), "reached only 99% of its target"),
        ] {
            let judgement = verdict_on(fault, sabotaged);
            assert_eq!(judgement.outcome, Outcome::Inconclusive, "{kind}, {says}: {:?}", judgement.reasons);
            assert!(judgement.reasons.iter().any(|r| r.contains(says)), "{kind}, {says}: {:?}", judgement.reasons);
        }
    }
}
