//! The processes that this binary is also: injector and guard.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::UnixStream;
use toprope_faults::FAULTS;

/// This program's own file, also after it was replaced on disk.
pub fn executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Holds one fault for a run; see [`toprope_engine::injector`].
pub fn injector() -> ExitCode {
    serve(|stream| Box::pin(toprope_engine::injector::serve(FAULTS, stream, executable())))
}

/// Undoes a fault whose injector cannot; see [`toprope_engine::guard`].
pub fn guard() -> ExitCode {
    serve(|stream| Box::pin(toprope_engine::guard::serve(FAULTS, stream)))
}

type Service = std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>>>>;

fn serve(service: impl FnOnce(UnixStream) -> Service) -> ExitCode {
    // A session of its own: neither Ctrl-C nor the death of the run's process group reaches it.
    let _ = rustix::process::setsid();
    let served = (|| {
        let stream = StdStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        if stream.local_addr().is_err() {
            return Err(std::io::Error::other("standard input is not the socket of a run"));
        }
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let served = runtime.block_on(async { service(UnixStream::from_std(stream)?).await });
        runtime.shutdown_background();
        served
    })();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toprope: this command is started by a run, not by hand: {error}");
            ExitCode::from(2)
        }
    }
}
