//! A redis-server.

use std::ffi::OsStr;

use tempfile::TempDir;
use toprope_os::process::Signal;

use super::{Server, client, directory, free_port};

/// A redis-server that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    /// Its process.
    pub server: Server,
    /// Its port on 127.0.0.1.
    pub port: u16,
    _directory: TempDir,
}

impl Default for Redis {
    fn default() -> Self {
        Self::start()
    }
}

impl Redis {
    /// The programs that it takes.
    pub const NEEDS: &[&str] = &["redis-server", "redis-cli", "redis-benchmark"];

    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn start() -> Self {
        let (directory, port) = (directory("toprope-redis-"), free_port());
        let number = port.to_string();
        let args = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"];
        let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        args.push(directory.path().as_os_str());
        let mut server = Server::start("redis-server", &args, None, Signal::KILL, &directory.path().join("redis.log"));
        server.until_listening(port);
        Self { server, port, _directory: directory }
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What redis-cli says, or why it failed, within so many seconds.
    pub fn cli(&self, seconds: &str, words: &[&str]) -> (String, bool) {
        let port = self.port.to_string();
        client("timeout", &[&[seconds, "redis-cli", "-p", &port], words].concat())
    }

    /// Whether it answers within a second.
    pub fn answers(&self) -> bool {
        self.cli("1", &["ping"]) == ("PONG\n".to_owned(), true)
    }

    /// Starts redis-benchmark with so many requests on one connection; its output is CSV.
    pub fn benchmark(&self, requests: u32) -> Benchmark {
        Benchmark::start(self.port, requests)
    }
}

/// A redis-benchmark that runs.
#[derive(Debug)]
pub struct Benchmark(std::process::Child);

impl Benchmark {
    fn start(port: u16, requests: u32) -> Self {
        let mut command = std::process::Command::new(crate::programs::program("redis-benchmark"));
        command.args(["-p", &port.to_string(), "-n", &requests.to_string(), "-c", "1", "-t", "ping_mbulk", "--csv"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        Self(command.stderr(std::process::Stdio::null()).spawn().expect("redis-benchmark can be started"))
    }

    /// Waits for its end; returns the mean and the largest latency in milliseconds.
    ///
    /// # Panics
    /// Its output is not as expected.
    #[track_caller]
    pub fn latency(self) -> (f64, f64) {
        let output = self.0.wait_with_output().expect("our own child");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines().map(|line| line.split(',').map(|field| field.trim_matches('"')));
        let (header, row) = (lines.next().expect("a header"), lines.next().expect("a row of results"));
        let row: Vec<(&str, &str)> = header.zip(row).collect();
        let field = |name| {
            let value = row.iter().find(|(header, _)| *header == name).map(|(_, value)| value.parse());
            value.and_then(Result::ok).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        (field("avg_latency_ms"), field("max_latency_ms"))
    }
}
