//! The run's log: append-only, one line per event, each line holding the hash of the line before.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toprope_model::event::{Event, Record};

/// The log's name in a run's directory.
pub const FILE: &str = "events.jsonl";
/// A file whose only use is to be given up when the disk is full, so that the end of the run still fits.
const BALLAST: &str = "ballast";
const BALLAST_BYTES: usize = 256 << 10;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("cannot {what} the log {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A line that is no event.
    #[error("{path}: line {line} is not an event: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// A line whose hash of the line before is not the hash of the line before.
    #[error("{path}: line {line} was changed after it was written: line {next} holds another hash of it", next = line + 1)]
    Tampered {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// A log that is being written. There is one writer.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    path: PathBuf,
    ballast: PathBuf,
    seq: u64,
    prev: String,
    /// How long the file is, to the end of the last whole line.
    length: u64,
    /// Why the ballast was given up, if it was.
    full: Option<String>,
}

fn hash(line: &[u8]) -> String {
    // By hand: formatting takes longer than hashing, and a log has a million lines.
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digest = Sha256::digest(line);
    let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(|half| DIGITS[usize::from(half)]).collect()
}

impl LogWriter {
    /// Begins a log in a run's directory, which must not hold one.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn create(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE);
        let io = |error| LogError::Io { what: "begin", path: path.clone(), error };
        let file = File::options().append(true).create_new(true).open(&path).map_err(io)?;
        let ballast = directory.join(BALLAST);
        std::fs::write(&ballast, vec![0u8; BALLAST_BYTES]).map_err(io)?;
        Ok(Self { file, path: path.clone(), ballast, seq: 0, prev: String::new(), length: 0, full: None })
    }

    /// Opens a log that has lost its writer, to seal it. A torn last line is cut off.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn reopen(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE);
        let log = read(&path)?;
        let io = |error| LogError::Io { what: "seal", path: path.clone(), error };
        let file = File::options().append(true).open(&path).map_err(io)?;
        file.set_len(log.length).map_err(io)?;
        let seq = log.records.len() as u64;
        let ballast = directory.join(BALLAST);
        Ok(Self { file, path: path.clone(), ballast, seq, prev: log.head, length: log.length, full: None })
    }

    /// Appends an event. When the disk is full, the ballast is given up and the line written again.
    ///
    /// # Errors
    /// [`LogError::Io`]; the log then ends with the last whole line.
    pub fn append(&mut self, at: u64, event: Event) -> Result<Record, LogError> {
        let record = Record { seq: self.seq, at, prev: self.prev.clone(), event };
        let io = |error| LogError::Io { what: "write to", path: self.path.clone(), error };
        let mut line = serde_json::to_vec(&record).map_err(|e| io(e.into()))?;
        let head = hash(&line);
        line.push(b'\n');
        let mut written = self.file.write_all(&line);
        if let Err(error) = &written {
            self.full = Some(io(std::io::Error::new(error.kind(), error.to_string())).to_string());
            // Half a line would break the chain.
            let _ = self.file.set_len(self.length);
            if std::fs::remove_file(&self.ballast).is_ok() && !matches!(record.event, Event::Sample(_)) {
                written = self.file.write_all(&line);
            }
        }
        if let Err(error) = written {
            let _ = self.file.set_len(self.length);
            return Err(LogError::Io { what: "write to", path: self.path.clone(), error });
        }
        self.length += line.len() as u64;
        self.seq += 1;
        self.prev = head;
        Ok(record)
    }

    /// Why the run must end now, while there is room for its end: a line was only written because the ballast was
    /// given up for it.
    pub fn is_full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|error| LogError::Io { what: "sync", path: self.path.clone(), error })
    }

    /// The hash of the last line.
    pub fn head(&self) -> &str {
        &self.prev
    }

    /// Gives up the ballast: the run has ended.
    pub fn finish(self) -> Result<(), LogError> {
        let _ = std::fs::remove_file(&self.ballast);
        self.sync()
    }
}

/// A log as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Every event.
    pub records: Vec<Record>,
    /// The hash of the last line: names the whole log.
    pub head: String,
    /// Whether a torn line at the end was left out: the writer was killed in the middle of it.
    pub torn: bool,
    /// Bytes up to the end of the last whole line.
    length: u64,
}

impl Log {
    /// Whether the run ended in order, or was sealed.
    pub fn is_closed(&self) -> bool {
        matches!(self.records.last().map(|r| &r.event), Some(Event::RunEnded { .. } | Event::Sealed { .. }))
    }
}

/// Reads a log and checks its chain of hashes.
///
/// # Errors
/// The first line that is no event or was changed after it was written. A torn last line is no error.
pub fn read(path: &Path) -> Result<Log, LogError> {
    let bytes = std::fs::read(path).map_err(|error| LogError::Io { what: "read", path: path.to_owned(), error })?;
    let mut records: Vec<Record> = Vec::new();
    let mut head = String::new();
    let mut rest: &[u8] = &bytes;
    let mut length = 0u64;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let (line, after) = rest.split_at(end);
        let number = records.len() + 1;
        let malformed = |why: String| LogError::Malformed { path: path.to_owned(), line: number, why };
        let record: Record = serde_json::from_slice(line).map_err(|e| malformed(e.to_string()))?;
        if record.prev != head {
            return Err(LogError::Tampered { path: path.to_owned(), line: number.saturating_sub(1).max(1) });
        }
        if record.seq != records.len() as u64 {
            return Err(malformed(format!("it is event {}, and {} was expected", record.seq, records.len())));
        }
        head = hash(line);
        length += line.len() as u64 + 1;
        records.push(record);
        rest = &after[1..];
    }
    Ok(Log { records, head, torn: !rest.is_empty(), length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use toprope_model::event::Level;

    fn note(text: &str) -> Event {
        Event::Note { level: Level::Info, text: text.into() }
    }

    fn three(dir: &Path) -> PathBuf {
        let mut log = LogWriter::create(dir).unwrap();
        for (at, text) in [(1, "a"), (2, "b"), (3, "c")] {
            log.append(at, note(text)).unwrap();
        }
        log.finish().unwrap();
        dir.join(FILE)
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = read(&three(dir.path())).unwrap();
        assert_eq!(log.records.len(), 3);
        assert_eq!(log.records[2].event, note("c"));
        assert!(!log.torn && !log.is_closed());
    }

    #[test]
    fn the_first_changed_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = three(dir.path());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"b\"", "\"B\"")).unwrap();
        assert!(matches!(read(&path), Err(LogError::Tampered { line: 2, .. })));
        let without = text.lines().filter(|l| !l.contains("\"b\"")).fold(String::new(), |t, l| t + l + "\n");
        std::fs::write(&path, without).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn a_torn_end_is_cut_off_when_the_log_is_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let path = three(dir.path());
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":3,\"at\":4,\"pr").unwrap();
        assert!(read(&path).unwrap().torn);
        let mut log = LogWriter::reopen(dir.path()).unwrap();
        log.append(5, Event::Sealed { wall: "w".into(), notes: vec![] }).unwrap();
        let log = read(&path).unwrap();
        assert_eq!(log.records.len(), 4);
        assert!(!log.torn && log.is_closed());
    }
}
