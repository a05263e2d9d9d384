//! Which connections are there, and which of them go past the proxy.

use std::collections::HashSet;
use std::net::SocketAddr;

use toprope_engine::fault::FaultError;
use toprope_engine::host::Host;
use toprope_engine::target;
use toprope_model::target::Target;
use toprope_os::sockets::{SocketOwners, TcpSocket, TcpState, tcp_sockets};

use super::clients::{Clients, Owner};
use super::destination::Destination;

/// Counts the connections of some clients to a destination.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    from: Option<Target>,
    destination: Destination,
    seed: u64,
    host: Host,
    /// Where the proxy listens; nowhere before it is there.
    proxy: Vec<SocketAddr>,
}

impl Census {
    pub(crate) fn new(from: Option<&Target>, destination: &Destination, seed: u64, host: &Host) -> Self {
        Self { from: from.cloned(), destination: destination.clone(), seed, host: host.clone(), proxy: vec![] }
    }

    /// The same, knowing the proxy.
    pub(crate) fn beside(self, proxy: &[SocketAddr]) -> Self {
        Self { proxy: proxy.to_vec(), ..self }
    }

    /// How many connections of the clients to the destination are open and do not go through the proxy.
    ///
    /// # Errors
    /// That the sockets or the processes cannot be listed.
    pub(crate) fn past_the_proxy(&self) -> Result<usize, FaultError> {
        let sockets = tcp_sockets().map_err(|e| FaultError::because("the connections cannot be listed", e))?;
        let via_proxy: HashSet<SocketAddr> =
            sockets.iter().filter(|s| self.proxy.contains(&s.local)).map(|s| s.remote).collect();
        let listening: HashSet<u16> =
            sockets.iter().filter(|s| s.state == TcpState::Listen).map(|s| s.local.port()).collect();
        // What we hold ourselves are the proxy's connections to the destination.
        let ours = SocketOwners::of([std::process::id()]);
        let meant = self.meant()?;
        let count = sockets.iter().filter(|s| {
            s.state == TcpState::Established
                && self.goes_to_the_destination(s)
                // On loopback both ends are in the list; the server's is not a client's connection.
                && !listening.contains(&s.local.port())
                && !via_proxy.contains(&s.local)
                && ours.pids(s.inode).is_empty()
                && meant.as_ref().is_none_or(|meant| meant.holds(s))
        });
        Ok(count.count())
    }

    fn goes_to_the_destination(&self, socket: &TcpSocket) -> bool {
        let Destination { networks, port, .. } = &self.destination;
        let remote = socket.remote;
        port.is_none_or(|port| port == remote.port())
            && networks.iter().any(|n| n.contains(remote.ip()))
            && (self.destination.means_loopback() || !remote.ip().is_loopback())
    }

    /// Whose sockets count; `None` for everybody's.
    fn meant(&self) -> Result<Option<Meant>, FaultError> {
        let Some(from) = &self.from else { return Ok(None) };
        match Clients::of(from)? {
            Clients::Owner(Owner { uid: None, cgroup: None, port: None }) => Ok(None),
            Clients::Owner(Owner { uid: Some(uid), cgroup: None, port: None }) => Ok(Some(Meant::User(uid))),
            _ => {
                // That nobody matches any more is no error: then nobody has connections.
                let found = target::resolve(from, self.seed, &self.host).map(|r| r.picked).unwrap_or_default();
                let family = target::with_descendants(found, &self.host)?;
                Ok(Some(Meant::Holders(SocketOwners::of(family.iter().map(|p| p.id.pid())))))
            }
        }
    }
}

/// Whose sockets count.
enum Meant {
    User(u32),
    Holders(SocketOwners),
}

impl Meant {
    fn holds(&self, socket: &TcpSocket) -> bool {
        match self {
            Self::User(uid) => socket.uid == *uid,
            Self::Holders(owners) => !owners.pids(socket.inode).is_empty(),
        }
    }
}
