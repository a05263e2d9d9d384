//! The process of a pass-through.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use toprope_model::Node;
use toprope_model::step::Effect;
use toprope_os::caps::{self, Capability};
use toprope_os::process::ProcessId;
use toprope_os::seccomp::{self, Calls};

use super::message::{Answer, FromPassThrough, OpenRequest, Request, ToPassThrough, Wanted};
use super::{Opened, PassThrough};
use crate::fault::{FaultError, FaultTable, Injection, Params};
use crate::host::Host;
use crate::line::{self, Incoming};

/// What it keeps where it is root: low ports, and the mark that spares its connections from redirections.
const KEPT: [Capability; 2] = [Capability::NetBindService, Capability::NetRaw];

/// Holds one pass-through, until the run says so or is gone.
///
/// # Errors
/// The socket cannot be used at all.
pub fn serve(table: FaultTable, stream: StdStream) -> std::io::Result<()> {
    let Some((line, _)) = line::receive(&stream)? else { return Ok(()) };
    let ToPassThrough::Open(request) = serde_json::from_slice(&line)? else {
        return Err(std::io::Error::other("the first message is not that it shall open"));
    };
    caps::keep_only(&KEPT).and_then(|()| seccomp::refuse(Calls::ALL)).map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async { stand(table, UnixStream::from_std(stream)?, *request).await });
    runtime.shutdown_background();
    served
}

async fn stand(table: FaultTable, run: UnixStream, request: OpenRequest) -> std::io::Result<()> {
    let (host, through) = match open(table, &request).await {
        Ok(opened) => opened,
        Err(error) => return line::send(&run, &FromPassThrough::Failed(error.into()), &[]).await,
    };
    let me = ProcessId::current().map_err(std::io::Error::other)?;
    line::send(&run, &FromPassThrough::Opened(me), &[]).await?;
    let mut incoming = Incoming::default();
    let mut injectors = JoinSet::new();
    // The run's end, and whatever is no message of a run, is the end.
    while let Ok(Some((line, descriptors))) = incoming.next(&run).await {
        match serde_json::from_slice(&line) {
            Ok(ToPassThrough::Lend) => {
                for socket in descriptors {
                    injectors.spawn(injector(table, StdStream::from(socket), host.clone()));
                }
            }
            Ok(ToPassThrough::Beat) => line::send(&run, &FromPassThrough::Beat, &[]).await?,
            Ok(ToPassThrough::Close | ToPassThrough::Open(_)) | Err(_) => break,
        }
    }
    // Without a run no fault goes on, whatever its injector does.
    injectors.shutdown().await;
    drop(host);
    let (ended, cut) = through.close(Duration::from_millis(request.drain_ms)).await;
    // A run that is gone does not want to know.
    let _ = line::send(&run, &FromPassThrough::Closed(ended, cut), &[]).await;
    Ok(())
}

async fn open(table: FaultTable, request: &OpenRequest) -> Result<(Host, Arc<dyn PassThrough>), FaultError> {
    let fault = table.get(&request.fault).ok_or_else(|| FaultError::new("this Toprope does not know the fault"))?;
    let params = Params { node: Node::from_json(&request.params), seed: 0, duration: Duration::ZERO };
    let passage = fault.passage(&params)?.ok_or_else(|| FaultError::new("the fault wants no pass-through"))?;
    let through = fault.pass_through(&params, &request.host).await?;
    let holder = ProcessId::current().map_err(|e| FaultError::because("cannot name this process", e))?;
    let opened = vec![Opened { passage, holder }];
    Ok((Host { pass_throughs: opened, pass_through: Some(through.clone()), ..request.host.clone() }, through))
}

/// Does what an injector wants for as long as its socket is open.
async fn injector(table: FaultTable, socket: StdStream, host: Host) {
    let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    let Ok(socket) = socket else { return };
    let mut incoming = Incoming::default();
    let mut held = None;
    while let Ok(Some((line, _))) = incoming.next(&socket).await {
        let Ok(Request { number, wanted }) = serde_json::from_slice(&line) else { return };
        let result = answer(table, wanted, &host, &mut held).await.map_err(Into::into);
        if line::send(&socket, &Answer { number, result }, &[]).await.is_err() {
            return;
        }
    }
}

/// A fault in force, and the parameters that it began with.
type Held = Option<(Box<dyn Injection>, Params)>;

async fn answer(table: FaultTable, wanted: Wanted, host: &Host, held: &mut Held) -> Result<Option<Effect>, FaultError> {
    let nothing = || FaultError::new("no fault is in force over this socket");
    match wanted {
        Wanted::Apply { fault, step, params, seed, for_ms } => {
            let fault = table.get(&fault).ok_or_else(|| FaultError::new("this Toprope does not know the fault"))?;
            let duration = Duration::from_millis(for_ms);
            let params = Params { node: Node::from_json(&params), seed, duration };
            let injection = fault.apply(&step, &params, host).await?;
            *held = Some((injection, params));
            Ok(None)
        }
        Wanted::Observe => held.as_mut().ok_or_else(nothing)?.0.observe().await.map(Some),
        Wanted::Adjust { params } => {
            let (injection, began) = held.as_mut().ok_or_else(nothing)?;
            let params = Params { node: Node::from_json(&params), ..began.clone() };
            injection.adjust(&params).await.map(|()| None)
        }
        Wanted::Release => {
            let (injection, _) = held.take().ok_or_else(nothing)?;
            injection.release(Duration::ZERO).await.map(|_| None)
        }
    }
}
