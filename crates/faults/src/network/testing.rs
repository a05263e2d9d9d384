//! Networks, servers and clients for the tests of network faults.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use toprope_engine::fault::{Fault, Injection};
use toprope_model::step::{Effect, Step};
use toprope_os::namespace::{Namespace, UserMap, loopback_up, supported};
use toprope_os::process::{Pidfd, ProcessId, Signal};
use toprope_os::spawn::{Spawn, Stdio as To};
use toprope_os::user::Identity;

pub(crate) use super::table::LEASE;
use crate::testing::{PATIENCE, Victim, eventually, host, params, planned};

/// Below this nothing was delayed: the machine may stall, but not for so long.
pub(crate) const STRAIGHT: Duration = Duration::from_millis(250);
/// What tests ask for where something is to be delayed.
pub(crate) const DELAY: Duration = Duration::from_millis(500);

/// Set for the tests that are run once more, as something else: by the name of what they are to be.
const ROLE: &str = "TOPROPE_TEST_ROLE";

pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs a test in a network of its own; needs root.
pub(crate) fn in_own_network<F: Future<Output = ()>>(test: &str, run: impl FnOnce() -> F + Send) {
    match Namespace::new_net() {
        Ok(net) => net.run(|| block_on(run())).expect("entered"),
        Err(why) => eprintln!("SKIPPED {test}: {why}"),
    }
}

/// Runs a test without privileges, in a user namespace and a network of its own. `test` is its full name.
pub(crate) fn in_own_namespaces<F: Future<Output = ()>>(test: &str, run: impl FnOnce() -> F) {
    if role().is_some() {
        loopback_up().expect("it is ours");
        return block_on(run());
    }
    if let Err(why) = supported() {
        return eprintln!("SKIPPED {test}: {why}");
    }
    again(as_nobody(this_test(test).variable(ROLE, "inside")).new_user_namespace(UserMap::Root).new_net_namespace());
}

/// Runs a test without privileges.
pub(crate) fn without_privileges<F: Future<Output = ()>>(test: &str, run: impl FnOnce() -> F) {
    match role() {
        Some(_) => block_on(run()),
        None => again(as_nobody(this_test(test).variable(ROLE, "inside"))),
    }
}

pub(crate) fn is_root() -> bool {
    Identity::current().is_ok_and(|i| i.uid == 0)
}

fn as_nobody(spawn: Spawn) -> Spawn {
    if is_root() { spawn.identity(Identity { uid: 65534, gid: 65534, groups: vec![] }) } else { spawn }
}

fn this_test(test: &str) -> Spawn {
    Spawn::this_program().args(["--exact", test, "--nocapture"]).stdout(To::Inherit).stderr(To::Inherit)
}

fn again(spawn: Spawn) {
    let mut child = spawn.start().expect("this very program");
    let status = child.wait_timeout(Duration::from_secs(120)).expect("our own child").expect("it ends");
    assert!(status.success(), "inside: {status}");
}

fn block_on<F: Future<Output = ()>>(future: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(future);
}

/// A server that sends back every line, until the test ends.
pub(crate) fn echo(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a free port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = client.try_clone()?;
                client.set_nodelay(true)?;
                for line in BufReader::new(client).lines() {
                    writer.write_all(format!("{}\n", line?).as_bytes())?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    at
}

/// An echo server on IPv4's loopback.
pub(crate) fn server() -> SocketAddr {
    echo("127.0.0.1:0")
}

/// A client of such a server.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks once, and waits only so long for the answer.
    pub(crate) fn ask_within(&mut self, limit: Duration) -> std::io::Result<Duration> {
        self.0.get_ref().set_read_timeout(Some(limit))?;
        self.ask()
    }

    /// Asks once, and tells how long the answer took.
    pub(crate) fn ask(&mut self) -> std::io::Result<Duration> {
        let begin = Instant::now();
        self.0.get_mut().write_all(b"hello\n")?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.as_str() {
            "hello\n" => Ok(begin.elapsed()),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A program that connects and holds the connection. The tests' own connections do not count as clients', because this
/// process is the one that holds the proxy.
pub(crate) fn bystander(to: SocketAddr) -> Victim {
    let (ip, port) = (to.ip(), to.port());
    Victim::script(&format!("exec bash -c 'exec 3<>/dev/tcp/{ip}/{port} && echo ready && exec sleep 600'"))
}

/// Connects anew and asks once.
pub(crate) fn ask(to: SocketAddr) -> std::io::Result<Duration> {
    Client::connect(to)?.ask()
}

/// How long another user's program takes to connect, ask and be answered.
pub(crate) fn ask_as(uid: u32, to: SocketAddr) -> Duration {
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{} && echo hello >&3 && read -r -u 3 line && echo $line", to.port());
    let mut command = Command::new("bash");
    std::os::unix::process::CommandExt::uid(command.args(["-c", &script]), uid);
    let begin = Instant::now();
    let output = command.output().expect("bash is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{output:?}");
    begin.elapsed()
}

/// A server that sends back every datagram, until the test ends; it can be asked how many it got.
pub(crate) fn datagram_echo() -> (SocketAddr, Arc<AtomicU64>) {
    datagram_echo_at("127.0.0.1:0")
}

/// The same, at an address.
pub(crate) fn datagram_echo_at(address: &str) -> (SocketAddr, Arc<AtomicU64>) {
    let socket = UdpSocket::bind(address).expect("a free port");
    let (at, got) = (socket.local_addr().expect("bound"), Arc::new(AtomicU64::new(0)));
    let count = got.clone();
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            count.fetch_add(1, Ordering::Relaxed);
            drop(socket.send_to(&datagram[..length], client));
        }
    });
    (at, got)
}

