//! Leading TCP connections through a proxy of ours: which way, and that way taken.

mod connect;
mod redirect;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, FaultError};
use toprope_engine::host::Host;
use toprope_model::target::Target;
use toprope_os::process::{ProcessId, ProcessInfo};
use toprope_os::sockets::{TcpState, original_destination, set_mark, tcp_sockets};
use toprope_os::{bpf, nft};
use toprope_proxy::{Config, Listener, Proxy, Rules, Stats, Upstream};

use self::connect::Connect;
use self::redirect::{OUR_MARK, Redirect};
use super::clients::{Clients, Owner};
use super::destination::Destination;
use super::family::{Family, Picked};
use super::gone::{self, wait_until_gone};
use super::pass_through::{self, InForce};
use super::table::{Table, unused_name};

/// How connections come to the proxy, as a step tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Rules of this table redirect them.
    Redirect {
        /// The table's name.
        table: String,
        /// Whose connections.
        owner: Owner,
    },
    /// Programs in the kernel redirect those of some processes.
    Connect(Picked),
    /// A pass-through that the clients were told to connect to.
    PassThrough {
        /// Where it listens.
        at: SocketAddr,
        /// The name of the rules in it.
        mark: String,
        /// The process that holds it; not yet there where it is only planned.
        holder: Option<ProcessId>,
    },
}

impl Way {
    /// Chooses a way by what is asked for and by what this kernel lets us do.
    ///
    /// # Errors
    /// That there is none, and which variant would work.
    pub(crate) fn choose(
        from: Option<&Target>,
        picked: &[ProcessInfo],
        destination: &Destination,
        listen: Option<SocketAddr>,
        host: &Host,
    ) -> Result<Self, FaultError> {
        if let Some(at) = listen {
            let holder = host.pass_throughs.iter().find(|s| s.passage.at == at).map(|s| s.holder);
            match &holder {
                None => must_be_free(at)?,
                Some(holder) if holder.is_alive() => {}
                Some(_) => return Err(FaultError::new(format!("the pass-through on {at} is gone"))),
            }
            return Ok(Self::PassThrough { at, mark: unused_name(), holder });
        }
        let from =
            from.ok_or_else(|| FaultError::new("neither `from` nor `listen` says whose connections are meant"))?;
        match Clients::of(from)? {
            Clients::Owner(owner) if owner.port.is_none() => {
                owner.conditions()?;
                nft::supported().map_err(|e| {
                    FaultError::because(format!("the connections to {destination} cannot be redirected"), &e.why).help(
                        format!("{}; or add `listen: 127.0.0.1:PORT` and have the client connect there", e.instead),
                    )
                })?;
                Ok(Self::Redirect { table: unused_name(), owner })
            }
            _ => {
                connect::rules(destination, 0)?;
                bpf::supported().map_err(|e| {
                    FaultError::because(format!("the connections of {} alone cannot be redirected", from.0), &e.why).help(
                        format!(
                            "{}; or select by `user`, `cgroup` or `host: true`, which also works in a network of one's own \
                             (`toprope exec`); or add `listen: 127.0.0.1:PORT` and have the client connect there",
                            e.instead
                        ),
                    )
                })?;
                Ok(Self::Connect(Picked(picked.iter().map(|p| p.id).collect())))
            }
        }
    }

