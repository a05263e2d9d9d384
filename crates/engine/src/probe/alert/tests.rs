use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use serde_json::{Value as Json, json};
use toprope_model::event::Phase;

use super::Kind;
use super::notice::Notice;
use crate::probe::testing::{PATIENCE, ask, ask_at, gives_up_in_time, nobody, probe, problems, serve, serve_http};
use crate::probe::{Answer, Moment, Probe};

fn after(seconds: u64) -> Moment {
    Moment { number: 0, phase: Phase::Inject, since_injection: Some(Duration::from_secs(seconds)) }
}

fn good(value: f64) -> Answer {
    Answer { value: Some(value), ..Answer::good() }
}

fn alert(name: &str, service: &str) -> Json {
    json!({"labels": {"alertname": name, "service": service}, "status": {"state": "active"}, "fingerprint": "f"})
}

/// An Alertmanager that has these alerts, and notes what it was asked.
async fn alertmanager(alerts: Arc<Mutex<Json>>, asked: Arc<Mutex<String>>) -> SocketAddr {
    let answer = async move |RawQuery(query): RawQuery| {
        *asked.lock().unwrap() = query.unwrap_or_default();
        axum::Json(alerts.lock().unwrap().clone())
    };
    serve_http(Router::new().route("/am/api/v2/alerts", get(answer))).await
}

#[tokio::test]
async fn an_alert_fires_in_time_or_not() {
    let alerts = Arc::new(Mutex::new(json!([alert("Other", "checkout"), alert("Errors", "cart")])));
    let asked = Arc::default();
    let at = alertmanager(Arc::clone(&alerts), Arc::clone(&asked)).await;
    let yaml = format!(
        "{{alert: Errors, labels: {{service: checkout}}, alertmanager: 'http://{at}/am', fires: {{within: 2m}}}}"
    );
    let fires = probe(&Kind, &yaml);
    assert_eq!(fires.needs_after_injection(), Some(Duration::from_secs(120)));
    assert_eq!(fires.tolerates(), "fires within 2m of the injection, and not before");
    assert_eq!(ask(&fires).await, good(0.0), "others that fire are not meant");
    let query = asked.lock().unwrap().clone();
    assert!(query.contains("silenced=false") && query.contains("filter=alertname%3D%22Errors%22"), "{query}");
    assert!(ask_at(&fires, after(60)).await.silent, "it may still fire");
    let late = ask_at(&fires, after(121)).await;
    assert_eq!(late.bad.unwrap(), "the alert has not fired within 2m of the injection");
    *alerts.lock().unwrap() = json!([alert("Errors", "checkout")]);
    assert_eq!(ask(&fires).await.bad.unwrap(), "the alert fires before anything was injected");
    assert_eq!(ask_at(&fires, after(60)).await, good(1.0));
    *alerts.lock().unwrap() = json!([]);
    assert_eq!(ask_at(&fires, after(300)).await, good(0.0), "it has fired in time, and is resolved");
    assert_eq!(ask(&fires).await, good(0.0));
    assert!(ask_at(&fires, after(1)).await.silent, "another trial begins anew");
}

#[tokio::test]
async fn an_alert_stays_silent_or_not() {
    let alerts = Arc::new(Mutex::new(json!([])));
    let at = alertmanager(Arc::clone(&alerts), Arc::default()).await;
    let silent = probe(&Kind, &format!("{{alert: Errors, alertmanager: 'http://{at}/am', silent: true}}"));
    assert_eq!((ask(&silent).await, ask_at(&silent, after(5)).await), (good(0.0), good(0.0)));
    assert_eq!(silent.needs_after_injection(), None);
    *alerts.lock().unwrap() = json!([alert("Errors", "cart")]);
    assert_eq!(ask_at(&silent, after(5)).await, Answer { value: Some(1.0), ..Answer::bad("the alert fires") });
}

