//! The journal: one file per injection, durable before anything is applied, gone when nothing is left to undo.
//!
//! A record's first line is its [`Intent`]; [`Mark`]s follow. Every line is fsynced before what it announces is done.
//! A record that restores something, whose injector is dead and which has no [`Mark::Undone`], is dirty: nothing new is
//! injected until `toprope undo` has cleaned it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use toprope_model::journal::{Intent, Mark, VERSION};
use toprope_model::step::{Step, Undo, Undone};
use toprope_os::process::ProcessId;

/// The journal of one user on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    directory: PathBuf,
    /// Whose it is, where it is not this process's user's.
    owner: Option<u32>,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed; nothing was applied that the journal does not hold.
    #[error("cannot {what} the journal at {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// The directory or a record could have been written by somebody else.
    #[error(
        "{path} is not to be trusted: {why}; whoever may write it could have Toprope undo things that were never done"
    )]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A record that cannot be read.
    #[error("the record {path} cannot be read: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something of an earlier run is still to be undone.
    #[error("{fault} of run {run} was never undone: {what}; run `toprope undo {run}`, then `toprope residue`")]
    Dirty {
        /// The fault.
        fault: String,
        /// The run.
        run: String,
        /// What it changed.
        what: String,
    },
    /// Something that this injection would take is taken.
    #[error(
        "{claim} is already taken by {fault} of run {run}; wait until it ends, or end it with `toprope undo {run}`"
    )]
    Taken {
        /// What is taken.
        claim: String,
        /// By which fault.
        fault: String,
        /// Of which run.
        run: String,
    },
}

/// The ending of a record that is being written.
const UNNAMED: &str = "new";

fn io<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> JournalError + use<'p> {
    move |error| JournalError::Io { what, path: path.to_owned(), error }
}

/// What one record says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The file.
    pub path: PathBuf,
    /// What was intended.
    pub intent: Intent,
    /// How far it went.
    pub marks: Vec<Mark>,
}

/// What is to be done about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its injector lives and holds it.
    InForce,
    /// Nobody holds it any more and nobody has undone it.
    Dirty,
    /// It is undone: by one of us, or by the kernel when its injector died.
    Undone,
}

impl Record {
    /// Whether it is in force, dirty or undone.
    pub fn standing(&self) -> Standing {
        if self.undone().is_some() {
            Standing::Undone
        } else if self.injector().is_some_and(|id| id.is_alive()) {
            Standing::InForce
        } else if self.intent.steps.iter().any(|step| matches!(step.undo, Undo::Restore(_))) {
            Standing::Dirty
        } else {
            // The kernel took back what it owns when the injector died, and nothing brings back what is irreversible.
            Standing::Undone
        }
    }

    /// The injector that held it, if its name can be read.
    pub fn injector(&self) -> Option<ProcessId> {
        serde_json::from_str(&self.intent.injector).ok()
    }

    /// How it was undone.
    pub fn undone(&self) -> Option<&Undone> {
        self.marks.iter().find_map(|m| match m {
            Mark::Undone(undone) => Some(undone),
            _ => None,
        })
    }

    /// Whether it happened under another boot of this machine.
    pub fn from_another_boot(&self) -> bool {
        let now = toprope_os::time::boot_id().ok();
        self.injector().is_some_and(|id| Some(id.boot_id()) != now)
    }
}

/// A record that this process writes to.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    file: File,
}

impl Entry {
    /// Appends a mark and waits until it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn mark(&mut self, mark: &Mark) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(mark).map_err(|e| io("encode a mark for", &self.path)(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(io("write to", &self.path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Nobody else undoes this record while this is held.
#[derive(Debug)]
#[must_use = "dropping it lets others at the record"]
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Journal {
    /// The journal in a directory, which is made when it is first written.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), owner: None }
    }

    /// Another user's journal, for root to look into: records are believed if they are that user's.
    pub fn of_user(directory: impl Into<PathBuf>, uid: u32) -> Self {
        Self { directory: directory.into(), owner: Some(uid) }
    }

    /// The user whose journal this is, where it is another one's.
    pub fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory for its user alone, and refuses one that others could have written.
    fn prepare(&self) -> Result<(), JournalError> {
        let path = &self.directory;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(io("make", path))?;
        self.check_directory()
    }

    fn check_directory(&self) -> Result<(), JournalError> {
        let path = &self.directory;
        let meta = std::fs::symlink_metadata(path).map_err(io("look at", path))?;
        let untrusted = |why: String| Err(JournalError::Untrusted { path: path.clone(), why });
        if !meta.is_dir() {
            return untrusted("it is not a directory".into());
        }
        self.trusted(path, &meta)
    }

