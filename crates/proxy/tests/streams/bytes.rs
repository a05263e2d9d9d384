//! No byte is lost, doubled or reordered.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use toprope_proxy::{Bandwidth, Blackhole, ChaCha8Rng, Direction, Latency, Rules};

use crate::harness::{Stage, exchange, within};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Passes `total` bytes each way on several connections under rules that stay.
async fn passes_under(rules: Rules, total: usize) {
    let stage = Stage::with(rules).await;
    let mut connections = Vec::new();
    for piece in [100_000, 1_400, 61] {
        let (client, server) = stage.connect().await;
        connections.push(tokio::spawn(exchange(client, server, total, piece)));
    }
    for connection in connections {
        connection.await.expect("every byte once and in order");
    }
    stage.emptied().await;
    let stats = stage.proxy.stats();
    let all = 3 * total as u64;
    assert_eq!((stats.up.received, stats.up.delivered), (all, all));
    assert_eq!((stats.down.received, stats.down.delivered), (all, all));
    assert_eq!((stats.connections.finished, stats.connections.reset), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pass() {
    passes_under(Rules::pass(), 20_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latency() {
    passes_under(Rules::pass().add(Direction::Both, Latency::new(ms(20))), 5_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter() {
    let jitter = Latency::new(ms(15)).jitter(ms(15));
    passes_under(Rules::seeded(3).add(Direction::Both, jitter), 5_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth() {
    passes_under(Rules::pass().add(Direction::Both, Bandwidth::bytes_per_second(3_000_000)), 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_rules_on_some_connections() {
    let rules = Rules::seeded(1)
        .add(Direction::Down.toxicity(0.5), Bandwidth::bytes_per_second(4_000_000))
        .add(Direction::Up, Latency::new(ms(10)).jitter(ms(5)))
        .add(Direction::Both.toxicity(0.7), Latency::new(ms(3)));
    passes_under(rules, 1_000_000).await;
}

#[tokio::test]
async fn a_blackhole_holds_everything_and_gives_it_back() {
    let stage = Stage::with(Rules::pass().add(Direction::Down, Blackhole)).await;
    let (mut client, mut server) = stage.connect().await;
    client.write_all(b"question").await.expect("up is open");
    let mut question = [0; 8];
    within(server.read_exact(&mut question)).await.expect("up is open");
    server.write_all(b"answer").await.expect("held, not refused");
    server.shutdown().await.expect("held, not refused");
    let nothing = tokio::time::timeout(ms(200), client.read_u8()).await;
    assert!(nothing.is_err(), "{nothing:?} came out of a blackhole");
    let held = stage.proxy.stats();
    assert_eq!((held.down.received, held.down.delivered), (6, 0));

    stage.proxy.set_rules(Rules::pass());
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.expect("an orderly end");
    assert_eq!(answer, b"answer");
    assert!(stage.proxy.stats().down.delay.min() >= Some(ms(190)));
}

fn any_rules(random: &mut ChaCha8Rng) -> Rules {
    let mut rules = Rules::seeded(random.random());
    for _ in 0..random.random_range(0..3) {
        let direction = [Direction::Up, Direction::Down, Direction::Both][random.random_range(0..3)];
        let scope = direction.toxicity(random.random_range(0.3..1.5));
        rules = match random.random_range(0..4) {
            0 => rules.add(scope, Latency::new(ms(random.random_range(0..30)))),
            1 => rules.add(scope, Latency::new(ms(10)).jitter(ms(random.random_range(0..20)))),
            2 => rules.add(scope, Bandwidth::bytes_per_second(random.random_range(0..40_000_000))),
            _ => rules.add(scope, Blackhole),
        };
    }
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_change_while_data_flows() {
    for seed in 0..4 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let stage = Stage::with(any_rules(&mut random)).await;
        let mut connections = Vec::new();
        for piece in [150_000, 20_000, 1_400, 333] {
            let (client, server) = stage.connect().await;
            connections.push(tokio::spawn(exchange(client, server, 3_000_000, piece)));
        }
        for _ in 0..150 {
            sleep(Duration::from_micros(random.random_range(0..8_000))).await;
            stage.proxy.set_rules(any_rules(&mut random));
        }
        stage.proxy.set_rules(Rules::pass());
        for connection in connections {
            connection.await.unwrap_or_else(|error| panic!("with seed {seed}: {error}"));
        }
        stage.emptied().await;
        let stats = stage.proxy.stats();
        assert_eq!((stats.up.delivered, stats.down.delivered), (12_000_000, 12_000_000), "with seed {seed}");
        assert_eq!(stats.connections.finished, 4, "with seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_nobody_reads_is_slowed_down_not_stored() {
    for (rules, bound) in [
        (Rules::pass(), 64 * 1024),
        (Rules::pass().add(Direction::Up, Latency::new(Duration::from_secs(600))), 8 * 1024 * 1024),
        (Rules::pass().add(Direction::Up, Blackhole), 64 * 1024),
    ] {
        let stage = Stage::with(rules).await;
        let (mut client, server) = stage.connect().await;
        let chunk = vec![1; 1 << 20];
        let mut sent = 0;
        // Kernel buffers take some, the proxy its bound; then the sender waits.
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), client.write(&chunk)).await {
            sent += written.expect("still connected");
            assert!(sent < 200 << 20, "{sent} bytes went into a proxy that may hold {bound}");
        }
        let up = stage.proxy.stats().up;
        let held = up.received - up.delivered;
        assert!(held <= bound, "{held} bytes are in a buffer of {bound}");
        drop(server);
    }
}
