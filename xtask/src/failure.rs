//! Why a task did not do what it was asked.

use std::path::PathBuf;

/// What happened, to what, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file or directory could not be used.
    #[error("cannot {what} {path}: {error}")]
    File {
        /// What was tried: `read`, `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`: {error}")]
    Start {
        /// Its command line.
        command: String,
        /// Why.
        error: std::io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed: {why}")]
    Failed {
        /// Its command line.
        command: String,
        /// What it said, or how it ended.
        why: String,
    },
    /// What a check found, in words.
    #[error("{0}")]
    Found(String),
}

/// What can fail on a file.
pub(crate) trait OnFile<T> {
    /// Adds what was tried on which file.
    fn on(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, Failure>;
}

impl<T> OnFile<T> for std::io::Result<T> {
    fn on(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, Failure> {
        self.map_err(|error| Failure::File { what, path: path.into(), error })
    }
}
