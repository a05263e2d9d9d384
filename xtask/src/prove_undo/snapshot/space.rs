//! Free space and free inodes of file systems, which also files without a name take.

use super::{Class, Facts, Place};

/// The class.
pub(super) struct Space;

impl Class for Space {
    fn name(&self) -> &'static str {
        "space"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for path in &place.filesystems {
            let space = rustix::fs::statvfs(path).map_err(|e| format!("{}: {e}", path.display()))?;
            facts.insert(format!("free bytes at {}", path.display()), (space.f_bfree * space.f_frsize).to_string());
            facts.insert(format!("free inodes at {}", path.display()), space.f_ffree.to_string());
        }
        Ok(facts)
    }
}