#[tokio::test]
async fn an_alertmanager_that_cannot_be_asked_is_no_evidence() {
    let of = |at: SocketAddr| probe(&Kind, &format!("{{alert: A, alertmanager: 'http://{at}', silent: true}}"));
    assert!(ask(&of(nobody())).await.broken);
    assert!(ask(&of(serve_http(Router::new()).await)).await.bad.unwrap().contains("status 404"));
    let object = serve_http(Router::new().fallback(async || "{}")).await;
    assert!(ask(&of(object)).await.broken);
    let silent = serve(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    gives_up_in_time(&of(silent.await)).await;
}

async fn notify(at: SocketAddr, body: &Json) -> u16 {
    let client = reqwest_client();
    client.post(format!("http://{at}/any/path")).body(body.to_string()).send().await.unwrap().status().as_u16()
}

fn reqwest_client() -> reqwest::Client {
    let tls = crate::probe::tls::unused();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// A probe that listens, and where: the port was free a moment ago.
async fn listening(yaml: &str) -> (Arc<dyn Probe>, SocketAddr) {
    for _ in 0..20 {
        let at = nobody();
        let probe = probe(&Kind, &format!("{{listen: '{at}', {yaml}}}"));
        if probe.begin().await.is_ok() {
            return (probe, at);
        }
    }
    panic!("no port is free");
}

#[tokio::test]
async fn notifications_of_alertmanager_are_taken() {
    let (fires, at) = listening("alert: Errors, labels: {service: checkout}, fires: {within: 1m}").await;
    let webhook = |status: &str, service: &str| {
        json!({"version": "4", "status": "firing", "receiver": "toprope", "alerts": [
            {"status": status, "labels": {"alertname": "Errors", "service": service}, "startsAt": "2026-01-01T00:00:00Z"},
            {"status": "firing", "labels": {"alertname": "Other", "service": "checkout"}}]})
    };
    assert_eq!(ask(&fires).await, good(0.0));
    assert_eq!(notify(at, &webhook("firing", "cart")).await, 200);
    assert!(ask_at(&fires, after(1)).await.silent);
    assert_eq!(notify(at, &webhook("firing", "checkout")).await, 200);
    assert_eq!(ask_at(&fires, after(2)).await, good(1.0));
    assert_eq!(notify(at, &webhook("resolved", "checkout")).await, 200);
    assert_eq!(ask_at(&fires, after(3)).await, good(0.0));
}

#[tokio::test]
async fn an_alert_that_came_and_went_between_two_samples_has_fired() {
    let (silent, at) = listening("alert: Errors, silent: true").await;
    // A second probe shares the receiver.
    let other = probe(&Kind, &format!("{{listen: '{at}', alert: Other, silent: true}}"));
    other.begin().await.unwrap();
    assert_eq!(notify(at, &json!({"alert": "Errors", "state": "alerting"})).await, 200);
    assert_eq!(notify(at, &json!([{"alert": "Errors", "state": "ok"}])).await, 200);
    assert_eq!(ask(&silent).await, Answer { value: Some(0.0), ..Answer::bad("the alert fires") });
    assert_eq!((ask(&silent).await, ask(&other).await), (good(0.0), good(0.0)));
}

#[tokio::test]
async fn garbage_is_refused_and_the_address_is_given_back() {
    let (silent, at) = listening("alert: Errors, silent: true").await;
    assert_eq!(notify(at, &json!("x")).await, 400);
    assert_eq!(notify(at, &json!({"labels": {"a": "b"}})).await, 400);
    let client = reqwest_client();
    let huge = client.post(format!("http://{at}/")).body(vec![b'x'; 2 << 20]).send().await;
    // The server may close while we still send.
    assert!(huge.map_or(true, |reply| reply.status() == 413));
    assert_eq!(ask(&silent).await, good(0.0));
    drop(silent);
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(e) = std::net::TcpListener::bind(at) {
        assert!(std::time::Instant::now() < deadline, "{e}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_before_the_run() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let probe = probe(&Kind, &format!("{{alert: A, listen: '{at}', silent: true}}"));
    assert!(probe.begin().await.unwrap_err().0.contains("choose another port"));
    assert!(ask(&probe).await.broken);
}

#[test]
fn alerts_are_read_in_the_forms_in_which_they_come() {
    let read = |json: Json| Notice::read(&json).map(|n| (n.name, n.firing));
    let is = |name: &str, firing| Some((name.to_owned(), firing));
    assert_eq!(read(json!({"labels": {"alertname": "A"}, "status": {"state": "active"}})), is("A", true));
    assert_eq!(read(json!({"labels": {"alertname": "A"}, "status": {"state": "suppressed"}})), is("A", false));
    assert_eq!(read(json!({"labels": {"alertname": "A"}, "status": "resolved"})), is("A", false));
    assert_eq!(read(json!({"title": "A"})), is("A", true));
    assert_eq!(read(json!({"name": "A", "status": "OK"})), is("A", false));
    assert_eq!(read(json!({"status": "firing"})), None);
    assert_eq!(read(json!(5)), None);
}

#[test]
fn one_source_and_one_expectation_are_needed() {
    for (yaml, why) in [
        ("{alert: A, fires: {within: 1m}}", "`alertmanager` is missing"),
        ("{alert: A, listen: '127.0.0.1:1'}", "`fires` is missing"),
        ("{alert: A, listen: '127.0.0.1:1', fires: {within: 1m}, silent: true}", "exclude each other"),
        ("{alert: A, listen: '127.0.0.1:1', silent: false}", "must not be silent fires"),
        ("{alert: A, listen: '127.0.0.1:1', silent: true, headers: {a: b}}", "only with `alertmanager`"),
        ("{alert: A, listen: 'localhost', silent: true}", "an address of this host and a port"),
        ("{alert: A, alertmanager: 'http://x/{run}', silent: true}", "same in every sample"),
    ] {
        let found = problems(&Kind, yaml);
        assert!(found.contains(why), "{yaml}: {found}");
    }
}
