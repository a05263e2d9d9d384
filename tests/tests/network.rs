//! Network faults on nginx, Redis and PostgreSQL, as curl, redis-cli, redis-benchmark, psql and pgbench see them.
//!
//! Every test has a network of its own with all three servers in it, and one more Redis that no fault is aimed at. One
//! experiment hits the three at once; the faults stay until the test has looked.

use std::time::{Duration, Instant};

use toprope_model::event::{Event, Record};
use toprope_tests::programs::installed;
use toprope_tests::servers::{Nginx, Postgres, Redis, client};
use toprope_tests::{Done, Running, Toprope, eventually, network};

/// So much is fetched where it is much.
const LARGE: usize = 200_000;

/// What a client of one server got.
#[derive(Debug)]
struct Got {
    client: &'static str,
    answered: bool,
    took: Duration,
    said: String,
}

struct Site {
    toprope: Toprope,
    nginx: Nginx,
    redis: Redis,
    postgres: Postgres,
    beside: Redis,
}

impl Site {
    /// Runs a test with all servers in a network of its own.
    fn open(test: impl FnOnce(Self) + Send) {
        if !installed(&[Nginx::NEEDS, Redis::NEEDS, Postgres::NEEDS, &["nft"]].concat()) {
            return;
        }
        network::own(|| {
            let site = Self {
                toprope: Toprope::new(),
                nginx: Nginx::serving(LARGE),
                redis: Redis::start(),
                postgres: Postgres::start(),
                beside: Redis::start(),
            };
            let fill = format!("return redis.call('set', 'large', string.rep('x', {LARGE}))");
            assert_eq!(site.redis.cli("10", &["eval", &fill, "0"]).0, "OK\n");
            test(site);
        });
    }

    /// Starts an experiment with a fault of this kind on each of the three, once they are in force.
    fn hit(&self, fault: &str, parameters: &str, fetched: usize, tolerance: &str) -> Running<'_> {
        let (nginx, redis, postgres) = (self.nginx.address(), self.redis.address(), self.postgres.address());
        let faults: String = [&nginx, &redis, &postgres]
            .map(|to| format!("  - {fault}: {{from: {{host: true}}, to: '{to}', {parameters}, for: 60s, drain: 5s}}\n"))
            .concat();
        let (path, command) = if fetched > 1 { ("/large", "GET, large") } else { ("/", "PING") };
        let spec = format!(
            "steady-state: {{for: 1500ms}}
probes:
- http: {{name: nginx, get: '{}', status: 200, interval: 250ms, {tolerance}}}
- redis: {{name: redis, url: 'redis://{redis}', command: [{command}], interval: 250ms, {tolerance}}}
- sql: {{name: postgres, url: 'postgres://postgres@{postgres}/postgres', query: \"select repeat('x', {fetched})\",
    interval: 250ms, {tolerance}}}
- redis: {{name: beside, url: 'redis://{}', interval: 250ms, timeout: 20s}}
{}
method:
- parallel:
{faults}",
            self.nginx.url(path),
            self.beside.address(),
            self.toprope.watcher()
        );
        let experiment = self.toprope.experiment(fault, &spec);
        let mut run = self.toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
        eventually("all three faults are in force", || {
            let injected = |r: &&Record| matches!(r.event, Event::Injected { .. });
            assert!(run.is_running(), "it ended: {}", run.stdout());
            run.records().iter().filter(injected).count() == 3
        });
        run
    }

    /// What a new client of each server gets within so many seconds.
    fn ask(&self, seconds: &str, fetched: usize) -> [Got; 3] {
        let got = |client, ask: &dyn Fn() -> (bool, String)| {
            let begun = Instant::now();
            let (answered, said) = ask();
            Got { client, answered, took: begun.elapsed(), said }
        };
        let (path, words) = if fetched > 1 { ("/large", vec!["get", "large"]) } else { ("/", vec!["ping"]) };
        let url = self.nginx.url(path);
        [
            got("curl", &|| {
                let (text, ok) = client("curl", &["--silent", "--show-error", "--max-time", seconds, &url]);
                (ok && text.len() >= fetched, text)
            }),
            got("redis-cli", &|| {
                let (text, ok) = self.redis.cli(seconds, &words);
                (ok && text.len() >= fetched, text)
            }),
            got("psql", &|| {
                let (text, ok) = self.postgres.psql_within(seconds, &format!("select repeat('x', {fetched})"));
                (ok && text.len() >= fetched, text)
            }),
        ]
    }

    /// Ends the faults, and asserts how the run ends and that nothing of them is left.
    fn let_go(&self, run: Running<'_>, code: i32) -> Done {
        self.toprope.let_go();
        let done = run.wait_for(Duration::from_secs(60)).expect(code);
        for got in self.ask("10", 1) {
            assert!(got.answered, "{got:?}");
        }
        let (rules, _) = client("nft", &["list", "ruleset"]);
        assert_eq!(rules.trim(), "", "packet filter rules are left");
        let beside =
            self.toprope.events().into_iter().filter(|e| matches!(e, Event::Sample(s) if s.probe == 3 && !s.ok));
        assert_eq!(beside.count(), 0, "a server was hit that was not meant");
        self.toprope.assert_clean();
        done
    }
}

