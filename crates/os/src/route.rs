//! Queueing disciplines and routes of this network, as rtnetlink(7) lists them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::index_to_name, socket_with};

use crate::{
    Result,
    address::Cidr,
    error::Context,
    netlink::{Attributes, Request, Socket, attribute},
};

/// A queueing discipline at an interface, see tc(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// The interface's name.
    pub interface: String,
    /// Its kind: `netem`, `tbf`, `fq_codel`.
    pub kind: String,
    /// Its number: the upper half is what tc(8) writes before the colon.
    pub handle: u32,
    /// Where it hangs.
    pub parent: u32,
}

impl Qdisc {
    /// Where it hangs, in tc's words.
    pub fn place(&self) -> String {
        const ROOT: u32 = 0xFFFF_FFFF; // TC_H_ROOT
        const INGRESS: u32 = 0xFFFF_FFF1; // TC_H_INGRESS
        match self.parent {
            ROOT => "root".to_owned(),
            INGRESS => "ingress".to_owned(),
            parent => format!("parent {:x}:{:x}", parent >> 16, parent & 0xFFFF),
        }
    }
}

/// Every queueing discipline of the calling thread's network namespace.
pub fn qdiscs() -> Result<Vec<Qdisc>> {
    const RTM_GETQDISC: u16 = 38; // include/uapi/linux/rtnetlink.h
    // struct tcmsg: family and padding, interface, handle, parent, info
    let request = Request::new(RTM_GETQDISC, 0, &[0; 20], &Attributes::new());
    let entries = Socket::open(None)?.dump(request, || "list the queueing disciplines".to_owned())?;
    let names = Names::open()?;
    let read = |entry: &Vec<u8>| {
        let number = |at: usize| Some(u32::from_ne_bytes(entry.get(at..at + 4)?.try_into().ok()?));
        let kind = attribute(entry.get(20..)?, 1)?; // TCA_KIND
        let kind = String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned();
        Some(Qdisc { interface: names.of(number(4)?), kind, handle: number(8)?, parent: number(12)? })
    };
    Ok(entries.iter().filter_map(read).collect())
}

/// What becomes of packets to a destination that nothing is to be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// They vanish.
    Blackhole,
    /// The sender is told that the host cannot be reached.
    Unreachable,
    /// The sender is told that it is forbidden.
    Prohibit,
}

impl Refusal {
    /// As ip-route(8) writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }
}

/// A route that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusingRoute {
    /// How.
    pub refusal: Refusal,
    /// The destination.
    pub to: Cidr,
    /// The routing table: 254 is `main`.
    pub table: u32,
    /// Who made it, by the numbers of /etc/iproute2/rt_protos: 3 is `boot`, what ip(8) makes by hand.
    pub protocol: u8,
}

/// Every route of the calling thread's network namespace that refuses, but those that the kernel makes for itself.
pub fn refusing_routes() -> Result<Vec<RefusingRoute>> {
    const RTM_GETROUTE: u16 = 26;
    // struct rtmsg: family, then 11 bytes of which none selects
    let request = Request::new(RTM_GETROUTE, 0, &[0; 12], &Attributes::new());
    let entries = Socket::open(None)?.dump(request, || "list the routes".to_owned())?;
    Ok(entries.iter().filter_map(|entry| refusing(entry)).collect())
}

fn refusing(entry: &[u8]) -> Option<RefusingRoute> {
    const KERNEL: u8 = 2; // RTPROT_KERNEL
    const LEAST: u32 = u32::MAX; // the metric of the kernel's own last route of IPv6
    let header: [u8; 12] = entry.get(..12)?.try_into().ok()?;
    let [family, prefix, _, _, table, protocol, _, kind, ..] = header;
    let refusal = match kind {
        6 => Refusal::Blackhole,   // RTN_BLACKHOLE
        7 => Refusal::Unreachable, // RTN_UNREACHABLE
        8 => Refusal::Prohibit,    // RTN_PROHIBIT
        _ => return None,
    };
    let attributes = &entry[12..];
    let number = |kind| Some(u32::from_ne_bytes(attribute(attributes, kind)?.try_into().ok()?));
    if protocol == KERNEL || number(6) == Some(LEAST) {
        return None; // 6 is RTA_PRIORITY
    }
    let to = attribute(attributes, 1); // RTA_DST, missing for everything
    let address: IpAddr = match (i32::from(family), to) {
        (libc::AF_INET, Some(bytes)) => <[u8; 4]>::try_from(bytes).ok()?.into(),
        (libc::AF_INET, None) => Ipv4Addr::UNSPECIFIED.into(),
        (libc::AF_INET6, Some(bytes)) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        (libc::AF_INET6, None) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let table = number(15).unwrap_or_else(|| table.into()); // RTA_TABLE
    Some(RefusingRoute { refusal, to: Cidr::new(address, prefix).ok()?, table, protocol })
}

/// Looks up the names of interfaces.
struct Names(std::os::fd::OwnedFd);

impl Names {
    fn open() -> Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        Ok(Self(socket.cannot(|| "open a socket to ask for the names of interfaces")?))
    }

    /// The name; the number where there is none.
    fn of(&self, index: u32) -> String {
        index_to_name(&self.0, index).unwrap_or_else(|_| format!("interface {index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{namespace::Namespace, testing::is_root};
    use std::process::Command;

    fn ip(program: &str, arguments: &str) {
        let done = Command::new(program).args(arguments.split(' ')).status();
        assert!(done.expect("iproute2 is installed").success(), "{program} {arguments}");
    }

    #[test]
    fn what_tc_and_ip_make_is_listed_and_what_the_kernel_makes_is_not() {
        if !is_root("what_tc_and_ip_make_is_listed_and_what_the_kernel_makes_is_not") {
            return;
        }
        let net = Namespace::new_net().expect("root may");
        net.run(|| {
            assert_eq!(refusing_routes().expect("anybody may"), []);
            let before = qdiscs().expect("anybody may");
            assert!(before.iter().all(|q| q.kind == "noqueue"), "{before:?}");
            ip("tc", "qdisc add dev lo root handle 7: tbf rate 1mbit burst 10k latency 50ms");
            ip("ip", "route add blackhole 198.51.100.0/24");
            ip("ip", "-6 route add unreachable 2001:db8::/32");
            ip("ip", "route add prohibit 203.0.113.7 table 300");
            let made = qdiscs().expect("anybody may");
            let tbf = made.iter().find(|q| q.kind == "tbf").expect("it was made");
            assert_eq!((tbf.interface.as_str(), tbf.handle >> 16, tbf.place()), ("lo", 7, "root".to_owned()));
            let mut routes = refusing_routes().expect("anybody may");
            routes.sort_by_key(|r| (r.refusal.word(), r.table));
            let told: Vec<_> = routes.iter().map(|r| (r.refusal.word(), r.to.to_string(), r.table)).collect();
            let expected = [
                ("blackhole", "198.51.100.0/24".to_owned(), 254),
                ("prohibit", "203.0.113.7".to_owned(), 300),
                ("unreachable", "2001:db8::/32".to_owned(), 254),
            ];
            assert_eq!(told, expected);
        })
        .expect("entered");
    }
}
