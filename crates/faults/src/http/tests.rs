use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::{host, params, planned};

/// A server of flags: PUT sets one to the body, GET shows it or 404, DELETE removes it or 404.
pub(crate) struct Flags {
    url: String,
    flags: Arc<Mutex<HashMap<String, String>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Flags {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/flag", listener.local_addr().expect("bound"));
        let served = Self { url, flags: Arc::default(), requests: Arc::default() };
        let (flags, requests) = (served.flags.clone(), served.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (flags, requests) = (flags.clone(), requests.clone());
                tokio::spawn(async move { serve(stream, &flags, &requests).await });
            }
        });
        served
    }

    pub(crate) fn flag(&self) -> Option<String> {
        self.flags.lock().unwrap().get("/flag").cloned()
    }

    pub(crate) fn fault(&self) -> serde_json::Value {
        let url = &self.url;
        json!({
            "apply": {"put": url, "body": "on", "status": 204},
            "check": {"get": url, "matches": "^on$"},
            "undo": {"delete": url},
            "timeout": "5s",
        })
    }
}

async fn serve(stream: TcpStream, flags: &Mutex<HashMap<String, String>>, requests: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) <= 2 {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let Some(first) = head.first() else { return };
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let length = head.iter().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.expect("the client sends what it says");
    requests.lock().unwrap().push(head.join("\n"));
    let (status, text) = {
        let mut flags = flags.lock().unwrap();
        match method.as_str() {
            "PUT" => {
                flags.insert(path, String::from_utf8(body).expect("text"));
                ("204 No Content", String::new())
            }
            "DELETE" if flags.remove(&path).is_some() => ("204 No Content", String::new()),
            "GET" if flags.contains_key(&path) => ("200 OK", flags[&path].clone()),
            _ => ("404 Not Found", "none".into()),
        }
    };
    let length = if status.starts_with("204") { String::new() } else { format!("content-length: {}\r\n", text.len()) };
    let answer = format!("HTTP/1.1 {status}\r\n{length}connection: close\r\n\r\n{text}");
    drop(stream.write_all(answer.as_bytes()).await);
}

#[tokio::test]
async fn it_is_applied_seen_and_undone() {
    let server = Flags::start().await;
    let params = params(server.fault());
    let (plan, step) = planned(&Http, &params, &host()).await;
    assert_eq!(server.flag(), None, "planning changes nothing");
    assert_eq!(plan.steps[0].describe, format!("PUT {0}; undone by DELETE {0}", server.url));
    let mut injection = Http.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(server.flag().as_deref(), Some("on"));
    assert_eq!(injection.observe().await.expect("it answers").took, Some(true));
    server.flags.lock().unwrap().insert("/flag".into(), "off".into());
    assert_eq!(injection.observe().await.expect("it answers").took, Some(false));
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(server.flag(), None);
}

#[tokio::test]
async fn it_is_undone_from_every_state() {
    let server = Flags::start().await;
    let params = params(server.fault());
    let (_, step) = planned(&Http, &params, &host()).await;
    let notes = Http.undo(&step, &host()).await.expect("404, and nothing in force");
    assert!(notes[0].contains("failed (status 404") && notes[0].contains("nothing in force"), "{notes:?}");
    drop(Http.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}")));
    for _ in 0..2 {
        Http.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(server.flag(), None);
    }
}

#[tokio::test]
async fn what_is_in_force_already_is_refused() {
    let server = Flags::start().await;
    server.flags.lock().unwrap().insert("/flag".into(), "on".into());
    let refused = Http.plan(&params(server.fault()), &host()).await.expect_err("it is on");
    assert!(refused.message.contains("in force already"), "{refused}");
    assert_eq!(server.flag().as_deref(), Some("on"));
}

#[tokio::test]
async fn no_answer_is_neither_yes_nor_no() {
    let server = Flags::start().await;
    let mut fault = server.fault();
    fault["timeout"] = json!("300ms");
    let (_, step) = planned(&Http, &params(fault.clone()), &host()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let mut gone = step.clone();
    gone.data["back"]["check"]["get"] = json!(format!("http://{free}/flag"));
    let unknown = Http.undo(&gone, &host()).await.expect_err("nobody says that it is undone");
    assert!(unknown.message.contains("cannot be told") && unknown.help.is_some(), "{unknown}");
    fault["check"]["get"] = json!(format!("http://{free}/flag"));
    let refused = Http.plan(&params(fault), &host()).await.expect_err("nobody answers");
    assert!(refused.message.contains("was not answered"), "{refused}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let fault = json!({"apply": {"get": url}, "check": {"get": url}, "undo": {"get": url}, "timeout": "200ms"});
    let planning = tokio::time::timeout(crate::testing::PATIENCE, async {
        Http.plan(&params(fault), &host()).await.expect_err("silence")
    });
    let refused = planning.await.expect("the timeout holds");
    assert!(refused.message.contains("not within 200ms"), "{refused}");
}

#[tokio::test]
async fn secrets_are_sent_and_stand_in_no_step() {
    let server = Flags::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("token"), "s3cret-of-tests\n").expect("our own");
    let mut fault = server.fault();
    fault["apply"]["auth"] = json!({"bearer": {"file": "token"}});
    let host = Host { directory: directory.path().into(), ..host() };
    let params = params(fault);
    let (plan, step) = planned(&Http, &params, &host).await;
    drop(Http.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}")));
    let sent = server.requests.lock().unwrap().join("\n");
    assert!(sent.to_lowercase().contains("authorization: bearer s3cret-of-tests"), "{sent}");
    assert!(!serde_json::to_string(&plan).expect("plain data").contains("s3cret-of-tests"));
    Http.undo(&step, &host).await.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn requests_are_checked_as_the_probe_checks_them() {
    let url = "http://127.0.0.1:1/";
    for (check, says) in [
        (json!({}), "`get` is missing"),
        (json!({"get": url, "put": url}), "exclude each other"),
        (json!({"get": "ftp://x/"}), "ftp"),
        (json!({"get": url, "keepalive": true}), "unknown field `keepalive`"),
        (json!({"get": url, "staus": 200}), "unknown field `staus`"),
        (json!({"get": "http://x/{run}"}), "placeholder"),
        (json!("http://x/"), "a map was expected"),
    ] {
        let fault = json!({"apply": {"get": url}, "check": check, "undo": {"get": url}});
        let mut problems = Problems::default();
        (SPEC.spec.check)(&Node::from_json(&fault), &mut problems);
        assert!(problems.to_string().contains(says), "{check}: {problems}");
        let mut repeated: Vec<&str> = problems.0.iter().map(|p| p.message.as_str()).collect();
        repeated.dedup();
        assert_eq!(repeated.len(), problems.0.len(), "each problem is told once: {problems}");
    }
}
