//! Where Toprope keeps what it must not forget.

use std::path::{Path, PathBuf};

use toprope_os::user::{Identity, User};

use crate::journal::Journal;

/// The directories of one user on one host.
///
/// `TOPROPE_HOME` overrides all of it. Else root keeps its state in `/var/lib/toprope`, and everybody else in
/// `$XDG_STATE_HOME/toprope` or `~/.local/state/toprope`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    root: PathBuf,
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither of the variables that could name one is set.
    #[error("there is nowhere to keep runs: HOME is not set; set TOPROPE_HOME to a directory of yours")]
    NoHome,
    /// It cannot be made.
    #[error("cannot use {path} to keep runs: {error}; set TOPROPE_HOME to a directory that you may write")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl State {
    /// State under a directory of its own: for tests, and for `TOPROPE_HOME`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state directory of the user who runs this process.
    ///
    /// # Errors
    /// [`StateError::NoHome`].
    pub fn of_this_user() -> Result<Self, StateError> {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(root) = var("TOPROPE_HOME") {
            return Ok(Self { root: std::path::absolute(&root).unwrap_or(root) });
        }
        Self::of_this_user_by_default()
    }

    /// The same without `TOPROPE_HOME`.
    ///
    /// # Errors
    /// [`StateError::NoHome`].
    pub fn of_this_user_by_default() -> Result<Self, StateError> {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let uid = Identity::current().map_or(0, |i| i.uid);
        if uid == 0 {
            return Ok(Self::of_root());
        }
        // A process that gave up root's rights still has root's environment: the user's own entry counts.
        let home = User::by_uid(uid).ok().flatten().map(|u| u.home).or_else(|| var("HOME"));
        let state = var("XDG_STATE_HOME").or_else(|| home.map(|home| home.join(".local/state")));
        state.map(|dir| Self::at(dir.join("toprope"))).ok_or(StateError::NoHome)
    }

    /// Root's state.
    pub fn of_root() -> Self {
        Self::at("/var/lib/toprope")
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where runs are kept, one directory each.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The directory of one run.
    pub fn run(&self, id: &str) -> PathBuf {
        self.runs().join(id)
    }

    /// The journal of what must be undone.
    pub fn journal(&self) -> Journal {
        Journal::at(self.root.join("journal"))
    }

    /// Makes the directories, readable by this user alone.
    ///
    /// # Errors
    /// [`StateError::Unusable`].
    pub fn prepare(&self) -> Result<(), StateError> {
        use std::os::unix::fs::DirBuilderExt;
        for path in [self.root.clone(), self.runs()] {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| StateError::Unusable { path, error })?;
        }
        Ok(())
    }

    /// The ids of all runs, oldest first (an id begins with its time).
    pub fn run_ids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.runs()).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter(|e| e.path().join(crate::log::FILE).exists())
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids
    }

    /// The run that a text means: a whole id, the end or beginning of one, or `last`.
    pub fn find_run(&self, text: &str) -> Option<String> {
        let ids = self.run_ids();
        if text == "last" {
            return ids.last().cloned();
        }
        let exact = ids.iter().find(|id| *id == text).cloned();
        exact.or_else(|| {
            let mut like = ids.iter().filter(|id| id.starts_with(text) || id.ends_with(text));
            let first = like.next().cloned();
            if like.next().is_some() { None } else { first }
        })
    }
}
