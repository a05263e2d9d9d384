//! The second process who can undo a fault, and does not share the injector's fate.
//!
//! It is started by the injector, in a session of its own, and armed before anything is applied. It acts when the
//! injector's socket closes without the word that all is clean, when its heartbeats stop, or when its deadline has
//! passed and it still holds the fault: then it kills the injector and undoes from the journal.
//!
//! The injector hears each heartbeat answered. A guard that dies or no longer answers is replaced; where that fails, the
//! injector undoes. Two guards at once do no harm: who undoes holds the record's lock, and the second finds it undone.

mod keep;
mod pulse;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use toprope_os::process::{Pidfd, ProcessId};
use toprope_os::time::boottime;

pub use keep::{Guard, News};

use self::pulse::Pulse;
use crate::fault::FaultTable;
use crate::host::Host;
use crate::journal::Journal;

/// From one heartbeat to the next.
const BEAT: Duration = Duration::from_millis(50);
/// How long after the deadline the injector may take to begin its own undo.
const GRACE: Duration = Duration::from_secs(15);
/// How long an undo of its own may take that it has begun by then, and in which it goes on to show signs of life: a program
/// that undoes is given 30 s where nothing else is said. After that the injector counts as stuck. Less than the run waits.
const UNDO_LIMIT: Duration = Duration::from_secs(100);

/// What the guard must know, sent when it is armed.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    journal: PathBuf,
    record: PathBuf,
    host: Host,
    injector: ProcessId,
    deadline_ms: u64,
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
        return act(&orders, None, table, vec![]).await;
    };
    writer.write_all(b"r").await?;
    let mut last = Duration::from_millis(orders.deadline_ms) + GRACE;
    let mut undoing = false;
    let mut pulse = Pulse::of(orders.injector);
    let mut tick = pulse::ticks();
    let mut bytes = [0u8; 64];
    loop {
        tokio::select! {
            biased; // what was heard counts before what was missed
            heard = reader.read(&mut bytes) => match heard {
                Ok(n) if n > 0 => {
                    if bytes[..n].contains(&b'c') {
                        return Ok(());
                    }
                    if bytes[..n].contains(&b'u') && !undoing {
                        undoing = true;
                        last = last.max(boottime() + UNDO_LIMIT);
                    }
                    pulse.heard();
                    // An injector that does not read it is found out by its silence.
                    let _ = writer.try_write(b"a");
                }
                // The socket closed.
                _ => return act(&orders, Some(injector), table, vec![]).await,
            },
            _ = tick.tick() => if pulse.is_gone() {
                return act(&orders, Some(injector), table, vec![]).await;
            } else if boottime() >= last {
                let why = match undoing {
                    true => format!("the injector was killed: its own undo was not over after {UNDO_LIMIT:?}"),
                    false => format!("the injector was killed: it had not begun to undo {GRACE:?} after the fault's end"),
                };
                return act(&orders, Some(injector), table, vec![why]).await;
            },
        }
    }
}

/// Undoes in the injector's place; `why` goes into the record, and by it into the run's log.
async fn act(orders: &Orders, injector: Option<Pidfd>, table: FaultTable, why: Vec<String>) -> std::io::Result<()> {
    if let Some(injector) = injector {
        let _ = injector.signal(Signal::KILL);
        // In a frozen control group of v1 it does not die before it is thawed, and then without another instruction.
        let patience = if pulse::is_frozen(&orders.injector) { BEAT } else { Duration::from_secs(10) };
        let _ = tokio::time::timeout(patience, injector.exited()).await;
    }
    let journal = Journal::at(&orders.journal);
    for attempt in 0..5u32 {
        let Ok(record) = journal.read(&orders.record) else {
            return Ok(()); // Undone and removed by somebody else.
        };
        match crate::undo::undo_record(&journal, &record, table, &orders.host, "guard", why.clone()).await {
            Ok(undone) if undone.clean => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(attempt)).await,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A guard over a process that stands for an injector whose fault has been over for so long that half a second is left.
    async fn guarding(injector: &Child, journal: &std::path::Path) -> (UnixStream, tokio::task::JoinHandle<()>) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let deadline = boottime() + Duration::from_millis(500) - GRACE;
        let host = Host {
            services: vec![],
            own: vec![],
            invoking_user: None,
            directory: journal.to_owned(),
            person: None,
            pass_throughs: vec![],
            pass_through: None,
        };
        let orders = Orders {
            journal: journal.to_owned(),
            record: journal.join("none.jsonl"),
            host,
            injector: ProcessId::of(injector.id()).unwrap(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap(),
        };
        let guard = tokio::spawn(async { watch(FaultTable(&[]), theirs).await.unwrap() });
        let line = serde_json::to_string(&orders).unwrap() + "\n";
        ours.write_all(line.as_bytes()).await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        (ours, guard)
    }

    /// Sends signs of life for a while, or until the guard has done its work.
    async fn beats(ours: &mut UnixStream, guard: &tokio::task::JoinHandle<()>, lasts: Duration) {
        let until = boottime() + lasts;
        while boottime() < until && !guard.is_finished() {
            let _ = ours.try_write(b"b");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn an_undo_that_has_begun_is_given_its_time_and_one_that_has_not_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let sleeper = || Command::new("sleep").arg("600").spawn().unwrap();
        let mut late = sleeper();
        let (mut ours, guard) = guarding(&late, directory.path()).await;
        beats(&mut ours, &guard, Duration::from_secs(60)).await;
        assert!(guard.is_finished() && !late.wait().unwrap().success(), "the guard ends who does not begin");

        let mut busy = sleeper();
        let (mut ours, guard) = guarding(&busy, directory.path()).await;
        ours.write_all(b"u").await.unwrap();
        beats(&mut ours, &guard, Duration::from_secs(2)).await;
        assert!(!guard.is_finished() && busy.try_wait().unwrap().is_none(), "who undoes is let go on");
        ours.write_all(b"c").await.unwrap();
        guard.await.unwrap();
        assert!(busy.try_wait().unwrap().is_none());
        busy.kill().unwrap();
        busy.wait().unwrap();
    }
}
