//! A client that stays: it asks again and again on one connection, and a test sees when it got its answers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{PATIENCE, within};

/// A program that prints a line for each answer that it gets. It is ended with the value.
#[derive(Debug)]
pub struct Client {
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    answers: usize,
    last: Instant,
    longest: Duration,
}

impl Client {
    /// Starts it, and waits until it got its first answers. Lines that contain `answer` are answers.
    ///
    /// # Panics
    /// It cannot be started, or gets none.
    #[track_caller]
    pub fn start(mut command: Command, answer: &'static str) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().expect("the client is installed");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let seen = Arc::new(Mutex::new(Seen { answers: 0, last: Instant::now(), longest: Duration::ZERO }));
        let noted = seen.clone();
        std::thread::spawn(move || {
            for _ in lines.map_while(Result::ok).filter(|line| line.contains(answer)) {
                let mut seen = noted.lock().expect("nobody panics with it");
                let now = Instant::now();
                if seen.answers > 0 {
                    seen.longest = seen.longest.max(now - seen.last);
                }
                (seen.answers, seen.last) = (seen.answers + 1, now);
            }
        });
        let client = Self { child, seen };
        client.until_answered(3);
        client
    }

    /// Waits until it got so many answers more.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn until_answered(&self, more: usize) {
        let before = self.answers();
        // After packets were lost, TCP takes up to as long again until it sends once more.
        within(PATIENCE * 4, "the client gets answers", || self.answers() >= before + more);
    }

    /// How many answers it got.
    pub fn answers(&self) -> usize {
        self.seen.lock().expect("nobody panics with it").answers
    }

    /// The longest time between two answers.
    pub fn longest(&self) -> Duration {
        self.seen.lock().expect("nobody panics with it").longest
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