/// Sends so many datagrams, few at once so that no buffer overflows, and counts the answers.
pub(crate) fn ask_by_datagrams(to: SocketAddr, count: u64) -> u64 {
    const AT_ONCE: u64 = 20;
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a free port");
    let mut answers = 0;
    for sent in 1..=count {
        drop(socket.send_to(b"hello", to)); // what the filter drops is refused to the sender
        let last = sent == count;
        if last || sent % AT_ONCE == 0 {
            let patience = Duration::from_millis(if last { 300 } else { 10 });
            socket.set_read_timeout(Some(patience)).expect("not zero");
            while answers < sent && socket.recv(&mut [0; 64]).is_ok() {
                answers += 1;
            }
        }
    }
    answers
}

/// A program of its own that asks a server whenever it is told to.
pub(crate) struct Asking(Child, BufReader<std::process::ChildStdout>);

impl Asking {
    /// A bash script that, for each line it reads, asks once and prints `hello` and the microseconds it took.
    pub(crate) fn start(script: &str) -> Self {
        let mut command = Command::new("bash");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bash is installed");
        let stdout = child.stdout.take().expect("it is piped");
        Self(child, BufReader::new(stdout))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Has it ask once over a new connection.
    pub(crate) fn ask(&mut self) -> Duration {
        self.0.stdin.as_mut().expect("it is piped").write_all(b"go\n").expect("it runs");
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it runs");
        let micros = line.trim().strip_prefix("hello ").unwrap_or_else(|| panic!("it was answered {line:?}"));
        Duration::from_micros(micros.parse().expect("a number"))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real redis-server; nothing where it is not installed.
pub(crate) struct Redis {
    _server: Victim,
    _directory: tempfile::TempDir,
    pub(crate) at: SocketAddr,
}

impl Redis {
    /// Starts it on port 6379 of the calling thread's network, which must be the test's own.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--dir"]).arg(directory.path()).stdout(Stdio::null());
        if Command::new("redis-cli").arg("--version").output().is_err() {
            eprintln!("SKIPPED {test}: redis is not installed");
            return None;
        }
        let redis = Self {
            _server: Victim::run(&mut command),
            _directory: directory,
            at: SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 6379)),
        };
        eventually("redis answers", || redis.ping(1).is_some());
        Some(redis)
    }

    /// Pings so many times over one connection with redis's own client; how long that took, if it was answered.
    pub(crate) fn ping(&self, times: u32) -> Option<Duration> {
        let begin = Instant::now();
        let mut command = Command::new("timeout");
        let output =
            command.args(["20", "redis-cli", "-r", &times.to_string(), "ping"]).output().expect("it is installed");
        (String::from_utf8_lossy(&output.stdout) == "PONG\n".repeat(times as usize)).then(|| begin.elapsed())
    }
}

/// A fault in force, with the step that it came from.
pub(crate) async fn in_force(fault: &dyn Fault, parameters: serde_json::Value) -> (Step, Box<dyn Injection>) {
    let params = params(parameters);
    let (_, step) = planned(fault, &params, &host()).await;
    let injection = fault.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    (step, injection)
}

pub(crate) async fn observed(injection: &mut Box<dyn Injection>) -> Effect {
    injection.observe().await.unwrap_or_else(|e| panic!("{e}"))
}

/// Observes until the proxy has a connection: the kernel accepts it before.
pub(crate) async fn observed_accepted(injection: &mut Box<dyn Injection>) -> Effect {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let effect = observed(injection).await;
        if effect.reached.is_some_and(|share| share > 0.0) {
            return effect;
        }
        assert!(Instant::now() < deadline, "nobody is accepted: {effect:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Observes until so many samples were counted: what a client has received may not be counted yet.
pub(crate) async fn observed_samples(injection: &mut Box<dyn Injection>, samples: u64) -> Effect {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let effect = observed(injection).await;
        if effect.measures.iter().map(|m| m.samples).sum::<u64>() >= samples {
            return effect;
        }
        assert!(Instant::now() < deadline, "{samples} samples: {effect:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Another process that holds a fault: this test once more, which must call [`hold`] when it has a [`role`].
pub(crate) struct Holder {
    pub(crate) step: Step,
    process: Child,
}

impl Holder {
    /// Starts it in the calling thread's network.
    pub(crate) fn start(test: &str, parameters: &serde_json::Value) -> Self {
        let program = std::env::current_exe().expect("this very program");
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture"]).env(ROLE, parameters.to_string()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this very program");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let step = lines.map_while(Result::ok).find_map(|line| serde_json::from_str(&line).ok());
        Self { step: step.expect("the holder failed"), process }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = ProcessId::of(self.process.id()).expect("an unreaped child is in /proc");
        Pidfd::open(&id).expect("it runs").signal(signal).expect("our own child");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Holds a fault until the process is killed. Parameters come by [`role`], the step goes to standard output.
pub(crate) fn hold(fault: &'static dyn Fault) {
    let parameters = serde_json::from_str(&role().expect("called for a role")).expect("JSON");
    block_on(async {
        let (step, injection) = in_force(fault, parameters).await;
        println!("\n{}", serde_json::to_string(&step).expect("plain data"));
        tokio::time::sleep(Duration::from_secs(100)).await; // killed before, or alone
        drop(injection);
    });
}
