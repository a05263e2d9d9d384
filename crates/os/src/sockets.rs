//! TCP sockets of this host: who talks to whom, and the socket options that redirection needs.

mod diag;
mod listing;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::{io::Errno, net::sockopt as rustix_sockopt};

use crate::{Result, error::Context, process::pids};

/// A TCP socket as the kernel lists it. IPv4 addresses mapped into IPv6 are given as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    /// Our end.
    pub local: SocketAddr,
    /// The other end; unspecified with port 0 while listening.
    pub remote: SocketAddr,
    /// Where the connection is in its life.
    pub state: TcpState,
    /// The number of the user who made it.
    pub uid: u32,
    /// Its number, by which its owners are found; 0 once no process holds it.
    pub inode: u64,
}

/// States of TCP (RFC 9293), by the kernel's numbers (include/net/tcp_states.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9293 documents them")]
pub enum TcpState {
    Established,
    SynSent,
    /// Also the kernel's NEW_SYN_RECV.
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl TcpState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Closed,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// Of the kernel's number, which is the place in [`TcpState::ALL`], counted from one.
    fn of(number: u8) -> Option<Self> {
        const NEW_SYN_RECV: u8 = 12;
        match number {
            NEW_SYN_RECV => Some(Self::SynReceived),
            _ => Self::ALL.get(usize::from(number).checked_sub(1)?).copied(),
        }
    }

    /// The bit that stands for it in a set of states.
    fn bit(self) -> u32 {
        2 << self as u32
    }
}

/// The TCP sockets in any of these states in the calling thread's network namespace, whoever they belong to.
///
/// Listening sockets alone are told in a tenth of a millisecond. For others the kernel goes through a table that is
/// large on a machine with much memory, which takes milliseconds. Where it does not answer (sock_diag(7) may be left out
/// of a kernel, or forbidden), `/proc/net/tcp` is read, which takes several times as long.
pub fn tcp_sockets(states: &[TcpState]) -> Result<Vec<TcpSocket>> {
    diag::sockets(states).or_else(|_| listing::sockets(states))
}

/// Which processes hold which sockets.
#[derive(Debug, Clone, Default)]
pub struct SocketOwners(HashMap<u64, Vec<u32>>);

impl SocketOwners {
    /// Looks at the processes of this pid namespace. Without CAP_SYS_PTRACE, only at those of our own user.
    pub fn of_all() -> Result<Self> {
        Ok(Self::of(pids()?))
    }

    /// Looks at some processes. One that is gone, or that we may not look at, holds nothing.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let mut owners: HashMap<u64, Vec<u32>> = HashMap::new();
        for pid in pids {
            for inode in socket_inodes(pid) {
                owners.entry(inode).or_default().push(pid);
            }
        }
        Self(owners)
    }

    /// The numbers of the processes that hold a socket.
    pub fn pids(&self, inode: u64) -> &[u32] {
        self.0.get(&inode).map_or(&[], Vec::as_slice)
    }
}

fn socket_inodes(pid: u32) -> HashSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Marks what a socket sends (SO_MARK), so that rules can tell it: how our own traffic is exempted from our faults.
/// To be set before connecting.
///
/// # Errors
/// Without CAP_NET_ADMIN or CAP_NET_RAW in the network's user namespace.
pub fn set_mark(socket: impl AsFd, mark: u32) -> Result<()> {
    setsockopt(&socket.as_fd(), sockopt::Mark, &mark).cannot_without("CAP_NET_ADMIN", || "mark a socket")
}

/// Where an accepted connection was going before a rule redirected it to us (SO_ORIGINAL_DST). `None` when the kernel
/// does not track the connection; its own local address when it was not redirected.
pub fn original_destination(socket: impl AsFd) -> Result<Option<SocketAddr>> {
    let action = || "ask where a connection was going";
    let local = rustix::net::getsockname(&socket).cannot(action)?;
    let local = SocketAddr::try_from(local).cannot(action)?;
    let found = match local.ip().to_canonical() {
        IpAddr::V4(_) => rustix_sockopt::ip_original_dst(&socket).map(SocketAddr::from),
        IpAddr::V6(_) => rustix_sockopt::ipv6_original_dst(&socket).map(SocketAddr::from),
    };
    match found {
        Err(Errno::NOENT) => Ok(None),
        other => Ok(Some(other.cannot(action)?)),
    }
}

