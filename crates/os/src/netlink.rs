//! Netlink messages (netlink(7)): requests of attributes, sent over a socket that lives as long as what it owns.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink,
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::{Error, Result, error::Context};

/// Flags of a request, from include/uapi/linux/netlink.h.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const ECHO: u16 = 0x8;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

const HEADER: usize = 16; // struct nlmsghdr
const ERROR: u16 = 2; // NLMSG_ERROR, also an acknowledgement
const DONE: u16 = 3; // NLMSG_DONE, the end of a dump
/// The kernel's largest answers to us are a rule with all its expressions.
const BUFFER: usize = 1 << 16;

/// Attributes in the order in which they are written, each padded to four bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("no attribute made here is near 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// In network order, as netfilter wants its numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// In network order.
    pub(crate) fn be64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the NUL that the kernel expects at the end.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn nest(self, kind: u16, inner: Self) -> Self {
        const NESTED: u16 = 0x8000; // NLA_F_NESTED
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Reads attributes back, as far as they are whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff; // NLA_TYPE_MASK
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & KIND;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// One message to the kernel.
#[derive(Debug)]
pub(crate) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request with the fixed header of its family and attributes.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8], attributes: &Attributes) -> Self {
        Self { kind, flags: flags | flags::REQUEST, body: [header, &attributes.0].concat() }
    }

    fn write(&self, sequence: u32, to: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).expect("no request made here is near 4 GiB");
        to.extend(length.to_ne_bytes());
        to.extend(self.kind.to_ne_bytes());
        to.extend(self.flags.to_ne_bytes());
        to.extend(sequence.to_ne_bytes());
        to.extend(0u32.to_ne_bytes()); // to be filled by the kernel with our port
        to.extend(&self.body);
        to.resize(to.len().next_multiple_of(4), 0);
    }
}

/// What the kernel sent for one request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The request is done, or refused with an error number.
    Ack(Result<(), Errno>),
    /// Data: the message's kind, and what follows its header.
    Data(u16, Vec<u8>),
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let action = || "open a netlink socket";
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
        let fd = fd.cannot(action)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0)).cannot(action)?;
        // An answer comes before the request's send returns; should the kernel lose one, we must not wait for ever.
        set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_secs(10))).cannot(action)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends requests as one datagram and returns the sequence number of the first; the others follow it.
    pub(crate) fn send(&mut self, requests: &[Request]) -> Result<u32, Errno> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(self.sequence, &mut datagram);
        }
        loop {
            match send(&self.fd, &datagram, SendFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => return other.map(|_| first),
            }
        }
    }

    /// Receives at least one answer, each with the sequence number of its request.
    pub(crate) fn receive(&mut self) -> Result<Vec<(u32, Reply)>, Errno> {
        let mut buffer = vec![0; BUFFER];
        let length = loop {
            match recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => break other?.0,
            }
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut replies = Vec::new();
        while let Some((sequence, reply, next)) = parse(rest) {
            replies.push((sequence, reply));
            rest = next;
        }
        Ok(replies)
    }

    /// Sends one request that asks for an acknowledgement, and returns the data that came before that.
    pub(crate) fn ask(&mut self, request: Request, action: impl Fn() -> String) -> Result<Vec<Vec<u8>>> {
        const NEEDS: &str = "CAP_NET_ADMIN";
        let request = Request { flags: request.flags | flags::ACK, ..request };
        let asked = self.send(&[request]).cannot_without(NEEDS, &action)?;
        let mut data = Vec::new();
        loop {
            for (sequence, reply) in self.receive().cannot(&action)? {
                match reply {
                    _ if sequence != asked => {} // the answer to a request given up before
                    Reply::Data(_, bytes) => data.push(bytes),
                    Reply::Ack(result) => return result.cannot_without(NEEDS, &action).map(|()| data),
                }
            }
        }
    }
}

impl Socket {
    /// Sends one request for a list, and returns its entries: what follows each message's header.
    pub(crate) fn dump(&mut self, request: Request, action: impl Fn() -> String) -> Result<Vec<Vec<u8>>> {
        const NEEDS: &str = "CAP_NET_ADMIN";
        let request = Request { flags: request.flags | flags::DUMP, ..request };
        let asked = self.send(&[request]).cannot_without(NEEDS, &action)?;
        let mut entries = Vec::new();
        loop {
            for (sequence, reply) in self.receive().cannot(&action)? {
                match reply {
                    _ if sequence != asked => {} // the answer to a request given up before
                    Reply::Data(DONE, end) => {
                        let code = end.get(..4).and_then(|c| c.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        let ended = if code < 0 { Err(Errno::from_raw_os_error(-code)) } else { Ok(()) };
                        return ended.cannot_without(NEEDS, &action).map(|()| entries);
                    }
                    Reply::Data(_, bytes) => entries.push(bytes),
                    Reply::Ack(result) => return result.cannot_without(NEEDS, &action).map(|()| entries),
                }
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(u32, Reply, &[u8])> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(number(0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let reply = match kind {
        ERROR => {
            let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
            Reply::Ack(if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code)) })
        }
        _ => Reply::Data(kind, body.to_vec()),
    };
    Some((number(8)?, reply, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A message that lacks what every kernel sends.
pub(crate) fn incomplete(what: &str) -> Error {
    Error::malformed("the kernel's netlink answer", format!("it lacks {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_written() {
        let inner = Attributes::new().u8(3, 7).be32(4, 0x0102_0304);
        let outer = Attributes::new().string(1, "abc").nest(2, inner);
        assert_eq!(outer.0.len() % 4, 0);
        assert_eq!(attribute(&outer.0, 1), Some(&b"abc\0"[..]));
        let nested = attribute(&outer.0, 2).expect("written");
        assert_eq!(attributes(nested).collect::<Vec<_>>(), [(3, &[7][..]), (4, &[1, 2, 3, 4][..])]);
        assert_eq!(attribute(&outer.0, 9), None);
    }

    #[test]
    fn cut_messages_are_not_read_past_their_end() {
        let whole = Attributes::new().be64(1, 1).0;
        for length in 0..whole.len() {
            assert_eq!(attributes(&whole[..length]).count(), 0);
        }
        let mut message = Vec::new();
        Request::new(9, 0, &[1, 2, 3, 4], &Attributes::new()).write(5, &mut message);
        assert!(matches!(parse(&message), Some((5, Reply::Data(9, body), [])) if body == [1, 2, 3, 4]));
        for length in 0..message.len() {
            assert!(parse(&message[..length]).is_none());
        }
    }
}
