use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Kind;
use crate::probe::testing::{
    ask, ask_at, gives_up_in_time, moment, nobody, probe, problems, serve, serve_http, try_probe,
};
use crate::probe::{Answer, Context, testing};

/// Answers each connection with these bytes, after it has read something, and closes.
async fn says(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes: Vec<u8> = bytes.into();
    serve(move |mut stream: TcpStream| {
        let bytes = bytes.clone();
        async move {
            let mut request = [0; 4096];
            drop(stream.read(&mut request).await);
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
        }
    })
    .await
}

#[tokio::test]
async fn a_status_is_judged() {
    let app = Router::new()
        .route("/ok", get(async || "fine"))
        .route("/down", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/away", get(async || Redirect::temporary("/ok")));
    let at = serve_http(app).await;
    assert_eq!(ask(&probe(&Kind, &format!("get: 'http://{at}/ok'"))).await, Answer::good());
    let down = ask(&probe(&Kind, &format!("get: 'http://{at}/down'"))).await;
    assert_eq!(down, Answer::bad("status 503, not one below 400"), "a latency is the caller's to take");
    assert_eq!(ask(&probe(&Kind, &format!("{{get: 'http://{at}/down', status: 503}}"))).await, Answer::good());
    let other = ask(&probe(&Kind, &format!("{{get: 'http://{at}/ok', statuses: [201, 204]}}"))).await;
    assert_eq!(other.bad.unwrap(), "status 200, not one of 201, 204");
    // A redirect is an answer unless it is followed.
    assert_eq!(ask(&probe(&Kind, &format!("{{get: 'http://{at}/away', status: 307}}"))).await, Answer::good());
    assert_eq!(
        ask(&probe(&Kind, &format!("{{get: 'http://{at}/away', status: 200, follow: 1}}"))).await,
        Answer::good()
    );
}

#[tokio::test]
async fn a_body_is_judged_and_yields_a_value() {
    let app = Router::new()
        .route("/depth", get(async || "12\n"))
        .route("/health", get(async || r#"{"status": "ok", "queue": {"depth": 7}}"#));
    let at = serve_http(app).await;
    let depth = probe(&Kind, &format!("{{get: 'http://{at}/depth', value: 5..20}}"));
    assert_eq!((ask(&depth).await, depth.unit()), (Answer { value: Some(12.0), ..Answer::good() }, ""));
    let health = format!("get: 'http://{at}/health'");
    let depth = ask(&probe(&Kind, &format!("{{{health}, json: $.queue.depth, value: < 5}}"))).await;
    assert_eq!(depth, Answer { value: Some(7.0), ..Answer::bad("$.queue.depth is `7`, not < 5") });
    assert_eq!(ask(&probe(&Kind, &format!("{{{health}, matches: '\"status\": \"ok\"'}}"))).await, Answer::good());
    assert_eq!(ask(&probe(&Kind, &format!("{{{health}, json: $.status, in: [up, ok]}}"))).await, Answer::good());
    let missing = ask(&probe(&Kind, &format!("{{{health}, json: $.nodes}}"))).await;
    assert_eq!(missing.bad.unwrap(), "there is nothing at $.nodes in the body");
}

#[tokio::test]
async fn a_request_carries_what_was_asked_for_and_shows_no_secret() {
    let echo = async |request: Request| {
        let header = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let head = [request.method().as_str(), &request.uri().to_string()].join(" ");
        let headers = ["authorization", "x-key", "x-plain", "content-type"].map(header).join("|");
        let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
        format!("{head} {headers} {}", String::from_utf8_lossy(&body))
    };
    let at = serve_http(Router::new().fallback(echo)).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "s3cret\n").unwrap();
    let context = Context { directory: directory.path().into(), ..testing::context() };
    let yaml = format!(
        "{{post: 'http://{at}/o/{{run}}-{{n}}', body: '{{\"n\": {{n}}}}', headers: {{X-Plain: p}}, \
         secret-headers: {{X-Key: {{file: token}}}}, auth: {{basic: {{user: me, password: {{file: token}}}}}}, \
         matches: '^POST /o/run-1-3 Basic bWU6czNjcmV0\\|s3cret\\|p\\|application/json \\{{\"n\": 3\\}}$'}}"
    );
    let post = try_probe(&Kind, &yaml, &context).unwrap();
    assert_eq!(ask_at(&post, moment(3)).await, Answer::good());
    assert_eq!(post.asks(), format!("POST http://{at}/o/{{run}}-{{n}}"));
    let bearer = format!("{{get: 'http://{at}/', auth: {{bearer: {{file: token}}}}, matches: ' Bearer s3cret\\|'}}");
    assert_eq!(ask(&try_probe(&Kind, &bearer, &context).unwrap()).await, Answer::good());
    let shown = format!("{{get: 'http://{at}/', auth: {{bearer: {{file: token}}}}, matches: nothing of the kind}}");
    let shown = ask(&try_probe(&Kind, &shown, &context).unwrap()).await.bad.unwrap();
    assert!(shown.contains("Bearer (secret)"), "{shown}");
    assert!(try_probe(&Kind, &bearer, &testing::context()).err().unwrap().contains("cannot read the secret"));
}

#[tokio::test]
async fn each_sample_connects_anew_unless_kept_alive() {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let at = serve(|mut stream: TcpStream| async move {
        CONNECTIONS.fetch_add(1, Ordering::SeqCst);
        let mut request = [0; 4096];
        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let anew = probe(&Kind, &format!("get: 'http://{at}/'"));
    for _ in 0..3 {
        assert_eq!(ask(&anew).await, Answer::good());
    }
    assert_eq!(CONNECTIONS.swap(0, Ordering::SeqCst), 3);
    let kept = probe(&Kind, &format!("{{get: 'http://{at}/', keepalive: true}}"));
    for _ in 0..3 {
        assert_eq!(ask(&kept).await, Answer::good());
        // The connection goes back to the pool in a task of its own.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(CONNECTIONS.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_acknowledged_write_is_named_and_found_again() {
    let app = Router::new().route("/orders", post(async || (StatusCode::CREATED, r#"{"id": "o-17"}"#))).route(
        "/orders/{id}",
        get(async |Path(id): Path<String>| match id.as_str() {
            "o-17" | "4" => format!("order {id}").into_response(),
            "5" => StatusCode::NOT_FOUND.into_response(),
            _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }),
    );
    let at = serve_http(app).await;
    let by_id = probe(&Kind, &format!("{{post: 'http://{at}/orders', json: $.id, find: 'http://{at}/orders/{{id}}'}}"));
    assert!(by_id.can_find());
    assert_eq!(ask(&by_id).await.wrote.as_deref(), Some("o-17"));
    assert_eq!(by_id.find("o-17".into()).await, Ok(true));
    let yaml = format!("post: 'http://{at}/orders', status: 201, find: 'http://{at}/orders/{{n}}'");
    let by_number = probe(&Kind, &format!("{{{yaml}}}"));
    assert_eq!(ask_at(&by_number, moment(4)).await.wrote.as_deref(), Some("4"));
    assert_eq!(by_number.clone().find("4".into()).await, Ok(true));
    assert_eq!(by_number.clone().find("5".into()).await, Ok(false));
    assert!(by_number.find("6".into()).await.unwrap_err().0.contains("status 500"));
    let contained = probe(&Kind, &format!("{{{yaml}, find-contains: 'order {{n}}'}}"));
    assert_eq!(contained.find("4".into()).await, Ok(true));
    let not_contained = probe(&Kind, &format!("{{{yaml}, find-contains: 'payment {{n}}'}}"));
    assert_eq!(not_contained.find("4".into()).await, Ok(false));
    let refused =
        probe(&Kind, &format!("{{post: 'http://{at}/orders', status: 200, find: 'http://{at}/orders/{{n}}'}}"));
    assert_eq!(ask(&refused).await.wrote, None, "what was not acknowledged cannot be lost");
}

#[tokio::test]
async fn bad_days_are_bad_samples_that_say_why() {
    async fn why(yaml: String) -> String {
        let answer = ask(&probe(&Kind, &yaml)).await;
        assert!(!answer.broken, "{answer:?}");
        answer.bad.unwrap_or_else(|| panic!("good: {yaml}"))
    }
    assert_eq!(why(format!("get: 'http://{}/'", nobody())).await, "cannot connect: connection refused (os error 111)");
    assert!(why("get: 'http://no-such-host.invalid/'".into()).await.starts_with("cannot connect: failed to lookup"));
    let garbage = says("\u{1}\u{2}garbage\r\n\r\n").await;
    assert!(why(format!("get: 'http://{garbage}/'")).await.starts_with("no valid answer: "));
    let hangs_up = says("").await;
    assert!(why(format!("get: 'http://{hangs_up}/'")).await.starts_with("no valid answer: connection closed"));
    let breaks_off = says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    assert!(why(format!("get: 'http://{breaks_off}/'")).await.starts_with("the answer broke off: "));
    let not_json = says("HTTP/1.1 200 OK\r\n\r\n<html>").await;
    assert!(why(format!("{{get: 'http://{not_json}/', json: $.a}}")).await.starts_with("the body is not JSON"));
    let for_ever = serve_http(Router::new().route("/", get(async || Redirect::temporary("/")))).await;
    let answer = why(format!("{{get: 'http://{for_ever}/', follow: 5}}")).await;
    assert_eq!(answer, "a redirect was not followed: there were more than 5");
}

#[tokio::test]
async fn secrets_do_not_follow_a_redirect_to_another_host() {
    let other = serve_http(Router::new().route("/", get(async || "ok"))).await;
    let to = format!("http://{other}/");
    let here = serve_http(Router::new().route("/", get(async move || Redirect::temporary(&to)))).await;
    assert_eq!(ask(&probe(&Kind, &format!("{{get: 'http://{here}/', status: 200, follow: 3}}"))).await, Answer::good());
    let yaml = format!("{{get: 'http://{here}/', follow: 3, secret-headers: {{X: {{env: CARGO_PKG_NAME}}}}}}");
    assert!(ask(&probe(&Kind, &yaml)).await.bad.unwrap().contains("would be sent the secrets"));
}

#[tokio::test]
async fn a_target_that_never_answers_is_given_up() {
    let silent = serve(|stream: TcpStream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    gives_up_in_time(&probe(&Kind, &format!("get: 'http://{silent}/'"))).await;
}

#[tokio::test]
async fn of_a_body_without_end_only_the_beginning_is_read() {
    let endless = serve(|mut stream: TcpStream| async move {
        drop(stream.read(&mut [0; 4096]).await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    assert_eq!(ask(&probe(&Kind, &format!("{{get: 'http://{endless}/', matches: ^xxx}}"))).await, Answer::good());
    let json = ask(&probe(&Kind, &format!("{{get: 'http://{endless}/', json: $.a}}"))).await;
    assert!(json.bad.unwrap().contains("longer than 1048576 bytes"));
}

mod over_tls {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn testdata() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/probe/testdata")
    }

    async fn tls_server(ask_for_certificate: bool) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certs = |name: &str| {
            CertificateDer::pem_file_iter(testdata().join(name)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certs("ca.pem").remove(0)).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match ask_for_certificate {
            true => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap(),
            ),
            false => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_file(testdata().join("server.key")).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(certs("server.pem"), key).unwrap()));
        serve(move |stream: TcpStream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap_or(0);
                let host = String::from_utf8_lossy(&request[..n])
                    .lines()
                    .find(|l| l.starts_with("host:"))
                    .unwrap_or("")
                    .to_owned();
                let body = format!("sni {name}, {host}");
                let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                drop(stream.write_all(reply.as_bytes()).await);
            }
        })
        .await
    }

    fn with(yaml: &str) -> Arc<dyn crate::probe::Probe> {
        let context = Context { directory: testdata(), ..testing::context() };
        try_probe(&Kind, yaml, &context).unwrap_or_else(|e| panic!("{e}"))
    }

    #[tokio::test]
    async fn a_certificate_must_hold() {
        let at = tls_server(false).await;
        let untrusted = ask(&with(&format!("get: 'https://{at}/'"))).await;
        assert!(!untrusted.broken && untrusted.bad.unwrap().contains("certificate"), "its certificate is evidence");
        let other_name = ask(&with(&format!("{{get: 'https://{at}/', tls: {{ca: ca.pem}}}}"))).await;
        assert!(other_name.bad.unwrap().contains("certificate not valid for name"));
        let named = format!(
            "{{get: 'https://{at}/', tls: {{ca: ca.pem, server-name: toprope.test}}, matches: 'sni toprope.test, host: toprope.test:'}}"
        );
        assert_eq!(ask(&with(&named)).await, Answer::good());
        assert_eq!(ask(&with(&format!("{{get: 'https://{at}/', tls: {{insecure: true}}}}"))).await, Answer::good());
    }

    #[tokio::test]
    async fn a_client_can_have_a_certificate() {
        let at = tls_server(true).await;
        let tls = "ca: ca.pem, server-name: toprope.test";
        let without = ask(&with(&format!("{{get: 'https://{at}/', tls: {{{tls}}}}}"))).await;
        assert!(without.bad.is_some());
        let yaml = format!("{{get: 'https://{at}/', tls: {{{tls}, cert: client.pem, key: client.key}}}}");
        assert_eq!(ask(&with(&yaml)).await, Answer::good());
    }

    #[tokio::test]
    async fn speaking_tls_to_a_plain_server_is_told() {
        let plain = says("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let answer = ask(&with(&format!("get: 'https://{plain}/'"))).await;
        assert!(answer.bad.unwrap().starts_with("cannot connect: "));
    }

    #[test]
    fn files_that_cannot_be_used_are_told_before_the_run() {
        let context = Context { directory: testdata(), ..testing::context() };
        for (tls, why) in [
            ("{ca: no-such.pem}", "no certificate can be read"),
            ("{ca: server.key}", "none in PEM form"),
            ("{cert: client.pem}", "both `cert` and `key`"),
            ("{cert: client.pem, key: ca.pem}", "no usable key"),
            ("{cert: client.pem, key: server.key}", "cannot be used with its key"),
        ] {
            let yaml = format!("{{get: 'https://x/', tls: {tls}}}");
            let error = try_probe(&Kind, &yaml, &context).err().unwrap_or_else(|| panic!("{yaml} is built"));
            assert!(error.contains(why), "{error}");
        }
    }
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    for (yaml, why) in [
        ("{status: 200}", "`get` is missing"),
        ("{get: 'http://x/', post: 'http://x/'}", "`get` and `post` exclude each other"),
        ("{get: 'http://x/', body: hello}", "a body is sent with post"),
        ("{get: 'http://x/', status: 200, statuses: [201]}", "exclude each other"),
        ("{get: 'http://x/', status: '200'}", "a whole number was expected"),
        ("{head: 'http://x/', matches: ok}", "has no body"),
        ("{get: 'http://x/', find: 'http://x/{n}'}", "writes nothing"),
        ("{post: 'http://x/', find: 'http://x/'}", "same for every write"),
        ("{post: 'http://x/', find: 'http://x/{id}'}", "`json` is missing"),
        ("{post: 'http://x/{id}'}", "known only after the write"),
        ("{post: 'http://x/', find-contains: '{n}'}", "`find` is missing"),
        ("{get: 'http://me:hunter2@x/'}", "under `auth`"),
        ("{get: 'http://x/', auth: {bearer: hunter2}}", "named, not written"),
        ("{get: 'http://x/', auth: {}}", "`basic` is missing"),
        ("{get: 'http://x/', json: '$['}", "not a JSONPath"),
    ] {
        let found = problems(&Kind, yaml);
        assert!(found.contains(why), "{yaml}: {found}");
    }
    let bad_header = try_probe(&Kind, "{get: 'http://x/', headers: {'a b': c}}", &testing::context());
    assert!(bad_header.err().unwrap().contains("name is not valid"));
}