/// Makes closing the socket reset the connection (RST) instead of ending it in order; unsent data is lost.
pub fn reset_on_close(socket: impl AsFd) -> Result<()> {
    rustix_sockopt::set_socket_linger(socket, Some(Duration::ZERO)).cannot(|| "make a socket reset when closed")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair(address: &str) -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (server, _) = listener.accept().expect("a connection");
        (listener, client, server)
    }

    #[test]
    fn both_ends_and_the_listener_are_listed_with_their_owner_by_either_way() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let (listener, client, _server) = pair(address);
            let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
            let bound = canonical(listener.local_addr().expect("bound"));
            let from = canonical(client.local_addr().expect("connected"));
            let asked = diag::sockets(&TcpState::ALL).expect("this kernel has sock_diag");
            let read = listing::sockets(&TcpState::ALL).expect("/proc is mounted");
            let owners = SocketOwners::of_all().expect("/proc is mounted");
            let mut clients = Vec::new();
            for all in [asked, read] {
                let find = |local, state| all.iter().find(|s| s.local == local && s.state == state).expect("listed");
                assert_eq!(find(bound, TcpState::Listen).remote.port(), 0);
                assert!(all.iter().any(|s| (s.local, s.remote, s.state) == (bound, from, TcpState::Established)));
                let ours = *find(from, TcpState::Established);
                assert_eq!(ours.remote, bound);
                assert_eq!(ours.uid, rustix::process::geteuid().as_raw());
                assert!(owners.pids(ours.inode).contains(&std::process::id()));
                clients.push(ours);
            }
            assert_eq!(clients[0], clients[1]);
        }
    }

    #[test]
    fn only_sockets_in_the_wanted_states_are_listed() {
        let (listener, client, server) = pair("127.0.0.1");
        let port = listener.local_addr().expect("bound").port();
        client.shutdown(std::net::Shutdown::Write).expect("connected");
        let wait = |state| {
            let until = std::time::Instant::now() + Duration::from_secs(30);
            while !tcp_sockets(&[state]).expect("listed").iter().any(|s| s.local.port() == port) {
                assert!(std::time::Instant::now() < until, "the server's end is never {state:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        wait(TcpState::CloseWait);
        type List = fn(&[TcpState]) -> Result<Vec<TcpSocket>>;
        for list in [diag::sockets as List, listing::sockets] {
            for (wanted, expected) in [
                (&[TcpState::Listen][..], &[TcpState::Listen][..]),
                (&[TcpState::Listen, TcpState::CloseWait], &[TcpState::Listen, TcpState::CloseWait]),
                (&[TcpState::Established, TcpState::SynSent], &[]),
            ] {
                let all = list(wanted).expect("listed");
                assert!(all.iter().all(|s| wanted.contains(&s.state)), "{all:?}");
                let of_port: HashSet<_> = all.iter().filter(|s| s.local.port() == port).map(|s| s.state).collect();
                assert_eq!(of_port, expected.iter().copied().collect(), "{wanted:?}");
            }
        }
        drop((listener, server));
    }

    #[test]
    fn the_kernels_numbers_are_states() {
        for (number, state) in (1..).zip(TcpState::ALL) {
            assert_eq!((TcpState::of(number), state.bit()), (Some(state), 1 << number));
        }
        assert_eq!(TcpState::of(12), Some(TcpState::SynReceived));
        assert_eq!((TcpState::of(0), TcpState::of(13)), (None, None));
    }

    #[test]
    fn closing_resets_where_told() {
        let (_listener, client, mut server) = pair("127.0.0.1");
        reset_on_close(&client).expect("a TCP socket");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }
}
