//! The run's side of the socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use toprope_model::step::Plan;
use toprope_os::fdpass;

use super::launch::{Launch, Role, Started};
use super::message::{FromInjector, PlanRequest, ToInjector};
use crate::fault::FaultError;

/// An injector that was started.
#[derive(Debug)]
pub struct Injector {
    process: Started,
    reader: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

/// Why an injector cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// It could not be started.
    #[error("cannot start an injector: {0}")]
    Start(std::io::Error),
    /// It ended without a word.
    #[error("the injector died")]
    Died,
    /// It answered something else than was asked.
    #[error("the injector said something unexpected: {0}")]
    Unexpected(String),
    /// The fault cannot be done here.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        help: Option<String>,
        /// Whether something of an earlier run is still to be undone.
        dirty: bool,
    },
}

impl From<FaultError> for InjectorError {
    fn from(error: FaultError) -> Self {
        Self::Refused { message: error.message, help: error.help, dirty: error.dirty }
    }
}

/// How long a plan may take: a fault that asks a slow system is still answered, a hung injector is not waited for.
const PLAN_LIMIT: Duration = Duration::from_secs(30);

impl Injector {
    /// Starts an injector for a kind of fault, and lends it a socket to a pass-through.
    ///
    /// # Errors
    /// [`InjectorError::Start`].
    pub fn start(launch: &Launch, fault: &str, lent: Option<OwnedFd>) -> Result<Self, InjectorError> {
        let (ours, process) = launch.start(Role::Injector, fault).map_err(InjectorError::Start)?;
        if let Some(lent) = lent {
            // With a blank before the first message, which JSON does not mind.
            fdpass::send(&ours, b" ", &[lent.as_fd()]).map_err(InjectorError::Start)?;
        }
        ours.set_nonblocking(true).map_err(InjectorError::Start)?;
        let (reader, writer) = UnixStream::from_std(ours).map_err(InjectorError::Start)?.into_split();
        Ok(Self { process, reader: BufReader::new(reader).lines(), writer })
    }

    /// Sends a message. An injector that is gone is noticed by [`Injector::next`].
    pub async fn send(&mut self, message: &ToInjector) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = self.writer.write_all(&line).await;
        }
    }

    /// The next message; `None` when the injector is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<FromInjector> {
        let line = self.reader.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Asks what the fault would do.
    ///
    /// # Errors
    /// [`InjectorError::Refused`] with the fault's reason, or the injector itself failed.
    pub async fn plan(&mut self, request: PlanRequest) -> Result<Plan, InjectorError> {
        self.send(&ToInjector::Plan(Box::new(request))).await;
        match tokio::time::timeout(PLAN_LIMIT, self.next()).await {
            Ok(Some(FromInjector::Planned(plan))) => Ok(*plan),
            Ok(Some(FromInjector::PlanFailed(f))) => Err(FaultError::from(f).into()),
            Ok(Some(other)) => Err(InjectorError::Unexpected(format!("{other:?}"))),
            Ok(None) => Err(InjectorError::Died),
            Err(_) => Err(InjectorError::Unexpected(format!("nothing, for {PLAN_LIMIT:?}"))),
        }
    }

    /// Kills it, in whatever state it is: what it holds is then undone by the kernel or from the journal.
    pub fn kill(&mut self) {
        // Where it has ended already there is nothing to kill, and its socket tells so.
        let _ = self.process.kill();
    }

    /// Waits until the process has ended, where it is our own child; its socket is closed first.
    pub async fn reaped(self) {
        drop(self.writer);
        let Started::Child(mut child) = self.process else { return };
        // An injector that has said all ends at once; one that does not is its guard's to end.
        for _ in 0..100 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
