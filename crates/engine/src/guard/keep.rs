//! The injector's side: it has a guard, and sees to it that it goes on having one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use toprope_os::process::ProcessId;

use super::Orders;
use super::pulse::{self, Pulse};
use crate::host::Host;
use crate::injector::label;
use crate::journal::Journal;

/// How long a guard may take to answer when it is armed.
const ARMING: Duration = Duration::from_secs(5);

/// What the injector must hear of its guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It was lost, and another one has taken its place.
    Replaced(String),
    /// It was lost, and there is no other: the fault must end.
    Lost(String),
}

/// A guard as the injector holds it.
#[derive(Debug)]
pub struct Guard {
    executable: PathBuf,
    fault: &'static str,
    /// The guard before it is armed.
    line: Option<Line>,
    keeper: Option<tokio::task::JoinHandle<Option<Line>>>,
    stage: watch::Sender<Stage>,
    news: Option<mpsc::UnboundedReceiver<News>>,
}

/// What the injector does with the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It applies it or holds it.
    Holding,
    /// It undoes it.
    Undoing,
    /// Nothing is left of it.
    Clean,
}

/// A guard's process, and the socket to it.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    process: tokio::process::Child,
}

impl Line {
    fn start(executable: &Path, fault: &str) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // Not waited for when this is dropped: it outlives this process when it is needed.
        let process = tokio::process::Command::new(executable)
            .arg0(crate::PROGRAM)
            .arg("guard")
            .args(label(fault))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        ours.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(ours)?, process })
    }

    async fn arm(&mut self, orders: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(orders).await?;
        let mut ready = [0u8];
        tokio::time::timeout(ARMING, self.stream.read_exact(&mut ready))
            .await
            .map_err(|_| std::io::Error::other(format!("it did not answer within {ARMING:?}")))?
            .map(drop)
    }

    /// A new guard under the same orders.
    async fn armed(executable: &Path, fault: &str, orders: &[u8]) -> std::io::Result<Self> {
        let mut line = Self::start(executable, fault)?;
        line.arm(orders).await?;
        Ok(line)
    }

    /// Its name, which only a process that was not waited for has.
    fn id(&self) -> Option<ProcessId> {
        ProcessId::of(self.process.id()?).ok()
    }
}

impl Guard {
    /// Starts a guard for a kind of fault, not yet armed: it does nothing if it is dropped now.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(executable: &Path, fault: &'static str) -> std::io::Result<Self> {
        let line = Line::start(executable, fault)?;
        let (stage, _) = watch::channel(Stage::Holding);
        Ok(Self { executable: executable.to_owned(), fault, line: Some(line), keeper: None, stage, news: None })
    }

    /// Gives the guard its orders and waits until it has confirmed them; from then on it gets heartbeats, and is replaced
    /// when it is lost.
    ///
    /// # Errors
    /// Neither this guard nor a second one answers: nothing may be applied.
    pub async fn arm(
        &mut self,
        journal: &Journal,
        record: &Path,
        host: &Host,
        deadline: Duration,
    ) -> std::io::Result<()> {
        let orders = Orders {
            journal: journal.directory().to_owned(),
            record: record.to_owned(),
            host: host.clone(),
            injector: ProcessId::current().map_err(std::io::Error::other)?,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let mut orders = serde_json::to_vec(&orders)?;
        orders.push(b'\n');
        let mut line = self.line.take().ok_or_else(|| std::io::Error::other("it is armed already"))?;
        if line.arm(&orders).await.is_err() {
            // It waited since the plan was made, and may have been killed meanwhile.
            let _ = line.process.start_kill();
            line = Line::armed(&self.executable, self.fault, &orders).await?;
        }
        let (sender, news) = mpsc::unbounded_channel();
        let keeper = keep(line, (self.executable.clone(), self.fault), orders, self.stage.subscribe(), sender);
        self.keeper = Some(tokio::spawn(keeper));
        self.news = Some(news);
        Ok(())
    }

    /// What happened to the guard. Never resolves while all is well. Safe to cancel.
    pub async fn news(&mut self) -> News {
        match &mut self.news {
            Some(news) => match news.recv().await {
                Some(news) => news,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Says that the injector undoes the fault now, which may take longer than the fault had left.
    pub fn undoing(&self) {
        self.stage.send_replace(Stage::Undoing);
    }

    /// Says that all is clean; the guard goes.
    pub async fn clean(mut self) {
        self.stage.send_replace(Stage::Clean);
        if let Some(keeper) = self.keeper.take()
            && let Ok(Some(mut line)) = keeper.await
        {
            let _ = line.stream.write_all(b"c").await;
        }
    }
}

/// Sends heartbeats and hears them answered, until all is clean or there is no guard any more.
async fn keep(
    mut line: Line,
    (executable, fault): (PathBuf, &'static str),
    orders: Vec<u8>,
    mut stage: watch::Receiver<Stage>,
    news: mpsc::UnboundedSender<News>,
) -> Option<Line> {
    loop {
        let lost = beat(&mut line, &mut stage).await;
        let Some(why) = lost else { return Some(line) };
        // One that hangs would otherwise wake up and act.
        let _ = line.process.start_kill();
        match Line::armed(&executable, fault, &orders).await {
            Ok(new) => {
                line = new;
                let _ = news.send(News::Replaced(format!("the guard {why}, and another one has taken its place")));
            }
            Err(error) => {
                let text = format!("the guard {why}, and there is no other ({error}): nothing stays in force without");
                let _ = news.send(News::Lost(text));
                return None;
            }
        }
    }
}

/// Resolves when it is another stage than this one. The guard that a receiver hands out must not live across a wait.
async fn after(now: Stage, stage: &mut watch::Receiver<Stage>) -> Stage {
    stage.wait_for(|stage| *stage != now).await.map_or(Stage::Clean, |stage| *stage)
}

/// Heartbeats to one guard; `None` when it is told to stop, else how the guard was lost.
async fn beat(line: &mut Line, stage: &mut watch::Receiver<Stage>) -> Option<&'static str> {
    let mut told = Stage::Holding;
    let mut pulse = line.id().map(Pulse::of);
    let mut ticks = pulse::ticks();
    let mut bytes = [0u8; 64];
    let (mut reader, mut writer) = line.stream.split();
    loop {
        tokio::select! {
            biased;
            now = after(told, stage) => match now {
                Stage::Clean => return None,
                _ if writer.write_all(b"u").await.is_err() => return Some("died"),
                _ => told = now,
            },
            heard = reader.read(&mut bytes) => match heard {
                Ok(n) if n > 0 => if let Some(pulse) = &mut pulse { pulse.heard() },
                _ => return Some("died"),
            },
            _ = ticks.tick() => {
                if writer.write_all(b"b").await.is_err() {
                    return Some("died");
                }
                if pulse.as_mut().is_some_and(Pulse::is_gone) {
                    return Some("no longer answered");
                }
            }
        }
    }
}
