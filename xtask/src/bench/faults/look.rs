//! Looks at a system from outside: is a fault in effect now?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::failure::{Failure, OnFile};

/// An answer that takes longer is not what a healthy server on the loopback gives.
pub(super) const QUICK: Duration = Duration::from_millis(10);

/// Whether a new connection gets so many bytes at once.
pub(super) fn is_quick(server: SocketAddr, bytes: usize) -> bool {
    let until = Instant::now() + QUICK;
    ask(server, bytes, || until.saturating_duration_since(Instant::now())).is_some()
}

/// How long a new connection takes to get so many bytes; `None` if it does not.
pub(in crate::bench) fn exchange(server: SocketAddr, bytes: usize) -> Option<Duration> {
    let begun = Instant::now();
    ask(server, bytes, || Duration::from_secs(20)).map(|()| begun.elapsed())
}

/// Asks on a new connection, and reads so many bytes of the answer. `patience` says how long to wait for what is next.
fn ask(server: SocketAddr, bytes: usize, patience: impl Fn() -> Duration) -> Option<()> {
    // No timeout can be zero; then there is no time left at all.
    let left = || Some(patience()).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&server, left()?).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut buffer = [0; 1 << 16];
    let mut got = 0;
    while got < bytes {
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            n => got += n,
        }
    }
    Some(())
}

/// A pair of sockets on the loopback, to lose datagrams between.
pub(super) struct Datagrams {
    from: UdpSocket,
    to: UdpSocket,
}

impl Datagrams {
    pub(super) fn open() -> Result<Self, Failure> {
        let bind = || UdpSocket::bind(("127.0.0.1", 0));
        let opened = (|| {
            let (from, to) = (bind()?, bind()?);
            from.connect(to.local_addr()?)?;
            to.set_read_timeout(Some(Duration::from_millis(5)))?;
            Ok((from, to))
        })();
        let (from, to) = opened.on("open", "two sockets on the loopback")?;
        Ok(Self { from, to })
    }

    /// Where they go.
    pub(super) fn to(&self) -> Result<SocketAddr, Failure> {
        self.to.local_addr().on("look at", "a socket on the loopback")
    }

    /// How many of so many arrive. A rule may well refuse the sender too: what is not sent does not arrive.
    pub(super) fn arrived(&self, sent: usize) -> usize {
        for _ in 0..sent {
            let _ = self.from.send(b"x");
        }
        let mut buffer = [0; 8];
        (0..sent).take_while(|_| self.to.recv(&mut buffer).is_ok()).count()
    }
}

/// The injector of a run: the one of its descendants that is called so.
pub(super) fn injector(run: u32) -> Option<u32> {
    let descendants = toprope_os::process::descendants(run).ok()?;
    let named = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"injector")
    };
    descendants.iter().map(|id| id.pid()).find(named)
}

/// What each thread of a process whose name begins so has had of a core so far.
pub(super) fn processor_time(pid: u32, thread: &str) -> Vec<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut found: Vec<_> = tasks
        .filter_map(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            // Documentation/scheduler/sched-stats.rst: the first field of schedstat is the time on the core, in ns.
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let time = text.split(' ').next()?.parse().ok()?;
            name.starts_with(thread).then(|| (name, Duration::from_nanos(time)))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, time)| time).collect()
}

/// The memory that a process has resident, in bytes; 0 when it is gone.
pub(super) fn resident(pid: u32) -> u64 {
    // smaps_rollup walks the page tables, where statm is only as exact as the kernel's counters for each core.
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