/// Waits until each of the three probes has so many samples that were asked in force.
fn until_sampled(run: &mut Running<'_>, count: usize) {
    (0..3).for_each(|probe| run.until_sampled(probe, count));
}

#[test]
fn dropped_packets_leave_clients_waiting_and_let_them_go_on() {
    Site::open(|site| {
        let (redis, session) = (site.redis.client(), site.postgres.session());
        let mut run = site.hit("network-partition", "action: drop", 1, "timeout: 6s");
        for got in site.ask("1", 1) {
            assert!(!got.answered && got.took > Duration::from_millis(900), "{got:?}");
        }
        let answers = (redis.answers(), session.answers());
        assert!(site.beside.answers());
        until_sampled(&mut run, 2);
        assert_eq!((redis.answers(), session.answers()), answers, "those that were connected got answers");
        assert!(site.let_go(run, 1).stdout.contains("REFUTED"));
        redis.until_answered(3);
        session.until_answered(3);
        assert!(redis.longest() > Duration::from_secs(1) && session.longest() > Duration::from_secs(1));
    });
}

#[test]
fn rejected_packets_refuse_clients_and_cut_those_that_were_connected() {
    Site::open(|site| {
        // It ends when it has lost its connections.
        let pool = site.postgres.pgbench(2, 60);
        let connected =
            || site.postgres.psql("select count(*) from pg_stat_activity where application_name = 'pgbench'").0;
        eventually("the pool is connected", || connected().trim() == "2");
        let mut run = site.hit("network-partition", "action: reject", 1, "timeout: 20s");
        for got in site.ask("10", 1) {
            let refused = ["refused", "Couldn't connect"].iter().any(|word| got.said.contains(word));
            assert!(!got.answered && refused && got.took < Duration::from_secs(8), "{got:?}");
        }
        assert!(site.beside.answers());
        let text = pool.output();
        assert!(text.contains("aborted"), "the pool lost nothing: {text}");
        until_sampled(&mut run, 2);
        assert!(site.let_go(run, 1).stdout.contains("REFUTED"));
    });
}

#[test]
fn latency_reaches_new_clients_and_not_those_that_were_connected() {
    Site::open(|site| {
        let (redis, session) = (site.redis.client(), site.postgres.session());
        let mut run = site.hit("network-latency", "delay: 1500ms", 1, "p50: '< 1s', timeout: 20s");
        for got in site.ask("30", 1) {
            assert!(got.answered && got.took > Duration::from_millis(1400), "{got:?}");
        }
        let (mean, _) = site.beside.benchmark(20);
        assert!(mean < 700.0, "the other server was {mean} ms slow");
        redis.until_answered(5);
        session.until_answered(5);
        until_sampled(&mut run, 3);
        let done = site.let_go(run, 1);
        assert!(done.stdout.contains("REFUTED"), "{done}");
        assert!(done.stdout.contains("open already"), "those that it does not reach are told before: {done}");
    });
}

#[test]
fn bandwidth_holds_up_what_is_large() {
    Site::open(|site| {
        // 200 kB at 80 kB/s are 2.5 s.
        let mut run = site.hit("network-bandwidth", "rate: 80kB/s", LARGE, "p50: '< 1s', timeout: 20s");
        for got in site.ask("30", LARGE) {
            assert!(got.answered && got.took > Duration::from_millis(1500), "{} took {:?}", got.client, got.took);
        }
        for got in site.ask("30", 1) {
            assert!(got.answered, "{got:?}");
        }
        until_sampled(&mut run, 3);
        assert!(site.let_go(run, 1).stdout.contains("REFUTED"));
    });
}

/// TCP segments that were sent again in this network, as the kernel counts them.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
    found.and_then(|(_, value)| value.parse().ok()).expect("a number")
}

#[test]
fn lost_packets_are_sent_again_and_every_client_gets_its_answer_late() {
    Site::open(|site| {
        // Each is retransmitted after 200 ms at the soonest, a first packet of a connection after a second.
        let before = sent_again();
        let mut run = site.hit("network-loss", "loss: 10%", 1, "timeout: 25s");
        assert!(site.redis.benchmark(80).1 > 150.0, "no reply came late");
        assert!(site.postgres.latency(50) > 5.0, "no transaction took longer");
        eventually("a request of curl is answered late", || {
            let (status, took) = site.nginx.curl("/", "25");
            assert_eq!(status, 200);
            took > 0.15
        });
        let again = sent_again() - before;
        assert!(again >= 10, "{again} segments were sent again");
        until_sampled(&mut run, 3);
        let done = site.let_go(run, 0);
        assert!(done.stdout.contains("HELD"), "{done}");
    });
}
