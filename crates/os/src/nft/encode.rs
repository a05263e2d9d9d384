//! Rules as the kernel's expressions: each loads something into a register, compares it, or acts. Names and numbers are
//! of include/uapi/linux/netfilter/nf_tables.h.

use std::net::IpAddr;

use super::{
    message::{ANONYMOUS_NAME, IPV4, IPV6},
    rule::{Action, Match, Ports, Rule, Transport, Unreachable},
};
use crate::{Error, Result, address::Cidr, netlink::Attributes};

/// A rule, ready to be sent.
pub(super) struct Encoded {
    pub(super) expressions: Attributes,
    pub(super) port_sets: Vec<PortSet>,
    pub(super) comment: Option<String>,
}

/// A set without a name, for a list of ports.
pub(super) struct PortSet {
    /// Unique within the batch.
    pub(super) id: u32,
    pub(super) ports: Vec<u16>,
}

const VERDICT: u32 = 0; // NFT_REG_VERDICT
const REGISTER: u32 = 1; // NFT_REG_1, 16 bytes

/// Flags of TCP, in byte 13 of its header (RFC 9293).
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// `next_set` numbers the sets of a batch.
pub(super) fn encode(rule: &Rule, next_set: &mut u32) -> Result<Encoded> {
    let mut encoder =
        Encoder { list: Attributes::new(), family: None, transport: None, port_sets: Vec::new(), next_set };
    for condition in &rule.matches {
        encoder.condition(condition)?;
    }
    encoder.action(rule.action);
    Ok(Encoded { expressions: encoder.list, port_sets: encoder.port_sets, comment: rule.comment.clone() })
}

struct Encoder<'a> {
    list: Attributes,
    /// Conditions that hold already at this point, so that they are not written twice.
    family: Option<u8>,
    transport: Option<u8>,
    port_sets: Vec<PortSet>,
    next_set: &'a mut u32,
}

