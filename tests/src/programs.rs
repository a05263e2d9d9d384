//! The programs of others that tests use: found where Debian puts them.

use std::path::PathBuf;

use crate::skip;

/// A program's path, on PATH or where Debian puts what only root or PostgreSQL itself is meant to call.
///
/// # Panics
/// It is not installed; ask [`installed`] first.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not installed"))
}

/// Whether all these programs are there; says which is not.
///
/// # Panics
/// One is not, and `CI` is set: there, a test that proves nothing is a mistake.
pub fn installed(names: &[&str]) -> bool {
    let missing: Vec<&str> = names.iter().copied().filter(|name| find(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let why = format!("{} is not installed", missing.join(", "));
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{why}");
    skip(&why);
    false
}

/// A program's path, where it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    directories.extend(versions.into_iter().rev());
    directories.into_iter().map(|directory| directory.join(name)).find(|file| file.is_file())
}