    /// Writes the intent of an injection, unless something it claims is taken, and waits until it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Taken`], or why it could not be written: then nothing may be applied.
    pub fn begin(&self, intent: &Intent) -> Result<Entry, JournalError> {
        self.prepare()?;
        let _one_at_a_time = self.lock_file(&self.directory.join(".lock"))?;
        self.refuse_taken(&intent.steps)?;
        let path = self.directory.join(format!("{}-{}.jsonl", intent.run, intent.injection));
        if path.exists() {
            return Err(io("write", &path)(std::io::ErrorKind::AlreadyExists.into()));
        }
        // Whoever reads the journal meanwhile, as parallel faults do, sees a whole record or none: it gets its name when
        // it is on disk. A kill or a power loss leaves at most an unnamed one, for which nothing was applied.
        let unnamed = path.with_extension(UNNAMED);
        let written = self.write_unnamed(&unnamed, intent).and_then(|file| {
            std::fs::rename(&unnamed, &path).map_err(io("name", &path))?;
            File::open(&self.directory).and_then(|d| d.sync_all()).map_err(io("sync", &self.directory))?;
            Ok(file)
        });
        let file = written.inspect_err(|_| {
            // What is not durable must not look as if it were.
            let _ = std::fs::remove_file(&unnamed);
            let _ = std::fs::remove_file(&path);
        })?;
        Ok(Entry { path, file })
    }

    /// Writes an intent to a file that is no record yet, and waits until it is on disk.
    fn write_unnamed(&self, path: &Path, intent: &Intent) -> Result<File, JournalError> {
        let _ = std::fs::remove_file(path);
        let mut line = serde_json::to_vec(intent).map_err(|e| io("encode a record for", path)(e.into()))?;
        line.push(b'\n');
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.append(true).create_new(true).mode(0o600).custom_flags(flags);
        let mut file = options.open(path).map_err(io("write", path))?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(io("write", path))?;
        Ok(file)
    }

    /// Refuses to go on while something of an earlier run is still to be undone.
    ///
    /// # Errors
    /// [`JournalError::Dirty`] with what it is, or the journal cannot be read.
    pub fn refuse_dirty(&self) -> Result<(), JournalError> {
        for record in self.records()? {
            if record.standing() == Standing::Dirty {
                let what = record.intent.steps.iter().map(|s| s.describe.clone()).collect::<Vec<_>>().join("; ");
                return Err(JournalError::Dirty { fault: record.intent.fault, run: record.intent.run, what });
            }
        }
        Ok(())
    }

    /// Refuses steps that claim what another injection, in force or never undone, has taken.
    ///
    /// # Errors
    /// [`JournalError::Taken`] with what it is and by whom, or the journal cannot be read.
    pub fn refuse_taken(&self, steps: &[Step]) -> Result<(), JournalError> {
        let claims: Vec<&String> = steps.iter().flat_map(|s| &s.claims).collect();
        for other in self.records()? {
            if other.standing() == Standing::Undone {
                continue;
            }
            let taken = other.intent.steps.iter().flat_map(|s| &s.claims).find(|c| claims.contains(c));
            if let Some(claim) = taken {
                let (fault, run) = (other.intent.fault.clone(), other.intent.run.clone());
                return Err(JournalError::Taken { claim: claim.clone(), fault, run });
            }
        }
        Ok(())
    }

