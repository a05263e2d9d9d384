//! A running shop, a client and the means to hurt its processes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use toprope_shop::{Launch, Service, Shop, free_base_port};

/// How long anything may take that should happen soon: the machine may stall.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A shop in a directory of its own.
pub(crate) struct OpenShop {
    pub(crate) shop: Shop,
    // After the shop, so that it goes when the shop has ended.
    _dir: TempDir,
}

/// Opens a shop on free ports, as `how` changes it.
pub(crate) fn open(how: impl FnOnce(&mut Launch)) -> OpenShop {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = launch_in(&dir);
    how(&mut launch);
    OpenShop { shop: Shop::start(launch).unwrap(), _dir: dir }
}

pub(crate) fn launch_in(dir: &TempDir) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_shop"), free_base_port().unwrap(), dir.path())
}

pub(crate) fn as_shipped() -> OpenShop {
    open(|_| {})
}

pub(crate) fn repaired() -> OpenShop {
    open(|launch| launch.fixed = true)
}

impl OpenShop {
    pub(crate) fn get(&self, service: Service, path: &str) -> (u16, Value) {
        self.ask(service, "GET", path, "", SOON).unwrap()
    }

    pub(crate) fn put(&self, service: Service, path: &str) -> (u16, Value) {
        self.ask(service, "PUT", path, "", SOON).unwrap()
    }

    pub(crate) fn checkout(&self, body: &str) -> (u16, Value) {
        self.ask(Service::Gateway, "POST", "/checkout", body, SOON).unwrap()
    }

    /// One request; an error of kind `WouldBlock` when nothing came for `patience`.
    pub(crate) fn ask(
        &self,
        service: Service,
        method: &str,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> io::Result<(u16, Value)> {
        let (status, text) = ask(self.shop.addresses().of(service), method, path, body, patience)?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) fn pid(&self, service: Service) -> u32 {
        self.shop.pid(service).unwrap_or_else(|| panic!("{service} has ended"))
    }

    pub(crate) fn kill(&self, service: Service) {
        let pid = self.pid(service);
        signal(pid, Signal::KILL);
        eventually("the process is dead", || self.shop.pid(service) != Some(pid));
    }

    /// Stops a process until the returned value is dropped.
    #[must_use]
    pub(crate) fn pause(&self, service: Service) -> Paused {
        let pid = self.pid(service);
        signal(pid, Signal::STOP);
        eventually("the process is stopped", || process_state(pid) == Some('T'));
        Paused(pid)
    }
}

pub(crate) struct Paused(u32);

impl Drop for Paused {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("not an answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok((status, body.to_owned()))
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// The state letter of `/proc/PID/stat` (proc_pid_stat(5)); nothing when there is no such process.
pub(crate) fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process has ended; one that nobody has waited for yet has.
pub(crate) fn has_ended(pid: u32) -> bool {
    matches!(process_state(pid), None | Some('Z' | 'X'))
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
