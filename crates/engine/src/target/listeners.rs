//! Who listens on which TCP port.

use toprope_os::process::ProcessInfo;
use toprope_os::sockets::{SocketOwners, TcpSocket, TcpState, tcp_sockets};

use crate::fault::FaultError;

/// The listening TCP sockets of this network namespace.
pub(super) struct Listeners {
    sockets: Vec<TcpSocket>,
    owners: SocketOwners,
}

impl Listeners {
    pub(super) fn read() -> Result<Self, FaultError> {
        let failed = |e| FaultError::because("the listening sockets cannot be listed", e);
        let sockets = tcp_sockets(&[TcpState::Listen]).map_err(failed)?;
        Ok(Self { sockets, owners: SocketOwners::of_all().map_err(failed)? })
    }

    fn owners(&self, port: u16) -> impl Iterator<Item = u32> {
        let sockets = self.sockets.iter().filter(move |s| s.local.port() == port);
        sockets.flat_map(|s| self.owners.pids(s.inode).iter().copied())
    }

    /// Whether a process listens on a port.
    pub(super) fn is_of(&self, process: &ProcessInfo, port: u16) -> bool {
        self.owners(port).any(|pid| pid == process.id.pid())
    }

    /// Refuses a port on which somebody listens whom we may not see.
    pub(super) fn must_be_seen(&self, port: u16) -> Result<(), FaultError> {
        let somebody = self.sockets.iter().any(|s| s.local.port() == port);
        if !somebody || self.owners(port).next().is_some() {
            return Ok(());
        }
        Err(FaultError::new(format!("somebody listens on port {port}, and it cannot be seen which process does"))
            .help("it is another user's, or in another pid namespace: run as root, or select it by `process`"))
    }
}
