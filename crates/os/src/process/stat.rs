//! `/proc/PID/stat`: the one line that says most about a process.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::Context};

/// What a process's main thread does, by the letters of proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// `R`: runs or waits for a core.
    Running,
    /// `S`: sleeps until something happens.
    Sleeping,
    /// `D`: sleeps in the kernel and cannot be interrupted, mostly for a disk.
    Uninterruptible,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: held by a tracer.
    Traced,
    /// `Z`: has ended and its parent has not asked how.
    Zombie,
    /// `X`: is being taken away.
    Dead,
    /// `I`: a kernel thread without work.
    Idle,
    /// A letter that newer kernels may add.
    Other,
}

/// The fields that are used here; numbers as in proc_pid_stat(5).
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    /// Field 2: the first 15 bytes of the command's name.
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) ppid: u32,
    /// Field 9: PF_* of the kernel.
    pub(crate) flags: u64,
    /// Fields 14 and 15, added: clock ticks in user and kernel mode.
    pub(crate) cpu_ticks: u64,
    /// Field 20.
    pub(crate) threads: u64,
    /// Field 22: clock ticks after boot.
    pub(crate) start_time: u64,
    /// Field 24: resident pages.
    pub(crate) rss_pages: u64,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Self::at(pid, &format!("/proc/{pid}/stat"))
    }

    /// Of a process or thread, from its file.
    pub(crate) fn at(pid: u32, path: &str) -> Result<Self> {
        Self::parse(&read(pid, path)?).ok_or_else(|| Error::malformed(path, "a field is missing or no number"))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name may hold anything, blanks and parentheses included; it ends at the last parenthesis.
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line.iter().rposition(|b| *b == b')')?;
        let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
        let name = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        let rest: Vec<&str> = std::str::from_utf8(line.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
        // `rest` begins with field 3.
        let field = |number: usize| rest.get(number - 3);
        let number = |n: usize| field(n)?.parse::<u64>().ok();
        Some(Self {
            pid,
            name,
            state: match *field(3)? {
                "R" => State::Running,
                "S" => State::Sleeping,
                "D" => State::Uninterruptible,
                "T" => State::Stopped,
                "t" => State::Traced,
                "Z" => State::Zombie,
                "X" | "x" => State::Dead,
                "I" => State::Idle,
                _ => State::Other,
            },
            ppid: field(4)?.parse().ok()?,
            flags: number(9)?,
            cpu_ticks: number(14)? + number(15)?,
            threads: number(20)?,
            start_time: number(22)?,
            rss_pages: number(24)?,
        })
    }

    /// Whether nothing of the process runs any more. A main thread may end before the others: then it is a zombie, and
    /// the process lives.
    pub(crate) fn has_ended(&self) -> bool {
        match self.state {
            State::Dead => true,
            State::Zombie => self.threads <= 1,
            _ => false,
        }
    }

    pub(crate) fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000; // include/linux/sched.h
        self.flags & PF_KTHREAD != 0
    }
}

/// Reads a file of a process, which may end between open and read (ESRCH).
pub(crate) fn read(pid: u32, path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| gone_or(pid, path, e))
}

/// Tells a process that is gone from a file that cannot be read.
pub(crate) fn gone_or(pid: u32, path: &str, e: std::io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::NoSuchProcess(pid),
        _ => Err::<(), _>(e)
            .cannot_without("to be root or the process's user", || format!("read {path}"))
            .expect_err("an error went in"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 98765 1 250 18446744073709551615 0 0 0 0";

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse(format!("42 (a) b (c)) S {TAIL}\n").as_bytes()).expect("parses");
        assert_eq!((stat.pid, stat.name.as_str(), stat.state, stat.ppid), (42, "a) b (c)", State::Sleeping, 1));
        assert_eq!((stat.cpu_ticks, stat.threads, stat.start_time, stat.rss_pages), (42, 3, 98765, 250));
    }

    #[test]
    fn a_zombie_main_thread_with_living_threads_has_not_ended() {
        let parse = |state, tail: &str| Stat::parse(format!("42 (x) {state} {tail}").as_bytes()).expect("parses");
        assert!(!parse("Z", TAIL).has_ended());
        assert!(parse("Z", &TAIL.replace(" 3 0 98765", " 1 0 98765")).has_ended());
        assert!(!parse("T", TAIL).has_ended());
    }

    #[test]
    fn a_cut_line_is_refused() {
        assert!(Stat::parse(b"42 (x) S 1 7").is_none());
        assert!(Stat::parse(b"").is_none());
    }
}
