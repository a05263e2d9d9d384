//! The injector's side of the socket.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use toprope_model::Node;
use toprope_model::step::{Plan, Undone};

use super::gate::Gate;
use super::message::{FromInjector, Limits, PlanRequest, ToInjector};
use super::{claims, hold, privileges};
use crate::fault::{Fault, FaultError, FaultTable, Params};
use crate::guard::Guard;
use crate::host::{Host, Person};
use crate::journal::{Journal, Record, Standing};
use crate::line;

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

/// Who waits for an answer from the run.
type Pending = Arc<Mutex<Option<oneshot::Sender<Result<(), String>>>>>;

/// The person at the run's terminal.
#[derive(Debug)]
struct AtTheRun {
    run: ToRun,
    answer: Pending,
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
    pub(super) journal: Journal,
    /// A socket to the pass-through in which the fault comes and goes.
    pub(super) lent: Mutex<Option<OwnedFd>>,
}

impl Planned {
    /// Resolves the fault anew and holds it against the limits. Refuses while something is still to be undone here, or
    /// somebody else's fault has taken what it would take.
    pub(super) async fn plan(&self) -> Result<Plan, FaultError> {
        self.journal.refuse_dirty()?;
        let planned = self.fault.plan(&self.params, &self.host).await;
        let plan = planned.map_err(|error| self.named_holder(error))?;
        within_limits(&plan, self.limits)?;
        self.journal.refuse_taken(&plan.steps)?;
        // What this home's journal has in the meantime, it can say more of.
        if let Err(error) = claims::refuse_taken(&plan.steps) {
            self.journal.refuse_taken(&plan.steps)?;
            return Err(error);
        }
        Ok(plan)
    }

