//! A run to measure: a manifest, `toprope run --json` in a state of its own, and what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use toprope_model::event::{Event, Record};
use toprope_os::process::{Pidfd, ProcessId, Signal};

use crate::failure::{Failure, OnFile};
use crate::workspace;

/// Whoever says nothing for so long is stuck; every probe speaks ten times a second.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

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
        let out = child.stdout.take().expect("its output is a pipe");
        let (sender, said) = channel();
        // A thread of its own stamps each line when it comes, whatever the measurement does meanwhile.
        std::thread::spawn(move || stamp(out, |line| sender.send(line).is_ok()));
        Ok(Run { child, said, records: Vec::new(), began: None })
    }
}

/// Passes lines on, with when they came, until nobody wants them or there are no more.
fn stamp(out: ChildStdout, mut send: impl FnMut((Instant, String)) -> bool) {
    for line in BufReader::new(out).lines() {
        let Ok(line) = line else { return };
        if !send((Instant::now(), line)) {
            return;
        }
    }
}

/// A run that is going on. Dropped, it is told to stop as by a person, and waited for: it undoes what is in force.
pub(super) struct Run {
    child: Child,
    said: Receiver<(Instant, String)>,
    /// What it has said so far.
    pub(super) records: Vec<Record>,
    /// When the run's clock was at zero, as far as is known: no later than any line came, less the time it speaks of.
    began: Option<Instant>,
}

impl Run {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until an event is as wanted.
    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) -> Result<(), Failure> {
        while let Some(record) = self.next(LONGEST_SILENCE)? {
            if wanted(record) {
                return Ok(());
            }
        }
        Err(self.failed(&format!("it ended or fell silent without {what}")))
    }

    /// Takes in what was said meanwhile, without waiting.
    pub(super) fn catch_up(&mut self) -> Result<(), Failure> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    /// Reads on to the end.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        while self.next(LONGEST_SILENCE)?.is_some() {}
        Ok(())
    }

    /// When something happened that the run's clock says, by ours. It is late by what the fastest line so far took to
    /// come here, which is some ten microseconds.
    pub(super) fn when(&self, at: u64) -> Option<Instant> {
        self.began.map(|began| began + Duration::from_nanos(at))
    }

    /// Presses Ctrl-C.
    pub(super) fn interrupt(&self) -> Result<(), Failure> {
        let signalled = ProcessId::of(self.pid()).and_then(|id| Pidfd::open(&id)?.signal(Signal::INT));
        signalled.map_err(|error| Failure::Found(format!("cannot stop the run: {error}")))
    }

    /// The next event, if one comes in this time.
    fn next(&mut self, patience: Duration) -> Result<Option<&Record>, Failure> {
        let (came, line) = match self.said.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
        };
        let record: Record =
            serde_json::from_str(&line).map_err(|error| self.failed(&format!("{error} in the event {line}")))?;
        let began = came.checked_sub(Duration::from_nanos(record.at));
        self.began = [self.began, began].into_iter().flatten().min();
        self.records.push(record);
        Ok(self.records.last())
    }

    /// What a run that did not do as it should has said.
    pub(super) fn failed(&mut self, why: &str) -> Failure {
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = self.interrupt();
            let _ = self.child.wait();
            let _ = errors.read_to_string(&mut said);
        }
        let mut told = self.records.iter().filter(|r| !matches!(r.event, Event::Sample(_)));
        let last = told.next_back().map(|r| format!("\nlast event but samples: {:?}", r.event)).unwrap_or_default();
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
        Self::of("600")
    }

    /// Starts one that sleeps for so many seconds.
    pub(super) fn of(seconds: &str) -> Result<Self, Failure> {
        let started = Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn();
        started.map(Self).map_err(|error| Failure::Start { command: "sleep".into(), error })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it was ended by somebody.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A web server for probes to ask: it answers every request with `ok`.
pub(super) fn web_server() -> Result<SocketAddr, Failure> {
    serve(|mut stream, _| stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"))
}

/// A server that sends until its client has enough.
pub(super) fn endless_server() -> Result<SocketAddr, Failure> {
    serve(|mut stream, _| {
        loop {
            stream.write_all(&[b'x'; 1 << 16])?;
        }
    })
}

/// A server with a switch: requests for `/on` and `/off` turn it, `/is-on` is there while it is on.
pub(super) fn flag_server() -> Result<(SocketAddr, Arc<AtomicBool>), Failure> {
    let flag = Arc::<AtomicBool>::default();
    let own = Arc::clone(&flag);
    let server = serve(move |mut stream, request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if matches!(path, "/on" | "/off") {
            own.store(path == "/on", Ordering::SeqCst);
        }
        let found = path != "/is-on" || own.load(Ordering::SeqCst);
        let status = if found { "200 OK" } else { "404 Not Found" };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    })?;
    Ok((server, flag))
}

/// Serves on a port of the loopback, in threads that end with this process. A client that goes is no error.
fn serve(
    answer: impl Fn(TcpStream, &str) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<SocketAddr, Failure> {
    let what = "a port of the loopback";
    let listener = TcpListener::bind(("127.0.0.1", 0)).on("listen on", what)?;
    let address = listener.local_addr().on("listen on", what)?;
    for _ in 0..2 {
        let listener = listener.try_clone().on("listen on", what)?;
        let answer = answer.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = request(&mut stream).and_then(|request| answer(stream, &request));
            }
        });
    }
    Ok(address)
}

fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}
