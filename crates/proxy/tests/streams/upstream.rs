//! Which upstream is called, and what the client sees when it does not answer; and clients that are refused by rule.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use toprope_proxy::{Config, Direction, Proxy, Refuse, Rules, Upstream};

use crate::harness::{Stage, listener, read_until_reset, within};

async fn dead_address() -> SocketAddr {
    listener().await.local_addr().expect("bound")
}

#[tokio::test]
async fn a_refused_upstream_resets_the_client() {
    let proxy = Proxy::start(Config::new(listener().await, dead_address().await)).expect("starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.expect("accepted");
    assert!(read_until_reset(&mut client).await.is_empty());
    let connections = proxy.stats().connections;
    assert_eq!((connections.upstream_refused, connections.open), (1, 0));
}

#[tokio::test]
async fn a_silent_upstream_resets_the_client_in_time() {
    // A full backlog drops what else wants in.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
    let full = socket.listen(1).expect("listens");
    let upstream = full.local_addr().expect("bound");
    let mut queued = Vec::new();
    while let Ok(Ok(client)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(upstream)).await {
        queued.push(client);
        assert!(queued.len() < 100, "the backlog never fills");
    }
    let config = Config::new(listener().await, upstream).connect_timeout(Duration::from_millis(100));
    let proxy = Proxy::start(config).expect("starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.expect("accepted");
    assert!(read_until_reset(&mut client).await.is_empty());
    assert_eq!(proxy.stats().connections.upstream_timed_out, 1);

    // A drain does not wait for an upstream that does not answer.
    let config = Config::new(listener().await, upstream).connect_timeout(Duration::from_secs(600));
    let proxy = Proxy::start(config).expect("starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.expect("accepted");
    let drained = within(proxy.drain(Duration::from_millis(50))).await;
    assert_eq!(drained.cut, 1);
    assert!(read_until_reset(&mut client).await.is_empty());
}

#[tokio::test]
async fn the_upstream_is_asked_for_with_the_accepted_socket() {
    let (one, two) = (listener().await, listener().await);
    let addresses = [one.local_addr().expect("bound"), two.local_addr().expect("bound")];
    let (door_one, door_two) = (listener().await, listener().await);
    let first_door = door_one.local_addr().expect("bound");
    let asked = Upstream::resolve(move |accepted| {
        Ok(if accepted.local_addr()? == first_door { addresses[0] } else { addresses[1] })
    });
    let door_two = door_two.into_std().expect("a listener from elsewhere");
    let proxy = Proxy::start(Config::new(door_one, asked).listen(door_two)).expect("starts");
    for (door, upstream) in [(0, one), (1, two)] {
        let mut client = TcpStream::connect(proxy.addresses()[door]).await.expect("accepted");
        let (mut server, _) = within(upstream.accept()).await.expect("called");
        client.write_u8(door as u8).await.expect("connected");
        assert_eq!(within(server.read_u8()).await.expect("connected"), door as u8);
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_named_resets_the_client() {
    let nowhere = Upstream::resolve(|_| Err(io::Error::other("no original destination")));
    let proxy = Proxy::start(Config::new(listener().await, nowhere)).expect("starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.expect("accepted");
    assert!(read_until_reset(&mut client).await.is_empty());
    assert_eq!(proxy.stats().connections.upstream_failed, 1);
}

#[tokio::test]
async fn the_hook_sees_each_socket_before_it_connects() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let stage = Stage::configured(move |config| {
        config.prepare(move |socket| {
            let _ = socket.as_fd();
            if counted.fetch_add(1, Ordering::Relaxed) == 2 {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied));
            }
            // Visible to the upstream: the socket was bound before it connected.
            socket.bind("127.0.0.9:0".parse().expect("an address"))
        })
    })
    .await;
    for _ in 0..2 {
        let (_client, server) = stage.connect().await;
        assert_eq!(server.peer_addr().expect("connected").ip().to_string(), "127.0.0.9");
    }
    let mut third = TcpStream::connect(stage.address()).await.expect("accepted");
    assert!(read_until_reset(&mut third).await.is_empty());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(stage.proxy.stats().connections.upstream_failed, 1);
}

#[tokio::test]
async fn refuse_resets_new_connections_and_leaves_open_ones() {
    let stage = Stage::with(Rules::pass()).await;
    let (mut client, mut server) = stage.connect().await;
    stage.proxy.set_rules(Rules::pass().add(Direction::Both, Refuse));
    for _ in 0..3 {
        let mut refused = TcpStream::connect(stage.address()).await.expect("the kernel accepts");
        assert!(read_until_reset(&mut refused).await.is_empty());
    }
    client.write_all(b"still here").await.expect("connected");
    let mut heard = [0; 10];
    within(server.read_exact(&mut heard)).await.expect("connected");
    stage.proxy.set_rules(Rules::pass());
    stage.connect().await;
    let connections = stage.proxy.stats().connections;
    assert_eq!((connections.refused, connections.affected, connections.accepted), (3, 3, 5));
}

/// The n-th connection fares alike in every run with the same seed.
#[tokio::test]
async fn a_share_of_connections_is_refused_and_it_replays() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let stage = Stage::with(Rules::seeded(seed).add(Direction::Both.toxicity(0.5), Refuse)).await;
        let mut refused = Vec::new();
        for _ in 0..60 {
            let mut client = TcpStream::connect(stage.address()).await.expect("the kernel accepts");
            let reset = read_until_reset(&mut client);
            tokio::select! {
                _ = reset => refused.push(true),
                server = stage.upstream.accept() => {
                    drop(server.expect("called"));
                    refused.push(false);
                }
            }
        }
        let count = refused.iter().filter(|refused| **refused).count();
        assert!((15..45).contains(&count), "{count} of 60");
        assert_eq!(stage.proxy.stats().connections.refused, count as u64);
        runs.push(refused);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}
