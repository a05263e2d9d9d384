//! The messages about tables, chains, rules and sets. Numbers are of include/uapi/linux/netfilter/nf_tables.h.

use std::time::Duration;

use super::{
    encode::Encoded,
    rule::{Chain, Hook},
};
use crate::netlink::{Attributes, Request, flags};

const SUBSYSTEM: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
/// What the kernel tells of a new rule; it also tells of its new generation.
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
const INET: u8 = 1; // NFPROTO_INET
pub(super) const IPV4: u8 = 2; // NFPROTO_IPV4
pub(super) const IPV6: u8 = 10; // NFPROTO_IPV6

const ANONYMOUS: u32 = 0x1; // NFT_SET_ANONYMOUS
const CONSTANT: u32 = 0x2; // NFT_SET_CONSTANT
const TIMEOUT: u32 = 0x10; // NFT_SET_TIMEOUT

/// Numbers by which nft(8) names a set's type (its include/datatype.h); the kernel does not look at them.
const TYPE_NFPROTO: u32 = 2;
const TYPE_INET_SERVICE: u32 = 13;

fn request(kind: u16, extra: u16, attributes: &Attributes) -> Request {
    // struct nfgenmsg: family, version, resource
    Request::new(SUBSYSTEM | kind, flags::ACK | extra, &[INET, 0, 0, 0], attributes)
}

/// Requests between these two take effect together or not at all.
pub(super) fn batch(requests: Vec<Request>) -> Vec<Request> {
    const BEGIN: u16 = 16; // NFNL_MSG_BATCH_BEGIN
    const END: u16 = 17;
    let mark = |kind| Request::new(kind, 0, &[0, 0, 0, 10], &Attributes::new()); // resource: NFNL_SUBSYS_NFTABLES
    let mut all = vec![mark(BEGIN)];
    all.extend(requests);
    all.push(mark(END));
    all
}

pub(super) fn get_generation() -> Request {
    request(16, 0, &Attributes::new())
}

pub(super) fn new_table(table: &str) -> Request {
    const OWNER: u32 = 0x2; // NFT_TABLE_F_OWNER
    request(0, flags::CREATE | flags::EXCL, &Attributes::new().string(1, table).be32(2, OWNER))
}

pub(super) fn get_table(table: &str) -> Request {
    request(1, 0, &Attributes::new().string(1, table))
}

pub(super) fn delete_table(table: &str) -> Request {
    request(2, 0, &Attributes::new().string(1, table))
}

pub(super) fn new_chain(table: &str, chain: &Chain) -> Request {
    const ACCEPT: u32 = 1; // NF_ACCEPT
    let hook = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let hook = Attributes::new().be32(1, hook).be32(2, chain.priority.cast_unsigned());
    let kind = if chain.nat { "nat" } else { "filter" };
    let attributes =
        Attributes::new().string(1, table).string(3, &chain.name).nest(4, hook).be32(5, ACCEPT).string(7, kind);
    request(3, flags::CREATE | flags::EXCL, &attributes)
}

pub(super) fn delete_chain(table: &str, chain: &str) -> Request {
    request(5, 0, &Attributes::new().string(1, table).string(3, chain))
}

/// A new rule at the chain's end, whose handle the kernel tells (NLM_F_ECHO), after the sets that it looks into.
pub(super) fn new_rule(table: &str, chain: &str, rule: Encoded) -> Vec<Request> {
    let mut requests = Vec::new();
    for set in &rule.port_sets {
        let named = Attributes::new().string(1, table).string(2, ANONYMOUS_NAME);
        let new = named.be32(3, ANONYMOUS | CONSTANT).be32(4, TYPE_INET_SERVICE).be32(5, 2).be32(10, set.id);
        requests.push(request(9, flags::CREATE, &new));
        let values = set.ports.iter().map(|port| (port.to_be_bytes().to_vec(), None));
        requests.push(elements(12, flags::CREATE, table, ANONYMOUS_NAME, values).id(set.id).request());
    }
    let mut attributes = Attributes::new().string(1, table).string(2, chain).nest(4, rule.expressions);
    if let Some(comment) = &rule.comment {
        // What nft(8) writes: type 0, length, text with NUL.
        let length = u8::try_from(comment.len() + 1).expect("comments are cut");
        attributes = attributes.bytes(7, &[&[0, length], comment.as_bytes(), b"\0"].concat());
    }
    requests.push(request(6, flags::CREATE | flags::APPEND | flags::ECHO, &attributes));
    requests
}

/// The name for which the kernel chooses a number.
pub(super) const ANONYMOUS_NAME: &str = "__set%d";

pub(super) fn delete_rule(table: &str, chain: &str, handle: u64) -> Request {
    request(8, 0, &Attributes::new().string(1, table).string(2, chain).be64(3, handle))
}

pub(super) fn get_rule(table: &str, chain: &str, handle: u64) -> Request {
    request(7, 0, &Attributes::new().string(1, table).string(2, chain).be64(3, handle))
}

/// A set of the network protocols (IPv4, IPv6) whose elements run out.
pub(super) fn new_lease_set(table: &str, set: &str) -> Request {
    let attributes = Attributes::new().string(1, table).string(2, set).be32(3, TIMEOUT);
    // The number is needed within the batch; leases are made one by one.
    request(9, flags::CREATE | flags::EXCL, &attributes.be32(4, TYPE_NFPROTO).be32(5, 1).be32(10, 1))
}

pub(super) fn grant(table: &str, set: &str, lasts: Duration) -> Request {
    let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).max(1);
    let values = [IPV4, IPV6].map(|family| (vec![family], Some(lasts)));
    elements(12, flags::CREATE, table, set, values.into_iter()).request()
}

pub(super) fn revoke(table: &str, set: &str) -> Request {
    elements(14, 0, table, set, [IPV4, IPV6].map(|family| (vec![family], None)).into_iter()).request()
}

struct Elements {
    kind: u16,
    extra: u16,
    attributes: Attributes,
}

impl Elements {
    fn id(self, id: u32) -> Self {
        Self { attributes: self.attributes.be32(4, id), ..self }
    }

    fn request(self) -> Request {
        request(self.kind, self.extra, &self.attributes)
    }
}

/// Keys, each with the milliseconds it lasts.
fn elements(
    kind: u16,
    extra: u16,
    table: &str,
    set: &str,
    values: impl Iterator<Item = (Vec<u8>, Option<u64>)>,
) -> Elements {
    let list = values.fold(Attributes::new(), |list, (key, lasts)| {
        let mut element = Attributes::new().nest(1, Attributes::new().bytes(1, &key));
        if let Some(lasts) = lasts {
            element = element.be64(4, lasts);
        }
        list.nest(1, element)
    });
    Elements { kind, extra, attributes: Attributes::new().string(1, table).string(2, set).nest(3, list) }
}

/// All rules of all families.
pub(super) fn list_rules() -> Request {
    const GET_RULE: u16 = 7; // NFT_MSG_GETRULE
    const ANY: u8 = 0; // NFPROTO_UNSPEC
    Request::new(SUBSYSTEM | GET_RULE, 0, &[ANY, 0, 0, 0], &Attributes::new())
}