    /// The mechanism in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Redirect { .. } => "a proxy, behind a redirection by nftables".into(),
            Self::Connect(_) => "a proxy, behind a redirection by BPF in connect(2)".into(),
            Self::PassThrough { at, .. } => {
                format!("a pass-through on {at}, which listens from before the steady state until the run has ended")
            }
        }
    }

    /// What it takes for itself alone.
    pub(crate) fn claim(&self, destination: &Destination) -> String {
        match self {
            Self::Redirect { .. } | Self::Connect(_) => format!("tcp to {destination}"),
            Self::PassThrough { at, .. } => format!("listener {at}"),
        }
    }

    /// The process of the pass-through, whose connections to the destination are not the clients'.
    pub(crate) fn pass_through(&self) -> Option<u32> {
        match self {
            Self::PassThrough { holder, .. } => holder.as_ref().map(ProcessId::pid),
            Self::Redirect { .. } | Self::Connect(_) => None,
        }
    }

    /// The processes that were picked, where single ones are meant.
    pub(crate) fn picked(&self) -> Picked {
        match self {
            Self::Connect(picked) => picked.clone(),
            Self::Redirect { .. } | Self::PassThrough { .. } => Picked::default(),
        }
    }

    /// By which means the kernel undoes it.
    pub(crate) fn owned_by(&self) -> String {
        match self {
            Self::Redirect { table, .. } => {
                format!("the nftables table {table} goes with the process that made it, and the proxy too")
            }
            Self::Connect(_) => "the BPF programs go with the process that attached them, and the proxy too".into(),
            Self::PassThrough { at, .. } => {
                format!("the rules go with the injector's socket to the pass-through on {at}, which goes with the run")
            }
        }
    }

    /// Waits until nothing is left of it.
    pub(crate) async fn gone(&self, holder: &ProcessId) -> Result<String, FaultError> {
        match self {
            Self::Redirect { table, .. } => {
                let what = format!("the nftables table {table}");
                wait_until_gone(holder, &what, gone::table(table)).await?;
                Ok(format!("{what} is gone, and the proxy with it"))
            }
            Self::Connect(_) => {
                // Nothing of it has a name: it is there for as long as the process is.
                wait_until_gone(holder, "the redirection by BPF", || Ok(false)).await?;
                Ok("the redirection by BPF is gone, and the proxy with it".into())
            }
            Self::PassThrough { at, mark, holder } => pass_through::gone(*at, mark, holder.as_ref()).await,
        }
    }
}

pub(super) fn must_be_free(at: SocketAddr) -> Result<(), FaultError> {
    let sockets = tcp_sockets(&[TcpState::Listen])
        .map_err(|e| FaultError::because("the listening sockets cannot be listed", e))?;
    let same = |s: SocketAddr| {
        s.port() == at.port() && (s.ip() == at.ip() || s.ip().is_unspecified() || at.ip().is_unspecified())
    };
    match sockets.iter().find(|s| same(s.local)) {
        None => Ok(()),
        Some(taken) => Err(FaultError::new(format!("{at} cannot be listened on: somebody listens on {}", taken.local))
            .help("choose another port, or end that program")),
    }
}

/// Connections that are led through a proxy.
pub(crate) struct Interception {
    proxy: Arc<Proxy>,
    redirection: Redirection,
}

enum Redirection {
    Redirect(Redirect),
    Connect(Connect),
    /// The clients come by themselves.
    PassThrough(InForce),
}

impl Interception {
    /// Starts the proxy first, then leads connections to it. `family` is who is meant where processes are.
    pub(crate) async fn begin(
        way: &Way,
        destination: &Destination,
        rules: Rules,
        family: Option<Family>,
        host: &Host,
    ) -> Result<Self, FaultError> {
        match way {
            Way::Redirect { table, owner } => {
                // Before any socket of the proxy: when a process dies, the kernel closes what was opened last first. If
                // the address translation ended before the connections, their clients would not understand the reset.
                let table = Table::create(table).await?;
                let (listeners, port) = on_loopback(destination)?;
                let proxy = start(listeners, Upstream::resolve(before_redirection), rules)?;
                let redirect = Redirect::begin(table, owner, destination, port).await?;
                Ok(Self { proxy: Arc::new(proxy), redirection: Redirection::Redirect(redirect) })
            }
            Way::Connect(_) => {
                let family =
                    family.ok_or_else(|| FaultError::new("`from`, which says whose connections, is missing"))?;
                let (listeners, port) = on_loopback(destination)?;
                let programs = Connect::attach(destination, port).await?;
                let proxy = start(listeners, Connect::upstream(&programs), rules)?;
                let connect = Connect::follow(programs, family).await?;
                Ok(Self { proxy: Arc::new(proxy), redirection: Redirection::Connect(connect) })
            }
            Way::PassThrough { mark, .. } => {
                let rules = InForce::begin(mark, rules, host)?;
                Ok(Self { proxy: rules.proxy.clone(), redirection: Redirection::PassThrough(rules) })
            }
        }
    }

