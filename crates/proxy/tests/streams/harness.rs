//! Sockets around a proxy, and streams whose every byte tells its place.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use toprope_proxy::{Config, Proxy, Rules};

/// Longer than anything here takes on a machine that stalls; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy in front of a listener that the test holds.
pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    pub(crate) upstream: TcpListener,
}

impl Stage {
    pub(crate) async fn with(rules: Rules) -> Stage {
        Stage::configured(|config| config.rules(rules)).await
    }

    pub(crate) async fn configured(configure: impl FnOnce(Config) -> Config) -> Stage {
        let upstream = listener().await;
        let config = Config::new(listener().await, upstream.local_addr().expect("bound"));
        Stage { proxy: Proxy::start(configure(config)).expect("proxy starts"), upstream }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    /// A new connection: the client's end and the server's.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address()).await.expect("the proxy accepts");
        let (server, _) = within(self.upstream.accept()).await.expect("the proxy calls the upstream");
        (client, server)
    }

    /// Waits until no connection is open.
    pub(crate) async fn emptied(&self) {
        within(async {
            while self.proxy.stats().connections.open > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback")
}

/// Fails the test rather than to wait for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("the test's patience")
}

/// A stream whose period is a prime, so that no loss, repetition or exchange of chunks goes unseen.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..65_521).map(byte).collect()
});

/// The stream's next bytes from `position`, at most `most` of them.
fn pattern(position: usize, most: usize) -> &'static [u8] {
    let start = position % PATTERN.len();
    &PATTERN[start..PATTERN.len().min(start + most)]
}

/// Sends the first `total` bytes of the stream in writes of at most `piece`, then ends this direction.
pub(crate) async fn send(to: &mut (impl AsyncWriteExt + Unpin), total: usize, piece: usize) {
    let mut sent = 0;
    while sent < total {
        let next = pattern(sent, piece.min(total - sent));
        to.write_all(next).await.expect("the stream goes on");
        sent += next.len();
    }
    to.shutdown().await.expect("the stream ends in order");
}

/// Reads to the end, checks every byte by its place, and returns how many there were.
pub(crate) async fn receive(from: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let (mut received, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        let len = from.read(&mut buffer).await.expect("the stream ends in order");
        if len == 0 {
            return received;
        }
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let expected = pattern(received, rest.len());
            let (now, later) = rest.split_at(expected.len());
            assert!(now == expected, "bytes {received}.. are not the stream's");
            received += now.len();
            rest = later;
        }
    }
}

/// Sends `total` bytes both ways at the same time and checks them.
pub(crate) async fn exchange(client: TcpStream, server: TcpStream, total: usize, piece: usize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let received = within(async {
        tokio::join!(
            send(&mut to_client, total, piece),
            send(&mut to_server, total, piece),
            receive(&mut from_client),
            receive(&mut from_server),
        )
    })
    .await;
    assert_eq!((received.2, received.3), (total, total));
}

/// Reads until the connection ends, which must be by a reset; returns what came before it.
pub(crate) async fn read_until_reset(from: &mut TcpStream) -> Vec<u8> {
    let mut before = Vec::new();
    let error = within(from.read_to_end(&mut before)).await.expect_err("a reset, not an orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    before
}
