//! A fault on packets: which ones are meant, as conditions of the packet filter. What happens to them is the fault's.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_engine::host::Host;
use toprope_model::step::{Plan, Step, Undo};
use toprope_model::target::{Endpoint, Target};
use toprope_model::{Node, Problems, choice};
use toprope_os::address::Cidr;
use toprope_os::nft::{self, Match, Transport};
use toprope_os::process::ProcessId;
use toprope_os::sockets::{TcpState, tcp_sockets};

use super::clients::{Clients, Owner};
use super::destination::Destination;
use super::gone::{self, wait_until_gone};
use super::table::unused_name;
use super::{Direction, blocking};
use crate::targeted::{data_of, to_data};

choice! {
    /// Which packets by their protocol.
    pub(crate) enum Protocol {
        /// Every one.
        Any = "any",
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP and ICMPv6.
        Icmp = "icmp",
    }
}

/// Packets, as a step names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// The process that planned it, and will hold it.
    holder: ProcessId,
    /// The table that is made for it.
    pub(super) table: String,
    owner: Owner,
    destination: Destination,
    protocol: Protocol,
    direction: Direction,
}

/// Some of the packets, all of one kind: a rule's conditions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selection {
    pub(crate) conditions: Vec<Match>,
    /// Their protocol, where it has ports.
    pub(crate) transport: Option<Transport>,
}

/// One end of the wire: where packets leave or where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Leaving,
    Arriving,
}

impl Traffic {
    /// Finds what is wrong with the combination of parameters.
    pub(crate) fn check(
        from: &Target,
        to: &Endpoint,
        protocol: Protocol,
        direction: Direction,
        node: &Node,
        problems: &mut Problems,
    ) {
        let span = |key: &str| node.get(key).map_or(node.span, |at| at.span);
        if from.0.user.is_some() && direction == Direction::In {
            problems
                .add(span("direction"), "packets that arrive carry no user", "only what a user sends can be told")
                .help("write `direction: out`, or select by `cgroup` or `to`");
        }
        if protocol == Protocol::Icmp && (to.port.is_some() || from.0.port.is_some()) {
            problems.add(span("protocol"), "ICMP has no ports", "a port is named beside it").help("leave out the port");
        }
    }

    /// Reads what is meant on this host, now.
    ///
    /// # Errors
    /// That the packet filter cannot tell it, or cannot be used here, and what would work.
    pub(crate) async fn resolve(
        from: &Target,
        to: &Endpoint,
        protocol: Protocol,
        direction: Direction,
        host: &Host,
    ) -> Result<Self, FaultError> {
        let Clients::Owner(owner) = Clients::of(from)? else {
            return Err(FaultError::new(format!(
                "packets do not tell which process they are of ({} is meant)",
                from.0
            ))
            .help(
                "select by `user`, `cgroup` or the `port` that they listen on, or write `from: {host: true}` and \
                     narrow it down by `to`; network-latency and network-bandwidth can tell processes",
            ));
        };
        owner.conditions()?;
        nft::supported().map_err(|e| FaultError::because("packets cannot be filtered here", &e.why).help(e.instead))?;
        let destination = Destination::resolve(to, host).await?;
        let holder = ProcessId::current().map_err(|e| FaultError::because("cannot name this process", e))?;
        Ok(Self { holder, table: unused_name(), owner, destination, protocol, direction })
    }

    /// A plan of one step; `does` says what for: `drop`, and `kind` is what the fault claims for itself alone.
    pub(crate) fn plan(self, from: &Target, does: &str, kind: &str, mut warnings: Vec<String>) -> Plan {
        warnings.extend(self.destination.looked_up());
        let packets = match self.protocol {
            Protocol::Any => "the packets".to_owned(),
            other => format!("the {} packets", other.word().to_uppercase()),
        };
        let way = match (self.ends().contains(&End::Leaving), self.ends().contains(&End::Arriving)) {
            (true, true) => "between",
            (true, false) => "sent from",
            _ => "that arrive for",
        };
        let (whose, to) = (&from.0, &self.destination);
        let and = match way {
            "between" => "and",
            "sent from" => "to",
            _ => "from",
        };
        let what = format!("{packets} {way} {whose} {and} {to}");
        let table = &self.table;
        Plan {
            path: "nftables, on every packet, with a lease".into(),
            matched: 1,
            targets: vec![what.clone()],
            warnings,
            steps: vec![Step {
                describe: format!("{does} {what}"),
                claims: vec![format!("{kind} to {to}")],
                undo: Undo::KernelOwned(format!("the nftables table {table} goes with the process that made it")),
                data: to_data(&self),
            }],
        }
    }

    /// From a step.
    pub(crate) fn of(step: &Step) -> Result<Self, FaultError> {
        data_of(step)
    }

    /// Waits until the kernel has undone a step.
    pub(crate) async fn undo(step: &Step) -> Result<Vec<String>, FaultError> {
        let Self { holder, table, .. } = data_of(step)?;
        let what = format!("the nftables table {table}");
        wait_until_gone(&holder, &what, gone::table(&table)).await?;
        Ok(vec![format!("{what} is gone, and packets pass")])
    }

