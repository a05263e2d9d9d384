//! Faults on the processes of real servers, as their real clients see them.

use std::time::Duration;

use toprope_model::event::Event;
use toprope_os::process::{ProcessInfo, State};
use toprope_tests::programs::installed;
use toprope_tests::servers::{Nginx, Postgres, Redis};
use toprope_tests::{Running, Toprope, eventually};

fn state(pid: u32) -> State {
    ProcessInfo::of(pid).expect("it runs").state
}

fn is_held(pid: u32) -> bool {
    matches!(state(pid), State::Stopped | State::Traced)
}

/// Waits until this probe was bad while the fault was in force.
fn until_bad(run: &mut Running<'_>, probe: u32) {
    run.until("a bad sample", |event| matches!(event, Event::Sample(s) if s.probe == probe && !s.ok));
}

#[test]
fn a_paused_redis_hangs_for_its_clients_and_goes_on_with_them() {
    if !installed(Redis::NEEDS) {
        return;
    }
    let (redis, bystander, toprope) = (Redis::start(), Redis::start(), Toprope::new());
    // Clients that were there before and stay connected all along.
    let (before, beside) = (redis.client(), bystander.client());
    let experiment = toprope.experiment(
        "paused",
        &format!(
            "probes:
- command: {{run: [redis-cli, -p, '{}', ping], matches: PONG, interval: 200ms, timeout: 6s}}
{}
method:
- process-pause: {{target: {{pid: {}}}, for: 60s}}",
            redis.port,
            toprope.watcher(),
            redis.server.pid()
        ),
    );
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until_in_force();
    assert!(is_held(redis.server.pid()));
    assert!(!redis.cli("1", &["ping"]).1, "a paused server does not answer");
    let answers = before.answers();
    beside.until_answered(5);
    assert!(bystander.answers());
    until_bad(&mut run, 0);
    assert!(is_held(redis.server.pid()), "still");
    assert_eq!(before.answers(), answers, "the client that was there got an answer");
    toprope.let_go();
    let done = run.wait().expect(1);
    assert!(done.stdout.contains("REFUTED"), "{done}");

    assert!(!is_held(redis.server.pid()));
    before.until_answered(3);
    assert!(before.longest() > Duration::from_secs(1), "it waited out the pause: {:?} at most", before.longest());
    assert!(redis.answers(), "it is the same process, and it goes on");
    toprope.assert_clean();
}

#[test]
fn a_paused_nginx_worker_takes_connections_and_answers_none() {
    if !installed(Nginx::NEEDS) {
        return;
    }
    let (nginx, bystander, toprope) = (Nginx::serving(0), Nginx::serving(0), Toprope::new());
    let worker = nginx.worker().id;
    let experiment = toprope.experiment(
        "hangs",
        &format!(
            "probes:
- http: {{get: '{}', status: 200, interval: 200ms, timeout: 6s}}
- tcp: {{connect: '{}', interval: 200ms, timeout: 6s}}
{}
method:
- process-pause: {{target: {{pid: {}}}, for: 60s}}",
            nginx.url("/"),
            nginx.address(),
            toprope.watcher(),
            worker.pid()
        ),
    );
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until_in_force();
    assert_eq!(nginx.curl("/", "1").0, 0, "a paused worker does not answer");
    assert_eq!(bystander.curl("/", "10").0, 200);
    until_bad(&mut run, 0);
    toprope.let_go();
    run.wait().expect(1);
    let bad = |probe| toprope.events().iter().any(|e| matches!(e, Event::Sample(s) if s.probe == probe && !s.ok));
    assert!(bad(0) && !bad(1), "the kernel takes connections for it all the while");
    assert_eq!(nginx.worker().id, worker, "it is the same process");
    assert_eq!(nginx.curl("/", "10").0, 200);
    toprope.assert_clean();
}

#[test]
fn a_paused_postmaster_takes_no_client_and_keeps_those_that_it_has() {
    if !installed(Postgres::NEEDS) {
        return;
    }
    let (postgres, toprope) = (Postgres::start(), Toprope::new());
    let session = postgres.session();
    let experiment = toprope.experiment(
        "postmaster",
        &format!(
            "probes:
- sql: {{url: 'postgres://postgres@{address}/postgres', query: select 1, interval: 200ms, timeout: 6s}}
{}
method:
- process-pause: {{target: {{pid: {}}}, for: 60s}}",
            toprope.watcher(),
            postgres.server.pid(),
            address = postgres.address(),
        ),
    );
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until_in_force();
    assert!(is_held(postgres.server.pid()));
    session.until_answered(5);
    until_bad(&mut run, 0);
    assert!(is_held(postgres.server.pid()), "still");
    toprope.let_go();
    run.wait().expect(1);
    session.until_answered(3);
    assert!(postgres.answers());
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
- http: {{get: '{}', status: 200, interval: 100ms, recovers: {{within: 10s}}}}
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
    assert_eq!(nginx.curl("/", "10").0, 200);
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
        "recovery: {{within: 2s}}
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
    let (text, _) = redis.cli("10", &["ping"]);
    assert!(text.contains("Connection refused"), "{text}");
    toprope.assert_clean();
}

#[test]
fn a_killed_backend_costs_postgres_its_connections_and_it_recovers() {
    if !installed(Postgres::NEEDS) {
        return;
    }
    let (postgres, toprope) = (Postgres::start(), Toprope::new());
    // It ends when it has lost its connections.
    let pool = postgres.pgbench(3, 60);
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
    interval: 200ms
    recovers: {{within: 20s}}
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
