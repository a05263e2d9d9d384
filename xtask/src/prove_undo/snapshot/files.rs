//! Files, with their content.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Class, Facts, Place};

/// The class.
pub(super) struct Files;

impl Class for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for path in &place.files {
            walk(path, place, &mut facts);
        }
        Ok(facts)
    }
}

fn walk(path: &Path, place: &Place, facts: &mut Facts) {
    if place.except.iter().any(|except| except == path) {
        return;
    }
    let Ok(metadata) = fs::symlink_metadata(path) else { return }; // It is not there, which is a fact too.
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap_or_default().display())
    } else if kind.is_file() {
        let mut hasher = DefaultHasher::new();
        fs::read(path).unwrap_or_default().hash(&mut hasher);
        format!("file of {} bytes (content {:016x})", metadata.len(), hasher.finish())
    } else {
        "special file".to_owned()
    };
    let owner = format!("mode {:o}, owner {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    facts.insert(path.display().to_string(), format!("{what}, {owner}"));
    if kind.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), place, facts);
        }
    }
}
