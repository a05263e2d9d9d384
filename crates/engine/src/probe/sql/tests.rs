use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use toprope_os::spawn::{Child, Spawn};
use toprope_os::user::{Identity, User};

use super::Kind;
use crate::probe::testing::{
    PATIENCE, ask, ask_at, context, gives_up_in_time, installed, moment, nobody, probe, problems, serve, try_probe,
};
use crate::probe::{Answer, Context, Probe};

fn within(directory: &Path, yaml: &str) -> Arc<dyn Probe> {
    let context = Context { directory: directory.into(), ..context() };
    try_probe(&Kind, yaml, &context).unwrap_or_else(|e| panic!("{e}: {yaml}"))
}

/// What must hold for every database; `url` is what stands in the manifest, and there is no table yet.
async fn a_database_is_asked(directory: &Path, url: &str) {
    let of = |yaml: &str| within(directory, &format!("{{{url}, {yaml}}}"));
    let good = |value| Answer { value, ..Answer::good() };
    assert_eq!(ask(&of("query: 'select 1'")).await, Answer::good());
    assert_eq!(ask(&of("write: 'create table orders (id varchar(50) primary key, paid int)'")).await.bad, None);
    let insert = of("write: 'insert into orders values (''{run}-{n}'', {n})', rows: 1, \
                     find: 'select 1 from orders where id = ''{run}-{n}'''");
    for n in [0, 1, 2] {
        let answer = ask_at(&insert, moment(n)).await;
        assert_eq!((answer.bad, answer.wrote), (None, Some(n.to_string())));
    }
    let again = ask_at(&insert, moment(2)).await;
    assert!(again.bad.as_ref().unwrap().starts_with("the database answers: "), "a key that is there: {again:?}");
    assert_eq!((again.wrote, again.broken), (None, false));
    assert_eq!(insert.clone().find("0".into()).await, Ok(true));
    assert_eq!(insert.clone().find("9".into()).await, Ok(false));
    assert_eq!(ask(&of("query: 'select count(*) from orders;', value: 1..3")).await, good(Some(3.0)));
    assert_eq!(ask(&of("query: 'select sum(paid) from orders -- all', value: 3")).await, good(Some(3.0)));
    assert_eq!(ask(&of("query: 'select 1.5', value: < 2")).await, good(Some(1.5)));
    assert_eq!(ask(&of("query: 'select id from orders order by id', in: [run-1-0], rows: 3")).await, good(None));
    let rows = ask(&of("query: 'select * from orders', rows: > 3")).await;
    assert_eq!(rows.bad.unwrap(), "3 rows, not > 3");
    let none = of("query: 'select id from orders where 1 = 0', rows: 0");
    assert_eq!(ask(&none).await, Answer::good());
    let none = ask(&of("query: 'select id from orders where 1 = 0', matches: x")).await;
    assert_eq!(none.bad.unwrap(), "there is no row with a value");
    assert_eq!(ask(&of("query: 'select null', in: ['null']")).await, Answer::good());
    assert_eq!(ask(&of("query: 'select ''{\"lag\": 7}''', json: $.lag")).await, good(Some(7.0)));
    let wrong = ask(&of("query: 'selekt 1'")).await;
    assert!(!wrong.broken && wrong.bad.unwrap().starts_with("the database answers: "));
    for writes in ["delete from orders", "drop table orders"] {
        let refused = ask(&of(&format!("query: '{writes}'"))).await;
        assert!(refused.bad.is_some(), "`query` can {writes}");
    }
    assert_eq!(ask(&of("query: 'select count(*) from orders', value: 3")).await, good(Some(3.0)));
    let kept = of("query: 'select count(*) from orders', value: 3, keepalive: true");
    assert_eq!((ask(&kept).await, ask(&kept).await), (good(Some(3.0)), good(Some(3.0))));
}

