//! End to end: the real binary against real servers, and what tests of it share.
//!
//! Every test has a Toprope of its own ([`Toprope`]: a home and a file name of the binary that no other test has), servers
//! of its own ([`servers`]) and, where packets are touched, a network of its own ([`network`]). So they run at the same
//! time and each can tell what its Toprope left behind.

mod binary;
pub mod client;
pub mod hostile;
pub mod network;
pub mod pages;
pub mod programs;
pub mod servers;
mod toprope;

use std::time::{Duration, Instant};

pub use toprope::{Done, Running, Toprope};

/// How long a test waits for what must happen: far longer than a stall of the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, and returns how long that took.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) -> Duration {
    within(PATIENCE, what, holds)
}

/// Waits until something holds, and returns how long that took.
///
/// # Panics
/// It does not hold in time.
#[track_caller]
pub fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < time, "{what}: not within {time:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// Says that the running test proves nothing here, and why. `make test` lists what was said so.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("SKIPPED {test}: {why}");
}

/// Whether the test runs as root; says so when it does not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("it needs root");
    }
    root
}
