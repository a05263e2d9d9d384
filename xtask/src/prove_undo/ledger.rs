//! The results of rounds, one line each in a file: what was played once need not be played again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::round::Outcome;
use crate::failure::{Failure, OnFile};

/// A round that was played, and of what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The commit that the binary was built from, as the workspace says.
    pub(crate) commit: String,
    /// The day, in UTC.
    pub(crate) date: String,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    /// All entries, also of files that were given to resume from.
    pub(crate) entries: Vec<Entry>,
}

impl Ledger {
    /// Opens the file to append to it, and reads what it and others hold.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub(crate) fn open(path: &Path, resume: &[PathBuf]) -> Result<Self, Failure> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).on("create", parent)?;
        }
        let mut entries = Vec::new();
        let own = path.to_owned();
        for file in resume.iter().filter(|file| **file != own).chain(path.exists().then_some(&own)) {
            let text = crate::workspace::read(file)?;
            for (number, line) in text.lines().enumerate() {
                match serde_json::from_str(line) {
                    Ok(entry) => entries.push(entry),
                    // The last line may have been cut by the death of who wrote it.
                    Err(_) if number + 1 == text.lines().count() && !text.ends_with('\n') => {}
                    Err(e) => {
                        return Err(Failure::Found(format!("{}:{}: is no round: {e}", file.display(), number + 1)));
                    }
                }
            }
        }
        let file = OpenOptions::new().append(true).create(true).open(path).on("write", path)?;
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// Adds a round.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(&entry).map_err(|e| Failure::Found(format!("a round is no JSON: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).on("write", &self.path)?;
        self.entries.push(entry);
        Ok(())
    }

    /// How many rounds of a scenario there are, of a commit.
    pub(crate) fn rounds(&self, scenario: &str, commit: &str) -> usize {
        self.entries.iter().filter(|e| e.outcome.scenario == scenario && e.commit == commit).count()
    }
}
