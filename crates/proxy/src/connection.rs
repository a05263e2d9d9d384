//! One connection: two flows between two sockets, under the rules as they change, until it ends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Moment;
use crate::flow::{Flow, State};
use crate::proxy::{Orders, Shared};
use crate::rules::{Admission, Way};
use crate::stats::Event;
use crate::timer::Alarm;

/// Carries `client` for as long as it lives. The proxy gave it the number `number`.
pub(crate) async fn carry(shared: Arc<Shared>, mut orders: watch::Receiver<Orders>, client: Socket, number: u64) {
    let _open = Open(&shared);
    let now = orders.borrow_and_update().clone();
    if now.rules.admit(number) == Admission::Reset {
        shared.counters.count(Event::Affected);
        shared.counters.count(Event::Refused);
        return;
    }
    // While the upstream is called only the order to cut matters; changed rules are taken up afterwards.
    let called = tokio::select! {
        biased;
        () = cut(orders.clone()) => Err(Event::Cut),
        called = call(&shared, &client.stream) => called,
    };
    let server = match called {
        Ok(server) => Socket::from(server),
        Err(failure) => {
            shared.counters.count(failure);
            return;
        }
    };
    // What one side sends goes on at once, as it would without a proxy. A socket that refuses is dead: reading it tells.
    let _ = (client.stream.set_nodelay(true), server.stream.set_nodelay(true));
    let flow = |way| Flow::new(way, number, Arc::clone(&shared.counters));
    let (up, down, alarm) = (flow(Way::Up), flow(Way::Down), shared.timer.alarm());
    let mut connection = Connection { shared: &shared, number, affected: false, client, server, up, down, alarm };
    connection.obey(&now);
    connection.run(orders).await;
}

/// Connects to the upstream of `client`; if that fails, tells what to count.
async fn call(shared: &Shared, client: &TcpStream) -> Result<TcpStream, Event> {
    let socket = || -> io::Result<_> {
        let upstream = shared.upstream.of(client)?;
        let socket = if upstream.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(prepare) = &shared.prepare {
            prepare(&socket)?;
        }
        Ok((socket, upstream))
    };
    let (socket, upstream) = socket().map_err(|_| Event::UpstreamFailed)?;
    match timeout(shared.connect_timeout, socket.connect(upstream)).await {
        Ok(Ok(server)) => Ok(server),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused => Event::UpstreamRefused,
            io::ErrorKind::TimedOut => Event::UpstreamTimedOut,
            _ => Event::UpstreamFailed,
        }),
        Err(_) => Err(Event::UpstreamTimedOut),
    }
}

/// Comes back when the connections are to be cut.
async fn cut(mut orders: watch::Receiver<Orders>) {
    // An error says that the proxy is gone, which cuts too.
    let _ = orders.wait_for(Orders::cuts).await;
}

/// A socket that is closed with a reset unless its stream ended in order: who is cut off in the middle must not take it for
/// the end. This holds for every way out, also for a task that is dropped with its runtime.
pub(crate) struct Socket {
    stream: TcpStream,
    in_order: bool,
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket { stream, in_order: false }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.in_order {
            // Fails only on a socket that is dead already: then there is nobody to tell.
            let _ = self.stream.set_zero_linger();
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    number: u64,
    /// Whether a rule has shaped it at some time.
    affected: bool,
    client: Socket,
    server: Socket,
    up: Flow,
    down: Flow,
    alarm: Alarm,
}

impl Connection<'_> {
    async fn run(mut self, mut orders: watch::Receiver<Orders>) {
        let ending = loop {
            // Orders first: a flow that never rests must not keep them from being heard.
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    let now = orders.borrow_and_update().clone();
                    if changed.is_err() || now.cuts() {
                        break Event::Cut;
                    }
                    self.obey(&now);
                }
                ending = poll_fn(|cx| self.poll(cx)) => break ending,
            }
        };
        self.client.in_order = ending == Event::Finished;
        self.server.in_order = ending == Event::Finished;
        self.shared.counters.count(ending);
    }

    fn obey(&mut self, orders: &Orders) {
        let now = Moment::now();
        let (up, down) = (orders.shape(self.number, Way::Up, now), orders.shape(self.number, Way::Down, now));
        let shaped = !up.is_pass() || !down.is_pass();
        if shaped && !self.affected {
            self.affected = true;
            self.shared.counters.count(Event::Affected);
        }
        self.up.reshape(up);
        self.down.reshape(down);
    }

    /// Moves what can be moved; ready with how the connection ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let (client, server) = (&self.client.stream, &self.server.stream);
        self.up.poll(cx, client, server);
        self.down.poll(cx, server, client);
        // Who cannot be written to is gone. The kernel tells so only once, and a later read would see an orderly end.
        if self.down.state() == State::Broken {
            self.up.sender_gone();
        }
        if self.up.state() == State::Broken {
            self.down.sender_gone();
        }
        match (self.up.state(), self.down.state()) {
            (State::Finished, State::Finished) => Poll::Ready(Event::Finished),
            (State::Reset, _) | (_, State::Reset) | (State::Broken, State::Broken) => Poll::Ready(Event::Reset),
            _ => {
                self.alarm.set(self.up.wakes_at().min(self.down.wakes_at()), cx.waker());
                Poll::Pending
            }
        }
    }
}

/// Counts a connection as open for as long as this lives.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.count(Event::Gone);
    }
}
