//! What chaos left on this host: Toprope's own, and what others' chaos leaves behind.
//!
//! One file for each class. A class looks and changes nothing. What is Toprope's comes with the command that undoes it;
//! what is not is evidence and no accusation (a stopped process may be somebody's Ctrl-Z): it is shown with the command
//! that would remove it, and never touched.

mod clock;
mod files;
mod filter;
mod frozen;
mod journals;
mod mounts;
mod own;
mod qdiscs;
mod routes;
mod stopped;
mod stress;

use std::path::PathBuf;

use serde::Serialize;
use toprope_os::process::{ProcessInfo, processes};

use crate::journal::Journal;

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The class that found it.
    pub class: &'static str,
    /// Whether it is Toprope's.
    pub own: bool,
    /// What is left, and where.
    pub what: String,
    /// What shows it.
    pub evidence: String,
    /// Since when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The command that undoes it; for what is not Toprope's the one that would.
    pub undo: String,
}

/// Where a class could not look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// The class.
    pub class: &'static str,
    /// Whether something of Toprope's may be there.
    pub own: bool,
    /// What was not looked at, and why.
    pub what: String,
    /// How it can be.
    pub help: String,
}

/// What there is, and what is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// What is left.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
}

impl Survey {
    /// Whether something of Toprope's is left.
    pub fn has_own(&self) -> bool {
        self.findings.iter().any(|f| f.own)
    }

    /// Whether something of Toprope's may be left where nobody could look.
    pub fn may_have_own(&self) -> bool {
        self.unseen.iter().any(|u| u.own)
    }
}

/// Where classes look.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The journals that may hold something, that of the caller's own rights first.
    pub journals: Vec<Journal>,
    /// Toprope's own program, by which its processes are known.
    pub executable: Option<PathBuf>,
    /// The processes of this pid namespace.
    pub processes: Vec<ProcessInfo>,
}

impl Scene {
    /// This host as it is now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now(journals: Vec<Journal>) -> toprope_os::Result<Self> {
        let executable = std::fs::read_link("/proc/self/exe").ok();
        Ok(Self { journals, executable, processes: processes()? })
    }
}

/// A class of what chaos leaves.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Whether what it finds can be Toprope's.
    pub own: bool,
    look: fn(&Scene, &mut Survey),
}

/// Every class, Toprope's own first.
pub static CLASSES: &[Class] = &[
    journals::CLASS,
    own::CLASS,
    qdiscs::CLASS,
    routes::CLASS,
    filter::CLASS,
    stopped::CLASS,
    stress::CLASS,
    frozen::CLASS,
    files::CLASS,
    mounts::CLASS,
    clock::CLASS,
];

/// Looks everywhere; with `own`, only where something of Toprope's can be. Changes nothing.
pub fn survey(scene: &Scene, own: bool) -> Survey {
    let mut survey = Survey::default();
    CLASSES.iter().filter(|class| class.own || !own).for_each(|class| (class.look)(scene, &mut survey));
    if own {
        survey.findings.retain(|f| f.own);
        survey.unseen.retain(|u| u.own);
    }
    survey
}

/// When a process started, in words for people.
fn started(process: &ProcessInfo) -> Option<String> {
    let start = process.id.start_time() / rustix::param::clock_ticks_per_second().max(1);
    let age = toprope_os::time::boottime().as_secs().checked_sub(start)?;
    let seconds = toprope_os::time::wall().as_secs().checked_sub(age)?;
    Some(format!("the process started {}", at(seconds)))
}

/// A time since 1970 as a label.
fn at(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    time.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}

/// A process in words.
fn named(process: &ProcessInfo) -> String {
    let mut command: String = process.cmdline.join(" ").chars().take(80).collect();
    if command.is_empty() {
        command.clone_from(&process.name);
    }
    format!("process {} ({command})", process.id.pid())
}

#[cfg(test)]
mod testing {
    use super::{Class, Finding, Scene, Survey};

    /// What one class finds now.
    pub(super) fn look(class: Class) -> Survey {
        let mut survey = Survey::default();
        (class.look)(&Scene::now(vec![]).expect("/proc is mounted"), &mut survey);
        survey
    }

    /// The findings whose text holds a word.
    pub(super) fn about(survey: &Survey, word: &str) -> Vec<Finding> {
        let holds = |f: &&Finding| f.what.contains(word) || f.evidence.contains(word);
        survey.findings.iter().filter(holds).cloned().collect()
    }

    /// Whether tests that need root can run; says so when not.
    pub(super) fn is_root(test: &str) -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("SKIPPED {test}: it needs root");
        }
        root
    }

    /// Does something in a network of its own, with a loopback interface that is up.
    pub(super) fn in_own_network(test: &str, body: impl FnOnce() + Send) {
        if is_root(test) {
            toprope_os::namespace::Namespace::new_net().expect("root may").run(body).expect("entered");
        }
    }

    /// Runs a program with words; `false` where it is not installed.
    pub(super) fn ran(program: &str, arguments: &[&str]) -> bool {
        match std::process::Command::new(program).args(arguments).status() {
            Ok(status) => {
                assert!(status.success(), "{program} {arguments:?}");
                true
            }
            Err(error) => {
                eprintln!("SKIPPED: {program}: {error}");
                false
            }
        }
    }
}
