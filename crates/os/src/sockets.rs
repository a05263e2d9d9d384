//! TCP sockets of this host: who talks to whom, and the socket options that redirection needs.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::{io::Errno, net::sockopt as rustix_sockopt};

use crate::{
    Error, Result,
    address::Cidr,
    error::Context,
    process::{ProcessId, pids},
};

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

/// The TCP sockets of the calling thread's network namespace.
pub fn tcp_sockets() -> Result<Vec<TcpSocket>> {
    listed("/proc/thread-self/net")
}

/// The TCP sockets of the network namespace that a process is in, whoever they belong to.
pub fn tcp_sockets_beside(id: &ProcessId) -> Result<Vec<TcpSocket>> {
    id.stat()?;
    listed(&format!("/proc/{}/net", id.pid()))
}

fn listed(directory: &str) -> Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for file in ["tcp", "tcp6"] {
        let path = format!("{directory}/{file}");
        let text = match std::fs::read_to_string(&path) {
            // A kernel without IPv6.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file == "tcp6" => continue,
            other => other.cannot(|| format!("read {path}"))?,
        };
        for line in text.lines().skip(1) {
            let socket = parse(line).ok_or_else(|| Error::malformed(&path, format!("the line {line:?}")))?;
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// `sl local remote state queues timer retransmits uid timeout inode ...`, see proc_net_tcp(5).
fn parse(line: &str) -> Option<TcpSocket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = match u8::from_str_radix(fields.next()?, 16).ok()? {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        3 | 12 => TcpState::SynReceived,
        4 => TcpState::FinWait1,
        5 => TcpState::FinWait2,
        6 => TcpState::TimeWait,
        7 => TcpState::Closed,
        8 => TcpState::CloseWait,
        9 => TcpState::LastAck,
        10 => TcpState::Listen,
        11 => TcpState::Closing,
        _ => return None,
    };
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(TcpSocket { local, remote, state, uid, inode })
}

/// The address as the kernel's memory has it, in words of 32 bits printed as numbers of this machine; then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |i: usize| Some(u32::from_str_radix(address.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16).ok()?))
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

/// Which connections are meant. What is left empty or `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    /// Addresses of the other end.
    pub remotes: Vec<Cidr>,
    /// Ports of the other end.
    pub remote_ports: Vec<u16>,
    /// Ports of our end.
    pub local_ports: Vec<u16>,
    /// Numbers of the processes that hold our end; `Some` of none means no connection.
    pub owners: Option<Vec<u32>>,
    /// The number of the user who made our end.
    pub uid: Option<u32>,
}

impl Connections {
    /// The connections that are established now in the calling thread's network namespace. One between two sockets of
    /// this host is listed twice, once for each end that is meant.
    pub fn established(&self) -> Result<Vec<TcpSocket>> {
        let held = self.owners.as_ref().map(|pids| SocketOwners::of(pids.iter().copied()));
        let mut sockets = tcp_sockets()?;
        sockets.retain(|s| {
            s.state == TcpState::Established
                && (self.remotes.is_empty() || self.remotes.iter().any(|range| range.contains(s.remote.ip())))
                && (self.remote_ports.is_empty() || self.remote_ports.contains(&s.remote.port()))
                && (self.local_ports.is_empty() || self.local_ports.contains(&s.local.port()))
                && self.uid.is_none_or(|uid| s.uid == uid)
                && held.as_ref().is_none_or(|held| !held.pids(s.inode).is_empty())
        });
        Ok(sockets)
    }
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
    fn both_ends_and_the_listener_are_listed_with_their_owner() {
        for address in ["127.0.0.1", "::1"] {
            let (listener, client, _server) = pair(address);
            let (bound, from) = (listener.local_addr().expect("bound"), client.local_addr().expect("connected"));
            let all = tcp_sockets().expect("/proc is mounted");
            let find = |local, state| all.iter().find(|s| s.local == local && s.state == state).expect("listed");
            assert_eq!(find(bound, TcpState::Listen).remote.port(), 0);
            assert!(all.iter().any(|s| (s.local, s.remote, s.state) == (bound, from, TcpState::Established)));
            let ours = find(from, TcpState::Established);
            assert_eq!(ours.remote, bound);
            assert_eq!(ours.uid, rustix::process::geteuid().as_raw());
            let owners = SocketOwners::of_all().expect("/proc is mounted");
            assert!(owners.pids(ours.inode).contains(&std::process::id()));
            let me = ProcessId::current().expect("/proc is mounted");
            assert!(tcp_sockets_beside(&me).expect("/proc is mounted").contains(ours));
        }
    }

    #[test]
    fn established_connections_are_counted_as_told() {
        let (listener, client, _server) = pair("127.0.0.1");
        let port = listener.local_addr().expect("bound").port();
        let to_port = Connections { remote_ports: vec![port], ..Default::default() };
        let count = |c: &Connections| c.established().expect("/proc is mounted").len();
        assert_eq!(count(&to_port), 1);
        let met = Connections {
            remotes: vec!["10.0.0.0/8".parse().expect("a range"), "127.0.0.0/8".parse().expect("a range")],
            owners: Some(vec![std::process::id()]),
            uid: Some(rustix::process::geteuid().as_raw()),
            ..to_port.clone()
        };
        assert_eq!(count(&met), 1);
        assert_eq!(count(&Connections { remotes: vec!["10.0.0.0/8".parse().expect("a range")], ..met.clone() }), 0);
        assert_eq!(count(&Connections { owners: Some(vec![1]), ..met.clone() }), 0);
        assert_eq!(count(&Connections { owners: Some(Vec::new()), ..met.clone() }), 0);
        assert_eq!(count(&Connections { uid: Some(12345), ..met.clone() }), 0);
        assert_eq!(count(&Connections { local_ports: vec![port], ..Default::default() }), 1, "the server's end");
        client.shutdown(std::net::Shutdown::Both).expect("connected"); // a test that forks may hold a copy
        assert_eq!(count(&to_port), 0);
    }

    #[test]
    fn closing_resets_where_told() {
        let (_listener, client, mut server) = pair("127.0.0.1");
        reset_on_close(&client).expect("a TCP socket");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let v4 = "   1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   113        0 27498 1 x";
        let socket = parse(v4).expect("parses");
        assert_eq!(socket.local, "127.0.0.1:5432".parse().expect("an address"));
        assert_eq!((socket.state, socket.uid, socket.inode), (TcpState::Listen, 113, 27498));
        let v6 = "0: 0000000000000000FFFF00000100007F:0050 00000000000000000000000001000000:C350 01 \
                  00000000:00000000 00:00000000 00000000 0 0 7 1 x";
        let socket = parse(v6).expect("parses");
        assert_eq!(socket.local, "127.0.0.1:80".parse().expect("an address"));
        assert_eq!(socket.remote, "[::1]:50000".parse().expect("an address"));
        assert!(parse("0: zz 00000000:0000 0A").is_none());
    }
}
