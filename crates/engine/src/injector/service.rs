//! The launcher of a host: a service of root's that starts injectors for users, each behind a [`Gate`](super::gate::Gate).

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use toprope_os::fdpass;

use super::gate::FOR;
use super::launch::start_for;

/// More runs at a time are not served: each holds a thread and a descriptor of root's.
const CALLERS: usize = 64;

/// What the service's injectors are told.
#[derive(Debug, Clone)]
pub struct Service {
    /// The program.
    pub executable: PathBuf,
    /// The host's policy.
    pub policy: PathBuf,
    /// Root's state, whose journal they write.
    pub state: PathBuf,
}

/// Serves whoever connects, until the listener fails.
///
/// # Errors
/// Nobody can be taken in any more.
pub fn serve_callers(listener: &UnixListener, service: &Service) -> std::io::Result<()> {
    let callers = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The caller has gone, or there is no descriptor left for now.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::MFILE | Errno::NFILE | Errno::CONNABORTED)) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
            Err(e) => return Err(e),
        };
        if callers.fetch_add(1, Ordering::SeqCst) >= CALLERS {
            callers.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (service, callers) = (service.clone(), callers.clone());
        std::thread::spawn(move || {
            // One that says nonsense is left; its injectors see that too.
            let _ = serve(stream, &service);
            callers.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(stream: UnixStream, service: &Service) -> std::io::Result<()> {
    // Who calls is what the kernel says of the connection, never what they say.
    let uid = fdpass::peer(&stream)?.uid;
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let caller = [FOR.to_owned(), uid.to_string(), text(&service.policy), text(&service.state)];
    start_for(stream, &service.executable, &caller)
}
