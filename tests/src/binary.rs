//! The binary under test: found beside the test, and built where it is missing or older than its sources.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

/// The binary's path: `TOPROPE_BINARY`, or the one of the profile that the test was built with.
///
/// # Panics
/// It cannot be built.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("TOPROPE_BINARY").map_or_else(beside_the_test, PathBuf::from))
}

fn beside_the_test() -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("cargo puts tests two levels below the target directory");
    let binary = profile.join("toprope");
    if is_fresh(&binary) {
        return binary;
    }
    // Nextest runs every test in a process of its own: one of them builds, the others wait for it.
    let lock = File::create(profile.join(".toprope-tests.lock")).expect("the target directory can be written");
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).expect("a file can be locked");
    if !is_fresh(&binary) {
        build(profile);
        assert!(binary.exists(), "cargo built no {}", binary.display());
    }
    binary
}

/// Whether the binary is newer than every file that it was built from, by the list that cargo wrote beside it.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let (Some(built), Ok(list)) = (changed(binary), std::fs::read_to_string(binary.with_extension("d"))) else {
        return false;
    };
    let Some((_, sources)) = list.split_once(": ") else { return false };
    // A blank in a path is written as `\ `.
    let sources = sources.trim().replace("\\ ", "\u{0}");
    sources.split(' ').map(|source| PathBuf::from(source.replace('\u{0}', " "))).all(|source| {
        let fresh = |changed: SystemTime| changed <= built;
        changed(&source).is_some_and(fresh)
    })
}

fn build(profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if name == "debug" { "dev" } else { name };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "toprope-cli", "--bin", "toprope", "--profile", profile]);
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
    assert!(status.success(), "cargo could not build toprope");
}
