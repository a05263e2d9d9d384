//! The processes that are meant, followed while they start others, end and are started again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_engine::host::Host;
use toprope_engine::target;
use toprope_model::target::{Pick, Target};
use toprope_os::process::{ProcessId, descendants_of};

/// How often, at most, it is looked for processes that were started by others: that reads much of `/proc`.
const RESOLVE: Duration = Duration::from_secs(1);
/// Looking for them takes at most this share of a core: one of so many.
const SPARING: u32 = 20;

/// Processes and all that they started.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    from: Target,
    seed: u64,
    host: Host,
    /// Who was meant before, and lives on as somebody else's child if its parent has ended.
    known: BTreeSet<ProcessId>,
    /// When to look for processes that others started.
    resolve_at: Instant,
}

/// The processes that a plan picked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Picked(pub(crate) BTreeSet<ProcessId>);

impl Family {
    /// Begins with those that were picked.
    pub(crate) fn new(from: &Target, picked: Picked, seed: u64, host: &Host) -> Self {
        // Those that were picked were resolved just before.
        let resolve_at = Instant::now() + if picked.0.is_empty() { Duration::ZERO } else { RESOLVE };
        Self { from: from.clone(), seed, host: host.clone(), known: picked.0, resolve_at }
    }

    /// The numbers of those that are meant now. Their children are found at once. What was started by others and
    /// matches is found within seconds, unless only some of the matching processes were picked.
    ///
    /// # Errors
    /// That the processes cannot be listed.
    pub(crate) fn now(&mut self) -> Result<BTreeSet<u32>, FaultError> {
        if self.from.0.pick == Pick::All && Instant::now() >= self.resolve_at {
            let begin = Instant::now();
            // That nobody matches at this moment is no error: it may be started again.
            let matching = target::resolve(&self.from, self.seed, &self.host).map(|r| r.picked).unwrap_or_default();
            self.known.extend(matching.iter().map(|p| p.id));
            self.resolve_at = Instant::now() + RESOLVE.max(begin.elapsed() * SPARING);
        }
        self.known.retain(ProcessId::is_alive);
        let children = descendants_of(self.known.iter().map(ProcessId::pid))
            .map_err(|e| FaultError::because("the processes cannot be listed", e))?;
        self.known.extend(children);
        Ok(self.known.iter().map(ProcessId::pid).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toprope_model::{FromNode, Node, Problems};

    use super::*;
    use crate::testing::{Victim, eventually, host};

    fn target(selector: &serde_json::Value) -> Target {
        Target::from_node(&Node::from_json(selector), &mut Problems::default()).unwrap()
    }

    #[test]
    fn children_are_meant_also_once_their_parent_has_ended() {
        let parent = Victim::script("sleep 600 & echo ready; wait");
        let mut family = Family::new(&target(&json!({"pid": parent.pid()})), Picked::default(), 7, &host());
        eventually("the child is there", || family.now().unwrap().len() == 2);
        let [child] = toprope_os::process::descendants(parent.pid()).unwrap()[..] else { panic!("one child") };
        parent.signal(toprope_os::process::Signal::KILL);
        eventually("the parent is gone", || family.now().unwrap() == BTreeSet::from([child.pid()]));
        drop(toprope_os::process::Pidfd::open(&child).unwrap().signal(toprope_os::process::Signal::KILL));
        eventually("nobody is left", || family.now().unwrap().is_empty());
    }

    #[test]
    fn who_is_started_later_is_meant_unless_some_were_picked() {
        let name = format!("toprope-family-{}", std::process::id());
        let start = || Victim::script(&format!("exec bash -c 'echo ready; exec -a {name} sleep 600'"));
        let first = start();
        let selector = |pick: &str| target(&json!({"command-line": format!("^{name} "), "pick": pick}));
        eventually("it has its name", || {
            Family::new(&selector("all"), Picked::default(), 7, &host()).now().unwrap().contains(&first.pid())
        });
        let picked = Picked(BTreeSet::from([first.id()]));
        let mut all = Family::new(&selector("all"), picked.clone(), 7, &host());
        let mut one = Family::new(&selector("one"), picked, 7, &host());
        let second = start();
        eventually("the second is meant", || all.now().unwrap() == BTreeSet::from([first.pid(), second.pid()]));
        assert_eq!(one.now().unwrap(), BTreeSet::from([first.pid()]));
    }
}
