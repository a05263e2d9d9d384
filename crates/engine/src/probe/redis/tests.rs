use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Kind;
use crate::probe::testing::{
    PATIENCE, ask, ask_at, context, gives_up_in_time, installed, moment, nobody, probe, problems, serve, try_probe,
};
use crate::probe::{Answer, Context, Probe};

/// A Redis on a socket in a directory of its own.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Option<Self> {
        if !installed("redis-server") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--requirepass", "s3cret", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, directory };
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(server.directory.path().join("password"), "s3cret\n").unwrap();
        std::fs::write(server.directory.path().join("url"), format!("unix://{}?pass=s3cret", socket.display()))
            .unwrap();
        Some(server)
    }

    fn probe(&self, yaml: &str) -> Arc<dyn Probe> {
        let socket = self.directory.path().join("redis.sock");
        let context = Context { directory: self.directory.path().into(), ..context() };
        let yaml = format!("{{url: 'unix://{}?db=3', password: {{file: password}}, {yaml}}}", socket.display());
        try_probe(&Kind, &yaml, &context).unwrap_or_else(|e| panic!("{e}: {yaml}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_real_server_is_asked() {
    let Some(server) = Server::start().await else { return };
    let of = |yaml: &str| server.probe(yaml);
    let ping = of("command: [PING]");
    assert_eq!(ask(&ping).await, Answer::good());
    assert!(ping.asks().starts_with("PING at unix://") && !ping.asks().contains("s3cret"), "{}", ping.asks());
    assert_eq!(ask(&of("matches: ^PONG$")).await, Answer::good(), "PING is what is asked by default");
    for _ in 0..3 {
        assert_eq!(ask(&of("command: [RPUSH, jobs, a]")).await, Answer::good());
    }
    let depth = ask(&of("command: [LLEN, jobs], value: < 3")).await;
    assert_eq!(depth, Answer { value: Some(3.0), ..Answer::bad("the reply is `3`, not < 3") });
    assert_eq!(ask(&of("command: [LRANGE, jobs, '0', '-1'], json: '$[*]', in: [a]")).await, Answer::good());
    assert_eq!(ask(&of("command: [GET, none], in: [nil]")).await, Answer::good());
    let error = ask(&of("command: [LLEN]")).await;
    assert!(!error.broken && error.bad.unwrap().starts_with("the server answers: `ERR wrong number"));
    let kept = of("command: [CLIENT, ID], value: '> 0', keepalive: true");
    assert_eq!(ask(&kept).await.value, ask(&kept).await.value, "one connection");
    let anew = of("command: [CLIENT, ID], value: '> 0'");
    assert_ne!(ask(&anew).await.value, ask(&anew).await.value, "a connection for each");
}

#[tokio::test]
async fn writes_to_a_real_server_are_found_unless_they_are_lost() {
    let Some(server) = Server::start().await else { return };
    let write = server.probe("write: [SET, 'o:{run}:{n}', '1'], find: [EXISTS, 'o:{run}:{n}']");
    assert!(write.can_find());
    assert_eq!(ask_at(&write, moment(4)).await.wrote.as_deref(), Some("4"));
    assert_eq!(write.clone().find("4".into()).await, Ok(true));
    assert_eq!(write.clone().find("5".into()).await, Ok(false));
    assert_eq!(ask(&server.probe("command: [FLUSHDB]")).await, Answer::good());
    assert_eq!(write.clone().find("4".into()).await, Ok(false));
    drop(server);
    assert!(write.clone().find("4".into()).await.is_err(), "nobody can tell");
    assert!(ask(&write).await.bad.unwrap().starts_with("cannot connect: "));
}

#[tokio::test]
async fn a_login_that_is_refused_is_bad() {
    let Some(server) = Server::start().await else { return };
    std::fs::write(server.directory.path().join("password"), "wrong").unwrap();
    assert!(ask(&server.probe("command: [PING]")).await.bad.unwrap().starts_with("AUTH is refused: `WRONGPASS"));
    let context = Context { directory: server.directory.path().into(), ..context() };
    let by_url = try_probe(&Kind, "url-from: {file: url}", &context).unwrap();
    assert_eq!(ask(&by_url).await, Answer::good());
    assert!(!by_url.asks().contains("s3cret"));
}

#[tokio::test]
async fn bad_days_are_bad_samples_that_say_why() {
    let of = |at: std::net::SocketAddr| probe(&Kind, &format!("url: 'redis://{at}'"));
    let gone = ask(&of(nobody())).await;
    assert_eq!(gone, Answer { unanswered: true, ..Answer::bad("cannot connect: connection refused (os error 111)") });
    let says = |reply: &'static [u8]| {
        serve(move |mut stream: TcpStream| async move {
            drop(stream.read(&mut [0; 100]).await);
            drop(stream.write_all(reply).await);
            drop(stream.shutdown().await);
        })
    };
    let garbage = ask(&of(says(b"HTTP/1.1 400 Bad Request\r\n").await)).await;
    assert!(garbage.bad.unwrap().contains("not Redis's protocol"));
    let hangs_up = ask(&of(says(b"$10\r\nab").await)).await;
    assert!(hangs_up.bad.unwrap().contains("the server has closed it"));
    let endless = serve(|mut stream: TcpStream| async move {
        drop(stream.read(&mut [0; 100]).await);
        drop(stream.write_all(b"+").await);
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    assert_eq!(ask(&of(endless.await)).await, Answer::bad("the reply is too long"));
    let silent = serve(|stream: TcpStream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    gives_up_in_time(&of(silent.await)).await;
    let plain = says(b"-ERR unknown\r\n").await;
    let tls = ask(&probe(&Kind, &format!("url: 'rediss://{plain}'"))).await;
    assert!(tls.bad.unwrap().starts_with("cannot connect: "), "a server without TLS");
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for (yaml, why) in [
        ("{command: [PING]}", "`url` is missing"),
        ("{url: 'redis://h', url-from: {env: X}}", "exclude each other"),
        ("{url: 'redis://me:pw@h'}", "under `user` and `password`"),
        ("{url: 'http://h'}", "begins neither with redis://"),
        ("{url: 'redis://h', command: [A], write: [B, '{n}'], find: [C, '{n}']}", "exclude each other"),
        ("{url: 'redis://h', write: [B, '{n}']}", "belong together"),
        ("{url: 'redis://h', write: [B], find: [C, '{n}']}", "every write is the same"),
        ("{url: 'redis://h', command: PING}", "a list was expected"),
    ] {
        let found = problems(&Kind, yaml);
        assert!(found.contains(why), "{yaml}: {found}");
    }
}
