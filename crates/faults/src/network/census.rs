//! Which connections are there, and which of them go past the proxy.

use std::collections::HashSet;
use std::net::SocketAddr;

use toprope_engine::fault::FaultError;
use toprope_model::target::Target;
use toprope_os::address::Cidr;
use toprope_os::sockets::{SocketOwners, TcpSocket, TcpState, tcp_sockets};

use super::clients::{Clients, Owner};
use super::destination::Destination;
use super::family::Family;

/// A connection by its socket's number and its ends: numbers of ports are used again soon.
type Connection = (u64, SocketAddr, SocketAddr);

/// Sockets that a client's open connection can show at either end. Those that only wait for their number to be free again
/// (TIME_WAIT) are left out: there may be tens of thousands of them.
const LIVE: [TcpState; 7] = [
    TcpState::Established,
    TcpState::SynReceived,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::Listen,
];

/// Counts the connections of some clients to a destination.
#[derive(Debug)]
pub(crate) struct Census {
    whose: Whose,
    destination: Destination,
    /// Where the proxy listens; nowhere before it is there.
    proxy: Vec<SocketAddr>,
    /// A process whose connections are the proxy's.
    pass_through: Option<u32>,
}

/// Whose connections count.
#[derive(Debug)]
enum Whose {
    Everybody,
    User(u32),
    Processes(Box<Family>),
}

impl Census {
    /// `family` is those processes that `from` means.
    ///
    /// # Errors
    /// That `from` names a user who is not there.
    pub(crate) fn new(
        from: Option<&Target>,
        destination: &Destination,
        family: impl FnOnce(&Target) -> Family,
    ) -> Result<Self, FaultError> {
        let whose = match from {
            None => Whose::Everybody,
            Some(from) => match Clients::of(from)? {
                Clients::Owner(Owner { uid: None, cgroup: None, port: None }) => Whose::Everybody,
                Clients::Owner(Owner { uid: Some(uid), cgroup: None, port: None }) => Whose::User(uid),
                _ => Whose::Processes(Box::new(family(from))),
            },
        };
        Ok(Self { whose, destination: destination.clone(), proxy: vec![], pass_through: None })
    }

    /// The same, knowing the proxy.
    pub(crate) fn beside(self, proxy: &[SocketAddr]) -> Self {
        Self { proxy: proxy.to_vec(), ..self }
    }

    /// The same, leaving out the connections of a process that is a proxy.
    pub(crate) fn without(self, pass_through: Option<u32>) -> Self {
        Self { pass_through, ..self }
    }

    /// Counts connections to further addresses too.
    pub(crate) fn also_to(&mut self, networks: Vec<Cidr>) {
        let known = &mut self.destination.networks;
        known.extend(networks.into_iter().filter(|n| !known.contains(n)).collect::<Vec<_>>());
    }

    /// How many connections of the clients to the destination are open and do not go through the proxy.
    ///
    /// Sockets, their other ends and who holds them are listed one after the other, and connections come and go
    /// meanwhile: one that goes through the proxy can be listed without the proxy's end of it, and one of the proxy's own
    /// be closed before its holder is looked up. No such connection is found so twice. Therefore only those count that
    /// are found in two listings; one that ends between them is nobody's.
    ///
    /// # Errors
    /// That the sockets or the processes cannot be listed.
    pub(crate) fn past_the_proxy(&mut self) -> Result<usize, FaultError> {
        let first = self.listed_past_the_proxy()?;
        if first.is_empty() {
            return Ok(0);
        }
        Ok(self.listed_past_the_proxy()?.intersection(&first).count())
    }

    /// One listing of these connections.
    fn listed_past_the_proxy(&mut self) -> Result<HashSet<Connection>, FaultError> {
        let sockets = tcp_sockets(&LIVE).map_err(|e| FaultError::because("the connections cannot be listed", e))?;
        let via_proxy: HashSet<SocketAddr> =
            sockets.iter().filter(|s| self.proxy.contains(&s.local)).map(|s| s.remote).collect();
        let listening: HashSet<u16> =
            sockets.iter().filter(|s| s.state == TcpState::Listen).map(|s| s.local.port()).collect();
        // What we hold ourselves are the proxy's connections to the destination.
        let ours = SocketOwners::of([std::process::id()].into_iter().chain(self.pass_through));
        let holders = match &mut self.whose {
            Whose::Processes(family) => Some(SocketOwners::of(family.now()?)),
            Whose::Everybody | Whose::User(_) => None,
        };
        let past = sockets.iter().filter(|s| {
            s.state == TcpState::Established
                && self.goes_to_the_destination(s)
                // On loopback both ends are in the list; the server's is not a client's connection.
                && !listening.contains(&s.local.port())
                && !via_proxy.contains(&s.local)
                && ours.pids(s.inode).is_empty()
                && holders.as_ref().is_none_or(|holders| !holders.pids(s.inode).is_empty())
                && !matches!(self.whose, Whose::User(uid) if uid != s.uid)
        });
        Ok(past.map(|s| (s.inode, s.local, s.remote)).collect())
    }

    fn goes_to_the_destination(&self, socket: &TcpSocket) -> bool {
        let Destination { networks, port, .. } = &self.destination;
        let remote = socket.remote;
        port.is_none_or(|port| port == remote.port())
            && networks.iter().any(|n| n.contains(remote.ip()))
            && (self.destination.means_loopback() || !remote.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{echo, in_own_network};
    use super::*;
    use crate::testing::host;

    #[test]
    fn a_connection_to_an_address_that_the_name_got_later_goes_past_the_proxy() {
        in_own_network("a_connection_to_an_address_that_the_name_got_later_goes_past_the_proxy", || async {
            let later = echo("127.0.0.2:0");
            let before = format!("127.0.0.1:{}", later.port()).parse().unwrap();
            let destination = Destination::resolve(&before, &host()).await.unwrap();
            let mut census = Census::new(None, &destination, |_| panic!("everybody is meant")).unwrap();
            let mut child = connected(later);
            assert_eq!(census.past_the_proxy().unwrap(), 0, "the name did not stand for that");
            for _ in 0..2 {
                census.also_to(vec![later.ip().into()]);
                assert_eq!(census.past_the_proxy().unwrap(), 1);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }

    /// Another process that is connected: what this one holds are the proxy's connections.
    fn connected(to: SocketAddr) -> std::process::Child {
        use std::io::{BufRead, BufReader};
        let script = format!("exec 3<>/dev/tcp/{}/{} && echo there && exec sleep 600", to.ip(), to.port());
        let mut command = std::process::Command::new("bash");
        let mut child = command.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        child
    }
}