    /// What the proxy saw.
    pub(crate) fn stats(&self) -> Stats {
        self.proxy.stats()
    }

    /// Where the proxy listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.proxy.addresses()
    }

    /// Puts all connections under other rules.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.proxy.set_rules(rules);
    }

    /// Resolves when the kernel has ended it, with the reason.
    pub(crate) async fn lost(&mut self) -> String {
        match &mut self.redirection {
            Redirection::Redirect(redirect) => redirect.lost().await,
            Redirection::Connect(connect) => connect.lost().await,
            Redirection::PassThrough(_) => std::future::pending().await,
        }
    }

    /// New connections go straight when this returns. Those in flight go on, untouched by rules, for at most `drain`; in
    /// a pass-through all go on.
    pub(crate) async fn release(self, drain: Duration) -> Result<Option<Draining>, FaultError> {
        match &self.redirection {
            Redirection::Redirect(redirect) => redirect.stop().await?,
            Redirection::Connect(connect) => connect.stop()?,
            Redirection::PassThrough(_) => {}
        }
        let Self { proxy, redirection } = self;
        if let Redirection::PassThrough(rules) = redirection {
            drop(rules);
            return Ok(None);
        }
        // A task, so that the rules are lifted from the connections in flight now, whenever the result is asked for.
        let draining = tokio::spawn(async move {
            let drained = proxy.drain(drain).await;
            // Not before: without its address translation the kernel would reset them.
            if let Redirection::Redirect(redirect) = redirection {
                // An error leaves it to the end of the table's socket, which comes with the value's.
                drop(redirect.remove().await);
            }
            (drained.carried, drained.cut)
        });
        Ok(Some(Box::pin(async move { draining.await.unwrap_or_default() })))
    }
}

pub(super) fn start(listeners: Vec<TcpListener>, upstream: Upstream, rules: Rules) -> Result<Proxy, FaultError> {
    let mut listeners = listeners.into_iter().map(Listener::from);
    let first = listeners.next().expect("a destination has at least one network, so there is a listener");
    let config = listeners.fold(Config::new(first, upstream), Config::listen).rules(rules).prepare(|socket| {
        // Without the right to mark nobody can redirect either, and then no mark is needed.
        match set_mark(socket, OUR_MARK) {
            Err(e) if !e.is_permission_denied() => Err(std::io::Error::other(e)),
            _ => Ok(()),
        }
    });
    Proxy::start(config).map_err(|e| FaultError::because("the proxy cannot be started", e))
}

/// A listener for each kind of address that the destination has, both on one port that the kernel chooses.
fn on_loopback(destination: &Destination) -> Result<(Vec<TcpListener>, u16), FaultError> {
    const TRIES: u32 = 16;
    let has = |v4: bool| destination.networks.iter().any(|n| n.address().is_ipv4() == v4);
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let first = if has(true) { v4 } else { v6 };
    let mut tries = 0;
    loop {
        tries += 1;
        let listener = listen(SocketAddr::new(first, 0))?;
        let port = listener.local_addr().map_err(|e| FaultError::because("the proxy's port cannot be read", e))?.port();
        if !(has(true) && has(false)) {
            return Ok((vec![listener], port));
        }
        match TcpListener::bind(SocketAddr::new(v6, port)) {
            Ok(second) => return Ok((vec![listener, second], port)),
            // The port is taken there.
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && tries < TRIES => {}
            // A host without IPv6 has no such connections either.
            Err(_) => return Ok((vec![listener], port)),
        }
    }
}

pub(super) fn listen(at: SocketAddr) -> Result<TcpListener, FaultError> {
    TcpListener::bind(at).map_err(|e| {
        FaultError::because(format!("the proxy cannot listen on {at}"), e).help("choose another port with `listen`")
    })
}

/// Where an accepted connection was going.
fn before_redirection(client: &tokio::net::TcpStream) -> std::io::Result<SocketAddr> {
    let wanted = original_destination(client).map_err(std::io::Error::other)?;
    let here = client.local_addr()?;
    // Somebody connected to the proxy itself: to pass that on would have it call itself without end.
    wanted.filter(|wanted| *wanted != here).ok_or_else(|| std::io::Error::other("the connection was not redirected"))
}
