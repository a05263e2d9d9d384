//! A run to measure: a manifest, `toprope run --json` in a state of its own, and what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use toprope_model::event::Record;
use toprope_os::process::{Pidfd, ProcessId, Signal};

use crate::failure::{Failure, OnFile};
use crate::workspace;

/// The state directory of some runs, gone with it.
pub(super) struct Home(TempDir);

impl Home {
    /// An empty one.
    pub(super) fn new() -> Result<Self, Failure> {
        tempfile::tempdir().on("create", "a temporary directory").map(Self)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Starts a run of a manifest with this `spec`.
    pub(super) fn run(&self, toprope: &Path, spec: &Json) -> Result<Run, Failure> {
        let manifest = self.path().join("bench.json");
        let experiment = json!({
            "apiVersion": toprope_model::API_VERSION, "kind": "Experiment", "metadata": {"name": "bench"}, "spec": spec
        });
        workspace::write(&manifest, experiment.to_string())?;
        let mut command = Command::new(toprope);
        command.args(["run", "--json"]).arg(&manifest).env("TOPROPE_HOME", self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.map_err(|error| Failure::Start { command: toprope.display().to_string(), error })?;
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Ok(Run { child, out, records: Vec::new() })
    }
}

/// A run that is going on. Dropped, it is told to stop as by a person, and waited for: it undoes what is in force.
pub(super) struct Run {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it has said so far.
    pub(super) records: Vec<Record>,
}

impl Run {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until an event is as wanted.
    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) -> Result<(), Failure> {
        while let Some(record) = self.next()? {
            let found = wanted(&record);
            self.records.push(record);
            if found {
                return Ok(());
            }
        }
        Err(self.failed(&format!("it ended without {what}")))
    }

    /// Reads on to the end.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        while let Some(record) = self.next()? {
            self.records.push(record);
        }
        Ok(())
    }

    /// Presses Ctrl-C.
    pub(super) fn interrupt(&self) -> Result<(), Failure> {
        let signalled = ProcessId::of(self.pid()).and_then(|id| Pidfd::open(&id)?.signal(Signal::INT));
        signalled.map_err(|error| Failure::Found(format!("cannot stop the run: {error}")))
    }

    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let mut line = String::new();
        if self.out.read_line(&mut line).on("read", "the run's events")? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).map_err(|error| self.failed(&format!("{error} in the event {line}")))
    }

    fn failed(&mut self, why: &str) -> Failure {
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = self.child.wait();
            let _ = errors.read_to_string(&mut said);
        }
        let last = self.records.last().map(|r| format!("\nlast event: {:?}", r.event)).unwrap_or_default();
        Failure::Failed { command: "toprope run".into(), why: format!("{why}{last}\n{}", said.trim()) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.interrupt();
        let _ = self.end();
        let _ = self.child.wait();
    }
}

/// A process to inject faults into: it sleeps. Ended when dropped.
pub(super) struct Sleeper(Child);

impl Sleeper {
    /// Starts one.
    pub(super) fn start() -> Result<Self, Failure> {
        let started = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
        started.map(Self).map_err(|error| Failure::Start { command: "sleep".into(), error })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a web server for probes to ask, in threads that end with this process. It answers every request with `ok`.
pub(super) fn web_server() -> Result<SocketAddr, Failure> {
    let what = "a port of the loopback";
    let listener = TcpListener::bind(("127.0.0.1", 0)).on("listen on", what)?;
    let address = listener.local_addr().on("listen on", what)?;
    for _ in 0..2 {
        let listener = listener.try_clone().on("listen on", what)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
    }
    Ok(address)
}

fn answer(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&buffer[..n]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
}
