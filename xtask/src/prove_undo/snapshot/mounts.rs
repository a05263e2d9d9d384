//! Mounts: of ours, and of the namespace in which Toprope runs.

use std::fs;

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Mounts;

impl Class for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let mut lines = read("self")?;
        // It may end at any time, and its mounts with it.
        lines.extend(place.inside.and_then(|pid| read(&pid.to_string()).ok()).unwrap_or_default());
        Ok(program::counted(lines.into_iter().collect::<std::collections::BTreeSet<_>>()))
    }
}

/// Each mount as `POINT: TYPE SOURCE OPTIONS`, without the numbers, which are others in every namespace.
fn read(process: &str) -> Result<Vec<String>, String> {
    let file = format!("/proc/{process}/mountinfo");
    let text = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    Ok(text.lines().filter_map(mount).collect())
}

/// A line of proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<String> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point, options) = (mount.next()?, mount.next()?, mount.next()?);
    Some(format!("{point} from {root} ({options}): {filesystem}"))
}
