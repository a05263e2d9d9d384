//! Waiting until the kernel has undone what it owns.

use std::time::{Duration, Instant};

use toprope_engine::fault::FaultError;
use toprope_os::nft;
use toprope_os::process::ProcessId;

/// Far longer than the kernel takes after a SIGKILL, even of a process with much memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until the process that held `what` is gone (or is this one), and until it is not seen to be there any more.
/// Where it cannot be looked for, the holder's end is enough: the kernel closes what a process held before it is dead.
///
/// # Errors
/// That it is still there, and which process holds it.
pub(crate) async fn wait_until_gone(
    holder: &ProcessId,
    what: &str,
    is_there: impl Fn() -> toprope_os::Result<bool>,
) -> Result<(), FaultError> {
    let deadline = Instant::now() + PATIENCE;
    let held = || holder.pid() != std::process::id() && holder.is_alive();
    while held() || is_there().unwrap_or(false) {
        if Instant::now() > deadline {
            let pid = holder.pid();
            return Err(FaultError::new(format!("{what} is still there: process {pid} holds it"))
                .help(format!("end that process (`kill -KILL {pid}`); the kernel then removes it")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Whether a table is there.
pub(crate) fn table(name: &str) -> impl Fn() -> toprope_os::Result<bool> {
    move || nft::exists(name)
}
