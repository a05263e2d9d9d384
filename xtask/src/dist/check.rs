//! What was made is tried before it counts as made: the binary alone, and the package as the only thing there is.

use std::path::Path;
use std::process::{Command, Stdio};

use super::COMPLETIONS;
use crate::failure::{Failure, OnFile};
use crate::workspace::{Workspace, output};

/// Fails if the binary wants a loader or a library of the system's.
pub(super) fn is_static(binary: &Path) -> Result<(), Failure> {
    let found = output(Command::new("ldd").arg(binary).env("LC_ALL", "C"));
    let libraries = match found {
        Ok(text) if text.contains("statically linked") => None,
        // Some versions fail on a static binary, and say so.
        Err(Failure::Failed { why, .. }) if why.contains("not a dynamic executable") => None,
        Ok(text) => Some(text),
        Err(other) => return Err(other),
    };
    match libraries {
        None => Ok(()),
        Some(text) => Err(Failure::Found(format!("{} is not static: it wants\n{text}", binary.display()))),
    }
}

/// Unpacks the package elsewhere, and runs what it brings: from here, and with that directory as the whole system.
pub(super) fn package(workspace: &Workspace, package: &Path) -> Result<(), Failure> {
    let tree = tempfile::tempdir().on("create", "a temporary directory")?;
    let root = tree.path();
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))?;
    let binary = root.join("usr/bin/toprope");
    let says = output(Command::new(&binary).arg("--version").env_clear())?;
    let wanted = format!("toprope {}", workspace.version());
    if says.trim() != wanted {
        return Err(Failure::Found(format!("the packaged binary says {:?}, not {wanted:?}", says.trim())));
    }
    let files = ["usr/share/man/man1/toprope.1.gz", "usr/share/doc/toprope/copyright"];
    for path in COMPLETIONS.map(|c| c.1).into_iter().chain(files) {
        let size = std::fs::metadata(root.join(path)).on("read", path)?.len();
        if size == 0 {
            return Err(Failure::Found(format!("{path} is empty in the package")));
        }
    }
    let examples = root.join("usr/share/doc/toprope/examples");
    output(Command::new(&binary).arg("validate").arg(examples.join("first.yaml")).env_clear())?;
    unknown_user(&binary)?;
    alone(root)
}

/// Looks for a user who is not there, on this system with all that its `/etc/nsswitch.conf` names: a static binary that
/// loaded a module for that would crash.
fn unknown_user(binary: &Path) -> Result<(), Failure> {
    let home = tempfile::tempdir().on("create", "a temporary directory")?;
    let mut command = Command::new(binary);
    command.args(["inject", "process-pause", "target.user=nobody-is-called-so", "--for", "1s", "--probe"]);
    command.arg("http://127.0.0.1:9/").env_clear().env("TOPROPE_HOME", home.path()).stdin(Stdio::null());
    let ended = command.output().map_err(|error| Failure::Start { command: "toprope inject".into(), error })?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.code() == Some(2) && said.contains("nobody-is-called-so") {
        return Ok(());
    }
    Err(Failure::Found(format!("looking up a user who is not there: {}\n{said}", ended.status)))
}

/// Runs it with the unpacked package as the root of the file system: there is no C library, no shell, no /proc.
fn alone(root: &Path) -> Result<(), Failure> {
    let is_root = toprope_os::user::Identity::current().is_ok_and(|user| user.uid == 0);
    let mut command = Command::new(if is_root { "chroot" } else { "unshare" });
    if !is_root {
        command.args(["--map-root-user", "--root"]);
    }
    command.arg(root).args(["/usr/bin/toprope", "validate", "/usr/share/doc/toprope/examples/first.yaml"]);
    output(command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")).map(drop)
}
