//! Steps of a method in real runs: ramped, repeated, in series and in parallel, each seen from outside.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use toprope_model::event::{Event, Record};
use toprope_os::process::ProcessId;
use toprope_tests::servers::free_port;
use toprope_tests::{Running, Toprope};

const PROBE: &str = "probes: [command: {run: ['true'], interval: 200ms}]";

/// A server that sends back every line.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = client.try_clone()?;
                for line in BufReader::new(client).lines() {
                    writer.write_all(format!("{}\n", line?).as_bytes())?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    at
}

/// How long an answer takes over a new connection.
fn ask(port: u16) -> Duration {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.write_all(b"hello\n").expect("it is open");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    begin.elapsed()
}

fn values(records: &[Record]) -> Vec<String> {
    let value = |r: &Record| match &r.event {
        Event::Adjusted { value, .. } => Some(value.clone()),
        _ => None,
    };
    records.iter().filter_map(value).collect()
}

/// Waits until a ramp is at a value.
fn until_at(run: &mut Running<'_>, wanted: &str) {
    run.until(wanted, |e| matches!(e, Event::Adjusted { value, .. } if value == wanted));
}

fn injector(run: &Running<'_>) -> ProcessId {
    let found = run.injectors();
    assert_eq!(found.len(), 1);
    found[0]
}

/// The processor time of a process so far.
fn busy(id: &ProcessId) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.pid())).expect("it lives");
    let after = stat.rsplit_once(')').expect("a name in brackets").1;
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// The memory of a process, in MiB.
fn resident(id: &ProcessId) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", id.pid())).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn a_ramped_latency_rises_for_connections_old_and_new() {
    let (to, port, toprope) = (echo(), free_port(), Toprope::new());
    let spec = format!(
        "{PROBE}
method:
- network-latency:
    listen: '127.0.0.1:{port}'
    to: '{to}'
    delay: 100ms
    for: 9s
    ramp: {{parameter: delay, from: 100ms, to: 1200ms, over: 5s, steps: 2}}"
    );
    let experiment = toprope.experiment("ramp", &spec);
    let mut run = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    until_at(&mut run, "100ms");
    let first = ask(port);
    assert!((Duration::from_millis(100)..Duration::from_millis(600)).contains(&first), "{first:?}");
    until_at(&mut run, "650ms");
    let middle = ask(port);
    assert!(middle >= Duration::from_millis(650), "{middle:?}");
    until_at(&mut run, "1200ms");
    let last = ask(port);
    assert!(last >= Duration::from_millis(1200), "{last:?}");
    assert_eq!(values(&run.records()), ["100ms", "650ms", "1200ms"]);
    let done = run.wait().expect(0);
    assert!(done.stdout.contains("delay 1200ms"), "{done}");
    toprope.assert_clean();
}

#[test]
fn a_ramped_load_takes_more_and_more_of_a_core() {
    let toprope = Toprope::new();
    let spec = format!(
        "{PROBE}
method: [cpu-stress: {{load: 5%, cores: 1, for: 15s, ramp: {{parameter: load, from: 5%, to: 60%, over: 6s, steps: 1}}}}]"
    );
    let experiment = toprope.experiment("ramp", &spec);
    let mut run = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    until_at(&mut run, "5%");
    let injector = injector(&run);
    let during = |time: Duration| {
        let (began, before) = (Instant::now(), busy(&injector));
        std::thread::sleep(time);
        (busy(&injector) - before).as_secs_f64() / began.elapsed().as_secs_f64()
    };
    let low = during(Duration::from_millis(2500));
    until_at(&mut run, "60%");
    let high = during(Duration::from_millis(2500));
    let done = run.wait();
    assert!(low < 0.12 && high < 0.75, "more than was asked for: {low} of a core, then {high}");
    if done.stdout.contains(" to give") {
        toprope_tests::skip("other programs leave the load no time on a core");
    } else {
        assert!(high > 0.12 && high > low * 2.0, "{low} of a core, then {high}");
        assert_eq!(done.code, Some(0), "{done}");
    }
    toprope.assert_clean();
}

#[test]
fn a_ramped_amount_of_memory_is_taken_step_by_step_and_given_back() {
    let toprope = Toprope::new();
    let spec = format!(
        "{PROBE}
method:
- memory-stress: {{amount: 16MiB, reserve: 1MiB, for: 15s, ramp: {{parameter: amount, from: 16MiB, to: 96MiB, over: 3s, steps: 2}}}}"
    );
    let experiment = toprope.experiment("ramp", &spec);
    let mut run = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    until_at(&mut run, "16MiB");
    let injector = injector(&run);
    let low = resident(&injector);
    until_at(&mut run, "96MiB");
    toprope_tests::eventually("the memory is taken", || resident(&injector) >= low + 75);
    assert_eq!(values(&run.records()), ["16MiB", "56MiB", "96MiB"]);
    run.wait().expect(0);
    assert!(!injector.is_alive());
    toprope.assert_clean();
}

