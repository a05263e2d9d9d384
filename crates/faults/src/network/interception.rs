//! Leading TCP connections through a proxy of ours: which way, and that way taken.

mod redirect;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, FaultError};
use toprope_model::target::Target;
use toprope_os::nft;
use toprope_os::process::ProcessId;
use toprope_os::sockets::{TcpState, original_destination, set_mark, tcp_sockets};
use toprope_proxy::{Config, Listener, Proxy, Rules, Stats, Upstream};

use self::redirect::{OUR_MARK, Ports, Redirect};
use super::clients::{Clients, Owner};
use super::destination::Destination;
use super::gone::{self, wait_until_gone};
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
    /// The clients were told to connect there.
    Listen(SocketAddr),
}

impl Way {
    /// Chooses a way by what is asked for and by what this kernel lets us do.
    ///
    /// # Errors
    /// That there is none, and which variant would work.
    pub(crate) fn choose(
        from: Option<&Target>,
        destination: &Destination,
        listen: Option<SocketAddr>,
    ) -> Result<Self, FaultError> {
        if let Some(at) = listen {
            must_be_free(at)?;
            return Ok(Self::Listen(at));
        }
        let from =
            from.ok_or_else(|| FaultError::new("neither `from` nor `listen` says whose connections are meant"))?;
        match Clients::of(from)? {
            Clients::Owner(owner) if owner.port.is_none() => {
                owner.conditions()?;
                nft::supported().map_err(|e| {
                    FaultError::because(format!("the connections to {destination} cannot be redirected"), &e).help(
                        format!("{}; or add `listen: 127.0.0.1:PORT` and have the client connect there", e.instead),
                    )
                })?;
                Ok(Self::Redirect { table: unused_name(), owner })
            }
            _ => Err(FaultError::new(format!("the connections of {} alone cannot be redirected here", from.0)).help(
                "select by `user`, `cgroup` or `host: true`, which the packet filter can tell; \
                 or add `listen: 127.0.0.1:PORT` and have the client connect there",
            )),
        }
    }

    /// The mechanism in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Redirect { .. } => "a proxy, behind a redirection by nftables".into(),
            Self::Listen(at) => format!("a proxy that listens on {at}, where the client was told to connect"),
        }
    }

    /// By which means the kernel undoes it.
    pub(crate) fn owned_by(&self) -> String {
        match self {
            Self::Redirect { table, .. } => {
                format!("the nftables table {table} goes with the process that made it, and the proxy too")
            }
            Self::Listen(at) => format!("the listener on {at} goes with its process"),
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
            Self::Listen(at) => {
                let what = format!("the listener on {at}");
                wait_until_gone(holder, &what, gone::listener(*at)).await?;
                Ok(format!("{what} is gone"))
            }
        }
    }
}

fn must_be_free(at: SocketAddr) -> Result<(), FaultError> {
    let sockets = tcp_sockets().map_err(|e| FaultError::because("the listening sockets cannot be listed", e))?;
    let same = |s: SocketAddr| {
        s.port() == at.port() && (s.ip() == at.ip() || s.ip().is_unspecified() || at.ip().is_unspecified())
    };
    match sockets.iter().find(|s| s.state == TcpState::Listen && same(s.local)) {
        None => Ok(()),
        Some(taken) => Err(FaultError::new(format!("{at} cannot be listened on: somebody listens on {}", taken.local))
            .help("choose another port, or end that program")),
    }
}

/// Connections that are led through a proxy.
pub(crate) struct Interception {
    proxy: Proxy,
    redirect: Option<Redirect>,
}

impl Interception {
    /// Starts the proxy first, then leads connections to it.
    pub(crate) async fn begin(way: &Way, destination: &Destination, rules: Rules) -> Result<Self, FaultError> {
        match way {
            Way::Redirect { table, owner } => {
                // Before any socket of the proxy: when a process dies, the kernel closes what was opened last first. If
                // the address translation ended before the connections, their clients would not understand the reset.
                let table = Table::create(table).await?;
                let (listeners, ports) = on_loopback(destination)?;
                let proxy = start(listeners, Upstream::resolve(before_redirection), rules)?;
                let redirect = Redirect::begin(table, owner, destination, ports).await?;
                Ok(Self { proxy, redirect: Some(redirect) })
            }
            Way::Listen(at) => {
                let upstream = destination.socket().ok_or_else(|| {
                    FaultError::new(format!("{destination} is not one address and port for the proxy to connect to"))
                })?;
                let proxy = start(vec![listen(*at)?], upstream.into(), rules)?;
                Ok(Self { proxy, redirect: None })
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
        match &mut self.redirect {
            Some(redirect) => redirect.lost().await,
            None => std::future::pending().await,
        }
    }

    /// New connections go straight when this returns. Those in flight go on, untouched by rules, for at most `drain`.
    pub(crate) async fn release(self, drain: Duration) -> Result<Draining, FaultError> {
        if let Some(redirect) = &self.redirect {
            redirect.stop().await?;
        }
        let Self { proxy, redirect } = self;
        // A task, so that the rules are lifted from the connections in flight now, whenever the result is asked for.
        let draining = tokio::spawn(async move {
            let drained = proxy.drain(drain).await;
            // Not before: without its address translation the kernel would reset them.
            if let Some(redirect) = redirect {
                // An error leaves it to the socket's end, which comes with the value's.
                drop(redirect.remove().await);
            }
            (drained.carried, drained.cut)
        });
        Ok(Box::pin(async move { draining.await.unwrap_or_default() }))
    }
}

fn start(listeners: Vec<TcpListener>, upstream: Upstream, rules: Rules) -> Result<Proxy, FaultError> {
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

/// A listener for each kind of address that the destination has, on ports that the kernel chooses.
fn on_loopback(destination: &Destination) -> Result<(Vec<TcpListener>, Ports), FaultError> {
    let has = |v4: bool| destination.networks.iter().any(|n| n.address().is_ipv4() == v4);
    let (mut listeners, mut ports) = (Vec::new(), Ports::default());
    let mut open = |address: IpAddr| {
        let listener = listen(SocketAddr::new(address, 0))?;
        let bound = listener.local_addr().map_err(|e| FaultError::because("the proxy's port cannot be read", e))?;
        listeners.push(listener);
        Ok::<_, FaultError>(Some(bound.port()))
    };
    if has(true) {
        ports.v4 = open(Ipv4Addr::LOCALHOST.into())?;
    }
    if has(false) {
        ports.v6 = match open(Ipv6Addr::LOCALHOST.into()) {
            // A host without IPv6 has no such connections either.
            Err(_) if ports.v4.is_some() => None,
            other => other?,
        };
    }
    Ok((listeners, ports))
}

fn listen(at: SocketAddr) -> Result<TcpListener, FaultError> {
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
