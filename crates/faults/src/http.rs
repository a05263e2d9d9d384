//! `http`: a fault of one's own, by requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::probe::{Context, Moment, PROBES, Probe, ProbeKind};
use toprope_model::event::Phase;
use toprope_model::field::refuse_unknown_keys;
use toprope_model::kind::{Danger, FaultSpec, UndoKind, check};
use toprope_model::step::{Plan, Step};
use toprope_model::{Dur, Field, FromNode, KindSpec, Node, Problems, Type, fields};

use crate::program::shown;
use crate::scripted::{self, Action, Answer, Script};

fields! {
    /// What `http` takes.
    struct Requests {
        /// The request that puts the fault in force. It takes the parameters of the probe `http`: the URL under `get`,
        /// `post`, `put`, `patch` or `delete`, `body`, `headers`, `secret-headers`, `auth`, `tls`, and what the answer
        /// must be like (`status`, `matches`, `json`, ...).
        apply: Request,
        /// The request that tells whether the fault is in force: it is when the answer is as it is asked for here. It is
        /// sent before (where the answer must be another one), about twice a second while the fault is in force, and
        /// after the undo (where it must be another one again). It must change nothing.
        check: Request,
        /// The request that takes the fault back. It may be sent more than once, and also when `apply` was never sent
        /// or not answered; that it then fails does no harm, as long as `check` says that nothing is in force.
        undo: Request,
        /// How long each answer may take.
        timeout: Dur = "10s",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "http",
        summary: "Do anything that requests over HTTP can do, check, and undo.",
        docs: "\
Reaches what Toprope has no fault for and what has an API: a cloud, a load balancer, a feature flag, the chaos endpoint
of a service. Secrets are named (`auth: {bearer: {env: TOKEN}}`), never written; they are read when the request is sent,
so the undo needs them too: prefer files, which are still there when `toprope undo` runs later.

The undo is written to the journal before `apply` is sent, and is sent by whoever is left to do it.

`check` is what makes the run's verdict worth something: if its answer is not as asked for while the fault should be in
force, the run is inconclusive, and if it still is after the undo, the undo has failed. No answer at all says neither, so
ask what the fault does not hit. What the requests hit is not known to Toprope: the blast radius does not count it.",
        example: "\
- http:
    apply: {put: \"http://127.0.0.1:9000/flags/slow-search\", body: \"on\", status: 204}
    check: {get: \"http://127.0.0.1:9000/flags/slow-search\", matches: ^on$}
    undo: {delete: \"http://127.0.0.1:9000/flags/slow-search\"}
    for: 10s",
        fields: Requests::fields,
        check: check::<Requests>,
    },
    lasting: true,
    undo: UndoKind::Journalled,
    danger: Danger::Lasting,
    needs: &[],
    strength: &[],
    recovers: false,
    ramps: &[],
};

/// The fault.
pub(crate) struct Http;

/// A request and what its answer must be like: the parameters of an `http` probe, secrets by reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Request(serde_json::Value);

/// How a request is made and its answer judged: once, in the probe of the same name.
fn probe() -> &'static dyn ProbeKind {
    let found = PROBES.iter().find(|kind| kind.spec().kind == "http");
    *found.expect("the engine has a probe of this name")
}

/// What a probe takes that means something for its samples alone.
const OF_SAMPLES: [&str; 4] = ["find", "find-contains", "keepalive", "value"];

fn request_fields() -> Vec<Field> {
    let mut fields = (probe().spec().fields)();
    fields.retain(|f| !OF_SAMPLES.contains(&f.key.as_str()));
    fields
}

impl FromNode for Request {
    fn ty() -> Type {
        Type::Object(request_fields())
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let before = problems.count();
        let fields = request_fields();
        refuse_unknown_keys(node, &fields.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), "field", problems);
        let (known, _) = node.partition(&fields.iter().map(|f| f.key.as_str()).collect::<Vec<_>>());
        (probe().spec().check)(if node.entries().is_some() { &known } else { node }, problems);
        for (key, text) in ["get", "head", "post", "put", "patch", "delete", "body"]
            .iter()
            .filter_map(|key| Some((key, node.get(key)?)))
        {
            if let Some(text_is) = text.text().filter(|t| ["{n}", "{run}"].iter().any(|p| t.contains(p))) {
                let message =
                    format!("`{key}` holds a placeholder for samples, and a fault has none: {}", shown(text_is));
                problems.add(text.span, message, "write the text itself");
            }
        }
        (problems.count() == before).then(|| Self(node.to_json()))
    }
}

/// `PUT http://127.0.0.1:9000/flags`, as far as it can be told without its secrets.
impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods = ["get", "head", "post", "put", "patch", "delete"];
        let found = methods.iter().find_map(|m| Some((m, self.0.get(m)?.as_str()?)));
        let (method, url) = found.expect("exactly one method was checked to be there");
        write!(f, "{} {}", method.to_uppercase(), shown(url))
    }
}

/// Where requests are sent from. Durable, because the undo may be sent by another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sender {
    /// Paths of secrets and certificates are from here.
    directory: PathBuf,
    timeout_ms: u64,
}

impl Action for Request {
    type Setting = Sender;

    async fn act(&self, sender: &Sender) -> Result<Answer, FaultError> {
        let timeout = Self::timeout(sender);
        let context = Context {
            run: String::new(),
            timeout,
            directory: sender.directory.clone(),
            invoking_user: None,
            services: vec![],
        };
        let unsent = |e| FaultError::because(format!("`{self}` cannot be sent"), e);
        let probe: Arc<dyn Probe> = Arc::from(probe().build(&Node::from_json(&self.0), &context).map_err(unsent)?);
        let moment = Moment { number: 0, phase: Phase::Inject, since_injection: None };
        let failed = |why: &str| {
            FaultError::new(format!("`{self}` was not answered: {why}")).help("is it running, and is the URL right?")
        };
        let sample = tokio::time::timeout(timeout, probe.sample(moment));
        let answer = sample.await.map_err(|_| failed(&format!("not within {timeout:?}")))?;
        match answer.bad {
            Some(why) if answer.unanswered || answer.broken => Err(failed(&shown(&why))),
            Some(why) => Ok(Answer { yes: false, says: shown(&why) }),
            None => Ok(Answer { yes: true, says: "the answer is as asked for".into() }),
        }
    }

    fn timeout(sender: &Sender) -> Duration {
        Duration::from_millis(sender.timeout_ms)
    }
}

impl Fault for Http {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let Requests { apply, check, undo, timeout } = params.read()?;
            let timeout_ms = u64::try_from(timeout.0.as_millis()).expect("a manifest's durations are at most a year");
            let setting = Sender { directory: host.directory.clone(), timeout_ms };
            scripted::plan(Script { apply, check, undo, setting }, "requests of the manifest").await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        _: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        scripted::apply::<Request>(step).boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        scripted::undo::<Request>(step).boxed()
    }
}

#[cfg(test)]
pub(crate) mod tests;
