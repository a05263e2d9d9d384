//! Asking somebody to do something by hand, where there is no live view: a line on standard error, a line back.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc};
use toprope_engine::host::Person;

use super::words::{clean, millis};

/// Asks line by line.
#[derive(Debug)]
pub struct Asker {
    /// The lines that somebody types, once the first question was asked. One question at a time.
    lines: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    source: fn() -> Option<Box<dyn Read + Send>>,
}

impl Asker {
    /// Asks whoever is at the terminal; `None` where there is none.
    pub fn new() -> Option<Self> {
        source().map(|_| Self { lines: Mutex::new(None), source })
    }

    async fn answer(&self, what: &str, deadline: Duration) -> Result<(), String> {
        let mut lines = self.lines.lock().await;
        let lines = lines.get_or_insert_with(|| lines_of(self.source));
        // What was typed before the question is no answer to it.
        while lines.try_recv().is_ok() {}
        say(&format!(
            "\n? please do this by hand: {}\n  y or Enter: it is done   n: it cannot be done   ({} from now)\n",
            clean(what),
            millis(deadline.as_secs_f64() * 1e3)
        ));
        loop {
            match lines.recv().await.as_deref().map(reply) {
                Some(Some(answer)) => return answer,
                Some(None) => say("  y or n?\n"),
                None => return Err("nobody is here to do it: the terminal is gone".into()),
            }
        }
    }
}

impl Person for Asker {
    fn ask(&self, what: &str, deadline: Duration) -> BoxFuture<'_, Result<(), String>> {
        let what = what.to_owned();
        async move {
            let answer = tokio::time::timeout(deadline, self.answer(&what, deadline)).await;
            answer.unwrap_or_else(|_| Err(unanswered(deadline)))
        }
        .boxed()
    }
}

/// That nobody answered in time.
pub fn unanswered(deadline: Duration) -> String {
    format!("nobody said within {} that it was done", millis(deadline.as_secs_f64() * 1e3))
}

/// What a line means as an answer; `None` if nothing.
fn reply(line: &str) -> Option<Result<(), String>> {
    match line.trim().to_ascii_lowercase().as_str() {
        "" | "y" | "yes" | "done" => Some(Ok(())),
        "n" | "no" => Some(Err("whoever was asked said that it cannot be done".into())),
        _ => None,
    }
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Standard input if a person types there, else the terminal that the process was started from.
fn source() -> Option<Box<dyn Read + Send>> {
    if std::io::stdin().is_terminal() {
        return Some(Box::new(std::io::stdin()));
    }
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    Some(Box::new(terminal))
}

/// Reads lines on a thread that lives as long as the process: a read from a terminal cannot be taken back, so the next
/// question goes on with the same one.
fn lines_of(source: fn() -> Option<Box<dyn Read + Send>>) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let Some(source) = source() else { return };
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_people_type_them() {
        assert_eq!(reply(""), Some(Ok(())));
        assert_eq!(reply(" Y "), Some(Ok(())));
        assert!(reply("n").unwrap().is_err());
        assert_eq!(reply("what?"), None);
    }

    fn asker(source: fn() -> Option<Box<dyn Read + Send>>) -> Asker {
        Asker { lines: Mutex::new(None), source }
    }

    #[tokio::test]
    async fn a_terminal_that_is_gone_is_nobody() {
        let asker = asker(|| Some(Box::new(std::io::empty())));
        let answer = asker.ask("pull the plug", Duration::from_secs(60)).await;
        assert!(answer.unwrap_err().contains("the terminal is gone"));
    }

    #[tokio::test]
    async fn silence_ends_with_the_deadline() {
        /// Somebody who never types.
        struct Silent;
        impl Read for Silent {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                std::thread::park();
                Ok(0)
            }
        }
        let asker = asker(|| Some(Box::new(Silent)));
        let answer = asker.ask("pull the plug", Duration::from_millis(50)).await;
        assert_eq!(answer.unwrap_err(), "nobody said within 50ms that it was done");
    }

    #[tokio::test]
    async fn one_after_the_other_is_answered() {
        /// Types a line whenever it is asked for one, but slowly: what comes before a question does not count.
        struct Slow(usize);
        impl Read for Slow {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                std::thread::sleep(Duration::from_millis(300));
                self.0 += 1;
                let line: &[u8] = if self.0 == 1 { b"y\n" } else { b"hm\nno\n" };
                out[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let asker = asker(|| Some(Box::new(Slow(0))));
        assert_eq!(asker.ask("pull the plug", Duration::from_secs(60)).await, Ok(()));
        assert!(asker.ask("put it back", Duration::from_secs(60)).await.is_err());
    }
}
