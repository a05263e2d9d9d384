//! Sockets as the kernel tells them when asked (sock_diag(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink;

use super::{TcpSocket, TcpState};
use crate::{
    Result,
    netlink::{Attributes, Request, Socket, incomplete},
};

/// The question of old (include/uapi/linux/inet_diag.h), which is about IPv4 and IPv6 at once: today's is about one of
/// them, and the kernel would go through the same table twice.
const TCPDIAG_GETSOCK: u16 = 18;
/// struct inet_diag_sockid: which socket; all zero for any.
const SOCKET_ID: usize = 48;

pub(super) fn sockets(states: &[TcpState]) -> Result<Vec<TcpSocket>> {
    let wanted = states.iter().fold(0, |set, state| set | state.bit());
    // struct inet_diag_req: family, two prefixes, extensions, which socket, states, tables.
    let mut question = vec![0; 4 + SOCKET_ID];
    question.extend(u32::to_ne_bytes(wanted));
    question.extend([0; 4]);
    let request = Request::new(TCPDIAG_GETSOCK, 0, &question, &Attributes::new());
    let entries = Socket::open(Some(netlink::SOCK_DIAG))?.dump(request, || "ask for the TCP sockets".into())?;
    let whole = |entry: &Vec<u8>| parse(entry).ok_or_else(|| incomplete("the ends or the state of a socket"));
    entries.iter().map(whole).collect()
}

/// struct inet_diag_msg: family, state, timer, retransmits; the two ports and addresses, interface and cookie; expiry,
/// the queues, user and inode.
fn parse(entry: &[u8]) -> Option<TcpSocket> {
    const REMOTE_PORT: usize = 6;
    const LOCAL: usize = 8;
    const REMOTE: usize = LOCAL + 16;
    const UID: usize = 4 + SOCKET_ID + 12;
    let v6 = i32::from(*entry.first()?) == libc::AF_INET6;
    let number = |at: usize| Some(u32::from_ne_bytes(entry.get(at..at + 4)?.try_into().ok()?));
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(entry.get(port..port + 2)?.try_into().ok()?);
        let address: IpAddr = match v6 {
            true => Ipv6Addr::from(<[u8; 16]>::try_from(entry.get(address..address + 16)?).ok()?).into(),
            false => Ipv4Addr::from(<[u8; 4]>::try_from(entry.get(address..address + 4)?).ok()?).into(),
        };
        Some(SocketAddr::new(address.to_canonical(), port))
    };
    Some(TcpSocket {
        local: end(4, LOCAL)?,
        remote: end(REMOTE_PORT, REMOTE)?,
        state: TcpState::of(*entry.get(1)?)?,
        uid: number(UID)?,
        inode: number(UID + 4)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_messages_are_not_read_past_their_end() {
        let mut whole = vec![0; 72];
        whole[..2].copy_from_slice(&[2, 10]);
        whole[4..6].copy_from_slice(&80_u16.to_be_bytes());
        whole[8..12].copy_from_slice(&[127, 0, 0, 1]);
        whole[64..68].copy_from_slice(&113_u32.to_ne_bytes());
        whole[68..].copy_from_slice(&27498_u32.to_ne_bytes());
        let socket = parse(&whole).expect("whole");
        assert_eq!(socket.local, "127.0.0.1:80".parse().expect("an address"));
        assert_eq!((socket.state, socket.uid, socket.inode), (TcpState::Listen, 113, 27498));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }
}
