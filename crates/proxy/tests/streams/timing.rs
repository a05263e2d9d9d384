//! Delays and rates, with margins for a machine that stalls; and that they are measured as they are.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use toprope_proxy::{Bandwidth, Direction, Latency, Rules};

use crate::harness::{Stage, within};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_delays_and_is_measured() {
    let stage = Stage::with(Rules::pass().add(Direction::Both, Latency::new(ms(40)))).await;
    let (mut client, mut server) = stage.connect().await;
    let mut trips = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        client.write_u8(1).await.expect("connected");
        within(server.read_u8()).await.expect("connected");
        let up = begin.elapsed();
        server.write_u8(2).await.expect("connected");
        within(client.read_u8()).await.expect("connected");
        assert!(up >= ms(40) && begin.elapsed() >= ms(80), "early: {up:?} up, {:?} in all", begin.elapsed());
        trips.push(begin.elapsed());
    }
    trips.sort();
    assert!(trips[5] < ms(130), "twice 40 ms took {:?}", trips[5]);
    let stats = stage.proxy.stats();
    for flow in [&stats.up, &stats.down] {
        assert_eq!((flow.delay.count(), flow.held), (10, 10));
        assert!(flow.delay.min() >= Some(ms(40)), "{:?}", flow.delay.min());
        assert!(flow.delay.quantile(0.5) < Some(ms(60)), "{:?}", flow.delay.quantile(0.5));
    }
    assert_eq!((stats.connections.accepted, stats.connections.affected), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_no_rate_limit() {
    let stage = Stage::with(Rules::pass().add(Direction::Up, Latency::new(ms(100)))).await;
    let (mut client, mut server) = stage.connect().await;
    let begin = Instant::now();
    let sender = tokio::spawn(async move {
        for _ in 0..100 {
            client.write_all(&[5; 100]).await.expect("connected");
            // Apart, so that the proxy sees chunks and not one heap.
            sleep(Duration::from_micros(50)).await;
        }
        client
    });
    let mut all = [0; 10_000];
    within(server.read_exact(&mut all)).await.expect("connected");
    let took = begin.elapsed();
    assert!(took >= ms(100), "{took:?}");
    assert!(took < ms(1_000), "100 chunks delayed by 100 ms one after the other take 10 s; these took {took:?}");
    assert!(stage.proxy.stats().up.delay.count() >= 20, "the test sent hardly any chunks");
    drop(sender.await.expect("sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_under_latency_is_fast() {
    // 40 MB through 50 ms of delay: at one chunk of 64 KiB per 50 ms it would take half a minute.
    let stage = Stage::with(Rules::pass().add(Direction::Both, Latency::new(ms(50)))).await;
    let (client, server) = stage.connect().await;
    let begin = Instant::now();
    crate::harness::exchange(client, server, 20_000_000, 100_000).await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_is_the_rate_without_a_burst() {
    let rate = 1_000_000;
    let stage = Stage::with(Rules::pass().add(Direction::Up, Bandwidth::bytes_per_second(rate))).await;
    let (mut client, mut server) = stage.connect().await;
    let begin = Instant::now();
    let sender = tokio::spawn(async move {
        client.write_all(&vec![0; 1_500_000]).await.expect("connected");
        client
    });
    let (mut received, mut buffer) = (0, vec![0; 65_536]);
    while received < 1_500_000 {
        received += within(server.read(&mut buffer)).await.expect("connected");
        let allowed = begin.elapsed().as_secs_f64() * rate as f64 + 1.0;
        assert!(received as f64 <= allowed, "{received} bytes where {allowed} could have come");
    }
    let achieved = received as f64 / begin.elapsed().as_secs_f64();
    // A busy machine gives less; how exact it is on an idle one, `cargo xtask bench` tells.
    assert!(achieved > 0.4 * rate as f64, "{achieved} bytes per second");
    let measured = stage.proxy.stats().up.busy_rate().expect("bytes were held");
    assert!((0.4..1.02).contains(&(measured / rate as f64)), "{measured} bytes per second");
    drop(sender.await.expect("sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_rate_is_reached_too() {
    let rate = 50_000_000;
    let stage = Stage::with(Rules::pass().add(Direction::Up, Bandwidth::bytes_per_second(rate))).await;
    let (mut client, mut server) = stage.connect().await;
    let total = 50_000_000;
    let begin = Instant::now();
    let sender = tokio::spawn(async move {
        client.write_all(&vec![0; total]).await.expect("connected");
        client.shutdown().await.expect("connected");
    });
    let mut received = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let len = within(server.read(&mut buffer)).await.expect("connected");
        if len == 0 {
            break;
        }
        received += len;
    }
    assert_eq!(received, total);
    let achieved = received as f64 / begin.elapsed().as_secs_f64() / rate as f64;
    // Upwards it is exact; downwards the machine has its say.
    assert!((0.4..1.001).contains(&achieved), "{achieved} of the rate");
    sender.await.expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_released_when_the_delay_goes() {
    let stage = Stage::with(Rules::pass().add(Direction::Up, Latency::new(Duration::from_secs(300)))).await;
    let (mut client, mut server) = stage.connect().await;
    client.write_all(b"late").await.expect("connected");
    while stage.proxy.stats().up.received < 4 {
        sleep(ms(1)).await;
    }
    let begin = Instant::now();
    stage.proxy.set_rules(Rules::pass().add(Direction::Up, Latency::new(ms(1))));
    let mut late = [0; 4];
    within(server.read_exact(&mut late)).await.expect("connected");
    assert!(begin.elapsed() < Duration::from_secs(5));
    client.write_all(b"soon").await.expect("connected");
    within(server.read_exact(&mut late)).await.expect("connected");
    assert!(begin.elapsed() < Duration::from_secs(10));
}