#[test]
fn what_cannot_be_ramped_is_refused_at_its_place_and_what_can_is_named() {
    let toprope = Toprope::new();
    for (fault, told) in [
        ("process-pause: {target: {pid: 1}, for: 9s, ramp: {parameter: target, from: a, to: b, over: 1s}}", "ramp"),
        (
            "network-partition: {from: {host: true}, to: ':9', for: 9s, ramp: {parameter: action, from: drop, to: reject, over: 1s}}",
            "no parameter of it can be ramped",
        ),
        (
            "network-latency: {listen: ':8', to: '127.0.0.1:9', delay: 1s, for: 9s, ramp: {parameter: to, from: '127.0.0.1:9', to: '127.0.0.1:10', over: 1s}}",
            "it can ramp `delay` and `jitter`",
        ),
        (
            "cpu-stress: {load: 5%, cores: 1, for: 9s, ramp: {parameter: cores, from: '1', to: '2', over: 1s}}",
            "it can ramp `load`",
        ),
        (
            "memory-stress: {amount: 5MiB, for: 9s, ramp: {parameter: reserve, from: 1MiB, to: 2MiB, over: 1s}}",
            "it can ramp `amount` and `percent`",
        ),
    ] {
        let experiment = toprope.experiment("ramp", &format!("{PROBE}\nmethod:\n- {fault}"));
        let refused = toprope.run(&["validate", experiment.to_str().expect("a path of this test")]).expect(2);
        assert!(refused.stderr.contains("ramp.yaml:") && refused.stderr.contains(told), "{fault}: {refused}");
    }
}

/// When each injection was in force, in milliseconds since the run began, by the fault's place.
fn spans(records: &[Record]) -> Vec<(u32, u64, u64)> {
    let at = |wanted: &dyn Fn(&Event) -> bool| records.iter().find(|r| wanted(&r.event)).map(|r| r.at / 1_000_000);
    let mut spans = Vec::new();
    for record in records {
        if let Event::Injecting { injection, fault, .. } = &record.event {
            let from = at(&|e| matches!(e, Event::Injected { injection: i, .. } if i == injection));
            let to = at(&|e| matches!(e, Event::Undone { injection: i, .. } if i == injection));
            spans.push((*fault, from.expect("it was in force"), to.expect("it was undone")));
        }
    }
    spans
}

#[test]
fn series_parallel_waits_and_repetitions_are_as_written() {
    let (to, port, toprope) = (echo(), free_port(), Toprope::new());
    let spec = format!(
        "{PROBE}
method:
- parallel:
  - cpu-stress: {{load: 10%, cores: 1, for: 4s}}
  - serial:
    - wait: {{for: 1s}}
    - network-latency: {{listen: '127.0.0.1:{port}', to: '{to}', delay: 600ms, for: 2s}}
- wait: {{for: 500ms}}
- repeat:
    times: 2
    every: 3s
    steps:
    - memory-stress: {{amount: 8MiB, reserve: 1MiB, for: 1s}}"
    );
    let experiment = toprope.experiment("steps", &spec);
    let mut run = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    run.until("the latency is in force", |e| matches!(e, Event::Injected { injection: 1, .. }));
    assert!(ask(port) >= Duration::from_millis(600));
    run.until("the latency is over", |e| matches!(e, Event::Undone { injection: 1, .. }));
    assert!(ask(port) < Duration::from_millis(500));
    let done = run.wait();
    // Other programs may leave the load no time on a core.
    assert!(done.code == Some(0) || done.stdout.contains(" to give"), "{done}");
    let records = toprope.log().records;
    let took = |wanted: u32| {
        let last = |r: &Record| matches!(&r.event, Event::Effect { injection, effect, last: true } if *injection == wanted && effect.took == Some(true));
        records.iter().any(last)
    };
    assert!((1..=3).all(took), "{done}");
    let spans = spans(&records);
    let [(0, cpu, cpu_end), (1, latency, latency_end), (2, first, first_end), (2, second, _)] = spans[..] else {
        panic!("{spans:?}")
    };
    // None before its time; how long after it depends on the machine.
    assert!(latency >= cpu + 500 && latency < cpu_end && latency_end >= latency + 1800, "in parallel: {spans:?}");
    assert!(first >= cpu_end.max(latency_end) + 500, "after all of the block, and the wait: {spans:?}");
    assert!(first_end >= first + 500 && second >= first + 2900 && second >= first_end, "every 3 s: {spans:?}");
    toprope.assert_clean();
}
