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
                    pulse.heard();
                    // An injector that does not read it is found out by its silence.
                    let _ = writer.try_write(b"a");
                }
                // The socket closed.
                _ => return act(&orders, Some(injector), table).await,
            },
            _ = tick.tick() => if pulse.is_gone() || boottime() >= last {
                return act(&orders, Some(injector), table).await;
            },
        }
    }
}

async fn act(orders: &Orders, injector: Option<Pidfd>, table: FaultTable) -> std::io::Result<()> {
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
        match crate::undo::undo_record(&journal, &record, table, &orders.host, "guard").await {
            Ok(undone) if undone.clean => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(attempt)).await,
        }
    }
    Ok(())
}
