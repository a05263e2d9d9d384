//! How connections end, and how the proxy does.

use std::net::TcpListener as StdListener;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use toprope_proxy::{Blackhole, Config, Direction, Drained, Latency, Proxy, Rules, StartError};

use crate::harness::{Stage, read_until_reset, within};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn slow() -> Rules {
    Rules::pass().add(Direction::Both, Latency::new(ms(30)))
}

#[tokio::test]
async fn half_close_keeps_the_other_half_open() {
    for rules in [Rules::pass(), slow()] {
        let stage = Stage::with(rules).await;
        let (mut client, mut server) = stage.connect().await;
        client.write_all(b"the whole question").await.expect("connected");
        client.shutdown().await.expect("connected");
        let mut question = Vec::new();
        within(server.read_to_end(&mut question)).await.expect("an orderly end");
        assert_eq!(question, b"the whole question");
        sleep(ms(20)).await;
        server.write_all(b"the whole answer").await.expect("this half is open");
        drop(server);
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.expect("an orderly end");
        assert_eq!(answer, b"the whole answer");
        stage.emptied().await;
        assert_eq!(stage.proxy.stats().connections.finished, 1);
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_behind_the_bytes_before_it() {
    for rules in [Rules::pass(), slow()] {
        let stage = Stage::with(rules).await;
        let (mut client, mut server) = stage.connect().await;
        client.write_all(b"last words").await.expect("connected");
        let mut words = [0; 10];
        within(server.read_exact(&mut words)).await.expect("sent before the reset");
        client.set_zero_linger().expect("open");
        drop(client);
        assert!(read_until_reset(&mut server).await.is_empty());

        let (mut client, mut server) = stage.connect().await;
        server.write_all(b"half an ans").await.expect("connected");
        let mut half = [0; 11];
        within(client.read_exact(&mut half)).await.expect("sent before the reset");
        server.set_zero_linger().expect("open");
        drop(server);
        assert!(read_until_reset(&mut client).await.is_empty());
        stage.emptied().await;
        assert_eq!(stage.proxy.stats().connections.reset, 2);
    }
}

#[tokio::test]
async fn bytes_that_a_reset_follows_are_delayed_like_it() {
    let stage = Stage::with(Rules::pass().add(Direction::Up, Latency::new(ms(150)))).await;
    let (mut client, mut server) = stage.connect().await;
    let begin = Instant::now();
    client.write_all(b"last words").await.expect("connected");
    // Read by the proxy before the reset comes, which would take them back from the kernel.
    while stage.proxy.stats().up.received < 10 {
        sleep(ms(1)).await;
    }
    client.set_zero_linger().expect("open");
    drop(client);
    let mut words = [0; 10];
    within(server.read_exact(&mut words)).await.expect("sent before the reset");
    assert!(begin.elapsed() >= ms(150));
    assert!(read_until_reset(&mut server).await.is_empty());
}

#[tokio::test]
async fn a_client_that_is_gone_resets_a_server_that_sends() {
    // The client has ended its half in order and then vanishes: only the failed write tells.
    let stage = Stage::with(Rules::pass()).await;
    let (mut client, mut server) = stage.connect().await;
    client.shutdown().await.expect("connected");
    assert_eq!(within(server.read(&mut [0; 8])).await.expect("an orderly end"), 0);
    drop(client);
    let error = within(async {
        loop {
            if let Err(error) = server.write_all(&[0; 1000]).await {
                break error;
            }
            sleep(ms(1)).await;
        }
    })
    .await;
    assert!(matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");
    stage.emptied().await;
    assert_eq!(stage.proxy.stats().connections.reset, 1);
}

#[tokio::test]
async fn drain_carries_what_ends_and_cuts_what_does_not() {
    // What a blackhole holds is let go at once, so that its connections can end.
    let stage = Stage::with(Rules::pass().add(Direction::Both, Blackhole)).await;
    let (mut client, server) = stage.connect().await;
    client.write_all(b"held").await.expect("connected");
    let (mut lasting, mut lasting_server) = stage.connect().await;
    let ends = tokio::spawn(async move {
        let mut server = server;
        let mut held = [0; 4];
        within(server.read_exact(&mut held)).await.expect("released by the drain");
        server.write_all(b"answered").await.expect("connected");
        drop(server);
        let mut answer = [0; 8];
        within(client.read_exact(&mut answer)).await.expect("carried");
    });
    let begin = Instant::now();
    let drained = within(stage.proxy.drain(ms(700))).await;
    assert_eq!(drained, Drained { carried: 1, cut: 1 });
    assert!(begin.elapsed() >= ms(700));
    ends.await.expect("carried to its end");
    read_until_reset(&mut lasting).await;
    read_until_reset(&mut lasting_server).await;
    let refused = TcpStream::connect(stage.address()).await.expect_err("the listener is closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(stage.proxy.stats().connections.open, 0);
}

#[tokio::test]
async fn drain_ends_as_soon_as_the_last_connection_does() {
    let stage = Stage::with(slow()).await;
    let (client, server) = stage.connect().await;
    let begin = Instant::now();
    let (drained, ()) = tokio::join!(stage.proxy.drain(Duration::from_secs(50)), async {
        sleep(ms(50)).await;
        drop((client, server));
    });
    assert_eq!(drained, Drained { carried: 1, cut: 0 });
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(stage.proxy.drain(Duration::ZERO).await, Drained { carried: 0, cut: 0 });
}

/// Connections that the kernel accepted and the proxy has not yet taken are not lost when the listener closes.
#[tokio::test]
async fn drain_takes_in_those_that_wait_at_the_door() {
    let stage = Stage::with(Rules::pass()).await;
    // Blocking connects on a runtime of one thread: the acceptor cannot run before the drain does.
    let clients: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(stage.address()).expect("the kernel accepts")).collect();
    let (drained, ()) = tokio::join!(stage.proxy.drain(Duration::from_secs(50)), async {
        for mut client in clients {
            let (mut server, _) = within(stage.upstream.accept()).await.expect("called by the proxy");
            std::io::Write::write_all(&mut client, b"in time").expect("connected");
            drop(client);
            let mut heard = Vec::new();
            within(server.read_to_end(&mut heard)).await.expect("an orderly end");
        }
    });
    assert_eq!(drained, Drained { carried: 20, cut: 0 });
}

#[tokio::test]
async fn rules_set_during_a_drain_have_no_effect() {
    let stage = Stage::with(Rules::pass()).await;
    let (mut client, mut server) = stage.connect().await;
    let (drained, ()) = tokio::join!(stage.proxy.drain(Duration::from_secs(50)), async {
        sleep(ms(20)).await;
        stage.proxy.set_rules(Rules::pass().add(Direction::Both, Blackhole));
        client.write_all(b"through").await.expect("connected");
        let mut through = [0; 7];
        within(server.read_exact(&mut through)).await.expect("no rule is in force");
        drop((client, server));
    });
    assert_eq!(drained, Drained { carried: 1, cut: 0 });
}

#[tokio::test]
async fn dropping_the_proxy_cuts_everything() {
    let Stage { proxy, upstream } = Stage::with(slow()).await;
    let address = proxy.addresses()[0];
    let mut client = TcpStream::connect(address).await.expect("accepted");
    let (mut server, _) = within(upstream.accept()).await.expect("called");
    client.write_u8(1).await.expect("connected");
    within(server.read_u8()).await.expect("connected");
    drop(proxy);
    read_until_reset(&mut client).await;
    read_until_reset(&mut server).await;
    within(async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(ms(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_opened_and_dropped() {
    let stage = Stage::with(Rules::seeded(1).add(Direction::Both.toxicity(0.5), Latency::new(ms(2)))).await;
    let address = stage.address();
    let mut tasks = Vec::new();
    for worker in 0..20 {
        tasks.push(tokio::spawn(async move {
            for n in 0..50 {
                let mut client = TcpStream::connect(address).await.expect("accepted");
                match (worker + n) % 4 {
                    0 => {}
                    1 => client.write_all(b"and gone").await.expect("connected"),
                    2 => client.set_zero_linger().expect("open"),
                    _ => client.shutdown().await.expect("connected"),
                }
            }
        }));
    }
    let server = async {
        loop {
            // Dropped at once as well, some with bytes unread, which resets.
            drop(stage.upstream.accept().await.expect("called"));
        }
    };
    let clients = async {
        for task in tasks {
            task.await.expect("no client failed");
        }
        stage.emptied().await;
    };
    within(async {
        tokio::select! { () = clients => {}, () = server => {} }
    })
    .await;
    let connections = stage.proxy.stats().connections;
    assert_eq!((connections.accepted, connections.open), (1_000, 0));
    assert_eq!(connections.finished + connections.reset, 1_000, "{connections:?}");
    assert!((400..600).contains(&connections.affected), "{connections:?}");
    assert_eq!(stage.proxy.drain(Duration::from_secs(50)).await, Drained { carried: 0, cut: 0 });
}

#[test]
fn a_proxy_needs_a_runtime_and_a_listener() {
    let bound = StdListener::bind("127.0.0.1:0").expect("loopback");
    let upstream = bound.local_addr().expect("bound");
    let config = Config::new(bound, upstream);
    assert!(matches!(Proxy::start(config), Err(StartError::NoRuntime)));
}