#[tokio::test]
async fn sqlite_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.db"), "").unwrap();
    a_database_is_asked(directory.path(), "url: 'sqlite:shop.db'").await;
    let missing = ask(&within(directory.path(), "{url: 'sqlite:none.db', query: select 1}")).await;
    assert!(!missing.broken && missing.bad.unwrap().contains("unable to open database file"));
    assert!(!directory.path().join("none.db").exists(), "a probe makes no database");
    std::fs::write(directory.path().join("garbage.db"), "x".repeat(5000)).unwrap();
    let garbage =
        ask(&within(directory.path(), "{url: 'sqlite:garbage.db', query: select name from sqlite_master}")).await;
    assert!(garbage.bad.unwrap().contains("not a database"));
}

/// A server that the test has started.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    async fn start(directory: tempfile::TempDir, spawn: Spawn, socket: &Path) -> Self {
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let spawn = spawn.stdout(log.try_clone().unwrap()).stderr(log).death_signal(toprope_os::process::Signal::KILL);
        let server = Self { child: spawn.start().unwrap(), directory };
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::UnixStream::connect(socket).await.is_err() {
            let log = server.directory.path().join("log");
            assert!(Instant::now() < deadline, "it does not listen: {}", std::fs::read_to_string(log).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.signal(toprope_os::process::Signal::KILL));
        drop(self.child.wait_timeout(PATIENCE));
    }
}

/// Whoever may run a database: root may not.
fn somebody() -> Option<Identity> {
    rustix::process::geteuid().is_root().then(|| User::by_name("nobody").unwrap().unwrap().identity().unwrap())
}

/// A directory that belongs to whoever runs the database, below one that they can reach.
fn directory_of_somebody() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("toprope-sql-").tempdir_in("/tmp").unwrap();
    if let Some(who) = somebody() {
        std::os::unix::fs::chown(directory.path(), Some(who.uid), Some(who.gid)).unwrap();
    }
    directory
}

fn as_somebody(program: &Path) -> Spawn {
    let spawn = Spawn::new(program).directory("/tmp");
    match somebody() {
        Some(who) => spawn.identity(who),
        None => spawn,
    }
}

fn postgres_programs() -> Option<PathBuf> {
    let config = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = config.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let found = configured.into_iter().chain(debian).find(|bin| bin.join("initdb").is_file());
    if found.is_none() {
        eprintln!("SKIPPED: PostgreSQL is not installed");
    }
    found
}

