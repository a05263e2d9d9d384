//! Sockets as `/proc/net/tcp` lists them (proc_net_tcp(5)): for where nothing better is to be had.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{TcpSocket, TcpState};
use crate::{Error, Result, error::Context};

pub(super) fn sockets(states: &[TcpState]) -> Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for file in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{file}");
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
    sockets.retain(|socket| states.contains(&socket.state));
    Ok(sockets)
}

/// `sl local remote state queues timer retransmits uid timeout inode ...`
fn parse(line: &str) -> Option<TcpSocket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = TcpState::of(u8::from_str_radix(fields.next()?, 16).ok()?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
