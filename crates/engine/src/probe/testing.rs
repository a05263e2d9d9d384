//! What the tests of several probes share.

use std::sync::Arc;
use std::time::Duration;

use toprope_model::event::Phase;
use toprope_model::{Node, Problems, Sources};

use super::{Answer, Context, Moment, Probe, ProbeKind};

/// How long a test waits for what must happen: far longer than a stall of the machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a run would give to its probes.
pub(super) fn context() -> Context {
    Context {
        run: "run-1".into(),
        timeout: Duration::from_secs(5),
        directory: std::env::current_dir().expect("the tests' directory is there"),
        invoking_user: None,
        services: vec![],
    }
}

/// Parameters as they stand in a manifest.
pub(super) fn params(yaml: &str) -> Node {
    toprope_model::parse(&mut Sources::default(), "test.yaml", yaml).unwrap_or_else(|e| panic!("{e}: {yaml}"))
}

/// What is wrong with parameters; empty if nothing is.
pub(super) fn problems(kind: &dyn ProbeKind, yaml: &str) -> String {
    let mut problems = Problems::default();
    (kind.spec().check)(&params(yaml), &mut problems);
    problems.to_string()
}

/// A probe with these parameters.
#[track_caller]
pub(super) fn probe(kind: &dyn ProbeKind, yaml: &str) -> Arc<dyn Probe> {
    try_probe(kind, yaml, &context()).unwrap_or_else(|e| panic!("{e}: {yaml}"))
}

/// A probe with these parameters, or why there is none.
pub(super) fn try_probe(kind: &dyn ProbeKind, yaml: &str, context: &Context) -> Result<Arc<dyn Probe>, String> {
    let wrong = problems(kind, yaml);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    kind.build(&params(yaml), context).map(Arc::from).map_err(|e| e.to_string())
}

/// A moment in the steady state.
pub(super) fn moment(number: u64) -> Moment {
    Moment { number, phase: Phase::SteadyState, since_injection: None }
}

/// Takes sample number 0.
pub(super) async fn ask(probe: &Arc<dyn Probe>) -> Answer {
    ask_at(probe, moment(0)).await
}

/// Takes a sample at a moment.
pub(super) async fn ask_at(probe: &Arc<dyn Probe>, moment: Moment) -> Answer {
    tokio::time::timeout(PATIENCE, Arc::clone(probe).sample(moment)).await.expect("the sample ends by itself")
}

/// That a sample does not end by itself, and that giving it up works.
pub(super) async fn gives_up_in_time(probe: &Arc<dyn Probe>) {
    let sample = Arc::clone(probe).sample(moment(0));
    let given_up = tokio::time::timeout(Duration::from_millis(300), sample).await;
    assert!(given_up.is_err(), "it should still wait, and answered {given_up:?}");
}

/// A TCP server that does the same with each connection; ends with the test's runtime.
pub(super) async fn serve<F, R>(handle: F) -> std::net::SocketAddr
where
    F: Fn(tokio::net::TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// An address where nobody listens.
pub(super) fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An HTTP server; ends with the test's runtime.
pub(super) async fn serve_http(app: axum::Router) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Whether a program is there that a test needs. Says so where it is not: the test is then no proof.
pub(super) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}