#[tokio::test]
async fn postgresql_is_asked() {
    let Some(bin) = postgres_programs() else { return };
    let directory = directory_of_somebody();
    let data = directory.path().join("data");
    std::fs::write(directory.path().join("password"), "s3cret\n").unwrap();
    let initdb = as_somebody(&bin.join("initdb"))
        .args(["--auth=scram-sha-256", "--username=app", "--no-sync", "--no-locale", "--encoding=UTF8"])
        .arg(format!("--pwfile={}", directory.path().join("password").display()))
        .arg(data.as_os_str());
    let mut initdb = initdb.start().unwrap();
    assert!(initdb.wait().await.unwrap().success());
    let port = nobody().port();
    let spawn = as_somebody(&bin.join("postgres"))
        .args(["-D", data.to_str().unwrap(), "-F", "-h", "127.0.0.1", "-p", &port.to_string(), "-k"])
        .arg(directory.path());
    let socket = directory.path().join(format!(".s.PGSQL.{port}"));
    let server = Server::start(directory, spawn, &socket).await;
    let directory = server.directory.path();
    let url = format!("url: 'postgres://app@127.0.0.1:{port}/postgres', password: {{file: password}}");
    let deadline = Instant::now() + PATIENCE;
    while ask(&within(directory, &format!("{{{url}, query: select 1}}"))).await.bad.is_some() {
        assert!(Instant::now() < deadline, "it does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a_database_is_asked(directory, &url).await;
    let of = |yaml: &str| within(directory, &format!("{{{url}, {yaml}}}"));
    assert_eq!(ask(&of("query: select pg_is_in_recovery(), in: ['false']")).await, Answer::good());
    let returned = ask(&of("write: 'insert into orders values (''x'', 77) returning paid', value: 77")).await;
    assert_eq!(returned, Answer { value: Some(77.0), ..Answer::good() });
    let backend = "query: select pg_backend_pid(), value: '> 0'";
    let (kept, anew) = (of(&format!("{backend}, keepalive: true")), of(backend));
    assert_eq!(ask(&kept).await.value, ask(&kept).await.value, "one connection");
    assert_ne!(ask(&anew).await.value, ask(&anew).await.value, "a connection for each");
    gives_up_in_time(&of("query: select pg_sleep(60)")).await;
    std::fs::write(directory.join("password"), "wrong").unwrap();
    let refused = ask(&of("query: select 1")).await;
    assert!(refused.bad.unwrap().contains("password authentication failed"));
    std::fs::write(directory.join("url"), format!("postgres://app:s3cret@127.0.0.1:{port}/postgres?sslmode=disable"))
        .unwrap();
    let by_url = within(directory, "{url-from: {file: url}, query: select 1}");
    assert_eq!(ask(&by_url).await, Answer::good());
    assert_eq!(by_url.asks(), format!("select 1 at postgres://app@127.0.0.1:{port}/postgres"));
    // The server is killed under a connection that was kept: a client that keeps connections sees that.
    drop(server);
    let broken = ask(&kept).await;
    assert!(!broken.broken && broken.bad.is_some(), "{broken:?}");
    assert!(ask(&kept).await.bad.unwrap().starts_with("cannot connect: connection refused"));
}

#[tokio::test]
async fn mariadb_is_asked() {
    if !installed("mariadbd") || !installed("mariadb-install-db") {
        return;
    }
    let directory = directory_of_somebody();
    let data = format!("--datadir={}", directory.path().join("data").display());
    let install = as_somebody(Path::new("mariadb-install-db")).args([
        "--no-defaults",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        &data,
    ]);
    assert!(install.start().unwrap().wait().await.unwrap().success());
    let socket = directory.path().join("mariadb.sock");
    let port = nobody().port();
    let spawn = as_somebody(Path::new("mariadbd"))
        .args(["--no-defaults", "--bind-address=127.0.0.1", &data, &format!("--port={port}")])
        .arg(format!("--socket={}", socket.display()));
    let server = Server::start(directory, spawn, &socket).await;
    let url = format!("url: 'mysql://root@127.0.0.1:{port}/mysql?ssl-mode=disabled'");
    a_database_is_asked(server.directory.path(), &url).await;
    gives_up_in_time(&within(server.directory.path(), &format!("{{{url}, query: select sleep(60)}}"))).await;
}

#[tokio::test]
async fn bad_days_are_bad_samples_that_say_why() {
    for scheme in ["postgres", "mysql"] {
        let of = |at: std::net::SocketAddr| probe(&Kind, &format!("{{url: '{scheme}://app@{at}/x', query: select 1}}"));
        let gone = ask(&of(nobody())).await;
        assert_eq!(
            gone,
            Answer { unanswered: true, ..Answer::bad("cannot connect: connection refused (os error 111)") }
        );
        let garbage = serve(|mut stream: TcpStream| async move {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            drop(stream.shutdown().await);
        });
        let garbage = ask(&of(garbage.await)).await;
        assert!(!garbage.broken && garbage.bad.as_ref().unwrap().starts_with("cannot connect: "), "{garbage:?}");
        let silent = serve(|stream: TcpStream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        });
        gives_up_in_time(&of(silent.await)).await;
    }
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for (yaml, why) in [
        ("{query: select 1}", "`url` is missing"),
        ("{url: 'sqlite:x'}", "`query` is missing"),
        ("{url: 'sqlite:x', query: select 1, write: delete from x}", "exclude each other"),
        ("{url: 'postgres://me:pw@h/d', query: select 1}", "it holds a password"),
        ("{url: 'postgres://h/d?password=pw', query: select 1}", "it holds a password"),
        ("{url: 'oracle://h/d', query: select 1}", "begins neither with postgres://"),
        ("{url: 'sqlite:x', query: ' ; '}", "no statement"),
        ("{url: 'sqlite:x', query: select 1, find: 'select {n}'}", "only with `write`"),
        ("{url: 'sqlite:x', write: insert, find: select 1}", "same for every write"),
        ("{url: 'sqlite:x', write: insert, find: 'select COUNT(*) from o where id = {n}'}", "always a row"),
    ] {
        let found = problems(&Kind, yaml);
        assert!(found.contains(why), "{yaml}: {found}");
    }
}
