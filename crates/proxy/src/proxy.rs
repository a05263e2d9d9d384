//! The proxy: accepts, gives orders to its connections, and ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::clock::Moment;
use crate::config::{Config, Prepare, Upstream};
use crate::connection::{Socket, carry};
use crate::rules::{Rules, Way};
use crate::shape::Shape;
use crate::stats::{Counters, Event, Stats};
use crate::timer::Timer;

/// How long to leave accept alone after it failed: what it lacks (file descriptors) does not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running TCP proxy.
///
/// Dropping it ends it at once: nothing more is accepted and every connection is cut, with a reset on both sides.
/// [`Proxy::drain`] ends it gently.
pub struct Proxy {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// The only sender: its end is the order to cut.
    orders: watch::Sender<Orders>,
    acceptors: TaskTracker,
    connections: TaskTracker,
    timer: AbortHandle,
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no runtime to run on.
    #[error(
        "cannot start a proxy outside a tokio runtime: call Proxy::start from async code, or enter a runtime first"
    )]
    NoRuntime,
    /// A listening socket cannot be used.
    #[error("cannot accept connections on the given socket: {0}; it must be a TCP socket that is bound and listens")]
    Listener(#[source] io::Error),
    /// The timer cannot be made.
    #[error("cannot make the timer that delays are kept by (timerfd): {0}; is the limit of open files reached?")]
    Timer(#[source] io::Error),
}

/// What became of the connections that were open when a drain began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Carried on until one of their own sides ended them.
    pub carried: u64,
    /// Cut when the time was over.
    pub cut: u64,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    pub(crate) timer: Arc<Timer>,
    pub(crate) upstream: Upstream,
    pub(crate) prepare: Option<Prepare>,
    pub(crate) connect_timeout: Duration,
}

/// What the proxy wants of its acceptors and connections.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) rules: Arc<Rules>,
    /// Counts the changes of the rules.
    generation: u64,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Draining,
    Cut,
}

impl Orders {
    pub(crate) fn cuts(&self) -> bool {
        self.phase == Phase::Cut
    }

    pub(crate) fn shape(&self, connection: u64, way: Way, now: Moment) -> Shape {
        self.rules.shape(connection, way, self.generation, now)
    }
}

impl Proxy {
    /// Starts a proxy on the running tokio runtime, which needs its I/O and time drivers (`enable_all`).
    pub fn start(config: Config) -> Result<Proxy, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let open = |listener: crate::config::Listener| {
            let listener = listener.open()?;
            Ok((listener.local_addr()?, listener))
        };
        let listeners: Vec<_> =
            config.listeners.into_iter().map(open).collect::<io::Result<_>>().map_err(StartError::Listener)?;
        let timer = Arc::new(Timer::new().map_err(StartError::Timer)?);
        let rings = runtime.spawn(Arc::clone(&timer).run());

        let shared = Arc::new(Shared {
            counters: Arc::new(Counters::new()),
            timer,
            upstream: config.upstream,
            prepare: config.prepare,
            connect_timeout: config.connect_timeout,
        });
        let first = Orders { rules: Arc::new(config.rules), generation: 0, phase: Phase::Open };
        let proxy = Proxy {
            shared,
            addresses: listeners.iter().map(|(address, _)| *address).collect(),
            orders: watch::Sender::new(first),
            acceptors: TaskTracker::new(),
            connections: TaskTracker::new(),
            timer: rings.abort_handle(),
        };
        for (_, listener) in listeners {
            let acceptor = Acceptor {
                shared: Arc::clone(&proxy.shared),
                orders: proxy.orders.subscribe(),
                connections: proxy.connections.clone(),
            };
            proxy.acceptors.spawn(acceptor.run(listener));
        }
        Ok(proxy)
    }

    /// Where it listens: one address for each listener, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Puts all connections, open ones too, under other rules at once.
    ///
    /// No byte is lost, doubled or reordered: what waits leaves when it would have or when it would under the new rules,
    /// whichever is earlier. Has no effect once a drain has begun.
    pub fn set_rules(&self, rules: Rules) {
        self.orders.send_if_modified(|orders| {
            let open = orders.phase == Phase::Open;
            if open {
                orders.rules = Arc::new(rules);
                orders.generation += 1;
            }
            open
        });
    }

    /// What happened so far, measured.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Ends the proxy gently: closes its listeners, lets everything pass from now on, carries the open connections until
    /// they end or `within` is over, and then cuts the rest.
    ///
    /// Connections that the kernel accepted before are taken in. When this comes back, every socket of the proxy is
    /// closed. If the future is dropped the drain goes on without its end, until the proxy is dropped.
    pub async fn drain(&self, within: Duration) -> Drained {
        // What was in flight counts, however long it takes to stop taking in what comes.
        let before = self.shared.counters.connections();
        self.order(Phase::Draining);
        self.acceptors.close();
        self.acceptors.wait().await;
        self.connections.close();
        if timeout(within, self.connections.wait()).await.is_err() {
            self.order(Phase::Cut);
            self.connections.wait().await;
        }
        let after = self.shared.counters.connections();
        Drained { carried: after.finished + after.reset - before.finished - before.reset, cut: after.cut - before.cut }
    }

    fn order(&self, phase: Phase) {
        self.orders.send_modify(|orders| {
            orders.rules = Arc::new(Rules::pass());
            orders.generation += 1;
            orders.phase = phase;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Acceptors and connections see that the orders have ended; the timer hears of nothing.
        self.timer.abort();
    }
}

/// Takes in the connections of one listener.
struct Acceptor {
    shared: Arc<Shared>,
    orders: watch::Receiver<Orders>,
    connections: TaskTracker,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        let mut orders = self.orders.clone();
        let stop = async { orders.wait_for(|orders| orders.phase != Phase::Open).await.is_ok() };
        tokio::pin!(stop);
        let draining = loop {
            tokio::select! {
                biased;
                draining = &mut stop => break draining,
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => self.take(client),
                    Err(error) => {
                        self.shared.counters.count(Event::AcceptError);
                        // The one error that concerns a single connection, gone before it was taken.
                        if error.kind() != io::ErrorKind::ConnectionAborted {
                            sleep(ACCEPT_PAUSE).await;
                        }
                    }
                },
            }
        };
        if draining {
            self.take_the_rest(listener);
        }
    }

    fn take(&mut self, client: TcpStream) {
        let number = self.shared.counters.count(Event::Accepted);
        let carry = carry(Arc::clone(&self.shared), self.orders.clone(), Socket::from(client), number);
        self.connections.spawn(carry);
    }

    /// Takes what the kernel has accepted by now, which closing the listener would reset. It is asked directly, because the
    /// runtime may not have heard of it yet.
    fn take_the_rest(&mut self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((client, _)) = listener.accept() {
            if client.set_nonblocking(true).is_ok()
                && let Ok(client) = TcpStream::from_std(client)
            {
                self.take(client);
            }
        }
    }
}
