//! The pass-throughs of a run, as the run holds them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use toprope_model::event::{Event, Level};
use toprope_model::experiment::FaultItem;
use toprope_os::process::{Pidfd, Signal};

use super::message::{FromPassThrough, OpenRequest, ToPassThrough};
use super::{Opened, Passage};
use crate::fault::{FaultError, Params};
use crate::injector::{InjectorError, Role, Started};
use crate::line::{self, Incoming};
use crate::run::{Recorder, RunError, Setup, StopSwitch, in_flight};

/// From one sign of life to the next.
const BEAT: Duration = Duration::from_millis(500);
/// Without an answer for so long, a pass-through counts as hung. Far above what a busy machine holds a process up.
const MISSED: Duration = Duration::from_secs(5);
/// How long one may take to listen: names are looked up.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// All that stand for a run. They end when this is dropped, as they do when the run is killed.
#[derive(Debug, Default)]
pub(crate) struct PassThroughs(Vec<Held>);

/// One of them.
#[derive(Debug)]
struct Held {
    opened: Opened,
    drain: Duration,
    socket: Arc<UnixStream>,
    /// Told when it shall end in order.
    closing: watch::Sender<bool>,
    follower: Mutex<Option<JoinHandle<()>>>,
    process: Option<Started>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Where it is our own child, somebody must reap it.
        if let Some(Started::Child(mut child)) = self.process.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}

/// A pass-through that faults of an experiment want.
struct Want {
    passage: Passage,
    /// The first fault that wants it, and its place in the method.
    fault: FaultItem,
    index: usize,
    /// The longest drain of all that want it.
    drain: Duration,
}

/// Finds the pass-throughs that an experiment wants: one for each listener, whatever number of faults come to be in it.
fn wanted(setup: &Setup) -> Result<Vec<Want>, RunError> {
    let mut all: Vec<Want> = Vec::new();
    for (index, item) in setup.experiment.faults().into_iter().enumerate() {
        let Some(fault) = setup.faults.get(&item.kind) else { continue };
        let params = Params { node: item.params.clone(), seed: 0, duration: Duration::ZERO };
        let Some(passage) = fault.passage(&params).map_err(|e| refused(item, index, e))? else { continue };
        let drain = item.common.drain.0;
        match all.iter_mut().find(|w| w.passage.at == passage.at) {
            None => all.push(Want { passage, fault: item.clone(), index, drain }),
            Some(same) if same.passage.to == passage.to => same.drain = same.drain.max(drain),
            Some(other) => {
                let Passage { at, to } = &passage;
                let why = format!(
                    "`listen: {at}` leads to {} for `{}`, and to {to} here",
                    other.passage.to,
                    other.fault.name()
                );
                let error = FaultError::new(why).help("a listener leads to one place: give each its own port");
                return Err(refused(item, index, error));
            }
        }
    }
    Ok(all)
}

fn refused(item: &FaultItem, index: usize, error: FaultError) -> RunError {
    RunError::Plan { fault: item.name().to_owned(), index, error: error.into() }
}

/// Finds what is wrong with the pass-throughs that an experiment wants, and opens none.
pub(crate) fn check(setup: &Setup) -> Result<(), RunError> {
    wanted(setup).map(drop)
}

impl PassThroughs {
    /// Opens all that an experiment wants.
    ///
    /// # Errors
    /// Why one cannot be had; none is left then.
    pub(crate) async fn open(setup: &Setup) -> Result<Self, RunError> {
        let mut all = Vec::new();
        for want in wanted(setup)? {
            all.push(open(setup, want).await?);
        }
        Ok(Self(all))
    }

    /// What stands.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.0.iter().map(|held| held.opened.clone()).collect()
    }

    /// A socket to one, for an injector. One that is gone is noticed by who uses it.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub(crate) async fn lend(&self, at: SocketAddr) -> std::io::Result<Option<OwnedFd>> {
        let Some(held) = self.0.iter().find(|held| held.opened.passage.at == at) else { return Ok(None) };
        let (ours, theirs) = StdStream::pair()?;
        let _ = line::send(&held.socket, &ToPassThrough::Lend, &[theirs.as_fd()]).await;
        Ok(Some(ours.into()))
    }

    /// Tells the log what stands, and from now on what becomes of it: a run that loses one proves nothing and ends.
    pub(crate) fn follow(&self, recorder: &Arc<Recorder>, stop: &StopSwitch) {
        for held in &self.0 {
            let Passage { at, to } = &held.opened.passage;
            recorder.record(Event::PassThrough { at: at.to_string(), to: to.clone() });
            let follower = Follower {
                opened: held.opened.clone(),
                drain: held.drain,
                socket: held.socket.clone(),
                closing: held.closing.subscribe(),
                recorder: recorder.clone(),
                stop: stop.clone(),
            };
            let mut slot = held.follower.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(tokio::spawn(follower.follow()));
        }
    }

    /// Ends all, and waits until what they carry has ended or was cut.
    pub(crate) async fn close(&self) {
        for held in &self.0 {
            held.closing.send_replace(true);
        }
        let followers =
            self.0.iter().filter_map(|held| held.follower.lock().unwrap_or_else(PoisonError::into_inner).take());
        futures::future::join_all(followers.collect::<Vec<_>>()).await;
    }
}

