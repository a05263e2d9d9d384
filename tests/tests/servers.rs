//! Faults on the processes of real servers, as their real clients see them.

use toprope_model::event::Event;
use toprope_os::process::{ProcessInfo, State};
use toprope_tests::programs::installed;
use toprope_tests::servers::{Nginx, Postgres, Redis};
use toprope_tests::{Toprope, eventually};

fn state(pid: u32) -> State {
    ProcessInfo::of(pid).expect("it runs").state
}

fn is_held(pid: u32) -> bool {
    matches!(state(pid), State::Stopped | State::Traced)
}

#[test]
fn a_paused_redis_hangs_for_its_clients_and_goes_on_with_them() {
    if !installed(Redis::NEEDS) {
        return;
    }
    let (redis, bystander, toprope) = (Redis::start(), Redis::start(), Toprope::new());
    let experiment = toprope.experiment(
        "paused",
        &format!(
            "probes:
- command: {{run: [redis-cli, -p, '{}', ping], matches: PONG, interval: 100ms, timeout: 400ms}}
method:
- process-pause: {{target: {{pid: {}}}, for: 1500ms}}",
            redis.port,
            redis.server.pid()
        ),
    );
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    // A client that was there before and stays connected all along.
    let (before, beside) = (redis.benchmark(60_000), bystander.benchmark(20_000));
    run.until_in_force();
    assert!(is_held(redis.server.pid()));
    assert!(!redis.cli("0.5", &["ping"]).1, "a paused server does not answer");
    assert!(bystander.answers());
    assert!(is_held(redis.server.pid()), "the machine was too slow to look while the fault was in force");
    let done = run.wait().expect(1);
    assert!(done.stdout.contains("REFUTED"), "{done}");

    assert!(!is_held(redis.server.pid()));
    assert!(redis.answers(), "it is the same process, and it goes on");
    let (_, longest) = before.latency();
    assert!(longest > 1000.0, "no request of the client waited out the pause: {longest} ms at most");
    let (mean, _) = beside.latency();
    assert!(mean < 50.0, "the other server was {mean} ms slow");
    toprope.assert_clean();
}

#[test]
fn a_killed_nginx_worker_is_replaced_and_the_hypothesis_holds() {
    if !installed(Nginx::NEEDS) {
        return;
    }
    let (nginx, toprope) = (Nginx::serving(0), Toprope::new());
    let worker = nginx.worker();
    let experiment = toprope.experiment(
        "worker",
        &format!(
            "probes:
- http: {{get: '{}', status: 200, interval: 50ms, recovers: {{within: 3s}}}}
method:
- process-kill: {{target: {{pid: {}}}}}",
            nginx.url("/"),
            worker.id.pid()
        ),
    );
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(0);
    assert!(done.stdout.contains("HELD"), "{done}");
    assert!(!worker.id.is_alive());
    assert_ne!(nginx.worker().id, worker.id);
    assert_eq!(nginx.curl("/", "5").0, 200);
    assert!(nginx.errors().contains("signal 9"), "nginx did not notice: {}", nginx.errors());
    toprope.assert_clean();
}

#[test]
fn a_killed_redis_stays_dead_and_the_hypothesis_is_refuted() {
    if !installed(Redis::NEEDS) {
        return;
    }
    let (mut redis, bystander, toprope) = (Redis::start(), Redis::start(), Toprope::new());
    let spec = format!(
        "recovery: {{within: 1s}}
probes:
- tcp: {{connect: '{}', send: \"PING\\r\\n\", matches: PONG, interval: 100ms}}
method:
- process-kill: {{target: {{port: {}}}, signal: TERM}}",
        redis.address(),
        redis.port
    );
    let experiment = toprope.experiment("killed", &spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(1);
    assert!(done.stdout.contains("REFUTED"), "{done}");
    assert!(!redis.server.is_running());
    assert!(bystander.answers());
    let (text, _) = redis.cli("1", &["ping"]);
    assert!(text.contains("Connection refused"), "{text}");
    toprope.assert_clean();
}

#[test]
fn a_killed_backend_costs_postgres_its_connections_and_it_recovers() {
    if !installed(Postgres::NEEDS) {
        return;
    }
    let (postgres, toprope) = (Postgres::start(), Toprope::new());
    let pool = postgres.pgbench(3, 4);
    let backends = || {
        let workers = postgres.server.workers();
        workers.into_iter().filter(|w| w.cmdline.join(" ").contains("127.0.0.1(")).collect::<Vec<_>>()
    };
    eventually("the pool is connected", || backends().len() >= 3);
    let found = backends();
    let experiment = toprope.experiment(
        "backend",
        &format!(
            "probes:
- command:
    name: new-client
    run: [psql, {}, -U, postgres, -X, -c, select 1, postgres]
    interval: 100ms
    recovers: {{within: 5s}}
method:
- process-kill: {{target: {{pid: {}}}}}",
            postgres.connection().join(", "),
            found[0].id.pid()
        ),
    );
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until("the backend is dead", |e| matches!(e, Event::Injected { .. }));
    eventually("PostgreSQL restarts its backends", || found.iter().all(|b| !b.id.is_alive()));
    run.wait().expect(0);
    assert!(postgres.answers());
    let text = pool.output();
    assert!(text.contains("terminated") || text.contains("terminating connection"), "the pool lost nothing: {text}");
    toprope.assert_clean();
}
