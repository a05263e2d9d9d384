//! Redirection inside connect(2), by BPF programs: works for single processes, which the packet filter cannot tell.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use toprope_engine::fault::FaultError;
use toprope_os::bpf::{ConnectRedirect, ConnectRule};
use toprope_os::cgroup::V2;
use toprope_proxy::Upstream;

use crate::network::blocking;
use crate::network::destination::{Destination, is_address};
use crate::network::family::Family;
use crate::network::table::{LEASE, RENEW};

/// How often new processes of the family are looked for, at most: a child's connections go straight before.
const LOOK: Duration = Duration::from_millis(100);
/// Looking takes at most this share of a core: one of so many.
const SPARING: u32 = 5;

type Programs = Arc<Mutex<Held>>;

/// The programs, which the proxy asks too.
pub(super) struct Held {
    /// `None` once they are detached.
    programs: Option<ConnectRedirect>,
    /// Nobody is to be meant any more.
    stopped: bool,
}

/// A redirection in force, and a lease that is renewed for as long as this value lives and this process runs. Dropping
/// it detaches the programs.
pub(super) struct Connect {
    programs: Programs,
    follower: AbortHandle,
    keeper: AbortHandle,
    lost: watch::Receiver<Option<String>>,
}

/// The destinations as rules.
///
/// # Errors
/// That the programs cannot tell these: they compare whole addresses and one port.
pub(super) fn rules(destination: &Destination, to: u16) -> Result<Vec<ConnectRule>, FaultError> {
    let port = destination.port.ok_or_else(|| {
        FaultError::new(format!("{destination} has no port, and the connections of single processes are told by one"))
            .help("write `to: HOST:PORT` or `to: \":PORT\"`")
    })?;
    let mut addresses: BTreeSet<Option<IpAddr>> = BTreeSet::new();
    for network in &destination.networks {
        addresses.insert(match network.prefix() {
            _ if is_address(network) => Some(network.address()),
            0 => None,
            _ => {
                let what = format!(
                    "{destination} is a network, and the connections of single processes are told by one address"
                );
                return Err(FaultError::new(what)
                    .help("write `to: HOST:PORT` or `to: \":PORT\"`, or select by `user` or `cgroup`"));
            }
        });
    }
    Ok(addresses.into_iter().map(|address| ConnectRule { address, port, to }).collect())
}

impl Connect {
    /// Attaches the programs; nobody is meant before [`Connect::follow`].
    pub(super) async fn attach(destination: &Destination, to: u16) -> Result<Programs, FaultError> {
        let rules = rules(destination, to)?;
        let attached = blocking(move || ConnectRedirect::attach(&V2::find()?.group("/")?, &rules)).await?;
        let programs = attached.map_err(|e| FaultError::new(e.to_string()))?;
        Ok(Arc::new(Mutex::new(Held { programs: Some(programs), stopped: false })))
    }

    /// Where each accepted connection was going.
    pub(super) fn upstream(programs: &Programs) -> Upstream {
        let programs = programs.clone();
        Upstream::resolve(move |client: &TcpStream| {
            let client = client.peer_addr()?;
            let wanted = match &lock(&programs).programs {
                Some(programs) => programs.original_destination(client).map_err(std::io::Error::other)?,
                None => None,
            };
            wanted.ok_or_else(|| std::io::Error::other("the connection was not redirected"))
        })
    }

    /// Redirects a family's connections, and those of the processes that join it.
    pub(super) async fn follow(programs: Programs, family: Family) -> Result<Self, FaultError> {
        let family = tell(&programs, family).await?;
        if let Some(Err(error)) = renew(&programs).await? {
            return Err(FaultError::new(error.to_string()));
        }
        let follower = tokio::spawn(follow(programs.clone(), family)).abort_handle();
        let (losing, lost) = watch::channel(None);
        let keeper = tokio::spawn(keep(programs.clone(), losing)).abort_handle();
        Ok(Self { programs, follower, keeper, lost })
    }

    /// Resolves, with the reason, when the lease has run out although this process lives.
    pub(super) async fn lost(&mut self) -> String {
        let why = self.lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// New connections go straight from now on. The programs stay, because the proxy may still ask where the last ones
    /// were going.
    pub(super) fn stop(&self) -> Result<(), FaultError> {
        self.follower.abort();
        self.keeper.abort();
        let mut held = lock(&self.programs);
        held.stopped = true;
        match &mut held.programs {
            Some(programs) => programs.set_pids([]).map_err(|e| FaultError::new(e.to_string())),
            None => Ok(()),
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        self.follower.abort();
        self.keeper.abort();
        drop(lock(&self.programs).programs.take());
    }
}

fn lock(programs: &Programs) -> MutexGuard<'_, Held> {
    programs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the programs who is meant now.
async fn tell(programs: &Programs, mut family: Family) -> Result<Family, FaultError> {
    let programs = programs.clone();
    let told = blocking(move || {
        let pids = family.now()?;
        let mut held = lock(&programs);
        let stopped = held.stopped;
        if let Some(programs) = held.programs.as_mut().filter(|_| !stopped) {
            programs.set_pids(pids).map_err(|e| FaultError::new(e.to_string()))?;
        }
        Ok(family)
    });
    told.await?
}

/// Renews the lease; `None` once nobody is to be meant any more.
async fn renew(programs: &Programs) -> Result<Option<toprope_os::Result<()>>, FaultError> {
    let programs = programs.clone();
    blocking(move || {
        let mut held = lock(&programs);
        let stopped = held.stopped;
        held.programs.as_mut().filter(|_| !stopped).map(|programs| programs.renew_lease(LEASE))
    })
    .await
}

/// Renews the lease until the programs are detached. That a frozen process does not get here is what the lease is for.
async fn keep(programs: Programs, losing: watch::Sender<Option<String>>) {
    loop {
        tokio::time::sleep(RENEW).await;
        match renew(&programs).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                let why = format!("this process stood still, so the kernel ended the fault by itself ({error})");
                losing.send_replace(Some(why));
                return;
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Tells them again and again. That it fails once, because too many processes came and went, is no reason to stop.
async fn follow(programs: Programs, mut family: Family) {
    let mut last = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK.max(last * SPARING)).await;
        let begin = Instant::now();
        if let Ok(told) = tell(&programs, family.clone()).await {
            family = told;
        }
        last = begin.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    async fn rules_to(to: &str) -> Result<Vec<ConnectRule>, FaultError> {
        let destination = Destination::resolve(&to.parse().unwrap(), &host()).await.unwrap();
        rules(&destination, 9999)
    }

    #[tokio::test]
    async fn addresses_and_ports_are_told_and_networks_are_not() {
        let rule = |address: Option<&str>| {
            let address = address.map(|a| a.parse().unwrap());
            ConnectRule { address, port: 80, to: 9999 }
        };
        assert_eq!(rules_to("127.0.0.1:80").await.unwrap(), [rule(Some("127.0.0.1"))]);
        assert_eq!(rules_to(":80").await.unwrap(), [rule(None)], "both kinds of addresses");
        assert!(rules_to("127.0.0.1").await.unwrap_err().message.contains("has no port"));
        assert!(rules_to("10.0.0.0/8:80").await.unwrap_err().message.contains("is a network"));
    }
}