impl Encoder<'_> {
    fn condition(&mut self, condition: &Match) -> Result<()> {
        match condition {
            Match::InInterface(name) => self.interface(Meta::InInterfaceName, name)?,
            Match::OutInterface(name) => self.interface(Meta::OutInterfaceName, name)?,
            Match::Source(range) => self.address(*range, 12, 8),
            Match::Destination(range) => self.address(*range, 16, 24),
            Match::Protocol(number) => self.transport(*number),
            Match::SourcePort(transport, ports) => self.ports(*transport, 0, ports)?,
            Match::DestinationPort(transport, ports) => self.ports(*transport, 2, ports)?,
            Match::TcpOpening => self.tcp_flags(SYN | ACK, SYN),
            Match::TcpReset => self.tcp_flags(RST, RST),
            Match::Uid(uid) => self.meta(Meta::SocketUid).equals(&uid.to_ne_bytes()),
            Match::Mark(mark) => self.meta(Meta::Mark).equals(&mark.to_ne_bytes()),
            Match::Cgroup(group) => {
                const CGROUP_V2: u32 = 3; // NFT_SOCKET_CGROUPV2
                let data = Attributes::new().be32(1, CGROUP_V2).be32(2, REGISTER).be32(3, group.level);
                self.expression("socket", data).equals(&group.id.to_ne_bytes());
            }
            Match::Random { share, of } => self.random(*share, *of)?,
            Match::Leased(lease) => {
                let data = Attributes::new().string(1, &lease.set).be32(2, REGISTER);
                self.meta(Meta::Family).expression("lookup", data);
            }
        }
        Ok(())
    }

    fn action(&mut self, action: Action) {
        match action {
            // Before the counter: what does not fit the action is not counted.
            Action::Reset => self.transport(Transport::Tcp.number()),
            Action::Redirect(_) if self.transport.is_none() => self.transport(Transport::Tcp.number()),
            _ => {}
        }
        self.expression("counter", Attributes::new().be64(1, 0).be64(2, 0));
        match action {
            Action::Count => {}
            Action::Drop => self.verdict(0),    // NF_DROP
            Action::Accept => self.verdict(1),  // NF_ACCEPT
            Action::Reset => self.reject(1, 0), // NFT_REJECT_TCP_RST
            Action::Reject(how) => {
                let code = match how {
                    Unreachable::NoRoute => 0,
                    Unreachable::Port => 1,
                    Unreachable::Host => 2,
                    Unreachable::Prohibited => 3,
                };
                self.reject(2, code); // NFT_REJECT_ICMPX_UNREACH
            }
            Action::Redirect(port) => {
                const PORT_GIVEN: u32 = 2; // NF_NAT_RANGE_PROTO_SPECIFIED
                let data = Attributes::new().be32(1, REGISTER).nest(2, value(&port.to_be_bytes()));
                self.expression("immediate", data);
                self.expression("redir", Attributes::new().be32(1, REGISTER).be32(3, PORT_GIVEN));
            }
        }
    }

    fn expression(&mut self, name: &str, data: Attributes) -> &mut Self {
        let list = std::mem::take(&mut self.list);
        self.list = list.nest(1, Attributes::new().string(1, name).nest(2, data));
        self
    }

    fn meta(&mut self, key: Meta) -> &mut Self {
        self.expression("meta", Attributes::new().be32(1, REGISTER).be32(2, key as u32))
    }

    fn payload(&mut self, base: Header, offset: u32, length: u32) -> &mut Self {
        let place = Attributes::new().be32(1, REGISTER).be32(2, base as u32).be32(3, offset).be32(4, length);
        self.expression("payload", place)
    }

    fn compare(&mut self, operator: Comparison, with: &[u8]) {
        let data = Attributes::new().be32(1, REGISTER).be32(2, operator as u32).nest(3, value(with));
        self.expression("cmp", data);
    }

    fn equals(&mut self, with: &[u8]) {
        self.compare(Comparison::Equal, with);
    }

    fn interface(&mut self, key: Meta, name: &str) -> Result<()> {
        let mut padded = [0; 16]; // IFNAMSIZ, the NUL included
        if name.is_empty() || name.len() >= padded.len() || name.contains('\0') {
            return Err(Error::invalid(format!("the interface name {name:?}"), "is not of 1 to 15 bytes"));
        }
        padded[..name.len()].copy_from_slice(name.as_bytes());
        self.meta(key).equals(&padded);
        Ok(())
    }

    fn family(&mut self, family: u8) {
        if self.family != Some(family) {
            self.meta(Meta::Family).equals(&[family]);
            self.family = Some(family);
        }
    }

    fn transport(&mut self, number: u8) {
        if self.transport != Some(number) {
            self.meta(Meta::Transport).equals(&[number]);
            self.transport = Some(number);
        }
    }

    /// The address at one of two offsets, in the header of IPv4 or IPv6.
    fn address(&mut self, range: Cidr, offset_v4: u32, offset_v6: u32) {
        let (family, offset, bytes) = match range.address() {
            IpAddr::V4(a) => (IPV4, offset_v4, a.octets().to_vec()),
            IpAddr::V6(a) => (IPV6, offset_v6, a.octets().to_vec()),
        };
        self.family(family);
        if range.prefix() == 0 {
            return;
        }
        let length = u32::try_from(bytes.len()).expect("4 or 16");
        self.payload(Header::Network, offset, length);
        let mask = range.mask();
        if mask.iter().any(|byte| *byte != 0xff) {
            self.keep_bits(&mask);
        }
        self.equals(&bytes);
    }

    fn keep_bits(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).expect("at most 16");
        let data = Attributes::new().be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
        self.expression("bitwise", data.nest(4, value(mask)).nest(5, value(&vec![0; mask.len()])));
    }

    /// Of the flags in the mask, these are set and the others are not.
    fn tcp_flags(&mut self, mask: u8, set: u8) {
        self.transport(Transport::Tcp.number());
        self.payload(Header::Transport, 13, 1);
        self.keep_bits(&[mask]);
        self.equals(&[set]);
    }

    fn ports(&mut self, transport: Transport, offset: u32, ports: &Ports) -> Result<()> {
        self.transport(transport.number());
        self.payload(Header::Transport, offset, 2);
        match ports {
            Ports::One(port) => self.equals(&port.to_be_bytes()),
            Ports::Range(range) => {
                self.compare(Comparison::AtLeast, &range.start().to_be_bytes());
                self.compare(Comparison::AtMost, &range.end().to_be_bytes());
            }
            Ports::List(list) => {
                let mut ports = list.clone();
                ports.sort_unstable();
                ports.dedup();
                if ports.is_empty() {
                    return Err(Error::invalid("a list of ports", "is empty, so the rule would never match"));
                }
                *self.next_set += 1;
                let id = *self.next_set;
                let data = Attributes::new().string(1, ANONYMOUS_NAME).be32(2, REGISTER).be32(4, id);
                self.expression("lookup", data);
                self.port_sets.push(PortSet { id, ports });
            }
        }
        Ok(())
    }

    fn random(&mut self, share: u32, of: u32) -> Result<()> {
        const RANDOM: u32 = 1; // NFT_NG_RANDOM
        const TO_NETWORK_ORDER: u32 = 1; // NFT_BYTEORDER_HTON
        if of == 0 || share > of {
            return Err(Error::invalid(format!("a share of {share} of {of}"), "is no share of something"));
        }
        if share == of {
            return Ok(()); // the kernel's modulus would take it, but nothing needs to be drawn
        }
        self.expression("numgen", Attributes::new().be32(1, REGISTER).be32(2, of).be32(3, RANDOM));
        // Registers are compared byte by byte, so the number must have its high byte first.
        let swap =
            Attributes::new().be32(1, REGISTER).be32(2, REGISTER).be32(3, TO_NETWORK_ORDER).be32(4, 4).be32(5, 4);
        self.expression("byteorder", swap);
        self.compare(Comparison::Less, &share.to_be_bytes());
        Ok(())
    }

    fn verdict(&mut self, code: u32) {
        let verdict = Attributes::new().nest(2, Attributes::new().be32(1, code));
        self.expression("immediate", Attributes::new().be32(1, VERDICT).nest(2, verdict));
    }

    fn reject(&mut self, kind: u32, code: u8) {
        self.expression("reject", Attributes::new().be32(1, kind).u8(2, code));
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

/// enum nft_meta_keys
#[derive(Clone, Copy)]
enum Meta {
    Mark = 3,
    InInterfaceName = 6,
    OutInterfaceName = 7,
    SocketUid = 10,
    Family = 15,
    Transport = 16,
}

/// enum nft_payload_bases
#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// enum nft_cmp_ops
#[derive(Clone, Copy)]
enum Comparison {
    Equal = 0,
    Less = 2,
    AtMost = 3,
    AtLeast = 5,
}
