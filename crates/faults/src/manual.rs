//! `manual`: what only a person can do.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::{Host, Person};
use toprope_model::kind::{Danger, FaultSpec, UndoKind};
use toprope_model::step::{Effect, Plan, Step, Undo};
use toprope_model::{Dur, FromNode, KindSpec, Node, Problems, fields};

use crate::program::shown;
use crate::targeted::{data_of, to_data};

fields! {
    /// What `manual` takes.
    struct Manual {
        /// What the person is to do, as a sentence in the imperative: `Pull the power cord of switch 2`.
        do_: String,
        /// What takes it back, as another such sentence. The person may be asked to do it also when the first was not
        /// done, or only in part.
        undo: String,
        /// How long the person has, each time.
        deadline: Dur = "10m",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "manual",
        summary: "Ask a person to do something that no program can, and to take it back.",
        docs: "\
Asks whoever watches the run to do something, and goes on when they say that it is done; at the end it asks them to take
it back. It needs a terminal (or another place where somebody can answer): where nobody can be asked, the plan is refused.

The person's word is the only measure of the effect. If nobody says within the deadline that it was done, the run ends
without a verdict. If nobody says that it was taken back, the host stays marked as not clean, with what to do by hand;
`toprope undo` asks again.",
        example: "- manual: {do: Switch off the uplink in rack 4, undo: Switch on the uplink in rack 4, for: 2m}",
        fields: Manual::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::Journalled,
    danger: Danger::Lasting,
    needs: &[],
    strength: &[],
    recovers: false,
    ramps: &[],
};

fn check(node: &Node, problems: &mut Problems) {
    if let Some(manual) = Manual::from_node(node, problems) {
        for (key, text) in [("do", &manual.do_), ("undo", &manual.undo)] {
            if text.trim().is_empty() {
                let span = node.get(key).map_or(node.span, |n| n.span);
                problems.add(span, format!("`{key}` asks for nothing"), "a sentence is wanted");
            }
        }
        if manual.deadline.0.is_zero() {
            let span = node.get("deadline").map_or(node.span, |n| n.span);
            problems.add(span, "nobody can do anything in no time", "`deadline` is 0");
        }
    }
}

/// The fault.
pub(crate) struct ManualStep;

/// What a person is asked, and how long they have.
#[derive(Clone, Serialize, Deserialize)]
struct Request {
    what: String,
    deadline_ms: u64,
}

/// What a step knows.
#[derive(Serialize, Deserialize)]
struct Requests {
    forth: Request,
    back: Request,
}

impl Request {
    async fn ask(&self, person: &dyn Person) -> Result<(), FaultError> {
        person
            .ask(&self.what, Duration::from_millis(self.deadline_ms))
            .await
            .map_err(|why| FaultError::new(format!("not known to be done: {} ({})", shown(&self.what), shown(&why))))
    }

    /// Asks to take it back, or says that somebody must.
    async fn ask_back(&self, person: Option<&dyn Person>) -> Result<Vec<String>, FaultError> {
        let help = || format!("do it by hand, then run `toprope undo` at a terminal and say so: {}", shown(&self.what));
        match person {
            Some(person) => self.ask(person).await.map_err(|e| e.help(help()))?,
            None => {
                let message = format!("nobody can be asked to take it back: {}", shown(&self.what));
                return Err(FaultError::new(message).help(help()));
            }
        }
        Ok(vec![format!("somebody said that this is done: {}", shown(&self.what))])
    }
}

impl Fault for ManualStep {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move { plan(params.read()?, host) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        _: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move {
            let Requests { forth, back } = data_of(step)?;
            let person = host.person.clone().ok_or_else(nobody)?;
            forth.ask(person.as_ref()).await?;
            Ok(Box::new(Done { back, person }) as Box<dyn Injection>)
        }
        .boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, host: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        async move { data_of::<Requests>(step)?.back.ask_back(host.person.as_deref()).await }.boxed()
    }
}

fn plan(manual: Manual, host: &Host) -> Result<Plan, FaultError> {
    if host.person.is_none() {
        return Err(nobody());
    }
    let deadline_ms = u64::try_from(manual.deadline.0.as_millis()).expect("a manifest's durations are at most a year");
    let forth = Request { what: manual.do_, deadline_ms };
    let back = Request { what: manual.undo, deadline_ms };
    Ok(Plan {
        path: "a person".into(),
        matched: 0,
        targets: vec![],
        warnings: vec![],
        steps: vec![Step {
            describe: format!("ask a person: {}; and at the end: {}", shown(&forth.what), shown(&back.what)),
            claims: vec![format!("what a person does: {}", shown(&forth.what))],
            undo: Undo::Restore(to_data(&back)),
            data: to_data(&Requests { forth, back }),
        }],
    })
}

fn nobody() -> FaultError {
    FaultError::new("nobody can be asked to do it")
        .help("run it at a terminal where somebody watches, or use `command` or `http` for what a program can do")
}

/// What a person did.
struct Done {
    back: Request,
    person: Arc<dyn Person>,
}

impl Injection for Done {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        let note = Some("by the word of the person who did it".into());
        async { Ok(Effect { took: Some(true), note, ..Effect::default() }) }.boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move { self.back.ask_back(Some(self.person.as_ref())).await.map(|_| None) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::testing::{host, params, planned};

    /// Somebody who answers everything the same way and remembers what they were asked.
    #[derive(Debug)]
    struct Watcher {
        answer: Result<(), String>,
        asked: Mutex<Vec<(String, Duration)>>,
    }

    impl Person for Watcher {
        fn ask(&self, what: &str, deadline: Duration) -> BoxFuture<'_, Result<(), String>> {
            self.asked.lock().unwrap().push((what.into(), deadline));
            async { self.answer.clone() }.boxed()
        }
    }

    fn watched(answer: Result<(), String>) -> (Host, Arc<Watcher>) {
        let watcher = Arc::new(Watcher { answer, asked: Mutex::default() });
        (Host { person: Some(watcher.clone()), ..host() }, watcher)
    }

    fn fault() -> Params {
        params(json!({"do": "Pull the cord", "undo": "Plug it in", "deadline": "3s"}))
    }

    #[tokio::test]
    async fn somebody_is_asked_to_do_it_and_to_take_it_back() {
        let (host, watcher) = watched(Ok(()));
        let (_, step) = planned(&ManualStep, &fault(), &host).await;
        assert!(watcher.asked.lock().unwrap().is_empty(), "planning asks nobody");
        let mut injection = ManualStep.apply(&step, &fault(), &host).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(injection.observe().await.expect("it was said").took, Some(true));
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        for _ in 0..2 {
            ManualStep.undo(&step, &host).await.expect("asked again, and done again");
        }
        let asked: Vec<String> = watcher.asked.lock().unwrap().iter().map(|a| a.0.clone()).collect();
        assert_eq!(asked, ["Pull the cord", "Plug it in", "Plug it in", "Plug it in"]);
        assert_eq!(watcher.asked.lock().unwrap()[0].1, Duration::from_secs(3));
    }

    #[tokio::test]
    async fn where_nobody_is_it_is_refused_and_stays_to_be_undone() {
        let refused = ManualStep.plan(&fault(), &host()).await.expect_err("nobody");
        assert!(refused.message.contains("nobody") && refused.help.is_some(), "{refused}");
        let (watched, _) = watched(Ok(()));
        let (_, step) = planned(&ManualStep, &fault(), &watched).await;
        let left = ManualStep.undo(&step, &host()).await.expect_err("nobody");
        assert!(left.help.expect("what to do").contains("Plug it in"));
        assert!(ManualStep.apply(&step, &fault(), &host()).await.is_err());
    }

    #[tokio::test]
    async fn what_was_not_done_is_no_fault() {
        let (host, _) = watched(Err("the rack is\nlocked".into()));
        let (_, step) = planned(&ManualStep, &fault(), &host).await;
        let failed = ManualStep.apply(&step, &fault(), &host).await.err().expect("it was not done");
        assert!(failed.message.contains("Pull the cord (the rack is | locked)"), "{failed}");
        assert!(ManualStep.undo(&step, &host).await.is_err(), "nobody knows whether it was taken back");
    }

    #[test]
    fn requests_for_nothing_are_refused() {
        let mut problems = Problems::default();
        check(&Node::from_json(&json!({"do": " ", "undo": "", "deadline": "0s"})), &mut problems);
        assert_eq!(problems.0.len(), 3, "{problems}");
    }
}