    /// Opens an existing record to append marks.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn reopen(&self, record: &Record) -> Result<Entry, JournalError> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = File::options().append(true).custom_flags(flags).open(&record.path);
        Ok(Entry { path: record.path.clone(), file: file.map_err(io("write", &record.path))? })
    }

    /// Keeps others from undoing the same record at the same time; waits for them.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn lock(&self, record: &Path) -> Result<Lock, JournalError> {
        let file = File::open(record).map_err(io("open", record))?;
        rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive).map_err(|e| io("lock", record)(e.into()))?;
        Ok(Lock(file))
    }

    fn lock_file(&self, path: &Path) -> Result<Lock, JournalError> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(path).map_err(io("lock", path))?;
        rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive).map_err(|e| io("lock", path)(e.into()))?;
        Ok(Lock(file))
    }

    /// Every record, in the order of their names. A journal that does not exist holds none.
    ///
    /// # Errors
    /// A record that is not to be trusted or cannot be read: whoever asks must not go on as if there were none.
    pub fn records(&self) -> Result<Vec<Record>, JournalError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(io("read", &self.directory)(e)),
        };
        self.check_directory()?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
        paths.sort();
        let read = paths.iter().map(|p| self.read(p));
        // A record may be removed by its owner between the listing and the reading.
        read.filter(
            |r| !matches!(r, Err(JournalError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound),
        )
        .collect()
    }

    /// One record.
    ///
    /// # Errors
    /// As for [`Journal::records`].
    pub fn read(&self, path: &Path) -> Result<Record, JournalError> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(io("read", path))?;
        self.trusted(path, &file.metadata().map_err(io("look at", path))?)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io("read", path))?;
        let mut lines = text.lines();
        let damaged = |why: String| JournalError::Damaged { path: path.to_owned(), why };
        let first = lines.next().ok_or_else(|| damaged("it is empty".into()))?;
        let intent: Intent = serde_json::from_str(first).map_err(|e| damaged(e.to_string()))?;
        if intent.version > VERSION {
            let why =
                format!("it has format {}, and this Toprope knows up to {VERSION}: use a newer one", intent.version);
            return Err(damaged(why));
        }
        // A torn last line was never acted upon: what it announces comes after it is durable.
        let marks = lines.map_while(|line| serde_json::from_str(line).ok()).collect();
        Ok(Record { path: path.to_owned(), intent, marks })
    }

    /// Refuses what another user owns or may write.
    fn trusted(&self, path: &Path, meta: &std::fs::Metadata) -> Result<(), JournalError> {
        let current = || toprope_os::user::Identity::current().map(|i| i.uid).unwrap_or(u32::MAX);
        let me = self.owner.unwrap_or_else(current);
        let why = if meta.uid() != me {
            format!("it belongs to user {}, and this is user {me}", meta.uid())
        } else if meta.mode() & 0o022 != 0 {
            format!("others may write it (mode {:o})", meta.mode() & 0o777)
        } else {
            return Ok(());
        };
        Err(JournalError::Untrusted { path: path.to_owned(), why })
    }

    /// Removes a record that is undone.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(&self, record: &Path) -> Result<(), JournalError> {
        match std::fs::remove_file(record) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove a record of", record)(e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(run: &str, claim: &str) -> Intent {
        Intent {
            version: VERSION,
            run: run.into(),
            injection: 0,
            fault: "network-latency".into(),
            user: "me".into(),
            steps: vec![Step {
                describe: "x".into(),
                claims: vec![claim.into()],
                undo: Undo::KernelOwned("y".into()),
                data: serde_json::json!({}),
            }],
            injector: serde_json::to_string(&ProcessId::current().unwrap()).unwrap(),
            deadline_ms: 0,
            written: 0,
        }
    }

    #[test]
    fn a_record_that_is_being_written_is_none_and_is_in_no_ones_way() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        journal.begin(&intent("a", "tcp :1")).unwrap();
        let unnamed = journal.directory().join(format!("b-0.{UNNAMED}"));
        std::fs::write(&unnamed, b"{\"half\":").unwrap();
        assert_eq!(journal.records().unwrap().len(), 1);
        journal.begin(&intent("b", "tcp :2")).unwrap();
        assert_eq!(journal.records().unwrap().len(), 2);
        assert!(!unnamed.exists());
        journal.begin(&intent("b", "tcp :3")).unwrap_err();
        assert_eq!(journal.records().unwrap().len(), 2, "what was there is kept");
    }

    #[test]
    fn readers_never_see_a_record_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        journal.begin(&intent("first", "tcp :0")).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..100 {
                    journal.begin(&intent(&format!("r{n}"), &format!("tcp :{n}"))).unwrap();
                }
            });
            while !writer.is_finished() {
                journal.records().unwrap();
            }
        });
    }

    #[test]
    fn a_record_is_in_force_until_it_is_undone_and_keeps_others_away() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        assert_eq!(journal.records().unwrap(), vec![]);
        let mut entry = journal.begin(&intent("a", "tcp :1")).unwrap();
        assert_eq!(journal.records().unwrap()[0].standing(), Standing::InForce);
        let error = journal.begin(&intent("b", "tcp :1")).unwrap_err();
        assert!(error.to_string().contains("`toprope undo a`"), "{error}");
        journal.begin(&intent("c", "tcp :2")).unwrap();
        entry.mark(&Mark::Undone(Undone { clean: true, by: "injector".into(), ..Undone::default() })).unwrap();
        assert_eq!(journal.records().unwrap()[0].standing(), Standing::Undone);
        journal.begin(&intent("d", "tcp :1")).unwrap();
    }

    #[test]
    fn a_torn_mark_is_as_if_it_were_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        let mut entry = journal.begin(&intent("a", "x")).unwrap();
        entry.mark(&Mark::Applying(0)).unwrap();
        entry.file.write_all(b"{\"undone\":{\"clean\":tr").unwrap();
        assert_eq!(journal.records().unwrap()[0].marks, vec![Mark::Applying(0)]);
    }

    #[test]
    fn what_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        let entry = journal.begin(&intent("a", "x")).unwrap();
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(journal.records(), Err(JournalError::Untrusted { .. })));
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(journal.directory(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(journal.records(), Err(JournalError::Untrusted { .. })));
        std::fs::set_permissions(journal.directory(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::remove_file(entry.path()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", journal.directory().join("z.jsonl")).unwrap();
        assert!(journal.records().is_err());
    }
}
