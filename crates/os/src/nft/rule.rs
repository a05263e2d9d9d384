//! What rules say: conditions on a packet, and what becomes of it.

use std::ops::RangeInclusive;

use super::LeaseId;
use crate::{Result, address::Cidr};

/// Where in a packet's way a chain looks at it (of the inet family: IPv4 and IPv6 alike).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Everything that arrives, before routing.
    Prerouting,
    /// What arrives for this host.
    Input,
    /// What passes through this host.
    Forward,
    /// What this host sends, loopback included.
    Output,
    /// Everything that leaves, after routing.
    Postrouting,
}

/// A base chain. What reaches its end goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub(super) name: String,
    pub(super) hook: Hook,
    pub(super) nat: bool,
    pub(super) priority: i32,
}

impl Chain {
    /// A chain that lets pass, drops or rejects, after connection tracking and before the host's own filters at
    /// priority 0 have their say.
    pub fn filter(name: impl Into<String>, hook: Hook) -> Self {
        Self { name: name.into(), hook, nat: false, priority: -10 }
    }

    /// A chain for [`Action::Redirect`], which sees only the first packet of each connection. Its hook is
    /// [`Hook::Output`] for what this host sends, [`Hook::Prerouting`] for what arrives.
    pub fn redirect(name: impl Into<String>, hook: Hook) -> Self {
        Self { name: name.into(), hook, nat: true, priority: -110 }
    }

    /// Chains of one hook are run in the order of this number; the host's own filters mostly have 0, its address
    /// translation -100.
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Ports that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// This one.
    One(u16),
    /// Each of these.
    List(Vec<u16>),
    /// All from the first to the last.
    Range(RangeInclusive<u16>),
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self::One(port)
    }
}

/// A control group of the v2 hierarchy, as rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cgroup {
    pub(super) level: u32,
    pub(super) id: u64,
}

impl Cgroup {
    /// The group at a path of the v2 hierarchy such as `/system.slice/nginx.service`, with all groups below it.
    ///
    /// # Errors
    /// Where no v2 hierarchy is mounted or it has no such group.
    pub fn at(path: &str) -> Result<Self> {
        let group = crate::cgroup::V2::find()?.group(path)?;
        Ok(Self { level: group.level, id: group.id })
    }
}

/// A condition on a packet. A rule's conditions must all hold. There is no "not": put a rule that accepts before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It arrives through this interface. Not known at [`Hook::Output`] and [`Hook::Postrouting`].
    InInterface(String),
    /// It leaves through this interface. Not known at [`Hook::Prerouting`] and [`Hook::Input`].
    OutInterface(String),
    /// Its source address.
    Source(Cidr),
    /// Its destination address.
    Destination(Cidr),
    /// Its protocol's number, by IANA: 1 is ICMP, 6 TCP, 17 UDP, 58 ICMPv6.
    Protocol(u8),
    /// Its source port.
    SourcePort(Transport, Ports),
    /// Its destination port.
    DestinationPort(Transport, Ports),
    /// It opens a TCP connection (SYN without ACK). To be demanded by every [`Action::Redirect`]: a connection that was
    /// open before the kernel began to track any looks new to it at its next packet, and would be broken.
    TcpOpening,
    /// It is a reset of a TCP connection: what [`Action::Reset`] sends passes the chains too, and would not arrive if a
    /// rule met it.
    TcpReset,
    /// The number of the user whose socket sends it (at [`Hook::Output`] and [`Hook::Postrouting`]).
    Uid(u32),
    /// The control group, at any depth, in which its socket was made.
    Cgroup(Cgroup),
    /// Its mark, which a socket gives by [`crate::sockets::set_mark`].
    Mark(u32),
    /// Chance, anew for each packet: `share` of `of` packets in the long run.
    Random {
        /// How many match.
        share: u32,
        /// Of how many.
        of: u32,
    },
    /// The lease has not run out.
    Leased(LeaseId),
}

/// What a sender is told whose packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// No route, or the network is unreachable.
    NoRoute,
    /// Nobody listens there: connecting is refused at once.
    Port,
    /// The host is unreachable.
    Host,
    /// An administrator forbids it.
    Prohibited,
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is counted, and the next rule looks at it.
    Count,
    /// It goes on; no further rule of its chain looks at it.
    Accept,
    /// It vanishes.
    Drop,
    /// A TCP connection is reset; other protocols do not match.
    Reset,
    /// It is refused by an ICMP message. A TCP connection that this host begins notices that only when it tries again,
    /// after 1 s, because the message comes while it is still busy sending: use [`Action::Reset`] for those.
    Reject(Unreachable),
    /// Its connection goes to this port of this host instead; TCP, unless a condition on a port says otherwise. Only in
    /// chains made by [`Chain::redirect`].
    Redirect(u16),
}

/// A rule: conditions, a counter of what met them, an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) action: Action,
    pub(super) comment: Option<String>,
}

impl Rule {
    /// A rule for every packet of its chain.
    pub fn new(action: Action) -> Self {
        Self { matches: Vec::new(), action, comment: None }
    }

    /// Adds a condition. The ones that most packets fail should come first.
    pub fn when(mut self, condition: Match) -> Self {
        self.matches.push(condition);
        self
    }

    /// Adds a text that `nft list ruleset` shows, for the person who wonders; cut to 128 bytes.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        let mut text = text.into().replace('\0', " ");
        while text.len() > 127 {
            text.pop();
        }
        self.comment = Some(text);
        self
    }
}
