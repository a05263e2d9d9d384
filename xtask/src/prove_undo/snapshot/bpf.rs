//! BPF programs and links. No namespace separates them, so what a process outside holds is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Class, Facts, Place};

/// The class.
pub(super) struct Bpf;

impl Class for Bpf {
    fn name(&self) -> &'static str {
        "bpf"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let mut tries = 0;
        loop {
            let listed = listed()?;
            if listed.is_empty() {
                return Ok(Facts::new());
            }
            let held = Held::by(&place.all_processes)?;
            let ours: Vec<String> = listed.into_iter().filter(|name| !held.outside.contains(name)).collect();
            // What nobody holds may be on its way out with a process outside that has just been killed.
            if tries == TRIES || ours.iter().all(|name| held.inside.contains(name)) {
                return Ok(ours.into_iter().map(|name| (name, "attached or loaded".to_owned())).collect());
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// How often it is looked again whether what nobody holds is still there.
const TRIES: u32 = 8;

fn listed() -> Result<Vec<String>, String> {
    let links = toprope_os::bpf::links().map_err(|e| e.to_string())?;
    let programs = toprope_os::bpf::programs().map_err(|e| e.to_string())?;
    Ok(links.iter().map(|id| format!("link {id}")).chain(programs.iter().map(|id| format!("program {id}"))).collect())
}

/// What processes hold by a descriptor: links, and programs with those of the links.
#[derive(Default)]
struct Held {
    /// Processes of this namespace of control groups.
    inside: BTreeSet<String>,
    /// All others.
    outside: BTreeSet<String>,
}

impl Held {
    fn by(all: &Path) -> Result<Self, String> {
        let namespace = |process: &Path| fs::read_link(process.join("ns/cgroup")).ok();
        let ours = namespace(Path::new("/proc/self"));
        let mut held = Self::default();
        for process in fs::read_dir(all).map_err(|e| format!("{}: {e}", all.display()))?.flatten() {
            let process = process.path();
            let is_process = process.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
            if is_process {
                let side = if namespace(&process) == ours { &mut held.inside } else { &mut held.outside };
                side.extend(held_by(&process));
            }
        }
        Ok(held)
    }
}

/// What one process holds; nothing if it ended meanwhile.
fn held_by(process: &Path) -> Vec<String> {
    let mut held = Vec::new();
    for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        if !target.to_string_lossy().starts_with("anon_inode:bpf") {
            continue;
        }
        let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).unwrap_or_default();
        held.extend(info.lines().filter_map(|line| match line.split_once(':') {
            Some(("link_id", id)) => Some(format!("link {}", id.trim())),
            Some(("prog_id", id)) => Some(format!("program {}", id.trim())),
            _ => None,
        }));
    }
    held
}
