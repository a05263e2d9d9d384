//! The injector's side of the socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use toprope_model::Node;
use toprope_model::step::Plan;

use super::hold;
use super::message::{ApplyRequest, FromInjector, Limits, PlanRequest, ToInjector};
use crate::fault::{Fault, FaultError, FaultTable, Params};
use crate::guard::Guard;
use crate::host::{Host, Person};
use crate::journal::Journal;

/// Sends messages to the run. A run that is gone is no error: its end is seen by the reader.
#[derive(Debug, Clone)]
pub(super) struct ToRun(Arc<tokio::sync::Mutex<OwnedWriteHalf>>);

impl ToRun {
    pub(super) async fn send(&self, message: FromInjector) {
        let Ok(mut line) = serde_json::to_vec(&message) else { return };
        line.push(b'\n');
        // A stopped run does not read; the undo must not wait for it.
        let mut stream = self.0.lock().await;
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&line)).await;
    }
}

/// What the run asked for, as it comes in; its end is the end of the lease.
pub(super) type Requests = mpsc::UnboundedReceiver<ToInjector>;

/// The person at the run's terminal.
#[derive(Debug)]
struct AtTheRun {
    run: ToRun,
    answer: Arc<Mutex<Option<oneshot::Sender<Result<(), String>>>>>,
}

impl Person for AtTheRun {
    fn ask(&self, what: &str, deadline: Duration) -> BoxFuture<'_, Result<(), String>> {
        let what = what.to_owned();
        Box::pin(async move {
            let (sender, receiver) = oneshot::channel();
            if let Ok(mut answer) = self.answer.lock() {
                *answer = Some(sender);
            }
            let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            self.run.send(FromInjector::Ask { what, deadline_ms }).await;
            match tokio::time::timeout(deadline, receiver).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err("the run is gone, and with it the terminal to ask at".into()),
                Err(_) => Err(format!("nobody said that it was done within {deadline:?}")),
            }
        })
    }
}

/// One planned fault.
pub(super) struct Planned {
    pub(super) fault: &'static dyn Fault,
    pub(super) params: Params,
    pub(super) host: Host,
    pub(super) limits: Limits,
}

impl Planned {
    /// Resolves the fault anew and holds it against the limits.
    pub(super) async fn plan(&self) -> Result<Plan, FaultError> {
        let plan = self.fault.plan(&self.params, &self.host).await?;
        within_limits(&plan, self.limits)?;
        Ok(plan)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of processes")]
fn within_limits(plan: &Plan, limits: Limits) -> Result<(), FaultError> {
    let hit = plan.targets.len();
    let too_many = |allowed: usize, said: String| {
        let targets = plan.targets.join(", ");
        Err(FaultError::new(format!(
            "{hit} targets would be hit, and the blast radius allows {allowed} ({said}): {targets}"
        ))
        .help("select fewer, for instance with `pick: one`, or raise spec.blast-radius"))
    };
    if let Some(most) = limits.targets
        && hit > most as usize
    {
        return too_many(most as usize, format!("processes: {most}"));
    }
    if let Some(percent) = limits.percent {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count, rounded down")]
        let allowed = (plan.matched as f64 * percent / 100.0 + 1e-9).floor() as usize;
        if hit > allowed {
            return too_many(allowed, format!("{percent}% of {} that match, rounded down", plan.matched));
        }
    }
    Ok(())
}

/// Serves one run over a socket until the run is gone and nothing is in force any more.
///
/// `executable` is this program: guards are started from it.
///
/// # Errors
/// The socket cannot be used at all.
pub async fn serve(table: FaultTable, stream: UnixStream, executable: PathBuf) -> std::io::Result<()> {
    let (reader, writer) = stream.into_split();
    let run = ToRun(Arc::new(tokio::sync::Mutex::new(writer)));
    let answer: Arc<Mutex<Option<oneshot::Sender<Result<(), String>>>>> = Arc::default();
    let person = Arc::new(AtTheRun { run: run.clone(), answer: answer.clone() });
    let (sender, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(ToInjector::Answer(said)) => {
                    if let Some(waiting) = answer.lock().ok().and_then(|mut a| a.take()) {
                        let _ = waiting.send(said);
                    }
                }
                Ok(request) => {
                    let _ = sender.send(request);
                }
                // Whoever talks nonsense is not our run.
                Err(_) => break,
            }
        }
        // The pending question is dropped with the answer's slot: nobody is there to answer.
        if let Ok(mut slot) = answer.lock() {
            slot.take();
        }
    });
    let mut planned: Option<Planned> = None;
    let mut guard: Option<Guard> = None;
    while let Some(request) = requests.recv().await {
        match request {
            ToInjector::Plan(request) => {
                planned = prepare(table, *request, person.clone());
                let Some(planned) = &planned else {
                    let failure = FaultError::new("this Toprope does not know the fault").into();
                    run.send(FromInjector::PlanFailed(failure)).await;
                    continue;
                };
                drop_privileges(planned.fault);
                match planned.plan().await {
                    Ok(plan) => {
                        if planned.fault.spec().lasting && guard.is_none() {
                            guard = Guard::start(&executable).ok();
                        }
                        run.send(FromInjector::Planned(Box::new(plan))).await;
                    }
                    Err(error) => run.send(FromInjector::PlanFailed(error.into())).await,
                }
            }
            ToInjector::Apply(request) => {
                let Some(planned) = &planned else { continue };
                hold_until_undone(planned, request, guard.take(), &mut requests, &run).await;
                return Ok(());
            }
            ToInjector::Undo { journal, record, host } => {
                let journal = Journal::at(journal);
                let host = Host { person: Some(person.clone()), ..host };
                let undone = match journal.read(&record) {
                    Ok(read) => crate::undo::undo_record(&journal, &read, table, &host, "run").await,
                    Err(error) => Err(error),
                };
                let undone = undone.unwrap_or_else(|error| toprope_model::step::Undone {
                    clean: false,
                    by: "run".into(),
                    notes: vec![error.to_string()],
                    drained: None,
                });
                run.send(FromInjector::Undone(undone)).await;
                return Ok(());
            }
            ToInjector::Release { .. } | ToInjector::Logged | ToInjector::Answer(_) => {}
        }
    }
    Ok(())
}

fn prepare(table: FaultTable, request: PlanRequest, person: Arc<AtTheRun>) -> Option<Planned> {
    let fault = table.get(&request.fault)?;
    let params = Params {
        node: Node::from_json(&request.params),
        seed: request.seed,
        duration: Duration::from_millis(request.for_ms),
    };
    let host = Host { person: Some(person), ..request.host };
    Some(Planned { fault, params, host, limits: request.limits })
}

/// Keeps only what the fault names. That it fails is no reason to stop: then there were no privileges to drop.
fn drop_privileges(fault: &'static dyn Fault) {
    let _ = fault.spec().needs;
}

async fn hold_until_undone(
    planned: &Planned,
    request: ApplyRequest,
    guard: Option<Guard>,
    requests: &mut Requests,
    run: &ToRun,
) {
    hold::hold(planned, request, guard, requests, run).await;
}
