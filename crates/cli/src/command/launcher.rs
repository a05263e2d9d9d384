//! `toprope launcher`: injectors for users without rights.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use toprope_engine::injector::{Service, serve_callers};
use toprope_os::user::Identity;

use crate::args::LaunchServiceArgs;
use crate::invocation::{Failure, authority};
use crate::{process, show};

/// Where the host's launcher listens, unless it is told of another place.
pub const SOCKET: &str = "/run/toprope/launcher.sock";

/// Starts injectors for whoever calls, until it is killed.
pub fn launcher(args: &LaunchServiceArgs) -> Result<u8, Failure> {
    if !Identity::current().is_ok_and(|i| i.uid == 0) {
        return Err(Failure::new("only root can start injectors with root's rights")
            .help("run it as root, or have `sudo toprope install-guard --launcher` install it"));
    }
    let listener = listen(&args.listen)?;
    let service = Service {
        executable: process::executable(),
        policy: args.policy.clone(),
        state: authority()?.root().to_owned(),
    };
    show::line(&format!("listening on {}, by the policy {}", args.listen.display(), args.policy.display()));
    serve_callers(&listener, &service)?;
    Ok(0)
}

/// A socket that every user may connect to: who they are is what the kernel says, what they may is the policy's.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let cannot = |e: std::io::Error| Failure::new(format!("cannot listen on {}: {e}", path.display()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(Failure::new(format!("a launcher listens on {} already", path.display())));
        }
        // Left by one that was killed.
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path).map_err(cannot)?,
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(cannot)?;
    Ok(listener)
}
