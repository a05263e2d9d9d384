//! `toprope exec`: a suite of pytest, unchanged, against real servers on this host's loopback, as root and as nobody.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use toprope_tests::programs::installed;
use toprope_tests::servers::{Nginx, Redis};
use toprope_tests::{Toprope, eventually, is_root, skip};

const NOBODY: &[&str] = &["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];

/// A suite as anybody may have one. It tells how long its requests took.
const SUITE: &str = r#"
import os, pathlib, socket, time, urllib.request

HERE = pathlib.Path(__file__).parent

def test_the_page_is_shown():
    begun = time.monotonic()
    with urllib.request.urlopen("NGINX", timeout=20) as answer:
        assert answer.read() == b"hello"
    (HERE / "nginx").write_text(str(time.monotonic() - begun))
    while (HERE / "wait").exists():
        time.sleep(0.05)

def test_the_queue_answers():
    best = 1e9
    for _ in range(5):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", REDIS), timeout=20) as queue:
            queue.sendall(b"PING\r\n")
            assert queue.recv(64) == b"+PONG\r\n"
        best = min(best, time.monotonic() - begun)
    (HERE / "redis").write_text(str(best))
"#;

/// Runs a command as nobody, in a user namespace in which nobody may make another, as containers forbid it.
const FORBIDDEN: &str = r#"
unshare --user sh -c 'until [ "$(id -u)" = 0 ]; do sleep 0.05; done; exec "$@"' sh \
    sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --reuid 65534 --clear-groups -- "$@"' sh "$@" &
until echo "0 0 65536" >/proc/$!/uid_map && echo "0 0 65536" >/proc/$!/gid_map; do sleep 0.05; done 2>/dev/null
wait $!
"#;

/// The servers, and the suite in a directory that anybody may write.
struct Site {
    toprope: Toprope,
    nginx: Nginx,
    redis: Redis,
    suite: PathBuf,
}

impl Site {
    fn open() -> Option<Self> {
        if !installed(&[Nginx::NEEDS, Redis::NEEDS, &["pytest"]].concat()) {
            return None;
        }
        let (toprope, nginx, redis) = (Toprope::new(), Nginx::serving(0), Redis::start());
        let directory = toprope.path("suite");
        std::fs::create_dir(&directory).expect("there is room");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
        let text = SUITE.replace("NGINX", &nginx.url("/")).replace("REDIS", &redis.port.to_string());
        let suite = toprope.write("suite/test_shop.py", text);
        Some(Self { toprope, nginx, redis, suite })
    }

    /// `toprope exec … -- pytest`, by way of another program where one is named.
    fn exec(&self, wrapper: &[&str], options: &[&str]) -> Command {
        let suite = self.suite.to_str().expect("a path of this test");
        let pytest = ["--", "pytest", "-q", "-p", "no:cacheprovider", suite];
        let mut command = self.toprope.wrapped(wrapper, &[&["exec"], options, &pytest].concat());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Seconds that the suite wrote down.
    fn took(&self, server: &str) -> f64 {
        let path = self.toprope.path("suite").join(server);
        let took = std::fs::read_to_string(&path).expect("the suite wrote it").parse().expect("seconds");
        std::fs::remove_file(path).expect("it is there");
        took
    }

    /// Under latency it passes late, under a partition it fails; what it does not name, and who is not in
    /// its network, is not hit.
    fn suite_under_faults(&self, wrapper: &[&str]) {
        let reach = format!("127.0.0.1:{}", self.redis.port);
        let slow = format!("network-latency to={} delay=1s", self.nginx.address());
        let cut = format!("network-partition to={} action=reject", self.nginx.address());
        let wait = self.toprope.write("suite/wait", "");
        let run = self.toprope.spawn(self.exec(wrapper, &["--fault", &slow, "--reach", &reach]));
        let slowed = self.toprope.path("suite/nginx");
        eventually("the suite got its page", || slowed.exists());
        let host = (0..5).map(|_| self.nginx.curl("/", "10").1).fold(f64::INFINITY, f64::min);
        std::fs::remove_file(wait).expect("it is there");
        let done = run.wait().expect(0);
        assert!(done.stdout.contains("HELD"), "{done}");
        assert!((done.stdout.clone() + &done.stderr).contains("2 passed"), "the suite is heard: {done}");
        let (nginx, redis) = (self.took("nginx"), self.took("redis"));
        assert!(nginx >= 0.9 && redis < 0.9 && host < 0.9, "nginx {nginx} s, redis {redis} s, from outside {host} s");

        let done = self.toprope.spawn(self.exec(wrapper, &["--fault", &cut, "--reach", &reach])).wait().expect(1);
        assert!(done.stdout.contains("REFUTED"), "{done}");
        let said = done.stdout.clone() + &done.stderr;
        assert!(said.contains("1 failed, 1 passed") && said.contains("refused"), "{done}");
        assert_eq!(self.nginx.curl("/", "10").0, 200);
    }
}

#[test]
fn a_pytest_suite_runs_unchanged_under_faults() {
    let Some(site) = Site::open() else { return };
    site.suite_under_faults(&[]);
    site.toprope.assert_clean();
}

#[test]
fn and_as_nobody() {
    if !is_root() {
        return;
    }
    let Some(site) = Site::open() else { return };
    let namespaces = [NOBODY, &["unshare", "--user", "--map-root-user", "--net", "true"]].concat();
    if !Command::new(namespaces[0]).args(&namespaces[1..]).status().is_ok_and(|status| status.success()) {
        return skip("this kernel lets no user make namespaces");
    }
    std::fs::create_dir(site.toprope.home()).unwrap();
    chown(site.toprope.home(), Some(65534), Some(65534)).unwrap();
    site.suite_under_faults(NOBODY);
    let residue = site.toprope.wrapped(NOBODY, &["residue", "--own", "--json"]);
    site.toprope.assert_nothing_own(&site.toprope.spawn(residue).wait());
}

#[test]
fn where_namespaces_are_forbidden_it_is_refused_and_a_listener_works() {
    if !is_root() {
        return;
    }
    let Some(site) = Site::open() else { return };
    std::fs::create_dir(site.toprope.home()).unwrap();
    chown(site.toprope.home(), Some(65534), Some(65534)).unwrap();
    let wrapper = ["sh", "-c", FORBIDDEN, "sh"];
    let latency = format!("network-latency to={} delay=1s", site.nginx.address());
    let done = site.toprope.spawn(site.exec(&wrapper, &["--fault", &latency])).wait().expect(2);
    let told = done.stderr.replace("\n  │", "").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("the host allows no user namespaces") && told.contains("listen="), "{done}");
    assert!(!site.toprope.path("suite/nginx").exists() && site.toprope.runs().is_empty(), "nothing was run");

    let free = toprope_tests::servers::free_port();
    let text = std::fs::read_to_string(&site.suite).unwrap();
    site.toprope.write("suite/test_shop.py", text.replace(&site.nginx.port.to_string(), &free.to_string()));
    let listening = format!("{latency} listen=127.0.0.1:{free}");
    site.toprope.spawn(site.exec(&wrapper, &["--fault", &listening])).wait().expect(0);
    assert!(site.took("nginx") >= 0.9);
}
