//! A redis-server.

use std::ffi::OsStr;
use std::process::Command;

use tempfile::TempDir;
use toprope_os::process::Signal;

use super::{Server, client, directory, free_port};
use crate::client::Client;
use crate::programs::program;

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

    /// Whether a new client gets an answer.
    pub fn answers(&self) -> bool {
        self.cli("10", &["ping"]) == ("PONG\n".to_owned(), true)
    }

    /// Starts a redis-cli that keeps one connection and asks 20 times a second.
    ///
    /// # Panics
    /// It gets no answer.
    #[track_caller]
    pub fn client(&self) -> Client {
        let mut command = Command::new(program("redis-cli"));
        command.args(["-p", &self.port.to_string(), "-r", "-1", "-i", "0.05", "ping"]);
        Client::start(command, "PONG")
    }

    /// Runs redis-benchmark with so many requests on one new connection; returns the mean and the largest latency in
    /// milliseconds.
    ///
    /// # Panics
    /// Its output is not as expected.
    #[track_caller]
    pub fn benchmark(&self, requests: u32) -> (f64, f64) {
        let (port, requests) = (self.port.to_string(), requests.to_string());
        let args = ["-p", &port, "-n", &requests, "-c", "1", "-t", "ping_mbulk", "--csv"];
        let (text, _) = client("redis-benchmark", &args);
        let mut lines = text.lines().map(|line| line.split(',').map(|field| field.trim_matches('"')));
        let header = lines.find(|line| line.clone().any(|field| field == "test")).expect("a header");
        let row: Vec<(&str, &str)> = header.zip(lines.next().expect("a row of results")).collect();
        let field = |name| {
            let value = row.iter().find(|(header, _)| *header == name).map(|(_, value)| value.parse());
            value.and_then(Result::ok).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        (field("avg_latency_ms"), field("max_latency_ms"))
    }
}