    /// What a fault finds wrong with a target may be the work of another run, which its plan does not know: then that run
    /// is named beside.
    fn named_holder(&self, error: FaultError) -> FaultError {
        let kind = self.fault.spec().spec.kind;
        let records = self.journal.records().unwrap_or_default();
        let holds = |r: &&Record| r.standing() == Standing::InForce && r.intent.fault == kind;
        let Some(holder) = records.iter().find(holds) else { return error };
        let what = holder.intent.steps.iter().map(|s| s.describe.as_str()).collect::<Vec<_>>().join("; ");
        let run = &holder.intent.run;
        let there = format!(
            "run {run} has {kind} in force now ({what}): if that is why, wait until it ends, or end it with \
             `toprope undo {run}`"
        );
        let help = error.help.clone().map_or(there.clone(), |help| format!("{there}; else {help}"));
        error.help(help)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of processes")]
fn within_limits(plan: &Plan, limits: Limits) -> Result<(), FaultError> {
    let hit = plan.targets.len();
    let too_many = |allowed: usize, said: String| {
        let targets = plan.targets.join(", ");
        let what = if hit == 1 { "target" } else { "targets" };
        Err(FaultError::new(format!(
            "{hit} {what} would be hit, and the blast radius allows {allowed} ({said}): {targets}"
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
/// The first message says which fault it is; before any thread is started, all privileges but those that the fault
/// names are given up for good. `executable` is this program: guards are started from it. `gate` is what the injector may
/// do where it is for somebody with fewer rights than it has, or why that cannot be told.
///
/// # Errors
/// The socket cannot be used at all.
pub fn serve(
    table: FaultTable,
    mut stream: StdStream,
    executable: PathBuf,
    gate: Result<Option<Gate>, String>,
) -> std::io::Result<()> {
    let Some((line, lent)) = line::receive(&stream)? else { return Ok(()) };
    let (first, lent): (ToInjector, _) = (serde_json::from_slice(&line)?, lent.into_iter().next());
    let admitted = gate.map_err(FaultError::new).and_then(|mut gate| Ok((admit(&mut gate, first.clone())?, gate)));
    let (first, gate) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let mut line = serde_json::to_vec(&refusal(&first, error))?;
            line.push(b'\n');
            return stream.write_all(&line);
        }
    };
    // A socket to a pass-through would be somebody else's word for who listens there.
    let lent = lent.filter(|_| gate.is_none());
    privileges::drop_for(fault_of(table, &first)).map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime
        .block_on(async { serve_run(table, UnixStream::from_std(stream)?, first, lent, executable, gate).await });
    runtime.shutdown_background();
    served
}

fn admit(gate: &mut Option<Gate>, message: ToInjector) -> Result<ToInjector, FaultError> {
    match gate {
        Some(gate) => gate.admit(message),
        None => Ok(message),
    }
}

/// What is said where a message is not let through.
fn refusal(message: &ToInjector, error: FaultError) -> FromInjector {
    let nothing = |clean, notes| Undone { clean, by: "injector".into(), notes, drained: None };
    match message {
        ToInjector::Apply(_) => FromInjector::ApplyFailed { failure: error.into(), undone: nothing(true, vec![]) },
        ToInjector::Undo { .. } => FromInjector::Undone(nothing(false, vec![error.message])),
        _ => FromInjector::PlanFailed(error.into()),
    }
}

/// Which fault the first message is about.
fn fault_of(table: FaultTable, first: &ToInjector) -> Option<&'static dyn Fault> {
    let kind = match first {
        ToInjector::Plan(request) => Some(request.fault.clone()),
        ToInjector::Undo { journal, record, .. } => Journal::at(journal).read(record).ok().map(|r| r.intent.fault),
        _ => None,
    };
    kind.and_then(|kind| table.get(&kind))
}

async fn serve_run(
    table: FaultTable,
    stream: UnixStream,
    first: ToInjector,
    mut lent: Option<OwnedFd>,
    executable: PathBuf,
    gate: Option<Gate>,
) -> std::io::Result<()> {
    let (reader, writer) = stream.into_split();
    let run = ToRun(Arc::new(tokio::sync::Mutex::new(writer)));
    let answer: Pending = Arc::default();
    let person = Arc::new(AtTheRun { run: run.clone(), answer: answer.clone() });
    let (sender, mut requests) = mpsc::unbounded_channel();
    let _ = sender.send(first);
    tokio::spawn(listen(reader, answer, sender, gate, run.clone()));
    let mut planned: Option<Planned> = None;
    let mut guard: Option<Guard> = None;
    while let Some(request) = requests.recv().await {
        match request {
            ToInjector::Plan(request) => {
                planned = prepare(table, *request, person.clone(), lent.take());
                let answer = match &planned {
                    None => Err(FaultError::new("this Toprope does not know the fault")),
                    Some(planned) => planned.plan().await,
                };
                let lasting = planned.as_ref().map(|p| p.fault.spec()).filter(|spec| spec.lasting);
                if let (true, Some(kind), None) = (answer.is_ok(), lasting.map(|spec| spec.spec.kind), &guard) {
                    guard = Guard::start(&executable, kind).ok();
                }
                run.send(match answer {
                    Ok(plan) => FromInjector::Planned(Box::new(plan)),
                    Err(error) => FromInjector::PlanFailed(error.into()),
                })
                .await;
            }
            ToInjector::Apply(request) => {
                let Some(planned) = &planned else { continue };
                hold::hold(planned, request, guard.take(), &mut requests, &run).await;
                return Ok(());
            }
            ToInjector::Undo { journal, record, host } => {
                let host = Host { person: Some(person.clone()), ..host };
                let undone = undo(&Journal::at(journal), &record, table, &host).await;
                run.send(FromInjector::Undone(undone)).await;
                return Ok(());
            }
            ToInjector::Release { .. } | ToInjector::Logged | ToInjector::Answer(_) => {}
        }
    }
    Ok(())
}

/// Takes messages from the run, those that its gate lets through, until it is gone; then the requests end too, and with
/// them the lease.
async fn listen(
    reader: OwnedReadHalf,
    answer: Pending,
    requests: mpsc::UnboundedSender<ToInjector>,
    mut gate: Option<Gate>,
    run: ToRun,
) {
    let waiting = || answer.lock().ok().and_then(|mut a| a.take());
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Whoever talks nonsense is not our run.
        let Ok(message) = serde_json::from_str::<ToInjector>(&line) else { break };
        match admit(&mut gate, message.clone()) {
            Ok(ToInjector::Answer(said)) => {
                if let Some(waiting) = waiting() {
                    let _ = waiting.send(said);
                }
            }
            Ok(request) => {
                let _ = requests.send(request);
            }
            Err(error) => run.send(refusal(&message, error)).await,
        }
    }
    // A question that is still open will not be answered.
    waiting();
}

async fn undo(journal: &Journal, record: &std::path::Path, table: FaultTable, host: &Host) -> Undone {
    let undone = match journal.read(record) {
        Ok(read) => crate::undo::undo_record(journal, &read, table, host, "run", vec![]).await,
        Err(error) => Err(error),
    };
    undone.unwrap_or_else(|error| Undone {
        clean: false,
        by: "run".into(),
        notes: vec![error.to_string()],
        drained: None,
    })
}

fn prepare(table: FaultTable, request: PlanRequest, person: Arc<AtTheRun>, lent: Option<OwnedFd>) -> Option<Planned> {
    let fault = table.get(&request.fault)?;
    let params = Params {
        node: Node::from_json(&request.params),
        seed: request.seed,
        duration: Duration::from_millis(request.for_ms),
    };
    // Without a person at the run there is nobody to ask, and what needs one refuses at plan.
    let person: Option<Arc<dyn Person>> = if request.attended { Some(person) } else { None };
    let host = Host { person, ..request.host };
    let (limits, journal, lent) = (request.limits, Journal::at(request.journal), Mutex::new(lent));
    Some(Planned { fault, params, host, limits, journal, lent })
}
