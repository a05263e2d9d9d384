//! The processes that this binary is also: injector, guard and those beside them.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use toprope_engine::injector::Gate;
use toprope_faults::FAULTS;

use crate::invocation::tables;

/// This program's own file, also after it was replaced on disk.
pub fn executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Holds one fault for a run; see [`toprope_engine::injector`]. For a caller of the launcher's, only what the host's policy
/// allows.
pub fn injector() -> ExitCode {
    serve(|stream| {
        let gate = Gate::named_by(std::env::args().skip(2), &tables());
        toprope_engine::injector::serve(FAULTS, stream, executable(), gate)
    })
}

/// Undoes a fault whose injector cannot; see [`toprope_engine::guard`].
pub fn guard() -> ExitCode {
    serve(|stream| toprope_engine::guard::serve(FAULTS, stream))
}

/// Holds a listener for the whole run; see [`toprope_engine::pass_through`].
pub fn pass_through() -> ExitCode {
    serve(|stream| toprope_engine::pass_through::serve(FAULTS, stream))
}

/// Starts injectors for a run that gave up its privileges; see [`toprope_engine::injector::Launch`].
pub fn starter() -> ExitCode {
    serve(|stream| toprope_engine::injector::serve_launcher(stream, &executable()))
}

/// Carries connections from another network to this one's loopback; see [`crate::reach`].
pub fn reach() -> ExitCode {
    serve(crate::reach::serve)
}

fn serve(service: impl FnOnce(UnixStream) -> std::io::Result<()>) -> ExitCode {
    // Started by way of /proc/self/exe, and by that name of no use in a process list.
    let _ = rustix::thread::set_name(c"toprope");
    // A session of its own: neither Ctrl-C nor the death of the run's process group reaches it.
    let _ = rustix::process::setsid();
    let stream = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).and_then(|stream| {
        stream.local_addr().map_err(|_| std::io::Error::other("standard input is not the socket of a run"))?;
        Ok(stream)
    });
    match stream.and_then(service) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toprope: this command is started by a run, not by hand: {error}");
            ExitCode::from(2)
        }
    }
}
