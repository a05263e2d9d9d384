//! Keys from the terminal. Read here and not by a library: one that waits for keys in a loop of its own never comes
//! back from a terminal that was closed, and a run must end then.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Char(char),
    /// A letter with Ctrl.
    Control(char),
    Enter,
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Where keys come from; the terminal must be in raw mode.
#[derive(Debug)]
pub struct Keys {
    /// The terminal, where standard input is none.
    terminal: Option<File>,
    /// The start of a sequence whose end was not read yet.
    begun: Vec<u8>,
    gone: bool,
}

impl Keys {
    /// Keys from standard input, or from the terminal that the process belongs to.
    pub fn new() -> Self {
        let elsewhere = !std::io::stdin().is_terminal();
        let terminal = if elsewhere { File::open("/dev/tty").ok() } else { None };
        let gone = elsewhere && terminal.is_none();
        Self { terminal, begun: Vec::new(), gone }
    }

    /// The keys that are pressed within a time. Takes all of that time, unless a key is pressed.
    pub fn within(&mut self, time: Duration) -> Vec<Key> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.gone {
                std::thread::sleep(left);
                return vec![];
            }
            let keys = self.read(left);
            if !keys.is_empty() || left.is_zero() {
                return keys;
            }
        }
    }

    fn read(&mut self, time: Duration) -> Vec<Key> {
        let stdin = std::io::stdin();
        let source: BorrowedFd = self.terminal.as_ref().map_or(stdin.as_fd(), AsFd::as_fd);
        let mut ready = [PollFd::new(&source, PollFlags::IN)];
        let timeout = Timespec::try_from(time).ok();
        match poll(&mut ready, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return vec![],
            Ok(_) => {}
            Err(_) => {
                self.gone = true;
                return vec![];
            }
        }
        // A terminal that was closed says both that it is gone and that it can be read, without end.
        let closed = ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        let mut bytes = [0u8; 256];
        match rustix::io::read(source, &mut bytes) {
            Ok(n) if n > 0 && !closed => {
                self.begun.extend_from_slice(&bytes[..n]);
                let (keys, rest) = parse(&self.begun);
                self.begun = rest;
                keys
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => vec![],
            _ => {
                self.gone = true;
                vec![]
            }
        }
    }
}

/// The keys in what a terminal sent (ECMA-48 and xterm's control sequences), and the start of a sequence whose end is
/// missing. What means nothing here is passed over.
fn parse(bytes: &[u8]) -> (Vec<Key>, Vec<u8>) {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\r' | b'\n' => keys.push(Key::Enter),
            1..=26 => keys.push(Key::Control(char::from(first - 1 + b'a'))),
            b' '..=b'~' => keys.push(Key::Char(char::from(*first))),
            0x1b => match after.split_first() {
                None => keys.push(Key::Escape),
                Some((b'[' | b'O', sequence)) => {
                    let Some(end) = sequence.iter().position(|b| (0x40..=0x7e).contains(b)) else {
                        // The longest that anybody sends is far shorter: this is no sequence.
                        let begun = if sequence.len() < 32 { [&[0x1b], after].concat() } else { vec![] };
                        return (keys, begun);
                    };
                    keys.extend(named(&sequence[..end], sequence[end]));
                    rest = &sequence[end + 1..];
                }
                Some(_) => {}
            },
            _ => {}
        }
    }
    (keys, vec![])
}

/// The key of a control sequence by its parameters and its last byte.
fn named(parameters: &[u8], last: u8) -> Option<Key> {
    let number = parameters.split(|b| *b == b';').next().unwrap_or_default();
    Some(match (last, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        (b'M', _) => Key::Enter, // The keypad's, in application mode.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_what_a_terminal_sends() {
        let (keys, rest) = parse(b"q\x03\r\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1;5H\x1b[F? \x1b");
        let expected = [
            Key::Char('q'),
            Key::Control('c'),
            Key::Enter,
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Char('?'),
            Key::Char(' '),
            Key::Escape,
        ];
        assert_eq!(keys, expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_sequence_in_two_pieces_is_one_key() {
        let (keys, mut rest) = parse(b"a\x1b[");
        assert_eq!(keys, [Key::Char('a')]);
        rest.extend_from_slice(b"6~b");
        assert_eq!(parse(&rest), (vec![Key::PageDown, Key::Char('b')], vec![]));
    }

    #[test]
    fn what_means_nothing_is_passed_over() {
        assert_eq!(parse("é\x1b[200~\x1b[38;5R\u{7f}".as_bytes()), (vec![], vec![]));
        let endless = [b"\x1b[".as_slice(), &[b'1'; 100]].concat();
        assert_eq!(parse(&endless), (vec![], vec![]));
    }

    #[test]
    fn a_terminal_that_is_gone_gives_no_keys_and_takes_its_time() {
        let mut keys = Keys { terminal: None, begun: vec![], gone: true };
        let begun = Instant::now();
        assert!(keys.within(Duration::from_millis(60)).is_empty());
        assert!(begun.elapsed() >= Duration::from_millis(60));
        // A source at its end says that it can be read, without end.
        let mut keys = Keys { terminal: Some(File::open("/dev/null").unwrap()), begun: vec![], gone: false };
        assert!(keys.within(Duration::from_millis(20)).is_empty());
        assert!(keys.gone);
    }
}
