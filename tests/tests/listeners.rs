//! Faults in a listener that clients were told to connect to: without root, and seen by real clients before, during and
//! after.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use toprope_model::event::Event;
use toprope_os::process::{Pidfd, ProcessId, Signal};
use toprope_tests::programs::{installed, program};
use toprope_tests::servers::{Nginx, Redis, free_port};
use toprope_tests::{Done, Running, Toprope, eventually, is_root, network};

/// Below this nothing was delayed: the machine may stall, but not for so long.
const STRAIGHT: Duration = Duration::from_millis(1500);
/// What is asked for where something is to be delayed.
const DELAY: Duration = Duration::from_millis(2000);

const NOBODY: [&str; 6] = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];

/// Starts a run without privileges, whoever the test is.
fn without_root<'t>(toprope: &'t Toprope, args: &[&str]) -> Running<'t> {
    if !rustix::process::geteuid().is_root() {
        return toprope.start(args);
    }
    if !toprope.home().exists() {
        std::fs::create_dir(toprope.home()).expect("the directory is ours");
        chown(toprope.home(), Some(65534), Some(65534)).expect("root");
    }
    toprope.spawn(toprope.wrapped(&NOBODY, args))
}

fn assert_clean(toprope: &Toprope) {
    eventually("no process of this Toprope is left", || toprope.all_processes().is_empty());
    toprope.assert_nothing_own(&without_root(toprope, &["residue", "--own", "--json"]).wait());
}

/// A real client of redis that stays connected.
struct LongLived {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl LongLived {
    const NEEDS: &[&str] = &["redis-server", "redis-cli", "stdbuf"];

