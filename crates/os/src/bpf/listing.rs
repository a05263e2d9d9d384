//! Which programs and links the kernel holds, whoever made them: for who wants to know that nothing of it is left.

use super::sys::{Listed, next_id};
use crate::{Result, error::Context};

/// The numbers of all programs that are loaded, as `bpftool prog` shows them. They are of the whole machine: no
/// namespace separates them.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn programs() -> Result<Vec<u32>> {
    all(Listed::Programs)
}

/// The numbers of all links by which programs are attached, as `bpftool link` shows them; of the whole machine too.
/// A kernel before Linux 5.8 lists none.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn links() -> Result<Vec<u32>> {
    all(Listed::Links)
}

fn all(what: Listed) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut last = 0;
    while let Some(id) = next_id(what, last).cannot_without("CAP_SYS_ADMIN", || "list what BPF holds")? {
        ids.push(id);
        last = id;
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{ConnectRedirect, supported};
    use crate::cgroup::V2;
    use crate::testing::skip;

    #[test]
    fn a_program_that_is_attached_is_listed_with_its_link() {
        if let Err(why) = supported() {
            return skip("a_program_that_is_attached_is_listed_with_its_link", why);
        }
        // Other tests attach programs at the same time: what is ours is told by the descriptors of this process.
        let held = |kind: &str| -> Vec<u32> {
            let files = std::fs::read_dir("/proc/self/fdinfo").expect("/proc is mounted").flatten();
            let texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
            texts.filter_map(|t| t.lines().find_map(|l| l.strip_prefix(kind)?.trim().parse().ok())).collect()
        };
        let group = V2::find().and_then(|v2| v2.group("/")).expect("supported says so");
        let redirect = ConnectRedirect::attach(&group, &[]).expect("supported says so");
        let (held_links, held_programs) = (held("link_id:"), held("prog_id:"));
        assert!(!held_links.is_empty());
        let listed = links().expect("root");
        assert!(held_links.iter().all(|id| listed.contains(id)), "{held_links:?} of {listed:?}");
        let listed = programs().expect("root");
        assert!(held_programs.iter().all(|id| listed.contains(id)), "{held_programs:?} of {listed:?}");
        drop(redirect);
        let listed = links().expect("root");
        assert!(held_links.iter().all(|id| !listed.contains(id)), "{held_links:?} of {listed:?}");
    }
}
