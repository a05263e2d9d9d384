//! The second process who can undo a fault, and does not share the injector's fate.
//!
//! It is started by the injector, in a session of its own, and armed before anything is applied. It acts when the
//! injector's socket closes without the word that all is clean, when its heartbeats stop, or when its deadline has
//! passed and it still holds the fault: then it kills the injector and undoes from the journal.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use toprope_os::process::{Pidfd, ProcessId};
use toprope_os::time::boottime;

use crate::fault::FaultTable;
use crate::host::Host;
use crate::journal::Journal;

/// From one heartbeat to the next.
const BEAT: Duration = Duration::from_millis(200);
/// Without a heartbeat for so long, the injector counts as hung. Far above what a busy machine holds a process up.
const MISSED: Duration = Duration::from_secs(2);
/// How long after the deadline the injector may take for its own undo.
const GRACE: Duration = Duration::from_secs(15);

/// What the guard must know, sent when it is armed.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    journal: PathBuf,
    record: PathBuf,
    host: Host,
    injector: ProcessId,
    deadline_ms: u64,
}

/// A guard as the injector holds it.
#[derive(Debug)]
pub struct Guard {
    reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    writer: Option<OwnedWriteHalf>,
    beat: Option<tokio::task::JoinHandle<OwnedWriteHalf>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Guard {
    /// Starts a guard, not yet armed: it does nothing if it is dropped now.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(executable: &Path) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // Not waited for: it outlives this process when it is needed, and init reaps it.
        let _child = tokio::process::Command::new(executable)
            .arg("guard")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        ours.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let (stop, _) = tokio::sync::watch::channel(false);
        Ok(Self { reader: BufReader::new(reader), writer: Some(writer), beat: None, stop })
    }

    /// Gives the guard its orders and waits until it has confirmed them; from then on it gets heartbeats.
    ///
    /// # Errors
    /// The guard does not answer: nothing may be applied.
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
        let mut line = serde_json::to_vec(&orders)?;
        line.push(b'\n');
        let mut writer = self.writer.take().ok_or_else(|| std::io::Error::other("it is armed already"))?;
        writer.write_all(&line).await?;
        let mut ready = [0u8];
        tokio::time::timeout(Duration::from_secs(5), self.reader.read_exact(&mut ready))
            .await
            .map_err(|_| std::io::Error::other("it did not answer within 5 s"))??;
        let mut stop = self.stop.subscribe();
        self.beat = Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(BEAT);
            loop {
                tokio::select! {
                    _ = tick.tick() => if writer.write_all(b"b").await.is_err() { return writer },
                    _ = stop.changed() => return writer,
                }
            }
        }));
        Ok(())
    }

    /// Says that all is clean; the guard goes.
    pub async fn clean(mut self) {
        let _ = self.stop.send(true);
        if let Some(beat) = self.beat.take()
            && let Ok(mut writer) = beat.await
        {
            let _ = writer.write_all(b"c").await;
        }
    }
}

/// The guard's process.
///
/// # Errors
/// The socket cannot be used at all.
pub fn serve(table: FaultTable, stream: std::os::unix::net::UnixStream) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { watch(table, UnixStream::from_std(stream)?).await })
}

async fn watch(table: FaultTable, stream: UnixStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(()); // Never armed.
    }
    let orders: Orders = serde_json::from_str(&line)?;
    let Ok(injector) = Pidfd::open(&orders.injector) else {
        return act(&orders, None, table).await;
    };
    writer.write_all(b"r").await?;
    let last = Duration::from_millis(orders.deadline_ms) + GRACE;
    let mut bytes = [0u8; 64];
    loop {
        let wait = MISSED.min(last.saturating_sub(boottime()));
        match tokio::time::timeout(wait, reader.read(&mut bytes)).await {
            Ok(Ok(n)) if n > 0 => {
                if bytes[..n].contains(&b'c') {
                    return Ok(());
                }
            }
            // The socket closed, or no heartbeat came, or the deadline is long over.
            _ => return act(&orders, Some(injector), table).await,
        }
    }
}

async fn act(orders: &Orders, injector: Option<Pidfd>, table: FaultTable) -> std::io::Result<()> {
    if let Some(injector) = injector {
        let _ = injector.signal(Signal::KILL);
        let _ = tokio::time::timeout(Duration::from_secs(10), injector.exited()).await;
    }
    let journal = Journal::at(&orders.journal);
    for attempt in 0..5u32 {
        let Ok(record) = journal.read(&orders.record) else {
            return Ok(()); // Undone and removed by somebody else.
        };
        match crate::undo::undo_record(&journal, &record, table, &orders.host, "guard").await {
            Ok(undone) if undone.clean => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(attempt)).await,
        }
    }
    Ok(())
}