    fn connect(port: u16) -> Self {
        let mut command = Command::new(program("stdbuf"));
        command.args(["-oL", "redis-cli", "-p", &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it is installed");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut client = Self { child, stdin: stdin.expect("piped"), stdout: BufReader::new(stdout.expect("piped")) };
        client.connection();
        client
    }

    fn say(&mut self, words: &str) -> (String, Duration) {
        let begin = Instant::now();
        self.stdin.write_all(format!("{words}\n").as_bytes()).expect("redis-cli runs");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("redis-cli runs");
        (line.trim().to_owned(), begin.elapsed())
    }

    /// How long an answer takes.
    fn ping(&mut self) -> Duration {
        let (answer, took) = self.say("PING");
        assert_eq!(answer, "PONG");
        took
    }

    /// The number that redis gave this connection: it changes when the client has to connect anew.
    fn connection(&mut self) -> u64 {
        let (answer, _) = self.say("CLIENT ID");
        answer.parse().unwrap_or_else(|_| panic!("redis-cli said {answer:?}"))
    }
}

impl Drop for LongLived {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a new client of redis is kept waiting.
fn new_client(port: u16) -> Duration {
    let begin = Instant::now();
    let port = port.to_string();
    let output = Command::new("timeout").args(["20", "redis-cli", "-p", &port, "ping"]).output().expect("installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "PONG\n");
    begin.elapsed()
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn steady(run: &mut Running<'_>) {
    run.until("the steady state is watched", |e| matches!(e, Event::Phase(_)));
}

fn undone(event: &Event) -> bool {
    matches!(event, Event::Undone { .. })
}

/// The process that holds the listener.
fn holder(toprope: &Toprope) -> ProcessId {
    let found = toprope.processes("pass-through");
    assert_eq!(found.len(), 1, "one process for each listener");
    found[0].id
}

fn inconclusive(done: &Done, why: &str) {
    let told = done.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("INCONCLUSIVE") && told.contains(why), "{done}");
}

#[test]
fn redis_is_reached_through_a_listener_before_during_and_after_the_fault() {
    if !installed(LongLived::NEEDS) {
        return;
    }
    let (redis, toprope, port) = (Redis::start(), Toprope::new(), free_port());
    let spec = format!(
        "steady-state: {{for: 2s}}
probes:
- redis: {{url: 'redis://127.0.0.1:{port}', command: [PING], interval: 500ms, timeout: 20s, unaffected: true}}
method:
- network-latency: {{listen: '127.0.0.1:{port}', to: '{}', delay: 2s, for: 15s, drain: 2s}}
- wait: {{for: 8s}}",
        redis.address()
    );
    let experiment = toprope.experiment("through", &spec);
    let path = experiment.to_str().expect("a path of this test");
    let planned = without_root(&toprope, &["plan", path]).wait().expect(0);
    assert!(planned.stdout.contains("listens from before the steady state"), "{planned}");
    assert!(!listens(port), "a plan opens nothing");

    let mut run = without_root(&toprope, &["run", "--plain", path]);
    steady(&mut run);
    let mut client = LongLived::connect(port);
    let connection = client.connection();
    assert!(client.ping() < STRAIGHT && new_client(port) < STRAIGHT, "the steady state is the same as without it");
    run.until_in_force();
    assert!(client.ping() >= DELAY, "a connection that was there before is reached");
    assert!(new_client(port) >= DELAY);
    assert!(redis.answers(), "past the listener nothing is slow");
    assert!(!run.records().iter().any(|r| undone(&r.event)), "the machine was too slow to look in time");
    run.until("it is undone", undone);
    assert!(new_client(port) < STRAIGHT, "the first connection after the end is clean");
    assert!(client.ping() < STRAIGHT, "and what was in flight goes on without delay");
    assert_eq!(client.connection(), connection, "on the same connection");

    let done = run.wait().expect(0);
    assert!(!listens(port), "nobody listens after the run");
    // A probe of its own may have been in flight beside it.
    let cut = |text: &str| text.contains("was cut when the drain was over");
    assert!(cut(&done.stdout), "{done}");
    let report = without_root(&toprope, &["report", "last", "--form", "md"]).wait().expect(0);
    assert!(cut(&report.stdout), "{report}");
    assert_clean(&toprope);
}

#[test]
fn two_faults_come_and_go_in_one_listener_one_after_the_other() {
    if !installed(Nginx::NEEDS) {
        return;
    }
    let (nginx, toprope, port) = (Nginx::serving(20_000), Toprope::new(), free_port());
    let both = format!("listen: '127.0.0.1:{port}', to: '{}'", nginx.address());
    let probes = format!(
        "probes:
- http: {{name: page, get: 'http://127.0.0.1:{port}/', interval: 300ms, timeout: 9s}}
- http: {{name: large, get: 'http://127.0.0.1:{port}/large', interval: 1s, timeout: 9s}}"
    );
    let series = toprope.experiment(
        "series",
        &format!(
            "{probes}
method:
- repeat:
    times: 2
    steps:
    - network-latency: {{{both}, delay: 600ms, for: 2s}}
    - network-bandwidth: {{{both}, rate: 40kB/s, for: 3s}}"
        ),
    );
    let mut run = without_root(&toprope, &["run", "--plain", series.to_str().expect("a path of this test")]);
    steady(&mut run);
    let first = holder(&toprope);
    for number in 0..4 {
        run.until("the next is in force", |e| matches!(e, Event::Injected { injection, .. } if *injection == number));
    }
    assert_eq!(holder(&toprope), first, "the same listener all along");
    let done = run.wait().expect(0);
    let took = toprope
        .events()
        .iter()
        .filter(|e| matches!(e, Event::Effect { effect, last: true, .. } if effect.took == Some(true)))
        .count();
    assert_eq!(took, 4, "{done}");
    assert_clean(&toprope);

    // At the same time nobody could tell whose doing a delay is.
    let parallel = toprope.experiment(
        "parallel",
        &format!(
            "{probes}
method:
- parallel:
  - network-latency: {{{both}, delay: 600ms, for: 2s}}
  - network-bandwidth: {{{both}, rate: 40kB/s, for: 3s}}"
        ),
    );
    for command in ["plan", "run"] {
        let refused =
            without_root(&toprope, &[command, parallel.to_str().expect("a path of this test")]).wait().expect(2);
        assert!(refused.stderr.contains("has taken listener 127.0.0.1"), "{refused}");
        assert!(refused.stderr.contains("parallel.yaml:") && refused.stderr.contains("network-bandwidth"), "{refused}");
    }
    let elsewhere = toprope.experiment(
        "elsewhere",
        &format!(
            "{probes}
method:
- network-latency: {{{both}, delay: 600ms, for: 2s}}
- network-latency: {{listen: '127.0.0.1:{port}', to: '127.0.0.1:9', delay: 600ms, for: 2s}}"
        ),
    );
    let refused = without_root(&toprope, &["plan", elsewhere.to_str().expect("a path of this test")]).wait().expect(2);
    assert!(refused.stderr.contains("each its own port"), "{refused}");
    let taken = toprope.experiment(
        "taken",
        &format!(
            "{probes}
method:
- network-latency: {{listen: '{}', to: '127.0.0.1:9', delay: 600ms, for: 2s}}",
            nginx.address()
        ),
    );
    for command in ["plan", "run"] {
        let refused = without_root(&toprope, &[command, taken.to_str().expect("a path of this test")]).wait().expect(2);
        assert!(refused.stderr.contains("somebody listens on"), "{refused}");
    }
    assert_clean(&toprope);
}

/// A run with a latency in a listener that is to last, and a client that asks through it.
fn started<'t>(toprope: &'t Toprope, redis: &Redis, port: u16, method: &str) -> (Running<'t>, LongLived) {
    let spec = format!(
        "steady-state: {{for: 1s}}
recovery: {{within: 20s}}
probes:
- redis: {{url: 'redis://127.0.0.1:{port}', command: [PING], interval: 500ms, timeout: 20s}}
method:
- network-latency: {{listen: '127.0.0.1:{port}', to: '{}', delay: 2s, drain: 20s, {method}}}
- wait: {{for: 60s}}",
        redis.address()
    );
    let experiment = toprope.experiment("held", &spec);
    let mut run = without_root(toprope, &["run", "--plain", experiment.to_str().expect("a path of this test")]);
    steady(&mut run);
    let client = LongLived::connect(port);
    run.until_in_force();
    (run, client)
}

#[test]
fn a_killed_run_leaves_no_rules_and_no_listener_and_cuts_nobody() {
    if !installed(LongLived::NEEDS) {
        return;
    }
    let (redis, toprope, port) = (Redis::start(), Toprope::new(), free_port());
    let (run, mut client) = started(&toprope, &redis, port, "for: 60s");
    let connection = client.connection();
    assert!(client.ping() >= DELAY);
    run.signal(Signal::KILL);
    eventually("nobody listens", || !listens(port));
    eventually("the rules are gone", || client.ping() < STRAIGHT);
    assert_eq!(client.connection(), connection, "what is in flight is carried on");
    drop(client);
    run.wait();
    assert_clean(&toprope);
}

#[test]
fn a_killed_injector_takes_its_rules_with_it_and_the_listener_stays() {
    if !installed(LongLived::NEEDS) {
        return;
    }
    let (redis, toprope, port) = (Redis::start(), Toprope::new(), free_port());
    let (mut run, mut client) = started(&toprope, &redis, port, "for: 60s");
    assert!(client.ping() >= DELAY);
    let held: Vec<Pidfd> =
        run.injectors().iter().chain(&run.guards()).map(|id| Pidfd::open(id).expect("it lives")).collect();
    assert_eq!(held.len(), 2, "an injector and its guard");
    held.iter().for_each(|process| process.signal(Signal::KILL).expect("ours"));
    eventually("the rules are gone", || client.ping() < STRAIGHT);
    assert!(listens(port) && run.is_running(), "the wait goes on");
    run.until("it is undone", undone);
    run.signal(Signal::INT);
    drop(client);
    let done = run.wait().expect(5);
    inconclusive(&done, "the injector was killed");
    assert_clean(&toprope);
}

#[test]
fn a_listener_that_is_killed_or_hangs_makes_the_run_inconclusive() {
    if !installed(LongLived::NEEDS) {
        return;
    }
    // In the last case no fault is in force any more.
    for (signal, duration, told) in [
        (Signal::KILL, "for: 60s", "its process was killed"),
        (Signal::STOP, "for: 60s", "its process has hung"),
        (Signal::KILL, "for: 8s", "its process was killed"),
    ] {
        let (redis, toprope, port) = (Redis::start(), Toprope::new(), free_port());
        let (mut run, mut client) = started(&toprope, &redis, port, duration);
        assert!(client.ping() >= DELAY);
        if duration == "for: 8s" {
            run.until("it is undone", undone);
        }
        let holder = Pidfd::open(&holder(&toprope)).expect("it lives");
        holder.signal(signal).expect("ours");
        let done = run.wait().expect(3);
        inconclusive(&done, &format!("The pass-through on 127.0.0.1:{port} was lost"));
        assert!(done.stdout.contains(told), "{done}");
        assert!(!listens(port));
        assert_clean(&toprope);
    }
}

#[test]
fn a_listener_that_hangs_cannot_keep_a_fault_in_force() {
    if !installed(LongLived::NEEDS) {
        return;
    }
    let (redis, toprope, port) = (Redis::start(), Toprope::new(), free_port());
    let (run, mut client) = started(&toprope, &redis, port, "for: 8s");
    assert!(client.ping() >= DELAY);
    let holder = Pidfd::open(&holder(&toprope)).expect("it lives");
    // Neither the pass-through nor the run can do anything: the injector is alone at its deadline.
    holder.signal(Signal::STOP).expect("ours");
    run.signal(Signal::STOP);
    eventually("the pass-through is ended", || !listens(port));
    run.signal(Signal::CONT);
    drop(client);
    let done = run.wait();
    assert_eq!(done.code, Some(3), "{done}");
    assert!(run_is_told(&done), "{done}");
    assert_clean(&toprope);
}

fn run_is_told(done: &Done) -> bool {
    done.stdout.contains("stood still and was killed") || done.stdout.contains("pass-through")
}

#[test]
fn what_is_in_flight_at_the_end_of_a_redirection_is_drained_and_told() {
    if !is_root() || !installed(LongLived::NEEDS) {
        return;
    }
    network::own(|| {
        // The client leaves by itself within the default of 30 s, or is cut after the drain that it is given.
        for (drain, cut) in [("", false), (", drain: 6s", true)] {
            let (redis, toprope) = (Redis::start(), Toprope::new());
            let spec = format!(
                "probes: [command: {{run: ['true'], interval: 100ms}}]
method:
- network-latency: {{from: {{host: true}}, to: '{}', delay: 2s, for: 10s{drain}}}",
                redis.address()
            );
            let experiment = toprope.experiment("drained", &spec);
            let mut run = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
            run.until_in_force();
            let mut client = LongLived::connect(redis.port);
            assert!(client.ping() >= DELAY);
            let connection = client.connection();
            run.until("it is undone", undone);
            assert!(new_client(redis.port) < STRAIGHT, "the first connection after the end is clean");
            assert!(client.ping() < STRAIGHT, "what is in flight goes on without delay");
            assert_eq!(client.connection(), connection, "on the same connection");
            run.until(
                "it says what it waits for",
                |e| matches!(e, Event::Note { text, .. } if text.contains("waiting until connections in flight")),
            );
            assert!(run.is_running());
            let told = if cut {
                "network-latency: 1 connection in flight was cut when the drain was over"
            } else {
                drop(client);
                "network-latency: 1 connection in flight ended by itself"
            };
            let done = run.wait().expect(0);
            assert!(done.stdout.contains(told), "{done}");
            for form in ["md", "html"] {
                let report = toprope.run(&["report", "last", "--form", form]).expect(0);
                assert!(report.stdout.contains(told), "{form}: {report}");
            }
            toprope.assert_clean();
        }
    });
}