async fn open(setup: &Setup, want: Want) -> Result<Held, RunError> {
    let Want { passage, fault, index, drain } = want;
    let failed = |error: std::io::Error| RunError::Plan {
        fault: fault.name().to_owned(),
        index,
        error: InjectorError::Start(error),
    };
    let (socket, process) = setup.launch.start(Role::PassThrough, &fault.kind).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = UnixStream::from_std(socket).map_err(failed)?;
    let request = OpenRequest {
        fault: fault.kind.clone(),
        params: fault.params.to_json(),
        host: crate::run::host(setup, vec![]),
        drain_ms: u64::try_from(drain.as_millis()).unwrap_or(u64::MAX),
    };
    let opened = async {
        line::send(&socket, &ToPassThrough::Open(Box::new(request)), &[]).await?;
        answer(&socket, &mut Incoming::default()).await
    };
    let died = || InjectorError::Unexpected("nothing: the process of the pass-through ended".into());
    let error = match tokio::time::timeout(OPEN_LIMIT, opened).await {
        Ok(Ok(Some(FromPassThrough::Opened(holder)))) => {
            let opened = Opened { passage, holder };
            let (socket, closing, follower) = (Arc::new(socket), watch::Sender::new(false), Mutex::new(None));
            return Ok(Held { opened, drain, socket, closing, follower, process: Some(process) });
        }
        Ok(Ok(Some(FromPassThrough::Failed(f)))) => FaultError::from(f).into(),
        Ok(Ok(Some(other))) => InjectorError::Unexpected(format!("{other:?}")),
        Ok(Ok(None) | Err(_)) => died(),
        Err(_) => InjectorError::Unexpected(format!("nothing, for {OPEN_LIMIT:?}")),
    };
    Err(RunError::Plan { fault: fault.name().to_owned(), index, error })
}

async fn answer(socket: &UnixStream, incoming: &mut Incoming) -> std::io::Result<Option<FromPassThrough>> {
    let Some((line, _)) = incoming.next(socket).await? else { return Ok(None) };
    Ok(serde_json::from_slice(&line).ok())
}

/// Follows one to its end.
struct Follower {
    opened: Opened,
    drain: Duration,
    socket: Arc<UnixStream>,
    closing: watch::Receiver<bool>,
    recorder: Arc<Recorder>,
    stop: StopSwitch,
}

impl Follower {
    async fn follow(mut self) {
        let mut incoming = Incoming::default();
        let mut closing = self.closing.clone();
        let closing = closing.wait_for(|closing| *closing);
        tokio::pin!(closing);
        let lost = {
            let alive = self.alive(&mut incoming);
            tokio::pin!(alive);
            match select(alive, closing).await {
                Either::Left((why, _)) => Some(why),
                Either::Right(_) => None,
            }
        };
        match lost {
            Some(why) => self.lost(why),
            None => self.close(&mut incoming).await,
        }
    }

    /// Asks for signs of life; resolves with the reason when there are none any more.
    async fn alive(&self, incoming: &mut Incoming) -> &'static str {
        loop {
            let beat = async {
                line::send(&self.socket, &ToPassThrough::Beat, &[]).await?;
                answer(&self.socket, incoming).await
            };
            match tokio::time::timeout(MISSED, beat).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => return "its process was killed",
                Err(_) => return "its process has hung and was killed",
            }
            // Its end is noticed at once, not only when it is asked again.
            if let Ok(Ok(None) | Err(_)) = tokio::time::timeout(BEAT, answer(&self.socket, incoming)).await {
                return "its process was killed";
            }
        }
    }

    fn lost(&self, why: &str) {
        self.kill();
        let at = self.opened.passage.at.to_string();
        self.recorder.record(Event::PassThroughLost { at: at.clone(), why: why.to_owned() });
        self.stop.pull("error", format!("the pass-through on {at} is gone: {why}"));
    }

    async fn close(&mut self, incoming: &mut Incoming) {
        let closed = async {
            line::send(&self.socket, &ToPassThrough::Close, &[]).await?;
            loop {
                match answer(&self.socket, incoming).await? {
                    Some(FromPassThrough::Closed(ended, cut)) => return Ok((ended, cut)),
                    Some(_) => {}
                    None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                }
            }
        };
        let at = self.opened.passage.at;
        match tokio::time::timeout(self.drain + MISSED, closed).await {
            Ok(Ok((ended, cut))) if ended + cut > 0 => {
                let level = if cut > 0 { Level::Warning } else { Level::Info };
                self.recorder.note(level, format!("the pass-through on {at} has closed: {}", in_flight(ended, cut)));
            }
            Ok(Ok(_)) => {}
            // All that counts was seen before.
            Ok(Err(_)) | Err(_) => {
                self.kill();
                let text = format!("the pass-through on {at} was killed when it closed; what was in flight is cut");
                self.recorder.note(Level::Warning, text);
            }
        }
    }

    /// One that hangs hangs its clients: cut, they can at least tell. Under sudo it is not ours to kill.
    fn kill(&self) {
        let _ = Pidfd::open(&self.opened.holder).and_then(|process| process.signal(Signal::KILL));
    }
}
