//! The state of a host, as far as chaos can touch it, seen from outside Toprope and whatever a fault declares.
//!
//! One class of state is one file. A class turns what it sees into facts: what a thing is, and how it is. Two snapshots
//! are compared fact by fact, so that a difference is told in words.

mod addresses;
mod bpf;
mod cgroups;
mod clock;
mod files;
mod iptables;
mod links;
mod mounts;
mod nftables;
mod processes;
mod program;
mod qdiscs;
mod routes;
mod rules;
mod sockets;
mod space;
mod sysctls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a thing is, and how it is.
pub(crate) type Facts = BTreeMap<String, String>;

/// What is looked at where a path says it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Files and directories; what is in these counts.
    pub(crate) files: Vec<PathBuf>,
    /// What does not count in there.
    pub(crate) except: Vec<PathBuf>,
    /// Whose free space counts.
    pub(crate) filesystems: Vec<PathBuf>,
    /// A process within the mount namespace where Toprope runs, if that is not ours.
    pub(crate) inside: Option<u32>,
    /// Where processes of the whole machine can be seen: `/proc`, if that is not for our own only.
    pub(crate) all_processes: PathBuf,
    /// Processes that belong to whoever looks.
    pub(crate) own: Vec<u32>,
}

/// One class of state.
pub(crate) trait Class: Sync {
    /// Its name, in the plural.
    fn name(&self) -> &'static str;

    /// What there is now.
    ///
    /// # Errors
    /// Why it cannot be seen here.
    fn look(&self, place: &Place) -> Result<Facts, String>;

    /// Whether two values of a fact are the same state.
    fn same(&self, before: &str, after: &str) -> bool {
        before == after
    }
}

/// Every class, by name.
pub(crate) const CLASSES: &[&dyn Class] = &[
    &addresses::Addresses,
    &bpf::Bpf,
    &cgroups::Cgroups,
    &clock::Clock,
    &files::Files,
    &iptables::Iptables,
    &links::Links,
    &mounts::Mounts,
    &nftables::Nftables,
    &processes::Processes,
    &qdiscs::Qdiscs,
    &routes::Routes,
    &rules::Rules,
    &sockets::Sockets,
    &space::Space,
    &sysctls::Sysctls,
];

/// What was seen at one time, by class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot(BTreeMap<String, Facts>);

/// How a fact differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It was not there before.
    Appeared,
    /// It is no longer there.
    Gone,
    /// It is another than before.
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The class.
    pub(crate) class: String,
    /// What thing.
    pub(crate) what: String,
    /// How it differs.
    pub(crate) how: How,
    /// How it was and is, in words.
    words: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.class, self.what, self.words)
    }
}

impl Snapshot {
    /// Looks at every class, or at some.
    ///
    /// # Errors
    /// The class that cannot be seen here, and why.
    pub(crate) fn take(place: &Place, only: &[String]) -> Result<Self, String> {
        let wanted = |class: &&&dyn Class| only.is_empty() || only.iter().any(|name| name == class.name());
        let look = |class: &&dyn Class| match class.look(place) {
            Ok(facts) => Ok((class.name().to_owned(), facts)),
            Err(why) => Err(format!("{} cannot be seen: {why}", class.name())),
        };
        Ok(Self(CLASSES.iter().filter(wanted).map(look).collect::<Result<_, _>>()?))
    }

    /// What differs in a later one.
    pub(crate) fn changes(&self, later: &Self) -> Vec<Change> {
        CLASSES.iter().flat_map(|class| self.changes_of(*class, later)).collect()
    }

    fn changes_of(&self, class: &dyn Class, later: &Self) -> Vec<Change> {
        let nothing = Facts::new();
        let before = self.0.get(class.name()).unwrap_or(&nothing);
        let after = later.0.get(class.name()).unwrap_or(&nothing);
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let change = |what: &&String| {
            let (how, words) = match (before.get(*what), after.get(*what)) {
                (None, Some(now)) => (How::Appeared, format!("was not there before: {now}")),
                (Some(then), None) => (How::Gone, format!("is gone: {then}")),
                (Some(then), Some(now)) if !class.same(then, now) => {
                    (How::Changed, format!("was {then}, and is {now}"))
                }
                _ => return None,
            };
            Some(Change { class: class.name().to_owned(), what: (*what).clone(), how, words })
        };
        all.iter().filter_map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(class: &str, facts: &[(&str, &str)]) -> Snapshot {
        let facts = facts.iter().map(|(what, how)| ((*what).to_owned(), (*how).to_owned())).collect();
        Snapshot(BTreeMap::from([(class.to_owned(), facts)]))
    }

    #[test]
    fn what_appears_goes_and_changes_is_told_in_words() {
        let before = snapshot("links", &[("lo", "up"), ("eth0", "up")]);
        let after = snapshot("links", &[("lo", "down"), ("veth0", "up")]);
        let told: Vec<String> = before.changes(&after).iter().map(Change::to_string).collect();
        let expected =
            ["links: eth0 is gone: up", "links: lo was up, and is down", "links: veth0 was not there before: up"];
        assert_eq!(told, expected);
        assert_eq!(before.changes(&before), []);
    }

    #[test]
    fn classes_are_named_once_and_in_order() {
        let names: Vec<&str> = CLASSES.iter().map(|class| class.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
