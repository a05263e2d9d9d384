//! What a proxy is started with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::rules::Rules;

pub(crate) type Prepare = Arc<dyn Fn(&TcpSocket) -> io::Result<()> + Send + Sync>;
type Resolve = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// What a proxy is started with: where it listens, where it connects, and by which rules.
pub struct Config {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) upstream: Upstream,
    pub(crate) prepare: Option<Prepare>,
    pub(crate) rules: Rules,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    /// Listens on a socket that is bound already, and connects to `upstream`.
    ///
    /// The listener may come from another network namespace: connections to the upstream are made in the namespace of the
    /// proxy's threads.
    pub fn new(listener: impl Into<Listener>, upstream: impl Into<Upstream>) -> Config {
        Config {
            listeners: vec![listener.into()],
            upstream: upstream.into(),
            prepare: None,
            rules: Rules::pass(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// Listens on one more socket.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<Listener>) -> Config {
        self.listeners.push(listener.into());
        self
    }

    /// The rules in force from the first connection on. Without them everything passes.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Config {
        Config { rules, ..self }
    }

    /// Called with each socket to the upstream before it connects, to set a mark on it for instance, so that the
    /// redirection that brought the client here leaves the proxy alone. An error fails the connection. Must not block.
    #[must_use]
    pub fn prepare(self, hook: impl Fn(&TcpSocket) -> io::Result<()> + Send + Sync + 'static) -> Config {
        Config { prepare: Some(Arc::new(hook)), ..self }
    }

    /// How long to wait for the upstream to accept a connection, 10 s by default; then the client is reset.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Config {
        Config { connect_timeout: timeout, ..self }
    }
}

/// A listening TCP socket, from the standard library or from tokio.
pub struct Listener(pub(crate) Source);

pub(crate) enum Source {
    Std(std::net::TcpListener),
    Tokio(tokio::net::TcpListener),
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Listener {
        Listener(Source::Std(listener))
    }
}

impl From<tokio::net::TcpListener> for Listener {
    fn from(listener: tokio::net::TcpListener) -> Listener {
        Listener(Source::Tokio(listener))
    }
}

impl Listener {
    /// Hands the socket to the running tokio runtime.
    pub(crate) fn open(self) -> io::Result<tokio::net::TcpListener> {
        match self.0 {
            Source::Std(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            }
            Source::Tokio(listener) => Ok(listener),
        }
    }
}

/// Where connections go.
#[derive(Clone)]
pub enum Upstream {
    /// All to one address.
    Fixed(SocketAddr),
    /// Each to the address that is asked for with its accepted socket: see [`Upstream::resolve`].
    Resolve(Resolve),
}

impl Upstream {
    /// Asks for the address of each connection, with its accepted socket: for redirected connections, where they were going
    /// before (`SO_ORIGINAL_DST`). An error resets the client.
    ///
    /// Must not block. Must not answer the proxy's own listener, as `SO_ORIGINAL_DST` does for a client that was not
    /// redirected: the proxy would connect to itself without end.
    pub fn resolve(resolve: impl Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync + 'static) -> Upstream {
        Upstream::Resolve(Arc::new(resolve))
    }

    pub(crate) fn of(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Upstream::Fixed(address) => Ok(*address),
            Upstream::Resolve(resolve) => resolve(accepted),
        }
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Upstream {
        Upstream::Fixed(address)
    }
}
