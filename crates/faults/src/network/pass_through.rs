//! A pass-through of TCP connections: a proxy without rules, in which a fault's rules come and go.

use std::any::Any;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt;
use toprope_engine::fault::{Draining, FaultError};
use toprope_engine::host::Host;
use toprope_engine::pass_through::PassThrough;
use toprope_os::process::{Pidfd, ProcessId, Signal};
use toprope_proxy::{Proxy, Rules};

use super::destination::Destination;
use super::interception::{listen, must_be_free, start};

/// A pass-through, in the process that holds it.
pub(crate) struct Forwarder {
    at: SocketAddr,
    /// `None` once it was closed.
    proxy: RwLock<Option<Arc<Proxy>>>,
    /// Whether a fault is in force.
    taken: AtomicBool,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Listens, and forwards everything unchanged.
    pub(crate) fn open(at: SocketAddr, destination: &Destination) -> Result<Self, FaultError> {
        must_be_free(at)?;
        let upstream = destination.socket().ok_or_else(|| {
            FaultError::new(format!("{destination} is not one address and port for the proxy to connect to"))
        })?;
        let proxy = start(vec![listen(at)?], upstream.into(), Rules::pass())?;
        Ok(Self { at, proxy: RwLock::new(Some(Arc::new(proxy))), taken: AtomicBool::new(false) })
    }
}

impl PassThrough for Forwarder {
    fn close(self: Arc<Self>, drain: Duration) -> Draining {
        async move {
            let proxy = self.proxy.write().unwrap_or_else(PoisonError::into_inner).take();
            let Some(proxy) = proxy else { return (0, 0) };
            let drained = proxy.drain(drain).await;
            (drained.carried, drained.cut)
        }
        .boxed()
    }
}

/// Rules in force in a pass-through; dropping this lifts them.
pub(super) struct InForce {
    pub(super) proxy: Arc<Proxy>,
    through: Arc<Forwarder>,
    /// Tells other processes that rules are in force; the kernel ends it with this process.
    _mark: UnixListener,
}

impl InForce {
    /// Puts the pass-through that this process is under rules. `mark` is their name.
    pub(super) fn begin(mark: &str, rules: Rules, host: &Host) -> Result<Self, FaultError> {
        let through =
            host.pass_through.clone().and_then(|through| (through as Arc<dyn Any + Send + Sync>).downcast().ok());
        let through: Arc<Forwarder> =
            through.ok_or_else(|| FaultError::new("this process is not the pass-through that the fault wants"))?;
        let at = through.at;
        let proxy = through.proxy.read().unwrap_or_else(PoisonError::into_inner).clone();
        let proxy = proxy.ok_or_else(|| FaultError::new(format!("the pass-through on {at} has closed")))?;
        if through.taken.swap(true, Ordering::SeqCst) {
            return Err(FaultError::new(format!("another fault is in force on {at}")));
        }
        let marked = UnixAddr::from_abstract_name(mark).and_then(|name| UnixListener::bind_addr(&name));
        match marked {
            Ok(mark) => {
                proxy.set_rules(rules);
                Ok(Self { proxy, through, _mark: mark })
            }
            Err(e) => {
                through.taken.store(false, Ordering::SeqCst);
                Err(FaultError::because("the rules cannot be marked as in force", e))
            }
        }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        self.proxy.set_rules(Rules::pass());
        self.through.taken.store(false, Ordering::SeqCst);
    }
}

/// Whether rules of this name are in force.
fn in_force(mark: &str) -> std::io::Result<bool> {
    let sockets = std::fs::read_to_string("/proc/net/unix")?;
    let mark = format!("@{mark}");
    Ok(sockets.lines().any(|line| line.split_whitespace().last() == Some(&mark)))
}

/// Waits until no rules of this name are in force. A pass-through that does not lift them, because it stands still, is
/// killed.
pub(super) async fn gone(at: SocketAddr, mark: &str, holder: Option<&ProcessId>) -> Result<String, FaultError> {
    if lifted(mark).await {
        return Ok(format!("the rules in the pass-through on {at} are gone"));
    }
    // Under sudo it may be another user's.
    let killed = holder.is_some_and(|id| Pidfd::open(id).and_then(|process| process.signal(Signal::KILL)).is_ok());
    if killed && lifted(mark).await {
        return Ok(format!("the pass-through on {at} stood still and was killed; its connections are cut"));
    }
    let error = FaultError::new(format!("the rules in the pass-through on {at} are still in force"));
    Err(match holder {
        Some(holder) => error.help(format!("end its process: `kill -KILL {}`", holder.pid())),
        None => error,
    })
}

/// Whether rules are gone soon: far later than a busy machine takes to notice the end of a socket.
async fn lifted(mark: &str) -> bool {
    const PATIENCE: Duration = Duration::from_secs(3);
    let wait = async {
        while in_force(mark).unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.is_ok()
}