    /// Where it goes.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// What the user should know of the directions.
    pub(crate) fn one_way(&self) -> Option<String> {
        (self.owner.uid.is_some() && self.direction == Direction::Both).then(|| {
            "packets that arrive carry no user: what the user sends is hit, which hits both ways of a connection, \
             because nothing is acknowledged"
                .into()
        })
    }

    /// How many TCP connections that are open now it hits.
    pub(crate) async fn open_connections(&self) -> Result<usize, FaultError> {
        if matches!(self.protocol, Protocol::Udp | Protocol::Icmp) {
            return Ok(0);
        }
        let sockets = blocking(|| tcp_sockets(&[TcpState::Established])).await?;
        let sockets = sockets.map_err(|e| FaultError::because("the connections cannot be listed", e))?;
        let hit = sockets.iter().filter(|s| {
            self.destination.networks.iter().any(|n| n.contains(s.remote.ip()))
                && self.destination.port.is_none_or(|port| port == s.remote.port())
                && self.owner.port.is_none_or(|port| port == s.local.port())
                && self.owner.uid.is_none_or(|uid| uid == s.uid)
                && (self.means_loopback() || !s.remote.ip().is_loopback())
        });
        // Within this host both ends are listed.
        let pair = |a: SocketAddr, b: SocketAddr| if a < b { (a, b) } else { (b, a) };
        Ok(hit.map(|s| pair(s.local, s.remote)).collect::<BTreeSet<_>>().len())
    }

    /// Whether traffic within this host is meant.
    pub(super) fn means_loopback(&self) -> bool {
        self.destination.means_loopback() || self.owner.port.is_some()
    }

    /// Where packets are looked at.
    pub(super) fn ends(&self) -> Vec<End> {
        let has_ports = self.destination.port.is_some() || self.owner.port.is_some();
        // What leaves on the loopback interface arrives there: without a port to tell the two ways apart, each packet
        // would be met twice.
        let out_is_all = self.owner.uid.is_some() || (self.destination.is_loopback() && !has_ports);
        match self.direction {
            Direction::Out => vec![End::Leaving],
            Direction::In => vec![End::Arriving],
            Direction::Both if out_is_all => vec![End::Leaving],
            Direction::Both => vec![End::Leaving, End::Arriving],
        }
    }

    /// The packets that are meant at one end, by what can tell them. With `refusable`, only those of protocols that
    /// have a way to refuse.
    ///
    /// # Errors
    /// That the control group is gone.
    pub(super) fn selections(&self, end: End, refusable: bool) -> Result<Vec<Selection>, FaultError> {
        let owner = match end {
            End::Leaving => self.owner.conditions()?,
            End::Arriving => self.owner.group()?.into_iter().collect(),
        };
        let mut selections = Vec::new();
        for network in &self.destination.networks {
            for (transport, protocol) in self.protocols(network, refusable) {
                let mut conditions = vec![match end {
                    End::Leaving => Match::Destination(*network),
                    End::Arriving => Match::Source(*network),
                }];
                match transport {
                    Some(transport) => conditions.extend(self.ports(end, transport)),
                    None => conditions.extend(protocol),
                }
                conditions.extend(owner.iter().cloned());
                selections.push(Selection { conditions, transport });
            }
        }
        Ok(selections)
    }

    fn ports(&self, end: End, transport: Transport) -> Vec<Match> {
        let to = |port: u16| Match::DestinationPort(transport, port.into());
        let from = |port: u16| Match::SourcePort(transport, port.into());
        let (theirs, ours) = (self.destination.port, self.owner.port);
        let mut ports: Vec<Match> = match end {
            End::Leaving => theirs.map(to).into_iter().chain(ours.map(from)).collect(),
            End::Arriving => theirs.map(from).into_iter().chain(ours.map(to)).collect(),
        };
        if ports.is_empty() {
            ports.push(Match::Protocol(match transport {
                Transport::Tcp => 6,
                Transport::Udp => 17,
            }));
        }
        ports
    }

    /// The protocols as the kernel tells them: those with ports, and others by a condition, `None` for all.
    fn protocols(&self, network: &Cidr, refusable: bool) -> Vec<(Option<Transport>, Option<Match>)> {
        let has_ports = self.destination.port.is_some() || self.owner.port.is_some();
        let icmp = match network.address() {
            IpAddr::V4(_) => 1,
            IpAddr::V6(_) => 58,
        };
        match self.protocol {
            Protocol::Tcp => vec![(Some(Transport::Tcp), None)],
            Protocol::Udp => vec![(Some(Transport::Udp), None)],
            Protocol::Icmp => vec![(None, Some(Match::Protocol(icmp)))],
            Protocol::Any if has_ports || refusable => vec![(Some(Transport::Tcp), None), (Some(Transport::Udp), None)],
            Protocol::Any => vec![(None, None)],
        }
    }
}
